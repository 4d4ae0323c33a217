"""Which documents and rows do files hold, on this machine or behind any URL that fsspec knows (s3://, hf://, ...)?

Readers stream: memory is that of one document or one batch of rows, whatever the size of the file. What cannot
be read (a broken row, bytes that are no text, a file that is cut off) goes to `report`, with its file and row.
"""

import csv
import glob
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import fsspec
import pyarrow
import pyarrow.parquet
from fsspec.implementations.local import LocalFileSystem
from tqdm.utils import CallbackIOWrapper

from lm_recipes.launch import UserError
from lm_recipes.sources.documents import Kind, RawDocument, Report, Unreadable, refuse
from lm_recipes.sources.encodings import decode_html
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

# A plain-text file longer than this is cut at blank lines into documents of about this many bytes: a corpus in one
# file would otherwise be one document, which no split could divide and no memory hold.
TEXT_DOCUMENT_BYTES = 65_536
# What is longer than this is no document: a page, row or line this long would be held whole, several times over.
LONGEST_BYTES = 32 * 2**20
# Of a file that is cut off, at most this much text before the cut is lost with it.
BUFFER_BYTES = 2**16

_BROKEN_BYTE = re.compile("[\udc80-\udcff]")  # what decoding with surrogateescape leaves of a byte that is not UTF-8


class File(NamedTuple):
    """A readable file: `name` is what errors call it, `id` what its documents are called after."""

    fs: fsspec.AbstractFileSystem
    path: str
    name: str
    id: str

    @property
    def format(self) -> str:
        return file_format(self.path)

    @property
    def bytes(self) -> int:
        return self.fs.size(self.path) or 0


def names_files(source: str) -> bool:
    """Whether a source means files: a URL, or it exists, or is a glob, a file name or a path no Hub id looks like."""
    return (
        "://" in source
        or Path(source).expanduser().exists()
        or source.startswith(("/", "./", "../", "~", "runs/"))
        or glob.has_magic(source)
        or file_format(source) is not None
        or source.count("/") > 1
    )


def is_folder(source: str) -> bool:
    fs, path = _locate(source)
    return fs.isdir(path)


def list_files(source: str) -> list[File]:
    """The readable files that a file name, folder (searched in depth) or glob names, sorted; hidden ones left out.

    Raises:
        UserError: if there is nothing there, or nothing of a kind we read.
    """
    fs, path = _locate(source)
    if fs.isfile(path):
        if file_format(path) is None:
            raise UserError(f"{source}: not a kind of file that is read here ({READABLE})")
        return [File(fs, path, _shown(fs, path), path.rpartition("/")[2])]
    if glob.has_magic(source):
        found, folder = fs.glob(path), path[: re.search(r"[*?[]", path).start()].rpartition("/")[0]
    elif fs.isdir(path):
        found, folder = fs.find(path), path.rstrip("/")
    else:
        raise UserError(f"{source}: no such file or folder")
    files = []
    for path in sorted(found):
        id = path.removeprefix(f"{folder}/")
        hidden = any(part.startswith(".") for part in id.split("/"))
        # A folder's README.md is its card, not its text.
        if not hidden and file_format(path) and id != "README.md" and fs.isfile(path):
            files.append(File(fs, path, _shown(fs, path), id))
    if not files:
        raise UserError(f"{source}: no files of a kind that is read here ({READABLE})")
    return files


def _locate(source: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return fsspec.core.url_to_fs(source if "://" in source else str(Path(source).expanduser()))
    except (ImportError, ValueError) as error:  # a protocol nobody knows, or whose package is missing
        raise UserError(f"{source}: {' '.join(str(error).split())}") from error


def _shown(fs: fsspec.AbstractFileSystem, path: str) -> str:
    if not isinstance(fs, LocalFileSystem):
        return fs.unstrip_protocol(path)
    local = Path(path)
    return str(local.relative_to(Path.cwd()) if local.is_relative_to(Path.cwd()) else local)


def read_documents(
    source: str, text_column: str, report: Report = refuse, advance: Callable[[int], None] | None = None
) -> Iterator[RawDocument]:
    """The documents of files, in the order of their sorted names; see `list_files` for what `source` may be.

    Rows take their text from `text_column` and their id from a column `id` if there is one; otherwise ids are
    `<file>:<row>`. A `.txt`, `.md` or `.html` file is one document (see TEXT_DOCUMENT_BYTES for long texts).

    Args:
        report: told of every row, document or file that cannot be read; the others are read all the same.
        advance: told how many bytes of the files have been read since the last call.

    Raises:
        UserError: for a missing file or column, and whatever `report` raises.
    """
    for file in list_files(source):
        try:
            with _open(file, advance) as stream:
                if file.format == ".xml":
                    yield from read_pages(stream, file.name)
                elif file.format in ROWS:
                    yield from _row_documents(stream, file, text_column, report)
                elif WHOLE_FILE[file.format] == "text":
                    yield from _text_documents(stream, file, report)
                else:
                    yield _whole_document(stream, file)
        except Unreadable as fault:
            report(*fault.args)


def read_rows(file: File, report: Report = refuse) -> Iterator[tuple[int, dict]]:
    """The rows of one jsonl, csv, tsv or parquet file with their numbers, which start at 1; streamed."""
    try:
        with _open(file) as stream:
            yield from _rows(stream, file, report)
    except Unreadable as fault:
        report(*fault.args)


def file_format(path: str | Path) -> str | None:
    """The suffix that says what a file holds, without that of its compression; None if it is not read here."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    readable = suffixes and (suffixes[-1] in WHOLE_FILE or suffixes[-1] in ROWS or suffixes[-1] == ".xml")
    return suffixes[-1] if readable else None


def _compression(file: File) -> str | None:
    return COMPRESSED.get(Path(file.path).suffix.lower())


@contextmanager
def _open(file: File, advance: Callable[[int], None] | None = None) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed as they are read; what breaks on the way is `Unreadable`."""
    try:
        if not file.bytes:
            raise Unreadable(file.name, "an empty file")
        with file.fs.open(file.path, "rb") as raw:
            counted = CallbackIOWrapper(advance, raw) if advance else raw
            if file.format == ".parquet" and not _compression(file):
                yield counted  # its reader jumps about in it
            else:
                # Arrow decompresses, because Python's zstandard takes a file that was cut off for a whole one.
                yield io.BufferedReader(pyarrow.input_stream(counted, compression=_compression(file)), BUFFER_BYTES)
    except FileNotFoundError as error:
        raise Unreadable(file.name, "the file is gone") from error
    except OSError as error:
        if error.errno:
            raise Unreadable(file.name, f"cannot be read ({error.strerror})") from error
        raise Unreadable(file.name, f"cut off or damaged ({error}); make or fetch it again") from error


def _decode(data: bytes, where: str, first_line: int | None = None) -> str:
    if len(data) > LONGEST_BYTES:
        raise Unreadable(where, f"longer than {LONGEST_BYTES >> 20} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = first_line and first_line + data.count(b"\n", 0, error.start)
        raise Unreadable(
            f"{where}: line {line}" if line else where,
            f"not UTF-8 (byte {data[error.start]:#04x} at {error.start}); convert it first, "
            "for example with `iconv -f latin1 -t utf-8`",
        ) from error


def _lines(stream: BinaryIO, file: File, report: Report) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, without those too long to be held."""
    number = 0
    while line := stream.readline(LONGEST_BYTES):
        number += 1
        if len(line) < LONGEST_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := stream.readline(LONGEST_BYTES)) and not rest.endswith(b"\n"):
            pass
        report(f"{file.name}: line {number}", f"longer than {LONGEST_BYTES >> 20} MB")


def _whole_document(stream: BinaryIO, file: File) -> RawDocument:
    data = stream.read(LONGEST_BYTES + 1)
    kind = WHOLE_FILE[file.format]
    if kind != "html" or len(data) > LONGEST_BYTES:
        return RawDocument(file.id, _decode(data, file.name), kind)
    text = decode_html(data)
    if text is None:
        raise Unreadable(file.name, "not text in an encoding that could be made out")
    return RawDocument(file.id, text, kind)


def _text_documents(stream: BinaryIO, file: File, report: Report) -> Iterator[RawDocument]:
    for part, (first_line, data) in enumerate(_text_pieces(stream, file, report)):
        try:
            yield RawDocument(f"{file.id}#{part}" if part else file.id, _decode(data, file.name, first_line))
        except Unreadable as fault:
            report(*fault.args)


def _text_pieces(stream: BinaryIO, file: File, report: Report) -> Iterator[tuple[int, bytes]]:
    piece: list[bytes] = []
    size, first = 0, 1
    for number, line in _lines(stream, file, report):
        full = size >= TEXT_DOCUMENT_BYTES and not line.strip()
        if full or size + len(line) > LONGEST_BYTES:
            yield first, b"".join(piece)
            piece, size, first = [], 0, number
        piece.append(line)
        size += len(line)
    if piece:
        yield first, b"".join(piece)


def _row_documents(stream: BinaryIO, file: File, text_column: str, report: Report) -> Iterator[RawDocument]:
    found = False
    for number, row in _rows(stream, file, report):
        where = f"{file.name}: row {number}"
        text = row.get(text_column)
        if text_column not in row:
            missing = f"no column `{text_column}`; it has {', '.join(map(str, row))}"
            if not found:  # not this row's fault: the name is wrong
                raise UserError(f"{where}: {missing}. Name the right one with --text_column")
            report(where, missing)
            continue
        found = True
        if text is not None and not isinstance(text, str):
            report(where, f"`{text_column}` is a {type(text).__name__}, not a text")
        elif text and not _encodes(text) and _BROKEN_BYTE.search(text):
            report(where, "not UTF-8")
        elif text and len(text) > LONGEST_BYTES:
            report(where, f"longer than {LONGEST_BYTES >> 20} MB")
        else:
            yield RawDocument(str(row.get("id") or f"{file.id}:{number}"), text or "")


def _encodes(text: str) -> bool:
    """Whether there is no surrogate in it: three times as fast as to search for one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(stream: BinaryIO, file: File, report: Report) -> Iterator[tuple[int, dict]]:
    if file.format == ".parquet":
        yield from enumerate(_parquet_rows(stream, file), start=1)
    elif file.format in (".csv", ".tsv"):
        yield from _csv_rows(stream, file, "\t" if file.format == ".tsv" else ",", report)
    else:
        yield from _json_rows(stream, file, report)


def _json_rows(stream: BinaryIO, file: File, report: Report) -> Iterator[tuple[int, dict]]:
    for number, line in _lines(stream, file, report):
        if not line.strip():
            continue
        where = f"{file.name}: row {number}"
        try:
            # not strict: a raw control character in a string is for normalisation to remove
            row = json.loads(_decode(line, where), strict=False)
        except Unreadable as fault:
            report(*fault.args)
        except (json.JSONDecodeError, RecursionError) as error:
            report(where, f"not valid JSON ({getattr(error, 'msg', 'nested too deep')}); one object a line")
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                report(where, f"expected a JSON object, found a {type(row).__name__}")


def _csv_rows(stream: BinaryIO, file: File, delimiter: str, report: Report) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(sys.maxsize)  # the default refuses a cell over 128 KiB
    lines = (
        line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
        for number, line in _lines(stream, file, report)
    )
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            report(f"{file.name}: row {number} (line {reader.line_num})", f"not valid CSV ({error})")
            continue
        if not cells:
            continue
        if header is None:
            header = cells
            continue
        number += 1
        if len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
        else:
            wrong = "more" if len(cells) > len(header) else "fewer"
            where = f"{file.name}: row {number} (line {reader.line_num})"
            report(where, f"{wrong} cells than the {len(header)} of the header")


def _parquet_rows(stream: BinaryIO, file: File) -> Iterator[dict]:
    try:
        seekable = io.BytesIO(stream.read()) if _compression(file) else stream
        for batch in pyarrow.parquet.ParquetFile(seekable).iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise Unreadable(file.name, f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
