"""Training an adapter can be interrupted, leaves its base as it is, and keeps its gradient on a quantised one."""

import pytest
import torch
from peft import get_peft_model_state_dict
from peft.utils.save_and_load import get_base_model_state_dict
from safetensors.torch import load_file
from tiny_adapters import CHANGE_THE_BASE, METHODS, NAMES, PROMPT, as_trained, distance, fresh, logits, make_base
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

from lm_recipes.models.heads import with_head
from lm_recipes.models.quantization import quantization
from lm_recipes.training.adapters import AdapterArguments, with_adapter
from lm_recipes.training.saved_adapters import load_adapter, merge_adapter


def fine_tune(base: str, flags: dict, output, checkpoint: str | None = None):
    """Four steps on random tokens, with dropout; a checkpoint after two."""
    model = fresh(base, AutoModelForCausalLM, "CAUSAL_LM", **flags)
    ids = torch.randint(5, 320, (24, 12), generator=torch.Generator().manual_seed(2))
    arguments = TrainingArguments(
        output, max_steps=4, save_steps=2, save_strategy="steps", per_device_train_batch_size=4, learning_rate=1e-2,
        use_cpu=True, report_to="none", disable_tqdm=True, logging_strategy="no", seed=0,
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for row in ids]
    Trainer(model=model, args=arguments, train_dataset=rows).train(resume_from_checkpoint=checkpoint)
    return model


@pytest.mark.parametrize("method", ["lora", "pissa, dora", "oft", "vera", "prompt"])
def test_a_resumed_run_ends_as_an_uninterrupted_one_and_the_base_stays_as_it_was(method, tmp_path):
    base, auto_class, task = make_base("llama", tmp_path / "base")
    flags = METHODS.get(method, PROMPT)
    start = get_peft_model_state_dict(fresh(base, auto_class, task, **flags))
    whole = fine_tune(base, flags, tmp_path / "whole")
    resumed = fine_tune(base, flags, tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    expected, found = get_peft_model_state_dict(whole), get_peft_model_state_dict(resumed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert any(not torch.equal(expected[name], start[name]) for name in expected)
    before, after = load_file(tmp_path / "base" / "model.safetensors"), get_base_model_state_dict(whole)
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert bool(changed) == (method in CHANGE_THE_BASE)


def quantized(base: str, **flags):
    """As a script loads a base in 4 bits."""
    arguments = AdapterArguments(use_peft=True, lora_r=4, **flags)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=quantization(arguments))
    return model, arguments


def gradient(model) -> torch.Tensor:
    """Of the first layer's adapter, which all layers above it pass on."""
    model.train()
    ids = torch.arange(5, 45).reshape(2, 20)
    model(input_ids=ids, labels=ids).loss.backward()
    found = [p.grad.clone() for name, p in model.named_parameters() if ".layers.0." in name and "lora_B" in name]
    model.zero_grad()
    return torch.cat([grad.flatten() for grad in found])


def test_on_a_quantised_base_an_evaluation_does_not_change_the_gradient(tmp_path):
    pytest.importorskip("bitsandbytes")
    base, _, _ = make_base("llama", tmp_path / "base")
    model, arguments = quantized(base, lora_dropout=0.0, load_in_4bit=True)
    model = with_adapter(model, arguments, "CAUSAL_LM")
    before = gradient(model)
    logits(model.eval())
    after = gradient(model)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)
    assert before.abs().max() > 1e-4


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_an_adapter_of_a_quantised_base_is_merged_into_what_it_was_trained_on(method, tmp_path):
    pytest.importorskip("bitsandbytes")
    base, auto_class, task = make_base("llama", tmp_path / "base")
    model, arguments = quantized(base, load_in_4bit=True, **METHODS[method])
    set_seed(0)
    model = with_adapter(model, arguments, task)
    as_trained(model)
    model.eval().save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    expected = logits(model)
    assert distance(logits(load_adapter(auto_class, str(tmp_path / "adapter"), dtype=torch.float32)), expected) <= 1e-5
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    merged = auto_class.from_pretrained(tmp_path / "merged").eval()
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    assert distance(logits(merged), expected) <= 1e-5
    unrounded = load_file(tmp_path / "base" / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert not torch.allclose(merged.model.layers[0].self_attn.q_proj.weight, unrounded, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_on_a_quantised_encoder_the_new_head_is_trained_and_merged_unrounded(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    base, auto_class, task = make_base(kind, tmp_path / "base")
    arguments = AdapterArguments(use_peft=True, lora_r=4, load_in_4bit=True)
    options = {"dtype": torch.float32, "quantization_config": quantization(arguments)}
    model = with_head(auto_class, base, NAMES, seed=0, problem_type="single_label_classification", **options)
    rounded = {name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert rounded
    model = with_adapter(model, arguments, task)
    heads = {name for name in rounded if any(word in name for word in ("classifier", "head", "pooler"))}
    assert not heads
    as_trained(model)
    model.eval().save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    assert distance(logits(auto_class.from_pretrained(tmp_path / "merged").eval()), logits(model)) <= 1e-5
