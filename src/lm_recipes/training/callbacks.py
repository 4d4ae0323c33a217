"""What watches over a run? It ends one that has gone wrong, saves early, and obeys a signal without losing a step."""

import importlib.util
import logging
import math
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import torch
from torch import distributed
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from lm_recipes.launch import UserError
from lm_recipes.training.sparsity import KeepZeros

logger = logging.getLogger(__name__)

SUSTAINED = 10  # logs
FIRST_CHECKPOINT = 50  # steps
SAME_SIGNAL = 5.0  # seconds


def guards(watch: "LossWatch | None" = None) -> list[TrainerCallback]:
    """The callbacks that every training run has, in an order that matters: what saves, what looks at it, what ends.

    Args:
        watch: one that somebody else holds, to tell it each step's loss.
    """
    return [EarlyCheckpoint(), Pace(), watch or LossWatch(), SafeStop(), KeepZeros()]


class Diverged(UserError):
    """The training itself went wrong: a lower learning rate may mend it."""


class LossWatch(TrainerCallback):
    """Ends a run whose loss or gradient is not finite, or whose loss has exploded, before anything is saved of it.

    It looks when the loss is logged, which is the only time Trainer waits for the device, and has it logged at every
    save. With `see` it also knows at which step the loss was first not finite.
    """

    def __init__(self) -> None:
        self.first_bad_step = None  # on the device; the largest int64 while there is none

    def see(self, loss: torch.Tensor, step: int) -> None:
        """Remember `step` if `loss` is the first that is not finite. Does not wait for the device."""
        if self.first_bad_step is None:
            self.first_bad_step = torch.full((), torch.iinfo(torch.int64).max, device=loss.device)
        earlier = self.first_bad_step
        self.first_bad_step = torch.where(torch.isfinite(loss), earlier, earlier.clamp(max=step))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_log |= control.should_save  # and a resumed run logs what an uninterrupted one does

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        control.should_log |= control.should_save

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in (logs or {}):
            return
        mend = f"lower the learning rate (now {args.learning_rate}) or look at the data"
        kept = f"{args.output_dir} has the checkpoints before"
        if not math.isfinite(logs["loss"]):
            raise Diverged(f"the loss is not finite at step {self._step(state.global_step)}; {mend} of it; {kept}")
        # A step with such a gradient has spoilt the weights; under fp16 its loss scaling skips the step instead.
        if not args.fp16 and not math.isfinite(float(logs.get("grad_norm", 0.0))):
            raise Diverged(f"the gradient is not finite at step {state.global_step}; {mend} of that step; {kept}")
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        if exploded(losses):
            raise Diverged(
                f"the loss has exploded: {min(losses):.2f} at best, {losses[-1]:.2f} at step {state.global_step}; "
                f"{mend}; {kept}"
            )

    def _step(self, now: int) -> int:
        """The first step with a bad loss in any process: the logged loss is a mean, so all of them ask."""
        if self.first_bad_step is None:
            return now
        if distributed.is_initialized():
            distributed.all_reduce(self.first_bad_step, distributed.ReduceOp.MIN)
        return min(int(self.first_bad_step), now)


def exploded(losses: list[float]) -> bool:
    """Whether a run has lost for good what it had learnt.

    True when each of the last 10 logged losses is above the best one before them by three quarters of what had been
    gained since the first, and by a tenth of the first. A spike does not last that long, single batches scatter by
    less, and a schedule of the objective (fewer masks, another mix) moves the loss by less.

    Args:
        losses: logged so far, of all of the run; the first at the first step, ideally (`logging_first_step`).
    """
    if len(losses) <= SUSTAINED:
        return False
    first, best = losses[0], min(losses[:-SUSTAINED])
    return min(losses[-SUSTAINED:]) > best + max(0.75 * (first - best), 0.1 * first)


class EarlyCheckpoint(TrainerCallback):
    """A first checkpoint after 50 steps: a run that cannot be saved fails in minutes. `save_total_limit` drops it."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        by_steps = args.save_strategy == SaveStrategy.STEPS and state.save_steps > FIRST_CHECKPOINT
        by_epochs = args.save_strategy == SaveStrategy.EPOCH and state.epoch < 1
        if state.global_step == FIRST_CHECKPOINT and (by_steps or by_epochs):
            control.should_save = True


class SafeTrainer:
    """For a Trainer to inherit from.

    A step that is to be saved and evaluated is saved first, as evaluation may fail. Evaluation leaves the random
    numbers of training alone, so that the saved ones are those that training goes on with. Where evaluation decides
    which checkpoint is the best (`metric_for_best_model`), it stays first.

    A run that is resumed at its last step takes no step more (Trainer takes one before it looks at `max_steps`).
    """

    def _evaluate(self, trial, ignore_keys_for_eval, skip_scheduler=False):
        save = self.control.should_save and self.args.metric_for_best_model is None
        if save:
            self._save_checkpoint(self.model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
            metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        if save and self.args.should_save:  # the history of a run that goes on from here has the evaluation too
            name = Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}", "trainer_state.json")
            self.state.save_to_json(f"{name}.new")
            os.replace(f"{name}.new", name)
        return metrics

    def _run_epoch(self, **kwargs) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**kwargs)
        else:
            self.control.should_training_stop = True


class SafeStop(TrainerCallback):
    """SIGTERM or Ctrl-C: finish the step, save it, end with 128 + the signal's number (143, 130).

    Not 0: what made the model must not be taken for finished by make or a shell's `&&`. The same command goes on where
    it stopped. A signal that comes again after 5 seconds ends the run at once; sooner it is the launcher passing on
    what the process group had already been sent.

    All processes stop after the same step, also if only one got the signal: in each step they exchange what they have
    heard, on the CPU, and act on it one step later, so that nobody waits.

    transformers' `enable_jit_checkpoint` waits three seconds, lets each process choose its own step, saves between the
    forward pass and the update, and then returns from `train` as if the model were finished.
    """

    def __init__(self) -> None:
        self.heard, self.heard_at = 0, 0.0
        self.stopping = 0
        self._handlers, self._group, self._exchange = {}, None, None

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        loader = getattr(train_dataloader, "base_dataloader", train_dataloader)  # within accelerate's
        if getattr(loader, "num_workers", 0):  # a signal to the process group must not kill them in mid-step
            loader.worker_init_fn = partial(_deaf, loader.worker_init_fn)
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            self._group = distributed.new_group(backend="gloo")

    def _hear(self, number: int, frame) -> None:
        if self.heard and time.monotonic() - self.heard_at > SAME_SIGNAL:
            self._restore_handlers()
            signal.raise_signal(number)
        elif not self.heard:
            self.heard, self.heard_at = number, time.monotonic()
            logger.warning("%s: stopping after this step; again to end at once", signal.Signals(number).name)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.stopping = self._agreed()
        if self.stopping:
            control.should_training_stop, control.should_evaluate = True, False
            control.should_save = control.should_log = args.save_strategy != SaveStrategy.NO

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        if self.stopping:
            control.should_save = control.should_evaluate = control.should_log = False

    def on_save(self, args, state, control, **kwargs) -> None:
        if self.stopping:  # or Trainer would go back to the best checkpoint and delete this one
            state.best_model_checkpoint = None

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self._restore_handlers()
        if self._exchange is not None:
            self._exchange[0].wait()
        if not self.stopping:
            return
        saved = f"{args.output_dir}/checkpoint-{state.global_step} is complete; the same command goes on from there"
        saved = "nothing is saved (--save_strategy no)" if args.save_strategy == SaveStrategy.NO else saved
        logger.warning("stopped by %s after step %d: %s", signal.Signals(self.stopping).name, state.global_step, saved)
        raise SystemExit(128 + self.stopping)

    def _agreed(self) -> int:
        """The signal that some process had heard one step ago, the same in all of them; 0: none."""
        if self._group is None:
            return self.heard
        agreed = 0
        if self._exchange is not None:
            work, heard = self._exchange
            work.wait()
            agreed = int(heard)
        heard = torch.tensor(self.heard)
        self._exchange = distributed.all_reduce(heard, distributed.ReduceOp.MAX, self._group, async_op=True), heard
        return agreed

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _deaf(init, worker: int) -> None:
    """Makes a loader's worker end when its trainer says so, and not when a signal is sent to everyone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    if init is not None:
        init(worker)


def _end_with_the_trainer() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class Pace(TrainerCallback):
    """Says once when the run will end: at its second log, as the first one includes compiling and reading in."""

    def __init__(self) -> None:
        self.first = None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.first = None

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in (logs or {}) or self.first is False:
            return
        if self.first is None:
            self.first = time.time(), state.global_step
            return
        since, step = self.first
        seconds = (time.time() - since) / max(state.global_step - step, 1)
        left = seconds * (state.max_steps - state.global_step)
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + left))
        logger.info("pace    %.3g s per step, evaluation included: it ends about %s, in %s", seconds, end, _words(left))
        self.first = False


def _words(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


class Energy(TrainerCallback):
    """Electricity of the training and the CO2 of making it, as codecarbon estimates them for this machine.

    Its offline tracker: the one behind `--report_to codecarbon` asks web services where the machine stands.

    Args:
        country: ISO 3166 code (FRA, DEU, USA) of the country whose electricity is used.

    Attributes:
        measured: after training `train_kwh` and `train_kg_co2`, of the whole machine that the main process runs on.
    """

    def __init__(self, country: str) -> None:
        if importlib.util.find_spec("codecarbon") is None:
            raise UserError("--energy_country needs codecarbon: pip install -e '.[energy]'")
        import pycountry

        if pycountry.countries.get(alpha_3=country) is None:
            raise UserError(f"--energy_country {country}: no ISO 3166 code of three letters, such as FRA or USA")
        self.country, self.measured, self._tracker = country, {}, None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        from codecarbon import OfflineEmissionsTracker

        if state.is_world_process_zero:
            self._tracker = OfflineEmissionsTracker(
                country_iso_code=self.country, save_to_file=False, log_level="error", allow_multiple_runs=True
            )
            self._tracker.start()

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self._tracker is not None:
            kg, kwh = self._tracker.stop(), self._tracker.final_emissions_data.energy_consumed
            self.measured = {"train_kwh": kwh, "train_kg_co2": kg}
            logger.info("energy  about %.3g kWh, %.3g kg of CO2 (%s)", kwh, kg, self.country)
