"""How does a decoding method of ours run a model one step further? With its cache, on padded batches."""

from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

BY_ROW = ("attention_mask", "position_ids", "token_type_ids")  # tensors [rows, length] among the model's inputs


def forward(
    model: PreTrainedModel, input_ids: torch.LongTensor, model_kwargs: dict[str, Any], *, first: bool, **asked: bool
) -> tuple[ModelOutput, dict[str, Any]]:
    """One pass over what the cache has not seen: the prompt at `first`, then the last token.

    Args:
        input_ids: [rows, length], all tokens so far.
        model_kwargs: what `generate` hands to its methods: `past_key_values`, `use_cache`, and mask and positions
            (`attention_mask`, `position_ids`) as long as `input_ids`.
        asked: outputs to ask for, such as `output_hidden_states=True`.

    Returns:
        the model's output, and `model_kwargs` made longer by one place for the token to come.
    """
    length = 1 if model_kwargs.get("use_cache") and not first else None
    inputs = model.prepare_inputs_for_generation(
        input_ids, next_sequence_length=length, is_first_iteration=first, **model_kwargs
    )
    outputs = model(**{**inputs, **asked}, return_dict=True)
    return outputs, model._update_model_kwargs_for_generation(outputs, model_kwargs)


def last_logits(outputs: ModelOutput) -> torch.Tensor:
    """float32 [rows, vocabulary]: what comes next. A copy, so that a long prompt's logits can be freed."""
    return outputs.logits[:, -1].to(dtype=torch.float32, copy=True)


def take_rows(model_kwargs: dict[str, Any], rows: torch.LongTensor) -> dict[str, Any]:
    """`model_kwargs` of these rows, in this order, any of them several times or not at all.

    The cache is changed in place (that is its interface); everything else is new.
    """
    taken = {
        name: value.index_select(0, rows) if name in BY_ROW and value is not None else value
        for name, value in model_kwargs.items()
    }
    if taken.get("past_key_values") is not None:
        taken["past_key_values"].reorder_cache(rows)
    return taken


def append(
    input_ids: torch.LongTensor,
    tokens: torch.LongTensor,
    unfinished: torch.BoolTensor,
    pad: torch.Tensor | None,
    stopping_criteria: StoppingCriteriaList,
    streamer: BaseStreamer | None,
) -> tuple[torch.LongTensor, torch.BoolTensor]:
    """Write a token to every row, padding to those that have ended.

    Args:
        input_ids: [rows, length]. tokens: [rows]. unfinished: bool [rows]. pad: a scalar.

    Returns:
        [rows, length + 1], and which rows go on.
    """
    if pad is not None:
        tokens = torch.where(unfinished, tokens, pad.to(tokens.device))
    input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
    if streamer is not None:
        streamer.put(tokens.cpu())
    return input_ids, unfinished & ~stopping_criteria(input_ids, None)
