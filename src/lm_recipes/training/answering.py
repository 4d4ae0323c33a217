"""What does learning to point at answers minimise, and how is it watched on the way?"""

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy
from transformers.trainer_utils import EvalLoopOutput

from lm_recipes.training.optimizer import FineTuningTrainer


def answer_loss(
    outputs,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy of first and last token in nats, for `Trainer(compute_loss_func=...)`.

    The mean over the labels of the whole step: the same for any number of accumulated batches and processes.
    (transformers' own loss is a mean over a batch, which weighs the rows of a smaller last batch more.)

    Args:
        outputs: `start_logits` and `end_logits`, float `[B, L]` each; padding is among what must not be answered.
        labels: int64 `[B, 2]`, the places of first and last token.
        num_items_in_batch: labels of the step, 2 for each row.
        label_smoothing: in [0, 1).
    """
    logits = (outputs["start_logits"], outputs["end_logits"])
    total = sum(
        cross_entropy(some.float(), places, reduction="sum", label_smoothing=label_smoothing)
        for some, places in zip(logits, labels.T, strict=True)
    )
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


class AnswerTrainer(FineTuningTrainer):
    """Every evaluation also asks the questions behind the windows: a loss over windows does not say how many questions
    are answered, and `--metric_for_best_model f1` can choose by it.

    Args:
        score: (trainer) -> name -> number, called while the model is in the middle of its training.
    """

    def __init__(self, *args, score: Callable[[FineTuningTrainer], dict[str, float]], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.score = score

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in self.score(self).items()})
        return output
