"""Masking in detail: spans and n-grams, a budget that is met to the token, and a ratio that falls over the run."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lm_recipes.objectives import MaskedLanguageModeling, read_packed
from lm_recipes.objectives.spans import choose_exactly, join_words

KINDS = ["token", "whole_word", "span", "ngram"]
LENGTHS = {"span": 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10), "ngram": np.array([6, 3, 2]) / 11}


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "the fox ##es bark ##ed un ##believ ##ab ##ly at a dog [SEP] [CLS] in pari ##s it rain ##s [SEP]"


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Of a fixed vocabulary: a trained one of this size has its ids in another order in every process."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(SPECIAL + TEXT.split()))}
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordPiece(vocabulary, unk_token="[UNK]")), **names)


@pytest.fixture
def blocks(packed):
    return read_packed(packed["bert"][0]).train


@pytest.mark.parametrize(("kind", "mean"), [("span", 3.8), ("ngram", 18 / 11)])
def test_units_are_as_long_as_the_papers_say(kind, mean):
    row = np.zeros((1, 100_000), dtype=bool)  # one piece in which every token is a word
    starts = join_words(kind, ~row, row, np.random.default_rng(0).random(row.shape))
    lengths = np.diff(np.flatnonzero(np.r_[True, starts[0, 1:]]))
    expected = LENGTHS[kind]
    counts = np.bincount(lengths)[1:]
    assert len(counts) == len(expected)
    chi_square = ((counts - len(lengths) * expected) ** 2 / (len(lengths) * expected)).sum()
    assert chi_square < 28  # with 9 degrees of freedom one in a thousand
    assert abs(lengths.mean() - mean) < 0.05


@given(
    st.lists(st.sampled_from("w.|"), min_size=1, max_size=60), st.sampled_from(["span", "ngram"]), st.integers(0, 99)
)
def test_units_are_whole_words_of_one_piece(tokens, kind, seed):
    """w begins a word, . continues it, | begins a piece."""
    breaks = np.array([[i == 0 or token == "|" for i, token in enumerate(tokens)]])
    words = breaks | np.array([[token == "w" for token in tokens]])
    units = join_words(kind, words, breaks, np.random.default_rng(seed).random(words.shape))
    assert (units <= words).all()
    assert (units >= breaks).all()
    words_per_unit = np.bincount(np.cumsum(units) - 1, words[0])
    assert words_per_unit.max() <= len(LENGTHS[kind])


def chosen(*args) -> str:
    return "".join("x" if token else "." for token in choose_exactly(*args)[0])


def test_a_budget_is_filled_with_whole_units_then_whole_words_then_words_of_one_token():
    keys = np.array([[0.5] * 5 + [0.9, 0.7] + [0.1] * 2 + [0.8]])  # units of 5, 1, 1, 2 and 1 tokens
    words = np.array([[1, 0, 1, 0, 0, 1, 1, 1, 0, 1]], dtype=bool)  # the first unit is a word of 2 and one of 3
    allowed = np.ones_like(words)
    assert chosen(2, keys, allowed, words) == ".......xx."
    assert chosen(4, keys, allowed, words) == "xx.....xx."  # the first unit's first word
    assert chosen(5, keys, allowed, words) == "xx....xxx."  # its second word does not fit; the next of one token does
    assert chosen(7, keys, allowed, words) == "xxxxx..xx."
    assert chosen(8, keys, allowed, words) == "xxxxx.xxx."
    allowed[0, [5, 6, 9]] = False
    assert chosen(5, keys, allowed, words) == "xxx....xx."  # no word of one token is left: a word is cut
    assert chosen(9, keys, allowed, words) == "xxxxx..xx."  # no more than there are
    assert chosen(5, keys, allowed) == "xxx....xx."
    assert chosen(0, keys, allowed, words) == "." * 10


@settings(max_examples=60, deadline=None)
@given(data=st.data(), masking=st.sampled_from(KINDS), ratio=st.sampled_from([0.01, 0.15, 0.3, 0.97]))
def test_exact_masking_asks_for_as_many_tokens_of_every_row(data, masking, ratio):
    tokenizer = tiny_tokenizer()
    length = data.draw(st.integers(1, 40))
    special_too = st.integers(0, len(tokenizer) - 1)
    ids = np.array(data.draw(st.lists(st.lists(special_too, min_size=length, max_size=length), min_size=1, max_size=3)))
    positions = np.array([data.draw(st.integers(1, length)) for _ in ids])[:, None]
    rows = [
        {"input_ids": row, "position_ids": np.arange(length) % period}
        for row, period in zip(ids, positions, strict=True)
    ]
    labels = MaskedLanguageModeling(tokenizer, ratio, masking=masking, exact=True)(rows)["labels"].numpy()
    asked = (labels != -100).sum(axis=1)
    possible = (~np.isin(ids, tokenizer.all_special_ids)).sum(axis=1)
    assert (asked == np.minimum(round(ratio * length), possible)).all()
    assert (labels[labels != -100] == ids[labels != -100]).all()


@pytest.mark.parametrize("masking", ["whole_word", "span", "ngram"])
def test_what_is_asked_of_a_piece_says_nothing_of_the_next(bert_tokenizer, masking):
    words = np.flatnonzero([token.isalpha() for token in bert_tokenizer.convert_ids_to_tokens(range(512))])
    ids = np.random.default_rng(0).choice(words, (400, 128))  # pieces without special tokens between them
    rows = [{"input_ids": row, "position_ids": np.arange(128) % 3} for row in ids]
    asked = MaskedLanguageModeling(bert_tokenizer, 0.3, masking=masking)(rows)["labels"].numpy() != -100
    across = np.arange(1, 128) % 3 == 0
    both = asked[:, 1:] & asked[:, :-1]
    count = both[:, across].size
    assert abs(both[:, across].mean() - 0.3**2) < 4 * (0.09 * 0.91 / count) ** 0.5
    assert (both[:, ~across].mean() > 0.13) == (masking != "whole_word")


def test_a_span_shares_one_fate_and_an_ngram_does_not(bert_tokenizer, blocks):
    rows = [blocks[i] for i in range(len(blocks))]
    original = torch.from_numpy(np.stack([row["input_ids"] for row in rows]).astype(np.int64))
    agree = {}
    for masking in ("span", "ngram"):
        batch = MaskedLanguageModeling(bert_tokenizer, 0.05, masking=masking, mask_share=0.5, random_share=0.0)(rows)
        asked = batch["labels"] != -100
        kept = batch["input_ids"] == original
        pairs = asked[:, 1:] & asked[:, :-1]
        assert pairs.sum() > 300
        agree[masking] = float((kept[:, 1:] == kept[:, :-1])[pairs].float().mean())
    assert agree["span"] > 0.95  # the rest are spans that happen to touch
    assert abs(agree["ngram"] - 0.5) < 0.1


GOLDEN = {  # what the model sees (_: masked), then what it is asked: 6 of 21 tokens
    "token": (
        "_ fox ##es _ ##ed un _ ##ab ##ly at _ dog [SEP] [CLS] _ pari ##s it rain ##s [SEP]",
        "the - - bark ##ed - ##believ - - - a - - - in - - - - - -",
    ),
    "whole_word": (
        "_ fox ##es _ ##ed un ##believ ##ab ##ly _ _ dog [SEP] [CLS] _ pari ##s it rain ##s [SEP]",
        "the - - bark ##ed - - - - at a - - - in - - - - - -",
    ),
    "span": (
        "_ fox ##es bark ##ed un ##believ ##ab ##ly _ a dog [SEP] [CLS] _ _ _ _ rain ##s [SEP]",
        "the - - - - - - - - at - - - - in pari ##s it - - -",
    ),
    "ngram": (
        "_ fox ##es bark ##ed un ##believ ##ab ##ly at a dog [SEP] [CLS] _ pari it it _ _ [SEP]",
        "the - - - - - - - - - - - - - in pari ##s - rain ##s -",
    ),
}


@pytest.mark.parametrize("masking", KINDS)
def test_golden_rows(masking):
    tokenizer, tokens = tiny_tokenizer(), TEXT.split()
    ids = np.array(tokenizer.convert_tokens_to_ids(tokens))
    row = {"input_ids": ids, "position_ids": np.r_[: tokens.index("[CLS]"), : len(ids) - tokens.index("[CLS]")]}
    batch = MaskedLanguageModeling(tokenizer, 0.3, masking=masking, exact=True)([row])
    seen = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    asked = [tokenizer.convert_ids_to_tokens(label) if label != -100 else "-" for label in batch["labels"][0].tolist()]
    assert (" ".join(seen).replace("[MASK]", "_"), " ".join(asked)) == GOLDEN[masking]


def batches(collator, blocks, workers: int, skip: int = 0) -> list[dict[str, torch.Tensor]]:
    """Of one epoch, batches of 4 blocks from `skip` on, in order."""
    rows = [blocks[i] for i in range(4 * skip, 4 * 11)]
    return list(DataLoader(rows, batch_size=4, collate_fn=collator, num_workers=workers))


def falling(bert_tokenizer, **settings) -> MaskedLanguageModeling:
    return MaskedLanguageModeling(bert_tokenizer, 0.5, exact=True, mlm_probability_end=0.2, **settings)


def equal(some, others) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a[name], b[name]) for a, b in zip(some, others, strict=True) for name in ("input_ids", "labels")
    )


def counts(made) -> list[int]:
    return [int((batch["labels"][0] != -100).sum()) for batch in made]


def test_the_ratio_goes_in_a_straight_line_from_the_first_batch_to_the_last(bert_tokenizer, blocks):
    made = batches(falling(bert_tokenizer, total_batches=11), blocks, workers=0)
    assert counts(made) == [round((0.5 - 0.03 * number) * 64) for number in range(11)]
    two_epochs = falling(bert_tokenizer)
    two_epochs.total_batches = 22
    for epoch in (0, 1):
        two_epochs.epoch, two_epochs.first_batch = epoch, 11 * epoch
        asked = counts(batches(two_epochs, blocks, workers=0))
        assert asked == [round((0.5 - 0.3 * (11 * epoch + number) / 21) * 64) for number in range(11)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_workers_and_after_a_resume(bert_tokenizer, blocks, workers):
    whole = batches(falling(bert_tokenizer, total_batches=11), blocks, workers=0)
    assert equal(batches(falling(bert_tokenizer, total_batches=11), blocks, workers), whole)
    for done in (1, 4):
        resumed = falling(bert_tokenizer, total_batches=11, first_batch=done)
        assert equal(batches(resumed, blocks, workers, skip=done), whole[done:])


def test_a_batch_made_before_the_run_begins_is_not_counted(bert_tokenizer, blocks):
    collator = falling(bert_tokenizer)
    batches(collator, blocks, workers=0)  # the pre-flight check makes one
    collator.first_batch, collator.total_batches = 0, 11
    assert equal(
        batches(collator, blocks, workers=0), batches(falling(bert_tokenizer, total_batches=11), blocks, workers=0)
    )
    collator.first_batch = 0  # a second run
    assert counts(batches(collator, blocks, workers=0))[0] == 32


def test_masks_are_of_the_row_and_the_ratio_whenever_they_are_made(bert_tokenizer, blocks):
    made = batches(falling(bert_tokenizer, total_batches=11), blocks, workers=0)
    constant = MaskedLanguageModeling(bert_tokenizer, 0.5 - 0.03 * 5, exact=True)
    assert equal(made[5:6], [constant([blocks[i] for i in range(20, 24)])])
