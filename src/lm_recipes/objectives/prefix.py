"""Prefix language modelling: the rest of a piece is asked of its beginning, which is read in both directions."""

from dataclasses import dataclass, field

import numpy as np
import torch

from lm_recipes.objectives.causal import CausalLanguageModeling
from lm_recipes.objectives.chance import row_generator
from lm_recipes.objectives.isolation import Isolation, same_piece


@dataclass
class PrefixLanguageModeling:
    """Packed blocks to a batch for any `AutoModelForCausalLM` that takes a 4-D mask.

    Of every piece a prefix sees itself in both directions and is not asked; the tokens after it see the prefix and
    each other from left to right, and are (T5, https://arxiv.org/abs/1910.10683, section 3.2). The prefix of a piece
    of n tokens has 1 to n - 1, all as likely, so that something stands before whatever is asked, and the end of every
    piece is asked. About half as many labels as plain causal modelling has.

    The prefixes of a row depend on `(seed, epoch, row)` alone. Evaluate with `CausalLanguageModeling`: a prefix of one
    token is plain causal modelling, and only there losses add up to a text's likelihood.
    """

    pad_token_id: int
    isolation: Isolation = field(default_factory=Isolation)
    seed: int = 0
    epoch: int = 0

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to int64 `input_ids`, `labels`, `position_ids` `[B, L]`, and the
        mask `[B, 1, L, L]` as `isolation` makes it. A label is the token at its own place: the model's class shifts."""
        batch = CausalLanguageModeling(self.pad_token_id)(examples)
        prefix = torch.from_numpy(np.stack([self._prefix(row) for row in examples]))
        position_ids = batch.pop("position_ids").numpy()
        earlier = torch.ones(prefix.shape[1], prefix.shape[1], dtype=torch.bool).tril()
        visible = same_piece(position_ids) & (earlier | prefix[:, None, None, :])
        batch["labels"] = batch["labels"].masked_fill(prefix, -100)
        return batch | self.isolation(position_ids, visible)

    def _prefix(self, row: dict[str, np.ndarray]) -> np.ndarray:
        """Whether a token belongs to the prefix of its piece: bool `[L]`."""
        rng = row_generator(self.seed, self.epoch, row["input_ids"])
        starts = np.flatnonzero(row["position_ids"] == 0)
        lengths = np.diff([*starts, len(row["position_ids"])])
        shown = 1 + rng.integers(np.maximum(lengths - 1, 1))
        return row["position_ids"] < np.repeat(shown, lengths)
