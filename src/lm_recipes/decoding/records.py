"""How do texts come in from a command line and answers go out to a file?"""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm_recipes.launch import UserError

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
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 {path.suffix} file: {error}") from error


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
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8", newline="") as stream:
        if target.suffix == ".csv":
            rows = [_flat(record) for record in records]
            writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        elif target.suffix == ".json":
            json.dump(records, stream, ensure_ascii=False, indent=1)
        else:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    scratch.replace(target)


def _flat(record: dict) -> dict:
    flat = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": deep for inner, deep in value.items()}
        else:
            several = isinstance(value, list) and all(isinstance(one, str) for one in value)
            flat[key] = "|".join(value) if several else value
    return flat
