"""Which settings does pretraining add to `TrainingArguments`, and which defaults does it change?"""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class PretrainingArguments(TrainingArguments):
    """`TrainingArguments` with Muon, and with defaults for training from scratch."""

    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of Muon for the hidden weight matrices; `learning_rate` is then AdamW's, for "
            "embeddings, heads and norms. Default: AdamW for everything."
        },
    )
    learning_rate: float = field(default=3e-3, metadata={"help": "AdamW's peak learning rate."})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's second moment decay."})
    lr_scheduler_type: str = field(
        default="warmup_stable_decay",
        metadata={"help": "Schedule; warmup_stable_decay falls to zero over the last `decay_share` of the steps."},
    )
    decay_share: float = field(
        default=0.4, metadata={"help": "Share of the steps over which warmup_stable_decay falls to zero."}
    )
    warmup_steps: float = field(default=0.02, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    seed: int = field(default=0, metadata={"help": "Every random choice of the run derives from this."})
    # The filter would replace a non-finite loss by an average and so hide it (and waits for the device every step).
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide non-finite losses from the logs."})
    # The watch on the loss compares with it, and a run says early that it lives.
    logging_first_step: bool = field(default=True, metadata={"help": "Log the loss of the first step too."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    # Block masks and position ids are no arguments of a `datasets` column: the collator makes them.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Drop columns `forward` does not know."})

    energy_country: str | None = field(
        default=None,
        metadata={
            "help": "ISO code (FRA, USA) of the country whose electricity is used: estimates energy and CO2 of the "
            "training with codecarbon, offline. Default: not measured."
        },
    )

    def schedule(self, total_steps: int) -> None:
        """Fill in the decay length once the number of steps is known (`warmup_stable_decay` needs it)."""
        if self.lr_scheduler_type == "warmup_stable_decay" and not self.lr_scheduler_kwargs:
            decay = max(round(total_steps * self.decay_share), 1)
            self.lr_scheduler_kwargs = {"num_decay_steps": decay, "decay_type": "linear"}
