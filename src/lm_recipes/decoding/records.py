"""How do texts come in from a command line or a file, and answers go out to a file?"""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow
import pyarrow.parquet

from lm_recipes.launch import UserError
from lm_recipes.sources import files

OUTPUTS = (".jsonl", ".json", ".csv")


def read_texts(given: list[str] | None, path: str | None, column: str = "text") -> list[str]:
    """Texts from the command line, from a file, or else from standard input, in order.

    Args:
        given: texts as they were typed; an empty one is kept.
        path: .txt (a text a line; blank lines are left out), .jsonl (a string, or an object with `column`, a
            line) or .csv (with a header that names `column`).

    Raises:
        UserError: for both or neither, a missing file or column (with its row), or nothing but blank.
    """
    if given and path:
        raise UserError(f"texts on the command line and in {path}: give one or the other")
    if given:
        return given
    if path:
        texts, where = list(_file_texts(Path(path), column)), path
    elif sys.stdin is None or sys.stdin.isatty():
        raise UserError("no text: write it on the command line, name a file, or pipe it in (see --help)")
    else:
        texts, where = _lines(sys.stdin), "standard input"
    if not texts:
        raise UserError(f"{where}: holds no text")
    return texts


def _lines(lines: Iterable[str]) -> list[str]:
    return [line.rstrip("\r\n") for line in lines if line.strip()]


def _file_texts(path: Path, column: str) -> Iterator[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix not in (".txt", ".jsonl", ".csv"):
        raise UserError(f"{path}: expected a .txt, .jsonl or .csv file")
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".txt":
                yield from _lines(stream)
                return
            rows = csv.DictReader(stream) if path.suffix == ".csv" else map(json.loads, _lines(stream))
            for number, row in enumerate(rows, start=1):
                text = row.get(column) if isinstance(row, dict) else row
                if not isinstance(text, str):
                    columns = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
                    raise UserError(f"{path}, row {number}: no text under `{column}`; there is: {columns}")
                yield text
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 file: {error}") from error
    except (json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"{path}, row {number + 1}: not valid {path.suffix[1:]}: {error}") from error


def refuse_output(path: str | None) -> None:
    """Refuse an output file of a kind `write_records` does not write, before any work is done.

    Raises:
        UserError: names the kinds it does write.
    """
    if path and Path(path).suffix not in OUTPUTS:
        raise UserError(f"--output {path}: the name must end in {', '.join(OUTPUTS)}")


def write_records(path: str, records: list[dict]) -> None:
    """Write one record a row (.jsonl, .csv) or a list of them (.json); a reader never sees half of it.

    In .csv a nested table becomes columns named `outer.inner`, and a list of texts `a|b`.
    """
    target = Path(path)
    with _whole_file(target) as stream:
        if target.suffix == ".csv":
            rows = [_flat(record) for record in records]
            writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        elif target.suffix == ".json":
            json.dump(records, stream, ensure_ascii=False, indent=1)
        else:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def _whole_file(target: Path) -> Iterator[IO[str]]:
    """A text file that takes its name only when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _flat(record: dict) -> dict:
    flat = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": deep for inner, deep in value.items()}
        else:
            several = isinstance(value, list) and all(isinstance(one, str) for one in value)
            flat[key] = "|".join(value) if several else value
    return flat


# --- the rows of a file, with columns added ---


def row_file(source: str, output: str) -> files.File:
    """The one file of rows that `source` names (.jsonl, .csv, .tsv or .parquet; the first three also .gz and .zst), to
    be written with more columns to `output`, a file on this machine of the same kind.

    Raises:
        UserError: it is not one such file, or `output` is of another kind or the very file that is read.
    """
    found = files.list_files(source)
    if len(found) != 1:
        raise UserError(f"{source}: {len(found)} files; name one, each has an output of its own")
    (file,) = found
    if file.format not in files.ROWS:
        raise UserError(f"{source}: {file.format} holds no rows; one of {', '.join(files.ROWS)} does")
    if Path(output).suffix.lower() != file.format:
        raise UserError(f"--output {output}: rows stay in their format; the name must end in {file.format}")
    if Path(output).exists() and Path(output).resolve() == Path(file.path).resolve():
        raise UserError(f"--output {output}: is the file that is read; choose another name")
    return file


def read_parquet(path: str | Path) -> pyarrow.Table:
    """A small Parquet file, whole. Not `read_table`, which starts the dataset engine for it."""
    return pyarrow.parquet.ParquetFile(path).read()


def write_with_answers(file: files.File, parts: list[Path], schema: pyarrow.Schema, output: str) -> None:
    """Write the rows of `file` to `output`, in their order, each with the columns of its answer behind its own.

    In .csv and .tsv a table of an answer becomes columns `outer.inner`, and a list JSON. A reader never sees half of
    the output.

    Args:
        parts: Parquet files of `schema` that hold as many answers as the file has rows, in their order.
        output: of the file's format.
    """
    if file.format == ".parquet":
        _parquet_with_answers(file, parts, schema, Path(output))
        return
    answers = (answer for part in parts for answer in read_parquet(part).to_pylist())
    rows = (row for _, row in files.read_rows(file))
    with _whole_file(Path(output)) as stream:
        if file.format in (".csv", ".tsv"):
            _csv_with_answers(rows, answers, schema, stream, "\t" if file.format == ".tsv" else ",")
        else:
            both = zip(rows, answers, strict=True)
            stream.writelines(json.dumps(row | answer, ensure_ascii=False) + "\n" for row, answer in both)


def _csv_with_answers(
    rows: Iterator[dict], answers: Iterator[dict], schema: pyarrow.Schema, stream: IO[str], delimiter: str
) -> None:
    added = [name for field in schema for name in _flat_names(field)]
    lists_of = {field.name: field.type.value_type for field in schema if pyarrow.types.is_list(field.type)}
    nested = [name for name, kind in lists_of.items() if not pyarrow.types.is_string(kind)]
    writer = None
    for row, answer in zip(rows, answers, strict=True):
        if writer is None:
            writer = csv.DictWriter(stream, fieldnames=[*row, *added], delimiter=delimiter)
            writer.writeheader()
        # by their type: an empty list of entities is [], not ""
        lists = {key: json.dumps(answer[key], ensure_ascii=False) for key in nested if answer[key] is not None}
        cells = {
            key: value
            for key, value in _flat(answer | lists).items()
            if key in added  # a table that is empty, where there was nothing to answer, has no cell of its own
        }
        writer.writerow(row | cells)


def _flat_names(field: pyarrow.Field) -> list[str]:
    if pyarrow.types.is_struct(field.type):
        return [f"{field.name}.{inner.name}" for inner in field.type]
    return [field.name]


def _parquet_with_answers(file: files.File, parts: list[Path], schema: pyarrow.Schema, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with file.fs.open(file.path, "rb") as stream:
            source = pyarrow.parquet.ParquetFile(stream)
            whole = pyarrow.schema([*source.schema_arrow, *schema])
            with pyarrow.parquet.ParquetWriter(scratch, whole) as writer:
                for table in _side_by_side(source.iter_batches(), parts, whole):
                    writer.write_table(table)
        scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)


def _side_by_side(
    batches: Iterable[pyarrow.RecordBatch], parts: list[Path], whole: pyarrow.Schema
) -> Iterator[pyarrow.Table]:
    """Each batch of rows beside its answers: neither file is held whole."""
    waiting, rest = iter(parts), None
    for batch in batches:
        while rest is None or rest.num_rows < batch.num_rows:
            more = read_parquet(next(waiting))
            rest = more if rest is None else pyarrow.concat_tables([rest, more])
        answers, rest = rest.slice(0, batch.num_rows), rest.slice(batch.num_rows)
        columns = [*pyarrow.Table.from_batches([batch]).columns, *answers.columns]
        yield pyarrow.Table.from_arrays(columns, schema=whole)
