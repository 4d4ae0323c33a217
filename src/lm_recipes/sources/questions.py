"""Which question does a row ask, and where in its text, or which of its choices, is the answer?"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_recipes.artifacts import read_json
from lm_recipes.launch import UserError
from lm_recipes.sources import describe, load_table
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import DatasetDict

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
# An answer is looked for so many characters around the place its row says: offsets slip when spaces are cleaned up.
NEAR = 16


def load_questions(
    source: str,
    *,
    question_column: str = "question",
    context_column: str = "context",
    answers_column: str = "answers",
    own_splits: dict[str, str | None] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> tuple["DatasetDict", dict[str, int]]:
    """Questions about texts as `train`, `validation` and `test`, with columns `id`, `question`, `context` and
    `answers`: `{text: [...], answer_start: [...]}` in characters, empty where the text does not tell (SQuAD 2.0's form,
    https://arxiv.org/abs/1806.03822).

    A split the source does not have is taken out of its training rows by a hash of the context, so that no context
    stands in two splits; training rows about a context that also stands in a held-out split are left out.

    Args:
        source: what `load_table` takes, or JSON as SQuAD comes: a file, or a folder with `train*.json`, `dev*.json`.
            Answers may be in SQuAD's form, in that of its JSON (a list of `{text, answer_start}`), or texts alone:
            these are taken to be where they are mentioned first.
        own_splits: the source's names for "train", "validation" and "test"; None for those it does not have.
        validation, test: shares of the contexts to take where the source has no such split.

    Returns:
        The splits, and how many rows and answers were mended or left out.

    Raises:
        UserError: naming source, row and id of an empty question or context, an answer that is not where its row says,
            an id that was there before; or a split without rows or answers.
    """
    from datasets import Features, Value

    counts: Counter[str] = Counter()
    columns = (question_column, context_column, answers_column)
    tables = {
        name: [_question(row, where, columns, counts) for where, row in rows]
        for name, rows in _tables(source, own_splits, columns).items()
    }
    if not any(row["answers"]["text"] for row in tables["train"]):
        raise UserError(f"{source}: no training row has an answer in `{answers_column}`, so there is nothing to learn")
    features = Features(
        {name: Value("string") for name in ("id", "question", "context")}
        | {"answers": {"text": [Value("string")], "answer_start": [Value("int64")]}}
    )
    splits = _divide(source, tables, lambda row: row["context"], {"validation": validation, "test": test}, counts)
    for what, number in counts.items():
        logger.warning("%s: %s: %d", source, what.replace("_", " "), number)
    return _as_datasets(splits, features), dict(counts)


def load_choices(
    source: str,
    *,
    question_column: str = "question",
    choices_columns: Sequence[str] = ("choices",),
    label_column: str = "label",
    context_column: str | None = None,
    own_splits: dict[str, str | None] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> "DatasetDict":
    """Multiple choice as `train`, `validation` and `test`, with columns `id`, `context` ("" for none), `question`,
    `choices` (as many in every row) and `labels` (the right one's place, from 0).

    Splits are made as by `load_questions`, by a hash of the context or, without one, of the question.

    Args:
        choices_columns: one column with a list of texts (or the Hub's `{text: [...], label: [...]}`), or several
            columns with one choice each.
        label_column: the right choice by number (from 0, or from 1 where no row says 0 and some row the highest), by
            letter or name, or by its text.

    Raises:
        UserError: naming source, row and id of an empty question or choice, more or fewer choices than the first row
            has, or a label that means none or two of them.
    """
    from datasets import Features, Value

    needed = [question_column, *choices_columns, label_column, *([context_column] if context_column else [])]
    tables = _tables(source, own_splits, needed)
    rows = {
        name: [_choices(row, where, question_column, choices_columns, context_column) for where, row in table]
        for name, table in tables.items()
    }
    number = len(rows["train"][0]["choices"])
    given = {name: [row[label_column] for _, row in table] for name, table in tables.items()}
    numbers = {int(value) for values in given.values() for value in values if str(value).isdecimal()}
    first = 1 if 0 not in numbers and number in numbers else 0
    for name, table in tables.items():
        for (where, raw), row, value in zip(table, rows[name], given[name], strict=True):
            if len(row["choices"]) != number:
                raise UserError(
                    f"{where}: {len(row['choices'])} choices, but the first row has {number}; all rows need the same "
                    "number: fill it up or leave it out"
                )
            row["labels"] = _label(value, row["choices"], _names(raw, choices_columns), first, where, label_column)
    features = Features(
        {name: Value("string") for name in ("id", "context", "question")}
        | {"choices": [Value("string")], "labels": Value("int64")}
    )
    shares = {"validation": validation, "test": test}
    splits = _divide(source, rows, lambda row: row["context"] or row["question"], shares, Counter())
    return _as_datasets(splits, features)


def load_asked(
    source: str | None, questions: list[str] | None, context: str | None, choices: list[str] | None
) -> list[dict]:
    """Questions to be asked, from the command line or from a source: rows with `id`, `question` and what there is of
    `context` and `choices`.

    Args:
        source: rows with these columns, as `load_questions` reads them; answers are not needed.
        context, choices: of the rows that have none of their own.

    Raises:
        UserError: both or neither are given, or naming row and id of a question without a text or choices.
    """
    if (source is None) == (questions is None):
        raise UserError("--question asks one or more questions, --questions_file all those of a file: give one of them")
    if source is None:
        asked = [{"id": str(number), "question": text} for number, text in enumerate(questions, start=1)]
    else:
        asked = [row for _, row in _tables(source, None, ["question"])["train"]]
    given = {"context": context, "choices": choices}
    rows = [{name: row.get(name) or given.get(name) for name in ("id", "question", *given)} for row in asked]
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    for row in rows:
        where = f"{source or 'command line'}: question {row['id']}"
        _text({"question": ""} | row, "question", where)
        if "context" not in row and "choices" not in row:
            raise UserError(f"{where}: neither a context to look for the answer in nor choices")
        if "choices" in row and (not isinstance(row["choices"], list) or len(row["choices"]) < 2):
            raise UserError(f"{where}: fewer than two choices; `choices` is a list of texts")
    return rows


def describe_questions(source: str) -> dict[str, str]:
    """`sources.describe`, which does not know JSON; such files are described as questions."""
    found = _json_files(source)
    if not found:
        return describe(source)
    size = sum(file.stat().st_size for file in found)
    about = {"what": f"questions in {len(found)} JSON files", "size": f"{size / 1e6:.1f} MB"}
    return {"name": source, "licence": "", "homepage": "", "archive": ""} | about


def limits_of(source: str) -> str:
    """What the card of a model says that was trained on `source`; "" where nothing more is known of it."""
    if not source.startswith("demo:"):
        return ""
    return (
        "Its training rows are questions of a benchmark that were published to measure with. Its scores are of other "
        "such questions and can be compared with no published ones; do not measure it with that benchmark."
    )


# --- rows ---


def _tables(source: str, own_splits: dict | None, columns: Sequence[str]) -> dict[str, list[tuple[str, dict]]]:
    """The source's own splits, each row with what an error calls it; ids are made where there are none."""
    own_splits = own_splits or {}
    tables = {}
    for name in SPLITS:
        split = own_splits.get(name)
        if name != "train" and not split:
            continue
        table, ids = [], {}
        for number, row in enumerate(_rows(source, split), start=1):
            where = f"{source}{f' ({split})' if split else ''}: row {number}"
            missing = next((column for column in columns if column not in row), None)
            if missing:
                raise UserError(f"{where}: no column `{missing}`; it has {', '.join(row)} (see --help: ..._column)")
            id = str(row["id"]) if row.get("id") is not None else str(number)
            if id in ids:
                raise UserError(f"{where}: its id `{id}` is that of row {ids[id]} too; give every row its own")
            ids[id] = number
            table.append((f"{where} (id {id})", {**row, "id": id}))
        if not table:
            raise UserError(f"{source}: no rows{f' in split {split}' if split else ''}")
        tables[name] = table
    return tables


def _rows(source: str, split: str | None) -> Iterable[dict]:
    found = _json_files(source)
    if Path(source).suffix == ".json" and split not in (None, "train"):
        raise UserError(f"{source}: one file has no split `{split}`; name its folder, with {split}.json in it")
    if Path(source).suffix != ".json":
        found = [file for file in found if re.split(r"[.-]", file.name)[0] == (split or "train")]
    return [row for file in found for row in _json_rows(file)] if found else load_table(source, split)


def _json_files(source: str) -> list[Path]:
    """The JSON files that a source means, which `load_table` does not read: itself, or those in its folder."""
    path = Path(source).expanduser()
    return [path] if path.suffix == ".json" else sorted(path.glob("*.json")) if path.is_dir() else []


def _json_rows(path: Path) -> list[dict]:
    """The rows of a JSON file: a list of them, or SQuAD's articles with paragraphs with questions."""
    content = read_json(path, "questions")
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: neither a list of rows nor SQuAD's form (`data`: a list of articles)")
    if not any("paragraphs" in row for row in rows):
        return rows
    try:
        return [
            {key: asked.get(key) for key in ("id", "question", "answers")} | {"context": paragraph["context"]}
            for article in rows
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not SQuAD's form throughout ({type(error).__name__}: {error})") from error


def _text(row: dict, column: str, where: str) -> str:
    if not isinstance(row[column], str) or not row[column].strip():
        raise UserError(f"{where}: no text in `{column}`; fill the row or leave it out")
    return row[column]


# --- answers in a context ---


def _question(row: dict, where: str, columns: tuple[str, str, str], counts: Counter) -> dict:
    question, context = (_text(row, column, where) for column in columns[:2])
    given = _answers(row[columns[2]], where, columns[2])
    placed = [_place(text, start, context, where, counts) for text, start in given]
    answers = {"text": [text for text, _ in placed], "answer_start": [start for _, start in placed]}
    return {"id": row["id"], "question": question.strip(), "context": context, "answers": answers}


def _answers(answers: object, where: str, column: str) -> list[tuple[object, object]]:
    """Pairs of text and start (None where it is not said) out of any of the forms `load_questions` takes."""
    if answers is None or answers == "":
        return []
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        starts = answers.get("answer_start")
        starts = [None] * len(answers["text"]) if starts is None else starts
        if isinstance(starts, list) and len(starts) == len(answers["text"]):
            return list(zip(answers["text"], starts, strict=True))
    if isinstance(answers, str):
        return [(answers, None)]
    if isinstance(answers, list) and all(isinstance(answer, str) for answer in answers):
        return [(answer, None) for answer in answers]
    if isinstance(answers, list) and all(isinstance(answer, dict) and "text" in answer for answer in answers):
        return [(answer["text"], answer.get("answer_start")) for answer in answers]
    raise UserError(f"{where}: `{column}` is not in SQuAD's form, {{text: [...], answer_start: [...]}} of equal length")


def _place(text: object, start: object, context: str, where: str, counts: Counter) -> tuple[str, int]:
    """An answer as its context writes it, and where it starts."""
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: an empty answer; a question without one has an empty list of answers")
    said = isinstance(start, int) and start >= 0
    if said and text == text.strip() and context.startswith(text, start):
        return text, start
    mentions = list(re.finditer(r"\s+".join(map(re.escape, text.split())), context))
    nearest = min(mentions, key=lambda mention: abs(mention.start() - start) if said else mention.start(), default=None)
    if nearest is None or (said and abs(nearest.start() - start) > NEAR):
        shown = " ".join(text.split())[:60]
        there = f" at character {start}" if said else ""
        other = f" (but at {nearest.start()})" if nearest else ""
        raise UserError(f'{where}: the answer "{shown}" is not in its context{there}{other}; mend or drop the row')
    if said:
        counts["answers_with_mended_offsets"] += 1
    elif len(mentions) > 1:
        counts["answers_taken_at_the_first_of_several_mentions"] += 1
    return nearest.group(), nearest.start()


# --- choices ---


def _choices(row: dict, where: str, question: str, columns: Sequence[str], context: str | None) -> dict:
    texts = [row[column] for column in columns]
    if len(columns) == 1:
        texts = texts[0].get("text") if isinstance(texts[0], dict) else texts[0]
    if not isinstance(texts, list) or len(texts) < 2:
        raise UserError(f"{where}: `{columns[0]}` is no list of two choices or more")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: an empty choice; fill the row or leave it out")
    about = _text(row, context, where) if context and row[context] else ""
    texts = [text.strip() for text in texts]
    return {"id": row["id"], "context": about, "question": _text(row, question, where).strip(), "choices": texts}


def _names(row: dict, columns: Sequence[str]) -> list[str]:
    """What a row's choices are called: as the row says (`{text, label}`), otherwise A, B, C."""
    given = row[columns[0]].get("label") if isinstance(row[columns[0]], dict) else None
    return list(map(str, given)) if given else [chr(ord("A") + place) for place in range(26)]


def _label(value: object, texts: list[str], names: list[str], first: int, where: str, column: str) -> int:
    """The place of the right choice."""
    name, place = str(value).strip(), None
    if name in names[: len(texts)] and not isinstance(value, int):
        place = names.index(name)
    elif isinstance(value, str) and name in texts:
        place = texts.index(name)
    elif name.isdecimal() and 0 <= int(name) - first < len(texts):
        place = int(name) - first
    if place is None:
        raise UserError(
            f"{where}: `{column}` is {value!r}: no number, letter or text of one of its {len(texts)} choices"
        )
    if texts.count(texts[place]) > 1:
        raise UserError(f"{where}: the right choice stands there twice; leave one out")
    return place


# --- splits ---


def _divide(
    source: str, tables: dict[str, list[dict]], about: Callable[[dict], str], shares: dict[str, float], counts: Counter
) -> dict[str, list[dict]]:
    """Rows by split: the source's own ones, and what a hash of what a row is `about` takes out of its training rows."""
    key = {id(row): " ".join(about(row).casefold().split()) for rows in tables.values() for row in rows}
    held_out = {key[id(row)] for name in tables for row in tables[name] if name != "train"}
    wanted = [0.0 if name in tables else shares[name] for name in ("validation", "test")]
    splits: dict[str, list[dict]] = {name: [] for name in SPLITS} | {n: r for n, r in tables.items() if n != "train"}
    for row in tables["train"]:
        if key[id(row)] in held_out:
            counts["training_rows_left_out_as_their_context_is_held_out"] += 1
        else:
            splits[split_of(key[id(row)], *wanted)].append(row)
    for name, rows in splits.items():
        if not rows:
            raise UserError(f"{source}: no rows for the {name} split; give more contexts or a larger share")
    return splits


def _as_datasets(splits: dict[str, list[dict]], features) -> "DatasetDict":
    from datasets import Dataset, DatasetDict

    return DatasetDict({name: Dataset.from_list(rows, features=features) for name, rows in splits.items()})
