"""Numbers of a classifier, what they are compared with, and the rows they are measured on."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score
from tiny_models import bert_config, bert_tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lm_recipes.evaluation.baselines import classification_baselines
from lm_recipes.evaluation.classification import (
    classification_metrics,
    decide,
    f1_of_classes,
    in_words,
    interval,
    logits_of,
    metric_interval,
    multi_label_metrics,
    regression_metrics,
    report,
)
from lm_recipes.launch import UserError
from lm_recipes.sources.labelled import MULTI, REGRESSION, few_labels, load_labelled, read_class_names
from lm_recipes.tokenization.rows import tokenize_rows

SIZES = {"train": 90, "validation": 30, "test": 30}


def test_macro_f1_and_matthews_see_what_accuracy_hides():
    references = np.array([0] * 90 + [1] * 10)
    lazy = classification_metrics(np.zeros(100, dtype=int), references)
    assert lazy["accuracy"] == 0.9
    assert lazy["macro_f1"] < 0.5
    assert lazy["matthews_correlation"] == 0


@pytest.mark.parametrize(("accuracy", "rows"), [(0.5, 1000), (0.8, 1000), (0.9, 400)])
def test_the_bootstrap_interval_has_the_width_of_the_binomial(accuracy, rows):
    correct = np.arange(rows) < accuracy * rows
    low, high = interval(correct)
    expected = 2 * 1.96 * np.sqrt(accuracy * (1 - accuracy) / rows)
    assert low < accuracy < high
    assert high - low == pytest.approx(expected, rel=0.1)


def test_the_interval_of_several_models_resamples_rows_and_not_answers():
    rng = np.random.default_rng(0)
    one = rng.random(500) < 0.7
    same_three_times = np.stack([one, one, one])
    independent = rng.random((3, 500)) < 0.7
    single, repeated, pooled = map(interval, (one, same_three_times, independent))
    assert repeated == single  # three copies of one answer are no new evidence
    assert pooled[1] - pooled[0] < 0.8 * (single[1] - single[0])


def test_a_perfect_score_has_an_interval_and_no_nan():
    assert interval(np.ones(20)) == (1.0, 1.0)


def test_the_saved_seed_is_chosen_on_validation_and_confusion_rows_are_the_truth():
    references = {"validation": np.array([0, 1, 1, 0]), "test": np.array([0, 1, 1, 1])}
    guesses = {
        7: {"validation": np.array([0, 1, 1, 0]), "test": np.array([1, 1, 1, 0])},  # best on validation
        8: {"validation": np.array([1, 1, 1, 0]), "test": np.array([0, 1, 1, 1])},  # best on test
    }
    metrics = report(guesses, references, ["no", "yes"])
    assert metrics["saved_seed"] == 7
    assert metrics["confusion"] == [[0, 1], [1, 2]]
    assert metrics["per_seed"] == [
        {"seed": 7, "validation": 1.0, "test": 0.5},
        {"seed": 8, "validation": 0.75, "test": 1.0},
    ]
    assert metrics["test"]["accuracy"] == 0.75
    assert metrics["test"]["accuracy_low"] <= 0.75 <= metrics["test"]["accuracy_high"]


def several(rows: int, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True classes of each row, 0/1 `[N, C]`, and guesses of which so many are turned over."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, classes)) < np.linspace(0.05, 0.5, classes)).astype(int)
    return np.where(rng.random(truth.shape) < share, 1 - truth, truth), truth


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_multi_label_metrics_are_those_of_sklearn(share):
    said, truth = several(200, 6, share, seed=1)
    truth[:, 0] = 0  # a class that is nowhere
    found = multi_label_metrics(said, truth)
    for average in ("macro", "micro"):
        expected = f1_score(truth, said, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)
    assert f1_of_classes(said, truth) == pytest.approx(f1_score(truth, said, average=None, zero_division=0), abs=1e-12)
    assert found["exact_match"] == np.mean([list(one) == list(other) for one, other in zip(said, truth, strict=True)])


def test_regression_metrics_are_those_of_scipy_and_a_constant_has_no_correlation():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 300) / 2  # with ties
    said = truth + rng.normal(size=300)
    found = regression_metrics(said, truth)
    assert found["pearson"] == pytest.approx(stats.pearsonr(said, truth).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(said, truth).statistic)
    assert found["root_mean_squared_error"] == pytest.approx(np.sqrt(np.mean((said - truth) ** 2)))
    assert regression_metrics(np.ones(300), truth)["spearman"] == 0.0


def test_what_logits_say():
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, -1.0, -0.1]])
    assert decide(logits, "single_label_classification").tolist() == [0, 2]
    assert decide(logits, MULTI).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert decide(logits[:, :1], REGRESSION).tolist() == [2.0, -3.0]


def test_of_two_classes_the_f1_of_the_one_that_is_looked_for_is_reported():
    said, true = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 1, 1])
    for positive in (0, 1):
        found = classification_metrics(said, true, classes=2, positive=positive)["f1"]
        assert found == pytest.approx(f1_score(true, said, pos_label=positive))
        assert found == pytest.approx((1 / 2, 2 / 3)[positive])
    assert "f1" not in classification_metrics(np.array([0, 1]), np.array([0, 1]), classes=3)


def test_the_interval_of_a_mean_is_the_same_by_both_ways_of_drawing_rows():
    rng = np.random.default_rng(0)
    right = (rng.random((2, 400)) < 0.8).astype(int)
    by_mean = interval(right)
    by_metric = metric_interval(lambda said, true: float(np.mean(said == true)), right, np.ones(400, dtype=int))
    assert by_metric == pytest.approx(by_mean, abs=0.006)


@pytest.mark.parametrize("kind", [MULTI, REGRESSION])
def test_the_report_of_other_problems_has_their_main_score_with_an_interval(kind):
    if kind == MULTI:
        said, truth = several(120, 3, 0.2, seed=0)
        names, main = ["joy", "love", "fear"], "macro_f1"
    else:
        truth = np.linspace(-4, 4, 120)
        said, names, main = truth + np.random.default_rng(0).normal(size=120), ["score"], "spearman"
    references = {"validation": truth, "test": truth, "tweets": truth[:50]}
    guesses = {0: {"validation": said, "test": said, "tweets": said[:50]}}
    found = report(guesses, references, names, kind)
    assert found["test"][f"{main}_low"] < found["test"][main] < found["test"][f"{main}_high"]
    assert found["per_seed"] == [{"seed": 0, "validation": found["test"][main], "test": found["test"][main]}]
    assert found["tweets"]["rows"] == 50
    assert "confusion" not in found
    assert f"{found['test'][main]:.3f} on 120 test rows (95 %:" in in_words(found["test"], kind)
    assert in_words(found["test"], kind, seeds=3).endswith("), mean of 3 seeds")


def test_baselines_of_other_problems_use_words():
    def split(n, label):
        rows = [{"text": f"{'awful' if i % 3 else 'fine'} film, {'sad' if i % 2 else 'glad'} {i}"} for i in range(n)]
        return Dataset.from_list([row | {"labels": label(i)} for i, row in enumerate(rows)])

    several = {name: split(n, lambda i: [float(i % 3 > 0), float(i % 2)]) for name, n in SIZES.items()}
    assert classification_baselines(several, MULTI)["tfidf_logistic_regression"] == 1.0
    numbers = {name: split(n, lambda i: 2.0 * (i % 3 > 0) + i % 2) for name, n in SIZES.items()}
    assert classification_baselines(numbers, REGRESSION)["tfidf_ridge"] > 0.9


def test_baselines_use_words_and_beat_the_majority_where_words_tell():
    def split(n):
        labels = [i % 3 == 0 for i in range(n)]
        texts = [f"{'awful dull' if label else 'lovely bright'} film number {i}" for i, label in enumerate(labels)]
        return Dataset.from_dict({"text": texts, "labels": [int(label) for label in labels]})

    found = classification_baselines({"train": split(90), "validation": split(30), "test": split(30)})
    assert found == {"majority": pytest.approx(2 / 3), "tfidf_logistic_regression": 1.0}


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_predictions_come_in_dataset_order_and_do_not_depend_on_batches(kind, tmp_path):
    tokenizer = bert_tokenizer()
    set_seed(3)
    model = AutoModelForSequenceClassification.from_config(bert_config(kind, len(tokenizer), num_labels=3))
    texts = ["the quick brown fox jumps over the lazy dog"[i % 7 : i % 7 + 3 + i] for i in range(23)]
    rows = DatasetDict({"train": Dataset.from_dict({"text": texts, "labels": [0] * 23})})
    data, _ = tokenize_rows(rows, tokenizer, 16)
    guesses = []
    for batch_size in (1, 8):
        args = TrainingArguments(tmp_path, per_device_eval_batch_size=batch_size, use_cpu=True)
        trainer = Trainer(model, args, data_collator=DataCollatorWithPadding(tokenizer))
        guesses.append(logits_of(trainer, data["train"]).argmax(-1).tolist())
    one_by_one = [
        int(model.eval()(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt")).logits.argmax())
        for text in texts
    ]
    assert guesses == [one_by_one, one_by_one]
    assert len(set(one_by_one)) > 1


def test_rows_cut_at_max_length_are_counted():
    tokenizer = bert_tokenizer()
    texts = ["the fox", "the fox jumps over the lazy dog", "the dog barks"]
    rows = DatasetDict({"train": Dataset.from_dict({"text": texts, "labels": [0, 1, 0]})})
    whole, none_cut = tokenize_rows(rows, tokenizer, 64)
    exactly = max(whole["train"]["length"])
    assert none_cut == 0
    assert tokenize_rows(rows, tokenizer, exactly)[1] == 0
    data, cut = tokenize_rows(rows, tokenizer, exactly - 1)
    assert cut == 1
    assert max(data["train"]["length"]) == exactly - 1
    paired = DatasetDict({"train": rows["train"].add_column("pair", texts)})
    assert tokenize_rows(paired, tokenizer, 10)[1] == 1


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["pos", "neg", "pos", "neg"], ["neg", "pos"]),
        ([10, 9, 10, 9], ["9", "10"]),
        ([True, False, True, False], ["False", "True"]),
        ([4.0, 5.0, 4.0, 5.0], ["4.0", "5.0"]),
    ],
)
def test_labels_of_any_type_become_named_classes(values, names):
    assert read_class_names([Dataset.from_dict({"y": values})], "s", "y") == names


def test_a_class_label_column_keeps_its_own_order():
    table = Dataset.from_dict({"y": [0, 1]}).cast_column("y", ClassLabel(names=["ham", "eggs"]))
    assert read_class_names([table], "s", "y") == ["ham", "eggs"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}] * 20, "row 2: `label` is empty"),
        ([{"text": "a", "label": "x"}, {"text": " ", "label": "y"}] * 20, "row 2: no text in `text`"),
        ([{"text": f"a{i}", "label": i / 7} for i in range(40)], "holds 40 different values in 40 rows"),
        ([{"text": f"a{i}", "label": "x"} for i in range(40)], "holds 1 different values"),
        ([{"text": f"a{i}", "label": [1]} for i in range(40)], "row 1: `label` is a list"),
        ([{"body": f"a{i}", "label": i % 2} for i in range(40)], "no column `text`; it has body, label"),
        ([{"text": f"a{i}", "sentiment": i % 2} for i in range(40)], "no column `label`; it has text, sentiment"),
        ([{"text": f"a{i % 2}", "label": i % 2} for i in range(40)], "no rows for the"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused_by_row_and_column(rows, said, tmp_path):
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=said) as refusal:
        load_labelled(source)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(source)


def test_a_class_without_training_rows_is_refused(tmp_path):
    rows = [{"text": f"a{i}", "label": i % 2} for i in range(40)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "test.jsonl", [{"text": "new", "label": 2}, {"text": "old", "label": 0}])
    with pytest.raises(UserError, match="class `2` of `label` has no training row"):
        load_labelled(str(tmp_path), own_splits={"train": "train", "test": "test"}, validation=0.3)


def test_own_splits_are_kept_and_training_rows_that_stand_in_them_are_left_out(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"text": f"Film {i}", "label": i % 2} for i in range(40)])
    write_rows(tmp_path / "test.jsonl", [{"text": "film  7", "label": 1}, {"text": "other", "label": 0}])
    rows, _ = load_labelled(str(tmp_path), own_splits={"train": "train", "test": "test"}, validation=0.3)
    assert rows["test"]["text"] == ["film  7", "other"]
    assert len(rows["train"]) + len(rows["validation"]) == 39
    assert "Film 7" not in [*rows["train"]["text"], *rows["validation"]["text"]]


@settings(max_examples=30)
@given(order=st.permutations(range(30)))
def test_splits_do_not_depend_on_order_and_copies_never_straddle_them(order, tmp_path_factory):
    rows = [{"text": f"{'The' if i < 15 else ' the '} film {i % 15}", "label": i % 2} for i in range(30)]
    rows = [{**row, "label": int(row["text"].split()[-1]) % 2} for row in rows]
    source = write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", [rows[i] for i in order])
    splits, _ = load_labelled(source, validation=0.25, test=0.25)
    numbers = {name: {text.split()[-1] for text in table["text"]} for name, table in splits.items()}
    assert sum(map(len, numbers.values())) == 15
    for table in splits.values():
        assert len(table) == 2 * len({text.split()[-1] for text in table["text"]})


def numbered(films: range, rare: int | None = None) -> Dataset:
    """Texts of two classes; with `rare` only that film is of the second."""
    labels = [i % 2 if rare is None else int(i == rare) for i in films]
    return Dataset.from_dict({"text": [f"film {i}" for i in films], "labels": labels})


def test_few_labels_are_the_same_rows_in_any_order_and_more_of_them_keep_them():
    rows, reversed_rows = numbered(range(200)), numbered(range(199, -1, -1))
    few, more = (few_labels(rows, number, 0) for number in (50, 51))
    assert len(few) == 50
    assert set(few) < set(more)
    assert {199 - row for row in few_labels(reversed_rows, 50, 0)} == set(few)


def test_another_seed_draws_other_rows_and_none_is_left_out_where_all_are_asked_for():
    rows = numbered(range(200))
    assert 20 < len(set(few_labels(rows, 100, 0)) & set(few_labels(rows, 100, 1))) < 80
    assert few_labels(rows, None, 0) == few_labels(rows, 200, 0) == list(range(200))


@pytest.mark.parametrize(
    ("number", "said"), [(0, "there are 40 rows"), (41, "there are 40 rows"), (9, "1 classes are")]
)
def test_more_labels_than_there_are_and_a_class_that_is_not_among_the_few_are_refused(number, said):
    rows = numbered(range(40))
    last = next(row for row in range(40) if row not in few_labels(rows, 9, 0))
    with pytest.raises(UserError, match=said):
        few_labels(numbered(range(40), rare=last), number, 0)
