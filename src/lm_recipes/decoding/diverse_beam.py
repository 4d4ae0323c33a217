"""Which good continuations differ from each other? Diverse (group) beam search (arXiv:1610.02424)."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.beams import Finished, Hypothesis, end_tokens, run_searches


def diverse_beam_search(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    *,
    num_beam_groups: int = 4,
    diversity_penalty: float = 0.5,
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: `num_beams` beams in groups, one step after the other. For every beam of an
    earlier group that has just taken a token, `diversity_penalty` nats are taken off that token (Hamming diversity),
    for good: scores are sums of what is left, as in the paper's algorithm 1.

    The first group is plain beam search with its share of the beams. Texts come best of each group first, then the
    second of each, and so on.

    Returns:
        [prompts * num_return_sequences, length + longest]
    """
    width = generation_config.num_beams // num_beam_groups
    searches = [
        DiverseSearch(
            [
                Group(width, end_tokens(generation_config), generation_config.length_penalty)
                for _ in range(num_beam_groups)
            ],
            diversity_penalty,
        )
        for _ in range(input_ids.shape[0] // generation_config.num_beams)
    ]
    return run_searches(
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs, searches
    )


class Group:
    """Beam search of one group. `running[i]` is what row i of its rows has said."""

    def __init__(self, width: int, ends: frozenset[int], length_penalty: float):
        self.width, self.ends = width, ends
        self.running = [Hypothesis((), 0.0)]
        self.finished = Finished(width, length_penalty)
        self.done = False

    def step(self, logprobs: torch.Tensor) -> list[int]:
        """Takes [rows, vocabulary] and says which row each hypothesis of `running` now continues."""
        before = torch.tensor([[hypothesis.score] for hypothesis in self.running], device=logprobs.device)
        scores = logprobs[: len(before)] + before
        # Enough for `width` that go on, even if all others end.
        reach = min(max(2, 1 + len(self.ends)) * self.width, scores.numel())
        values, places = scores.flatten().topk(reach)
        running, rows = [], []
        for rank, (score, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            row, token = divmod(place, scores.shape[1])
            hypothesis = Hypothesis((*self.running[row].tokens, token), score)
            if score == -math.inf:
                break
            if token in self.ends:
                # As in transformers: an end that is not among the best `width` steps is not an end worth having.
                if rank < self.width:
                    self.finished.add(hypothesis)
            elif len(running) < self.width:
                running.append(hypothesis)
                rows.append(row)
        if not running and not self.finished.kept:  # every token is forbidden: what there is has to do
            self.stop([True] * len(self.running))
        self.running = running
        self.done = self.finished.cannot_be_beaten(running)
        return rows

    def stop(self, ended: Sequence[bool]) -> None:
        for place, hypothesis in enumerate([] if self.done else self.running):
            if ended[place] and hypothesis.score > -math.inf and hypothesis.tokens:
                self.finished.add(hypothesis)
                self.running[place] = Hypothesis(hypothesis.tokens, -math.inf)
        self.done = self.done or self.finished.cannot_be_beaten(self.running)


class DiverseSearch:
    """One prompt's groups; group g has the rows from g * width on."""

    def __init__(self, groups: list[Group], diversity_penalty: float):
        self.groups, self.penalty = groups, diversity_penalty

    @property
    def done(self) -> bool:
        return all(group.done for group in self.groups)

    def step(self, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        said = torch.zeros(logprobs.shape[1], device=logprobs.device)
        steps = []
        for number, group in enumerate(self.groups):
            start, taken = number * group.width, []
            if not group.done:
                rows = group.step(logprobs[start : start + group.width] - self.penalty * said)
                tokens = [hypothesis.tokens[-1] for hypothesis in group.running]
                taken = [(start + row, token) for row, token in zip(rows, tokens, strict=True)]
                for token in tokens:
                    said[token] += 1
            steps += taken + [(start, 0)] * (group.width - len(taken))  # rows that nobody looks at
        return steps

    def stop(self, ended: Sequence[bool]) -> None:
        for number, group in enumerate(self.groups):
            group.stop(ended[number * group.width : (number + 1) * group.width])

    def best(self) -> list[list[int]]:
        ranks = zip_longest(*(group.finished.tokens() for group in self.groups))
        return [tokens for rank in ranks for tokens in rank if tokens is not None] or [[]]
