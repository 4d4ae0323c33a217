"""Every family learns from packed rows, with all of its weights, and a plain transformers process loads the result."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lm_recipes.models import (
    DECODERS,
    ENCODERS,
    decoder_config,
    encoder_config,
    encoder_decoder_config,
    expert_load,
    isolation_of,
    new_model,
)
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, Packer
from lm_recipes.objectives.permutation import PermutationLanguageModeling
from lm_recipes.tokenization.fast import encode_batches

LENGTH = 32
LACKING = [("deberta_v2", "sdpa"), ("xlnet", "sdpa")]
SEGMENTS = {"seg_embed", "r_s_bias"}  # of XLNet: packed pieces have none


def config_of(family: str, tokenizer):
    if family == "t5":
        return encoder_decoder_config("tiny", tokenizer, LENGTH)
    make = encoder_config if family in ENCODERS else decoder_config
    return make("tiny", tokenizer, LENGTH, family)


def batch_of(family: str, config, attention: str, tokenizer, documents) -> dict:
    packer = Packer.for_tokenizer(tokenizer, LENGTH)
    ids, positions = next(packer.pack(encode_batches(tokenizer, [text[:90] for text in documents[:40]])))
    rows = [{"input_ids": i, "position_ids": p} for i, p in zip(ids[:8], positions[:8], strict=True)]
    if family == "t5":  # to repeat what it reads
        ids = torch.from_numpy(ids[:8].astype(np.int64))
        return {"input_ids": ids, "labels": ids.masked_fill(ids == tokenizer.pad_token_id, -100)}
    if family == "xlnet":
        return PermutationLanguageModeling(tokenizer)(rows)
    if family in DECODERS:
        return CausalLanguageModeling(tokenizer.pad_token_id)(rows)
    return MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation_of(config, attention))(rows)


def cases() -> list[tuple[str, str]]:
    return [case for case in product((*ENCODERS, *DECODERS, "t5"), ("sdpa", "eager")) if case not in LACKING]


def learn(model, batch: dict, steps: int = 10) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("family", "attention"), cases())
def test_a_family_learns_with_all_its_weights_and_loads_back(
    family, attention, bert_tokenizer, gpt_tokenizer, documents, tmp_path
):
    tokenizer = bert_tokenizer if family in ENCODERS else gpt_tokenizer
    torch.manual_seed(0)
    config = config_of(family, tokenizer)
    model = new_model(config, attention).train()
    assert model.config._attn_implementation == attention
    batch = batch_of(family, config, attention, tokenizer, documents)
    losses = learn(model, batch)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.2
    idle = {name.split(".")[-1] for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == (SEGMENTS if family == "xlnet" else set())

    model.eval().save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if family in ENCODERS else AutoModelForCausalLM
    auto = {"t5": AutoModelForSeq2SeqLM, "xlnet": AutoModelForCausalLM}.get(family, auto)
    loaded = auto.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation=attention)
    plain = {"input_ids": batch["input_ids"][:1]} | ({"labels": batch["labels"][:1]} if family == "t5" else {})
    with torch.no_grad():
        assert torch.equal(loaded(**plain).logits, model(**plain).logits)


def test_the_balancing_loss_spreads_tokens_over_experts(gpt_tokenizer, documents):
    busiest = {}
    for coefficient in (0.0, 1.0):
        torch.manual_seed(0)
        config = config_of("olmoe", gpt_tokenizer)
        config.router_aux_loss_coef = coefficient
        model = new_model(config)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.gate.weight.mul_(10)  # a router that has made up its mind
        batch = batch_of("olmoe", config, "sdpa", gpt_tokenizer, documents)
        learn(model, batch, steps=20)
        with torch.no_grad():
            load = expert_load(model(**batch).router_logits, config.num_experts_per_tok)
        busiest[coefficient] = load.mean(0).max()  # transformers balances the sum over all layers
    assert load.shape == (2, 8)
    assert busiest[1.0] < busiest[0.0] - 0.02
