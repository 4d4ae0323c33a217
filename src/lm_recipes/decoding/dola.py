"""Which token do a model's last layers know and its early ones not? DoLa (arXiv:2309.03883)."""

import math
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.steps import append, forward, last_logits

PLAUSIBLE = 0.1  # tokens with less than this share of the best one's probability are out


def dola(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    *,
    dola_layers: str = "high",
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: of the plausible tokens the one whose log-probability grew most since the
    early layer that differs most from the last one.

    The early layer is chosen at each step and for each row by the Jensen-Shannon divergence of its next-token
    distribution from the model's own (the authors' code averages over the batch, so that a text would depend on its
    neighbours). As in their code the output layer reads an early layer's states as they are, without the final norm;
    soft-capping of logits is not applied to them. Processors act on the model's own logits, before the contrast, so
    that what they forbid is not plausible.

    Args:
        dola_layers: "low", for long answers in steps, or "high", for short facts: see `early_layers`.

    Returns:
        [rows, length + new]
    """
    layers, head = early_layers(model.config.get_text_config(), dola_layers), model.get_output_embeddings()
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    first = True
    while unfinished.any():
        outputs, model_kwargs = forward(model, input_ids, model_kwargs, first=first, output_hidden_states=True)
        logits = last_logits(outputs)
        early = torch.stack([head(outputs.hidden_states[layer][:, -1]).float() for layer in layers])
        tokens = contrast(logits, logits_processor(input_ids, logits.clone()), early).argmax(dim=-1)
        input_ids, unfinished = append(
            input_ids, tokens, unfinished, generation_config._pad_token_tensor, stopping_criteria, streamer
        )
        first = False
    if streamer is not None:
        streamer.end()
    return input_ids


def early_layers(config: PreTrainedConfig, which: str) -> list[int]:
    """Every second layer of the lower ("low") or upper ("high") half, as the authors do; of models with more than 40
    layers, of the first or last 20. 0 stands for the embeddings, i for the output of layer i.

    Where the output layer is the embeddings' transpose, they would only say each token again: the first two are left
    out, as far as there are others.
    """
    last = config.num_hidden_layers
    if which == "high":
        return list(range(last // 2 if last <= 40 else last - 20, last, 2))
    start = min(2, last - 1) if config.tie_word_embeddings else 0
    return list(range(start, last // 2 if last <= 40 else 20, 2)) or [start]


def contrast(logits: torch.Tensor, processed: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
    """How much each token's log-probability grew; minus infinity for tokens that are not plausible.

    Args:
        logits: float32 [rows, vocabulary], of the last layer. processed: the same after the processors.
        early: float32 [layers, rows, vocabulary], of the layers to choose from.

    Returns:
        float32 [rows, vocabulary]
    """
    mature, early = logits.log_softmax(dim=-1), early.log_softmax(dim=-1)
    farthest = divergence(mature, early).argmax(dim=0)  # [rows]
    premature = early[farthest, torch.arange(len(mature), device=mature.device)]
    final = processed.log_softmax(dim=-1)
    plausible = final >= final.amax(dim=-1, keepdim=True) + math.log(PLAUSIBLE)
    return torch.where(plausible, final - premature, -float("inf"))


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence in nats, 0 to ln 2, of log-probabilities [..., vocabulary], over the last dimension."""
    one, other = torch.broadcast_tensors(one, other)
    middle = torch.logaddexp(one, other) - math.log(2)
    parts = [(side.exp() * (side - middle)).nan_to_num(0.0).sum(dim=-1) for side in (one, other)]
    return (parts[0] + parts[1]) / 2
