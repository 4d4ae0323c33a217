"""What watches over a run: it is ended when it goes wrong, saved early and before evaluation, and measured by flag."""

import importlib.util
import json
import logging
import math
import shutil
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_models import gpt
from transformers import Trainer, TrainerCallback, TrainingArguments

from lm_recipes.launch import UserError
from lm_recipes.training import callbacks
from lm_recipes.training.callbacks import EarlyCheckpoint, Energy, LossWatch, SafeStop, SafeTrainer, exploded, guards

# Losses as logged by runs of the quickstart's configs: GPT and BERT every 20 steps, a classifier, a chat model.
CURVES = {
    "gpt": [7.60, 6.06, 5.67, 5.48, 5.31, 5.24, 5.18, 5.12, 5.06, 5.02, 5.00, 4.93, 4.91, 4.87, 4.85, 4.80, 4.64, 4.57],
    "bert": [7.57, 6.82, 6.72, 6.65, 6.60, 6.52, 6.41, 6.29, 6.14, 5.99, 5.88, 5.70, 5.61, 5.40, 5.13, 5.13, 5.02],
    "classifier": [0.648, 0.467, 0.487, 0.447, 0.383],
    "chat": [6.14, 5.65, 4.96, 4.61, 4.39, 4.21, 4.10, 3.97, 3.94, 3.65, 3.60, 3.67, 3.39, 3.22, 3.23, 3.29],
}


class Guarded(SafeTrainer, Trainer):
    pass


def trainer(output, *watchers: TrainerCallback, kind: type[Trainer] = Guarded, **settings) -> Trainer:
    """A tiny Llama with dropout on rows of random ids; on the CPU."""
    generator = torch.Generator().manual_seed(0)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(320, (64, 16), generator=generator)]
    model = gpt("llama")
    model.config.attention_dropout = 0.3
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    fixed = {
        "per_device_train_batch_size": 4, "max_steps": 8, "logging_steps": 100, "logging_nan_inf_filter": False,
        "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": "none", "learning_rate": 1e-3,
    }  # fmt: skip
    args = TrainingArguments(output_dir=str(output), **fixed | settings)
    return kind(model, args, train_dataset=rows, eval_dataset=rows[:8], callbacks=list(watchers))


def losses(directory) -> list[tuple[int, float]]:
    history = json.loads((directory / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry.get("loss", entry.get("eval_loss"))) for entry in history]


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_runs_that_learn_raise_no_alarm(curve):
    assert not any(exploded(curve[:end]) for end in range(len(curve) + 1))


@given(
    start=st.floats(0.5, 12),
    scatter=st.lists(st.floats(-0.15, 0.15), min_size=40, max_size=40),
    spike_at=st.integers(10, 30),
    spike=st.integers(0, 9),
)
def test_neither_scatter_nor_a_spike_of_nine_logs_is_an_explosion(start, scatter, spike_at, spike):
    curve = [start * (0.3 + 0.7 * math.exp(-number / 8) + wobble) for number, wobble in enumerate(scatter)]
    curve[spike_at : spike_at + spike] = [10 * start] * spike
    assert not any(exploded(curve[:end]) for end in range(len(curve) + 1))


@pytest.mark.parametrize("level", [7.5, 12.0, 1e6])
def test_a_loss_that_goes_up_and_stays_there_is_an_explosion_after_ten_logs(level):
    curve = CURVES["gpt"] + [level] * 9
    assert not exploded(curve)
    assert exploded([*curve, level])


def test_three_quarters_of_the_gain_must_be_lost():
    assert not exploded(CURVES["gpt"] + [6.5] * 20)
    assert exploded(CURVES["gpt"] + [7.0] * 20)


def test_a_rate_that_is_far_too_high_ends_a_real_run_before_its_checkpoint(tmp_path):
    run = trainer(tmp_path, *guards(), max_steps=60, logging_steps=1, learning_rate=30.0, lr_scheduler_type="constant",
                  save_strategy="steps", save_steps=60, max_grad_norm=0.0)  # fmt: skip
    with pytest.raises(UserError, match=r"the loss has exploded: \d+\.\d\d at best, .* lower the learning rate"):
        run.train()
    assert not list(tmp_path.glob("checkpoint-*"))


class Poisoned(Guarded):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss * math.nan if self.state.global_step == 2 else loss


class SpoilsTheGradientAtStep4(TrainerCallback):
    """The loss of the step is fine; what it does to the weights is not."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            model.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)


def test_a_loss_that_is_not_finite_is_noticed_before_it_is_saved_though_nothing_was_to_be_logged(tmp_path):
    run = trainer(tmp_path, *guards(), kind=Poisoned, save_strategy="steps", save_steps=4)
    with pytest.raises(UserError, match=r"not finite at step 4; lower the learning rate \(now 0.001\)"):
        run.train()
    assert run.state.global_step == 4
    assert not list(tmp_path.glob("checkpoint-*"))


def test_weights_that_the_last_step_spoilt_are_not_saved(tmp_path):
    run = trainer(tmp_path, SpoilsTheGradientAtStep4(), *guards(), save_strategy="steps", save_steps=4)
    with pytest.raises(UserError, match="the gradient is not finite at step 4"):
        run.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_watch_that_sees_every_loss_names_the_first_bad_step():
    watch = LossWatch()
    for step, loss in enumerate([2.0, 1.0, math.inf, 1.0, math.nan], start=1):
        watch.see(torch.tensor(loss), step)
    assert watch._step(now=5) == 3


def test_a_first_checkpoint_is_written_early_and_makes_room_for_later_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "FIRST_CHECKPOINT", 2)
    kept = []

    class Looks(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            kept.append(sorted(path.name for path in tmp_path.glob("checkpoint-*")))

    trainer(tmp_path, EarlyCheckpoint(), Looks(), save_strategy="steps", save_steps=6, save_total_limit=1).train()
    assert kept == [["checkpoint-2"], ["checkpoint-6"], ["checkpoint-8"]]
    shutil.rmtree(tmp_path)
    kept.clear()
    monkeypatch.setattr(callbacks, "FIRST_CHECKPOINT", 3)
    trainer(tmp_path, EarlyCheckpoint(), Looks(), save_strategy="steps", save_steps=2, max_steps=4).train()
    assert [names[-1] for names in kept] == ["checkpoint-2", "checkpoint-4"]  # the first was early enough
    trainer(tmp_path / "no", EarlyCheckpoint(), Looks(), save_strategy="no", max_steps=3).train()
    assert len(kept) == 2


def test_a_crash_in_evaluation_loses_nothing(tmp_path):
    class EvaluationFails(Guarded):
        def evaluation_loop(self, *args, **kwargs):
            raise RuntimeError("out of memory")

    settings = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    with pytest.raises(RuntimeError):
        trainer(tmp_path, *guards(), kind=EvaluationFails, **settings).train()
    assert (tmp_path / "checkpoint-4" / "trainer_state.json").exists()
    # going on from there ends with the weights of a run whose evaluation worked: with dropout, after a saved step
    trainer(tmp_path, *guards(), **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    trainer(tmp_path / "whole", *guards(), **settings).train()
    resumed, whole = (load_file(path / "checkpoint-8" / "model.safetensors") for path in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_run_resumed_after_its_evaluation_has_the_history_and_the_weights_of_an_uninterrupted_one(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer(tmp_path / "whole", *guards(), **settings).train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "again" / "checkpoint-4")
    trainer(tmp_path / "again", *guards(), **settings).train(
        resume_from_checkpoint=str(tmp_path / "again/checkpoint-4")
    )
    whole, again = (tmp_path / name / "checkpoint-8" for name in ("whole", "again"))
    assert losses(again) == losses(whole)
    assert [step for step, _ in losses(whole)] == [4, 4, 8, 8]  # a save logs its loss; both are evaluated
    a, b = load_file(whole / "model.safetensors"), load_file(again / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_evaluating_changes_nothing_in_training(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 8}
    trainer(tmp_path / "without", **settings).train()
    trainer(tmp_path / "with", eval_strategy="steps", eval_steps=2, **settings).train()
    a, b = (load_file(tmp_path / name / "checkpoint-8" / "model.safetensors") for name in ("without", "with"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_where_evaluation_chooses_the_best_checkpoint_it_comes_first(tmp_path):
    run = trainer(tmp_path, *guards(), eval_strategy="steps", eval_steps=4, save_strategy="steps", save_steps=4,
                  load_best_model_at_end=True)  # fmt: skip
    run.train()
    evaluated = {entry["eval_loss"]: entry["step"] for entry in run.state.log_history if "eval_loss" in entry}
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{evaluated[min(evaluated)]}")


def test_a_run_that_was_saved_at_its_last_step_takes_no_step_more(tmp_path):
    settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 5}  # in the middle of an epoch
    trainer(tmp_path, *guards(), **settings).train()
    again = trainer(tmp_path, *guards(), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert again.state.global_step == 5
    saved = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in again.model.state_dict().items() if name in saved)


class Told(TrainerCallback):
    """Gets a signal in the middle of its third step, as from outside."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 2:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_signal_ends_the_run_after_the_step_saved_and_with_128_and_its_number(number, strategy, tmp_path, caplog):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run = trainer(tmp_path, Told(number), *guards(), save_strategy=strategy, save_steps=100, eval_strategy=strategy,
                  eval_steps=100, save_total_limit=1)  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        run.train()
    assert stopped.value.code == 128 + number
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert caplog.messages[-1].startswith(f"stopped by {number.name} after step 3: {tmp_path}/checkpoint-3 is complete")
    assert not any("eval_loss" in entry for entry in run.state.log_history)  # no time is left for that
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_a_stopped_run_that_keeps_its_best_checkpoint_only_keeps_the_newest_too(tmp_path):
    class ToldAtStep6(Told):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 5:
                signal.raise_signal(self.number)

    with pytest.raises(SystemExit):
        trainer(tmp_path, ToldAtStep6(signal.SIGTERM), *guards(), save_strategy="steps", save_steps=2,
                eval_strategy="steps", eval_steps=2, save_total_limit=1, load_best_model_at_end=True,
                metric_for_best_model="loss", learning_rate=0.0).train()  # fmt: skip
    assert (tmp_path / "checkpoint-6" / "trainer_state.json").exists()


def test_without_checkpoints_a_stop_saves_nothing_and_says_so(tmp_path, caplog):
    with pytest.raises(SystemExit):
        trainer(tmp_path, Told(signal.SIGTERM), *guards(), save_strategy="no").train()
    assert caplog.messages[-1] == "stopped by SIGTERM after step 3: nothing is saved (--save_strategy no)"
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_signal_passed_on_twice_is_one_and_a_later_one_ends_the_run_at_once(monkeypatch):
    stop = SafeStop()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stop.on_train_begin(None, None, None)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as torchrun passes on what the terminal had sent to all
        assert stop.heard == signal.SIGINT
        monkeypatch.setattr(callbacks, "SAME_SIGNAL", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop._restore_handlers()
        signal.signal(signal.SIGINT, before)


def test_the_end_of_the_run_is_announced_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="lm_recipes"):
        trainer(tmp_path, *guards(), logging_steps=2).train()
    (line,) = [message for message in caplog.messages if message.startswith("pace")]
    assert "s per step" in line
    assert line.endswith(" s")  # six more of these take seconds


def test_energy_is_measured_offline_or_refused_in_one_line(tmp_path, monkeypatch):
    if importlib.util.find_spec("codecarbon") is None:
        with pytest.raises(UserError, match=r"pip install -e '.\[energy\]'"):
            Energy("FRA")
        return
    import socket

    def refuse(*args):
        raise AssertionError("a connection")

    with pytest.raises(UserError, match="no ISO 3166 code"):
        Energy("France")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    energy = Energy("FRA")
    trainer(tmp_path, energy, max_steps=2).train()
    assert 0 < energy.measured["train_kwh"] < 0.1
    assert 0 < energy.measured["train_kg_co2"] < energy.measured["train_kwh"]
