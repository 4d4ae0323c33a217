"""What does a tagger minimise?"""

import torch
from torch.nn import functional


def tagging_loss(
    outputs,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy of the labelled tokens of a whole step, for `Trainer(compute_loss_func=...)`.

    transformers' token classifiers average over the labels of one batch, and Trainer then averages those averages: with
    accumulation, or on several processes, words of batches with few words would count for more.

    Args:
        outputs: with `logits`, float `[B, L, C]`. labels: int64 `[B, L]`, -100 where there is none.
        num_items_in_batch: labels in all batches of the step; None: those of this batch.
        label_smoothing: in [0, 1).
    """
    logits = outputs["logits"].float().flatten(0, 1)
    total = functional.cross_entropy(
        logits, labels.flatten(), ignore_index=-100, reduction="sum", label_smoothing=label_smoothing
    )
    items = labels.ne(-100).sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    return total / items.to(total.device).clamp(min=1)  # rows of words without tokens have no label at all
