"""Each file of accelerate_configs/ means to accelerate's own launcher what its header says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from lm_recipes.launch import LARGE_HEAP

CONFIGS = sorted((Path(__file__).parents[2] / "accelerate_configs").glob("*.yaml"))
EXPECTED = {
    "cpu": ("NO", 1), "single_gpu": ("NO", 1), "multi_gpu": ("MULTI_GPU", 8), "fsdp2": ("FSDP", 8),
    "deepspeed_zero2": ("DEEPSPEED", 8), "deepspeed_zero3": ("DEEPSPEED", 8), "multi_node": ("MULTI_GPU", 16),
}  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_file_and_knows_every_key(path):
    config = load_config_from_file(str(path))  # raises on an unknown top-level key
    assert (config.distributed_type.value, config.num_processes) == EXPECTED[path.stem]
    launch_flags = {action.dest for action in launch_command_parser()._actions}
    raw = yaml.safe_load(path.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        unknown = set(raw.get(section, {})) - launch_flags
        assert not unknown, f"{section}: accelerate launch has no {unknown}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_says_when_to_use_it_and_how(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 2
    assert any(f"accelerate launch --config_file accelerate_configs/{path.name}" in line for line in header)


def test_the_set_of_files_is_complete():
    assert {path.stem for path in CONFIGS} == set(EXPECTED)


def test_deepspeed_stages_and_fsdp_version_are_what_the_names_say():
    raw = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS}
    assert raw["deepspeed_zero2"]["deepspeed_config"]["zero_stage"] == 2
    assert raw["deepspeed_zero3"]["deepspeed_config"]["zero_stage"] == 3
    assert raw["fsdp2"]["fsdp_config"]["fsdp_version"] == 2


# What a recipe script finds in its environment, one file per process.
SCRIPT = """
import json, os, sys
from lm_recipes.launch import recipe

def main():
    names = ("GLIBC_TUNABLES", "RANK", "WORLD_SIZE")
    with open(f"{sys.argv[1]}/{os.environ.get('RANK', 0)}.json", "w") as file:
        json.dump({name: os.environ.get(name) for name in names}, file)

recipe(main)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
@pytest.mark.parametrize(("config", "processes"), [("cpu", 1), ("multi_gpu", 2)])
def test_every_process_that_accelerate_launches_keeps_large_tensors_on_the_heap(
    config, processes, tmp_path, monkeypatch
):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    path = next(path for path in CONFIGS if path.stem == config)
    launch = f"-m accelerate.commands.launch --config_file {path} --num_processes {processes} --mixed_precision no"
    done = subprocess.run(
        [sys.executable, *launch.split(), tmp_path / "script.py", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    assert [one["GLIBC_TUNABLES"] for one in found] == [LARGE_HEAP] * processes
    assert [one["RANK"] for one in found] == (["0", "1"] if processes == 2 else [None])
