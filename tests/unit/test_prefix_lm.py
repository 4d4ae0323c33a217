"""Prefix LM: a prefix that is read in both directions and not asked, the rest causal, the same in every batch."""

import numpy as np
import pytest
import torch

from lm_recipes.objectives import CausalLanguageModeling, Packer
from lm_recipes.objectives.isolation import Isolation, additive
from lm_recipes.objectives.prefix import PrefixLanguageModeling
from lm_recipes.tokenization.fast import encode_batches

LENGTH = 64
# Three documents of 5, 3 and 1 tokens, and padding.
ROW = {
    "input_ids": np.array([1, 11, 12, 13, 2, 1, 14, 2, 15, 0, 0]),
    "position_ids": np.array([0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 1]),
}


def packed_rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    texts = [text[: 5 + 40 * (i % 9)] for i, text in enumerate(documents)]  # some of them longer than a block
    blocks = Packer.for_tokenizer(tokenizer, LENGTH).pack(encode_batches(tokenizer, texts))
    return [{"input_ids": i, "position_ids": p} for some in blocks for i, p in zip(*some, strict=True)]


def prefixes(batch: dict) -> torch.Tensor:
    """How many tokens at the beginning of each piece are seen by the piece's first: int `[B, L]`."""
    visible, positions = batch["attention_mask"][:, 0], batch["position_ids"]
    first = torch.arange(positions.shape[1]) - positions
    return torch.take_along_dim(visible.sum(-1), first, 1)


def test_a_small_example():
    batch = PrefixLanguageModeling(pad_token_id=0, seed=3)([ROW])
    assert batch["labels"].tolist() == [[-100, -100, -100, 13, 2, -100, 14, 2, -100, -100, -100]]
    seen = ["".join("x" if may else "." for may in row) for row in batch["attention_mask"][0, 0].tolist()]
    assert seen == [
        "xxx........",
        "xxx........",
        "xxx........",
        "xxxx.......",
        "xxxxx......",
        ".....x.....",
        ".....xx....",
        ".....xxx...",
        "........x..",
        ".........x.",
        ".........xx",
    ]
    assert batch["input_ids"].tolist() == [ROW["input_ids"].tolist()]
    assert batch["position_ids"].tolist() == [ROW["position_ids"].tolist()]
    assert batch["use_cache"] is False


def test_exactly_the_tokens_after_the_prefix_are_asked_and_each_sees_its_piece_up_to_itself(gpt_tokenizer, documents):
    rows = packed_rows(gpt_tokenizer, documents[:100])
    batch = PrefixLanguageModeling(gpt_tokenizer.pad_token_id)(rows)
    prefix, positions = prefixes(batch), batch["position_ids"]
    asked = (positions >= prefix) & (batch["input_ids"] != gpt_tokenizer.pad_token_id)
    assert torch.equal(batch["labels"], batch["input_ids"].masked_fill(~asked, -100))
    assert torch.equal(batch["attention_mask"][:, 0].sum(-1), torch.maximum(prefix, positions + 1))
    plain = CausalLanguageModeling(gpt_tokenizer.pad_token_id)(rows)["labels"]
    assert 0.45 < (batch["labels"] != -100).sum() / (plain != -100).sum() < 0.55


def test_every_length_of_a_prefix_is_as_likely():
    rows = [{"input_ids": np.array([1, 10 + i, 2000, 2001, 2]), "position_ids": np.arange(5)} for i in range(1000)]
    lengths = prefixes(PrefixLanguageModeling(pad_token_id=0)(rows))[:, 0].tolist()
    assert sorted(set(lengths)) == [1, 2, 3, 4]
    assert all(abs(lengths.count(length) - 250) < 4 * (250 * 0.75) ** 0.5 for length in range(1, 5))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_prefixes_of_a_row_depend_on_seed_epoch_and_row_alone(gpt_tokenizer, documents, seed, epoch):
    rows = packed_rows(gpt_tokenizer, documents[:40])[:6]
    collator = PrefixLanguageModeling(gpt_tokenizer.pad_token_id, seed=seed, epoch=epoch)
    together = collator(rows)
    for i in reversed(range(len(rows))):
        alone = collator([rows[i]])
        assert torch.equal(together["labels"][i], alone["labels"][0])
        assert torch.equal(together["attention_mask"][i], alone["attention_mask"][0])
    for other in ({"seed": seed + 1, "epoch": epoch}, {"seed": seed, "epoch": epoch + 1}):
        changed = PrefixLanguageModeling(gpt_tokenizer.pad_token_id, **other)(rows)
        assert not torch.equal(together["labels"], changed["labels"])


def test_the_mask_comes_in_the_form_that_eager_attention_adds():
    boolean = PrefixLanguageModeling(pad_token_id=0)([ROW])["attention_mask"]
    added = PrefixLanguageModeling(pad_token_id=0, isolation=Isolation(additive=True))([ROW])["attention_mask"]
    assert boolean.dtype == torch.bool
    assert torch.equal(added, additive(boolean))
