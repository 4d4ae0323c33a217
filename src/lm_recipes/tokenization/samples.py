"""Which text does a tokenizer learn from, and on which is it held against others?"""

import random
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, islice
from pathlib import Path

from lm_recipes.launch import UserError
from lm_recipes.sources import load_documents, load_table, load_texts, split_of

# Demo tables come whole: this share of their rows, by a hash of the text, is never learned from.
HELD_OUT = 0.05
LANGUAGES = {"en": "English", "fr": "French", "es": "Spanish"}


def labelled_texts(
    sources: Sequence[str], split: str, text_column: str = "text", language_column: str | None = None
) -> Iterator[tuple[str, str]]:
    """Pairs (language, text) of one split of several corpora, one corpus after the other.

    Args:
        sources: corpus directories of clean.py, Hub ids with such a split, or demo tables.
        language_column: names the language of each row; without it every source is a language.

    Raises:
        UserError: while iterating, for a missing source, split or column.
    """
    for source in sources:
        if source.startswith("demo:"):
            rows = load_table(source)
            for column in filter(None, (text_column, language_column)):
                if column not in rows.column_names:
                    raise UserError(f"{source}: no column `{column}`; it has {', '.join(rows.column_names)}")
            kept = [split_of(text, HELD_OUT, 0) == split for text in rows[text_column]]
            texts = compress(rows[text_column], kept)
            labels = compress(rows[language_column], kept) if language_column else None
        else:
            texts = load_texts(source, split, text_column)
            labels = load_texts(source, split, language_column) if language_column else None
        yield from zip(labels, texts, strict=True) if labels else ((source, text) for text in texts)


def texts_by_language(
    sources: Sequence[str],
    split: str,
    text_column: str = "text",
    language_column: str | None = None,
    megabytes: float | None = None,
) -> dict[str, list[str]]:
    """The texts of `labelled_texts` by language, or about `megabytes` of them: every n-th one of the whole."""
    every = 1
    if megabytes is not None:
        size = sum(len(text.encode()) for _, text in labelled_texts(sources, split, text_column))
        every = max(1, round(size / (megabytes * 1e6)))
    found: dict[str, list[str]] = {}
    for language, text in islice(labelled_texts(sources, split, text_column, language_column), None, None, every):
        found.setdefault(language, []).append(text)
    return found


def comparison_texts(source: str, kilobytes: float, text_column: str = "text") -> dict[str, list[str]]:
    """Name -> documents, each about `kilobytes` of UTF-8 at most, to measure tokenizers on.

    Args:
        source: "python" (the standard library of this interpreter), "numbers" (dates, prices, sums, made up),
            a demo table (one text per language if it has any; dialogues turn by turn), a corpus directory of clean.py
            (its validation split), or whatever `sources.load_documents` takes.

    Raises:
        UserError: if the source is missing or has no text.
    """
    if source == "python":
        found = {"Python code": _python_sources()}
    elif source == "numbers":
        found = {"numbers": _numbers()}
    elif source == "demo:wiki-summaries":
        rows = list(labelled_texts([source], "validation", language_column="language"))
        found = {name: [text for label, text in rows if label == code] for code, name in LANGUAGES.items()}
    elif source == "demo:doctor-patient":
        found = {"dialogues": (turn["content"] for row in load_table(source)["messages"] for turn in row)}
    elif Path(source, "validation.parquet").is_file():
        found = {_short(source): load_texts(source, "validation", text_column)}
    else:
        found = {_short(source): (document.text for document in load_documents(source, text_column))}
    texts = {name: _up_to(documents, 1000 * kilobytes) for name, documents in found.items()}
    for name, documents in texts.items():
        if not documents:
            raise UserError(f"{source}: no text for `{name}`")
    return texts


def _short(source: str) -> str:
    """A corpus is called by the run it belongs to: runs/enwik8/corpus is enwik8."""
    path = Path(source)
    return path.parent.name if path.name == "corpus" and path.parent.name else path.name


def _up_to(documents: Iterable[str], size: float) -> list[str]:
    """Whole documents until `size` bytes are reached; the one that goes beyond is cut."""
    taken: list[str] = []
    for text in documents:
        data = text.encode("utf-8", "ignore")[: int(size)]
        size -= len(data)
        if data:
            taken.append(data.decode("utf-8", "ignore"))
        if size <= 0:
            break
    return taken


def _python_sources() -> Iterator[str]:
    """Modules of the standard library, a fixed half of them by a hash of their names, so that all of it is met."""
    folder = Path(sysconfig.get_path("stdlib"))
    for name in sorted(sys.stdlib_module_names):
        file = folder / f"{name}.py"
        if file.is_file() and split_of(name, 0.5, 0) == "validation":
            yield file.read_text(encoding="utf-8", errors="replace")


def _numbers() -> Iterator[str]:
    """Lines of arithmetic, dates, prices and measurements; the same ones every time."""
    rng = random.Random(0)
    while True:
        a, b = rng.randrange(10 ** rng.randint(1, 6)), rng.randrange(10 ** rng.randint(1, 4))
        yield (
            f"{a} + {b} = {a + b}; {a} x {b} = {a * b}\n"
            f"{rng.randint(1800, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02} "
            f"{rng.randrange(24):02}:{rng.randrange(60):02}, ${rng.randrange(10**7):,}.{rng.randrange(100):02}, "
            f"{rng.random() * 100:.3f} %, {rng.random() * 10 ** rng.randint(-6, 6):.4g} kg"
        )
