"""How do a question and its choices become model inputs?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from datasets import DatasetDict


def tokenize_choices(rows: "DatasetDict", tokenizer, max_length: int) -> tuple["DatasetDict", int]:
    """Each choice beside what is asked, `[CLS] context question [SEP] choice [SEP]`: the model scores one after the
    other, and the best score answers.

    Args:
        rows: columns `id`, `context`, `question`, `choices`, `labels`, as `sources.questions.load_choices` makes them.

    Returns:
        The splits with `input_ids` and the like, a list for each of a row's C choices; `labels`; and `length`, tokens
        of the longest choice. And how many rows were cut at `max_length` tokens: from the end of what is longer.
    """

    def tokenize(batch: dict) -> dict:
        number = len(batch["choices"][0])
        asked = [" ".join(filter(None, texts)) for texts in zip(batch["context"], batch["question"], strict=True)]
        pairs = ([text for text in asked for _ in range(number)], [text for row in batch["choices"] for text in row])
        encoded = tokenizer(*pairs, truncation=True, max_length=max_length)
        whole = [len(ids) for ids in tokenizer(*pairs, verbose=False)["input_ids"]]
        by_row = {name: _grouped(values, number) for name, values in encoded.items()}
        lengths = [max(row) for row in _grouped(whole, number)]
        cut = [length > max_length for length in lengths]
        return {**by_row, "length": [min(length, max_length) for length in lengths], "cut": cut}

    columns = [name for name in rows["train"].column_names if name != "labels"]
    tokenized = rows.map(tokenize, batched=True, remove_columns=columns, desc="tokenizing")
    cut = sum(sum(split["cut"][:]) for split in tokenized.values())
    return tokenized.remove_columns("cut"), cut


def _grouped(values: Sequence, number: int) -> list[Sequence]:
    return [values[first : first + number] for first in range(0, len(values), number)]


@dataclass(frozen=True)
class ChoiceCollator:
    """Rows of `tokenize_choices` as tensors int64 `[B, C, L]`, padded to the longest choice; `labels` `[B]` if there
    are any (transformers' own collator cannot do without, so it cannot serve predictions)."""

    tokenizer: object

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        names = [name for name in self.tokenizer.model_input_names if name in examples[0]]
        number = len(examples[0]["input_ids"])
        flat = [{name: example[name][choice] for name in names} for example in examples for choice in range(number)]
        padded = self.tokenizer.pad(flat, return_tensors="pt")
        batch = {name: values.view(len(examples), number, -1) for name, values in padded.items()}
        if "labels" in examples[0]:
            batch["labels"] = torch.tensor([example["labels"] for example in examples])
        return batch
