"""Permutation language modelling: some tokens are asked one after the other in a random order, the rest is seen."""

from dataclasses import dataclass

import numpy as np
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives.chance import row_seed
from lm_recipes.objectives.isolation import same_piece


@dataclass
class PermutationLanguageModeling:
    """Packed blocks to a batch for `XLNetLMHeadModel` (https://arxiv.org/abs/1906.08237).

    transformers' own collator chooses spans of 1 to `max_span_length` tokens and the order in which they are asked
    (the first half of a row before the second). Three things are made good here:

    - it writes the mask token over the targets, so that none would ever be predicted from another (transformers issue
      22435): the ids are put back, XLNet hides a target from itself by `perm_mask`;
    - special tokens then see targets and are seen by all, which would tell: only targets see targets;
    - it draws from torch's global generator: that is seeded for each row, by `(seed, epoch, row)` alone, and put back.

    And no piece sees another: `perm_mask` says so. Special tokens and padding are never targets.
    """

    tokenizer: object
    plm_probability: float = 1 / 6
    max_span_length: int = 5
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        from transformers import DataCollatorForPermutationLanguageModeling

        if self.tokenizer.mask_token_id is None:
            raise UserError(f"{self.tokenizer.name_or_path}: the tokenizer has no mask token; permutation LM needs one")
        if not 0 < self.plm_probability < 1:
            raise UserError(f"plm_probability is {self.plm_probability}; it must lie between 0 and 1")
        self._choose = DataCollatorForPermutationLanguageModeling(
            self.tokenizer, self.plm_probability, self.max_span_length
        )

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to

        int64 `input_ids` and `labels` `[B, L]` (a label stands at its own place, XLNet does not shift), float32
        `perm_mask` `[B, L, L]` (1: row i may not see column j) and `target_mapping` `[B, L, L]` (every place predicts
        itself, so that shapes are static).
        """
        input_ids = torch.from_numpy(np.stack([row["input_ids"] for row in examples]).astype(np.int64))
        if input_ids.shape[1] % 2:
            raise UserError(f"blocks have {input_ids.shape[1]} tokens; permutation LM needs an even number: pack again")
        labels, hidden = (torch.cat(parts) for parts in zip(*(self._permuted(row) for row in input_ids), strict=True))
        target = labels != -100
        apart = ~same_piece(np.stack([row["position_ids"] for row in examples]))[:, 0]
        hidden = hidden | (~target[:, :, None] & target[:, None, :]) | apart
        return {
            "input_ids": input_ids,
            # A target that sees nothing at all would get the mean of everything, other pieces included.
            "labels": labels.masked_fill(hidden.all(-1), -100),
            "perm_mask": hidden.float(),
            "target_mapping": torch.eye(input_ids.shape[1]).expand(len(examples), -1, -1),
            "use_mems": False,
        }

    def _permuted(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels `[1, L]` and what may not be seen, bool `[1, L, L]`, of a row by itself."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(row_seed(self.seed, self.epoch, ids.numpy()))
            batch = self._choose([ids])
        return batch["labels"], batch["perm_mask"].bool()
