"""Permutation LM: targets in an order, everything else seen, nothing told, and torch's own generator left alone."""

import numpy as np
import pytest
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives import Packer
from lm_recipes.objectives.permutation import PermutationLanguageModeling
from lm_recipes.tokenization.fast import encode_batches

LENGTH = 64


@pytest.fixture
def rows(bert_tokenizer, documents) -> list[dict[str, np.ndarray]]:
    texts = [text[: 5 + 40 * (i % 9)] for i, text in enumerate(documents[:100])]  # some of them longer than a block
    blocks = Packer.for_tokenizer(bert_tokenizer, LENGTH).pack(encode_batches(bert_tokenizer, texts))
    return [{"input_ids": i, "position_ids": p} for some in blocks for i, p in zip(*some, strict=True)]


def test_a_small_example(bert_tokenizer):
    """[CLS] five words [SEP], a second piece of two words, padding."""
    row = {
        "input_ids": np.array([2, 101, 102, 103, 104, 105, 3, 2, 106, 107, 3, 0]),
        "position_ids": np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 0]),
    }
    batch = PermutationLanguageModeling(bert_tokenizer, plm_probability=0.5, max_span_length=3, seed=3)([row])
    assert batch["input_ids"].tolist() == [row["input_ids"].tolist()]
    targets = [at for at, label in enumerate(batch["labels"][0].tolist()) if label != -100]
    assert batch["labels"][0, targets].tolist() == row["input_ids"][targets].tolist()
    assert targets == [1, 2, 4, 5, 8]  # asked in the order 4, 2, 1, 5; 8 is alone in its piece
    assert ["".join("x" if one else "." for one in line) for line in batch["perm_mask"][0].tolist()] == [
        ".xx.xx.xxxxx",
        ".x...x.xxxxx",
        ".xx..x.xxxxx",
        ".xx.xx.xxxxx",
        ".xx.xx.xxxxx",
        ".....x.xxxxx",
        ".xx.xx.xxxxx",
        "xxxxxxx.x..x",
        "xxxxxxx.x..x",
        "xxxxxxx.x..x",
        "xxxxxxx.x..x",
        "xxxxxxxxxxx.",
    ]


def seen(batch: dict) -> torch.Tensor:
    return batch["perm_mask"] == 0


def test_a_target_sees_all_of_its_piece_but_itself_and_the_targets_after_it(bert_tokenizer, rows):
    batch = PermutationLanguageModeling(bert_tokenizer)(rows)
    inputs = torch.from_numpy(np.stack([row["position_ids"] for row in rows]).astype(np.int64))
    piece = (inputs == 0).cumsum(1)
    for visible, labels, pieces in zip(seen(batch), batch["labels"], piece, strict=True):
        same = pieces[:, None] == pieces
        target = labels != -100
        assert not visible[~same].any()
        assert visible[:, ~target].eq(same[:, ~target]).all()
        assert not visible[~target][:, target].any()
        among = visible[target][:, target]
        assert not among.diagonal().any()
        within = same[target][:, target]
        one_way = among ^ among.T
        assert torch.equal(one_way | torch.eye(len(among), dtype=torch.bool), within)  # an order, in each piece


def test_targets_are_a_sixth_of_the_tokens_and_never_special(bert_tokenizer, rows):
    batch = PermutationLanguageModeling(bert_tokenizer)(rows)
    asked = batch["labels"] != -100
    special = torch.isin(batch["input_ids"], torch.tensor(bert_tokenizer.all_special_ids))
    assert special.sum() > 100
    assert not asked[special].any()
    assert torch.equal(batch["labels"][asked], batch["input_ids"][asked])
    assert 0.12 < asked.sum() / (~special).sum() < 0.2


def test_shapes_are_static_and_every_place_predicts_itself(bert_tokenizer, rows):
    batch = PermutationLanguageModeling(bert_tokenizer)(rows[:3])
    assert batch["perm_mask"].shape == batch["target_mapping"].shape == (3, LENGTH, LENGTH)
    assert torch.equal(batch["target_mapping"], torch.eye(LENGTH).expand(3, -1, -1))
    assert batch["labels"].shape == batch["input_ids"].shape == (3, LENGTH)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_a_row_depends_on_seed_epoch_and_row_alone(bert_tokenizer, rows, seed, epoch):
    collator = PermutationLanguageModeling(bert_tokenizer, seed=seed, epoch=epoch)
    together = collator(rows[:8])
    for i in reversed(range(8)):
        torch.manual_seed(i)
        alone = collator([rows[i]])
        assert torch.equal(together["labels"][i], alone["labels"][0])
        assert torch.equal(together["perm_mask"][i], alone["perm_mask"][0])
    for other in ({"seed": seed + 1, "epoch": epoch}, {"seed": seed, "epoch": epoch + 1}):
        changed = PermutationLanguageModeling(bert_tokenizer, **other)(rows[:8])
        assert not torch.equal(together["labels"], changed["labels"])


def test_the_generators_of_others_go_on_as_if_nothing_had_been_drawn(bert_tokenizer, rows):
    torch.manual_seed(3)
    np.random.seed(3)
    state = torch.random.get_rng_state()
    PermutationLanguageModeling(bert_tokenizer)(rows[:4])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.random.random() == np.random.RandomState(3).random()


def test_a_target_that_sees_nothing_is_not_asked(bert_tokenizer):
    row = {"input_ids": np.full(8, 101), "position_ids": np.zeros(8, dtype=np.int64)}  # eight pieces of one word
    batch = PermutationLanguageModeling(bert_tokenizer, plm_probability=0.9)([row])
    assert (batch["labels"] == -100).all()


def test_blocks_of_odd_length_and_tokenizers_without_a_mask_token_are_refused(bert_tokenizer, gpt_tokenizer):
    row = {"input_ids": np.arange(7), "position_ids": np.arange(7)}
    with pytest.raises(UserError, match="blocks have 7 tokens; permutation LM needs an even number"):
        PermutationLanguageModeling(bert_tokenizer)([row])
    with pytest.raises(UserError, match="no mask token"):
        PermutationLanguageModeling(gpt_tokenizer)
    with pytest.raises(UserError, match="plm_probability is 1; it must lie between 0 and 1"):
        PermutationLanguageModeling(bert_tokenizer, plm_probability=1)
