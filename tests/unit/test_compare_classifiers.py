"""A head, SFT or a prompt: which runs are planned, that the scripts know their flags, and the table they come to."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest
from objectives import RECIPES, launch
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import BertModel

from lm_recipes.evaluation import classifiers
from lm_recipes.evaluation.classifiers import WAYS
from lm_recipes.evaluation.tracks import REFERENCE, TASKS
from lm_recipes.launch import UserError
from lm_recipes.reporting.classifiers import markdown_table


def planned(tasks=("sentiment", "topic"), **changes):
    options = {
        "models": {"encoder": "e", "decoder": "d"}, "peft": {"encoder": False, "decoder": True}, "train_rows": 300,
        "epochs": 2.0, "shots": 4, "num_seeds": 2,
    }  # fmt: skip
    return classifiers.runs(Path("runs/x"), tasks, **(options | changes))


def flags(run) -> dict[str, str]:
    return dict(zip(run.flags[::2], run.flags[1::2], strict=False))


def test_every_way_of_every_task_is_planned_and_prompts_are_read_once():
    ways = planned()
    assert set(ways) == {(task, way) for task in ("sentiment", "topic") for way in WAYS}
    runs = {run.output_dir: run for needed in ways.values() for run in needed}
    assert len(runs) == 2 * (1 + 1 + 2 * 2 + 1)  # an encoder, a decoder, SFT and its measure for two seeds, prompts
    assert len({run.name for run in runs.values()}) == len(runs)
    assert ways["topic", "decoder, few-shot"] == ways["topic", "decoder, few-shot, calibrated"]


def test_all_ways_learn_from_the_same_rows_of_the_same_source():
    ways = planned(["topic"])
    for way, needed in ways.items():
        for run in needed:
            assert flags(run)["--source"] == TASKS["topic"].source
            if run.script.name != "few_shot.py":
                assert flags(run)["--train_rows"] == "300", way
                assert flags(run)["--num_train_epochs"] == "2"
    taught, measured, again, _ = ways["topic", "decoder, SFT"]
    assert flags(taught)["--prompt_column"] == "text"  # by which dialogues are split, as by classify.py
    assert flags(measured)["--model_name_or_path"] == str(taught.output_dir)
    assert (flags(taught)["--seed"], flags(again)["--seed"]) == ("0", "1")


def test_the_scripts_know_every_flag():
    from trl import SFTConfig

    from lm_recipes.training.adapters import AdapterArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    for run in {run.name: run for needed in planned().values() for run in needed}.values():
        script = runpy.run_path(str(RECIPES.parent / run.script))
        own = [thing for thing in script.values() if dataclasses.is_dataclass(thing)]
        known = {
            "classify.py": [AdapterArguments, FineTuningArguments], "sft.py": [AdapterArguments, SFTConfig],
            "few_shot.py": [],
        }[run.script.name]  # fmt: skip
        fields = {field.name for one in [*own, *known] for field in dataclasses.fields(one)}
        unknown = {flag for flag in run.command if flag.startswith("--") and flag[2:] not in fields}
        assert not unknown, (run.script, unknown)


def test_a_task_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="--tasks sentience: there is no such task"):
        planned(["sentience"])


def records(way: str) -> list[dict]:
    head = {
        "train_rows": 300, "trainable_parameters": 1_000,
        "per_seed": [{"seed": 0, "validation": 0, "test": 0.8}, {"seed": 1, "validation": 0, "test": 0.9}],
    }  # fmt: skip
    if way.endswith("head"):
        return [{"metrics": head, "seconds": {"total": 60.0}}]
    taught = {"metrics": {"train_dialogues": 300, "trainable_parameters": 500}, "seconds": {"total": 30.0}}
    asked = {"per_seed": [{"seed": 0, "test": 0.7}], "examples": 8}
    asked["per_seed_by_scoring"] = {"plain": [0.5, 0.6], "calibrated": [0.75, 0.75]}
    measured = {"metrics": asked, "seconds": {"total": 6.0}}
    return [taught, measured, taught, measured] if way.endswith("SFT") else [measured]


def test_findings_are_those_of_all_seeds():
    found = {way: classifiers.finding(way, records(way)) for way in WAYS}
    assert found["encoder, head"]["accuracy"] == pytest.approx(0.85)
    assert found["decoder, SFT"] == {
        "accuracy": 0.7, "standard_deviation": 0.0, "per_seed": [0.7, 0.7], "labelled_rows": 300,
        "trained_parameters": 500, "minutes": pytest.approx(1.2),
    }  # fmt: skip
    assert found["decoder, few-shot"]["per_seed"] == [0.5, 0.6]
    assert found["decoder, few-shot, calibrated"]["per_seed"] == [0.75, 0.75]
    assert found["decoder, few-shot"]["trained_parameters"] == 0


def test_the_table_names_every_way_and_marks_the_best():
    cells = {way: classifiers.finding(way, records(way)) for way in WAYS}
    cells[REFERENCE] = {"accuracy": 0.6, "standard_deviation": None, "per_seed": [0.6], "labelled_rows": 300}
    lines = markdown_table({"sentiment": cells, "topic": cells}).splitlines()
    assert lines[0] == "| | labelled rows | trained | minutes | sentiment | topic |"
    assert lines[2] == "| encoder, head | 300 | 1,000 | 2.0 | **85.0 ± 7.1** | **85.0 ± 7.1** |"
    assert lines[4] == "| decoder, SFT | 300 | 500 | 2.4 | 70.0 ± 0.0 | 70.0 ± 0.0 |"
    assert lines[-1] == f"| {REFERENCE} | 300 |  |  | 60.0 | 60.0 |"
    assert len(lines) == 2 + len(WAYS) + 1


@pytest.mark.slow
def test_the_scripts_run_one_after_the_other_and_a_second_start_runs_none_of_them(tmp_path, caplog):
    encoder = save(tmp_path / "encoder", BertModel(bert_config("bert", 200, context=128)), bert_tokenizer())
    decoder = save(tmp_path / "decoder", gpt("llama", context=512), gpt_tokenizer())
    models = f"--encoder {encoder} --decoder {decoder} --tasks question --train_rows 40 --num_train_epochs 1 --shots 1"
    command = [str(RECIPES / "compare_classifiers.py"), *models.split(), "--output_dir", str(tmp_path / "out")]
    launch(command)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["classifiers"]["question"]
    assert set(found) == {*WAYS, REFERENCE}
    assert all(0 < cell["accuracy"] < 1 for cell in found.values())
    assert found["decoder, SFT"]["labelled_rows"] == found["encoder, head"]["labelled_rows"] == 40
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/results.json")}
    assert len(written) == 5
    launch([*command, "--plan", "True"])
    assert caplog.text.count("done  question") == 5
    launch(command)
    assert {path: path.stat().st_mtime_ns for path in written} == written
