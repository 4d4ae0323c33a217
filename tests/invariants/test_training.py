"""What a run learns does not depend on how its batches are split, interrupted or spread over processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TRACKS = ["bert", "gpt"]
MUON = ("--muon_learning_rate", 0.02)


def command(track: str, packed: Path, tokenizer: Path, output: Path, *flags: object) -> list[str]:
    """The real script, small, in fp32."""
    script = ROOT / "recipes" / track / "pretrain.py"
    fixed = f"--data {packed} --tokenizer_name_or_path {tokenizer} --output_dir {output} --size tiny --bf16 False "
    fixed += "--logging_steps 1 --save_strategy no --disable_tqdm True --eval_blocks 4"
    return [str(script), *fixed.split(), *map(str, flags)]


def run(launcher: list[str], arguments: list[str]) -> None:
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(params=TRACKS)
def track(request, tmp_path, packed):
    directory, tokenizer = packed[request.param]
    return lambda output, *flags: command(request.param, directory, tokenizer, tmp_path / output, *flags)


def test_eight_small_batches_accumulated_equal_one_large(track, tmp_path):
    # SGD, whose steps are linear in the gradient: Muon and AdamW normalise, which lifts rounding to visible size
    steps = ("--max_steps", 3, "--optim", "sgd", "--learning_rate", 1.0, "--warmup_steps", 0)
    run([sys.executable], track("large", *steps, "--per_device_train_batch_size", 8))
    run(
        [sys.executable], track("small", *steps, "--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 8)
    )
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), abs=1e-5)
    assert losses(tmp_path / "large")[2] < losses(tmp_path / "large")[0]  # the steps do move the weights
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    assert max((large[name] - small[name]).abs().max().item() for name in large) < 1e-5


def test_two_processes_equal_one(track, tmp_path):
    run([sys.executable], track("one", *MUON, "--max_steps", 4, "--per_device_train_batch_size", 8))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run(torchrun, track("two", *MUON, "--max_steps", 4, "--per_device_train_batch_size", 4))
    # Muon's bf16 lifts the rounding of sums in another order to about 1e-5 of the loss after four steps
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=3e-5)
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["metrics"] for name in ("one", "two"))
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(track, tmp_path):
    flags = (
        *MUON,
        "--max_steps",
        40,
        "--per_device_train_batch_size",
        4,
        "--save_strategy",
        "steps",
        "--save_steps",
        6,
    )
    run([sys.executable], track("whole", *flags))
    output = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, *track("killed", *flags)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    deadline = time.time() + 120
    while not (output / "checkpoint-12" / "trainer_state.json").exists():
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "model.safetensors").exists()
    run([sys.executable], track("killed", *flags))
    whole, resumed = weights(tmp_path / "whole"), weights(output)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(output) == losses(tmp_path / "whole")
