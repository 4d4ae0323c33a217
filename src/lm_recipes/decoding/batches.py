"""How are the rows of a file answered, in batches of like length, so that a run that was killed goes on?"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
from tqdm.auto import tqdm

from lm_recipes.artifacts import work_directory
from lm_recipes.decoding.records import row_file, write_with_answers
from lm_recipes.launch import UserError
from lm_recipes.sources import files
from lm_recipes.text import parts

logger = logging.getLogger(__name__)

# Rows of a part: what a killed run loses at most, and among how many rows batches of like length are looked for.
PART_ROWS = 1_024


@dataclass(frozen=True)
class Task:
    """What is asked about each row."""

    columns: dict[str, str]  # name in `answer` ("text", "question", ...) -> column of the file
    schema: pyarrow.Schema  # the columns of an answer
    lengths: Callable[[list[dict]], list[int]]  # how long rows are, in tokens or what grows with them
    answer: Callable[[list[dict], int], list[dict]]  # (rows of one batch, seed) -> their answers, in order
    longest: int | None = None  # rows with more tokens are refused before anything is answered; None: any number


def answer_rows(
    rows: Sequence[dict], task: Task, batch_size: int, seed: int = 0, bar: tqdm | None = None
) -> list[dict]:
    """The answers to rows, in their order. Batches hold rows of like length, longest first: little padding, and what
    does not fit into memory shows at once."""
    lengths = task.lengths(list(rows))
    order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
    answers: list[dict | None] = [None] * len(rows)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        found = task.answer([rows[place] for place in places], seed + start)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
        if bar is not None:
            bar.update(len(places))
    return answers


def answer_file(
    source: str, output: str, task: Task, *, identity: dict, prefix: str = "", batch_size: int = 32, seed: int = 0
) -> dict[str, int]:
    """Write the rows of `source` to `output`, in their order, with the columns of `task.schema` behind their own.

    What is done lies in `.<output>.work` beside the output, a part for each PART_ROWS rows, until the output is
    written: the same command goes on where it was killed. A part is found again by a hash of its rows and of
    `identity`, so nothing else's is. A row without a text has an empty answer.

    Args:
        source: one .jsonl, .csv, .tsv or .parquet file. output: of the same kind.
        identity: what answers depend on beside the rows: the model's fingerprint, settings.
        prefix: of the names of the new columns.
        seed: of what is drawn; each batch has its own, from this and from where it stands.

    Returns:
        `rows`, and of these `rows_without_text`.

    Raises:
        UserError: naming file and row of what cannot be read or is too long, before anything is answered; or a new
            column has a name that is taken.
    """
    file = row_file(source, output)
    schema = pyarrow.schema([pyarrow.field(f"{prefix}{field.name}", field.type) for field in task.schema])
    counts = _check(file, task, schema)
    if counts["rows_without_text"]:
        logger.warning("%s: %d rows have no text; their answers are empty", file.name, counts["rows_without_text"])
    with work_directory(output) as work, tqdm(total=counts["rows"], unit="row", desc="rows") as bar:
        found = []
        for number, rows in enumerate(_chunks(file)):
            asked = [_asked(row, task) for row in rows]
            path = work / f"{number:06d}-{_digest(asked, identity | {'schema': str(schema)})}.parquet"
            if path.is_file():
                bar.update(len(rows))
            else:
                _write_part(path, asked, task, schema, batch_size, seed + number * PART_ROWS, bar)
            found.append(path)
        write_with_answers(file, found, schema, output)
    return counts


def _check(file: files.File, task: Task, schema: pyarrow.Schema) -> dict[str, int]:
    """One pass over the file: a mistake in its last row should not show after hours."""
    total = blank = 0
    for rows in _chunks(file):
        if not total:
            _refuse_columns(file, rows[0], task, schema)
        asked = [_asked(row, task) for row in rows]
        for number, (row, texts) in enumerate(zip(rows, asked, strict=True), start=total + 1):
            wrong = [column for column in task.columns.values() if not isinstance(row.get(column), str | None)]
            if wrong:
                kind = type(row[wrong[0]]).__name__
                raise UserError(f"{file.name}: row {number}: `{wrong[0]}` is a {kind}, not a text")
            blank += texts is None
        if task.longest is not None:
            places = [place for place, texts in enumerate(asked) if texts is not None]
            lengths = task.lengths([asked[place] for place in places])
            for place, length in zip(places, lengths, strict=True):
                if length > task.longest:
                    where = f"{file.name}: row {total + place + 1}"
                    raise UserError(f"{where}: {length} tokens, at most {task.longest} fit the model; shorten it")
        total += len(rows)
    if not total:
        raise UserError(f"{file.name}: no rows")
    return {"rows": total, "rows_without_text": blank}


def _refuse_columns(file: files.File, row: dict, task: Task, schema: pyarrow.Schema) -> None:
    for column in task.columns.values():
        if column not in row:
            raise UserError(f"{file.name}: no column `{column}`; it has {', '.join(map(str, row))}")
    if taken := [name for name in schema.names if name in row]:
        raise UserError(
            f"{file.name}: has a column `{taken[0]}` already; give the new ones other names, such as "
            "--prefix predicted_"
        )


def _chunks(file: files.File) -> Iterator[list[dict]]:
    rows = (row for _, row in files.read_rows(file))
    while chunk := list(islice(rows, PART_ROWS)):
        yield chunk


def _asked(row: dict, task: Task) -> dict | None:
    """What of a row is asked about; None: a text is missing."""
    texts = {name: row.get(column) for name, column in task.columns.items()}
    return texts if all(isinstance(text, str) and text.strip() for text in texts.values()) else None


def _digest(asked: list[dict | None], identity: dict) -> str:
    data = json.dumps([identity, asked], sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _write_part(
    path: Path, asked: list[dict | None], task: Task, schema: pyarrow.Schema, batch_size: int, seed: int, bar: tqdm
) -> None:
    answers = iter(answer_rows([texts for texts in asked if texts is not None], task, batch_size, seed, bar))
    rows = [{} if texts is None else next(answers) for texts in asked]
    bar.update(asked.count(None))
    columns = [
        pyarrow.array([row.get(name) for row in rows], type=field.type)
        for name, field in zip(task.schema.names, schema, strict=True)
    ]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, schema=schema), sink, compression="lz4")
    parts.write(path, sink.getvalue().to_pybytes())
