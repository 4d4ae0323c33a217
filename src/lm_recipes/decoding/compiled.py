"""How is the next token made without waiting for Python? A step is one compiled graph, on a cache that is made once."""

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StaticCache, StoppingCriteriaList
from transformers.cache_utils import StaticLayer
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.sampling import quick
from lm_recipes.decoding.strategies import Strategy
from lm_recipes.launch import UserError

SHORTEST = 128  # tokens that a cache holds at least; tokens and rows are powers of two: few graphs serve all batches

GREEDY_LOOKUP = "the prompt is looked up for greedy search without penalties, watermark or structure"


def with_compiled_steps(way: Strategy) -> Strategy:
    """The same strategy, the same texts, by `compiled_steps`, or, of prompt_lookup, by `compiled_lookup`.

    Raises:
        UserError: it is a search, or asks the model for more than logits.
    """
    if way.settings.prompt_lookup_num_tokens is not None:
        if way.settings.do_sample:
            raise UserError(f"--compile: {GREEDY_LOOKUP}")
        settings = copy.deepcopy(way.settings)
        settings.update(prompt_lookup_num_tokens=None, max_matching_ngram_size=None)
        options = {name: way.options[name] for name in ("prompt_lookup_num_tokens", "max_matching_ngram_size")}
        return replace(way, settings=settings, method=partial(compiled_lookup, **options))
    if way.method is not None or (way.settings.num_beams or 1) > 1 or way.drafts:
        raise UserError(f"--compile: for greedy search, sampling and prompt_lookup, not for {way.name}")
    return replace(way, method=compiled_steps)


class _RowByRow(TorchFunctionMode):
    """A linear layer of a single row as sums along the rows of its weights: compiled, they are read by all cores, where
    the matrix product that PyTorch has for one row uses one core. Weights in 16 bits widen to `dtype` in registers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.embedding:
            return function(*args, **(kwargs or {})).to(self.dtype)
        if function is not F.linear:
            return function(*args, **(kwargs or {}))
        row, weights, *bias = (*args, *(kwargs or {}).values())
        found = (row.unsqueeze(-2) * weights.to(row.dtype)).sum(-1)
        return found if not bias or bias[0] is None else found + bias[0]


def in_16_bits(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of the matrices that lose nothing by it, by name: those that a file in bfloat16 or float16 held.

    A step takes as long as it takes to read the weights, so these halve it. None of a model with adapters, which ask
    the weights for their type, and none where the copies would take more than half of the free memory.
    """
    layers = [layer for layer in model.modules() if type(layer) in (nn.Linear, nn.Embedding)]
    matrices = {id(layer.weight) for layer in layers}
    adapted = any(hasattr(layer, "base_layer") for layer in model.modules())
    if adapted or sum(layer.weight.nbytes for layer in layers) > psutil.virtual_memory().available:
        return {}
    copies = {}
    for name, weight in model.named_parameters():
        for dtype in (torch.bfloat16, torch.float16) if id(weight) in matrices else ():
            short = weight.detach().to(dtype)
            if name not in copies and torch.equal(short.to(weight.dtype), weight):
                copies[name] = short
    return copies


class Step:
    """Reads prompts, and then `width` tokens at a time, for `rows` texts of at most `length` tokens.

    The prompts are read by the model as it is. What follows, model, cache and the likeliest tokens, is one graph,
    compiled when it first runs (some seconds to a minute) and kept with the model. It takes the model to stay as
    it is: after another adapter was chosen, make the model's steps anew (`del model._compiled_steps`).
    """

    def __init__(
        self, model: PreTrainedModel, rows: int, length: int, width: int, others: Iterable["Step"] = ()
    ) -> None:
        self.model, self.rows, self.width = model, rows, width
        self.cache = StaticCache(config=model.config, max_cache_len=length)
        if {type(layer) for layer in self.cache.layers} != {StaticLayer}:
            raise UserError("--compile: this model has layers that forget (a window, a state); run it without")
        # what is added to attention scores: 0 where a column may be read, by the first of the tokens or a later one
        self.closed = torch.finfo(model.dtype).min
        self.mask = torch.full((rows, 1, width, length), self.closed, dtype=model.dtype, device=model.device)
        self.offsets = torch.arange(width, device=model.device)
        # Shapes never change: what a graph assumes of each of the model's tensors need not be looked at for each token.
        unasked = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        unasked |= {"size_asserts": False, "alignment_asserts": False}
        self.run = torch.compile(self._run, fullgraph=True, dynamic=False, isolate_recompiles=True, options=unasked)
        self.by_row = rows * width == 1 and model.device.type == "cpu"
        copies = next((other.weights for other in others if other.by_row), None)  # of another length, of the same model
        self.weights = {} if not self.by_row else in_16_bits(model) if copies is None else copies

    def _run(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: StaticCache, weights: dict
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = {"input_ids": tokens, "position_ids": positions, "attention_mask": mask, "past_key_values": cache}
        with _RowByRow(self.model.dtype) if self.by_row else nullcontext():
            output = torch.func.functional_call(self.model, weights, kwargs=inputs | {"use_cache": True})
        logits = output.logits.float()
        return logits, logits.argmax(-1)

    def read(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Forget what was, and read prompts int64 `[rows, L]`, padded on the left where the mask is 0.

        Returns:
            logits of the next token, float32 `[rows, 1, V]`, and the likeliest, int64 `[rows, 1]`.
        """
        self.cache.reset()
        self.seen = input_ids.shape[1]
        self.mask.fill_(self.closed)
        self.mask[..., : self.seen].masked_fill_(attention_mask.bool()[:, None, None], 0)
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        self.positions = positions[:, -1:] + 1
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits.float()
        return logits, logits.argmax(-1)

    def next(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same after each of `width` more tokens, int64 `[rows, width]`: logits `[rows, width, V]`."""
        for number in range(self.width):
            self.mask[..., number:, self.seen + number] = 0
        found = self.run(tokens, self.positions + self.offsets, self.mask, self.cache, self.weights)
        self.mask[..., self.seen : self.seen + self.width] = 0  # to all that come later
        self.seen += self.width
        self.positions += self.width
        return found

    def forget(self, tokens: int) -> None:
        """Take back the last `tokens`: what follows is written over them."""
        if tokens:
            self.mask[..., self.seen - tokens : self.seen] = self.closed
            self.seen -= tokens
            self.positions -= tokens
            for layer in self.cache.layers:
                layer.cumulative_length.sub_(tokens)


def _step(model: PreTrainedModel, rows: int, length: int, width: int = 1) -> Step:
    # behind the last token of a text there is room for what is proposed there
    size = _power_of_two(rows), max(SHORTEST, _power_of_two(length + width - 1)), width
    steps = vars(model).setdefault("_compiled_steps", {})  # they go when the model goes
    if size not in steps:
        steps[size] = Step(model, *size, others=steps.values())
    return steps[size]


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def compiled_steps(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: greedy search or sampling, the tokens that `generate` itself would make.

    Args:
        input_ids: [rows, length], left-padded where `attention_mask` is 0.
        synced_gpus: never passed on by `generate` to a method that is not its own.

    Returns:
        [rows, length + new]
    """
    rows, length = input_ids.shape
    step = _step(model, rows, generation_config.max_length)
    spare = step.rows - rows  # places in the batch that nobody has: copies of the last row
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    pad = generation_config._pad_token_tensor
    ids = input_ids.new_zeros((rows, generation_config.max_length))
    ids[:, :length] = input_ids
    unfinished = torch.ones(rows, dtype=torch.bool, device=input_ids.device)
    processors = quick(logits_processor)

    logits, likeliest = step.read(_filled(input_ids, spare), _filled(mask, spare))
    for end in range(length, generation_config.max_length):
        if generation_config.do_sample or processors:
            scores = logits[:rows, -1].clone()
            for processor in processors:
                scores = processor(ids[:, :end], scores)
            tokens = scores.softmax(-1).multinomial(1)[:, 0] if generation_config.do_sample else scores.argmax(-1)
        else:
            tokens = likeliest[:rows, -1]
        if pad is not None:
            tokens = torch.where(unfinished, tokens, pad)
        ids[:, end] = tokens
        if streamer is not None:
            streamer.put(tokens.cpu())
        unfinished &= ~stopping_criteria(ids[:, : end + 1], None)
        if not unfinished.any():
            break
        logits, likeliest = step.next(_filled(tokens, spare)[:, None])
    if streamer is not None:
        streamer.end()
    return ids[:, : end + 1]


def _filled(tensor: torch.Tensor, spare: int) -> torch.Tensor:
    return torch.cat([tensor, tensor[-1:].expand(spare, *tensor.shape[1:])]) if spare else tensor


def compiled_lookup(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    *,
    prompt_lookup_num_tokens: int = 10,
    max_matching_ngram_size: int = 2,
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: greedy search of one text, several tokens a step where it repeats itself.

    What followed when the text last stood at the same tokens is proposed, and read by the model in one step with the
    token before it; what the model would not have said itself is taken back (prompt lookup decoding).

    Args:
        input_ids: [1, length], without padding.
        prompt_lookup_num_tokens: proposed at a time.
        max_matching_ngram_size: so many last tokens are looked for, then fewer.

    Returns:
        [1, length + new]

    Raises:
        UserError: more than the likeliest token is asked for.
    """
    if logits_processor:
        raise UserError(f"--compile: {GREEDY_LOOKUP}")
    length, limit, number = input_ids.shape[1], generation_config.max_length, prompt_lookup_num_tokens
    step = _step(model, 1, limit, number + 1)
    ids = np.zeros(limit + number + 1, np.int64)
    ids[:length] = input_ids[0].numpy(force=True)
    ids[length] = step.read(input_ids, torch.ones_like(input_ids))[1].item()
    end = length + 1  # tokens that are certain; the model has not read the last of them
    shown = length
    while True:
        text = torch.from_numpy(ids[None, :end]).to(input_ids.device)
        while shown < end:  # a text may have ended among the tokens of a step
            shown += 1
            if streamer is not None:
                streamer.put(text[0, shown - 1 : shown].cpu())
            if stopping_criteria(text[:, :shown], None).all():
                if streamer is not None:
                    streamer.end()
                return text[:, :shown]
        proposed = _followed(ids[:end], number, max_matching_ngram_size)
        ids[end : end + number] = proposed
        read = torch.from_numpy(ids[None, end - 1 : end + number]).to(input_ids.device)
        said = step.next(read)[1][0].numpy(force=True)
        right = int((np.cumprod(said[:-1] == proposed)).sum())
        ids[end : end + right + 1] = said[: right + 1]
        end = min(end + right + 1, limit)
        step.forget(number - right)


def _followed(ids: np.ndarray, number: int, longest: int) -> np.ndarray:
    """`number` tokens that stood behind the latest earlier place with the same last `longest` tokens, or with fewer. A
    loop may be shorter than `number`: it is gone round. Without such a place: zeros, which are as good as any."""
    for size in range(min(longest, len(ids) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], size)
        places = np.flatnonzero((windows == ids[-size:]).all(-1))
        if len(places):
            return np.resize(ids[places[-1] + size :], number)
    return np.zeros(number, np.int64)
