"""How sure a classifier may sound, from which probability on it acts, and the page that shows where it is wrong."""

import json

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.metrics import f1_score, log_loss
from tiny_models import bert_config

from lm_recipes.evaluation.calibration import (
    Calibration,
    best_threshold,
    calibration_error,
    fit_temperature,
    place_of_positive,
    reliability,
    sureness,
)
from lm_recipes.evaluation.classification import report
from lm_recipes.launch import UserError
from lm_recipes.reporting.classification import by_class, mistakes, write_report
from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE


def honest(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn by their very softmax: a model that is as sure as it may be."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(rows, classes))
    drawn = (softmax(logits, -1).cumsum(-1) > rng.random((rows, 1))).argmax(-1)
    return logits, drawn


@pytest.mark.parametrize("exaggeration", [0.5, 1.0, 3.0])
def test_the_temperature_takes_an_exaggeration_back(exaggeration):
    logits, truth = honest(4_000, 3)
    assert fit_temperature(exaggeration * logits, truth) == pytest.approx(exaggeration, rel=0.1)


def test_the_temperature_of_several_classes_takes_an_exaggeration_back():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(2_000, 4))
    truth = (expit(logits) > rng.random(logits.shape)).astype(float)
    assert fit_temperature(3 * logits, truth, MULTI) == pytest.approx(3, rel=0.1)


def test_no_other_temperature_has_a_lower_log_loss():
    logits, truth = honest(500, 4, seed=1)
    logits = 2.5 * logits
    found = fit_temperature(logits, truth)

    def loss(temperature: float) -> float:
        return log_loss(truth, softmax(logits / temperature, -1))

    assert all(loss(found) <= loss(found * factor) for factor in (0.7, 0.98, 1.02, 1.5))


def test_certainty_on_a_small_validation_split_is_bounded():
    assert fit_temperature(np.array([[4.0, 0.0], [0.0, 4.0]]), np.array([0, 1])) == pytest.approx(1 / 4, rel=0.01)


def test_the_calibration_error_is_the_gap_and_zero_for_the_honest():
    sure, was_so = np.full(100, 0.9), np.arange(100) < 60
    assert calibration_error(sure, was_so) == pytest.approx(0.3)
    (mean, share, number) = reliability(sure, was_so)[0]
    assert (mean, share, number) == (pytest.approx(0.9), pytest.approx(0.6), 100)
    logits, truth = honest(20_000, 3)
    assert calibration_error(*sureness(softmax(logits, -1), truth)) < 0.02
    assert calibration_error(*sureness(softmax(3 * logits, -1), truth)) > 0.1


def test_bins_reach_to_certainty_and_errors_are_averaged_over_rows():
    assert calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
    assert calibration_error(np.array([1.0, 1.0, 1.0, 0.5]), np.array([1, 1, 1, 0])) == pytest.approx(0.125)


@given(
    probabilities=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 0.7, 0.9, 1.0]), min_size=2, max_size=25),
    seed=st.integers(0, 99),
)
def test_no_other_threshold_has_a_better_f1(probabilities, seed):
    probabilities = np.array(probabilities)
    truth = np.random.default_rng(seed).integers(0, 2, len(probabilities))
    found = best_threshold(probabilities, truth)
    if not truth.any() or truth.all():
        assert found == 0.5
        return

    def score(threshold: float) -> float:
        return f1_score(truth, probabilities >= threshold, zero_division=0)

    assert score(found) >= max(map(score, (0.05, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95))) - 1e-9


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    assert best_threshold(np.array([0.9, 0.6, 0.5, 0.4]), np.array([1, 1, 0, 0])) == pytest.approx(0.55)


@pytest.mark.parametrize("place", [0, 1])
def test_a_rare_class_gets_its_own_threshold_and_is_found_more_often(place):
    rng = np.random.default_rng(0)
    names = ["spam", "ham"] if place == 0 else ["ham", "spam"]
    rare = rng.random(3_000) < 0.08
    truth, logits = np.where(rare, place, 1 - place), np.zeros((3_000, 2))
    logits[:, place] = rng.normal(size=3_000) + 2.5 * rare - 3.5
    assert Calibration.fit(logits, truth, names, SINGLE).thresholds == {}
    calibration = Calibration.fit(logits[:1_500], truth[:1_500], names, SINGLE, "spam")
    effect = calibration.effect(logits[1_500:], truth[1_500:])
    plain = f1_score(truth[1_500:], logits[1_500:].argmax(-1), pos_label=place)
    assert set(calibration.thresholds) == {"spam"}
    assert calibration.thresholds["spam"] < 0.5
    assert effect["with_thresholds"]["f1"] > plain + 0.05
    assert effect["nats_after"] <= effect["nats_before"] + 0.01


@pytest.mark.parametrize(
    ("name", "names", "kind"),
    [("spma", ["ham", "spam"], SINGLE), ("a", ["a", "b", "c"], SINGLE), ("ham", ["ham", "spam"], MULTI)],
)
def test_a_positive_class_that_is_none_of_two_is_refused(name, names, kind):
    assert (place_of_positive("spam", ["ham", "spam"], SINGLE), place_of_positive(None, names, kind)) == (1, 1)
    with pytest.raises(UserError, match=f"--positive_class {name}: names one of two classes; here {names[0]}, "):
        place_of_positive(name, names, kind)


def test_a_calibration_is_kept_beside_the_model_and_answers_as_it_decides(tmp_path):
    kept = Calibration(MULTI, ["joy", "love"], 2.0, {"joy": 0.8, "love": 0.2})
    kept.save(tmp_path)
    assert json.loads((tmp_path / "calibration.json").read_text())["temperature"] == 2.0
    found = Calibration.beside(tmp_path, config=None)
    assert found == kept
    answer = found.answer({"love": -2.0, "joy": 2.0})
    assert answer["labels"] == ["love"]
    assert answer["probabilities"] == {"joy": pytest.approx(expit(1.0)), "love": pytest.approx(expit(-1.0))}


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION, None])
def test_without_a_file_the_answer_is_that_of_the_plain_model(kind, tmp_path):
    names = ["score"] if kind == REGRESSION else ["bad", "good"]
    config = bert_config("bert", 200, id2label=dict(enumerate(names)), problem_type=kind)
    found = Calibration.beside(tmp_path, config)
    if kind == REGRESSION:
        assert found.answer({"score": -2.5}) == {"score": -2.5}
    elif kind == MULTI:
        assert found.answer({"bad": -1.0, "good": 1.0})["labels"] == ["good"]
    else:
        answer = found.answer({"bad": 1.0, "good": 0.0})
        assert answer["label"] == "bad"
        assert answer["score"] == pytest.approx(expit(1.0))
        assert list(answer["probabilities"]) == ["bad", "good"]


# --- the page ---


def test_recall_and_precision_of_each_class():
    found = by_class([[8, 2], [0, 0]], ["no", "yes"])
    assert found == [
        {"name": "no", "rows": 10, "recall": 0.8, "precision": 1.0},
        {"name": "yes", "rows": 0, "recall": None, "precision": 0.0},
    ]


def test_mistakes_are_those_it_was_surest_of():
    rows = Dataset.from_dict({"text": ["a", "b", "c", "d"], "pair": ["A", "B", "C", "D"]})
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 5.0]])
    found = mistakes(rows, logits, np.array([1, 0, 0, 1]), Calibration(SINGLE, ["no", "yes"]))
    assert [(one["text"], one["pair"], one["truth"], one["said"]) for one in found] == [
        ("a", "A", "yes", "no"), ("c", "C", "no", "yes"), ("b", "B", "no", "yes"),
    ]  # fmt: skip
    assert found[0]["sure"] == pytest.approx(expit(3.0))


def test_mistakes_of_other_problems():
    rows = Dataset.from_dict({"text": ["a", "b"]})
    several = mistakes(
        rows, np.array([[3.0, -1.0], [1.0, 1.0]]), np.array([[0, 1], [1, 1]]), Calibration(MULTI, ["x", "y"])
    )
    assert [(one["text"], one["truth"], one["said"]) for one in several] == [("a", "not x", "x"), ("a", "y", "not y")]
    numbers = mistakes(rows, np.array([[1.0], [5.0]]), np.array([1.5, 2.0]), Calibration(REGRESSION, ["score"]))
    assert [(one["text"], one["truth"], one["said"]) for one in numbers] == [("b", "2", "5"), ("a", "1.5", "1")]


@pytest.mark.parametrize("kind", [SINGLE, MULTI, REGRESSION])
def test_the_page_shows_texts_as_text_and_every_section(kind, tmp_path):
    logits, classes = honest(40, 3)
    truth = {SINGLE: classes, MULTI: np.eye(3)[classes], REGRESSION: classes.astype(float)}[kind]
    logits = logits[:, :1] if kind == REGRESSION else logits
    names = ["score"] if kind == REGRESSION else ["no", "<b>yes</b>", "perhaps"]
    calibration = Calibration.fit(logits, truth, names, kind)
    said = {split: calibration.decide(logits) for split in ("validation", "test")}
    metrics = report({0: said}, {"validation": truth, "test": truth}, names, kind)
    metrics |= {"calibration": calibration.effect(logits, truth), "cross_domain": {"demo:tweets": metrics["test"]}}
    rows = Dataset.from_dict({"text": [f"<script>alert({i})</script>" for i in range(40)]})
    metrics["baselines"] = {"majority": 0.25}
    write_report(tmp_path, "Classifier", "a result", metrics, rows, logits, truth, calibration)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;alert(" in page
    assert "<script>" not in page
    assert "<b>yes" not in page
    assert "demo:tweets" in page
    assert "always the commonest class: 0.250" in page
    assert page.count("<svg") == (0 if kind == REGRESSION else 2)
    assert ("Which class is taken for which" in page) == (kind == SINGLE)
    assert ("F1 of each class" in page) == (kind == MULTI)
