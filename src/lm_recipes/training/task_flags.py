"""Which flags do all scripts have that give an encoder a head?"""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class TaskFlags:
    """What is trained, how often, and what is left behind."""

    from_scratch: bool = field(default=False, metadata={"help": "Random weights: what is pretraining worth?"})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head only."})
    learning_rates: list[float] | None = field(default=None, metadata={"help": "To choose from, on validation."})
    num_seeds: int = field(default=1, metadata={"help": "Runs with seed, seed+1, ...; the best is saved."})
    merge_adapter: bool = field(default=False, metadata={"help": "Write adapter + base to OUTPUT_DIR/merged."})
