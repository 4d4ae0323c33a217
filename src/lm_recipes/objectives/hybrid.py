"""Causal and masked language modelling in one model: some rows are read from left to right, some in both directions."""

from dataclasses import dataclass

import numpy as np
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives.causal import CausalLanguageModeling
from lm_recipes.objectives.chance import row_generator
from lm_recipes.objectives.isolation import same_piece
from lm_recipes.objectives.masked import MaskedLanguageModeling


def _of_masked(name: str) -> property:
    """An attribute that lives in `masked` alone, so that the two cannot disagree."""
    return property(lambda self: getattr(self.masked, name), lambda self, value: setattr(self.masked, name, value))


@dataclass
class HybridLanguageModeling:
    """Packed blocks to a batch for any `AutoModelForCausalLM` that takes a 4-D mask (GPT-BERT,
    https://arxiv.org/abs/2410.24159).

    A causal row is plain causal modelling. In a masked row every token sees its whole piece, and a hidden token is
    asked at the place before it: what the class's shift makes of unshifted labels. One model and one head do both. The
    first token of a piece has no place before it and is neither hidden nor asked.

    The result generates text as any causal model; with `config.is_causal = False` plain transformers runs it as an
    encoder, to be fine-tuned with a head. Evaluate with `CausalLanguageModeling`, and what it knows of both sides with
    `masked_share=1` and 15 % masks.

    Attributes:
        masked: what is hidden in masked rows; it has the tokenizer, the isolation and the seed. `epoch`, `first_batch`
            and `total_batches` may be set here as well as there.
        masked_share: probability that a row is masked, decided by `(seed, epoch, row)` alone. A causal row has three
            times the labels of one with 30 % masks, so at 3 to 1 both ask about as much. The paper's training code has
            15 masked rows to 1 causal one.
    """

    masked: MaskedLanguageModeling
    masked_share: float = 0.75

    seed = _of_masked("seed")
    epoch = _of_masked("epoch")
    first_batch = _of_masked("first_batch")
    total_batches = _of_masked("total_batches")

    def __post_init__(self) -> None:
        if not 0 <= self.masked_share <= 1:
            raise UserError(f"masked_share is {self.masked_share}; it must lie between 0 and 1")

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to int64 `input_ids`, `labels`, `position_ids` `[B, L]`, and the
        mask `[B, 1, L, L]` as `masked.isolation` makes it. A label is the token at its own place."""
        causal = CausalLanguageModeling(self.masked.tokenizer.pad_token_id)(examples)
        masked = self.masked(examples)  # all rows: a schedule of its ratio counts the batches
        both_ways = torch.tensor([self._is_masked(row["input_ids"]) for row in examples])
        position_ids = causal["position_ids"]
        hidden = both_ways[:, None] & (position_ids > 0)
        earlier = torch.ones(position_ids.shape[1], position_ids.shape[1], dtype=torch.bool).tril()
        visible = same_piece(position_ids.numpy()) & (earlier | both_ways[:, None, None, None])
        return {
            "input_ids": torch.where(hidden, masked["input_ids"], causal["input_ids"]),
            "labels": torch.where(hidden, masked["labels"], causal["labels"]),
            "use_cache": False,
            **self.masked.isolation(position_ids.numpy(), visible),
        }

    def _is_masked(self, ids: np.ndarray) -> bool:
        # A key of its own: drawn from the same one, a row's kind would hang together with which tokens are hidden.
        rng = row_generator(self.seed, self.epoch, ids, "hybrid")
        return rng.random() < self.masked_share
