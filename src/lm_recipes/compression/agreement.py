"""Does a model that was exported, rounded or pruned still answer as the original does?"""

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.artifacts import read_json
from lm_recipes.decoding.generation import encode_prompts
from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of
from lm_recipes.sources import resolve_model
from lm_recipes.sources.split_texts import split_texts

# What heads answer with, in the order of their outputs.
ANSWERS = ("logits", "start_logits", "end_logits", "last_hidden_state")

Answerer = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def load_whole(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with the head that it was saved with, and its tokenizer; in float32 on the CPU.

    Raises:
        UserError: it is an adapter, was rounded already, or its config does not name its class.
    """
    path = Path(resolve_model(name))
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{name}: an adapter; merge it first: python recipes/merge_adapter.py --adapter {name} --output_dir ..."
        )
    config = read_json(path / "config.json", "model") if path.is_dir() else _hub_config(name)
    if "quantization_config" in config:
        raise UserError(f"{name}: its weights are rounded already; start from the model that it was made of")
    classes = config.get("architectures") or []
    auto_class = getattr(transformers, classes[0], None) if classes else None
    if auto_class is None:
        raise UserError(f"{name}: its config.json names no class of transformers under `architectures`")
    model, tokenizer = load_for_inference(auto_class, name, packed=False)
    return model.float().cpu(), tokenizer


def _hub_config(name: str) -> dict:
    from transformers import AutoConfig

    from lm_recipes.models.loading import loading

    with loading(name):
        return json.loads(AutoConfig.from_pretrained(name).to_json_string(use_diff=False))


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: int = 3, length: int = 11, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A batch of random tokens for this model: int64 `[rows, length]` each, of multiple choice `[rows, 2, length]`.

    Each row but the first is padded a little: at the left for what generates, else at the right.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 2, length) if type(model).__name__.endswith("ForMultipleChoice") else (rows, length)
    ids = torch.randint(len(tokenizer), shape, generator=generator)
    ids[ids == (tokenizer.pad_token_id if tokenizer.pad_token_id is not None else -1)] = len(tokenizer) - 1
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        padding = slice(0, row) if model.can_generate() else slice(length - row, length)
        mask[row, ..., padding] = 0
    ids = torch.where(mask.bool(), ids, tokenizer.pad_token_id or 0)
    batch = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in tokenizer.model_input_names and not model.can_generate():
        batch["token_type_ids"] = torch.zeros_like(ids)
    known = inspect.signature(model.forward).parameters
    return {name: values for name, values in batch.items() if name in known}


def torch_answers(model: PreTrainedModel) -> Answerer:
    """What a model of transformers answers to a batch: those of ANSWERS that it has, float32."""

    @torch.no_grad()
    def answer(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        options = {"use_cache": False} if model.can_generate() else {}
        if model.can_generate():
            options["position_ids"] = positions(batch["attention_mask"])
        outputs = model(**batch, **options)
        return {name: outputs[name].float() for name in ANSWERS if outputs.get(name) is not None}

    return answer


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Of tokens in rows that are padded at the left, as `generate` counts them: int64 `[B, L]`."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def agreement(original: Answerer, other: Answerer, batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, float]:
    """How far the answers of two models to the same batches are from each other.

    Returns:
        `max_difference` of any logit (or hidden value), `max_answer`, the largest of the original's (the scale of
        the former), and `same_decisions`: the share of positions whose likeliest class or token is the same.
        Padding does not count.
    """
    difference = largest = same = asked = 0.0
    for batch in batches:
        mask = batch["attention_mask"].bool()
        expected, found = original(batch), other(batch)
        for name, wanted in expected.items():
            got = found[name]
            if wanted.ndim == mask.ndim + 1:  # an answer for each token
                wanted, got = wanted[mask], got[mask]
            difference = max(difference, float((wanted - got).abs().max()))
            largest = max(largest, float(wanted.abs().max()))
            equal = wanted.argmax(-1) == got.argmax(-1)
            same, asked = same + float(equal.sum()), asked + equal.numel()
    return {"max_difference": difference, "max_answer": largest, "same_decisions": same / asked}


def probes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, torch.Tensor]]:
    """Batches of several sizes and lengths, one row alone and the longest the model reads (at most 300) among them."""
    longest = min(positions_of(model.config.get_text_config()) or 300, 300)
    sizes = [(1, min(7, longest)), (4, min(23, longest)), (2, longest)]
    return [probe(model, tokenizer, rows, length, seed) for seed, (rows, length) in enumerate(sizes, start=1)]


def first_texts(source: str, split: str, text_column: str, number: int) -> list[str]:
    """The first `number` texts of a split, as `split_texts` splits them.

    Raises:
        UserError: it has none.
    """
    texts = list(islice(split_texts(source, split, text_column=text_column), number))
    if not texts:
        raise UserError(f"{source}: none of its texts is in the {split} split (a hash of each decides); give more")
    return texts


def text_batches(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = 128
) -> list[dict[str, torch.Tensor]]:
    """Texts as a model reads them, one a batch, cut to `max_length` tokens."""
    limit = min(max_length, positions_of(model.config.get_text_config()) or max_length)
    if model.can_generate():
        rows = encode_prompts(tokenizer, texts)
    else:
        rows = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    ids = [torch.tensor([row[:limit]]) for row in rows]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


def refuse_difference(found: dict[str, float], tolerance: float, what: str) -> None:
    """UserError where answers differ by more than `tolerance` of the largest: what was made is not the same model."""
    if not found["max_difference"] <= tolerance * max(1.0, found["max_answer"]):
        raise UserError(
            f"{what}: its answers differ by {found['max_difference']:.1e} of up to {found['max_answer']:.1e}; "
            "this model cannot be exported exactly"
        )
