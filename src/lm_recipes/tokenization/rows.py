"""How do rows of a table become model inputs?"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict


def tokenize_rows(rows: "DatasetDict", tokenizer, max_length: int) -> tuple["DatasetDict", int]:
    """Tokenize the columns `text` and, if there is one, `pair`; batches are padded later, each to its
    longest row.

    Returns:
        The splits with `input_ids` and the like, `labels` and `length` (tokens), and how many rows were
        cut at `max_length` tokens: from the end, of a pair from the longer text.
    """
    columns = [name for name in ("text", "pair") if name in rows["train"].column_names]

    def tokenize(batch: dict) -> dict:
        texts = [list(batch[name]) for name in columns]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        cut = [False] * len(lengths)
        full = [row for row, length in enumerate(lengths) if length == max_length]
        if full:  # only these can have been cut
            whole = tokenizer(*[[column[row] for row in full] for column in texts], verbose=False)["input_ids"]
            for row, ids in zip(full, whole, strict=True):
                cut[row] = len(ids) > max_length
        return {**encoded, "length": lengths, "cut": cut}

    tokenized = rows.map(tokenize, batched=True, remove_columns=columns, desc="tokenizing")
    cut = sum(sum(split["cut"]) for split in tokenized.values())
    return tokenized.remove_columns("cut"), cut
