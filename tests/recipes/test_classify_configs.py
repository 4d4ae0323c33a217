"""Every YAML of classify.py for data of the Hub, on a small local stand-in with the same columns and labels."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from objectives import RECIPES, launch
from tiny_models import TEXT, bert_config, bert_tokenizer, save
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

CONFIGS = RECIPES / "bert" / "configs"
GLUE = sorted(path.stem for path in CONFIGS.glob("glue-*.yaml"))
LABELS = {"glue-stsb": [0.0, 2.5, 5.0], "glue-mnli": ["contradiction", "entailment", "neutral"]}
FAST = (
    "--use_cpu True --bf16 False --disable_tqdm True --baselines False --max_steps 2 --logging_steps 1 --max_length 32 "
    "--eval_strategy no --save_strategy no"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = AutoModel.from_config(bert_config("bert", len(bert_tokenizer())))
    return save(tmp_path_factory.mktemp("models") / "encoder", model, bert_tokenizer())


def stand_in(directory: Path, config: dict, labels: list) -> str:
    """A folder with the splits that the YAML names, and rows with the columns it names."""
    directory.mkdir()
    columns = [config.get("text_column", "text"), *([config["pair_column"]] if "pair_column" in config else [])]
    splits = {"train", *(config[key] for key in ("validation_split", "test_split") if key in config)}
    for split in splits:
        rows = [
            dict.fromkeys(columns, f"{TEXT[i % 3]} {split} {i}")
            | {config.get("label_column", "label"): labels[i % len(labels)]}
            for i in range(60 if split == "train" else 15)
        ]
        (directory / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(directory)


def run(name: str, labels: list, encoder: str, directory: Path, more: str = "") -> dict:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    source = stand_in(directory / "rows", config, labels)
    flags = f"--config {CONFIGS / name}.yaml --model_name_or_path {encoder} --source {source} {FAST} {more}"
    launch([f"{RECIPES}/bert/classify.py", *flags.split(), "--output_dir", str(directory / "out")])
    return json.loads((directory / "out" / "results.json").read_text())["metrics"]


def test_glue_has_its_nine_tasks_and_one_protocol():
    assert [f"glue-{task}" for task in ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")] == GLUE
    configs = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in GLUE}
    own = {"source", "text_column", "pair_column", "problem_type", "test_split", "num_seeds", "output_dir"}
    assert len({json.dumps({k: v for k, v in config.items() if k not in own}) for config in configs.values()}) == 1
    for name, config in configs.items():
        assert config["source"] == f"nyu-mll/glue:{name.removeprefix('glue-')}"
        assert config["test_split"].startswith("validation")  # the labels of GLUE's test are not public
        assert config["num_seeds"] >= 3
        assert all(isinstance(rate, float) for rate in config["learning_rates"])


@pytest.mark.parametrize(
    ("name", "rates", "seeds"),
    [("glue-cola", ["1e-4", "1e-3"], 2), ("glue-mnli", ["1e-4"], 1), ("glue-stsb", ["1e-4"], 1)],
)
def test_glue_is_measured_on_its_validation_split_and_chosen_on_training_rows(name, rates, seeds, encoder, tmp_path):
    labels = LABELS.get(name, ["acceptable", "unacceptable"])
    found = run(name, labels, encoder, tmp_path, f"--num_seeds {seeds} --learning_rates {' '.join(rates)}")
    assert found["test"]["rows"] == 15
    assert found["train_rows"] + found["validation"]["rows"] == 60
    assert len(found["per_seed"]) == seeds
    tried = next(value for key, value in found.items() if key.endswith("_by_learning_rate"))
    assert len(tried) == len(rates)
    assert tried[f"{found['learning_rate']:g}"] == max(tried.values()) == found["per_seed"][0]["validation"]
    expected = {"glue-stsb": {"pearson", "spearman"}, "glue-cola": {"matthews_correlation", "f1"}}
    assert expected.get(name, {"accuracy"}) <= set(found["test"])


def test_pairs_are_classified_as_they_were_learned(encoder, tmp_path):
    run("glue-mnli", LABELS["glue-mnli"], encoder, tmp_path, "--num_seeds 1 --learning_rates 1e-2")
    pairs = [{"premise": TEXT[i], "hypothesis": TEXT[i - 1] * (i + 1)} for i in range(3)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    flags = f"--texts_file {tmp_path}/pairs.jsonl --text_column premise --pair_column hypothesis"
    flags += f" --model_name_or_path {tmp_path}/out --output {tmp_path}/answers.jsonl"
    launch([f"{RECIPES}/bert/predict.py", *flags.split()])
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    temperature = json.loads((tmp_path / "out" / "calibration.json").read_text())["temperature"]
    for pair, answer in zip(pairs, answers, strict=True):
        ids = tokenizer(*pair.values(), truncation=True, max_length=64, return_tensors="pt")
        expected = (model(**ids).logits[0] / temperature).softmax(-1).tolist()
        assert [answer["probabilities"][name] for name in LABELS["glue-mnli"]] == pytest.approx(expected, abs=1e-5)
        assert answer["text"] == pair["premise"]


def test_emotions_and_score_and_spam_take_rows_of_their_kind(encoder, tmp_path):
    (tmp_path / "emotions").mkdir()
    several = run("classify-emotions", [["joy"], ["joy", "love"], []], encoder, tmp_path / "emotions",
                  "--early_stopping_patience 1 --eval_strategy epoch --save_strategy epoch")  # fmt: skip
    assert set(several["calibration"]["thresholds"]) == set(several["f1_by_class"]) == {"joy", "love"}
    (tmp_path / "score").mkdir()
    score = run("classify-score", [-1.0, 0.5, 3.0], encoder, tmp_path / "score")
    assert score["labels"] == ["score"]
    (tmp_path / "spam").mkdir()
    spam = run("classify-spam", ["ham"] * 5 + ["spam"], encoder, tmp_path / "spam",
               "--eval_strategy epoch --save_strategy epoch")  # fmt: skip
    assert set(spam["calibration"]["thresholds"]) == {"spam"}


def test_the_film_review_recipe_is_measured_on_three_other_domains(encoder, tmp_path):
    others = yaml.safe_load((CONFIGS / "classify-minilm.yaml").read_text())["cross_domain"]
    assert len(others) == 3
    rows = [{"text": f"{TEXT[i % 3]} {i}", "label": ("negative", "positive")[i % 2]} for i in range(30)]
    (tmp_path / "tweets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = run("classify-minilm", ["negative", "positive"], encoder, tmp_path,
                f"--cross_domain {tmp_path / 'tweets.jsonl'}")  # fmt: skip
    assert found["cross_domain"][str(tmp_path / "tweets.jsonl")]["rows"] == 30
