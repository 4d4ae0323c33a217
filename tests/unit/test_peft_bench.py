"""The comparison of ways to fine-tune: real flags, the rate that validation prefers, and what the table says."""

import json
import subprocess
import sys
from functools import cache

import pytest
from objectives import launch

from lm_recipes.evaluation import adapter_methods
from lm_recipes.evaluation.adapter_methods import METHODS, RECIPES, TASKS, best, command, compared
from lm_recipes.evaluation.runs import Runs
from lm_recipes.reporting.adapter_methods import markdown_table

RUN = {"trainable": 10, "parameters": 1000, "saved_bytes": 40, "train_seconds": 2.0, "peak_bytes": 5e8}


@cache
def flags_of(script: str) -> str:
    ended = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    return ended.stdout


@pytest.mark.parametrize("task", TASKS)
def test_the_scripts_know_every_flag(task, tmp_path):
    methods = [name for name in METHODS if task in METHODS[name].rates]
    words = {str(word) for name in methods for word in command(task, name, 1e-3, 0, tmp_path)}
    known = flags_of(str(RECIPES / TASKS[task].script))
    assert [flag for flag in words if flag.startswith("--") and flag != "--config" and flag not in known] == []
    assert not any(word == "ATTENTION" for word in words)


def test_a_rate_that_diverged_is_not_the_best():
    tried = {1e-3: {"validation": 0.7}, 1e-2: {"validation": float("nan")}, 1e-1: {"validation": 0.8}}
    assert (best(tried, 1), best(tried, -1)) == (1e-1, 1e-3)


def test_every_seed_runs_at_the_rate_that_validation_prefers(tmp_path, monkeypatch):
    """The runs themselves are left out: a launch leaves what a script and its wrapper leave."""

    def launched(arguments, directory):
        words = dict(zip(map(str, arguments[4::2]), map(str, arguments[5::2]), strict=True))
        rate, model = float(words["--learning_rate"]), directory / "model"
        model.mkdir()
        (model / "adapter_model.safetensors").write_bytes(bytes(40))
        scores = {"validation": {"accuracy": 0.9 - abs(rate - 1e-3)}, "test": {"accuracy": int(words["--seed"]) / 2}}
        record = {"metrics": scores | {"trainable_parameters": 10, "parameters": 1000}, "seconds": {"train": 2.0}}
        (model / "results.json").write_text(json.dumps(record))
        (directory / "memory.json").write_text(json.dumps({"process_bytes": 7, "device_bytes": 0}))

    monkeypatch.setattr(adapter_methods, "launch", launched)
    runs = Runs(tmp_path / "runs")
    runs.dry = True
    assert compared(runs, "sentiment", "LoRA", [0, 1]) is None
    assert len(runs.asked) == 4  # three rates, and the second seed
    runs.dry = False
    found = compared(runs, "sentiment", "LoRA", [0, 1])
    assert (found["learning_rate"], found["tests"], found["test"]) == (1e-3, [0.0, 0.5], 0.25)
    assert (found["saved_bytes"], found["peak_bytes"], found["trainable"]) == (40, 7, 10)


def test_the_table_begins_with_the_best_on_validation():
    def row(validation: float, *tests: float) -> dict:
        test = sum(tests) / len(tests)
        return RUN | {"validation": validation, "test": test, "tests": list(tests), "learning_rate": 1e-3}

    methods = {
        "sentiment": {"IA3": row(0.80, 0.79), "LoRA": row(0.87, 0.85, 0.87)},
        "dialogues": {"IA3": row(2.4, 1.10), "LoRA": row(2.5, 1.05)},
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown_table(methods).splitlines()]
    assert [cells[0] for cells in rows if cells[0] in ("LoRA", "IA3")] == ["LoRA", "IA3", "IA3", "LoRA"]
    first = next(cells for cells in rows if cells[0] == "LoRA")
    assert first[1:] == ["10", "1", "0.0", "500", "2", "0.001", "86.0 (85.0 to 87.0)"]
    assert rows[-1][-1] == "1.050" or rows[-2][-1] == "1.050"


def test_the_peak_is_that_of_the_script_and_its_end_is_passed_on(tmp_path):
    script = tmp_path / "greedy.py"
    script.write_text("import sys\nblock = bytearray(200_000_000)\nsys.exit(int(sys.argv[1]))\n")
    wrapper = [sys.executable, "-m", "lm_recipes.evaluation.peak_memory", tmp_path / "peak.json"]
    for code in (0, 3):
        assert subprocess.run([*map(str, wrapper), str(script), str(code)], check=False).returncode == code
        assert json.loads((tmp_path / "peak.json").read_text())["process_bytes"] > 200_000_000


def test_an_unknown_method_is_refused_before_any_run(tmp_path, capsys):
    flags = ["--only", "lora", "--output_dir", str(tmp_path / "bench")]
    with pytest.raises(SystemExit) as end:
        launch([str(RECIPES / "bench" / "peft.py"), *flags])
    assert end.value.code == 2
    assert "error: --only 'lora': choose of 'all weights'" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
