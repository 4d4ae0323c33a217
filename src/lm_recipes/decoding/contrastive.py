"""Which likely token is least like what was said before? Contrastive search (arXiv:2202.06417)."""

from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.steps import append, forward, last_logits, take_rows


def contrastive_search(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    *,
    penalty_alpha: float = 0.6,
    top_k: int = 4,
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: of the `top_k` likeliest tokens the one with the highest

        (1 - penalty_alpha) * probability - penalty_alpha * (its highest cosine similarity to a token before it)

    where tokens are compared by their last hidden states. All candidates of all rows are one forward pass, and the
    chosen one's states and logits serve the next step. `penalty_alpha=0` is greedy search.

    Args:
        input_ids: [rows, length], left-padded where `attention_mask` is 0.
        synced_gpus: never passed on by `generate` to a method that is not its own.

    Returns:
        [rows, length + new]
    """
    rows, device = input_ids.shape[0], input_ids.device
    unfinished = torch.ones(rows, dtype=torch.bool, device=device)
    mask = model_kwargs.get("attention_mask")
    seen = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    outputs, model_kwargs = forward(model, input_ids, model_kwargs, first=True, output_hidden_states=True)
    logits, context = last_logits(outputs), normalize(outputs.hidden_states[-1].float(), dim=-1)
    while unfinished.any():
        probabilities = logits_processor(input_ids, logits).softmax(dim=-1)
        likely, candidates = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
        width = candidates.shape[1]

        wide = torch.arange(rows, device=device).repeat_interleave(width)
        wide_ids = torch.cat([input_ids[wide], candidates.reshape(-1, 1)], dim=-1)
        wide_kwargs = take_rows(model_kwargs, wide)
        outputs, wide_kwargs = forward(model, wide_ids, wide_kwargs, first=False, output_hidden_states=True)
        states = normalize(outputs.hidden_states[-1][:, -1].float(), dim=-1)

        likeness = states.view(rows, width, -1) @ context.transpose(1, 2)  # [rows, width, length]
        likeness = likeness.masked_fill(~seen[:, None], -1).amax(dim=-1)
        scores = (1 - penalty_alpha) * likely - penalty_alpha * likeness
        scores = scores.masked_fill(likely == 0, -float("inf"))  # forbidden by a processor
        best = scores.argmax(dim=-1)

        chosen = torch.arange(rows, device=device) * width + best
        logits, model_kwargs = last_logits(outputs)[chosen], take_rows(wide_kwargs, chosen)
        context = torch.cat([context, states[chosen][:, None]], dim=1)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
        tokens = candidates.gather(1, best[:, None])[:, 0]
        input_ids, unfinished = append(
            input_ids, tokens, unfinished, generation_config._pad_token_tensor, stopping_criteria, streamer
        )
    if streamer is not None:
        streamer.end()
    return input_ids
