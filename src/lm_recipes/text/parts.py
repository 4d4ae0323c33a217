"""What does stage 1 remember between its passes, so that a killed run goes on and memory stays flat?

A part is what is left of one batch of documents: a small Parquet file with the texts, the columns by which documents
are compared (read alone, they are a few per cent of the text), and the batch's ledger in its metadata.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from lm_recipes.sources.documents import RawDocument
from lm_recipes.text.ledger import StepRecord

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("text", pyarrow.large_string()),
        ("bytes", pyarrow.int64()),  # of the text in UTF-8
        ("tokens", pyarrow.int64()),
        ("key", pyarrow.binary(16)),  # dedup.exact_key
        ("paragraphs", pyarrow.list_(pyarrow.uint64())),  # dedup.paragraph_keys, one per line
        ("signature", pyarrow.list_(pyarrow.uint64())),  # dedup.signature
        ("matches", pyarrow.list_(pyarrow.int64())),  # decontamination.Matches: ngrams, starts, ends
    ]
)


class Entry(NamedTuple):
    """A document in a part: the columns of SCHEMA."""

    id: str
    text: str
    bytes: int
    tokens: int
    key: bytes
    paragraphs: np.ndarray
    signature: np.ndarray
    matches: np.ndarray


def digest(documents: Iterable[RawDocument], recipe: bytes) -> str:
    """What a part is made from, 32 hex digits: the batch's documents, and `recipe`, which decides what they become."""
    state = hashlib.blake2b(recipe, digest_size=16)
    for document in documents:
        for value in (document.id, document.kind, document.text):
            data = value.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def encode(entries: list[Entry], records: list[StepRecord] = ()) -> bytes:
    """A part as the bytes of its Parquet file."""
    columns = zip(*entries, strict=True) if entries else [[] for _ in SCHEMA]
    arrays = [pyarrow.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    ledger = json.dumps([asdict(record) for record in records])
    table = pyarrow.Table.from_arrays(arrays, schema=SCHEMA.with_metadata({"ledger": ledger}))
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="lz4")
    return sink.getvalue().to_pybytes()


def write(path: Path, part: bytes) -> None:
    """A reader sees the whole part or none."""
    scratch = path.with_suffix(".unfinished")
    scratch.write_bytes(part)
    os.replace(scratch, path)


def ledger_of(path: Path) -> list[StepRecord]:
    metadata = pyarrow.parquet.read_schema(path).metadata
    return [StepRecord(**record) for record in json.loads(metadata[b"ledger"])]


class Parts:
    """The documents of a list of parts, numbered 0..N-1 in their order.

    Attributes:
        paths: a part may be replaced by one with the same rows.
        starts: int64 [parts + 1], the number of each part's first document.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        rows = [pyarrow.parquet.read_metadata(path).num_rows for path in paths]
        self.starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)
        self._texts = lru_cache(maxsize=64)(self._read_texts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> Iterator[pyarrow.Array]:
        """One column, part by part."""
        for path in self.paths:
            yield _column(path, name)

    def numbers(self, name: str) -> np.ndarray:
        """A column of integers, whole: int64 [N]."""
        return np.concatenate([np.empty(0, np.int64), *(part.to_numpy() for part in self.column(name))])

    def replace(self, number: int, path: Path) -> None:
        self.paths[number] = path
        self._texts.cache_clear()

    def part_of(self, document: int) -> int:
        return int(np.searchsorted(self.starts, document, side="right")) - 1

    def text(self, document: int) -> str:
        """One document's text. Neighbours are quick: the latest 64 parts stay in memory."""
        part = self.part_of(document)
        return self._texts(part)[document - int(self.starts[part])].as_py()

    def id(self, document: int) -> str:
        part = self.part_of(document)
        return _column(self.paths[part], "id")[document - int(self.starts[part])].as_py()

    def rows(self, part: int) -> pyarrow.Table:
        return pyarrow.parquet.ParquetFile(self.paths[part]).read()

    def _read_texts(self, part: int) -> pyarrow.Array:
        return _column(self.paths[part], "text")


def _column(path: Path, name: str) -> pyarrow.Array:
    # not read_table: that starts the dataset engine, for one small file
    return pyarrow.parquet.ParquetFile(path).read([name]).column(0).combine_chunks()
