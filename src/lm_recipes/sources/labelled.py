"""Which class does each row belong to, and in which split is it?"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def load_labelled(
    source: str,
    *,
    text_column: str = "text",
    label_column: str = "label",
    pair_column: str | None = None,
    own_splits: dict[str, str | None] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> tuple["DatasetDict", list[str]]:
    """A table as `train`, `validation` and `test`, with columns `text`, `pair` (if asked for) and `labels`
    (class ids).

    A split the source does not have is taken out of its training rows by a hash of the text, so that it
    does not depend on order and equal texts never straddle; training rows that also stand in a held-out
    split are left out.

    Args:
        own_splits: the source's names for "train", "validation" and "test"; None for those it does not have.
        validation, test: shares to take where the source has no such split.

    Returns:
        The splits, and the class names by id.

    Raises:
        UserError: naming source, row and column of a missing text or label, or a class that cannot be
            learned.
    """
    from datasets import DatasetDict

    own_splits = own_splits or {}
    columns = [text_column, *([pair_column] if pair_column else [])]
    train = load_table(source, own_splits.get("train"))
    parts = {name: load_table(source, own_splits[name]) for name in ("validation", "test") if own_splits.get(name)}
    for table in (train, *parts.values()):
        _check_texts(table, source, columns)
    held_out = {key for table in parts.values() for key in _keys(table, columns)}
    shares = ({"validation": validation, "test": test} | dict.fromkeys(parts, 0.0)).values()
    places: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for row, key in enumerate(_keys(train, columns)):
        if key not in held_out:
            places[split_of(key, *shares, seed)].append(row)
    parts = {name: parts.get(name) or train.select(rows) for name, rows in places.items()}

    names = class_names([parts[name] for name in places], source, label_column)
    ids = {name: number for number, name in enumerate(names)}
    renamed = {text_column: "text"} | ({pair_column: "pair"} if pair_column else {})
    labelled = DatasetDict()
    for name, table in parts.items():
        labels = [ids[value] for value in _label_texts(table, source, label_column)]
        labelled[name] = table.select_columns(columns).rename_columns(renamed).add_column("labels", labels)
    _check_splits(labelled, names, source, label_column)
    return labelled, names


def few_labels(rows: "Dataset", number: int | None, seed: int) -> list[int]:
    """The places of `number` rows to learn from, in their order: those whose hash of seed and text is lowest.

    They do not depend on the order of the table; a larger number adds rows to the same ones; another seed draws others.

    Args:
        rows: columns `text` and `labels`.
        number: None means all.

    Raises:
        UserError: there are not so many rows, or a class has none among those drawn.
    """
    if number is None:
        return list(range(len(rows)))
    if not 0 < number <= len(rows):
        raise UserError(f"--train_rows {number}: there are {len(rows)} rows to learn from")
    texts, labels = list(rows["text"]), list(rows["labels"])
    hashes = [hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
    drawn = sorted(sorted(range(len(rows)), key=hashes.__getitem__)[:number])
    missing = len(set(labels) - {labels[row] for row in drawn})
    if missing:
        raise UserError(f"--train_rows {number}: with seed {seed}, {missing} classes are not among these; take more")
    return drawn


def class_names(tables: "Sequence[Dataset]", source: str, column: str) -> list[str]:
    """The classes in `column`, as text: a ClassLabel's own order, otherwise sorted (numbers by value)."""
    from datasets import ClassLabel

    feature = tables[0].features.get(column)
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    for table in tables:
        _label_texts(table, source, column)  # refuses what is missing or no class
    values = {value for table in tables for value in table[column]}
    by_value = not any(isinstance(value, str) for value in values)
    names = [str(value) for value in (sorted(values) if by_value else sorted(values, key=str))]
    if not 2 <= len(names) <= max(2, sum(map(len, tables)) // 2):
        raise UserError(
            f"{source}: column `{column}` holds {len(names)} different values in {sum(map(len, tables))} rows; "
            "classes are needed: name their column with --label_column"
        )
    return names


def _label_texts(table: "Dataset", source: str, column: str) -> list[str]:
    from datasets import ClassLabel

    if column not in table.column_names:
        raise UserError(f"{source}: no column `{column}`; it has {', '.join(table.column_names)} (--label_column)")
    values = list(table[column])
    if isinstance(table.features[column], ClassLabel):
        values = [None if value in (None, -1) else table.features[column].int2str(value) for value in values]
    for row, value in enumerate(values, start=1):
        if value is None or value == "":
            raise UserError(f"{source}: row {row}: `{column}` is empty; label the row or leave it out")
        if isinstance(value, list | dict):
            raise UserError(f"{source}: row {row}: `{column}` is a {type(value).__name__}; one class a row is needed")
    return [str(value) for value in values]


def _check_texts(table: "Dataset", source: str, columns: list[str]) -> None:
    for column in columns:
        if column not in table.column_names:
            raise UserError(f"{source}: no column `{column}`; it has {', '.join(table.column_names)} (--text_column)")
        for row, text in enumerate(table[column], start=1):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{source}: row {row}: no text in `{column}`; fill the row or leave it out")


def _keys(table: "Dataset", columns: list[str]) -> list[str]:
    """Texts as they are compared: neither case nor spacing makes a copy a new text."""
    return [" ".join("\n".join(texts).casefold().split()) for texts in zip(*(table[c] for c in columns), strict=True)]


def _check_splits(labelled: "DatasetDict", names: list[str], source: str, column: str) -> None:
    for split, table in labelled.items():
        if not len(table):
            raise UserError(f"{source}: no rows for the {split} split; give more rows or a larger share")
    missing = set(range(len(names))) - set(labelled["train"]["labels"])
    if missing:
        name = names[min(missing)]
        raise UserError(f"{source}: class `{name}` of `{column}` has no training row; add some or leave the class out")
