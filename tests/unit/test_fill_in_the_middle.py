"""Fill in the middle: what it moves can be moved back, rows keep their length, and nothing else changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.objectives import CausalLanguageModeling, Packer
from lm_recipes.objectives.fim import FillInTheMiddle
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.tokenization.training import train_tokenizer

LENGTH = 64
PAD, BOS, EOS = 0, 1, 2
PREFIX, MIDDLE, SUFFIX = 5, 6, 7  # the reserved tokens of the tokenizer below, in its order


@pytest.fixture(scope="module")
def tokenizer(documents):
    made = train_tokenizer(documents[:400], "bpe", 512, reserved=["fim"])
    assert made.convert_ids_to_tokens([PREFIX, MIDDLE, SUFFIX]) == [
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
    ]
    return made


@pytest.fixture(scope="module")
def rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    texts = [text[: 5 + 40 * (i % 9)] for i, text in enumerate(documents[:300])]  # some of them longer than a block
    blocks = Packer.for_tokenizer(tokenizer, LENGTH).pack(encode_batches(tokenizer, texts))
    return [{"input_ids": i, "position_ids": p} for some in blocks for i, p in zip(*some, strict=True)]


def pieces_of(row: dict[str, np.ndarray], ids: np.ndarray) -> list[list[int]]:
    return [ids[a:b].tolist() for a, b in pairwise([*np.flatnonzero(row["position_ids"] == 0), len(ids)])]


def put_back(piece: list[int]) -> list[int]:
    """The beginning of the piece that a rearranged one was made of."""
    opening, text = (piece[:1], piece[1:-1]) if piece[0] == BOS else ([], piece[:-1])
    assert text[0] == PREFIX
    assert piece[-1] == EOS
    suffix_at, middle_at = text.index(SUFFIX), text.index(MIDDLE)
    prefix, suffix, middle = text[1:suffix_at], text[suffix_at + 1 : middle_at], text[middle_at + 1 :]
    return opening + prefix + middle + suffix  # SPM has its prefix at the head of its middle


def test_both_forms_of_a_small_piece(tokenizer):
    row = {"input_ids": np.array([BOS, *range(20, 29), EOS]), "position_ids": np.arange(11)}  # gives up 26, 27, 28
    psm, spm = (FillInTheMiddle(tokenizer, fim_rate=1, seed=seed)([row])["input_ids"][0].tolist() for seed in (2, 9))
    assert psm == [BOS, PREFIX, 20, 21, 22, 23, SUFFIX, 25, MIDDLE, 24, EOS]
    assert spm == [BOS, PREFIX, SUFFIX, 23, 24, 25, MIDDLE, 20, 21, 22, EOS]


@pytest.mark.parametrize("spm_share", [0, 0.5, 1])
def test_every_piece_can_be_put_back_but_for_the_tokens_it_gave_up(tokenizer, rows, spm_share):
    batch = FillInTheMiddle(tokenizer, fim_rate=1, spm_share=spm_share)(rows)
    rearranged = cut = kept = 0
    for row, ids in zip(rows, batch["input_ids"].numpy(), strict=True):
        for before, after in zip(pieces_of(row, row["input_ids"]), pieces_of(row, ids), strict=True):
            assert len(before) == len(after)
            if before[0] == PAD or len(before) < 7 + (before[0] == BOS):
                assert after == before
                kept += 1
                continue
            assert put_back(after) == before[:-4]  # an eos and three tokens, or four tokens of a cut document
            rearranged += 1
            cut += before[-1] != EOS or before[0] != BOS
    assert min(rearranged - cut, cut, kept) > 10


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 40), bos=st.booleans(), eos=st.booleans(), seed=st.integers(0, 999))
def test_pieces_of_any_length_keep_it_and_can_be_put_back(tokenizer, length, bos, eos, seed):
    piece = [BOS] * bos + list(range(20, 20 + length)) + [EOS] * eos
    if not piece:
        return
    row = {"input_ids": np.array(piece), "position_ids": np.arange(len(piece))}
    after = FillInTheMiddle(tokenizer, fim_rate=1, seed=seed)([row])["input_ids"][0].tolist()
    assert len(after) == len(piece)
    assert after == piece if len(piece) - bos < 7 else put_back(after) == piece[:-4]


def test_rates_hold_within_confidence_bounds(tokenizer, rows):
    batch = FillInTheMiddle(tokenizer, fim_rate=0.4, spm_share=0.3)(rows)
    able = forms = spm = 0
    for row, ids in zip(rows, batch["input_ids"].numpy(), strict=True):
        for piece in pieces_of(row, ids):
            able += piece[0] != PAD and len(piece) >= 7 + (piece[0] == BOS)
            forms += PREFIX in piece
            # An empty prefix makes PSM look like SPM: about once in the length of a piece.
            spm += PREFIX in piece and piece[piece.index(PREFIX) + 1] == SUFFIX
    assert abs(forms / able - 0.4) < 4 * (0.24 / able) ** 0.5
    assert abs(spm / forms - 0.3) < 4 * (0.21 / forms) ** 0.5 + 0.05


def test_labels_and_positions_are_those_of_causal_modelling_of_the_rearranged_rows(tokenizer, rows):
    batch = FillInTheMiddle(tokenizer)(rows)
    again = [
        {"input_ids": ids.numpy(), "position_ids": row["position_ids"]}
        for row, ids in zip(rows, batch["input_ids"], strict=True)
    ]
    plain = CausalLanguageModeling(PAD)(again)
    assert batch.keys() == plain.keys()
    assert all(torch.equal(batch[name], plain[name]) for name in ("input_ids", "labels", "position_ids"))
    assert not batch["use_cache"]


def test_a_rate_of_zero_is_causal_modelling(tokenizer, rows):
    batch, plain = FillInTheMiddle(tokenizer, fim_rate=0)(rows), CausalLanguageModeling(PAD)(rows)
    assert all(torch.equal(batch[name], plain[name]) for name in ("input_ids", "labels", "position_ids"))


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_what_becomes_of_a_row_depends_on_seed_epoch_and_row_alone(tokenizer, rows, seed, epoch):
    collator, before = FillInTheMiddle(tokenizer, seed=seed, epoch=epoch), [row["input_ids"].copy() for row in rows]
    together = collator(rows)["input_ids"]
    for i in reversed(range(8)):
        assert torch.equal(together[i], collator([rows[i]])["input_ids"][0])
    for other in ({"seed": seed + 1, "epoch": epoch}, {"seed": seed, "epoch": epoch + 1}):
        assert not torch.equal(together, FillInTheMiddle(tokenizer, **other)(rows)["input_ids"])
    assert all(np.array_equal(row["input_ids"], ids) for row, ids in zip(rows, before, strict=True))  # left alone


def test_a_tokenizer_without_the_tokens_and_a_rate_of_two_are_refused(gpt_tokenizer, tokenizer):
    with pytest.raises(UserError, match=r"has no <\|fim_middle\|>, .*--reserved_tokens fim"):
        FillInTheMiddle(gpt_tokenizer)
    with pytest.raises(UserError, match="spm_share is 2; it must lie between 0 and 1"):
        FillInTheMiddle(tokenizer, spm_share=2)
