"""Metrics of labels, answers and likelihoods give the numbers of the libraries and definitions they stand for."""

import math
import sys
import warnings

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from lm_recipes.evaluation.classification import classification_metrics
from lm_recipes.evaluation.held_out import bits_per_byte
from lm_recipes.evaluation.metrics import METRICS, load
from lm_recipes.evaluation.metrics.answers import normalize_answer
from lm_recipes.launch import UserError

few = settings(max_examples=25, deadline=None)
class_pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)
number_pairs = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=30)


@few
@given(class_pairs)
def test_metrics_of_classes_are_scikit_learns(pairs):
    said, wanted = map(list, zip(*pairs, strict=True))
    columns = {"predictions": said, "references": wanted}
    assert load("accuracy").compute(**columns) == {"accuracy": sklearn_metrics.accuracy_score(wanted, said)}
    for average in ("macro", "micro", "weighted"):
        expected = sklearn_metrics.f1_score(wanted, said, average=average, zero_division=0)
        assert load("f1", average=average).compute(**columns) == {"f1": expected}
    found = load("matthews_correlation").compute(**columns)
    assert found == {"matthews_correlation": sklearn_metrics.matthews_corrcoef(wanted, said)}


@few
@given(st.lists(st.tuples(*[st.integers(0, 1)] * 6), min_size=1, max_size=20))
def test_several_labels_a_row_are_scored_as_by_scikit_learn(rows):
    said, wanted = [list(row[:3]) for row in rows], [list(row[3:]) for row in rows]
    columns = {"predictions": said, "references": wanted}
    expected = sklearn_metrics.f1_score(np.array(wanted), np.array(said), average="macro", zero_division=0)
    assert load("f1", "multilabel", average="macro").compute(**columns)["f1"] == expected
    right = np.mean([a == b for a, b in zip(said, wanted, strict=True)])
    assert load("accuracy", "multilabel").compute(**columns)["accuracy"] == pytest.approx(right)


@few
@given(number_pairs)
def test_correlations_are_scipys_to_the_last_digit(pairs):
    said, wanted = map(list, zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant series
        for name in ("pearsonr", "spearmanr"):
            found = load(name).compute(predictions=said, references=wanted)[name]
            assert found == pytest.approx(getattr(stats, name)(wanted, said).statistic, rel=1e-12, nan_ok=True)


def test_f1_of_each_class_is_a_list_and_options_of_compute_win_over_those_of_load():
    columns = {"predictions": [0, 2, 1, 0], "references": [0, 1, 1, 0]}
    assert load("f1", average=None).compute(**columns) == {"f1": [1.0, pytest.approx(2 / 3), 0.0]}
    assert load("f1", average=None).compute(**columns, average="micro") == {"f1": 0.75}


def test_the_numbers_of_a_classifier_report_are_these_metrics():
    said, wanted = np.random.default_rng(0).integers(0, 4, (2, 200))
    columns = {"predictions": said, "references": wanted}
    assert classification_metrics(said, wanted) == {
        "accuracy": load("accuracy").compute(**columns)["accuracy"],
        "macro_f1": load("f1", average="macro").compute(**columns)["f1"],
        "matthews_correlation": load("matthews_correlation").compute(**columns)["matthews_correlation"],
    }


def test_metrics_combine_as_evaluates_own_do():
    both = evaluate.combine([load("accuracy"), load("f1", average="macro")])
    both.add_batch(predictions=[0, 1], references=[0, 1])
    both.add_batch(predictions=[1, 1], references=[0, 1])
    assert both.compute() == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 4 / 5) / 2)}


def test_an_unknown_name_or_configuration_is_refused_with_those_there_are():
    with pytest.raises(UserError) as refusal:
        load("rogue")
    assert all(name in str(refusal.value) for name in ("`rogue`", *METRICS))
    with pytest.raises(UserError, match="no configuration `multilabels`; there is default, multilabel"):
        load("f1", "multilabels")


def test_a_misspelt_option_is_refused_before_anything_is_evaluated():
    with pytest.raises(TypeError, match="no_answer_treshold"):
        load("squad_v2", no_answer_treshold=0.5)


def test_a_library_that_is_not_installed_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    for name in ("lm_recipes.evaluation.metrics.tags", "seqeval.metrics", "seqeval.scheme"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=r"`seqeval` needs seqeval.*: pip install -e '.\[metrics\]'"):
        load("seqeval")


def test_logits_in_place_of_class_ids_and_columns_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="expected format"):
        load("accuracy").add_batch(predictions=np.zeros((2, 3)), references=[0, 1])
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        load("accuracy").add_batch(predictions=[0, 1, 1], references=[0, 1])


# ---- answers


def questions(*rows: tuple) -> dict[str, list[dict]]:
    """The columns of (predicted text, probability of no answer, right answers)."""
    return {
        "predictions": [
            {"id": f"q{i}", "prediction_text": said, "no_answer_probability": silent}
            for i, (said, silent, _) in enumerate(rows)
        ],
        "references": [
            {"id": f"q{i}", "answers": {"text": list(wanted), "answer_start": [0] * len(wanted)}}
            for i, (_, _, wanted) in enumerate(rows)
        ],
    }


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  An  apple\ta day\n", "apple day"),
        ("U.S.A.", "usa"),
        ("the-end", "theend"),  # punctuation goes first, so this is no article any more
        ("theory, another", "theory another"),
        ("a\u00a0cat", "cat"),
        ("vitamin A", "vitamin"),
        ("$3.5 million", "35 million"),
        ("“Beyoncé’s”", "“beyoncé’s”"),  # only ASCII punctuation
        ("ΑΘΗΝΑ", "αθηνα"),
        ("The", ""),
    ],
)
def test_answers_are_normalised_as_squad_does(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("said", "answers", "exact", "f1"),
    [
        ("the Eiffel Tower", ["Eiffel Tower."], 100, 100),
        ("Eiffel Tower", ["the Eiffel Tower in Paris"], 0, 200 / 3),
        ("Paris", ["Rome", "in Paris", "Paris, France"], 0, 200 / 3),
        ("to be or not to be", ["to be"], 0, 50),  # words count as often as they stand there
        ("Beyonce", ["Beyoncé"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("", [], 100, 100),
        ("Paris", [], 0, 0),
        ("the", [], 100, 100),  # nothing is left of it
        ("Paris", ["a", "Paris"], 100, 100),
    ],
)
def test_an_answer_scores_as_by_hand(said, answers, exact, f1):
    found = load("squad_v2").compute(**questions((said, 0.0, answers)))
    kind = "HasAns" if answers else "NoAns"
    assert (found["exact"], found["f1"]) == (exact, pytest.approx(f1))
    assert (found[f"{kind}_exact"], found[f"{kind}_f1"], found[f"{kind}_total"]) == (exact, pytest.approx(f1), 1)
    assert not any(key.startswith("NoAns" if answers else "HasAns") for key in found)


def test_questions_with_and_without_answers_are_counted_apart_and_the_threshold_silences():
    columns = questions(("Paris", 0.1, ["Paris"]), ("Rome", 0.9, []), ("Bonn", 0.6, ["Berlin"]), ("", 0.2, []))
    found = load("squad_v2").compute(**columns)
    assert (found["exact"], found["HasAns_exact"], found["NoAns_exact"]) == (50, 50, 50)
    assert (found["total"], found["HasAns_total"], found["NoAns_total"]) == (4, 2, 2)
    assert (found["best_exact"], found["best_exact_thresh"]) == (75, 0.1)
    assert load("squad_v2", no_answer_threshold=0.5).compute(**columns)["exact"] == 75


def test_predictions_and_references_meet_by_id():
    columns = questions(("Paris", 0.0, ["Paris"]), ("Rome", 0.0, ["Bonn"]), ("", 0.0, []))
    columns["predictions"].reverse()
    assert load("squad_v2").compute(**columns)["exact"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (0, "q9", "`q0` is among the references only"),
        (0, "q1", "question `q1` is among the predictions more than once"),
    ],
)
def test_a_question_without_a_prediction_or_with_two_is_refused(place, name, said):
    columns = questions(("Paris", 0.0, ["Paris"]), ("Rome", 0.0, ["Bonn"]))
    columns["predictions"][place]["id"] = name
    with pytest.raises(UserError, match=said):
        load("squad_v2").compute(**columns)


TEXTS = ("", "paris", "the paris", "in paris france", "a")
probabilities = st.sampled_from([0.0, 0.1, 0.3, 0.30000001, 1.0])
answer_rows = st.tuples(st.sampled_from(TEXTS), probabilities, st.lists(st.sampled_from(TEXTS[1:4]), max_size=2))


@few
@given(st.lists(answer_rows, min_size=1, max_size=8))
def test_no_threshold_is_better_than_the_best_and_the_best_gives_what_it_says(rows):
    columns = questions(*rows)
    found = load("squad_v2").compute(**columns)
    tried = {
        threshold: load("squad_v2", no_answer_threshold=threshold).compute(**columns)
        for threshold in {0.0, *(silent for _, silent, _ in rows)}
    }
    for name in ("exact", "f1"):
        assert found[f"best_{name}"] == pytest.approx(max(scores[name] for scores in tried.values()))
        assert tried[found[f"best_{name}_thresh"]][name] == pytest.approx(found[f"best_{name}"])


# ---- likelihood


def test_a_uniform_guess_has_the_perplexity_of_its_vocabulary():
    found = load("perplexity").compute(nats=[300 * math.log(512)], tokens=[300], bytes=[900])
    assert found["perplexity"] == pytest.approx(512)
    assert found["nats_per_token"] == pytest.approx(math.log(512))
    assert found["bits_per_byte"] == pytest.approx(300 * 9 / 900)  # 9 bits a token, 3 bytes a token
    assert (found["tokens"], found["bytes"]) == (300, 900)


@few
@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 500), st.integers(1, 4)), min_size=1, max_size=20))
def test_bits_per_byte_are_the_nats_of_whole_texts_by_their_utf8(rows):
    texts = ["é" * tokens * times for _, tokens, times in rows]
    metric = load("perplexity")
    for (nats, tokens, _), text in zip(rows, texts, strict=True):
        metric.add_batch(nats=[nats], tokens=[tokens], bytes=[len(text.encode())])
    found = metric.compute()
    assert found["bits_per_byte"] == pytest.approx(bits_per_byte(math.fsum(row[0] for row in rows), texts))
    assert found["tokens"] == sum(row[1] for row in rows)


def test_nothing_counted_is_refused_and_a_lost_model_has_no_perplexity_but_no_error():
    with pytest.raises(UserError, match="0 tokens and 0 bytes"):
        load("perplexity").compute(nats=[0.0], tokens=[0], bytes=[0])
    with np.errstate(over="ignore"):
        assert load("perplexity").compute(nats=[1e6], tokens=[10], bytes=[10])["perplexity"] == math.inf
