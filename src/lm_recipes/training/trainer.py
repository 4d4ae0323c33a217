"""How does pretraining run? HF Trainer, with exact evaluation, a watchdog on the loss and its own optimizer."""

import math
import time

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import has_length

from lm_recipes.launch import UserError
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.loss import LanguageModelLoss, WithAsked
from lm_recipes.training.optimizer import MuonAdamW


class LanguageModelTrainer(Trainer):
    """Trainer for packed language modelling. On top of the stock one:

    - the loss is `LanguageModelLoss`: nothing is computed where there is no label, and training keeps no logits;
    - evaluation has a collator of its own (fixed 15 % masks whatever training does) and reports exact token-level
      numbers: loss in nats per token, masked or next-token accuracy, bits per byte where `bytes_per_token` is known;
    - collators are told the epoch and how far the run is, so that masks differ between epochs and resume exactly;
    - a non-finite loss stops the run and names the step, without waiting for the device in between;
    - logs carry tokens per second.

    Args:
        eval_collator: as `data_collator`, for evaluation only.
        bytes_per_token: UTF-8 bytes of text per evaluated label, over the whole evaluation set; with it
            `eval_bits_per_byte` is reported (causal models only: MLM losses do not add up to a text's likelihood).
    """

    loss_is_scaled_for_ga = True  # divided by the labels of the whole accumulated batch

    def __init__(self, *, eval_collator, bytes_per_token: float | None = None, **kwargs) -> None:
        super().__init__(compute_metrics=self._token_metrics, **kwargs)
        self.training_collator, self.data_collator = self.data_collator, WithAsked(self.data_collator)
        self.eval_collator = WithAsked(eval_collator)
        self.bytes_per_token = bytes_per_token
        self.model_accepts_loss_kwargs = True  # so that the labels of a step are counted
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        self._loss = LanguageModelLoss(self.model, whole, torch.bfloat16 if self.args.bf16 else None)
        self.add_callback(_Progress(self.training_collator))
        self._watch = _Watchdog()
        self.add_callback(self._watch)

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimizer step sees: batch x accumulation x processes."""
        return self.get_total_train_batch_size(self.args)

    def create_optimizer(self, model=None):
        args: PretrainingArguments = self.args
        if self.optimizer is None and args.muon_learning_rate is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise UserError(
                    "Muon needs whole matrices, not shards; leave --muon_learning_rate unset under FSDP/DeepSpeed"
                )
            self.optimizer = MuonAdamW(
                self.model if model is None else model,
                learning_rate=args.learning_rate,
                muon_learning_rate=args.muon_learning_rate,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
                weight_decay=args.weight_decay,
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        self.args.schedule(num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def train(self, *args, **kwargs):
        self._tokens, self._logged_at = 0, time.perf_counter()
        return super().train(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._tokens += inputs["input_ids"].numel() * self.args.world_size
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._watch.see(loss, self.state.global_step + 1)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean loss over the labels of the whole step: all accumulated batches, all processes."""
        nats, added = self._loss(model, inputs)
        loss = nats / num_items_in_batch + added / self.current_gradient_accumulation_steps
        return loss * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Per-token losses and hits instead of logits: evaluation is exact over any batching and processes."""
        inputs = self._prepare_inputs(inputs)
        nats, right = self._loss.per_token(model, inputs)
        return nats.nanmean(), (nats, right), inputs["labels"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            now = time.perf_counter()
            logs["tokens_per_second"] = round(self._tokens / (now - self._logged_at))
            self._tokens, self._logged_at = 0, now
            if (load := self._loss.expert_load) is not None:  # 1: as many tokens as the mean expert
                logs["expert_load_max"], logs["expert_load_min"] = (
                    round(float(most) * load.shape[1], 2) for most in (load.max(), load.min())
                )
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset=None):
        training_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training_collator

    def _token_metrics(self, prediction) -> dict[str, float]:
        loss, correct = prediction.predictions
        asked = ~(loss != loss)
        nats = float(loss[asked].mean(dtype="float64"))
        metrics = {
            "nats_per_token": nats,
            "accuracy": float(correct[asked].mean()),
            "tokens": int(asked.sum()),
        }
        if self.bytes_per_token is not None:
            metrics["bits_per_byte"] = nats / math.log(2) / self.bytes_per_token
        return metrics


class _Progress(TrainerCallback):
    """Tells the training collator how far the run is: its masks and schedules derive from that."""

    def __init__(self, collator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args, state, control, train_dataloader, **kwargs) -> None:
        accumulation = args.gradient_accumulation_steps
        batches = len(train_dataloader) if has_length(train_dataloader) else state.max_steps * accumulation
        updates = math.ceil(batches / accumulation)  # the last one of an epoch may have fewer batches

        def batches_before(step: int) -> int:
            epochs, steps = divmod(step, updates)
            return epochs * batches + steps * accumulation

        progress = {
            "epoch": state.global_step // updates,
            "first_batch": batches_before(state.global_step),
            "total_batches": batches_before(state.max_steps),
        }
        for name, value in progress.items():
            if hasattr(self.collator, name):
                setattr(self.collator, name, value)


class _Watchdog(TrainerCallback):
    """Remembers the first step whose loss was not finite, on the device; stops the run at the next log or save."""

    def __init__(self) -> None:
        self.first_bad_step = None

    def see(self, loss: torch.Tensor, step: int) -> None:
        if self.first_bad_step is None:
            self.first_bad_step = torch.full((), -1, device=loss.device)
        bad = ~torch.isfinite(loss) & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(bad, step, self.first_bad_step)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if (control.should_save or control.should_log or control.should_evaluate) and self.first_bad_step >= 0:
            raise UserError(
                f"the loss is not finite at step {int(self.first_bad_step)}; lower the learning rate (now "
                f"{args.learning_rate}) or look at the data of that step; {args.output_dir} has the checkpoints before"
            )
