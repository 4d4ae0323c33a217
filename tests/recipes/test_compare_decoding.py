"""compare_decoding.py and detect_watermark.py, and what is new in generate.py, as they are launched."""

import json
from pathlib import Path

import pytest
from objectives import RECIPES, launch
from tiny_models import gpt, gpt_tokenizer, save

from lm_recipes.decoding.strategies import STRATEGIES

SHORT = ("--max_new_tokens", "6")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("gpt"), gpt("nanochat"), gpt_tokenizer())


def run(script: str, *flags: object) -> int:
    try:
        launch([str(RECIPES / "gpt" / script), *map(str, flags)])
    except SystemExit as end:
        return end.code
    return 0


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_prompts_are_compared_under_many_strategies(model, tmp_path, capsys):
    ways = ("greedy", "diverse_beam", "contrastive", "dola", "nucleus", "eta")
    flags = ("--prompt", "the dog", "paris is", "--strategy", *ways, "--samples", 3, "--top_p", 0.8, *SHORT)
    assert run("compare_decoding.py", "--model_name_or_path", model, *flags, "--output_dir", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    summaries = record["metrics"]["decoding"]
    assert tuple(summaries) == ways
    assert [summaries[name]["texts"] for name in ways] == [2, 8, 2, 2, 6, 6]
    assert summaries["greedy"]["self_bleu"] is None
    assert summaries["nucleus"]["self_bleu"] >= 0
    rows = read_jsonl(tmp_path / "out" / "texts.jsonl")
    assert len(rows) == 26
    page = (tmp_path / "out" / "comparison.html").read_text("utf-8")
    assert all(f"<h3>{name}</h3>" in page for name in ways)
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.strip().split("\n")[1:]] == list(ways)
    # again, into its own result
    assert run("compare_decoding.py", "--model_name_or_path", model, *flags, "--output_dir", tmp_path / "out") == 0
    assert [row["text"] for row in read_jsonl(tmp_path / "out" / "texts.jsonl")] == [row["text"] for row in rows]


def test_the_comparison_that_ships_runs_on_another_model(model, tmp_path):
    config = RECIPES / "gpt" / "configs" / "compare-decoding.yaml"
    flags = ("--config", config, "--model_name_or_path", model, "--output_dir", tmp_path / "out", *SHORT)
    assert run("compare_decoding.py", *flags, "--samples", 2) == 0
    assert len(json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["metrics"]["decoding"]) == 11


def test_every_strategy_is_one_flag_away(model, tmp_path):
    needed = ("--phrases", "dog", "--draft_model", model)
    flags = ("--prompt", "the dog", "--strategy", *STRATEGIES, *needed, *SHORT, "--output", tmp_path / "o.jsonl")
    assert run("generate.py", "--model_name_or_path", model, *flags) == 0
    rows = read_jsonl(tmp_path / "o.jsonl")
    assert list(dict.fromkeys(row["strategy"] for row in rows)) == list(STRATEGIES)
    said = {row["strategy"]: row["text"] for row in rows}
    assert " dog" in said["constrained_beam"]
    assert said["assisted"] == said["prompt_lookup"] == said["greedy"]
    assert rows[0]["settings"] == {"max_new_tokens": 6, "repetition_penalty": 1.0, "seed": 0}


def test_the_help_names_every_strategy(capsys):
    assert run("generate.py", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in STRATEGIES)


def test_structured_texts_and_those_that_were_cut(model, tmp_path, caplog):
    flags = ("--prompt", "the dog", "--regex", "[0-9]{12}", "--strategy", "greedy", "nucleus")
    out = ("--output", tmp_path / "o.jsonl")
    assert run("generate.py", "--model_name_or_path", model, *flags, *out, "--max_new_tokens", 20) == 0
    assert all(row["text"].isdigit() and len(row["text"]) == 12 for row in read_jsonl(tmp_path / "o.jsonl"))
    assert "cut at" not in caplog.text
    assert run("generate.py", "--model_name_or_path", model, *flags, *out, *SHORT) == 0
    assert "cut at --max_new_tokens 6 before it was whole" in caplog.text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--strategy", "contrastive", "beam", "--stream"), "drop one"),
        (("--strategy", "nucleus", "--num_return_sequences", "2", "--stream"), "drop one"),
        (("--strategy", "greedy", "--phrases", "dog"), "--phrases ['dog'] changes nothing"),
        (("--strategy", "constrained_beam"), "--strategy constrained_beam needs --phrases"),
        (("--strategy", "assisted", "--draft_model", "./gone"), "./gone: no such model directory"),
        (("--strategy", "greedy", "--json_schema", "gone.json"), "--json_schema gone.json: neither"),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_one_line(model, flags, complaint, capsys):
    assert run("generate.py", "--model_name_or_path", model, "--prompt", "a", *flags) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err.strip().split("\n")[-1]


def test_a_streamed_contrastive_text_is_the_one_that_comes_at_once(model, capsys):
    texts = []
    for stream in ((), ("--stream",)):
        flags = ("--prompt", "the dog", "--strategy", "contrastive", "--max_new_tokens", 20, *stream)
        assert run("generate.py", "--model_name_or_path", model, *flags) == 0
        texts.append("".join(capsys.readouterr().out.split("--- contrastive\n")[1].split()))
    assert texts[0] == texts[1]


def test_texts_are_judged_by_the_script(model, tmp_path, capsys):
    text = "the quick brown fox jumps over the lazy dog, and the dog barks at the fox."
    flags = ("--text", text, "x", "--output", tmp_path / "o.jsonl")
    assert run("detect_watermark.py", "--model_name_or_path", model, *flags) == 0
    shown = capsys.readouterr().out.strip().split("\n")
    assert shown[0].startswith(("not marked", "marked"))
    assert shown[1].startswith("too short")
    rows = read_jsonl(tmp_path / "o.jsonl")
    assert rows[0]["tokens"] > 5
    assert rows[1]["marked"] is None
    assert run("detect_watermark.py", "--model_name_or_path", "./gone", "--text", "a") == 2
