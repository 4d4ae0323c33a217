"""What a run learns does not depend on how its batches are split, interrupted or spread over processes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from objectives import OBJECTIVES, command, kill_after, launch, write_data
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
MUON = ("--muon_learning_rate", 0.02)
SPREAD = (*MUON, "--max_steps", 4)  # within an epoch: its last batches do not go evenly into two


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def weights(output: Path) -> dict[str, torch.Tensor]:
    """Of all networks that a finished run leaves behind."""
    files = [file for name in ("", "generator") for file in (output / name).glob("model.safetensors")]
    return {f"{file.relative_to(output)}: {name}": weight for file in files for name, weight in load_file(file).items()}


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def metrics(output: Path) -> dict[str, float]:
    return json.loads((output / "results.json").read_text())["metrics"]


def check_equal(some: Path, other: Path) -> None:
    """To the bit."""
    assert losses(some) == losses(other)
    a, b = weights(some), weights(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_eight_small_batches_accumulated_equal_one_large(objective, data, tmp_path):
    # SGD, whose steps are linear in the gradient: Muon and AdamW normalise, which lifts rounding to visible size.
    # Eight steps go beyond an epoch, whose last batch is not full.
    rate = {"replaced": 0.02, "spans": 0.1}.get(objective, 1.0)  # ELECTRA's loss is weighed by 50; T5 begins steep
    steps = ["--max_steps", 8, "--optim", "sgd", "--learning_rate", rate, "--warmup_steps", 0]
    if objective == "falling":  # it falls with each batch, and small ones are eight times as many: stay where it ends
        steps += ["--mlm_probability", 0.15]
    large, small = tmp_path / "large", tmp_path / "small"
    launch(command(objective, data, large, *steps, "--per_device_train_batch_size", 8))
    accumulated = ("--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 8)
    launch(command(objective, data, small, *steps, *accumulated))
    assert losses(small) == pytest.approx(losses(large), rel=3e-5)
    assert losses(large)[7] < losses(large)[0] - 0.1  # the steps do move the weights
    one, eight = weights(large), weights(small)
    assert max((one[name] - eight[name]).abs().max().item() for name in one) < 3e-5


TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, {path!r})
from objectives import OBJECTIVES, command, launch

for objective in OBJECTIVES:
    flags = (*{flags!r}, "--per_device_train_batch_size", 4)
    launch(command(objective, Path({data!r}), Path({output!r}, objective), *flags))
"""


@pytest.fixture(scope="module")
def two_processes(data, tmp_path_factory) -> Path:
    """Every objective, trained by two processes that start once for all of them."""
    output = tmp_path_factory.mktemp("two")
    script = output / "train.py"
    values = {"path": str(ROOT / "tests"), "flags": SPREAD, "data": str(data), "output": str(output)}
    script.write_text(TWO_PROCESSES.format(**values))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_equal_one(objective, data, two_processes, tmp_path):
    launch(command(objective, data, tmp_path, *SPREAD, "--per_device_train_batch_size", 8))
    one, two = tmp_path, two_processes / objective
    # Muon's bf16 lifts the rounding of sums in another order: in T5, most of all, to 3e-5 of the loss
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert metrics(two) == pytest.approx(metrics(one), rel=2e-4)


@pytest.mark.parametrize(("objective", "workers"), [*((name, 0) for name in OBJECTIVES), ("falling", 2)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(objective, workers, data, tmp_path, caplog):
    steps = (*MUON, "--max_steps", 20, "--save_strategy", "steps", "--save_steps", 16)
    steps += ("--per_device_train_batch_size", 4)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    launch(command(objective, data, whole, *steps))
    shutil.copytree(whole / "checkpoint-16", resumed / "checkpoint-16")
    shutil.copy(whole / "run.json", resumed)
    assert 1 < json.loads((resumed / "checkpoint-16" / "trainer_state.json").read_text())["epoch"] < 2
    launch(command(objective, data, resumed, *steps, "--dataloader_num_workers", workers))
    assert f"resume  {resumed}/checkpoint-16" in caplog.text
    check_equal(whole, resumed)


@pytest.mark.parametrize("objective", ["clm", "token", "replaced", "spans"])  # of each script one
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(objective, data, tmp_path):
    steps = (*MUON, "--max_steps", 40, "--save_strategy", "steps", "--save_steps", 6)
    steps += ("--per_device_train_batch_size", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch(command(objective, data, whole, *steps))
    again = [sys.executable, *command(objective, data, killed, *steps)]
    kill_after(again, killed / "checkpoint-12")
    done = subprocess.run(again, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resume  {killed}/checkpoint-" in done.stderr
    check_equal(whole, killed)
