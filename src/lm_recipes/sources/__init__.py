"""Where does text come from? One source string names a demo set, local files, or a Hub dataset.

demo:enwik8                   a demo set out of a pinned package archive (demo.py lists them)
data/  news.jsonl.gz  *.html  files, folders and globs (files.py)
Salesforce/wikitext:wikitext-2-raw-v1     a Hub id, with a configuration after the colon
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lm_recipes.launch import UserError
from lm_recipes.sources import demo, files
from lm_recipes.sources.archives import read_lock
from lm_recipes.sources.documents import RawDocument
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "RawDocument",
    "count_documents",
    "describe",
    "load_documents",
    "load_table",
    "load_texts",
    "resolve_model",
    "split_of",
]

BUILDERS = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def load_documents(source: str, text_column: str = "text", limit: int | None = None) -> Iterator[RawDocument]:
    """The first `limit` documents of a source (None: all), one at a time, in an order that never changes.

    Args:
        source: see the top of this file. Tables and Hub datasets (split "train") take their text from
            `text_column`.

    Raises:
        UserError: while iterating, for anything that is missing or broken, with file and row.
    """
    return islice(_documents(source, text_column), limit)


def _documents(source: str, text_column: str) -> Iterator[RawDocument]:
    if source == "demo:enwik8":
        yield from demo.enwik8()
    elif not source.startswith("demo:") and files.looks_local(source):
        yield from files.read_documents(source, text_column)
    else:
        rows = load_table(source) if source.startswith("demo:") else _hub(source, "train", streaming=True)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get(text_column), str):
                raise UserError(f"{source}: row {number}: no text in `{text_column}`; columns: {', '.join(row)}")
            yield RawDocument(str(row.get("id") or f"{source}:{number}"), row[text_column])


def count_documents(source: str, limit: int | None = None) -> int | None:
    """How many documents `load_documents` will give at most, where that is known without reading them."""
    known = None
    if source in demo.DEMOS:
        known = demo.DEMOS[source].rows
    elif files.looks_local(source):
        known = files.count_documents(source)
    counts = [count for count in (known, limit) if count is not None]
    return min(counts) if counts else None


def load_texts(source: str, split: str, text_column: str = "text") -> Iterator[str]:
    """The texts of one split of a corpus, in order: a directory that clean.py made, or whatever
    `load_table` takes.

    Raises:
        UserError: while iterating, for a missing source, split or column.
    """
    file = Path(source) / f"{split}.parquet"
    if file.is_file():
        yield from (document.text for document in files.read_documents(str(file), text_column))
        return
    table = load_table(source, split)
    if text_column not in table.column_names:
        raise UserError(f"{source}: no column `{text_column}`; it has {', '.join(table.column_names)}")
    yield from table[text_column]


def load_table(source: str, split: str | None = None) -> "Dataset":
    """Rows for fine-tuning.

    Args:
        source: a demo table, a jsonl/csv/tsv/parquet file, folder or glob (a folder's `train.*`,
            `validation.*` and `test.*` are its splits), or a Hub id.
        split: None means all rows of a source without splits, and "train" of one that has them.

    Raises:
        UserError: for a source or split that is missing, broken (with file and row) or empty.
    """
    from datasets import Dataset

    if source.startswith("demo:"):
        about = demo.demo(source)
        if source not in demo.TABLES:
            raise UserError(f"{source} ({about.what}) is not a table; there are {', '.join(demo.TABLES)}")
        if split not in (None, "train"):
            raise UserError(f"{source} has no split `{split}`: it comes whole, divide it with sources.split_of")
        table = Dataset.from_list(demo.TABLES[source]())
    elif files.looks_local(source):
        table = _local_table(source, split)
    else:
        table = _hub(source, split or "train")
    if not len(table):
        raise UserError(f"{source}: no rows{f' in split {split}' if split else ''}")
    return table


def _local_table(source: str, split: str | None) -> "Dataset":
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    found = [file for file in files.list_files(source) if files.file_format(file) in BUILDERS]
    if not found:
        raise UserError(f"{source}: no rows here; a table is a {', '.join(BUILDERS)} file (.gz, .zst)")
    # As on the Hub, train.jsonl.gz and train-00000-of-00002.parquet are parts of the split "train".
    splits = {file: re.split(r"[.-]", file.name)[0] for file in found if Path(source).expanduser().is_dir()}
    if "train" in splits.values() or split not in (None, "train"):
        found = [file for file in splits if splits[file] == (split or "train")]
        if not found:
            has = ", ".join(sorted(set(splits.values()))) or "no splits"
            raise UserError(f"{source}: no split `{split}` here; it has {has}")
    formats = {files.file_format(file) for file in found}
    if len(formats) > 1:
        raise UserError(f"{source}: files of several kinds ({', '.join(sorted(formats))}); name one with a glob")
    (suffix,) = formats
    options = {"sep": "\t"} if suffix == ".tsv" else {}
    try:
        return load_dataset(BUILDERS[suffix], data_files=[str(file) for file in found], split="train", **options)
    except (DatasetGenerationError, ValueError) as error:
        for file in found:  # datasets does not say which row: our own reader does
            if not sum(1 for _ in files.read_rows(file)):
                raise UserError(f"{file}: no rows") from error
        raise UserError(
            f"{source}: rows do not fit together ({' '.join(str(error.__cause__ or error).split())})"
        ) from error


def _hub(source: str, split: str, streaming: bool = False):
    from datasets import load_dataset

    name, _, configuration = source.partition(":")
    try:
        return load_dataset(name, configuration or None, split=split, streaming=streaming)
    except (OSError, ValueError) as error:  # not found, no such split, offline: datasets' own words say which
        why = " ".join(str(error).split())
        raise UserError(f"{source}: no such local file, and not to be had from the Hub ({why})") from error


def resolve_model(name: str) -> str:
    """A name for `from_pretrained`: a demo model becomes its local directory, everything else stays as it is.

    Raises:
        UserError: for an unknown demo name, or a local path that does not exist.
    """
    if name.startswith("demo:"):
        return str(demo.demo_model(name))
    path = Path(name).expanduser()
    if path.exists():
        return str(path)
    if name.startswith(("/", "./", "../", "~", "runs/")) or name.count("/") > 1:
        raise UserError(f"{name}: no such model directory; make it first, or name a Hub id or demo:... model")
    return name


def describe(source: str) -> dict[str, str]:
    """For cards: `name`, `what`, `licence`, `homepage`, `archive` (its pin), `size`; "" where not known."""
    about = {"name": source, "what": "", "licence": "", "homepage": "", "archive": "", "size": ""}
    if source.startswith("demo:"):
        known = demo.demo(source)
        pin = read_lock()[known.package]
        about |= {"what": known.what, "licence": known.licence, "homepage": known.homepage}
        return about | {"archive": pin.line.strip(), "size": f"{known.megabytes} MB archive"}
    if files.looks_local(source):
        found = files.list_files(source)
        size = sum(file.stat().st_size for file in found)
        return about | {"what": f"{len(found)} local files", "size": f"{size / 1e6:.1f} MB"}
    return about | {
        "what": "a Hugging Face Hub repository",
        "homepage": f"https://huggingface.co/{source.partition(':')[0]}",
    }
