"""Packed dialogues do not see each other, through the batch that TRL's trainer really hands to the model."""

import itertools

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny_models import gpt, gpt_tokenizer
from transformers import MistralConfig, MistralForCausalLM
from trl import SFTConfig, SFTTrainer

from lm_recipes.alignment import encode, prepare_tokenizer
from lm_recipes.alignment.trainer import BY_PIECE, DialogueTrainer

DIALOGUES = [
    [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    for question, reply in [("my knee", "since when?"), ("the fall", "the dog?"), ("paris", "of france"), ("x", "y")]
]


def trainer_for(model, tokenizer, directory, kind=DialogueTrainer, **flags) -> SFTTrainer:
    flags = {"packing": True, "per_device_train_batch_size": 2} | flags
    args = SFTConfig(
        directory, max_length=120, bf16=False, use_cpu=True, activation_checkpointing=False, report_to="none", **flags
    )
    rows = Dataset.from_list([encode(tokenizer, messages) for messages in DIALOGUES])  # as recipes/gpt/sft.py does
    return kind(model, args, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_packed_dialogues_have_the_logits_of_separate_ones(kind, tmp_path, monkeypatch):
    tokenizer, model = gpt_tokenizer(), gpt(kind, context=256)
    prepare_tokenizer(tokenizer)
    trainer = trainer_for(model, tokenizer, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.train_dataset.num_rows < len(DIALOGUES)  # it is packed
    seen = {}
    inner = model.model.forward

    def record(*args, **kwargs):
        seen.update(kwargs)
        output = inner(*args, **kwargs)
        seen["hidden"] = output.last_hidden_state
        return output

    monkeypatch.setattr(model.model, "forward", record)
    with torch.no_grad():
        trainer.compute_loss(model.eval(), dict(batch))
    assert seen.get("attention_mask") is None
    assert seen["use_cache"] is False
    positions = seen["position_ids"][0]
    starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
    assert len(starts) - 1 == len(DIALOGUES)
    for start, end in itertools.pairwise(starts):
        assert positions[start:end].tolist() == list(range(end - start))
        with torch.no_grad():
            alone = inner(input_ids=seen["input_ids"][:, start:end], use_cache=False).last_hidden_state
        packed = seen["hidden"][:, start:end]
        torch.testing.assert_close(model.lm_head(packed), model.lm_head(alone), atol=1e-5, rtol=1e-5)


def test_packing_keeps_exactly_the_assistants_tokens_as_labels(tmp_path):
    tokenizer = gpt_tokenizer()
    prepare_tokenizer(tokenizer)
    trainer = trainer_for(gpt(context=256), tokenizer, tmp_path)
    learned = [label for row in trainer.train_dataset for label in row["labels"] if label != -100]
    expected = [messages[1]["content"] + "<|im_end|>" for messages in DIALOGUES]
    assert sorted(tokenizer.decode(learned).split("<|im_end|>")) == sorted("".join(expected).split("<|im_end|>"))


def mistral() -> MistralForCausalLM:
    """With a window and shared keys."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=320, num_key_value_heads=2, sliding_window=16, initializer_range=0.4, **sizes)
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("kind", ["nanochat", "llama", "mistral"])
def test_the_sparse_loss_is_trl_s_and_so_are_its_gradients(kind, adapter, packing, tmp_path):
    tokenizer, found = gpt_tokenizer(), []
    prepare_tokenizer(tokenizer)
    for trainer_class in (SFTTrainer, DialogueTrainer):
        model = mistral() if kind == "mistral" else gpt(kind, context=256)
        if adapter:
            config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
            model = get_peft_model(model, config)
        trainer = trainer_for(model, tokenizer, tmp_path, trainer_class, packing=packing)
        batch = next(iter(trainer.get_train_dataloader()))
        loss = trainer.compute_loss(trainer.model.eval(), dict(batch), num_items_in_batch=torch.tensor(7))
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        found.append((loss, trainer._metrics["eval"], gradients))
    (loss, metrics, gradients), (sparse_loss, sparse_metrics, sparse_gradients) = found
    assert gradients.keys() == sparse_gradients.keys()
    torch.testing.assert_close(sparse_loss, loss, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            sparse_gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )
    for name, values in metrics.items():
        assert sparse_metrics[name] == pytest.approx(values, rel=1e-4)
    base = trainer.accelerator.unwrap_model(trainer.model)
    base = base.get_base_model() if adapter else base
    assert base.config._attn_implementation == (BY_PIECE if packing else "sdpa")
    base.save_pretrained(tmp_path / "saved")
    assert BY_PIECE not in (tmp_path / "saved/config.json").read_text()


def test_the_output_layer_sees_what_is_asked_only(tmp_path):
    tokenizer = gpt_tokenizer()
    prepare_tokenizer(tokenizer)
    model = gpt("llama", context=256)
    trainer = trainer_for(model, tokenizer, tmp_path)
    batch, seen = next(iter(trainer.get_train_dataloader())), []
    model.model.register_forward_hook(lambda body, args, output: seen.append(output.last_hidden_state.shape))
    trainer.compute_loss(model, dict(batch))
    assert seen == [(1, int((batch["labels"] != -100).sum()), model.config.hidden_size)]
    nothing = dict(batch) | {"labels": torch.full_like(batch["labels"], -100)}
    loss = trainer.compute_loss(model, nothing)
    loss.backward()
    assert loss == 0
    with torch.no_grad():  # whoever else asks the model is not told the asked positions only
        assert model(batch["input_ids"]).logits.shape[:2] == batch["input_ids"].shape
