"""Causal language modelling: each token is asked of the tokens before it, inside its own document."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class CausalLanguageModeling:
    """Packed blocks to a batch for any `AutoModelForCausalLM`.

    The first token of a piece is never a label: nothing of its own document stands before it. Padding is never a
    label either. There is no `attention_mask`: transformers' decoders keep pieces apart by `position_ids` only
    when they get none and no cache, hence `use_cache=False` in the batch itself.
    """

    pad_token_id: int

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to int64 `input_ids`, `position_ids`, `labels` `[B, L]`."""
        input_ids = torch.from_numpy(np.stack([row["input_ids"] for row in examples]).astype(np.int64))
        position_ids = torch.from_numpy(np.stack([row["position_ids"] for row in examples]).astype(np.int64))
        labels = input_ids.masked_fill((position_ids == 0) | (input_ids == self.pad_token_id), -100)
        return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels, "use_cache": False}
