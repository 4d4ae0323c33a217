"""Which classes (or which score) does each row have, and in which split is it?"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import ClassLabel, Dataset, DatasetDict

# What a row has: one class, any number of them, or a number. The names are those of a transformers config.
SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEMS = (SINGLE, MULTI, REGRESSION)


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
    problem_type: str = SINGLE,
    class_names: Sequence[str] | None = None,
    stratify: bool = False,
    cross_domain: Sequence[str] = (),
) -> tuple["DatasetDict", list[str]]:
    """A table as `train`, `validation` and `test`, with columns `text`, `pair` (if asked for) and `labels`: a class id,
    of several classes a 0.0 or 1.0 each, or a number.

    A split the source does not have is taken out of its training rows by a hash of the text, so that it
    does not depend on order and equal texts never straddle; training rows that also stand in a held-out
    split are left out.

    Args:
        label_column: classes as text, numbers, booleans or a ClassLabel; several as a list or as `a|b`; or numbers.
        own_splits: the source's names for "train", "validation" and "test"; None for those it does not have.
        validation, test: shares to take where the source has no such split.
        problem_type: one of PROBLEMS.
        class_names: the classes in their order. Text in `label_column` must be one of them; numbers count them from 0.
        stratify: see `stratified_splits`. Otherwise every text draws for itself (`split_of`).
        cross_domain: other sources with the same columns and classes, to be measured on: a split each, under its
            name, without the texts that stand in `train`.

    Returns:
        The splits, and the class names by id; of a regression the name of its column.

    Raises:
        UserError: naming source, row and column of a missing text or label, an unknown label, or a class that cannot
            be learned.
    """
    from datasets import DatasetDict

    _check_problem(problem_type, class_names, stratify)
    columns = [text_column, *([pair_column] if pair_column else [])]
    named = {name: own for name, own in (own_splits or {}).items() if own}
    tables = {"train": load_table(source, named.get("train"))}
    tables |= {name: load_table(source, named[name]) for name in ("validation", "test") if name in named}
    where = {name: source if len(tables) == 1 else f"{source}, split {named.get(name, name)}" for name in tables}
    own = list(tables)
    tables |= {other: load_table(other) for other in cross_domain}
    where |= {other: other for other in cross_domain}
    for name, table in tables.items():
        _check_texts(table, where[name], columns)

    names = [label_column] if problem_type == REGRESSION else list(class_names or ())
    names = names or read_class_names([tables[name] for name in own], source, label_column, problem_type == MULTI)
    labels = {
        name: _labels(table, where[name], label_column, problem_type, names, bool(class_names))
        for name, table in tables.items()
    }
    keys = {name: _keys(table, columns) for name, table in tables.items()}
    places = _places(keys, labels["train"], tables, validation, test, seed, stratify)

    renamed = {text_column: "text"} | ({pair_column: "pair"} if pair_column else {})
    labelled = DatasetDict()
    for name, (table, rows) in places.items():
        texts = tables[table].select(rows).select_columns(columns).rename_columns(renamed)
        labelled[name] = texts.add_column("labels", [labels[table][row] for row in rows])
    _check_splits(labelled, source, label_column, problem_type)
    if problem_type != REGRESSION:
        _check_learnable(labelled, names, where, places, label_column)
    return labelled, names


def _check_problem(problem_type: str, class_names: Sequence[str] | None, stratify: bool) -> None:
    if problem_type not in PROBLEMS:
        raise UserError(f"--problem_type {problem_type}: must be one of {', '.join(PROBLEMS)}")
    if problem_type == REGRESSION and (class_names or stratify):
        raise UserError("--problem_type regression has no classes; leave out --class_names and --stratify")
    if class_names and len(set(class_names)) < max(len(class_names), 2):
        raise UserError(f"--class_names {' '.join(class_names)}: two different names are needed at least, each once")


def _places(
    keys: dict[str, list[str]], labels: list, tables: dict, validation: float, test: float, seed: int, stratify: bool
) -> dict[str, tuple[str, list[int]]]:
    """Split -> the table its rows are in, and which rows those are."""
    held_out = {key for name in ("validation", "test") for key in keys.get(name, ())}
    free = [row for row, key in enumerate(keys["train"]) if key not in held_out]
    shares = [0.0 if name in tables else share for name, share in (("validation", validation), ("test", test))]
    if stratify:
        strata = _strata([labels[row] for row in free])
        split = stratified_splits([keys["train"][row] for row in free], strata, *shares, seed).__getitem__
    else:

        def split(key: str) -> str:
            return split_of(key, *shares, seed)

    places = {name: ("train", []) for name in ("train", "validation", "test")}
    for row in free:
        places[split(keys["train"][row])][1].append(row)
    learned = {keys["train"][row] for row in places["train"][1]}
    for name in tables:
        if name != "train":
            own = name in ("validation", "test")
            places[name] = (name, [row for row, key in enumerate(keys[name]) if own or key not in learned])
    return places


def stratified_splits(
    keys: Sequence[str], strata: Sequence[Hashable], validation: float, test: float, seed: int = 0
) -> dict[str, str]:
    """Key -> "train", "validation" or "test", with the same shares of every stratum, in the order of a hash.

    A stratum of three keys and more has one at least in every split that has a share; of fewer all are for training.
    Unlike `split_of`, where a text is placed by itself, more rows can move a few that were there before.

    Args:
        keys: of the rows; equal keys (copies) stay together, in the smallest of their strata.
        strata: of the rows, comparable with each other.
    """
    of_key: dict[str, Hashable] = {}
    for key, stratum in zip(keys, strata, strict=True):
        of_key[key] = min(of_key.get(key, stratum), stratum)
    members = defaultdict(list)
    for key, stratum in of_key.items():
        members[stratum].append(key)
    splits = dict.fromkeys(of_key, "train")
    for those in members.values():
        those.sort(key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest())
        taken = 0
        for name, share in (("validation", validation), ("test", test)):
            number = max(round(len(those) * share), 1) if share and len(those) >= 3 else 0
            splits |= dict.fromkeys(those[taken : taken + number], name)
            taken += number
    return splits


def _strata(labels: list) -> list[int]:
    """The class of each row; of several the rarest, which is the hardest to divide; -1 where there is none."""
    if not labels or not isinstance(labels[0], list):
        return labels
    classes = [[number for number, is_it in enumerate(row) if is_it] for row in labels]
    rows_of = Counter(number for row in classes for number in row)
    return [min(row, key=lambda number: (rows_of[number], number), default=-1) for row in classes]


def few_labels(rows: "Dataset", number: int | None, seed: int) -> list[int]:
    """The places of `number` rows to learn from, in their order: those whose hash of seed and text is lowest.

    They do not depend on the order of the table; a larger number adds rows to the same ones; another seed draws others.

    Args:
        rows: columns `text` and `labels`.
        number: None means all.

    Raises:
        UserError: there are not so many rows, or a class is not among them.
    """
    if number is None:
        return list(range(len(rows)))
    if not 0 < number <= len(rows):
        raise UserError(f"--train_rows {number}: there are {len(rows)} rows to learn from")
    texts, labels = list(rows["text"]), list(rows["labels"])
    hashes = [hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
    drawn = sorted(sorted(range(len(rows)), key=hashes.__getitem__)[:number])
    missing = len(_classes_in(labels) - _classes_in([labels[row] for row in drawn]))
    if missing:
        raise UserError(f"--train_rows {number}: with seed {seed}, {missing} classes are not among these; take more")
    return drawn


def _classes_in(labels: list) -> set[int]:
    """The classes that some row has; none for numbers to be predicted."""
    if isinstance(labels[0], list):
        return {number for row in labels for number, is_it in enumerate(row) if is_it}
    return set(labels) if isinstance(labels[0], int) else set()


def read_class_names(tables: "Sequence[Dataset]", source: str, column: str, many: bool = False) -> list[str]:
    """The classes in `column`, as text: a ClassLabel's own order, otherwise sorted (numbers by value).

    Args:
        many: a row has several classes.
    """
    label = _class_label(tables[0], column)
    if label is not None:
        return list(label.names)
    values = {value for table in tables for row in _values(table, source, column, many) for value in row}
    by_value = not any(isinstance(value, str) for value in values)
    names = [str(value) for value in (sorted(values) if by_value else sorted(values, key=str))]
    if not 2 <= len(names) <= max(2, sum(map(len, tables)) // 2):
        raise UserError(
            f"{source}: column `{column}` holds {len(names)} different values in {sum(map(len, tables))} rows; "
            "classes are needed: name their column with --label_column, or predict numbers: --problem_type regression"
        )
    return names


def _class_label(table: "Dataset", column: str) -> "ClassLabel | None":
    """What a Hub dataset knows of its classes, also where a row has a list of them."""
    from datasets import ClassLabel

    feature = table.features.get(column)
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, ClassLabel) else None


def _labels(
    table: "Dataset", where: str, column: str, problem_type: str, names: list[str], given: bool
) -> list[int] | list[list[float]] | list[float]:
    if problem_type == REGRESSION:
        return _scores(table, where, column)
    known = {name: number for number, name in enumerate(names)}
    rows = []
    for row, values in enumerate(_values(table, where, column, problem_type == MULTI, raw=given), start=1):
        ids = [_class_id(value, known, given) for value in values]
        if None in ids:
            raise UserError(
                f"{where}: row {row}: `{column}` is {values[ids.index(None)]!r}, which is none of the classes "
                f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}; mend the row, or see --class_names"
            )
        rows.append(ids)
    if problem_type == MULTI:
        return [[float(number in ids) for number in range(len(names))] for ids in rows]
    return [ids[0] for ids in rows]


def _class_id(value: object, known: dict[str, int], counted: bool) -> int | None:
    """The id of a class as it stands in a column; where the names are `counted`, numbers are ids already."""
    if not counted or isinstance(value, str):
        return known.get(str(value))
    return int(value) if value == int(value) and 0 <= value < len(known) else None


def _values(table: "Dataset", where: str, column: str, many: bool, raw: bool = False) -> list[list]:
    """The classes of each row as they stand in the column; of a ClassLabel their names, or with `raw` their ids."""
    label = _class_label(_with_column(table, where, column), column)
    rows = []
    for row, value in enumerate(table[column], start=1):
        if many and isinstance(value, str):
            value = [part.strip() for part in value.split("|") if part.strip()] if value else None
        if many and value is not None and not isinstance(value, list):
            raise UserError(f"{where}: row {row}: `{column}` is {value!r}; a list of classes or `a|b` is needed")
        if not many and isinstance(value, list | dict):
            raise UserError(
                f"{where}: row {row}: `{column}` is a {type(value).__name__}; one class a row is needed (several: "
                "--problem_type multi_label_classification)"
            )
        values = value if many and value is not None else [value]
        if any(one is None or one == "" or one != one or (label is not None and one == -1) for one in values):
            none = "; where no class applies write [] or |" if many else ""
            raise UserError(f"{where}: row {row}: `{column}` is empty; label the row or leave it out{none}")
        rows.append([one if raw or label is None else label.int2str(one) for one in values])
    return rows


def _scores(table: "Dataset", where: str, column: str) -> list[float]:
    scores = []
    for row, value in enumerate(_with_column(table, where, column)[column], start=1):
        try:
            scores.append(float(value))
        except (TypeError, ValueError):
            scores.append(math.nan)
        if not math.isfinite(scores[-1]):
            raise UserError(f"{where}: row {row}: `{column}` is {value!r}; a number is needed, or leave the row out")
    return scores


def _with_column(table: "Dataset", where: str, column: str) -> "Dataset":
    if column not in table.column_names:
        raise UserError(f"{where}: no column `{column}`; it has {', '.join(table.column_names)} (--label_column)")
    return table


def _check_texts(table: "Dataset", where: str, columns: list[str]) -> None:
    for column in columns:
        if column not in table.column_names:
            raise UserError(f"{where}: no column `{column}`; it has {', '.join(table.column_names)} (--text_column)")
        for row, text in enumerate(table[column], start=1):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where}: row {row}: no text in `{column}`; fill the row or leave it out")


def _keys(table: "Dataset", columns: list[str]) -> list[str]:
    """Texts as they are compared: neither case nor spacing makes a copy a new text."""
    return [" ".join("\n".join(texts).casefold().split()) for texts in zip(*(table[c] for c in columns), strict=True)]


def _check_splits(labelled: "DatasetDict", source: str, column: str, problem_type: str) -> None:
    for split, table in labelled.items():
        if not len(table):
            raise UserError(f"{source}: no rows for the {split} split; give more rows or a larger share")
    if problem_type == REGRESSION and len(set(labelled["train"]["labels"])) < 2:
        raise UserError(f"{source}: `{column}` holds one number only, so there is nothing to learn")


def _check_learnable(labelled: "DatasetDict", names: list[str], where: dict, places: dict, column: str) -> None:
    """Every class has a training row; one that has none is named with the first row that has it."""
    missing = set(range(len(names))) - _classes_in(labelled["train"]["labels"])
    why = f"of `{column}` has no training row; add some or leave the class out"
    for split, (table, rows) in places.items() if missing else ():
        for row, label in zip(rows, labelled[split]["labels"], strict=True):
            found = missing & _classes_in([label])
            if found:
                raise UserError(f"{where[table]}: row {row + 1}: class `{names[min(found)]}` {why}")
    if missing:
        raise UserError(f"{where['train']}: class `{names[min(missing)]}` {why}")
