"""The comparison of ways to fine-tune: real flags, the rate that validation prefers, and what the table says."""

import json
import subprocess
import sys

import pytest
from objectives import launch

from lm_recipes.evaluation import adapter_methods
from lm_recipes.evaluation.adapter_methods import METHODS, RECIPES, TASKS, best, budget, command, compared
from lm_recipes.evaluation.runs import Runs
from lm_recipes.reporting.adapter_methods import markdown_table

RUN = {"trainable": 10, "parameters": 1000, "saved_bytes": 40, "train_seconds": 2.0, "peak_bytes": 5e8}


@pytest.mark.parametrize("task", TASKS)
def test_the_scripts_know_every_flag(task, tmp_path, capsys):
    with pytest.raises(SystemExit):
        launch([str(RECIPES / TASKS[task].script), "--help"])
    known = capsys.readouterr().out.replace(",", " ").split()
    methods = [name for name in METHODS if task in METHODS[name].rates]
    words = {str(word) for name in methods for word in command(task, name, 1e-3, tmp_path, max_steps=2)}
    assert [flag for flag in words if flag.startswith("--") and flag != "--config" and flag not in known] == []


def test_a_rate_that_diverged_is_not_the_best():
    tried = {1e-3: {"validation": 0.7}, 1e-2: {"validation": float("nan")}, 1e-1: {"validation": 0.8}}
    assert best(tried) == 1e-1
    assert best({5e-4: {"validation": None}}) == 5e-4  # there is no other


def test_a_method_is_shown_with_the_rate_that_validation_prefers(tmp_path, monkeypatch):
    """The runs themselves are left out: a launch leaves what a script and its wrapper leave."""
    made = []

    def launched(arguments, directory):
        words = dict(zip(map(str, arguments[4::2]), map(str, arguments[5::2]), strict=True))
        rate, model = float(words["--learning_rate"]), directory / "model"
        made.append(rate)
        model.mkdir()
        (model / "adapter_model.safetensors").write_bytes(bytes(40))
        scores = {"validation": {"accuracy": 0.9 - abs(rate - 1e-3)}, "test": {"accuracy": rate, "f1": 0.3}}
        record = {"metrics": scores | {"trainable_parameters": 10, "parameters": 1000}, "seconds": {"train": 2.0}}
        (model / "results.json").write_text(json.dumps(record))
        (directory / "memory.json").write_text(json.dumps({"process_bytes": 7, "device_bytes": 0}))

    monkeypatch.setattr(adapter_methods, "launch", launched)
    runs = Runs(tmp_path / "runs")
    runs.dry = True
    assert compared(runs, "sentiment", "LoRA") is None
    assert len(runs.asked) == 3
    runs.dry = False
    for _ in range(2):  # the second time nothing is left to be made
        found = compared(runs, "sentiment", "LoRA")
        assert (found["learning_rate"], found["test"]) == (1e-3, {"accuracy": 1e-3})
        assert (found["saved_bytes"], found["peak_bytes"], found["trainable"]) == (40, 7, 10)
        assert made == [5e-4, 1e-3, 2e-3]


def test_the_table_says_what_its_runs_were_given():
    sentiment = {"accuracy": 0.86, "accuracy_low": 0.84, "accuracy_high": 0.88}
    dialogues = {"bits_per_byte": 1.10, "bits_per_byte_before": 1.25}
    methods = {
        "sentiment": {"LoRA": RUN | {"learning_rate": 1e-3, "test": sentiment}},
        "dialogues": {"IA3": RUN | {"learning_rate": 1e-2, "test": dialogues}},
    }
    table = markdown_table(
        {"methods": methods, "budgets": {"sentiment": "One pass.", "dialogues": budget("dialogues", 2)}}
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert ["LoRA", "10", "1", "0.0", "500", "2", "0.001", "86.0 (84.0 to 88.0)"] in rows
    assert ["IA3", "10", "1", "0.0", "500", "2", "0.01", "1.100 (1.250 before)"] in rows
    assert table.startswith("One pass.\n\n| method |")
    assert f"A trial of 2 steps instead of: {TASKS['dialogues'].budget}\n\n| method |" in table


@pytest.mark.parametrize(("task", "flag"), [("sentiment", "--train_rows"), ("dialogues", "--max_steps")])
def test_the_budget_in_words_is_that_of_the_flags(task, flag):
    flags = TASKS[task].flags
    assert f" {int(flags[flags.index(flag) + 1]):,} " in TASKS[task].budget


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
        launch([str(RECIPES / "bench" / "adapter_methods.py"), *flags])
    assert end.value.code == 2
    assert "error: --only 'lora': choose of 'all weights'" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
