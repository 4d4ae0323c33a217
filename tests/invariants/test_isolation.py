"""Documents packed into one block do not see each other: in the batch that really reaches `forward`."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, LlamaConfig

from lm_recipes.models import decoder_config, encoder_config, isolation_of
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, Packer
from lm_recipes.tokenization.fast import encode_batches
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.trainer import LanguageModelTrainer

LENGTH = 160  # longer than ModernBERT's local window, so that sliding layers are put to the test


def packed_rows(tokenizer, documents) -> list[dict[str, np.ndarray]]:
    packer = Packer.for_tokenizer(tokenizer, LENGTH)
    ids = encode_batches(tokenizer, documents[:40])
    rows = [{"input_ids": i, "position_ids": p} for some in packer.pack(ids) for i, p in zip(*some, strict=True)]
    shared = [row for row in rows if (row["position_ids"] == 0).sum() > 1]
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
    return {key: value for key, value in seen.items() if key not in ("labels", "num_items_in_batch")}


def alone(model, batch, row: int, start: int, stop: int, extra: dict) -> torch.Tensor:
    return model(input_ids=batch["input_ids"][row : row + 1, start:stop], **extra).logits[0]


def largest_difference(model, batch, extra: dict) -> float:
    """Between logits of packed pieces and of the same pieces by themselves."""
    with torch.no_grad():
        together = model(**batch).logits
        worst = 0.0
        for row, positions in enumerate(batch["position_ids"]):
            starts = [*torch.where(positions == 0)[0].tolist(), LENGTH]
            for start, stop in pairwise(starts):
                difference = together[row, start:stop] - alone(model, batch, row, start, stop, extra)
                worst = max(worst, difference.abs().max().item())
    return worst


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["nanochat", "llama"])
def test_packed_logits_equal_separate_logits_on_the_gpt_track(
    family, attention, train, gpt_tokenizer, documents, tmp_path
):
    torch.manual_seed(0)
    config = decoder_config("tiny", gpt_tokenizer, LENGTH)
    if family == "llama":
        config = LlamaConfig(
            vocab_size=len(gpt_tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    model = enlarge(AutoModelForCausalLM.from_config(config, attn_implementation=attention))
    collator = CausalLanguageModeling(gpt_tokenizer.pad_token_id)
    batch = seen_by_forward(model, collator, packed_rows(gpt_tokenizer, documents), tmp_path, train)
    assert "attention_mask" not in batch
    assert largest_difference(model, batch, {}) <= 1e-5
    del batch["use_cache"]
    model.config.use_cache = True
    assert largest_difference(model, batch, {}) > 1e-2  # with a cache it leaks: why the batch says use_cache=False


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_packed_logits_equal_separate_logits_on_the_bert_track(
    family, attention, train, bert_tokenizer, documents, tmp_path
):
    torch.manual_seed(0)
    config = encoder_config("tiny", bert_tokenizer, LENGTH)
    if family == "bert":
        config = BertConfig(
            vocab_size=len(bert_tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
    model = enlarge(AutoModelForMaskedLM.from_config(config, attn_implementation=attention))
    collator = MaskedLanguageModeling(bert_tokenizer, isolation=isolation_of(config, attention))
    batch = seen_by_forward(model, collator, packed_rows(bert_tokenizer, documents), tmp_path, train)
    assert largest_difference(model, batch, {}) <= 1e-5
    del batch["attention_mask"]
    assert largest_difference(model, batch, {}) > 1e-2  # position ids alone do not isolate an encoder


def enlarge(model):
    """Weights large enough that a leak shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model.eval()
