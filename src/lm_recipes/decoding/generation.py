"""How do prompts become continuations? Left-padded batches through `model.generate`."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.cache import roomy_cache
from lm_recipes.decoding.constrained_beam import phrase_tokens
from lm_recipes.decoding.strategies import Strategy
from lm_recipes.decoding.structured import StructureProcessor
from lm_recipes.launch import UserError


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], chat: bool = False) -> list[list[int]]:
    """Token ids of each prompt, begun as a training document (or a chat turn) begins.

    A plain prompt opens with the tokenizer's bos token, as packed documents do; `chat` renders it as a user's
    turn in the tokenizer's chat template, in which control tokens typed by the user stay plain text.

    Raises:
        UserError: `chat` without a template, or a prompt of zero tokens.
    """
    if chat:
        if not tokenizer.chat_template:
            raise UserError("--chat: this model has no chat template; fine-tune it on dialogues, or drop --chat")
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, sanitize_control_tokens=True)
        return rendered["input_ids"]
    bos = _document_start(tokenizer)
    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    encoded = [ids if ids[: len(bos)] == bos else bos + ids for ids in encoded]
    for row, ids in enumerate(encoded, start=1):
        if not ids:
            raise UserError(f"prompt {row} is empty, and there is no bos token to start from; write a word")
    return encoded


def _document_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if tokenizer.bos_token is None:
        return []
    if tokenizer.chat_template:
        # Some chat models (SmolLM2) name the token that opens every turn "bos": it does not start a document.
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        if tokenizer.apply_chat_template(turn, tokenize=False).count(tokenizer.bos_token) > 1:
            return []
    return [tokenizer.bos_token_id]


def refuse_too_long(model: PreTrainedModel, encoded: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room for `max_new_tokens` in the model's context.

    Raises:
        UserError: names the first such prompt, its tokens and the room there is.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for row, ids in enumerate(encoded, start=1):
        if context and len(ids) + max_new_tokens > context:
            raise UserError(
                f"prompt {row}: {len(ids)} tokens and --max_new_tokens {max_new_tokens} do not fit the context of "
                f"{context}; " + (f"at most {context - len(ids)} do" if len(ids) < context else "shorten it")
            )


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    strategy: Strategy,
    *,
    seed: int = 0,
    batch_size: int = 8,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """Continue each prompt, up to and with the token that ended it. With n = `strategy.texts`, rows i * n to
    (i + 1) * n - 1 follow `encoded[i]`.

    Padding is on the left with an explicit mask, so that what a strategy without chance says to a prompt does not
    depend on its batch, nor on whether pad and eos are the same token. Sampling restarts from `seed` on each call.

    Args:
        streamer: gets the tokens as they come, prompt after prompt; only where `strategy.streams`.
    """
    ends = end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    settings = copy.deepcopy(strategy.settings)
    settings.update(pad_token_id=pad, eos_token_id=sorted(ends) or None)
    set_seed(seed)
    continuations = []
    starts = range(0, len(encoded), 1 if streamer or strategy.drafts else batch_size)
    for start in tqdm(starts, desc="generate", disable=len(starts) == 1 or streamer is not None):
        batch = encoded[start : start + starts.step]
        width = max(map(len, batch))
        input_ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=model.device)
        beside = arguments(strategy, tokenizer, ends, width, streamer)
        # prompts that peft trained and drafts have caches of their own
        if isinstance(model, PreTrainedModel) and not strategy.drafts and settings.use_cache is not False:
            beside["past_key_values"] = roomy_cache(model.config)
        with torch.inference_mode():
            output = model.generate(
                input_ids, attention_mask=mask, generation_config=settings, streamer=streamer, **beside
            )
        continuations += [_until_end(row, ends) for row in output[:, width:].tolist()]
    return continuations


def arguments(
    strategy: Strategy,
    tokenizer: PreTrainedTokenizerBase,
    ends: set[int],
    prompt_length: int,
    streamer: BaseStreamer | None = None,
) -> dict[str, Any]:
    """What `generate` takes for one batch beside inputs, settings and streamer: texts as tokens, processors anew.

    Args:
        ends: the tokens that end a text. prompt_length: of the batch, padding included.
    """
    beside = dict(strategy.extra)
    if strategy.method is not None:
        # `generate` tells its streamer the prompt, but does not pass it on to a callable.
        beside["custom_generate"] = partial(strategy.method, streamer=streamer)
    if "phrases" in beside:
        beside["phrases"] = phrase_tokens(tokenizer, beside["phrases"])
    if (wanted := beside.pop("structure", None)) is not None:
        processor = StructureProcessor(wanted, tokenizer, ends, prompt_length)
        beside["logits_processor"] = LogitsProcessorList([processor])
    return beside


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a text: the model's and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    return (ends | {tokenizer.eos_token_id}) - {None}


def _until_end(row: list[int], ends: set[int]) -> list[int]:
    for position, token in enumerate(row):
        if token in ends:
            return row[: position + 1]
    return row
