"""Masked language modelling: hidden tokens are asked of the tokens on both sides, inside their own document."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch.utils.data import get_worker_info

from lm_recipes.launch import UserError
from lm_recipes.objectives.chance import row_generator
from lm_recipes.objectives.isolation import Isolation
from lm_recipes.objectives.spans import LENGTHS, choose_exactly, first_tokens, join_words
from lm_recipes.objectives.words import WordStarts

Masking = Literal["token", "whole_word", "span", "ngram"]


@dataclass
class MaskedLanguageModeling:
    """Packed blocks to a batch for any `AutoModelForMaskedLM`, masked afresh in every epoch.

    Of the chosen tokens, `mask_share` become the mask token, `random_share` a random token of the vocabulary and
    the rest stay (BERT, https://arxiv.org/abs/1810.04805). Special tokens are never chosen and never drawn.

    The masks of a row depend on `(seed, epoch, row)` and the ratio alone: not on its batch, its process or what ran
    before, so a resumed run sees exactly the masks of an uninterrupted one. Evaluation keeps `epoch` at 0: fixed masks.

    Attributes:
        mlm_probability: share of the tokens that are chosen; with `mlm_probability_end` that of the first batch.
        masking: what is chosen together. "token": each for itself; "whole_word": all tokens of a word
            (https://arxiv.org/abs/1906.08101); "span": 1 to 10 words, geometric, which also share the fate of being
            masked, swapped or kept (SpanBERT, https://arxiv.org/abs/1907.10529); "ngram": 1 to 3 words (ALBERT,
            https://arxiv.org/abs/1909.11942). Spans and n-grams end where their piece ends or a special token stands.
        exact: choose `round(ratio * L)` tokens of every row, so that all batches have as many labels (static shapes; a
            row with fewer tokens of text than that has them all chosen). How units are cut to fit:
            `spans.choose_exactly`. Otherwise each unit is chosen by itself with the ratio as its probability.
        mlm_probability_end: the ratio of the run's last batch; between, it goes in a straight line
            (https://arxiv.org/abs/2305.15096). None: it stays as it is. With `exact` the shapes change as it goes.
        first_batch: how many batches of this process came before this epoch, or before what is resumed of it. Setting
            it starts the count of batches anew; the loader's workers must start after that, in every epoch.
        total_batches: how many batches of this process the whole run has; None: not known yet, so the ratio is that of
            the first batch.
    """

    tokenizer: object
    mlm_probability: float = 0.15
    masking: Masking = "token"
    exact: bool = False
    mlm_probability_end: float | None = None
    mask_share: float = 0.8
    random_share: float = 0.1
    isolation: Isolation = field(default_factory=Isolation)  # `position_ids` alone do not isolate an encoder
    seed: int = 0
    epoch: int = 0
    first_batch: int = 0
    total_batches: int | None = None

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise UserError(f"{self.tokenizer.name_or_path}: the tokenizer has no mask token; MLM needs one")
        for name in ("mlm_probability", "mlm_probability_end"):
            ratio = getattr(self, name)
            if ratio is not None and not 0 < ratio < 1:
                raise UserError(f"{name} is {ratio}; it must lie between 0 and 1")
        if not 0 <= self.mask_share <= self.mask_share + self.random_share <= 1:
            raise UserError(
                f"mask_share is {self.mask_share} and random_share {self.random_share}; they are parts of 1"
            )
        if self.masking not in get_args(Masking):
            raise UserError(f"masking: `{self.masking}` is none of {', '.join(get_args(Masking))}")
        self._is_special = np.isin(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids)
        self._drawable = np.flatnonzero(~self._is_special)
        self._word_starts = None if self.masking == "token" else WordStarts.for_tokenizer(self.tokenizer)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "first_batch":
            self._calls = 0

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
        """Rows of `input_ids` and `position_ids` `[L]` to int64 `input_ids`, `labels`, `position_ids` `[B, L]`,
        and the mask that keeps the pieces of a block apart, as `isolation` makes it."""
        ids = np.stack([row["input_ids"] for row in examples]).astype(np.int64)
        position_ids = np.stack([row["position_ids"] for row in examples]).astype(np.int64)
        masked, labels = self._mask(ids, position_ids, self._ratio())
        return {
            "input_ids": torch.from_numpy(masked),
            "labels": torch.from_numpy(labels),
            **self.isolation(position_ids),
        }

    def _ratio(self) -> float:
        """The share of tokens to choose in this batch, which is known by its number in the run."""
        if self.mlm_probability_end is None or self.total_batches is None:
            return self.mlm_probability
        worker = get_worker_info()  # PyTorch's loader deals batches out to its workers in turn
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.first_batch + first + step * self._calls
        self._calls += 1
        done = min(number / max(self.total_batches - 1, 1), 1.0)
        return self.mlm_probability + done * (self.mlm_probability_end - self.mlm_probability)

    def _mask(self, ids: np.ndarray, position_ids: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
        """Ids `[B, L]` to what the model sees of them and the labels, -100 where nothing is asked."""
        allowed = ~self._is_special[ids]
        keys, fates, swaps, lengths = np.stack([self._draw(row) for row in ids], axis=1)
        words = None
        if self._word_starts is not None:
            words, units = self._units(ids, position_ids, lengths)
            first = first_tokens(units)
            keys = np.take_along_axis(keys, first, axis=1)
            if self.masking == "span":
                fates = np.take_along_axis(fates, first, axis=1)
        if self.exact:
            chosen = choose_exactly(round(ratio * ids.shape[1]), keys, allowed, words)
        else:
            chosen = allowed & (keys < ratio)
        swapped = chosen & (fates >= self.mask_share) & (fates < self.mask_share + self.random_share)
        masked = np.where(chosen & (fates < self.mask_share), self.tokenizer.mask_token_id, ids)
        masked[swapped] = self._drawable[(swaps[swapped] * len(self._drawable)).astype(np.int64)]
        return masked, np.where(chosen, ids, -100)

    def _draw(self, ids: np.ndarray) -> np.ndarray:
        """All that chance decides about a row, `[4, L]` in [0, 1): keys of units, fates, random tokens, lengths."""
        rng = row_generator(self.seed, self.epoch, ids)
        return rng.random((4, len(ids)))

    def _units(self, ids: np.ndarray, position_ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where words begin and where what is chosen together begins, both bool `[B, L]`."""
        special = self._is_special[ids]
        breaks = special | (position_ids == 0)
        breaks[:, 1:] |= special[:, :-1]
        breaks[:, 0] = True
        words = self._word_starts(ids.ravel()).reshape(ids.shape) | breaks
        return words, join_words(self.masking, words, breaks, lengths) if self.masking in LENGTHS else words
