"""Under every objective of a decoder, and XLNet's, pieces that share a block do not see each other, and no token sees
more of its own piece than the objective says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import enlarge
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, XLNetLMHeadModel

from lm_recipes.models import decoder_config, encoder_config, isolation_of
from lm_recipes.objectives import MaskedLanguageModeling, Packer
from lm_recipes.objectives.fim import FillInTheMiddle
from lm_recipes.objectives.hybrid import HybridLanguageModeling
from lm_recipes.objectives.isolation import same_piece
from lm_recipes.objectives.permutation import PermutationLanguageModeling
from lm_recipes.objectives.prefix import PrefixLanguageModeling
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.tokenization.training import train_tokenizer

LENGTH = 96
FAMILIES = ["nanochat", "llama"]
ATTENTION = ["sdpa", "eager"]


@pytest.fixture(scope="module")
def tokenizer(documents):
    made = train_tokenizer(documents[:400], "bpe", 512, reserved=["fim", "<|mask|>"])
    made.mask_token = "<|mask|>"
    return made


@pytest.fixture(scope="module")
def rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    texts = [text[: 20 + 30 * (i % 5)] for i, text in enumerate(documents[:60])]
    blocks = Packer.for_tokenizer(tokenizer, LENGTH).pack(encode_batches(tokenizer, texts))
    rows = [{"input_ids": i, "position_ids": p} for some in blocks for i, p in zip(*some, strict=True)]
    pad = tokenizer.pad_token_id  # padding at the end is a piece too, but no document
    shared = [row for row in rows if ((row["position_ids"] == 0) & (row["input_ids"] != pad)).sum() > 1]
    assert len(shared) >= 4
    return shared[:4]


def model_of(family: str, attention: str, tokenizer):
    torch.manual_seed(0)
    config = decoder_config("tiny", tokenizer, LENGTH, family)
    return enlarge(AutoModelForCausalLM.from_config(config, attn_implementation=attention))


def xlnet_of(tokenizer) -> XLNetLMHeadModel:
    torch.manual_seed(0)
    config = encoder_config("tiny", tokenizer, LENGTH, "xlnet")
    config.initializer_range = 0.1  # most of its matrices have three dimensions, which `enlarge` leaves alone
    return enlarge(XLNetLMHeadModel(config))


def collator_of(objective: str, tokenizer, isolation):
    if objective == "prefix":
        return PrefixLanguageModeling(tokenizer.pad_token_id, isolation)
    if objective == "fim":
        return FillInTheMiddle(tokenizer, fim_rate=1)
    masked = MaskedLanguageModeling(tokenizer, mlm_probability=0.3, isolation=isolation)
    return HybridLanguageModeling(masked, masked_share=1 if objective == "masked rows" else 0)


def logits_of(model, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def cut(batch: dict, row: int, start: int, stop: int) -> dict:
    """A piece with nothing around it; masks and mappings `[..., L, L]` of it alone."""
    piece = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            value = value[row : row + 1, ..., start:stop]
            value = value[..., start:stop, :] if value.ndim > 2 else value
        piece[name] = value
    return piece


def largest_difference(model, batch: dict, rows) -> float:
    """Between logits of packed pieces and of the same pieces by themselves."""
    together, worst = logits_of(model, batch), 0.0
    for number, row in enumerate(rows):
        for start, stop in pairwise([*np.flatnonzero(row["position_ids"] == 0).tolist(), LENGTH]):
            alone = logits_of(model, cut(batch, number, start, stop))[0]
            worst = max(worst, (together[number, start:stop] - alone).abs().max().item())
    return worst


def change(model, batch: dict, tokenizer, at: list[int]) -> torch.Tensor:
    """How much each logit moves when the token at `at[row]` of each row becomes another: `[B, L]`."""
    ids = batch["input_ids"].clone()
    for row, place in enumerate(at):
        ids[row, place] = len(tokenizer) - 1 if ids[row, place] != len(tokenizer) - 1 else len(tokenizer) - 2
    return (logits_of(model, batch) - logits_of(model, batch | {"input_ids": ids})).abs().amax(-1)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["prefix", "fim", "masked rows", "causal rows"])
def test_packed_logits_equal_separate_logits(objective, family, attention, tokenizer, rows):
    model = model_of(family, attention, tokenizer)
    batch = collator_of(objective, tokenizer, isolation_of(model.config, attention))(rows)
    assert largest_difference(model, batch, rows) <= 1e-5
    if objective == "fim":
        del batch["use_cache"]  # with a cache transformers no longer looks at position_ids
    else:
        pieces = same_piece(batch["position_ids"].numpy())
        batch["attention_mask"] = batch["attention_mask"].masked_fill(~pieces, 0.0 if attention == "eager" else True)
    assert largest_difference(model, batch, rows) > 1e-2


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["prefix", "fim", "causal rows"])
def test_no_logit_knows_a_later_token_outside_the_prefix(objective, family, attention, tokenizer, rows):
    model = model_of(family, attention, tokenizer)
    batch = collator_of(objective, tokenizer, isolation_of(model.config, attention))(rows)
    last = [int(np.flatnonzero(row["position_ids"] == 0)[1]) - 1 for row in rows]  # of the first piece
    moved = change(model, batch, tokenizer, last)
    for row, place in enumerate(last):
        assert moved[row, place] > 1e-2
        assert moved[row].sum() - moved[row, place] <= 1e-4


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["prefix", "masked rows"])
def test_prefixes_and_masked_rows_know_what_stands_to_the_right(objective, family, attention, tokenizer, rows):
    model = model_of(family, attention, tokenizer)
    batch = collator_of(objective, tokenizer, isolation_of(model.config, attention))(rows)
    sees = batch["attention_mask"][:, 0, 0] == (0 if attention == "eager" else True)
    shown = sees.sum(-1).tolist()  # what the first token of a row sees: its piece, or its prefix
    assert sum(tokens > 1 for tokens in shown) >= 3
    last = [tokens - 1 for tokens in shown]
    moved = change(model, batch, tokenizer, last)
    assert (moved[:, 0] > 1e-3).all()
    del batch["attention_mask"]  # the model's own is causal
    moved = change(model, batch, tokenizer, last)
    assert ((moved[:, 0] > 0) == torch.tensor([place == 0 for place in last])).all()


def test_packed_logits_equal_separate_logits_under_permutation(tokenizer, rows):
    model = xlnet_of(tokenizer)
    batch = PermutationLanguageModeling(tokenizer)(rows)
    assert largest_difference(model, batch, rows) <= 1e-5
    pieces = same_piece(np.stack([row["position_ids"] for row in rows]))[:, 0]
    batch["perm_mask"] = batch["perm_mask"].masked_fill(~pieces, 0.0)
    assert largest_difference(model, batch, rows) > 1e-2


def test_a_target_is_known_to_the_targets_that_are_asked_after_it_and_to_nobody_else(tokenizer, rows):
    model = xlnet_of(tokenizer)
    batch = PermutationLanguageModeling(tokenizer, plm_probability=0.4)(rows)
    known = 0
    for number in range(8):  # the first targets of each row, one after the other
        at = [torch.where(labels != -100)[0][number].item() for labels in batch["labels"]]
        moved = change(model, batch, tokenizer, at)
        for row, place in enumerate(at):
            may_know = batch["perm_mask"][row, :, place] == 0
            assert moved[row][~may_know].max() <= 1e-5
            assert (moved[row][may_know] > 1e-4).all()
            known += int(may_know.sum())
    assert known > 20


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_hybrid_model_is_an_encoder_for_plain_transformers(family, attention, tokenizer, rows, tmp_path):
    """`is_causal = False` in the config of a saved decoder is the mask of a masked row, padded batches included."""
    model = model_of(family, attention, tokenizer)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.is_causal = False
    encoder = AutoModel.from_pretrained(tmp_path, config=config, attn_implementation=attention).eval()
    batch = collator_of("masked rows", tokenizer, isolation_of(config, attention))(rows)
    ends = [int(np.flatnonzero(row["position_ids"] == 0)[1]) for row in rows]
    text = torch.arange(LENGTH) < torch.tensor(ends)[:, None]
    with torch.no_grad():
        packed = model.base_model(**{name: value for name, value in batch.items() if name != "labels"})[0]
        padded = encoder(input_ids=batch["input_ids"], attention_mask=text.long())[0]
        alone = encoder(input_ids=batch["input_ids"][:1, : ends[0]])[0]  # no mask at all
    assert (packed - padded)[text].abs().max() <= 1e-5
    assert (packed[:1, : ends[0]] - alone).abs().max() <= 1e-5
