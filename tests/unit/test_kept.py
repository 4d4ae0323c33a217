"""The page of results says what was measured, by which command, and whether the machine was quiet."""

import pytest

from lm_recipes.artifacts import read_json, write_json, write_results
from lm_recipes.reporting.kept import keep
from lm_recipes.reporting.side_by_side import markdown_tables


@pytest.mark.parametrize(("load", "said"), [(2.1, False), (4.2, True)])
def test_times_taken_beside_other_work_are_called_upper_limits(load, said, tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    record = write_results(run, config={}, inputs={}, metrics={"accuracy": 0.5}, seconds={"train": 60.0})
    assert record["machine"]["load"] >= 0
    record["machine"] |= {"load": load, "cpus": 2}
    write_json(run / "results.json", record)
    kept = keep(run, tmp_path / "results")
    assert read_json(kept, "record") == record
    page = (kept.parent / "README.md").read_text()
    assert "train 60 s" in page
    assert record["command"] in page
    assert ("upper limits" in page) == said


def test_ways_side_by_side_are_rows_and_what_one_has_not_is_empty():
    found = {
        "batch 1": {"ours": {"tokens_per_second": 12345.6, "ratio": 2.71828}, "theirs": {"tokens_per_second": 7.0}}
    }
    assert markdown_tables(found).splitlines() == [
        "| batch 1 | tokens per second | ratio |",
        "| --- | ---: | ---: |",
        "| ours | 12,346 | 2.718 |",
        "| theirs | 7 |  |",
    ]
