"""A run that is told to stop, as a user, a scheduler or a launcher does it, loses nothing: the same command goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def command(packed, output: Path, *flags: object, launcher: list[str] = ()) -> list[str]:
    """The real script, for a few seconds."""
    data, tokenizer = packed["gpt"]
    fixed = f"--data {data} --tokenizer_name_or_path {tokenizer} --output_dir {output} --size tiny --bf16 False "
    fixed += "--max_steps 30 --per_device_train_batch_size 2 --save_steps 1000 --save_total_limit 2 --logging_steps 2 "
    fixed += "--eval_strategy no --eval_blocks 4 --muon_learning_rate 0.02 --report_to none"
    script = str(ROOT / "recipes" / "gpt" / "pretrain.py")
    return [sys.executable, *launcher, script, *fixed.split(), *map(str, flags)]


def start(arguments: list[str]) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment,
        start_new_session=True,
    )  # fmt: skip


def until(process: subprocess.Popen, sign: str) -> str:
    """What the process has said until `sign` came."""
    said = ""
    while sign not in said:
        line = process.stdout.readline()
        assert line, f"ended without {sign!r}:\n{said[-3000:]}"
        said += line
    return said


def finish(arguments: list[str]) -> str:
    process = start(arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    return said


def checkpoints(output: Path) -> list[int]:
    return sorted(int(path.parent.name.split("-")[1]) for path in output.glob("checkpoint-*/trainer_state.json"))


def test_sigterm_saves_the_step_and_the_same_command_ends_with_the_weights_of_an_uninterrupted_run(packed, tmp_path):
    output, whole = tmp_path / "model", tmp_path / "whole"
    finish(command(packed, whole))
    arguments = command(packed, output, "--dataloader_num_workers", 1)
    process = start(arguments)
    until(process, "'loss'")  # of the first step
    until(process, "'loss'")
    os.killpg(process.pid, signal.SIGTERM)  # the loader's worker gets it too, as from a batch system
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said[-3000:]
    (step,) = checkpoints(output)
    assert 2 <= step < 30
    assert f"stopped by SIGTERM after step {step}: {output}/checkpoint-{step} is complete; the same command" in said
    assert not (output / "model.safetensors").exists()  # a stopped run is not a finished one
    again = finish(arguments)
    assert f"resume  {output}/checkpoint-{step}" in again
    a, b = load_file(output / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step_though_one_of_them_is_told(packed, tmp_path):
    output = tmp_path / "model"
    process = start(command(packed, output, launcher=TORCHRUN))
    until(process, "'loss'")
    until(process, "'loss'")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(max(map(int, children)), signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (step,) = checkpoints(output)
    assert len(list((output / f"checkpoint-{step}").glob("rng_state_*.pth"))) == 2  # both were there
    assert json.loads((output / f"checkpoint-{step}" / "trainer_state.json").read_text())["global_step"] == step
    assert "stopped by SIGTERM" in said
