"""What a fine-tuned classifier must never depend on: accumulation, batch size and padding, the number of runs beside
it, an interruption; and what is left of the run.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from objectives import RECIPES, launch
from tiny_models import bert_config, bert_tokenizer, save
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
from transformers import pipeline as transformers_pipeline

from lm_recipes.evaluation.calibration import Calibration
from lm_recipes.evaluation.classification import logits_of
from lm_recipes.launch import UserError
from lm_recipes.models.heads import with_head
from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE
from lm_recipes.training.finetuning import ClassificationLoss, FineTuningArguments, class_weights

QUIET = "--disable_tqdm True --use_cpu True --bf16 False --logging_steps 1 --baselines False --max_length 32"
NEITHER = {"eval_strategy": "no", "save_strategy": "no"}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
WORDS = ("the quick fox", "a doctor asks", "paris is the capital")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = AutoModel.from_config(bert_config("bert", len(bert_tokenizer()), **NO_DROPOUT))
    return save(tmp_path_factory.mktemp("models") / "encoder", model, bert_tokenizer())


classifier = partial(with_head, AutoModelForSequenceClassification)


def rows_of(kind: str, number: int = 90) -> list[dict]:
    """Texts of three kinds of words; the class (or what is read as one) is told by them."""
    labels = {SINGLE: ["bad", "good", "fair"], MULTI: [["joy"], ["joy", "love"], []], REGRESSION: [-1.0, 0.0, 2.5]}
    return [
        {"text": f"{WORDS[i % 3]} {'and the dog barks ' * (i % 4)}{i}", "label": labels[kind][i % 3]}
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("rows")
    for kind in (SINGLE, MULTI, REGRESSION):
        (directory / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows_of(kind))))
    return {kind: str(directory / f"{kind}.jsonl") for kind in (SINGLE, MULTI, REGRESSION)}


def classify(sources, encoder: str, kind: str, output: Path, flags: str) -> dict:
    command = f"{RECIPES}/bert/classify.py --model_name_or_path {encoder} --source {sources[kind]} {QUIET}"
    launch(f"{command} --problem_type {kind} --output_dir {output} {flags}".split())
    return json.loads((output / "results.json").read_text())["metrics"]


# --- the loss ---


def torch_loss(kind: str, weights: torch.Tensor | None):
    """torch's own, over all rows at once; weighted cross-entropy divided by rows, not by weights."""
    if kind == SINGLE:
        return lambda logits, labels: functional.cross_entropy(logits, labels, weights, reduction="none").mean()
    if kind == MULTI:
        return lambda logits, labels: functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    return lambda logits, labels: functional.mse_loss(logits[:, 0], labels)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_batches_of_a_step_add_up_to_the_loss_of_all_their_rows(kind, weighted):
    torch.manual_seed(0)
    logits = torch.randn(7, 1 if kind == REGRESSION else 3)
    labels = {SINGLE: torch.arange(7) % 3, MULTI: torch.rand(7, 3).round(), REGRESSION: torch.randn(7)}[kind]
    weights = torch.tensor([0.5, 1.0, 4.0]) if weighted and kind != REGRESSION else None
    loss = ClassificationLoss(kind, weights)
    whole = loss({"logits": logits}, labels)
    parts = [
        loss({"logits": logits[rows]}, labels[rows], num_items_in_batch=labels.numel())
        for rows in (slice(0, 2), slice(2, 7))
    ]
    assert torch.allclose(whole, torch_loss(kind, weights)(logits, labels))
    assert torch.allclose(sum(parts), whole)


def test_balanced_weights_make_every_class_count_alike():
    labels = [0] * 90 + [1] * 10
    weights = class_weights("balanced", labels, SINGLE)
    assert weights[0] * 90 == pytest.approx(float(weights[1]) * 10)
    assert float(sum(weights[label] for label in labels)) == pytest.approx(100)  # of a row 1 on average
    assert class_weights("balanced", [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], MULTI).tolist() == [0.5, 2.0]
    assert class_weights(None, labels, SINGLE) is None
    for how, kind in (("inverse", SINGLE), ("balanced", REGRESSION)):
        with pytest.raises(UserError, match=f"--class_weights {how}"):
            class_weights(how, labels, kind)


def weights_after(encoder: str, kind: str, output: Path, batch: int, accumulation: int) -> dict[str, torch.Tensor]:
    """The head and encoder after two steps over the same twelve rows a step."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    names = ["score"] if kind == REGRESSION else ["a", "b", "c"]
    labels = {
        SINGLE: lambda i: i % 3,
        MULTI: lambda i: [float(i % 2), 1.0, float(i % 3 == 0)],
        REGRESSION: lambda i: i / 24,
    }[kind]
    examples = [{**tokenizer(row["text"]), "labels": labels(i)} for i, row in enumerate(rows_of(kind, 24))]
    args = FineTuningArguments(
        output_dir=output, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=2,
        train_sampling_strategy="sequential", use_cpu=True, disable_tqdm=True, **NEITHER,
        warmup_steps=0, optim="sgd", learning_rate=0.1, max_grad_norm=1e9,
    )  # fmt: skip
    trainer = Trainer(
        classifier(encoder, names, seed=0, problem_type=kind, dtype=torch.float32),
        args,
        train_dataset=Dataset.from_list(examples),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=ClassificationLoss(kind),
    )
    trainer.train()
    return trainer.model.state_dict()


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_accumulated_batches_train_the_same_weights_as_one_batch(kind, encoder, tmp_path):
    one, several = (weights_after(encoder, kind, tmp_path, *sizes) for sizes in ((12, 1), (4, 3)))
    before = classifier(encoder, ["a", "b", "c"], seed=0, dtype=torch.float32).state_dict()
    shared = [name for name in one if one[name].is_floating_point() and one[name].shape == before[name].shape]
    learned = max(float((one[name] - before[name]).abs().max()) for name in shared)
    assert max(float((one[name] - several[name]).abs().max()) for name in shared) < 1e-3 * learned


# --- whole runs ---


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_every_kind_of_problem_learns_and_leaves_what_plain_transformers_reads(kind, sources, encoder, tmp_path):
    flags = "--max_steps 60 --learning_rate 3e-3 --eval_strategy no --save_strategy no"
    metrics = classify(sources, encoder, kind, tmp_path / "out", flags)
    main = {SINGLE: "accuracy", MULTI: "macro_f1", REGRESSION: "spearman"}[kind]
    assert metrics["test"][main] > 0.6
    assert (tmp_path / "out" / "report.html").is_file()
    pipe = transformers_pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")
    plain = {one["label"]: one["score"] for one in pipe("a doctor asks 1", top_k=None)}
    logits = {one["label"]: one["score"] for one in pipe("a doctor asks 1", top_k=None, function_to_apply="none")}
    assert set(plain) == set(metrics["labels"])
    calibration = Calibration.beside(tmp_path / "out", pipe.model.config)
    assert calibration.problem_type == kind == pipe.model.config.problem_type
    untouched = Calibration(kind, calibration.labels).answer(logits)
    expected = {"score": plain.get("label")} if kind == REGRESSION else plain
    assert untouched.get("probabilities", untouched) == pytest.approx(expected, abs=1e-6)
    served = f"--model_name_or_path {tmp_path / 'out'} --output {tmp_path / 'answers.json'} --text".split()
    launch([f"{RECIPES}/bert/predict.py", *served, "a doctor asks 1"])
    (answer,) = json.loads((tmp_path / "answers.json").read_text())
    for key, value in calibration.answer(logits).items():
        assert answer[key] == (value if key.startswith("label") else pytest.approx(value, abs=1e-5))


def test_the_best_checkpoint_is_kept_and_training_stops_early_whatever_else_runs(sources, encoder, tmp_path):
    flags = (
        "--num_train_epochs 4 --learning_rate 3e-2 --eval_strategy epoch --save_strategy epoch "
        "--early_stopping_patience 1 --metric_for_best_model accuracy --seed 1"
    )
    alone = classify(sources, encoder, SINGLE, tmp_path / "alone", flags)
    together = classify(sources, encoder, SINGLE, tmp_path / "together", f"{flags} --num_seeds 2")
    assert together["per_seed"][0] == alone["per_seed"][0]
    assert [path.name for path in (tmp_path / "together").glob(".seed*")] == []
    assert [path.name for path in (tmp_path / "together").glob("checkpoint-*")] == []
    history = json.loads((tmp_path / "alone" / "trainer_state.json").read_text())["log_history"]
    scores = [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    assert alone["per_seed"][0]["validation"] == pytest.approx(max(scores))
    stop = next((i for i in range(1, len(scores)) if scores[i] <= max(scores[:i])), len(scores) - 1)
    assert len(scores) == stop + 1


def test_a_killed_run_goes_on_to_the_same_weights(sources, encoder, tmp_path):
    flags = "--num_train_epochs 2 --learning_rate 1e-3 --eval_strategy no --save_strategy steps --save_steps 2"
    flags += " --save_total_limit 9"
    classify(sources, encoder, SINGLE, tmp_path / "whole", flags)
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").state_dict()
    assert len(list((tmp_path / "whole").glob("checkpoint-*"))) > 1
    for path in (tmp_path / "whole").iterdir():
        if path.name not in ("run.json", "checkpoint-2"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    classify(sources, encoder, SINGLE, tmp_path / "whole", flags)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("flag", ["--early_stopping_patience 1", "--load_best_model_at_end True"])
def test_the_best_of_what_is_never_measured_is_refused(flag, sources, encoder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        classify(sources, encoder, SINGLE, tmp_path / "out", f"{flag} --eval_strategy no --save_strategy no")
    assert "--eval_strategy epoch --save_strategy epoch" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_logits_do_not_depend_on_batches_or_on_padding(kind, encoder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    names = ["score"] if kind == REGRESSION else ["a", "b", "c"]
    model = classifier(encoder, names, seed=0, problem_type=kind, dtype=torch.float32)
    ids = [tokenizer(row["text"]) for row in rows_of(kind, 11)]
    rows = Dataset.from_list([{**one, "labels": 0, "length": len(one["input_ids"])} for one in ids])
    found = []
    for batch in (1, 8):
        args = FineTuningArguments(output_dir=tmp_path, per_device_eval_batch_size=batch, use_cpu=True, **NEITHER)
        found.append(logits_of(Trainer(model, args, data_collator=DataCollatorWithPadding(tokenizer)), rows))
    alone = [model(**tokenizer(row["text"], return_tensors="pt")).logits[0].tolist() for row in rows_of(kind, 11)]
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert np.allclose(found[0], alone, atol=1e-5)


def test_other_domains_are_reported(sources, encoder, tmp_path):
    other = tmp_path / "tweets.jsonl"
    tweets = [{"text": f"{WORDS[i % 3]} lol {i}", "label": ("bad", "good", "fair")[i % 3]} for i in range(12)]
    other.write_text("\n".join(map(json.dumps, tweets)))
    flags = f"--max_steps 4 --eval_strategy no --save_strategy no --cross_domain {other} --class_weights balanced"
    found = classify(sources, encoder, SINGLE, tmp_path / "out", f"{flags} --stratify True")
    assert found["cross_domain"][str(other)]["rows"] == 12
    assert {"temperature", "calibration_error_before", "calibration_error_after"} <= set(found["calibration"])
