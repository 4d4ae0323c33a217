"""Which defaults suit fine-tuning, what does it minimise, and how is one run chosen out of several?"""

import copy
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy

from lm_recipes.launch import UserError
from lm_recipes.sources import resolve_model
from lm_recipes.sources.labelled import MULTI, REGRESSION
from lm_recipes.training.callbacks import Diverged, guards
from lm_recipes.training.hub import refuse_push_without_login
from lm_recipes.training.preflight import check_arguments

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)


@dataclass
class FineTuningArguments(TrainingArguments):
    """`TrainingArguments` with defaults for a classification head on a pretrained encoder, and early stopping."""

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device in evaluation."})
    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW's peak learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay."})
    embedding_rate_factor: float = field(
        default=1.0, metadata={"help": "Times --learning_rate, for input embeddings: about 5 after little pretraining."}
    )
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "Batches of rows of like length: less padding."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to look at the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to write a checkpoint."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep."})
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations without a better --metric_for_best_model (default: the loss on "
            "validation), and keep the best checkpoint (--load_best_model_at_end)."
        },
    )
    # The filter would replace a non-finite loss by an average and so hide it.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide non-finite losses from the logs."})
    seed: int = field(default=0, metadata={"help": "Every random choice of the run derives from this."})

    def __post_init__(self) -> None:
        if self.embedding_rate_factor < 0:
            raise ValueError(f"--embedding_rate_factor {self.embedding_rate_factor:g}: must be 0 (frozen) or more")
        if self.early_stopping_patience is not None:
            if self.early_stopping_patience < 1:
                raise ValueError(f"--early_stopping_patience {self.early_stopping_patience}: must be at least 1")
            self.load_best_model_at_end = True
        super().__post_init__()
        if self.load_best_model_at_end and self.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "--load_best_model_at_end, --early_stopping_patience: the best by which measure? Add "
                "--eval_strategy epoch --save_strategy epoch"
            )


def base_model(name: str | None, args: TrainingArguments) -> str:
    """The model that is to be fine-tuned, as `from_pretrained` takes it, after all that can be refused before any work.

    Raises:
        UserError: no model is named, or as `refuse_push_without_login` and `check_arguments` do.
    """
    refuse_push_without_login(args)
    check_arguments(args)
    if not name:
        raise UserError("--model_name_or_path: which model? A directory, a Hub id, demo:minilm or demo:smollm2")
    return resolve_model(name)


def loading_options(model_args) -> dict[str, object]:
    """Of the flags for a model (`adapters.AdapterArguments`) what `from_pretrained` takes."""
    from lm_recipes.models.quantization import quantization

    return {
        "revision": model_args.model_revision,
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        "quantization_config": quantization(model_args),
    }


def watchers(args: FineTuningArguments) -> list[TrainerCallback]:
    """The callbacks of a fine-tuning: the guards of every run and, if asked for, early stopping."""
    patience = args.early_stopping_patience
    return [*guards(), *([EarlyStoppingCallback(early_stopping_patience=patience)] if patience else [])]


def for_seed(args: TrainingArguments, seed: int, num_runs: int) -> TrainingArguments:
    """`args` for one of several runs. Those are short and not resumed, and their checkpoints would mix: none are
    written, or, where the best of them is asked for, into a directory that `fit` removes.
    """
    args = copy.copy(args)
    args.seed = seed
    if num_runs > 1 and args.load_best_model_at_end:
        args.hub_model_id = args.hub_model_id or (Path(args.output_dir).absolute().name if args.push_to_hub else None)
        args.output_dir = str(Path(args.output_dir, f".seed-{seed}"))
        args.hub_strategy = HubStrategy.END  # checkpoints of one of several runs are nobody's model
    elif num_runs > 1:
        args.save_strategy = SaveStrategy.NO
    return args


def fit(trainer: "Trainer", output_dir: str, checkpoint: str | None) -> float:
    """Train, and come back from a directory that `for_seed` chose to `output_dir`. Returns the seconds it took."""
    own = trainer.args.output_dir
    if own != output_dir and trainer.is_world_process_zero():
        shutil.rmtree(own, ignore_errors=True)  # of a run that was killed
    seconds = trainer.train(resume_from_checkpoint=checkpoint).metrics["train_runtime"]
    if own != output_dir:
        trainer.args.output_dir, trainer.state.best_model_checkpoint = output_dir, None
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            shutil.rmtree(own, ignore_errors=True)
    return seconds


def best_rate(
    train: Callable[[int, float], tuple], rates: Sequence[float], seeds: Sequence[int]
) -> tuple[float, dict[str, float], dict[int, tuple]]:
    """The learning rate that is best on validation with the first seed, and runs of that rate with all seeds.

    A rate whose training diverges is out; that of others has cost time and is not lost.

    Args:
        train: (seed, rate) -> a run, whose first entry is what it reaches on validation: the higher the better.

    Returns:
        The rate, the score of each rate tried, and seed -> run.

    Raises:
        UserError: all rates diverged, or a later seed with the best of them.
    """
    tried, best, runs = {}, None, {}
    for rate in rates:
        try:
            run = train(seeds[0], rate)
        except Diverged as error:
            if rate == rates[-1] and best is None:
                raise
            logger.warning("learning rate %g is out: %s", rate, error)
            continue
        tried[f"{rate:g}"] = run[0]
        if best is None or run[0] > runs[seeds[0]][0]:  # the others' models are let go: memory does not grow with rates
            best, runs = rate, {seeds[0]: run}
    return best, tried, runs | {seed: train(seed, best) for seed in seeds[1:]}


def class_weights(how: str | None, labels: Sequence, problem_type: str) -> torch.Tensor | None:
    """How much a row of each class counts in the loss, float32 `[C]`; None: all alike.

    "balanced" weighs a class by the inverse of its number of training rows, so that all classes weigh the same and
    the mean weight of a row is 1 (King and Zeng, Political Analysis 2001). With several classes a row: the inverse odds
    of a class, as `binary_cross_entropy_with_logits(pos_weight=...)` takes them.

    Args:
        labels: of the training rows, as `sources.labelled` numbers them.

    Raises:
        UserError: weights of another name, or of a regression.
    """
    if how is None:
        return None
    if how != "balanced" or problem_type == REGRESSION:
        raise UserError(f"--class_weights {how}: must be balanced, or left out; a regression has no classes")
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.asarray(labels)
    if problem_type == MULTI:
        return torch.tensor(np.maximum((1 - labels).sum(0), 1) / labels.sum(0), dtype=torch.float32)
    return torch.tensor(compute_class_weight("balanced", classes=np.unique(labels), y=labels), dtype=torch.float32)


@dataclass(frozen=True)
class ClassificationLoss:
    """Cross-entropy, binary cross-entropy or squared error, for `Trainer(compute_loss_func=...)`.

    The mean over the labels of the whole step: the same for any number of accumulated batches and processes. (The
    losses inside transformers' BERT classifiers are means over a batch, and Trainer adds them up as if they were not.)

    Args:
        problem_type: one of `sources.labelled.PROBLEMS`.
        weights: float32 `[C]`, see `class_weights`. The sum of weighted losses is divided by the number of labels.
        label_smoothing: of cross-entropy, in [0, 1).
    """

    problem_type: str
    weights: torch.Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None):
        """Scalar loss of logits `[B, C]` and labels: int `[B]`, float `[B, C]` or float `[B]`."""
        logits = outputs["logits"].float()
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.problem_type == REGRESSION:
            total = functional.mse_loss(logits.squeeze(-1), labels.float(), reduction="sum")
        elif self.problem_type == MULTI:
            total = functional.binary_cross_entropy_with_logits(
                logits, labels.float(), pos_weight=weights, reduction="sum"
            )
        else:
            total = functional.cross_entropy(
                logits, labels, weight=weights, reduction="sum", label_smoothing=self.label_smoothing
            )
        return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)
