"""Which is the best continuation that says these phrases? Constrained beam search."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.beams import Finished, Hypothesis, end_tokens, run_searches
from lm_recipes.launch import UserError

MOST = 8  # phrases: the shortest way to say the rest is looked for among all orders


def constrained_beam_search(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    *,
    phrases: Sequence[Sequence[int]],
    **model_kwargs: Any,
) -> torch.LongTensor:
    """For `generate(custom_generate=...)`: beam search whose texts contain every one of `phrases`, in any order.

    Hypotheses are extended by their likeliest tokens and by those that go on with a phrase (arXiv:1704.07138), and
    share the beams out evenly by how many tokens of phrases they still lack (dynamic beam allocation,
    arXiv:1804.06609): else those that put the phrases off would push all others out. A text cannot end before it has
    said them all, and a step after which they no longer fit into `max_new_tokens` is not taken. Give it more beams than
    the phrases have tokens.

    Args:
        phrases: token ids, see `phrase_tokens`.

    Returns:
        [prompts * num_return_sequences, length + longest]

    Raises:
        UserError: the phrases do not fit into `max_new_tokens`, or what else is asked for forbids them.
    """
    wanted, room = Phrases(phrases), generation_config.max_length - input_ids.shape[1]
    if wanted.fewest((), wanted.all) > room:
        raise UserError(f"--phrases have {wanted.fewest((), wanted.all)} tokens, --max_new_tokens is {room}: raise it")
    beams, ends = generation_config.num_beams, end_tokens(generation_config)
    searches = [
        ConstrainedSearch(wanted, beams, ends, generation_config.length_penalty, room)
        for _ in range(input_ids.shape[0] // beams)
    ]
    return run_searches(
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs, searches
    )


def phrase_tokens(tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str]) -> list[list[int]]:
    """Phrases as they stand in running text: with a space before, in scripts that put one between words.

    Raises:
        UserError: an empty phrase, more than `MOST`, or one that the tokenizer cannot write.
    """
    if len(phrases) > MOST:
        raise UserError(f"--phrases: {len(phrases)} of them; at most {MOST} can be asked for")
    found = []
    for phrase in phrases:
        spaced = f" {phrase}" if phrase[:1].isascii() and phrase[:1].isalnum() else phrase
        ids = tokenizer(spaced, add_special_tokens=False)["input_ids"]
        if not phrase.strip() or phrase not in tokenizer.decode(ids):
            raise UserError(f"--phrases {phrase!r}: the model's tokenizer cannot write it")
        found.append(ids)
    return found


class Phrases:
    """How much is still to be said? Phrases by number; one that is part of another is said with it."""

    def __init__(self, phrases: Sequence[Sequence[int]]):
        given = list(dict.fromkeys(map(tuple, phrases)))
        self.phrases = [one for one in given if not any(one != other and _within(one, other) for other in given)]
        self.all = frozenset(range(len(self.phrases)))
        self._rest = cache(self._rest_after)

    def left(self, tokens: tuple[int, ...], missing: frozenset[int]) -> frozenset[int]:
        """`missing` without what the last of `tokens` completes."""
        return frozenset(i for i in missing if tokens[-len(self.phrases[i]) :] != self.phrases[i])

    def fewest(self, tokens: tuple[int, ...], missing: frozenset[int]) -> int:
        """The tokens it takes to say what is missing, phrases that overlap once."""
        return min((self._to_say(i, tokens) + self._rest(i, missing - {i}) for i in missing), default=0)

    def onward(self, tokens: tuple[int, ...], missing: frozenset[int]) -> set[int]:
        """The tokens that begin a missing phrase or go on with it."""
        return {
            token
            for phrase in (self.phrases[i] for i in missing)
            for token in (phrase[0], phrase[_overlap(tokens, phrase)])
        }

    def _to_say(self, number: int, tokens: tuple[int, ...]) -> int:
        phrase = self.phrases[number]
        return len(phrase) - _overlap(tokens, phrase)

    def _rest_after(self, number: int, missing: frozenset[int]) -> int:
        said = self.phrases[number]
        return min((self._to_say(i, said) + self._rest(i, missing - {i}) for i in missing), default=0)


def _overlap(tokens: tuple[int, ...], phrase: tuple[int, ...]) -> int:
    """How many of the last tokens are the beginning of the phrase, less than all of it."""
    longest = min(len(tokens), len(phrase) - 1)
    return next((n for n in range(longest, 0, -1) if tokens[-n:] == phrase[:n]), 0)


def _within(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return any(other[i : i + len(one)] == one for i in range(len(other) - len(one) + 1))


@dataclass(frozen=True)
class Bound(Hypothesis):
    """A hypothesis that has yet to say something."""

    missing: frozenset[int]  # phrases
    fewest: int  # tokens in which it can say them
    row: int = 0  # that it continues


class ConstrainedSearch:
    """One prompt's search. `running[i]` is what row i has said."""

    def __init__(self, phrases: Phrases, beams: int, ends: frozenset[int], length_penalty: float, room: int):
        self.phrases, self.beams, self.ends, self.room = phrases, beams, ends, room
        self.running = [Bound((), 0.0, phrases.all, phrases.fewest((), phrases.all))]
        self.finished = Finished(beams, length_penalty)
        self.interrupted: list[Bound] = []
        self.done = False

    def step(self, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        if self.done:
            return [(0, 0)] * self.beams
        goes_on = []
        for candidate in self._candidates(logprobs):
            if candidate.tokens[-1] in self.ends:
                self.finished.add(candidate)
            else:
                goes_on.append(candidate)
        self.running = _share_out(goes_on, self.beams)
        self.done = self.finished.cannot_be_beaten(self.running)
        steps = [(hypothesis.row, hypothesis.tokens[-1]) for hypothesis in self.running]
        return steps + [(0, 0)] * (self.beams - len(steps))

    def stop(self, ended: Sequence[bool]) -> None:
        for place, hypothesis in enumerate([] if self.done else self.running):
            if ended[place] and hypothesis.score > -math.inf:
                if hypothesis.missing:
                    self.interrupted.append(hypothesis)
                else:
                    self.finished.add(hypothesis)
                self.running[place] = Bound(hypothesis.tokens, -math.inf, hypothesis.missing, hypothesis.fewest)
        self.done = self.done or self.finished.cannot_be_beaten(self.running)

    def best(self) -> list[list[int]]:
        """Texts with all the phrases; where there is none since it was interrupted, the one that lacks least."""
        if self.finished.kept:
            return self.finished.tokens()
        if not self.interrupted:
            raise UserError("--phrases cannot be said under the other options (no repeats, a grammar): drop some")
        nearest = min(self.interrupted, key=lambda hypothesis: (hypothesis.fewest, -hypothesis.score))
        return [list(nearest.tokens)]

    def _candidates(self, logprobs: torch.Tensor) -> Iterator[Bound]:
        """Every hypothesis with its likeliest next tokens and those the phrases need."""
        reach = min((1 + len(self.ends)) * self.beams, logprobs.shape[1])
        likeliest = logprobs.topk(reach, dim=-1).indices.tolist()
        for row, hypothesis in enumerate(self.running):
            onward = self.phrases.onward(hypothesis.tokens, hypothesis.missing)
            tokens = list(dict.fromkeys([*likeliest[row], *sorted(onward)]))
            scores = logprobs[row, tokens].tolist()
            for token, logprob in zip(tokens, scores, strict=True):
                said = (*hypothesis.tokens, token)
                missing = self.phrases.left(said, hypothesis.missing)
                fewest = self.phrases.fewest(said, missing)
                score = hypothesis.score + logprob
                ends_early = token in self.ends and missing
                if score > -math.inf and fewest <= self.room - len(said) and not ends_early:
                    yield Bound(said, score, missing, fewest, row)


def _share_out(candidates: list[Bound], beams: int) -> list[Bound]:
    """The best of each bank in turn, beginning with those that lack least."""
    banks = defaultdict(list)
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        banks[candidate.fewest].append(candidate)
    turns = zip_longest(*(banks[fewest] for fewest in sorted(banks)))
    return [candidate for turn in turns for candidate in turn if candidate is not None][:beams]
