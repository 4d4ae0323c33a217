"""How well does a model predict what the assistant says?"""

import json
import math

import torch
from torch.nn import functional
from tqdm import tqdm

from lm_recipes.alignment.templates import encode, render


def before_and_after(before: dict, after: dict) -> dict:
    """For results.json: `test` (numbers), `sample` (what was said), each before and after the fine-tuning.

    Args:
        before, after: `held_out`, and `few_shot.answering` where answers are classes.
    """
    numbers = [{key: value for key, value in found.items() if isinstance(value, float)} for found in (before, after)]
    measures = [key for key in numbers[0] if key in ("bits_per_byte", "accuracy")]
    return {
        "test": {f"{key}_before": numbers[0][key] for key in measures} | numbers[1],
        "sample": {
            "prompt": before["prompt"], "reference": before["reference"],
            "before": before["answer"], "after": after["answer"],
        },
    }  # fmt: skip


def in_words(metrics: dict) -> str:
    """What was found on the test split and, if measured, on general text: for a card and a last line."""
    test = metrics["test"]
    before, after = test["bits_per_byte_before"], test["bits_per_byte"]
    said = [f"{before:.2f} bits per byte of held-out answers before, {after:.2f} after"]
    if "accuracy" in test:
        always = test["accuracy_of_the_commonest_answer"]
        right = f"{test['accuracy_before']:.1%} of them right before, {test['accuracy']:.1%} after"
        said.append(f"{right} (always the commonest answer: {always:.1%})")
    if "general" in metrics:
        general = metrics["general"]
        said.append(f"general text {general['bits_per_byte_before']:.3f} before, {general['bits_per_byte']:.3f} after")
    return "; ".join(said)


def held_out(model, tokenizer, conversations: list) -> dict:
    """`bits_per_byte` of the assistant's turns, and for the first conversation what the model says in place of its
    last turn: `prompt` (what came before, or its last turn), `answer` and `reference`.
    """
    *said, reference = conversations[0]
    return {
        "bits_per_byte": assistant_bits_per_byte(model, tokenizer, conversations),
        "prompt": said[-1]["content"],
        "answer": answer(model, tokenizer, said),
        "reference": reference["content"] or json.dumps(reference["tool_calls"], ensure_ascii=False),
    }


@torch.no_grad()
def assistant_bits_per_byte(model, tokenizer, conversations: list, tokens_per_batch: int = 2048) -> float:
    """Bits per UTF-8 byte of the assistant's words (and calls), each given everything said before it in its window.

    Control tokens (the end of a turn) are not counted: a model that never saw the chat template would pay for them,
    and "before and after fine-tuning" would compare manners, not words.

    Args:
        model: any causal LM, in the precision to be measured.
        tokenizer: with a chat template that has generation markers.
        conversations: lists of messages that fit the model's context (`alignment.windows`), with assistant turns.
        tokens_per_batch: bounds memory: logits are `[tokens, vocabulary]`.
    """
    encoded = sorted((_encode(tokenizer, messages) for messages in conversations), key=lambda row: len(row[0]))
    # Of the very tokens that are asked for: a call is written by the template.
    said = ([label for label in labels if label != -100] for _, labels in encoded)
    size = sum(len(tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode()) for ids in said)
    training, nats = model.training, 0.0
    model.eval()
    for batch in tqdm(_batches(encoded, tokens_per_batch), desc="bits per byte", leave=False, disable=None):
        input_ids, labels = (_pad(column, value) for column, value in zip(zip(*batch, strict=True),
                             (tokenizer.pad_token_id, -100), strict=True))  # fmt: skip
        mask = (torch.arange(input_ids.shape[1]) < torch.tensor([[len(row[0])] for row in batch])).long()
        logits = model(
            input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits[:, :-1]
        asked = labels[:, 1:].to(logits.device)
        nats += functional.cross_entropy(logits[asked != -100].float(), asked[asked != -100], reduction="sum").item()
    model.train(training)
    return nats / math.log(2) / size


def _encode(tokenizer, messages: list[dict]) -> tuple[list[int], list[int]]:
    row, special = encode(tokenizer, messages), set(tokenizer.all_special_ids)
    return row["input_ids"], [-100 if label in special else label for label in row["labels"]]


def _batches(rows: list, tokens_per_batch: int) -> list[list]:
    """Consecutive rows, sorted by length, so that rows x longest stays within `tokens_per_batch` (or one row)."""
    batches: list[list] = []
    for row in rows:
        if batches and (len(batches[-1]) + 1) * len(row[0]) <= tokens_per_batch:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _pad(rows: tuple, value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


@torch.no_grad()
def answer(model, tokenizer, messages: list[dict], max_new_tokens: int = 64) -> str:
    """What the model says next, greedily, when `messages` have been said."""
    prompt = render(tokenizer, messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    prompt = prompt.to(model.device)
    training = model.training
    ids = model.eval().generate(
        **prompt, max_new_tokens=max_new_tokens, do_sample=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model.train(training)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
