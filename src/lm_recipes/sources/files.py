"""Which documents and rows do local files hold?

Readers stream: memory is that of one document or one batch of rows, whatever the size of the file. Every
error names the file and, where there are rows, the row.
"""

import csv
import glob
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from lm_recipes.launch import UserError
from lm_recipes.sources.documents import Kind, RawDocument
from lm_recipes.sources.mediawiki import read_pages

WHOLE_FILE: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
}
ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
READABLE = f"{', '.join([*WHOLE_FILE, *ROWS, '.xml'])}, and {' or '.join(COMPRESSED)} of these"

# A plain-text file longer than this is cut at blank lines into documents of about this many characters: a
# corpus in one file would otherwise be one document, which no split could divide and no memory hold.
TEXT_DOCUMENT_CHARACTERS = 65_536


def looks_local(source: str) -> bool:
    """Whether a source means files: it exists, or is a glob, a file name or a path no Hub id looks like."""
    path = Path(source)
    return (
        path.expanduser().exists()
        or source.startswith(("/", "./", "../", "~", "runs/"))
        or glob.has_magic(source)
        or file_format(path) is not None
        or source.count("/") > 1
    )


def list_files(source: str) -> list[Path]:
    """The readable files that a file name, folder (searched in depth) or glob names, sorted; hidden ones left out.

    Raises:
        UserError: if there is nothing there, or nothing of a kind we read.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if file_format(path) is None:
            raise UserError(f"{source}: not a kind of file that is read here ({READABLE})")
        return [path]
    if path.is_dir():
        names = [file.relative_to(path) for file in path.rglob("*")]
        found = {path / name for name in names if not any(part.startswith(".") for part in name.parts)}
    elif glob.has_magic(source):
        found = {Path(name) for name in glob.glob(str(path), recursive=True)}
    else:
        raise UserError(f"{source}: no such file or folder")
    # A folder's README.md is its card, not its text.
    files = sorted(f for f in found if file_format(f) and f.name != "README.md" and f.is_file())
    if not files:
        raise UserError(f"{source}: no files of a kind that is read here ({READABLE})")
    return files


def read_documents(source: str, text_column: str) -> Iterator[RawDocument]:
    """The documents of local files, in the order of their sorted names; see `list_files` for what `source` may be.

    Rows take their text from `text_column` and their id from a column `id` if there is one; otherwise ids are
    `<file>:<row>`. A `.txt`, `.md` or `.html` file is one document (see TEXT_DOCUMENT_CHARACTERS for long texts).

    Raises:
        UserError: for a missing file or column, undecodable text, a broken row or a truncated archive.
    """
    files = list_files(source)
    base = Path(source).expanduser() if Path(source).expanduser().is_dir() else None
    for file in files:
        name = str(file.relative_to(base)) if base else file.name
        suffix = file_format(file)
        if suffix == ".xml":
            with _open(file) as stream:
                yield from read_pages(stream, str(file))
        elif suffix in ROWS:
            yield from _row_documents(file, name, text_column)
        else:
            yield from _text_documents(file, name, WHOLE_FILE[suffix])


def count_documents(source: str) -> int | None:
    """How many documents `read_documents` will give, or None where only reading them would tell."""
    total = 0
    for file in list_files(source):
        if file.suffix in (".html", ".htm", ".md") or (
            file.suffix == ".txt" and file.stat().st_size <= TEXT_DOCUMENT_CHARACTERS
        ):
            total += 1
        elif file.suffix == ".parquet":
            with suppress(pyarrow.ArrowException):  # reading it will say what is wrong
                total += pyarrow.parquet.read_metadata(file).num_rows
        else:
            return None
    return total


def read_rows(file: Path) -> Iterator[dict]:
    """The rows of one jsonl, csv, tsv or parquet file, streamed; row numbers in errors start at 1."""
    suffix = file_format(file)
    with _open(file) as stream:
        if suffix == ".parquet":
            yield from _parquet_rows(stream, file)
        elif suffix in (".csv", ".tsv"):
            yield from _csv_rows(stream, file, "\t" if suffix == ".tsv" else ",")
        else:
            yield from _json_rows(stream, file)


def file_format(path: Path) -> str | None:
    """The suffix that says what a file holds, without that of its compression; None if it is not read here."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    readable = suffixes and (suffixes[-1] in WHOLE_FILE or suffixes[-1] in ROWS or suffixes[-1] == ".xml")
    return suffixes[-1] if readable else None


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed as they are read; what breaks on the way is a UserError."""
    try:
        # Arrow's streams, because Python's zstandard takes a file that was cut off for a whole one.
        with pyarrow.input_stream(str(file), compression=COMPRESSED.get(file.suffix.lower())) as stream:
            yield io.BufferedReader(stream)
    except OSError as error:
        if error.errno:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        raise UserError(f"{file}: cut off or damaged ({error}); make or fetch it again") from error


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte {data[error.start]:#04x} at {error.start}); convert it first, "
            "for example with `iconv -f latin1 -t utf-8`"
        ) from error


def _text_documents(file: Path, name: str, kind: Kind) -> Iterator[RawDocument]:
    with _open(file) as stream:
        if kind != "text":
            yield RawDocument(name, _decode(stream.read(), str(file)), kind)
            return
        piece: list[str] = []
        size = part = 0
        for number, data in enumerate(stream, start=1):
            line = _decode(data, f"{file}: line {number}")
            if size >= TEXT_DOCUMENT_CHARACTERS and not line.strip():
                yield RawDocument(f"{name}#{part}", "".join(piece), kind)
                piece, size, part = [], 0, part + 1
            piece.append(line)
            size += len(line)
        yield RawDocument(f"{name}#{part}" if part else name, "".join(piece), kind)


def _row_documents(file: Path, name: str, text_column: str) -> Iterator[RawDocument]:
    for number, row in enumerate(read_rows(file), start=1):
        text = row.get(text_column)
        if text_column not in row:
            raise UserError(
                f"{file}: row {number}: no column `{text_column}`; it has {', '.join(map(str, row))}. "
                "Name the right one with --text_column"
            )
        if not isinstance(text, str):
            if text is not None:
                raise UserError(f"{file}: row {number}: `{text_column}` is a {type(text).__name__}, not a text")
            text = ""
        yield RawDocument(str(row.get("id") or f"{name}:{number}"), text)


def _json_rows(stream: BinaryIO, file: Path) -> Iterator[dict]:
    for number, data in enumerate(stream, start=1):
        line = _decode(data, f"{file}: row {number}")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}: row {number}: not valid JSON ({error.msg}); one object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}: row {number}: expected a JSON object, found a {type(row).__name__}")
        yield row


def _csv_rows(stream: BinaryIO, file: Path, delimiter: str) -> Iterator[dict]:
    csv.field_size_limit(sys.maxsize)  # the default refuses a cell over 128 KiB
    lines = (_decode(data, f"{file}: line {number}") for number, data in enumerate(stream, start=1))
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                wrong = "more" if None in row else "fewer"
                where = f"{file}: row {number} (line {reader.line_num})"
                raise UserError(f"{where}: {wrong} cells than the {len(reader.fieldnames)} of the header")
            yield row
    except csv.Error as error:
        raise UserError(f"{file}: line {reader.line_num}: not valid CSV ({error})") from error


def _parquet_rows(stream: BinaryIO, file: Path) -> Iterator[dict]:
    try:
        seekable = io.BytesIO(stream.read()) if file.suffix.lower() in COMPRESSED else file
        for batch in pyarrow.parquet.ParquetFile(seekable).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise UserError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
