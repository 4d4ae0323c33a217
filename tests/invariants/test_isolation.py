"""Documents packed into one block do not see each other: in the batch that really reaches `forward`."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import enlarge

from lm_recipes.launch import UserError
from lm_recipes.models import (
    DECODERS,
    ENCODERS,
    decoder_config,
    encoder_config,
    isolation_of,
    new_model,
)
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, Packer
from lm_recipes.objectives.isolation import Isolation, same_piece
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.trainer import LanguageModelTrainer

LENGTH = 160  # longer than ModernBERT's local window, so that sliding layers are put to the test


def packed_rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    packer = Packer.for_tokenizer(tokenizer, LENGTH)
    ids = encode_batches(tokenizer, documents[:200])
    rows = [{"input_ids": i, "position_ids": p} for some in packer.pack(ids) for i, p in zip(*some, strict=True)]
    shared = [row for row in rows if ((row["position_ids"] == 0) & (row["input_ids"] != packer.pad_token_id)).sum() > 1]
    assert len(shared) >= 4
    return shared[:4]


def seen_by_forward(model, collator, rows, tmp_path, train: bool) -> dict:
    """What Trainer hands to the model when it trains or evaluates on `rows`."""
    seen = {}

    def keep(module, args, kwargs):
        seen.update({key: value for key, value in kwargs.items() if value is not None})

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    args = PretrainingArguments(
        output_dir=tmp_path, max_steps=1, per_device_train_batch_size=4, use_cpu=True, learning_rate=0.0, bf16=False,
        per_device_eval_batch_size=4, save_strategy="no", train_sampling_strategy="sequential", disable_tqdm=True,
    )  # fmt: skip
    trainer = LanguageModelTrainer(
        model=model, args=args, train_dataset=rows, eval_dataset=rows, data_collator=collator, eval_collator=collator
    )
    if train:
        trainer.train()
    else:
        trainer.evaluate()
    handle.remove()
    model.eval()
    return {key: value for key, value in seen.items() if key not in ("labels", "num_items_in_batch", "logits_to_keep")}


def largest_difference(model, batch) -> float:
    """Between logits of packed pieces and of the same pieces by themselves, as plain transformers computes them."""
    with torch.no_grad():
        together = model(**batch).logits
        worst = 0.0
        for row, (ids, positions) in enumerate(zip(batch["input_ids"], batch["position_ids"], strict=True)):
            starts = [*torch.where(positions == positions.min())[0].tolist(), LENGTH]
            for start, stop in pairwise(starts):
                if ids[start] == model.config.pad_token_id:
                    continue  # RoBERTa has a position of its own for padding that stands alone
                alone = model(input_ids=ids[None, start:stop]).logits[0]
                worst = max(worst, (together[row, start:stop] - alone).abs().max().item())
    return worst


ATTENTIONS = ("sdpa", "eager")
EAGER_ONLY = ("deberta_v2",)


def cases(families) -> list:
    """Training in every attention a family has; evaluation, another path of the trainer's, by the default family."""
    eager_only = ("deberta_v2", "xlnet")
    attentions = [(family, attention) for family in families for attention in ("sdpa", "eager")]
    training = [(*case, "training") for case in attentions if case[1] == "eager" or case[0] not in eager_only]
    return [*training, (families[0], "sdpa", "evaluation"), (families[0], "eager", "evaluation")]


@pytest.mark.parametrize(("family", "attention", "mode"), cases(DECODERS))
def test_packed_logits_equal_separate_logits_on_the_gpt_track(
    family, attention, mode, gpt_tokenizer, documents, tmp_path
):
    torch.manual_seed(0)
    model = enlarge(new_model(decoder_config("tiny", gpt_tokenizer, LENGTH, family), attention))
    collator = CausalLanguageModeling(gpt_tokenizer.pad_token_id)
    batch = seen_by_forward(model, collator, packed_rows(gpt_tokenizer, documents), tmp_path, mode == "training")
    assert "attention_mask" not in batch
    assert largest_difference(model, batch) <= 1e-5
    del batch["use_cache"]
    model.config.use_cache = True
    assert largest_difference(model, batch) > 1e-2  # with a cache it leaks: why the batch says use_cache=False


@pytest.mark.parametrize(("family", "attention", "mode"), cases([one for one in ENCODERS if one != "xlnet"]))
def test_packed_logits_equal_separate_logits_on_the_bert_track(
    family, attention, mode, bert_tokenizer, documents, tmp_path
):
    torch.manual_seed(0)
    config = encoder_config("tiny", bert_tokenizer, LENGTH, family)
    model = enlarge(new_model(config, attention))
    collator = MaskedLanguageModeling(bert_tokenizer, isolation=isolation_of(config, attention))
    batch = seen_by_forward(model, collator, packed_rows(bert_tokenizer, documents), tmp_path, mode == "training")
    assert largest_difference(model, batch) <= 1e-5
    del batch["attention_mask"]
    assert largest_difference(model, batch) > 1e-2  # position ids alone do not isolate an encoder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [one for one in DECODERS if one != "olmoe"])
def test_a_block_mask_isolates_a_decoder_as_positions_alone_do(family, attention, gpt_tokenizer, documents):
    torch.manual_seed(0)
    config = decoder_config("tiny", gpt_tokenizer, LENGTH, family)
    model = enlarge(new_model(config, attention))
    rows = packed_rows(gpt_tokenizer, documents)
    batch = CausalLanguageModeling(gpt_tokenizer.pad_token_id)(rows)
    earlier = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    positions = np.stack([row["position_ids"] for row in rows])
    masked = batch | isolation_of(config, attention)(positions, same_piece(positions) & earlier)
    with torch.no_grad():
        assert torch.allclose(model(**masked).logits, model(**batch).logits, atol=1e-5)


def test_a_family_that_takes_no_block_mask_is_refused_and_would_not_train(bert_tokenizer, gpt_tokenizer, documents):
    xlnet = encoder_config("tiny", bert_tokenizer, LENGTH, "xlnet")
    olmoe = decoder_config("tiny", gpt_tokenizer, LENGTH, "olmoe")
    for config, tokenizer in ((xlnet, bert_tokenizer), (olmoe, gpt_tokenizer)):
        with pytest.raises(UserError, match=f"{config.model_type}: "):
            isolation_of(config, "sdpa")
        rows = packed_rows(tokenizer, documents)
        batch = {"input_ids": torch.from_numpy(np.stack([row["input_ids"] for row in rows]).astype(np.int64))}
        with pytest.raises((RuntimeError, ValueError, AssertionError)):
            new_model(config)(**batch, **Isolation()(np.stack([row["position_ids"] for row in rows])))
    with pytest.raises(UserError, match="use sdpa or eager"):
        isolation_of(encoder_config("tiny", bert_tokenizer, LENGTH), "flash_attention_2")
