"""Which defaults suit fine-tuning?"""

import copy
from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.trainer_utils import SaveStrategy


@dataclass
class FineTuningArguments(TrainingArguments):
    """`TrainingArguments` with defaults for a classification head on a pretrained encoder."""

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device in evaluation."})
    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW's peak learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's weight decay."})
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "Batches of rows of like length: less padding."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to look at the validation split."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to write a checkpoint."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep."})
    # The filter would replace a non-finite loss by an average and so hide it.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide non-finite losses from the logs."})
    seed: int = field(default=0, metadata={"help": "Every random choice of the run derives from this."})


def for_seed(args: TrainingArguments, seed: int, num_seeds: int) -> TrainingArguments:
    """`args` for one of several seeds; several are short runs, and their checkpoints would mix: none are written."""
    args = copy.copy(args)
    args.seed = seed
    if num_seeds > 1:
        args.save_strategy, args.load_best_model_at_end = SaveStrategy.NO, False
    return args
