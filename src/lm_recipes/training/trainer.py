"""How does pretraining run? HF Trainer, with the loss where labels are, exact evaluation and its own optimizer."""

import math
import time

import torch
from transformers import Trainer, TrainerCallback

from lm_recipes.launch import UserError
from lm_recipes.models import flops_per_token
from lm_recipes.training import hardware, preflight
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.callbacks import Energy, LossWatch, SafeTrainer, guards
from lm_recipes.training.loss import LanguageModelLoss, WithAsked
from lm_recipes.training.optimizer import MuonAdamW


class LanguageModelTrainer(SafeTrainer, Trainer):
    """Trainer for packed language modelling. On top of the stock one:

    - the loss is `LanguageModelLoss`: nothing is computed where there is no label, and training keeps no logits;
    - evaluation has a collator of its own (fixed 15 % masks whatever training does) and reports exact token-level
      numbers: loss in nats per token, masked or next-token accuracy, bits per byte where `bytes_per_token` is known;
    - collators are told the epoch and how far the run is, so that masks differ between epochs and resume exactly;
    - it saves early, before it evaluates and on SIGTERM, and ends a run whose loss is lost (callbacks.py);
    - logs carry tokens per second, the load of experts, and MFU where the device's peak is known.

    Args:
        eval_collator: as `data_collator`, for evaluation only.
        bytes_per_token: UTF-8 bytes of text per evaluated label, over the whole evaluation set; with it
            `eval_bits_per_byte` is reported (causal models only: MLM losses do not add up to a text's likelihood).
    """

    loss_is_scaled_for_ga = True  # divided by the labels of the whole accumulated batch

    def __init__(self, *, eval_collator, bytes_per_token: float | None = None, **kwargs) -> None:
        super().__init__(compute_metrics=self._token_metrics, **kwargs)
        if self.args.dataloader_persistent_workers:
            raise UserError("--dataloader_persistent_workers: workers would keep the first epoch's masks; leave it out")
        self.training_collator, self.data_collator = self.data_collator, WithAsked(self.data_collator)
        self.eval_collator = WithAsked(eval_collator)
        self.bytes_per_token = bytes_per_token
        self.model_accepts_loss_kwargs = True  # so that the labels of a step are counted
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        self._loss = LanguageModelLoss(self.model, whole, torch.bfloat16 if self.args.bf16 else None)
        self.add_callback(_Progress(self.training_collator))
        self._watch = LossWatch()
        self.energy = Energy(self.args.energy_country) if self.args.energy_country else None
        for callback in [*([self.energy] if self.energy else []), *guards(self._watch)]:
            self.add_callback(callback)
        self._peak = hardware.peak_flops(hardware.device_name(self.args.device))
        self._flops_per_token = None

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
        if self._peak and self._flops_per_token is None:
            asked = preflight.asked_share(self.model, inputs)
            self._flops_per_token = flops_per_token(self.model, inputs["input_ids"].shape[1], asked)
        self._tokens += inputs["input_ids"].numel() * self.args.world_size
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._watch.see(loss, self.state.global_step + 1)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """None at steps whose log nobody writes: without clipping it is only looked at, and costs a pass over all."""
        step, args = self.state.global_step + 1, self.args
        unseen = (
            args.logging_strategy == "steps"
            and step % self.state.logging_steps
            and not (step == 1 and args.logging_first_step)
        )
        return None if grad_norm is None and unseen else super()._get_grad_norm(model, grad_norm)

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
            if self._flops_per_token:
                peak = self._peak * self.args.world_size
                logs["mfu"] = round(logs["tokens_per_second"] * self._flops_per_token / peak, 4)
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
        batches = len(train_dataloader)
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
