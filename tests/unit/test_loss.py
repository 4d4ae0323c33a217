"""The loss path: the numbers of the model's own loss, at every family's head, with less computed."""

import math

import numpy as np
import pytest
import torch
from tiny_models import bert_config, gpt
from transformers import AutoModelForMaskedLM, T5Config, T5ForConditionalGeneration

from lm_recipes.models import isolation_of
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, read_packed
from lm_recipes.training.loss import LanguageModelLoss, WithAsked


def causal_batch(packed) -> dict:
    corpus = read_packed(packed["gpt"][0])
    return WithAsked(CausalLanguageModeling(0))([corpus.train[row] for row in range(4)])


def masked_batch(packed, tokenizer, config) -> dict:
    corpus = read_packed(packed["bert"][0])
    collator = MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation_of(config, "sdpa"))
    return WithAsked(collator)([corpus.train[row] for row in range(4)])


def models_and_batches(kind: str, packed, bert_tokenizer):
    torch.manual_seed(0)
    if kind in ("nanochat", "nanochat without its soft-cap", "llama"):
        model = gpt(kind.split()[0], vocab_size=512)
        if "without" in kind:
            model.config.final_logit_softcapping = None
        return model, causal_batch(packed)
    if kind == "t5":
        config = T5Config(
            vocab_size=512,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
        labels = torch.randint(5, 512, (3, 20))
        labels[1, 12:] = -100
        model = T5ForConditionalGeneration(config)
        inputs = {"input_ids": torch.randint(5, 512, (3, 30)), "attention_mask": torch.ones(3, 30, dtype=torch.long)}
        decoder = model.prepare_decoder_input_ids_from_labels(labels)
        return model, inputs | {
            "labels": labels,
            "decoder_input_ids": decoder,
            "asked": (labels.flatten() != -100).nonzero()[:, 0],
        }
    config = bert_config(kind, len(bert_tokenizer), context=256)
    return AutoModelForMaskedLM.from_config(config), masked_batch(packed, bert_tokenizer, config)


@pytest.mark.parametrize("kind", ["nanochat", "nanochat without its soft-cap", "llama", "modernbert", "bert", "t5"])
def test_loss_gradients_and_per_token_numbers_are_the_models_own(kind, packed, bert_tokenizer):
    model, batch = models_and_batches(kind, packed, bert_tokenizer)
    model.eval()  # no dropout
    loss = LanguageModelLoss(model)
    assert loss.chunked == (kind in ("nanochat without its soft-cap", "llama"))
    plain = {name: value for name, value in batch.items() if name != "asked"}

    expected = model(**plain)
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    nats, added = loss(model, batch)
    asked = int((batch["labels"] != -100).sum())
    (nats / asked).backward()
    assert added == 0
    assert (nats / asked).item() == pytest.approx(expected.loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)

    every, right = loss.per_token(model, batch)
    assert every.shape == right.shape == batch["labels"].shape
    assert int((~every.isnan()).sum()) == asked
    assert every.nansum().item() == pytest.approx(nats.item(), rel=1e-5)
    logits, labels = expected.logits, batch["labels"]
    if loss.shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
        every, right = every[:, :-1], right[:, :-1]
    assert torch.equal(right, (logits.argmax(-1) == labels) & (labels != -100))
    assert math.isclose(float(right.sum()), float(((logits.argmax(-1) == labels) & (labels != -100)).sum()))


def test_the_head_of_an_encoder_sees_the_asked_positions_only(packed, bert_tokenizer):
    model, batch = models_and_batches("bert", packed, bert_tokenizer)
    loss, seen = LanguageModelLoss(model), []
    model.get_output_embeddings().register_forward_hook(lambda head, args, output: seen.append(tuple(args[0].shape)))
    loss(model, batch)
    loss.per_token(model, batch)
    asked = len(batch["asked"])
    assert 0 < asked < batch["labels"].numel() / 2
    assert seen == [(1, asked, 32)] * 2
    assert model(batch["input_ids"]).logits.shape == (*batch["input_ids"].shape, len(bert_tokenizer))  # as ever


def test_a_causal_model_makes_no_logits_of_its_own(packed, bert_tokenizer):
    model, batch = models_and_batches("llama", packed, bert_tokenizer)
    loss, seen = LanguageModelLoss(model), []
    model.get_output_embeddings().register_forward_hook(lambda head, args, output: seen.append(output.numel()))
    loss(model, batch)
    assert seen == [0]


def test_bf16_products_keep_the_loss_to_three_digits(packed, bert_tokenizer):
    model, batch = models_and_batches("llama", packed, bert_tokenizer)
    exact, _ = LanguageModelLoss(model)(model, batch)
    rounded, _ = LanguageModelLoss(model, dtype=torch.bfloat16)(model, batch)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-3)
    assert np.isfinite(rounded.item())
