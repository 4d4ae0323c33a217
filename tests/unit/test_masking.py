"""Masking of every kind: the rate, the 80/10/10 shares, special tokens, whole words, and masks of the row alone."""

import numpy as np
import pytest
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives import MaskedLanguageModeling
from lm_recipes.objectives.words import WordStarts
from lm_recipes.tokenization.training import train_tokenizer

KINDS = ["token", "whole_word", "span", "ngram"]


def rows_of(tokenizer, documents, length: int = 128) -> list[dict[str, np.ndarray]]:
    """Documents one after the other, cut into rows; positions restart with every document and every row."""
    pieces = tokenizer(documents[:400])["input_ids"]
    ids = np.concatenate(pieces)
    positions = np.concatenate([np.arange(len(piece)) for piece in pieces])
    rows = [slice(start, start + length) for start in range(0, len(ids) - length + 1, length)]
    first = np.arange(length)
    return [
        {"input_ids": ids[row], "position_ids": np.where(positions[row] < first, positions[row], first)} for row in rows
    ]


def column(rows, name: str = "input_ids") -> torch.Tensor:
    return torch.from_numpy(np.stack([row[name] for row in rows]))


def within(share: float, expected: float, count: int) -> bool:
    """Inside four standard deviations of a binomial share: fails by chance once in 16,000."""
    return abs(share - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


@pytest.fixture(scope="module")
def unigram(documents):
    return train_tokenizer(documents[:400], "unigram", 512)


@pytest.fixture
def tokenizers(bert_tokenizer, gpt_tokenizer, unigram):
    for tokenizer in (gpt_tokenizer, unigram):
        tokenizer.mask_token = "<|im_end|>"  # any reserved token does
    return {"wordpiece": bert_tokenizer, "bpe": gpt_tokenizer, "unigram": unigram}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("masking", KINDS)
@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_rate_and_80_10_10_shares_hold_within_confidence_bounds(bert_tokenizer, documents, rate, masking, exact):
    rows = rows_of(bert_tokenizer, documents)
    batch = MaskedLanguageModeling(bert_tokenizer, mlm_probability=rate, masking=masking, exact=exact)(rows)
    original = column(rows)
    chosen = batch["labels"] != -100
    regular = ~torch.isin(original, torch.tensor(bert_tokenizer.all_special_ids))
    asked = int(chosen.sum())
    assert asked > 3000
    # Tokens that are chosen together count once: how many a token's unit has in the mean, rounded up.
    together = {"token": 1, "whole_word": 3, "span": 10, "ngram": 5}[masking]
    of = len(original.flatten()) if exact else int(regular.sum())
    assert within(asked / of, rate, of / together)
    masked = batch["input_ids"][chosen] == bert_tokenizer.mask_token_id
    kept = batch["input_ids"][chosen] == original[chosen]
    vocabulary = len(bert_tokenizer) - len(bert_tokenizer.all_special_ids)
    fates = asked / (together if masking == "span" else 1)
    assert within(float(masked.float().mean()), 0.8, fates)
    assert within(float(kept.float().mean()), 0.1 + 0.1 / vocabulary, fates)
    assert torch.equal(batch["labels"][chosen], original[chosen])
    assert torch.equal(batch["input_ids"][~chosen], original[~chosen])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("masking", KINDS)
def test_masking_never_touches_and_never_draws_special_tokens(bert_tokenizer, documents, masking, exact):
    rows = rows_of(bert_tokenizer, documents)
    shares = {"mask_share": 0.1, "random_share": 0.8}
    batch = MaskedLanguageModeling(bert_tokenizer, mlm_probability=0.9, masking=masking, exact=exact, **shares)(rows)
    original = column(rows)
    special = torch.tensor(bert_tokenizer.all_special_ids)
    untouched = torch.isin(original, special)
    assert untouched.sum() > 500
    assert (batch["labels"][untouched] == -100).all()
    assert torch.equal(batch["input_ids"][untouched], original[untouched])
    drawn = batch["input_ids"][(batch["input_ids"] != original) & (batch["input_ids"] != bert_tokenizer.mask_token_id)]
    assert len(drawn) > 5000
    assert not torch.isin(drawn, special).any()
    assert len(drawn.unique()) > 0.9 * (len(bert_tokenizer) - len(special))  # all others are


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("masking", ["whole_word", "span", "ngram"])
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_words_are_asked_whole_on_every_kind_of_tokenizer(kind, tokenizers, documents, masking, exact):
    tokenizer = tokenizers[kind]
    rows = rows_of(tokenizer, documents[:150])
    batch = MaskedLanguageModeling(tokenizer, mlm_probability=0.3, masking=masking, exact=exact)(rows)
    starts = WordStarts.for_tokenizer(tokenizer)
    special = np.isin(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    split_words, cut = 0, 0
    for row, labels in zip(rows, batch["labels"].numpy(), strict=True):
        ids = row["input_ids"]
        words = np.cumsum(starts(ids) | special[ids] | (row["position_ids"] == 0))[~special[ids]]
        lengths, asked = np.bincount(words), np.bincount(words, labels[~special[ids]] != -100)
        split_words += int((lengths > 1).sum())
        (cut_here,) = np.nonzero((asked > 0) & (asked < lengths))
        if exact and len(cut_here):  # the last word of the budget, where no word of one token was left to fill it
            assert len(cut_here) == 1
            assert (asked == lengths)[lengths == 1].all()
            cut += 1
        else:
            assert len(cut_here) == 0
    assert cut < 0.01 * len(rows)
    assert split_words > 500  # the tokenizer does cut words, so the claim above says something


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_word_starts_agree_with_the_tokenizers_own_words(kind, tokenizers, documents):
    tokenizer = tokenizers[kind]
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


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("masking", KINDS)
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_masks_of_a_row_do_not_depend_on_its_batch(bert_tokenizer, documents, seed, epoch, masking, exact):
    rows = rows_of(bert_tokenizer, documents[:20])[:6]
    collator = MaskedLanguageModeling(bert_tokenizer, masking=masking, exact=exact, seed=seed, epoch=epoch)
    together = collator(rows)
    for i in reversed(range(len(rows))):
        alone = collator([rows[i]])
        assert torch.equal(together["input_ids"][i], alone["input_ids"][0])
        assert torch.equal(together["labels"][i], alone["labels"][0])


@pytest.mark.parametrize("masking", KINDS)
def test_masks_change_with_epoch_and_with_seed(bert_tokenizer, documents, masking):
    rows = rows_of(bert_tokenizer, documents[:20])

    def labels(**settings) -> torch.Tensor:
        return MaskedLanguageModeling(bert_tokenizer, masking=masking, **settings)(rows)["labels"]

    assert not torch.equal(labels(), labels(epoch=1))
    assert not torch.equal(labels(), labels(seed=1))
    assert torch.equal(labels(), labels())


def test_what_cannot_be_masked_is_refused(gpt_tokenizer, bert_tokenizer):
    with pytest.raises(UserError, match="no mask token"):
        MaskedLanguageModeling(gpt_tokenizer)
    with pytest.raises(UserError, match=r"mlm_probability is 1.* must lie between 0 and 1"):
        MaskedLanguageModeling(bert_tokenizer, mlm_probability=1.0)
    with pytest.raises(UserError, match="mlm_probability_end is 0"):
        MaskedLanguageModeling(bert_tokenizer, mlm_probability_end=0.0)
    with pytest.raises(UserError, match="`words` is none of token, whole_word, span, ngram"):
        MaskedLanguageModeling(bert_tokenizer, masking="words")
    with pytest.raises(UserError, match="they are parts of 1"):
        MaskedLanguageModeling(bert_tokenizer, mask_share=0.9, random_share=0.2)
