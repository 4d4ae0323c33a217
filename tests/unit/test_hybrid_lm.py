"""Hybrid LM: causal rows as in causal modelling, masked rows that see both sides, asked at the place before."""

import numpy as np
import pytest
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, Packer
from lm_recipes.objectives.hybrid import HybridLanguageModeling
from lm_recipes.objectives.isolation import Isolation, additive, same_piece
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.tokenization.training import train_tokenizer

LENGTH = 64


@pytest.fixture(scope="module")
def tokenizer(documents):
    made = train_tokenizer(documents[:400], "bpe", 512, reserved=["<|mask|>"])
    made.mask_token = "<|mask|>"
    return made


@pytest.fixture(scope="module")
def rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    texts = [text[: 5 + 40 * (i % 9)] for i, text in enumerate(documents[:300])]  # some of them longer than a block
    blocks = Packer.for_tokenizer(tokenizer, LENGTH).pack(encode_batches(tokenizer, texts))
    return [{"input_ids": i, "position_ids": p} for some in blocks for i, p in zip(*some, strict=True)]


def hybrid(tokenizer, share: float = 0.5, **settings) -> HybridLanguageModeling:
    return HybridLanguageModeling(MaskedLanguageModeling(tokenizer, **{"mlm_probability": 0.3} | settings), share)


def both_ways(batch: dict) -> torch.Tensor:
    """Which rows see to the right: bool `[B]`."""
    return (batch["attention_mask"][:, 0].triu(1)).any(dim=(1, 2))


def test_a_small_example(tokenizer):
    """Two pieces and padding, in a row of each kind; the mask token is 5."""
    row = {"input_ids": np.array([1, 11, 12, 2, 13, 14, 2, 0]), "position_ids": np.array([0, 1, 2, 3, 0, 1, 2, 0])}
    everything = MaskedLanguageModeling(tokenizer, mlm_probability=0.999, mask_share=1, random_share=0)
    causal, masked = (HybridLanguageModeling(everything, share)([row]) for share in (0, 1))
    assert causal["input_ids"].tolist() == [[1, 11, 12, 2, 13, 14, 2, 0]]
    assert causal["labels"].tolist() == [[-100, 11, 12, 2, -100, 14, 2, -100]]
    # 13 opens its piece: nothing of that piece stands before it, so it is neither hidden nor asked.
    assert masked["input_ids"].tolist() == [[1, 5, 5, 2, 13, 5, 2, 0]]
    assert masked["labels"].tolist() == [[-100, 11, 12, -100, -100, 14, -100, -100]]
    seen = [
        ["".join("x" if may else "." for may in line) for line in b["attention_mask"][0, 0]] for b in (causal, masked)
    ]
    assert seen[0] == ["x.......", "xx......", "xxx.....", "xxxx....", "....x...", "....xx..", "....xxx.", ".......x"]
    assert seen[1] == ["xxxx...."] * 4 + ["....xxx."] * 3 + [".......x"]
    assert causal["use_cache"] is masked["use_cache"] is False


def test_causal_rows_are_causal_modelling_and_masked_rows_are_masked_modelling(tokenizer, rows):
    collator = hybrid(tokenizer)
    batch, causal, masked = collator(rows), CausalLanguageModeling(tokenizer.pad_token_id)(rows), collator.masked(rows)
    right = both_ways(batch)
    assert 0 < right.sum() < len(rows)
    for name in ("input_ids", "labels"):
        assert torch.equal(batch[name][~right], causal[name][~right])
        inside = batch["position_ids"][right] > 0
        assert torch.equal(batch[name][right][inside], masked[name][right][inside])
        assert torch.equal(batch[name][right][~inside], causal[name][right][~inside])
    piece = same_piece(causal["position_ids"].numpy())
    assert torch.equal(batch["attention_mask"][right], piece[right])
    assert torch.equal(batch["attention_mask"][~right], piece[~right].tril())


def test_no_first_token_and_no_special_token_is_hidden_and_what_is_asked_is_what_stood_there(tokenizer, rows):
    batch = hybrid(tokenizer, 1, mlm_probability=0.9)(rows)
    original = torch.from_numpy(np.stack([row["input_ids"] for row in rows]).astype(np.int64))
    untouched = torch.isin(original, torch.tensor(tokenizer.all_special_ids)) | (batch["position_ids"] == 0)
    opens_with_text = (batch["position_ids"] == 0) & ~torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    assert opens_with_text.sum() > 20  # pieces of cut documents
    assert (batch["labels"][untouched] == -100).all()
    assert torch.equal(batch["input_ids"][untouched], original[untouched])
    asked = batch["labels"] != -100
    assert asked.sum() > 1000
    assert torch.equal(batch["labels"][asked], original[asked])


def test_the_share_of_masked_rows_holds_within_confidence_bounds(tokenizer):
    rows = [{"input_ids": np.array([1, 20 + i, 2]), "position_ids": np.arange(3)} for i in range(400)]
    share = both_ways(hybrid(tokenizer, 0.75)(rows)).float().mean()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(rows)) ** 0.5


def test_the_kind_of_a_row_says_nothing_of_which_tokens_are_hidden(tokenizer):
    """Drawn from one key, the first number would decide both."""
    rows = [{"input_ids": np.array([20 + i, 21, 22, 23]), "position_ids": np.arange(4)} for i in range(400)]
    collator = hybrid(tokenizer, 0.5, mlm_probability=0.5)
    hidden = collator.masked(rows)["labels"][:, 0] != -100
    right = both_ways(collator(rows))
    assert abs(hidden[right].float().mean() - hidden[~right].float().mean()) < 4 * (0.25 / 200 + 0.25 / 200) ** 0.5


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3)])
def test_a_row_depends_on_seed_epoch_and_row_alone(tokenizer, rows, seed, epoch):
    collator = hybrid(tokenizer, seed=seed)
    collator.epoch = epoch
    assert collator.masked.epoch == epoch
    together = collator(rows[:12])
    for i in reversed(range(12)):
        alone = collator([rows[i]])
        for name in ("input_ids", "labels", "attention_mask"):
            assert torch.equal(together[name][i], alone[name][0])
    for other in ({"seed": seed + 1, "epoch": epoch}, {"seed": seed, "epoch": epoch + 1}):
        changed = hybrid(tokenizer, **other)(rows[:12])
        assert not torch.equal(both_ways(changed), both_ways(together))


def test_a_schedule_of_the_masked_rows_counts_every_batch_once(tokenizer, rows):
    """A batch of causal rows is a batch too, and the trainer's numbers reach the masked collator."""
    collator = hybrid(tokenizer, 0.3, mlm_probability=0.9, mlm_probability_end=0.1)
    collator.first_batch, collator.total_batches = 4, 25
    alone = MaskedLanguageModeling(tokenizer, mlm_probability=0.9, mlm_probability_end=0.1)
    alone.first_batch, alone.total_batches = 4, 25
    kinds = set()
    for row in rows[:21]:
        batch, masked = collator([row]), alone([row])
        kinds.add(bool(both_ways(batch)))
        inside = batch["position_ids"] > 0
        if both_ways(batch):
            assert torch.equal(batch["labels"][inside], masked["labels"][inside])
    assert kinds == {True, False}


def test_the_mask_comes_in_the_form_that_eager_attention_adds(tokenizer, rows):
    boolean = hybrid(tokenizer)(rows[:8])["attention_mask"]
    added = hybrid(tokenizer, isolation=Isolation(additive=True))(rows[:8])["attention_mask"]
    assert torch.equal(added, additive(boolean))


def test_a_share_above_one_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"masked_share is 1\.5; it must lie between 0 and 1"):
        hybrid(tokenizer, 1.5)
