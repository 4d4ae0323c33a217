"""Which texts of a source are learned from, and which are held out?"""

from collections.abc import Iterator
from pathlib import Path

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table, load_texts
from lm_recipes.sources.splits import split_of


def split_texts(
    source: str, split: str, *, validation: float = 0.1, test: float = 0.1, text_column: str = "text", seed: int = 0
) -> Iterator[str]:
    """The texts of "train", "validation" or "test", in order: a source's own split, if it is a corpus that clean.py
    made, and otherwise by a hash of the text. Neither case nor spacing makes a copy a new text, as in `load_labelled`.

    Args:
        source: as of `load_table`, or a corpus directory.

    Raises:
        UserError: while iterating, for a missing source or column, or a row without a text.
    """
    if "://" in source or Path(source, "test.parquet").is_file():
        yield from load_texts(source, split, text_column)
        return
    table = load_table(source)
    if text_column not in table.column_names:
        raise UserError(f"{source}: no column `{text_column}`; it has {', '.join(table.column_names)}")
    for row, text in enumerate(table[text_column], start=1):
        if not isinstance(text, str):
            raise UserError(f"{source}: row {row}: no text in `{text_column}`; fill the row or leave it out")
        if split_of(" ".join(text.casefold().split()), validation, test, seed) == split:
            yield text
