"""Compiled steps make the tokens that `generate` makes, one after the other or several at once."""

import shutil

import numpy as np
import pytest
import torch
from exhaustive import way
from peft import LoraConfig, get_peft_model
from tiny_models import gpt, gpt_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from lm_recipes.decoding.compiled import Step, _followed, _step, with_compiled_steps
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.launch import UserError

TOKENIZER = gpt_tokenizer()
PROMPTS = [[1, 7, 9, 11, 7, 9, 11, 7], [300], [41, 42, 43, 41]]

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@needs_compiler
def test_tokens_are_those_of_generate_in_a_padded_batch_that_is_compiled_once():
    """Three rows of three lengths go through a graph for four."""
    model = gpt("nanochat")
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for name, options in [
        ("greedy", {}),
        ("greedy", {"repetition_penalty": 1.5}),
        ("nucleus", {"top_p": 0.8}),
        ("min_p", {"min_p": 0.1, "num_return_sequences": 1}),
    ]:
        plain = way(name, max_new_tokens=24, **options)
        expected = continue_prompts(model, TOKENIZER, PROMPTS, plain, seed=3)
        assert continue_prompts(model, TOKENIZER, PROMPTS, with_compiled_steps(plain), seed=3) == expected
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1


@needs_compiler
@pytest.mark.parametrize("family", ["llama", "nanochat", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_were_saved_in_16_bits_are_read_in_16_bits_and_lose_nothing(family, dtype):
    """Of gpt2 only embeddings and head: its layers keep their weights the other way round."""
    model = (
        gpt(family)
        if family != "gpt2"
        else GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2)).eval()
    )
    for weight in model.parameters():
        weight.data = weight.data.to(dtype).float()
    ids = torch.tensor([[1, 7, 9, 11]])
    with torch.inference_mode():
        step = Step(model, rows=1, length=8, width=1)
        step.read(ids[:, :3], torch.ones(1, 3, dtype=torch.long))
        logits, _ = step.next(ids[:, 3:])
        expected = model(ids).logits[:, -1:]
    assert {weight.dtype for weight in step.weights.values()} == {dtype}
    linear = {id(layer.weight) for layer in model.modules() if type(layer) in (torch.nn.Linear, torch.nn.Embedding)}
    assert step.weights.keys() == {name for name, weight in model.named_parameters() if id(weight) in linear}
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_steps_of_other_lengths_share_what_is_in_16_bits():
    model = gpt("llama").bfloat16().float()
    first, batch, longer = _step(model, 1, 100), _step(model, 2, 100), _step(model, 1, 129)
    assert (first.mask.shape[-1], longer.mask.shape[-1]) == (128, 256)
    assert batch.weights == {}
    assert first.weights
    assert longer.weights is first.weights


def test_other_weights_and_those_under_adapters_stay_as_they_are():
    assert Step(gpt("llama"), rows=1, length=8, width=1).weights == {}
    model = gpt("llama").bfloat16().float()
    model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert Step(model, rows=1, length=8, width=1).weights == {}


@needs_compiler
def test_looking_the_prompt_up_changes_no_token():
    model = gpt("llama")
    expected = continue_prompts(model, TOKENIZER, PROMPTS, way("greedy", max_new_tokens=40))
    looked_up = with_compiled_steps(way("prompt_lookup", max_new_tokens=40, prompt_lookup_num_tokens=3))
    assert continue_prompts(model, TOKENIZER, PROMPTS, looked_up) == expected


@pytest.mark.parametrize(
    ("ids", "number", "found"),
    [
        ([5, 6, 7, 8, 5, 6], 2, [7, 8]),
        ([5, 6, 7, 9, 6, 8, 5, 6], 1, [7]),  # two tokens alike go before one
        ([9, 6, 8, 7, 6], 2, [8, 7]),
        ([3, 4, 3, 4], 5, [3, 4, 3, 4, 3]),
        ([2, 2], 3, [2, 2, 2]),
        ([1, 2, 3], 2, [0, 0]),
        ([1], 2, [0, 0]),
    ],
)
def test_what_followed_the_latest_same_tokens_is_proposed(ids, number, found):
    assert _followed(np.array(ids), number, longest=2).tolist() == found


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("beam", {}, "not for beam"),
        ("contrastive", {}, "not for contrastive"),
        ("prompt_lookup", {"temperature": 0.7}, "greedy search without penalties"),
        ("prompt_lookup", {"repetition_penalty": 1.2}, "greedy search without penalties"),
        ("prompt_lookup", {"watermark": 2.0}, "greedy search without penalties"),
    ],
)
def test_what_cannot_be_compiled_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        continue_prompts(gpt("llama"), TOKENIZER, PROMPTS, with_compiled_steps(way(name, **options)))
