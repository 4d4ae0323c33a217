"""Adapters of every method on tiny bases of both tracks, as the scripts make them."""

import torch
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

from lm_recipes.training.adapters import AdapterArguments, complete_adapter, with_adapter

NAMES = ["negative", "neutral", "positive"]
KINDS = ["nanochat", "llama", "bert", "modernbert"]
METHODS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"peft_settings": ["init_lora_weights=pissa"]},
    "pissa, rslora": {"peft_settings": ["init_lora_weights=pissa"], "use_rslora": True},
    "pissa, dora": {"peft_settings": ["init_lora_weights=pissa"], "use_dora": True},
    "olora": {"peft_settings": ["init_lora_weights=olora"]},
    "ia3": {"peft_method": "ia3"},
    "loha": {"peft_method": "loha", "peft_settings": ["r=4"]},
    "lokr": {"peft_method": "lokr", "peft_settings": ["r=4"]},
    "oft": {"peft_method": "oft", "peft_settings": ["oft_block_size=8"]},
    "hra": {"peft_method": "hra", "peft_settings": ["r=4"]},
    "vera": {"peft_method": "vera", "peft_settings": ["r=8"]},
}
PROMPT = {"peft_method": "prompt_tuning", "peft_settings": ["num_virtual_tokens=4"]}
CHANGE_THE_BASE = [name for name in METHODS if "pissa" in name or "olora" in name]
# What is taken out of the base is large, and comes back with a rounding error of its size.
TOLERANCE = {name: 5e-4 if name in CHANGE_THE_BASE else 1e-5 for name in METHODS}


def make_base(kind: str, directory) -> tuple[str, type, str]:
    set_seed(0)
    if kind in ("nanochat", "llama"):
        return save(directory, gpt(kind), gpt_tokenizer()), AutoModelForCausalLM, "CAUSAL_LM"
    tokenizer = bert_tokenizer()
    config = bert_config(kind, len(tokenizer), id2label=dict(enumerate(NAMES)), classifier_pooling="mean")
    model = AutoModelForSequenceClassification.from_config(config)
    return save(directory, model, tokenizer), AutoModelForSequenceClassification, "SEQ_CLS"


def fresh(base: str, auto_class: type, task: str, seed: int = 0, **flags):
    """As a script makes it, before the first step."""
    labels = {"id2label": dict(enumerate(NAMES))} if task == "SEQ_CLS" else {}
    set_seed(seed)
    arguments = AdapterArguments(use_peft=True, lora_r=4, **flags)
    return with_adapter(auto_class.from_pretrained(base, **labels), arguments, task)


@torch.no_grad()
def as_trained(model) -> None:
    """Weights as training leaves them: none of them where it began."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def make_adapter(kind: str, tmp_path, name: str = "adapter", seed: int = 0, **flags) -> tuple[str, object, type]:
    """A saved adapter that was, as it were, trained: its directory, the model it is on, and the model's class."""
    base, auto_class, task = make_base(kind, tmp_path / "base")
    model = fresh(base, auto_class, task, seed, **flags)
    as_trained(model)
    model.eval().save_pretrained(tmp_path / name)
    complete_adapter(model, tmp_path / name)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / name)
    return str(tmp_path / name), model, auto_class


@torch.no_grad()
def logits(model, rows: int = 3) -> torch.Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(5, vocabulary, (rows, 20), generator=torch.Generator().manual_seed(1))
    return model(input_ids=ids).logits


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
