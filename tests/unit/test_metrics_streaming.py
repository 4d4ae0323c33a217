"""Batches of a metric wait on disk, give the numbers of the whole, and leave nothing behind."""

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from tiny_models import TEXT, bert_config, bert_tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lm_recipes.evaluation.metrics import class_ids, load, streamed

RNG = np.random.default_rng(0)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "again"]


def some_text() -> str:
    return " ".join(RNG.choice(WORDS, 5))


COLUMNS = {
    "accuracy": {"predictions": RNG.integers(0, 3, 31), "references": RNG.integers(0, 3, 31)},
    "f1": {"predictions": RNG.integers(0, 2, 31), "references": RNG.integers(0, 2, 31)},
    "matthews_correlation": {"predictions": RNG.integers(0, 3, 31), "references": RNG.integers(0, 3, 31)},
    "pearsonr": {"predictions": RNG.random(31), "references": RNG.random(31)},
    "spearmanr": {"predictions": RNG.random(31), "references": RNG.random(31)},
    "seqeval": {
        "predictions": [list(RNG.choice(["O", "B-PER", "I-PER", "B-LOC"], 6)) for _ in range(31)],
        "references": [["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]] * 31,
    },
    "squad_v2": {
        "predictions": [
            {"id": str(i), "prediction_text": some_text(), "no_answer_probability": RNG.random()} for i in range(31)
        ],
        "references": [
            {"id": str(i), "answers": {"text": [some_text()] * (i % 3), "answer_start": [0] * (i % 3)}}
            for i in range(31)
        ],
    },
    "perplexity": {
        "nats": RNG.random(31) * 100,
        "tokens": RNG.integers(1, 99, 31),
        "bytes": RNG.integers(1, 99, 31),
    },
    "rouge": {"predictions": [some_text() for _ in range(31)], "references": [some_text() for _ in range(31)]},
    "sacrebleu": {
        "predictions": [some_text() for _ in range(31)],
        "references": [[some_text() for _ in range(1 + i % 2)] for i in range(31)],
    },
    "chrf": {"predictions": [some_text() for _ in range(31)], "references": [some_text() for _ in range(31)]},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_batches_of_any_size_give_the_numbers_of_the_whole(name):
    columns = {key: list(column) for key, column in COLUMNS[name].items()}
    whole = load(name).compute(**columns)
    metric = load(name)
    for first, last in ((0, 1), (1, 17), (17, 25), (25, 31)):
        metric.add_batch(**{key: column[first:last] for key, column in columns.items()})
    assert len(metric) == 31
    assert metric.compute() == whole
    assert metric.compute(**columns) == whole  # and nothing of the last time is counted again


def test_batches_wait_on_disk_and_not_in_memory():
    metric, ids = load("accuracy"), RNG.integers(0, 9, 2_000)

    def add(batches: int) -> None:
        for _ in range(batches):
            metric.add_batch(predictions=ids, references=torch.from_numpy(ids))

    add(3)
    gc.collect()
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    add(10)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - arrow
    tracemalloc.stop()
    on_disk = sum(file.stat().st_size for file in Path(metric.data_dir).iterdir())
    assert on_disk > 10 * 2 * 4 * len(ids)  # 160 kB
    assert grown < 80_000
    assert metric.compute() == {"accuracy": 1.0}


def test_metrics_of_one_name_side_by_side_do_not_see_each_others_rows():
    first, second = load("accuracy"), load("accuracy")
    first.add_batch(predictions=[0, 1], references=[0, 1])
    second.add_batch(predictions=[0, 1], references=[1, 0])
    first.add_batch(predictions=[1, 1], references=[1, 1])
    assert first.data_dir != second.data_dir
    assert (first.compute()["accuracy"], second.compute()["accuracy"]) == (1.0, 0.0)


def test_files_go_with_the_metric_also_when_computing_failed(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done, failed, left = load("accuracy"), load("pearsonr"), load("accuracy")
    done.compute(predictions=[0], references=[0])
    assert not list(tmp_path.rglob("*.arrow"))
    with pytest.raises(ValueError, match="length at least 2"):
        failed.compute(predictions=[1.0], references=[1.0])
    assert failed.compute(predictions=[1.0, 2.0], references=[2.0, 4.0]) == {"pearsonr": pytest.approx(1.0)}
    left.add_batch(predictions=[0], references=[0])
    assert len(list(tmp_path.iterdir())) == 3
    del done, failed, left
    gc.collect()
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
from lm_recipes.evaluation.metrics import load
unfinished, metric = load("accuracy"), load("accuracy")
for _ in range(50):
    metric.add_batch(predictions=[0], references=[1])
    unfinished.add_batch(predictions=[0], references=[1])
print(metric.compute()["accuracy"])
"""


def test_two_processes_at_once_do_not_collide_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    metric = load("accuracy")
    metric.add_batch(predictions=[1], references=[1])
    environment = os.environ | {"TMPDIR": str(tmp_path), "HF_HOME": str(tmp_path / "home")}
    other = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert other.stdout.strip() == "0.0", other.stderr
    assert "Exception ignored" not in other.stderr
    metric.add_batch(predictions=[1], references=[1])
    assert metric.compute() == {"accuracy": 1.0}
    assert [path.name for path in tmp_path.glob("lm-recipes-metric-*")] == [Path(metric.data_dir).parents[1].name]
    assert not (tmp_path / "home" / "metrics").exists()


@pytest.fixture(scope="module")
def classifier():
    """A tiny encoder with three classes, and 23 rows of different lengths."""
    tokenizer = bert_tokenizer()
    set_seed(3)
    model = AutoModelForSequenceClassification.from_config(bert_config("bert", len(tokenizer), num_labels=3))
    texts = [TEXT[i % 3][i : 30 + i] for i in range(23)]
    rows = [{**tokenizer(text), "labels": i % 3} for i, text in enumerate(texts)]
    return model, DataCollatorWithPadding(tokenizer), Dataset.from_list(rows)


@pytest.mark.parametrize("batch_eval_metrics", [True, False])
def test_trainer_streams_to_metrics_and_gets_the_numbers_of_the_whole(classifier, batch_eval_metrics, tmp_path):
    model, collator, rows = classifier
    seen: list[tuple] = []

    def columns(prediction) -> dict:
        seen.append(tuple(prediction.predictions.shape))
        return {"predictions": prediction.predictions, "references": prediction.label_ids}

    both = evaluate.combine([load("accuracy"), load("f1", average="macro")])
    args = TrainingArguments(
        tmp_path,
        per_device_eval_batch_size=4,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        batch_eval_metrics=batch_eval_metrics,
    )
    trainer = Trainer(
        model,
        args,
        data_collator=collator,
        compute_metrics=streamed(both, columns),
        preprocess_logits_for_metrics=class_ids,
    )
    first, again = trainer.evaluate(rows), trainer.evaluate(rows)
    assert seen[: len(seen) // 2] == ([(4,)] * 5 + [(3,)] if batch_eval_metrics else [(23,)])
    with torch.no_grad():
        said = [int(model(**collator([row])).logits.argmax()) for row in rows.remove_columns("labels")]
    assert len(set(said)) > 1
    expected = load("accuracy").compute(predictions=said, references=rows["labels"][:])["accuracy"]
    assert first["eval_accuracy"] == again["eval_accuracy"] == pytest.approx(expected)
    assert first["eval_f1"] == again["eval_f1"]


def test_trainer_is_given_numbers_only():
    compute_metrics = streamed(load("seqeval"), lambda rows: rows)
    columns = {"predictions": [["B-PER", "O"]], "references": [["B-PER", "O"]]}
    assert compute_metrics(columns, compute_result=False) == {}
    found = compute_metrics(columns)
    assert found == dict.fromkeys(
        ("overall_precision", "overall_recall", "overall_f1", "overall_accuracy"), pytest.approx(1.0)
    )
