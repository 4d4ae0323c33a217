"""Which defaults suit continued pretraining?"""

from dataclasses import dataclass, field

from lm_recipes.training.arguments import PretrainingArguments


@dataclass
class AdaptationArguments(PretrainingArguments):
    """`PretrainingArguments` for a model that knows something already: the rate rises again from zero, to a fraction of
    what it is from scratch, and falls to zero (https://arxiv.org/abs/2403.08763).
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW's peak learning rate."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "How often the mixed blocks are read."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Blocks per device and step."})
    per_device_eval_batch_size: int = field(default=4, metadata={"help": "Blocks per device in evaluation."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to look at the domain's validation split."})
