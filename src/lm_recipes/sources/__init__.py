"""Where does text come from? One source string names a demo set, local files, or a Hub dataset.

demo:enwik8                   a demo set out of a pinned package archive (demo.py lists them)
data/  news.jsonl.gz  *.html  files, folders and globs (files.py), also behind URLs: s3://, gs://, hf://, https://
Salesforce/wikitext:wikitext-2-raw-v1     a Hub id, with a configuration after the colon
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lm_recipes.launch import UserError
from lm_recipes.sources import demo, files
from lm_recipes.sources.archives import read_lock
from lm_recipes.sources.demo_models import demo_model
from lm_recipes.sources.documents import RawDocument, Report, refuse
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "RawDocument",
    "describe",
    "load_documents",
    "load_strings",
    "load_table",
    "load_texts",
    "resolve_model",
    "split_of",
]

BUILDERS = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def load_documents(
    source: str,
    text_column: str = "text",
    limit: int | None = None,
    report: Report = refuse,
    bar: tqdm | None = None,
) -> Iterator[RawDocument]:
    """The first `limit` documents of a source (None: all), one at a time, in an order that never changes.

    Args:
        source: see the top of this file. Tables and Hub datasets (split "train") take their text from
            `text_column`.
        report: told where and why something in local files cannot be read; the default refuses.
        bar: moved along, in bytes of files where the number of documents is not known.

    Raises:
        UserError: while iterating, for anything that is missing or broken, with file and row.
    """
    advance, documents = None, None
    if bar is not None:
        documents = limit or (demo.demo(source).rows if source.startswith("demo:") else None)
        if documents or not files.names_files(source):
            bar.total, bar.unit = documents, " documents"
        else:
            bar.total, bar.unit, bar.unit_scale = sum(file.bytes for file in files.list_files(source)), "B", True
            advance = bar.update
    for document in islice(_documents(source, text_column, report, advance), limit):
        yield document
        if bar is not None and not advance:
            bar.update()


def _documents(source: str, text_column: str, report: Report, advance) -> Iterator[RawDocument]:
    if source == "demo:enwik8":
        yield from demo.enwik8()
    elif not source.startswith("demo:") and files.names_files(source):
        yield from files.read_documents(source, text_column, report, advance)
    else:
        rows = load_table(source) if source.startswith("demo:") else _hub(source, "train", streaming=True)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get(text_column), str):
                raise UserError(f"{source}: row {number}: no text in `{text_column}`; columns: {', '.join(row)}")
            yield RawDocument(str(row.get("id") or f"{source}:{number}"), row[text_column])


def load_texts(source: str, split: str, text_column: str = "text") -> Iterator[str]:
    """The texts of one split of a corpus, in order: a directory that clean.py made, or whatever
    `load_table` takes.

    Raises:
        UserError: while iterating, for a missing source, split or column.
    """
    if "://" in source or (Path(source) / f"{split}.parquet").is_file():
        parquet = f"{source.rstrip('/')}/{split}.parquet"
        yield from (document.text for document in files.read_documents(parquet, text_column))
        return
    table = load_table(source, split)
    if text_column not in table.column_names:
        raise UserError(f"{source}: no column `{text_column}`; it has {', '.join(table.column_names)}")
    yield from table[text_column]


def load_strings(source: str) -> Iterator[str]:
    """Every text in every row of a table, one by one: questions, answers, the turns of dialogues.

    Args:
        source: what `load_table` takes; `source@split` names a split.
    """
    name, _, split = source.partition("@")
    for row in demo.TABLES[name]() if name in demo.TABLES else load_table(name, split or None):
        yield from _strings_in(row)


def _strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings_in(item)


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
    elif files.names_files(source):
        table = _local_table(source, split)
    else:
        table = _hub(source, split or "train")
    if not len(table):
        raise UserError(f"{source}: no rows{f' in split {split}' if split else ''}")
    return table


def _local_table(source: str, split: str | None) -> "Dataset":
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    found = [file for file in files.list_files(source) if file.format in BUILDERS]
    if not found:
        raise UserError(f"{source}: no rows here; a table is a {', '.join(BUILDERS)} file (.gz, .zst)")
    # As on the Hub, train.jsonl.gz and train-00000-of-00002.parquet are parts of the split "train".
    splits = {file: re.split(r"[.-]", Path(file.path).name)[0] for file in found if files.is_folder(source)}
    if "train" in splits.values() or split not in (None, "train"):
        found = [file for file in splits if splits[file] == (split or "train")]
        if not found:
            has = ", ".join(sorted(set(splits.values()))) or "no splits"
            raise UserError(f"{source}: no split `{split}` here; it has {has}")
    formats = {file.format for file in found}
    if len(formats) > 1:
        raise UserError(f"{source}: files of several kinds ({', '.join(sorted(formats))}); name one with a glob")
    (suffix,) = formats
    options = {"sep": "\t"} if suffix == ".tsv" else {}
    try:
        return load_dataset(
            BUILDERS[suffix],
            data_files=[file.fs.unstrip_protocol(file.path) for file in found],
            split="train",
            **options,
        )
    except (DatasetGenerationError, ValueError) as error:
        for file in found:  # datasets does not say which row: our own reader does
            if not sum(1 for _ in files.read_rows(file)):
                raise UserError(f"{file.name}: no rows") from error
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
        return str(demo_model(name))
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
    if files.names_files(source):
        found = files.list_files(source)
        size = sum(file.bytes for file in found)
        return about | {"what": f"{len(found)} files", "size": f"{size / 1e6:.1f} MB"}
    return about | {
        "what": "a Hugging Face Hub repository",
        "homepage": f"https://huggingface.co/{source.partition(':')[0]}",
    }
