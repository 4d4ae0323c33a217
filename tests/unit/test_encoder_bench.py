"""The comparison of ways to pretrain an encoder: equal times, real flags, and what the table says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lm_recipes.evaluation.encoder_variants import CALIBRATION_STEPS, NONE, QUICKSTART, VARIANTS, Workshop
from lm_recipes.evaluation.runs import Runs
from lm_recipes.reporting.encoder_variants import accuracy_plot, markdown_table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", sorted({variant.script for variant in VARIANTS.values()}))
def test_the_scripts_know_every_flag_of_the_variants(script):
    known = subprocess.run(
        [sys.executable, ROOT / "recipes" / script, "--help"], capture_output=True, text=True, check=True
    ).stdout
    flags = {flag for variant in VARIANTS.values() if variant.script == script for flag in variant.flags}
    assert [flag for flag in flags if f"--{flag}" not in known] == []


def test_each_variant_trains_for_as_long_as_it_takes_not_for_as_many_steps(tmp_path, monkeypatch):
    asked = []

    def train(shop, variant, steps, directory):
        asked.append(steps)
        log = [{"tokens_per_second": 4_000}] * 4 + [{"eval_nats_per_token": 5.0}]
        (directory / "model").mkdir()
        (directory / "model" / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        rows = variant.flags.get("per_device_train_batch_size", 32)
        metrics = {"train_tokens": steps * rows * 125, "parameters": 1}
        record = {"seconds": {"train": steps * rows * 125 / 4_000}, "metrics": metrics}
        (directory / "model" / "results.json").write_text(json.dumps(record))

    monkeypatch.setattr(Workshop, "_train", train)
    shop = Workshop(Runs(tmp_path / "runs"), Path("corpus"), tmp_path, seconds=20.0, seeds=1)
    for name in (QUICKSTART, "batch of 64 blocks"):
        assert shop.pretrained(name)["train_seconds"] == 20.0
    assert asked == [CALIBRATION_STEPS, 20, CALIBRATION_STEPS, 10]


def test_the_table_begins_with_the_best_on_validation_and_ends_with_the_test_split():
    names = {QUICKSTART: 0.7, "15 % masks": 0.8, NONE: 0.6}
    cells = {name: {"validation": [score, score], "test": [score - 0.1, score + 0.02]} for name, score in names.items()}
    model = {"tokens_per_second": 30_000.0, "loss": 4.5}
    few = {NONE: cells[NONE], QUICKSTART: cells[QUICKSTART], "15 % masks": cells[NONE]}
    metrics = {
        "variants": dict.fromkeys(list(names)[:2], model),
        "scores": {"topic": {"300": few, "1000": cells}},
        "screen": "1000",
        "best": "15 % masks",
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown_table(metrics).splitlines()]
    assert rows[0] == ["", "tokens/s", "loss", "mean", "topic, 1000", "topic, 300 (test)", "topic, 1000 (test)"]
    assert [row[0] for row in rows[2:]] == ["15 % masks", QUICKSTART, NONE]
    assert rows[2][1:] == ["30,000", "4.500", "80.0", "80.0", "56.0", "76.0"]
    assert rows[4][1:] == ["", "", "60.0", "60.0", "56.0", "56.0"]
    assert all(name in accuracy_plot(metrics) for name in ("15 % masks", "topic"))
