"""Packed dialogues do not see each other, through the batch that TRL's trainer really hands to the model."""

import itertools

import pytest
import torch
from datasets import Dataset
from tiny_models import gpt, gpt_tokenizer
from trl import SFTConfig, SFTTrainer

from lm_recipes.alignment import encode, prepare_tokenizer

DIALOGUES = [
    [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    for question, reply in [("my knee", "since when?"), ("the fall", "the dog?"), ("paris", "of france"), ("x", "y")]
]


def trainer_for(model, tokenizer, directory, **flags) -> SFTTrainer:
    args = SFTConfig(
        directory, packing=True, max_length=120, bf16=False, use_cpu=True,
        activation_checkpointing=False, per_device_train_batch_size=2, report_to="none", **flags,
    )  # fmt: skip
    rows = Dataset.from_list([encode(tokenizer, messages) for messages in DIALOGUES])  # as recipes/gpt/sft.py does
    return SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer)


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
