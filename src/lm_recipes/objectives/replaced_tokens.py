"""Replaced-token detection: which tokens did a small masked language model put in the place of others? (ELECTRA)"""

from dataclasses import dataclass

import numpy as np
import torch

from lm_recipes.objectives.chance import row_generator
from lm_recipes.objectives.masked import MaskedLanguageModeling


@dataclass
class ReplacedTokenDetection(MaskedLanguageModeling):
    """The batch of `MaskedLanguageModeling` for the generator, and what the discriminator's question takes besides.

    ELECTRA (https://arxiv.org/abs/2003.10555) samples a token from the generator for every masked one. The chance in
    this comes with the batch, one number per token, so that samples depend on `(seed, epoch, row)` and the weights
    alone: a run resumes exactly, two processes equal one, and evaluation draws the same each time.
    """

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
        """Adds float32 `draws` `[B, L]` in [0, 1), and bool `discriminated` `[B, L]`: is no special token."""
        ids = np.stack([row["input_ids"] for row in examples]).astype(np.int64)
        return super().__call__(examples) | {
            "draws": torch.from_numpy(np.stack([self._draws(row) for row in ids])),
            "discriminated": torch.from_numpy(~self._is_special[ids]),
        }

    def _draws(self, ids: np.ndarray) -> np.ndarray:
        rng = row_generator(self.seed, self.epoch, ids, "draws")
        return rng.random(len(ids), dtype=np.float32)
