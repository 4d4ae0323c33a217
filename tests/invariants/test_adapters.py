"""A LoRA adapter and the model it is merged into are one and the same, on both tracks."""

import json
import re

import pytest
import torch
from peft import PeftModel
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)
from trl import ModelConfig

from lm_recipes.launch import UserError
from lm_recipes.models.loading import without_loading_report
from lm_recipes.training.adapters import merge_adapter, with_adapter

NAMES = ["negative", "neutral", "positive"]


def make_base(kind: str, directory) -> tuple[str, object, str]:
    set_seed(0)
    if kind in ("nanochat", "llama"):
        return save(directory, gpt(kind), gpt_tokenizer()), AutoModelForCausalLM, "CAUSAL_LM"
    tokenizer = bert_tokenizer()
    config = bert_config(kind, len(tokenizer), id2label=dict(enumerate(NAMES)), classifier_pooling="mean")
    model = AutoModelForSequenceClassification.from_config(config)
    return save(directory, model, tokenizer), AutoModelForSequenceClassification, "SEQ_CLS"


def make_adapter(kind: str, tmp_path, **flags) -> tuple[str, object, object]:
    """An adapter with weights as training leaves them: none of them zero."""
    base, auto_class, task = make_base(kind, tmp_path / "base")
    labels = {"id2label": dict(enumerate(NAMES))} if task == "SEQ_CLS" else {}
    model = with_adapter(
        auto_class.from_pretrained(base, **labels), ModelConfig(use_peft=True, lora_r=4, **flags), task
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "results.json").write_text(json.dumps({"metrics": {"labels": NAMES} if labels else {}}))
    return str(tmp_path / "adapter"), model, auto_class


KINDS = ["nanochat", "llama", "bert", "modernbert"]


@pytest.mark.parametrize("flags", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_base_plus_adapter(kind, flags, tmp_path):
    adapter, model, auto_class = make_adapter(kind, tmp_path, **flags)
    difference = merge_adapter(adapter, tmp_path / "merged")
    merged = auto_class.from_pretrained(tmp_path / "merged").eval()
    assert not isinstance(merged, PeftModel)
    ids = torch.randint(5, merged.config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        base = model.get_base_model()
        with model.disable_adapter():
            without = base(input_ids=ids).logits
        expected, found = model(input_ids=ids).logits, merged(input_ids=ids).logits
    scale = max(1.0, float(expected.abs().max()))
    assert (found - expected).abs().max() <= 1e-5 * scale
    assert difference <= 1e-5 * scale
    assert (expected - without).abs().max() > 1e-2  # the adapter does something
    if auto_class is AutoModelForSequenceClassification:
        assert merged.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_and_a_new_head_are_trained(kind, tmp_path):
    _, model, auto_class = make_adapter(kind, tmp_path)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    heads = {name for name in trained if "modules_to_save" in name}
    assert all("lora_" in name for name in trained - heads)
    assert not any("lm_head" in name for name in trained)
    assert bool(heads) == (auto_class is AutoModelForSequenceClassification)
    head = re.compile(r"\b(classifier|head|pooler)\b")  # all that stands between encoder layers and class logits
    assert all(head.search(name) for name in heads)
    assert not any("lora_" in name and head.search(name) for name in trained)


def test_a_directory_without_an_adapter_is_refused(tmp_path):
    base, _, _ = make_base("nanochat", tmp_path / "base")
    with pytest.raises(UserError, match="no adapter here"):
        merge_adapter(base, tmp_path / "merged")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["modernbert", "bert"])
def test_padding_does_not_change_a_classifiers_answer(kind, side, tmp_path):
    if kind == "bert" and side == "left":
        pytest.skip("BERT counts absolute positions from the first token, padding or not: it is padded on the right")
    base, auto_class, _ = make_base(kind, tmp_path)
    model, tokenizer = auto_class.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base, padding_side=side)
    texts = ["the dog", "paris is the capital of france; rome is the capital of italy.", "knee"]
    with torch.no_grad():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert alone.std(0).min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_padding_does_not_change_a_decoders_logits(kind, side, tmp_path):
    base, auto_class, _ = make_base(kind, tmp_path)
    model, tokenizer = auto_class.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base, padding_side=side)
    texts = ["the dog", "paris is the capital of france", "knee"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**batch).logits
        for row, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            kept = together[row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(kept, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_head_that_the_base_does_not_have_is_saved_with_the_adapter(kind, tmp_path):
    headless = {"add_pooling_layer": False} if kind == "bert" else {}
    AutoModel.from_config(bert_config(kind, 100), **headless).save_pretrained(tmp_path / "base")
    with without_loading_report():
        fresh = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
        model = with_adapter(fresh, ModelConfig(use_peft=True, lora_r=4), "SEQ_CLS").eval()
        model.save_pretrained(tmp_path / "adapter")
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    ids = torch.randint(5, 100, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        found = PeftModel.from_pretrained(again, tmp_path / "adapter").eval()(input_ids=ids).logits
    assert (found - expected).abs().max() <= 1e-5
