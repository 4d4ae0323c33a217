"""Masking: the rate, the 80/10/10 shares, special tokens, whole words, and masks that depend on the row alone."""

import numpy as np
import pytest
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives import MaskedLanguageModeling
from lm_recipes.objectives.words import WordStarts


def rows_of(tokenizer, documents, length: int = 128) -> list[dict[str, np.ndarray]]:
    ids = [token for text in documents for token in tokenizer(text)["input_ids"]]
    blocks = np.array(ids[: len(ids) // length * length]).reshape(-1, length)
    return [{"input_ids": block, "position_ids": np.arange(length)} for block in blocks]


def within(share: float, expected: float, count: int) -> bool:
    """Inside four standard deviations of a binomial share: fails by chance once in 16,000."""
    return abs(share - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_rate_and_80_10_10_shares_hold_within_confidence_bounds(bert_tokenizer, documents, rate):
    rows = rows_of(bert_tokenizer, documents)
    batch = MaskedLanguageModeling(bert_tokenizer, mlm_probability=rate)(rows)
    original = torch.from_numpy(np.stack([row["input_ids"] for row in rows]))
    chosen = batch["labels"] != -100
    regular = ~torch.isin(original, torch.tensor(bert_tokenizer.all_special_ids))
    asked = int(chosen.sum())
    assert asked > 3000
    assert within(asked / int(regular.sum()), rate, int(regular.sum()))
    masked = batch["input_ids"][chosen] == bert_tokenizer.mask_token_id
    kept = batch["input_ids"][chosen] == original[chosen]
    vocabulary = len(bert_tokenizer) - len(bert_tokenizer.all_special_ids)
    assert within(float(masked.float().mean()), 0.8, asked)
    assert within(float(kept.float().mean()), 0.1 + 0.1 / vocabulary, asked)
    assert torch.equal(batch["labels"][chosen], original[chosen])
    assert torch.equal(batch["input_ids"][~chosen], original[~chosen])


@pytest.mark.parametrize("whole_word", [False, True])
def test_masking_never_touches_and_never_draws_special_tokens(bert_tokenizer, documents, whole_word):
    rows = rows_of(bert_tokenizer, documents)
    collator = MaskedLanguageModeling(
        bert_tokenizer, mlm_probability=0.9, mask_share=0.1, random_share=0.8, whole_word=whole_word
    )
    batch = collator(rows)
    original = torch.from_numpy(np.stack([row["input_ids"] for row in rows]))
    special = torch.tensor(bert_tokenizer.all_special_ids)
    untouched = torch.isin(original, special)
    assert untouched.sum() > 500
    assert (batch["labels"][untouched] == -100).all()
    assert torch.equal(batch["input_ids"][untouched], original[untouched])
    drawn = batch["input_ids"][(batch["input_ids"] != original) & (batch["input_ids"] != bert_tokenizer.mask_token_id)]
    assert len(drawn) > 5000
    assert not torch.isin(drawn, special).any()


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_whole_word_masking_masks_whole_words_at_the_same_rate(kind, bert_tokenizer, gpt_tokenizer, documents):
    tokenizer = bert_tokenizer if kind == "bert" else with_mask(gpt_tokenizer)
    rows = rows_of(tokenizer, documents)
    batch = MaskedLanguageModeling(tokenizer, mlm_probability=0.3, whole_word=True)(rows)
    starts = WordStarts.for_tokenizer(tokenizer)
    special = np.isin(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    split_words = 0
    for row, labels in zip(rows, batch["labels"].numpy(), strict=True):
        ids = row["input_ids"]
        words = np.cumsum(starts(ids) | special[ids])
        for word in np.unique(words[~special[ids]]):
            chosen = labels[(words == word) & ~special[ids]] != -100
            split_words += len(chosen) > 1
            assert chosen.all() or not chosen.any()
    assert split_words > 500  # the tokenizer does cut words, so the claim above says something
    regular = int((~special[np.stack([row["input_ids"] for row in rows])]).sum())
    assert abs(float((batch["labels"] != -100).sum()) / regular - 0.3) < 0.03


def with_mask(gpt_tokenizer):
    gpt_tokenizer.mask_token = "<|im_end|>"  # any reserved token does
    return gpt_tokenizer


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_word_starts_agree_with_the_tokenizers_own_words(kind, bert_tokenizer, gpt_tokenizer, documents):
    tokenizer = bert_tokenizer if kind == "bert" else gpt_tokenizer
    starts = WordStarts.for_tokenizer(tokenizer)
    agree, total = 0, 0
    for text in documents:
        encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        words = np.array(encoding.word_ids)
        expected = np.concatenate([[True], words[1:] != words[:-1]])
        written = np.array([token.strip("ĠĊĉ") != "" for token in encoding.tokens])  # runs of spaces are no words
        agree += int((starts(np.array(encoding.ids)) == expected)[written].sum())
        total += int(written.sum())
    assert agree / total > 0.998  # contractions ('s, 't) are cut off by the tokenizer only


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_masks_of_a_row_do_not_depend_on_its_batch(bert_tokenizer, documents, seed, epoch):
    rows = rows_of(bert_tokenizer, documents[:20])[:6]
    collator = MaskedLanguageModeling(bert_tokenizer, seed=seed, epoch=epoch)
    together = collator(rows)
    for i in reversed(range(len(rows))):
        alone = collator([rows[i]])
        assert torch.equal(together["input_ids"][i], alone["input_ids"][0])
        assert torch.equal(together["labels"][i], alone["labels"][0])


def test_masks_change_with_epoch_and_with_seed(bert_tokenizer, documents):
    rows = rows_of(bert_tokenizer, documents[:20])
    first = MaskedLanguageModeling(bert_tokenizer)(rows)["labels"]
    for other in (MaskedLanguageModeling(bert_tokenizer, epoch=1), MaskedLanguageModeling(bert_tokenizer, seed=1)):
        assert not torch.equal(first, other(rows)["labels"])
    assert torch.equal(first, MaskedLanguageModeling(bert_tokenizer)(rows)["labels"])


def test_a_tokenizer_without_a_mask_token_and_a_rate_of_one_are_refused(gpt_tokenizer, bert_tokenizer):
    with pytest.raises(UserError, match="no mask token"):
        MaskedLanguageModeling(gpt_tokenizer)
    with pytest.raises(UserError, match="between 0 and 1"):
        MaskedLanguageModeling(bert_tokenizer, mlm_probability=1.0)
