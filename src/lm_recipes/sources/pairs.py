"""Which texts belong together, and in which split is each pair?"""

from typing import TYPE_CHECKING

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import DatasetDict


def load_pairs(
    source: str,
    *,
    anchor_column: str = "anchor",
    positive_column: str = "positive",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> tuple["DatasetDict", int]:
    """A table as `train`, `validation` and `test` by a hash of the anchor, with columns `anchor` and `positive`.

    In a batch every other positive counts as a wrong answer, so a text may stand in one pair only: of several with the
    same anchor or the same positive (whatever its case and spacing) the first is kept.

    Returns:
        The splits, and how many pairs were left out.

    Raises:
        UserError: naming source, row and column of a missing text, or a split without pairs.
    """
    from datasets import DatasetDict

    table, columns = load_table(source), (anchor_column, positive_column)
    for column, flag in zip(columns, ("--anchor_column", "--positive_column"), strict=True):
        if column not in table.column_names:
            raise UserError(f"{source}: no column `{column}`; it has {', '.join(table.column_names)} ({flag})")
    seen, places = (set(), set()), {"train": [], "validation": [], "test": []}
    for row, texts in enumerate(zip(*(table[column] for column in columns), strict=True), start=1):
        for column, text in zip(columns, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{source}: row {row}: no text in `{column}`; fill the row or leave it out")
        keys = [" ".join(text.casefold().split()) for text in texts]
        if not any(key in known for key, known in zip(keys, seen, strict=True)):
            places[split_of(keys[0], validation, test, seed)].append(row - 1)
            for key, known in zip(keys, seen, strict=True):
                known.add(key)
    for split, rows in places.items():
        if len(rows) < 2:
            raise UserError(f"{source}: {len(rows)} pairs for the {split} split; give more rows or a larger share")
    renamed = dict(zip(columns, ("anchor", "positive"), strict=True))
    whole = table.select_columns(list(columns)).rename_columns(renamed)
    return DatasetDict({split: whole.select(rows) for split, rows in places.items()}), len(table) - sum(
        map(len, places.values())
    )
