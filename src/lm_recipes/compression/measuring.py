"""How large, how fast and how good is each variant of one model, side by side?"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.compression.gguf_models import LlamaCpp, load_gguf
from lm_recipes.compression.onnx_models import OnnxDecoder, OnnxEncoder
from lm_recipes.compression.parity import Continuer, random_prompts
from lm_recipes.compression.quantization import dynamic_int8, load_rounded
from lm_recipes.decoding.generation import continue_prompts, encode_prompts, end_tokens
from lm_recipes.decoding.strategies import strategy
from lm_recipes.evaluation.side_by_side import seconds_in_turn
from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of
from lm_recipes.sources import resolve_model

DYNAMIC = "int8-at-load"  # not a file: the original, through `quantization.dynamic_int8`


@dataclass(frozen=True)
class Variant:
    """One form of a model, loaded."""

    bytes: int  # of its weights and graphs on disk
    logits: Callable[[dict[str, np.ndarray]], np.ndarray]  # of `input_ids`, `attention_mask`, ... int64 [B, L]
    continues: Continuer | None = None  # greedily; None: not here, or no decoder


def open_variant(path: str, original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Variant:
    """A directory with model.onnx, a .gguf file or a directory with one, a model directory, or DYNAMIC.

    A GGUF file is scored as the weights that it stands for; it is timed by llama.cpp where `llama-cpp-python` is
    installed, and not at all elsewhere.

    Args:
        original: what it was made of; its class and end tokens count.
    """
    if path == DYNAMIC:
        return of_transformers(dynamic_int8(original), tokenizer, 4 * original.num_parameters())
    where = Path(resolve_model(path))
    files = [where] if where.suffix == ".gguf" else sorted(where.glob("*.gguf")) if where.is_dir() else []
    if len(files) > 1:
        raise UserError(f"{path}: holds {len(files)} GGUF files; name one")
    if files:
        model = _ending_alike(load_gguf(files[0])[0], original)
        runs = LlamaCpp(files[0]).continue_prompts if find_spec("llama_cpp") else None
        return Variant(files[0].stat().st_size, _logits(model), runs)
    if (where / "model.onnx").is_file():
        size = sum(file.stat().st_size for file in where.glob("model.onnx*"))
        if original.can_generate():
            decoder = OnnxDecoder(where, torch.get_num_threads())
            return Variant(size, lambda batch: decoder.logits(batch)["logits"], decoder.continue_prompts)
        encoder = OnnxEncoder(where, torch.get_num_threads())
        return Variant(size, lambda batch: encoder(batch)["logits"])
    size = sum(file.stat().st_size for file in where.glob("*.safetensors"))
    return of_transformers(_ending_alike(load_rounded(where, type(original)), original), tokenizer, size)


def _ending_alike(model: PreTrainedModel, original: PreTrainedModel) -> PreTrainedModel:
    """With the original's end tokens, and none of the decoding defaults that a directory may bring."""
    if model.can_generate():
        model.generation_config = original.generation_config
    return model


def of_transformers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, size: int) -> Variant:
    """A model of transformers on the CPU. size: bytes on disk."""

    def continues(prompts: Sequence[Sequence[int]], new_tokens: int, ends: set[int]) -> list[list[int]]:
        greedy = strategy("greedy", max_new_tokens=new_tokens)
        return continue_prompts(model, tokenizer, list(map(list, prompts)), greedy, batch_size=len(prompts))

    return Variant(size, _logits(model), continues if model.can_generate() else None)


def _logits(model: PreTrainedModel) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    options = {"use_cache": False} if model.can_generate() else {}

    @torch.inference_mode()
    def answer(batch: dict[str, np.ndarray]) -> np.ndarray:
        return model(**{name: torch.from_numpy(values) for name, values in batch.items()}, **options).logits.numpy()

    return answer


# --- score ---


def bits_per_byte(variant: Variant, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], block_size: int) -> float:
    """Of texts, each by itself: cut into blocks that share one token, so that every token but the first is asked for
    once. One number for graphs and models alike; `text_bits_per_byte` packs, which graphs cannot."""
    nats = 0.0
    for ids in tqdm(encode_prompts(tokenizer, texts), desc="bits per byte", leave=False, disable=None):
        for first in range(0, len(ids) - 1, block_size - 1):
            block = np.array([ids[first : first + block_size]], np.int64)
            logits = variant.logits({"input_ids": block, "attention_mask": np.ones_like(block)})[0, :-1]
            scores = torch.from_numpy(np.array(logits)).double().log_softmax(-1)
            nats -= float(scores.gather(1, torch.from_numpy(block[0, 1:, None])).sum())
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


def accuracy(variant: Variant, batches: Sequence[dict[str, np.ndarray]], labels: Sequence[Sequence[int]]) -> float:
    """The share of rows whose likeliest class is the label."""
    right = [variant.logits(batch).argmax(-1) == truth for batch, truth in zip(batches, labels, strict=True)]
    return float(np.concatenate(right).mean())


def classifier_batches(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: Sequence[str], batch_size: int, max_length: int
) -> tuple[list[dict[str, np.ndarray]], list[list[int]]]:
    """Texts as batches of like length, int64 `[B, L]`, and which rows each holds."""
    limit = min(max_length, positions_of(model.config) or max_length, tokenizer.model_max_length)
    encoded = tokenizer(list(texts), truncation=True, max_length=limit)
    order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]))
    rows = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    batches, read = [], inspect.signature(model.forward).parameters
    for some in rows:
        padded = tokenizer.pad({name: [encoded[name][row] for row in some] for name in encoded}, return_tensors="np")
        batches.append({name: padded[name].astype(np.int64) for name in padded if name in read})
    return batches, rows


# --- time ---


def _medians(calls: dict[str, Callable[[], object]], rounds: int, what: str) -> dict[str, float]:
    """Median seconds of each call, see `seconds_in_turn`."""
    return {name: median(times) for name, times in seconds_in_turn(calls, rounds, what)[0].items()}


def decoder_times(
    variants: dict[str, Variant], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    new_tokens: int, batch_size: int, rounds: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Of variants that can continue: `milliseconds_per_token` of one prompt, and `tokens_per_second` of a batch."""
    prompts = random_prompts(tokenizer, batch_size, longest=16)
    prompts = [(prompt * 16)[:16] for prompt in prompts]  # one length: nothing is padding
    ends = end_tokens(model, tokenizer)
    found: dict[str, dict[str, float]] = {name: {} for name in variants}
    for number, key in ((1, "one"), (batch_size, "batch")):
        calls = {
            name: lambda one=one, number=number: one.continues(prompts[:number], new_tokens, ends)
            for name, one in variants.items()
            if one.continues is not None
        }
        counted = {name: sum(map(len, call())) for name, call in calls.items()}
        for name, seconds in _medians(calls, rounds, f"generation, batch {number}").items():
            if key == "one":
                found[name]["milliseconds_per_token"] = 1_000 * seconds / counted[name]
            else:
                found[name]["tokens_per_second"] = counted[name] / seconds
    return found


def classifier_times(
    variants: dict[str, Variant], single: dict[str, np.ndarray], batches: Sequence[dict[str, np.ndarray]], rounds: int
) -> dict[str, dict[str, float]]:
    """`milliseconds_per_text` of one text, and `texts_per_second` of batches of like length."""
    texts = sum(len(batch["input_ids"]) for batch in batches)
    one = _medians({name: lambda v=v: v.logits(single) for name, v in variants.items()}, 10 * rounds, "one text")
    calls = {name: lambda v=v: [v.logits(batch) for batch in batches] for name, v in variants.items()}
    many = _medians(calls, rounds, "batches")
    return {
        name: {"milliseconds_per_text": 1_000 * one[name], "texts_per_second": texts / many[name]} for name in variants
    }
