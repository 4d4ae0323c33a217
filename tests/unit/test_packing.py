"""Packing loses nothing, repeats only what it says it repeats, and keeps documents apart."""

import pickle
from collections import Counter, defaultdict
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.objectives.packed import PackedSplit, write_blocks
from lm_recipes.objectives.packing import Packer, best_fit, read_packed, segments, write_packed

PAD, BOS, EOS, CLS, SEP = 0, 1, 2, 3, 4
lists_of_documents = st.lists(st.lists(st.integers(10, 500), max_size=60), max_size=25)


def gpt_packer(block_size: int) -> Packer:
    return Packer(block_size, PAD, document_prefix=(BOS,), document_suffix=(EOS,), overlap=1)


def bert_packer(block_size: int) -> Packer:
    return Packer(block_size, PAD, prefix=(CLS,), suffix=(SEP,))


def concatenating_packer(block_size: int) -> Packer:
    return Packer(block_size, PAD, document_prefix=(BOS,), document_suffix=(EOS,), packing="concatenate")


def batches(documents: list[list[int]], size: int = 7):
    """Documents as a tokenizer hands them over, `size` at a time."""
    for start in range(0, len(documents), size):
        some = documents[start : start + size]
        yield np.array([*chain(*some)], dtype=np.uint32), np.cumsum([0, *map(len, some)])


def pack(packer: Packer, documents: list[list[int]], **settings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blocks one by one."""
    size = settings.pop("size", 7)
    return [block for some in packer.pack(batches(documents, size), **settings) for block in zip(*some, strict=True)]


def cut(blocks) -> list[list[int]]:
    """The pieces of blocks, read back through position ids alone."""
    pieces = []
    for ids, positions in blocks:
        starts = [*np.flatnonzero(positions == 0), len(ids)]
        pieces += [ids[a:b].tolist() for a, b in pairwise(starts)]
    return [piece for piece in pieces if piece[0] != PAD]


def plainly(packer: Packer, documents: list[list[int]], buffer: int) -> list[tuple[list[int], list[int]]]:
    """What best-fit packing says, one piece after the other in plain Python."""
    blocks, waiting = [], []
    for document in filter(None, documents):
        body = [*packer.document_prefix, *document, *packer.document_suffix]
        for start in range(0, max(len(body) - packer.overlap, 1), packer.room - packer.overlap):
            piece = [*packer.prefix, *body[start : start + packer.room], *packer.suffix]
            blocks.append([piece]) if len(piece) == packer.block_size else waiting.append(piece)
        if len(waiting) >= buffer:
            blocks += best_fit_plainly(waiting, packer.block_size)
            waiting = []
    blocks += best_fit_plainly(waiting, packer.block_size)
    rows = []
    for pieces in blocks:
        parts = [*pieces, [packer.pad_token_id] * (packer.block_size - sum(map(len, pieces)))]
        rows.append(([*chain(*parts)], [position for part in parts for position in range(len(part))]))
    return rows


def best_fit_plainly(pieces: list[list[int]], block_size: int) -> list[list[list[int]]]:
    bins, by_room = [], defaultdict(list)
    for piece in sorted(pieces, key=len, reverse=True):
        rooms = [room for room, having in by_room.items() if having and room >= len(piece)]
        room = min(rooms, default=block_size)
        if not rooms:
            bins.append([])
        chosen = by_room[room].pop() if rooms else len(bins) - 1
        bins[chosen].append(piece)
        by_room[room - len(piece)].append(chosen)
    return bins


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40), st.sampled_from([gpt_packer, bert_packer]), st.integers(1, 9))
def test_best_fit_gives_the_blocks_of_the_plain_algorithm_in_its_order(documents, block_size, kind, buffer):
    packer = kind(block_size)
    blocks = pack(packer, documents, buffer=buffer)
    assert [(ids.tolist(), positions.tolist()) for ids, positions in blocks] == plainly(packer, documents, buffer)


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40), st.integers(1, 30))
def test_how_documents_come_in_batches_changes_nothing(documents, block_size, size):
    for packer in (gpt_packer(block_size), bert_packer(block_size), concatenating_packer(block_size)):
        one, other = (np.array(pack(packer, documents, size=n, buffer=3)) for n in (7, size))
        np.testing.assert_array_equal(one, other)


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_a_causal_model_is_asked_for_every_token_of_every_document_exactly_once(documents, block_size):
    asked = []
    for ids, positions in pack(gpt_packer(block_size), documents):
        asked += ids[(positions > 0) & (ids != PAD)].tolist()
    expected = [token for document in documents if document for token in [*document, EOS]]
    assert sorted(asked) == sorted(expected)


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_masked_packing_holds_every_token_once_between_cls_and_sep(documents, block_size):
    pieces = cut(pack(bert_packer(block_size), documents))
    assert all(piece[0] == CLS and piece[-1] == SEP for piece in pieces)
    held = sorted(token for piece in pieces for token in piece[1:-1])
    assert held == sorted(token for document in documents for token in document)


@settings(deadline=None)
@given(lists_of_documents, st.integers(1, 40))
def test_concatenation_is_one_row_of_documents_cut_every_block_with_positions_that_restart(documents, block_size):
    blocks = pack(concatenating_packer(block_size), documents)
    row, positions = [], []
    for document in filter(None, documents):
        for place, token in enumerate([BOS, *document, EOS]):
            restarts = place == 0 or len(row) % block_size == 0
            row.append(token)
            positions.append(0 if restarts else positions[-1] + 1)
    padding = -len(row) % block_size
    assert [token for ids, _ in blocks for token in ids] == row + [PAD] * padding
    assert [place for _, places in blocks for place in places] == positions + list(range(padding))


@settings(deadline=None)
@given(lists_of_documents, st.integers(3, 40))
def test_counts_say_how_documents_were_cut(documents, block_size):
    for packer in (gpt_packer(block_size), bert_packer(block_size), concatenating_packer(block_size)):
        counts = Counter()
        pieces = cut(pack(packer, documents, counts=counts))
        assert counts["documents"] == sum(map(bool, documents))
        assert counts["pieces"] == len(pieces)
        assert counts["tokens"] == sum(map(len, pieces))
    # by concatenation a document is whole only if it begins and ends in one block
    whole = [piece for piece in pieces if piece[0] == BOS and piece[-1] == EOS]
    assert counts["documents_cut"] == counts["documents"] - len(whole)


@given(st.lists(st.integers(1, 50), max_size=200))
def test_best_fit_never_overfills_and_never_needs_a_block_that_two_others_could_share(lengths):
    order, block_of = best_fit(np.array(lengths, dtype=np.int64), 50)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    fills = sorted(np.bincount(block_of, weights=np.array(lengths, dtype=np.int64)[order]).tolist())
    assert all(fill <= 50 for fill in fills)
    # if the two emptiest blocks fitted into one, best fit would have put them there
    assert len(fills) < 2 or fills[0] + fills[1] > 50


def test_best_fit_pads_real_length_mixes_by_less_than_one_percent():
    lengths = np.random.default_rng(0).lognormal(4, 1, 20_000).astype(int).clip(2, 255)
    _, block_of = best_fit(lengths, 256)
    assert 1 - lengths.sum() / (256 * (block_of.max() + 1)) < 0.01


def test_a_golden_example():
    blocks = pack(gpt_packer(6), [[10, 11, 12, 13, 14, 15, 16], [20, 21]])
    assert [ids.tolist() for ids, _ in blocks] == [[1, 10, 11, 12, 13, 14], [14, 15, 16, 2, 0, 0], [1, 20, 21, 2, 0, 0]]
    assert [positions.tolist() for _, positions in blocks] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 0, 1],
        [0, 1, 2, 3, 0, 1],
    ]


def test_segments_number_the_pieces():
    assert segments(np.array([[0, 1, 2, 0, 1, 0]])).tolist() == [[1, 1, 1, 2, 2, 3]]


def test_impossible_packers_are_refused(gpt_tokenizer):
    with pytest.raises(UserError, match="block_size 2 leaves no room"):
        bert_packer(2)
    with pytest.raises(UserError, match="`worst_fit`; it must be best_fit or concatenate"):
        Packer.for_tokenizer(gpt_tokenizer, 64, "worst_fit")


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_written_blocks_are_read_back_as_they_were(tmp_path, gpt_tokenizer, documents, packing):
    packer = Packer.for_tokenizer(gpt_tokenizer, 64, packing)
    counts = write_packed(documents[:30], gpt_tokenizer, packer, tmp_path / "train")
    from datasets import load_from_disk

    rows = load_from_disk(str(tmp_path / "train")).with_format("numpy")
    split = PackedSplit.open(tmp_path / "train")
    texts = gpt_tokenizer(documents[:30], add_special_tokens=False)["input_ids"]
    expected = pack(packer, texts)
    assert len(rows) == len(split) == counts["blocks"] == len(expected)
    for row, mapped, (ids, positions) in zip(rows, split, expected, strict=True):
        for name, column in (("input_ids", ids), ("position_ids", positions)):
            np.testing.assert_array_equal(row[name], column)
            np.testing.assert_array_equal(mapped[name], column)
            assert mapped[name].dtype == np.uint16  # two bytes a token
    assert counts["text_bytes"] == sum(len(text.encode()) for text in documents[:30])
    # every token, and one eos per document, but by concatenation not a block's first token inside a document
    assert counts["predicted_tokens"] + counts["unasked_tokens"] == sum(map(len, texts)) + 30
    assert (counts["unasked_tokens"] == 0) == (packing == "best_fit")
    assert counts["tokens"] == round(counts["blocks"] * 64 * (1 - counts["padding_share"]))


def test_the_files_do_not_depend_on_how_many_blocks_come_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("lm_recipes.objectives.packed.BATCH_BYTES", 256)  # 4 blocks of 16
    monkeypatch.setattr("lm_recipes.objectives.packed.SHARD_BYTES", 1024)
    blocks = np.arange(50 * 16).reshape(50, 16), np.tile(np.arange(16), (50, 1))
    files = []
    for size in (1, 7, 50):
        some = ([column[start : start + size] for column in blocks] for start in range(0, 50, size))
        write_blocks(tmp_path / str(size), some, 16, np.uint32)
        files.append({file.name: file.read_bytes() for file in sorted((tmp_path / str(size)).iterdir())})
    assert files[0] == files[1] == files[2]
    assert sum(name.endswith(".arrow") for name in files[0]) > 2
    split = PackedSplit.open(tmp_path / "7")
    np.testing.assert_array_equal(split["input_ids"], blocks[0])
    np.testing.assert_array_equal(split[10:20]["position_ids"], blocks[1][10:20])
    np.testing.assert_array_equal(split.select([3, 49])["input_ids"], blocks[0][[3, 49]])
    np.testing.assert_array_equal(split[-1]["input_ids"], blocks[0][-1])
    # as a dataloader hands it to its worker processes
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split))[33]["input_ids"], blocks[0][33])
    with pytest.raises(IndexError):
        split[50]


def test_a_row_is_a_view_of_the_file(tmp_path):
    write_blocks(tmp_path / "train", [(np.ones((5, 8), int), np.zeros((5, 8), int))], 8, np.uint16)
    row = PackedSplit.open(tmp_path / "train")[2]["input_ids"]
    assert not row.flags.owndata
    assert not row.flags.writeable


def test_directories_that_are_no_packed_corpus_are_named(tmp_path):
    with pytest.raises(UserError, match="packed corpus"):
        read_packed(tmp_path)
    with pytest.raises(UserError, match="train: no packed blocks here"):
        PackedSplit.open(tmp_path / "train")
    write_blocks(tmp_path / "train", [], 8, np.uint16)
    with pytest.raises(UserError, match="the train split is empty"):
        PackedSplit.open(tmp_path / "train")
    from datasets import Dataset

    Dataset.from_dict({"input_ids": [[1, 2]]}).save_to_disk(tmp_path / "half")
    with pytest.raises(UserError, match="column `position_ids` is missing"):
        PackedSplit.open(tmp_path / "half")
    Dataset.from_dict({"input_ids": [[1, 2]], "position_ids": [[0, 1]]}).save_to_disk(tmp_path / "ragged")
    with pytest.raises(UserError, match="no fixed length"):
        PackedSplit.open(tmp_path / "ragged")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path / "broken" / "data.arrow").write_bytes(b"not arrow")
    with pytest.raises(UserError, match="cannot be read"):
        PackedSplit.open(tmp_path / "broken")
