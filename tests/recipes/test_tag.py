"""tag.py with every shipped config, and predict.py on what it leaves behind: two steps on small data."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from objectives import launch
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification, pipeline, set_seed

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted((RECIPES / "bert" / "configs").glob("tag-*.yaml"))
FAST = "--max_steps 2 --logging_steps 1 --max_length 32 --use_cpu True --bf16 False --disable_tqdm True --seed 3"
NO_CHECKPOINTS = "--eval_strategy no --save_strategy no"
PLACES = ("paris", "rome", "italy")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    """A tiny encoder and decoders; sentences with entities, and with parts of speech, in files of columns."""
    directory = tmp_path_factory.mktemp("inputs")
    set_seed(0)
    encoder = AutoModelForMaskedLM.from_config(bert_config("modernbert", len(bert_tokenizer())))
    entities = [
        {"tokens": ["the", f"doctor{i}", "asks", PLACES[i % 3], "."], "tags": ["O", "I-job", "O", "B-place", "O"]}
        for i in range(60)
    ]
    (directory / "ner.jsonl").write_text("\n".join(map(json.dumps, entities)))
    words = "\n".join(f"the\tDET\nfox{i}\tNOUN\njumps\tVERB\n.\t.\n" for i in range(60))
    (directory / "pos.tsv").write_text(words)
    return {
        "encoder": save(directory / "encoder", encoder, bert_tokenizer()),
        "llama": save(directory / "llama", gpt("llama"), gpt_tokenizer()),
        "nanochat": save(directory / "nanochat", gpt("nanochat"), gpt_tokenizer()),
        **{name: str(directory / f"{name}.{kind}") for name, kind in (("ner", "jsonl"), ("pos", "tsv"))},
    }


def tag(flags: str, output_dir: Path) -> dict:
    launch([str(RECIPES / "bert" / "tag.py"), *flags.split(), "--output_dir", str(output_dir)])
    return json.loads((output_dir / "results.json").read_text("utf-8"))["metrics"]


def predict(model: Path | str, texts: list[str], output: Path) -> list[dict]:
    flags = ["--task", "token-classification", "--model_name_or_path", str(model), "--output", str(output)]
    launch([str(RECIPES / "bert" / "predict.py"), *flags, "--text", *texts])
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_reports_and_leaves_a_model(config, inputs, tmp_path):
    source = inputs["pos" if "brown" in config.stem else "ner"]
    metrics = tag(f"--config {config} --model_name_or_path {inputs['encoder']} --source {source} {FAST}", tmp_path)
    main = "accuracy" if "brown" in config.stem else "f1"
    assert metrics["test"][f"{main}_low"] <= metrics["test"][main] <= metrics["test"][f"{main}_high"]
    assert metrics["train_rows"] + metrics["test"]["sentences"] + metrics["validation"]["sentences"] == 60
    assert sum(map(sum, metrics["confusion"])) == metrics["test"]["words"]
    assert 0 <= metrics["baselines"]["usual_tag_of_the_word"] <= 1
    assert metrics["baselines"]["share_of_unknown_words"] > 0
    expected = [".", "DET", "NOUN", "VERB"] if main == "accuracy" else ["O", "B-job", "B-place"]
    assert metrics["labels"] == expected
    assert metrics["tags_rewritten_as_iob2"] == (0 if main == "accuracy" else 60)  # I-job begins an entity
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert all(f"\n| {row['name']} | " in card for row in metrics["per_class"])
    adapter = "lora" in config.stem
    assert (metrics["trainable_parameters"] < metrics["parameters"]) == adapter
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged" if adapter else tmp_path)
    assert list(merged.config.id2label.values()) == expected


def test_the_saved_tagger_gives_the_reported_score_to_predict_and_loads_in_plain_transformers(inputs, tmp_path):
    metrics = tag(
        f"--model_name_or_path {inputs['encoder']} --source {inputs['pos']} {FAST} {NO_CHECKPOINTS}", tmp_path
    )
    from lm_recipes.sources.tagged import load_tagged

    rows, names, _ = load_tagged(inputs["pos"])
    texts = [" ".join(words) for words in rows["test"]["tokens"]]
    answers = predict(tmp_path, texts, tmp_path / "out.jsonl")
    assert [answer["text"] for answer in answers] == texts
    said = [[word["tag"] for word in answer["words"]] for answer in answers]
    truth = [[names[tag] for tag in tags] for tags in rows["test"]["tags"]]
    assert np.mean(np.concatenate(said) == np.concatenate(truth)) == pytest.approx(metrics["test"]["accuracy"])
    assert pipeline("token-classification", model=str(tmp_path), device="cpu")(texts[0])


def test_adapter_and_merged_tagger_predict_alike_and_entities_are_places_in_the_text(inputs, tmp_path, capsys):
    flags = f"--model_name_or_path {inputs['encoder']} --source {inputs['ner']} {FAST} {NO_CHECKPOINTS}"
    tag(f"{flags} --use_peft --merge_adapter --max_steps 30 --learning_rate 0.01", tmp_path)
    texts = ["the doctor asks paris.", "rome"]
    answers = [predict(tmp_path / name, texts, tmp_path / "out.jsonl") for name in (".", "merged")]
    shown = capsys.readouterr().out
    for one, other in zip(*answers, strict=True):
        assert [item["tag"] for item in one["words"]] == [item["tag"] for item in other["words"]]
        assert [item["score"] for item in one["words"]] == pytest.approx([i["score"] for i in other["words"]], abs=1e-4)
    found = [(item["tag"], item["text"]) for item in answers[0][0]["entities"]]
    assert ("place", "paris") in found
    assert "place: paris" in shown


def test_several_rates_and_seeds_are_chosen_on_validation_and_the_best_epoch_is_kept(inputs, tmp_path):
    metrics = tag(
        f"--model_name_or_path {inputs['encoder']} --source {inputs['ner']} {FAST} --max_steps -1 --num_train_epochs 2 "
        "--learning_rates 1e-9 1e-2 --num_seeds 2 --load_best_model_at_end --metric_for_best_model f1",
        tmp_path,
    )
    tried = metrics["validation_f1_by_learning_rate"]
    assert set(tried) == {"1e-09", "0.01"}
    assert metrics["learning_rate"] == float(max(tried, key=tried.get))
    assert [run["seed"] for run in metrics["per_seed"]] == [3, 4]
    assert metrics["saved_seed"] == max(metrics["per_seed"], key=lambda run: run["validation"])["seed"]
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_decoder_that_sees_both_sides_tags_and_stays_so(inputs, tmp_path):
    flags = f"--model_name_or_path {inputs['llama']} --source {inputs['pos']} --bidirectional --label_all_tokens"
    tag(f"{flags} {FAST} {NO_CHECKPOINTS}", tmp_path)
    early, late = (predict(tmp_path, [text], tmp_path / "o.jsonl")[0]["words"][0] for text in ("the fox", "the knee"))
    assert early["score"] != late["score"]  # the first word's depends on the second


def test_from_scratch_and_frozen_taggers_are_what_they_say(inputs, tmp_path):
    base = AutoModelForTokenClassification.from_pretrained(inputs["encoder"]).state_dict()
    name = "model.layers.1.attn.Wqkv.weight"
    flags = (
        f"--model_name_or_path {inputs['encoder']} --source {inputs['pos']} --baselines false {FAST} {NO_CHECKPOINTS}"
    )
    frozen = tag(f"{flags} --freeze_encoder", tmp_path / "frozen")
    assert "baselines" not in frozen
    assert 0 < frozen["trainable_parameters"] < frozen["parameters"] / 4
    tag(f"{flags} --from_scratch", tmp_path / "scratch")
    kept, new = (
        AutoModelForTokenClassification.from_pretrained(tmp_path / run).state_dict()[name]
        for run in ("frozen", "scratch")
    )
    assert np.array_equal(kept, base[name])
    assert (new - base[name]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--source {ner}", "--model_name_or_path: which model?"),
        ("--source {ner} --model_name_or_path {encoder} --tags_column ner", "no column `ner`"),
        ("--source {ner} --model_name_or_path {encoder} --max_length 65", "reads at most 64 tokens"),
        ("--source {pos} --model_name_or_path {encoder} --test_split test", "no split `test` in one file"),
        (
            "--source {pos} --model_name_or_path {nanochat} --output_dir {out}",
            "transformers has no TokenClassification for a nanochat",
        ),
        ("--source {pos} --model_name_or_path {llama} --bidirectional --use_peft", "--bidirectional is kept in"),
    ],
)
def test_mistakes_of_a_tagger_end_in_one_line_and_exit_code_2(flags, complaint, inputs, tmp_path, capsys):
    if "{out}" not in flags:
        flags += " --output_dir {out}"
    arguments = flags.format(**inputs, out=tmp_path / "out").split()
    if "--max_length" not in arguments:
        arguments += ["--max_length", "32"]
    with pytest.raises(SystemExit) as end:
        launch([str(RECIPES / "bert" / "tag.py"), *arguments])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2
    assert last.startswith("error: ")
    assert complaint in last


@pytest.mark.slow
def test_two_processes_train_a_tagger_and_report_all_sentences(inputs, tmp_path):
    import os
    import subprocess

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = f"--model_name_or_path {inputs['encoder']} --source {inputs['pos']} {FAST} --output_dir {tmp_path}"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launcher, str(RECIPES / "bert" / "tag.py"), *flags.split()], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads((tmp_path / "results.json").read_text())["metrics"]
    assert sum(map(sum, metrics["confusion"])) == metrics["test"]["words"] == 4 * metrics["test"]["sentences"]
