"""How are pieces that share a block kept apart? By a mask, in the form that the model takes."""

from dataclasses import dataclass

import numpy as np
import torch

from lm_recipes.objectives.packing import segments


@dataclass(frozen=True)
class Isolation:
    """The form of mask and positions that a model takes; `models.isolation_of(config, ...)` knows it of each family.

    Attributes:
        local_attention: width of ModernBERT's sliding window, which gets a mask of its own; None: the model has none.
        additive: eager attention adds the mask to its scores (float32); the others take True for "may attend".
        first_position: what positions start at (RoBERTa: 2, by `padding_idx + 1`).
    """

    local_attention: int | None = None
    additive: bool = False
    first_position: int = 0

    def __call__(
        self, position_ids: np.ndarray, mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor | dict[str, torch.Tensor]]:
        """`attention_mask` and `position_ids` of a batch.

        Args:
            position_ids: ints `[B, L]`, from 0 in every piece.
            mask: bool `[B, 1, L, L]`, True: may attend. Default: every token of the same piece.
        """
        mask = same_piece(position_ids) if mask is None else mask
        masks = {"full_attention": mask}
        if self.local_attention is not None:
            index = torch.arange(mask.shape[-1])
            masks["sliding_attention"] = mask & ((index[:, None] - index).abs() <= self.local_attention // 2)
        if self.additive:
            masks = {kind: additive(one) for kind, one in masks.items()}
        return {
            # ModernBERT takes one mask per kind of layer: a bare 4-D mask would switch its sliding window off.
            "attention_mask": masks if self.local_attention is not None else masks["full_attention"],
            "position_ids": torch.from_numpy(position_ids.astype(np.int64) + self.first_position),
        }


def same_piece(position_ids: np.ndarray) -> torch.Tensor:
    """Whether two tokens of a row stand in one piece: `[B, L]` positions to bool `[B, 1, L, L]`."""
    piece = torch.from_numpy(segments(position_ids))
    return (piece[:, :, None] == piece[:, None, :])[:, None]


def additive(mask: torch.Tensor) -> torch.Tensor:
    """A boolean mask (True: may attend) as what eager attention adds to its scores: 0, or float32's lowest number."""
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
