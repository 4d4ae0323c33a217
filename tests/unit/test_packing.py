"""Packing loses nothing, repeats only what it says it repeats, and keeps documents apart."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.objectives.packing import Packer, best_fit, read_packed, segments, write_packed

PAD, BOS, EOS, CLS, SEP = 0, 1, 2, 3, 4
lists_of_documents = st.lists(st.lists(st.integers(10, 500), max_size=60), max_size=25)


def gpt_packer(block_size: int) -> Packer:
    return Packer(block_size, PAD, document_prefix=(BOS,), document_suffix=(EOS,), overlap=1)


def bert_packer(block_size: int) -> Packer:
    return Packer(block_size, PAD, prefix=(CLS,), suffix=(SEP,))


def cut(blocks) -> list[list[int]]:
    """The pieces of blocks, read back through position ids alone."""
    pieces = []
    for ids, positions in blocks:
        starts = [*np.flatnonzero(positions == 0), len(ids)]
        pieces += [ids[a:b].tolist() for a, b in pairwise(starts)]
    return [piece for piece in pieces if piece[0] != PAD]


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_a_causal_model_is_asked_for_every_token_of_every_document_exactly_once(documents, block_size):
    asked = []
    for ids, positions in gpt_packer(block_size).pack(documents):
        asked += ids[(positions > 0) & (ids != PAD)].tolist()
    expected = [token for document in documents if document for token in [*document, EOS]]
    assert sorted(asked) == sorted(expected)


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_masked_packing_holds_every_token_once_between_cls_and_sep(documents, block_size):
    pieces = cut(bert_packer(block_size).pack(documents))
    assert all(piece[0] == CLS and piece[-1] == SEP for piece in pieces)
    held = sorted(token for piece in pieces for token in piece[1:-1])
    assert held == sorted(token for document in documents for token in document)


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_every_block_is_full_and_every_piece_keeps_its_order(documents, block_size):
    packer = gpt_packer(block_size)
    blocks = list(packer.pack(documents))
    assert all(len(ids) == len(positions) == block_size for ids, positions in blocks)
    whole = {tuple(piece) for document in documents for piece in map(np.ndarray.tolist, packer.pieces(document))}
    assert {tuple(piece) for piece in cut(blocks)} == whole


@given(st.lists(st.integers(1, 50), max_size=200))
def test_best_fit_never_overfills_and_never_needs_a_block_that_two_others_could_share(lengths):
    bins = list(best_fit([np.zeros(length) for length in lengths], 50))
    fills = sorted(sum(map(len, pieces)) for pieces in bins)
    assert sum(fills) == sum(lengths)
    assert all(fill <= 50 for fill in fills)
    # if the two emptiest bins fitted into one, best fit would have put them there
    assert len(fills) < 2 or fills[0] + fills[1] > 50


def test_best_fit_pads_real_length_mixes_by_less_than_one_percent():
    lengths = np.random.default_rng(0).lognormal(4, 1, 20_000).astype(int).clip(2, 255)
    bins = list(best_fit([np.zeros(length) for length in lengths], 256))
    assert 1 - lengths.sum() / (256 * len(bins)) < 0.01


def test_a_small_buffer_still_loses_nothing():
    documents = [[10 + i] * (i % 7 + 1) for i in range(100)]
    few, many = (cut(bert_packer(16).pack(documents, buffer=size)) for size in (5, 10_000))
    assert sorted(few) == sorted(many)


def test_a_golden_example():
    blocks = list(gpt_packer(6).pack([[10, 11, 12, 13, 14, 15, 16], [20, 21]]))
    assert [ids.tolist() for ids, _ in blocks] == [[1, 10, 11, 12, 13, 14], [14, 15, 16, 2, 0, 0], [1, 20, 21, 2, 0, 0]]
    assert [positions.tolist() for _, positions in blocks] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 0, 1],
        [0, 1, 2, 3, 0, 1],
    ]


def test_segments_number_the_pieces():
    assert segments(np.array([[0, 1, 2, 0, 1, 0]])).tolist() == [[1, 1, 1, 2, 2, 3]]


def test_a_block_without_room_for_text_is_refused():
    with pytest.raises(UserError, match="block_size 2 leaves no room"):
        bert_packer(2)


def test_written_blocks_are_read_back_as_they_were(tmp_path, gpt_tokenizer, documents):
    packer = Packer.for_tokenizer(gpt_tokenizer, 64)
    counts = write_packed(documents[:30], gpt_tokenizer, packer, tmp_path / "train")
    from datasets import load_from_disk

    rows = load_from_disk(str(tmp_path / "train")).with_format("numpy")
    expected = list(packer.pack(gpt_tokenizer(documents[:30], add_special_tokens=False)["input_ids"]))
    assert len(rows) == counts["blocks"] == len(expected)
    for row, (ids, positions) in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row["input_ids"], ids)
        np.testing.assert_array_equal(row["position_ids"], positions)
    assert str(rows.data.schema.field("input_ids").type.value_type) == "uint16"  # two bytes a token on disk
    assert counts["text_bytes"] == sum(len(text.encode()) for text in documents[:30])
    tokens = sum(map(len, gpt_tokenizer(documents[:30], add_special_tokens=False)["input_ids"]))
    assert counts["predicted_tokens"] == tokens + 30  # and one eos per document


def test_a_directory_that_is_no_packed_corpus_is_named(tmp_path):
    with pytest.raises(UserError, match="packed corpus"):
        read_packed(tmp_path)
