"""What do beam searches of ours share? Hypotheses, the pool of finished ones, and the loop around the model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from lm_recipes.decoding.steps import forward, last_logits, take_rows


@dataclass(frozen=True)
class Hypothesis:
    """The beginning of a continuation, or all of it."""

    tokens: tuple[int, ...]  # after the prompt
    score: float  # nats, the sum over tokens that the search ranks by; minus infinity: it does not go on


class Finished:
    """The best finished hypotheses, best first, by score / length ** `length_penalty`."""

    def __init__(self, size: int, length_penalty: float):
        self.size, self.length_penalty = size, length_penalty
        self.kept: list[tuple[float, tuple[int, ...]]] = []

    def add(self, hypothesis: Hypothesis) -> None:
        self.kept.append((self.value(hypothesis), hypothesis.tokens))
        self.kept.sort(key=lambda entry: -entry[0])  # stable: of equals the earlier one stays
        del self.kept[self.size :]

    def value(self, hypothesis: Hypothesis) -> float:
        return hypothesis.score / len(hypothesis.tokens) ** self.length_penalty

    def cannot_be_beaten(self, running: Sequence[Hypothesis]) -> bool:
        """Whether nothing goes on, or the pool is full and what goes on is worse, at the length it has now.

        The same rule as transformers' `early_stopping=False`; with a `length_penalty` above 0 it is a heuristic.
        """
        alive = [hypothesis for hypothesis in running if hypothesis.score > -math.inf]
        if not alive:
            return True
        return len(self.kept) == self.size and max(map(self.value, alive)) <= self.kept[-1][0]

    def tokens(self) -> list[list[int]]:
        return [list(tokens) for _, tokens in self.kept]


class Search(Protocol):
    """The search for one prompt's continuation, on a fixed number of rows of the batch."""

    done: bool

    def step(self, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        """Takes [rows, vocabulary] and says for each row which row it now continues, and with which token."""

    def stop(self, ended: Sequence[bool]) -> None:
        """Ends the rows that a stopping criterion (the length, a time, a string) ends."""

    def best(self) -> list[list[int]]:
        """Continuations, best first."""


def run_searches(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    searches: Sequence[Search],
) -> torch.LongTensor:
    """Run one search per prompt to its end; a search that is done waits for the others.

    Args:
        input_ids: [prompts * beams, length], each prompt repeated, as `generate` does where `num_beams` is set.

    Returns:
        [prompts * num_return_sequences, length + longest], padded on the right; a prompt's texts in a row, best first.
    """
    beams, device = input_ids.shape[0] // len(searches), input_ids.device
    prompts, first = input_ids[::beams], True
    while True:
        outputs, model_kwargs = forward(model, input_ids, model_kwargs, first=first)
        logprobs = logits_processor(input_ids, last_logits(outputs).log_softmax(dim=-1))
        steps = [search.step(rows) for search, rows in zip(searches, logprobs.split(beams), strict=True)]
        taken = torch.tensor([beams * at + row for at, step in enumerate(steps) for row, _ in step], device=device)
        tokens = torch.tensor([token for step in steps for _, token in step], device=device)
        input_ids = torch.cat([input_ids[taken], tokens[:, None]], dim=-1)
        ended = stopping_criteria(input_ids, None).view(-1, beams).tolist()
        for search, rows in zip(searches, ended, strict=True):
            search.stop(rows)
        if all(search.done for search in searches):
            break
        model_kwargs, first = take_rows(model_kwargs, taken), False
    return _written(prompts, searches, generation_config)


def _written(
    prompts: torch.LongTensor, searches: Sequence[Search], generation_config: GenerationConfig
) -> torch.LongTensor:
    texts, pad = generation_config.num_return_sequences or 1, generation_config._pad_token_tensor
    found = []
    for search in searches:
        best = search.best()[:texts]
        found += best + best[-1:] * (texts - len(best))  # fewer than asked for: the last one again
    width, fill = max(map(len, found)), 0 if pad is None else int(pad)
    rows = torch.tensor([tokens + [fill] * (width - len(tokens)) for tokens in found], dtype=torch.long)
    return torch.cat([prompts.repeat_interleave(texts, dim=0), rows.to(prompts.device)], dim=-1)


def end_tokens(generation_config: GenerationConfig) -> frozenset[int]:
    """The tokens that end a text, from a config that `generate` has prepared."""
    ends = generation_config._eos_token_tensor
    return frozenset() if ends is None else frozenset(ends.tolist())
