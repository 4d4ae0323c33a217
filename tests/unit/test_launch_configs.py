"""Each file of accelerate_configs/ means to accelerate's own launcher what its header says."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

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
