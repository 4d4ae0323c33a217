"""Masked language modelling: hidden tokens are asked of the tokens on both sides, inside their own document."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives.isolation import Isolation
from lm_recipes.objectives.words import WordStarts


@dataclass
class MaskedLanguageModeling:
    """Packed blocks to a batch for any `AutoModelForMaskedLM`, masked afresh in every epoch.

    Of the chosen tokens, `mask_share` become the mask token, `random_share` a random token of the vocabulary and
    the rest stay (BERT, https://arxiv.org/abs/1810.04805). Special tokens are never chosen and never drawn. With
    `whole_word` all tokens of a chosen word are chosen (https://arxiv.org/abs/1906.08101).

    The masks of a row depend on `(seed, epoch, row)` alone: not on its batch, its process or what ran before, so a
    resumed run sees exactly the masks of an uninterrupted one. Evaluation keeps `epoch` at 0: fixed masks.
    """

    tokenizer: object
    mlm_probability: float = 0.15
    whole_word: bool = False
    mask_share: float = 0.8
    random_share: float = 0.1
    isolation: Isolation = field(default_factory=Isolation)  # `position_ids` alone do not isolate an encoder
    seed: int = 0
    epoch: int = 0
    _word_starts: WordStarts | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise UserError(f"{self.tokenizer.name_or_path}: the tokenizer has no mask token; MLM needs one")
        if not 0 < self.mlm_probability < 1:
            raise UserError(f"mlm_probability is {self.mlm_probability}; it must lie between 0 and 1")
        vocabulary = len(self.tokenizer)
        special = np.isin(np.arange(vocabulary), self.tokenizer.all_special_ids)
        self._is_special, self._drawable = special, np.flatnonzero(~special)
        if self.whole_word:
            self._word_starts = WordStarts.for_tokenizer(self.tokenizer)

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
        """Rows of `input_ids` and `position_ids` `[L]` to int64 `input_ids`, `labels`, `position_ids` `[B, L]`,
        and the mask that keeps the pieces of a block apart, as `isolation` makes it."""
        position_ids = np.stack([row["position_ids"] for row in examples]).astype(np.int64)
        masked, labels = zip(
            *(self._mask(np.asarray(row["input_ids"], dtype=np.int64)) for row in examples), strict=True
        )
        return {
            "input_ids": torch.from_numpy(np.stack(masked)),
            "labels": torch.from_numpy(np.stack(labels)),
            **self.isolation(position_ids),
        }

    def _mask(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = f"{self.seed}:{self.epoch}:".encode() + ids.tobytes()
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()))
        chosen = self._choose(ids, rng)
        fate = rng.random(len(ids))
        masked = np.where(chosen & (fate < self.mask_share), self.tokenizer.mask_token_id, ids)
        swapped = chosen & (fate >= self.mask_share) & (fate < self.mask_share + self.random_share)
        masked = np.where(swapped, rng.choice(self._drawable, len(ids)), masked)
        return masked, np.where(chosen, ids, -100)

    def _choose(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._word_starts is None:
            chosen = rng.random(len(ids)) < self.mlm_probability
        else:
            words = np.cumsum(self._word_starts(ids) | self._is_special[ids])
            chosen = (rng.random(len(ids) + 1) < self.mlm_probability)[words]
        return chosen & ~self._is_special[ids]
