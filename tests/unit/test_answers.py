"""From logits to answers: the best spans, when none is given, and how they are counted."""

import itertools
import math

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.evaluation.answer_scores import (
    best_scores,
    choose_threshold,
    exact_and_f1,
    in_words,
    report,
    scores_of,
    summary,
    worst_answers,
)
from lm_recipes.evaluation.answers import Answered, Asking, Span, asking_of, find_answers, rank, save_asking
from lm_recipes.evaluation.choices import in_words as choices_in_words
from lm_recipes.evaluation.choices import report as choice_report
from lm_recipes.evaluation.metrics import load as load_metric
from lm_recipes.evaluation.question_baselines import answer_baselines, choice_baselines, rarity, sliding_window
from lm_recipes.launch import UserError

CONTEXT = "ab cd  ef gh ij kl"
TOKENS = [[0, 2], [3, 5], [7, 9], [10, 12], [13, 15], [16, 18]]
OUTSIDE = [-1, -1]


def window(first: int, last: int) -> list[list[int]]:
    """[CLS] q q [SEP] tokens [SEP]"""
    return [OUTSIDE] * 4 + TOKENS[first:last] + [OUTSIDE]


def as_dataset(windows: list[list[list[int]]], row: int = 0) -> Dataset:
    return Dataset.from_dict({"row": [row] * len(windows), "offsets": windows, "cls": [0] * len(windows)})


def brute_force(logits: list[np.ndarray], windows: list[list[list[int]]], longest: int) -> dict[tuple[int, int], float]:
    """Every allowed span and its score, one by one."""
    scores: dict[tuple[int, int], float] = {}
    for both, offsets in zip(logits, windows, strict=True):
        null = float(both[0, 0]) + float(both[1, 0])
        for first, last in itertools.product(range(len(offsets)), repeat=2):
            inside = offsets[first] != OUTSIDE and offsets[last] != OUTSIDE
            if inside and first <= last < first + longest:
                place = (offsets[first][0], offsets[last][1])
                score = float(both[0, first]) + float(both[1, last]) - null
                scores[place] = max(score, scores.get(place, -math.inf))
    return scores


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.sampled_from([[(0, 6)], [(0, 4), (2, 6)], [(0, 2), (2, 6)]]))
@settings(deadline=None)
def test_the_best_spans_and_their_probabilities_are_those_of_trying_every_span(seed, longest, cuts):
    rng = np.random.default_rng(seed)
    windows = [window(*cut) for cut in cuts]
    logits = [rng.normal(0, 3, (2, len(offsets))).astype(np.float32) for offsets in windows]
    expected = brute_force(logits, windows, longest)
    (found,) = find_answers(logits, as_dataset(windows), [CONTEXT], longest, n_best=100)
    assert {(span.start, span.end) for span in found.spans} == set(expected)
    total = 1 + sum(math.exp(score) for score in expected.values())
    for span in found.spans:
        assert span.text == CONTEXT[span.start : span.end]
        assert span.score == pytest.approx(expected[span.start, span.end], abs=1e-4)
        assert span.probability == pytest.approx(math.exp(span.score) / total, rel=1e-3)
    assert [span.score for span in found.spans] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)
    assert found.no_answer_probability + sum(span.probability for span in found.spans) == pytest.approx(1)
    best = find_answers(logits, as_dataset(windows), [CONTEXT], longest, n_best=2)[0]
    assert best.spans == found.spans[:2]
    assert best.no_answer_probability == found.no_answer_probability


def test_no_answer_crosses_windows_or_enters_the_question_however_likely_that_is():
    windows = [window(0, 3), window(3, 6)]
    logits = [np.zeros((2, len(offsets)), dtype=np.float32) for offsets in windows]
    logits[0][:, 1:3] = 50  # the question
    logits[0][0, 5], logits[1][1, 5] = 20, 20  # starts in the first window, ends in the second
    (found,) = find_answers(logits, as_dataset(windows), [CONTEXT], 30, n_best=100)
    assert len(found.spans) == 12
    for span in found.spans:
        assert span.end <= TOKENS[2][1] or span.start >= TOKENS[3][0]
        assert span.score <= 20


def test_windows_of_one_question_are_compared_by_what_they_say_of_no_answer():
    windows = [window(0, 3), window(3, 6)]
    logits = [np.zeros((2, len(offsets)), dtype=np.float32) for offsets in windows]
    logits[0][:, 4] = 9  # louder,
    logits[0][:, 0] = 10  # but less sure than of no answer
    logits[1][:, 4] = 3
    (found,) = find_answers(logits, as_dataset(windows), [CONTEXT], 30)
    assert found.spans[0].text == "gh"
    assert found.spans[0].score == pytest.approx(6)


def test_questions_keep_their_own_windows_in_any_order():
    rows = Dataset.from_dict(
        {"row": [1, 0, 1], "offsets": [window(0, 3), window(0, 6), window(3, 6)], "cls": [0, 0, 0]}
    )
    logits = [np.zeros((2, len(offsets)), dtype=np.float32) for offsets in rows["offsets"]]
    logits[1][:, 5], logits[2][:, 4] = 5, 7
    first, second = find_answers(logits, rows, [CONTEXT, CONTEXT], 30)
    assert (first.spans[0].text, second.spans[0].text) == ("cd", "gh")


def test_a_window_without_context_gives_no_answer():
    empty = (np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    found = rank([empty, empty], "", 5)
    assert found == Answered((), 1.0)
    assert found.text(None) == found.text(3.0) == ""


# --- when is no answer given? ---


def answered(score: float, text: str = "ab") -> Answered:
    return Answered((Span(text, 0, len(text), score, 0.5),), 0.5)


def test_no_answer_is_given_where_it_is_likelier_by_more_than_the_threshold():
    found = answered(-2.0)
    assert found.null_score_diff == 2.0
    assert found.text(2.0) == "ab"
    assert found.text(1.9) == ""
    assert found.text(None) == "ab"


def test_the_threshold_lies_between_what_has_an_answer_and_what_has_none():
    found = [answered(3.0), answered(1.0), answered(-1.0), answered(-2.0)]
    threshold = choose_threshold(found, [["ab"], ["ab"], [], []])
    assert threshold == 0.0
    assert [one.text(threshold) for one in found] == ["ab", "ab", "", ""]


def test_without_a_question_that_has_no_answer_every_question_is_answered():
    assert choose_threshold([answered(-5.0), answered(1.0)], [["ab"], ["ab"]]) is None


def test_where_answering_every_question_is_best_there_is_no_threshold():
    surest_has_none = [answered(5.0), answered(1.0), answered(1.0)]
    assert choose_threshold(surest_has_none, [[], ["ab"], ["ab"]]) is None


def test_a_model_that_knows_nothing_is_made_to_keep_silent():
    found = [answered(score, "wrong") for score in (3.0, 1.0, -1.0)]
    threshold = choose_threshold(found, [["right"], [], []])
    assert [one.text(threshold) for one in found] == ["", "", ""]


@given(
    st.lists(
        st.tuples(st.integers(-4, 4), st.sampled_from(["ab", "ab cd", "no"]), st.sampled_from([["ab"], ["ab cd"], []])),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None)
def test_no_other_threshold_does_better_on_validation(rows):
    found = [answered(float(score), text) for score, text, _ in rows]
    right = [texts for *_, texts in rows]
    questions = Dataset.from_dict({"answers": [{"text": texts, "answer_start": [0] * len(texts)} for texts in right]})

    def f1(threshold: float | None) -> float:
        return float(scores_of(found, questions, threshold)[1].mean())

    chosen = choose_threshold(found, right)
    if all(right):
        assert chosen is None
    else:
        assert f1(chosen) == pytest.approx(max(map(f1, [None, *np.arange(-6, 6, 0.5)])))
        assert best_scores(found, questions)["f1"] == f1(chosen)


# --- how good is it? ---


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("the Paris!", ["paris"], (1.0, 1.0)),
        ("Paris, France", ["Paris", "Paris, France (the city)"], (0.0, 0.8)),
        ("Rome", ["Paris"], (0.0, 0.0)),
        ("", ["Paris"], (0.0, 0.0)),
        ("", [], (1.0, 1.0)),
        ("Paris", [], (0.0, 0.0)),
    ],
)
def test_answers_are_compared_as_squad_compares_them(said, answers, expected):
    assert exact_and_f1(said, answers) == pytest.approx(expected)


def asked(right: list[list[str]], split: str = "t") -> Dataset:
    return Dataset.from_dict(
        {
            "id": [f"{split}{number}" for number in range(len(right))],
            "question": [f"Question {number}?" for number in range(len(right))],
            "context": [CONTEXT] * len(right),
            "answers": [{"text": texts, "answer_start": [0] * len(texts)} for texts in right],
        }
    )


@given(
    st.lists(
        st.tuples(
            st.integers(-3, 3),
            st.sampled_from(["ab", "the AB!", "ab cd", "the", "zz"]),
            st.lists(st.sampled_from(["ab", "ab cd ef", "An", "cd, ef"]), max_size=3),
        ),
        min_size=4,
        max_size=12,
    )
)
@settings(deadline=None, max_examples=12)
def test_scores_are_those_of_the_squad_v2_metric(rows):
    found, questions = [answered(score, text) for score, text, _ in rows], asked([right for *_, right in rows])
    each = scores_of(found, questions, 0.5)
    predictions = [
        {"id": id, "prediction_text": one.text(0.5), "no_answer_probability": 0.0}
        for id, one in zip(questions["id"], found, strict=True)
    ]
    references = [{"id": row["id"], "answers": row["answers"]} for row in questions]
    squad = load_metric("squad_v2").compute(predictions=predictions, references=references)
    ours = summary(each[None], questions)
    for name in ("exact", "f1"):
        assert ours[f"{name}_low"] <= ours[name] <= ours[f"{name}_high"]
        assert 100 * ours[name] == pytest.approx(squad[name])
        for prefix, kind in (("HasAns", "with"), ("NoAns", "without")):
            assert 100 * ours.get(f"{name}_{kind}_answer", 0) == pytest.approx(squad.get(f"{prefix}_{name}", 0))
            assert ours.get(f"rows_{kind}_answer") == squad.get(f"{prefix}_total")


def test_the_report_chooses_seed_and_threshold_on_validation_and_lists_the_worst_answers():
    questions = DatasetDict({"validation": asked([["ab"], []], "v"), "test": asked([["ab"], [], ["cd"]])})
    good = {"validation": [answered(2.0), answered(-2.0)], "test": [answered(2.0), answered(1.0), answered(3.0, "cd")]}
    bad = {"validation": [answered(2.0), answered(3.0)], "test": [answered(2.0), answered(-2.0), answered(3.0, "cd")]}
    metrics = report({7: good, 8: bad}, questions)
    assert metrics["saved_seed"] == 7
    assert metrics["null_score_diff_threshold"] == 0.0
    assert [run["validation"] for run in metrics["per_seed"]] == [1.0, 0.5]
    assert metrics["test"]["f1_low"] <= metrics["test"]["f1"] <= metrics["test"]["f1_high"]
    assert metrics["test"]["rows"] == 3
    assert metrics["errors"] == [
        {"id": "t1", "question": "Question 1?", "expected": [], "answer": "ab", "probability": 0.5, "f1": 0.0}
    ]


def test_the_surest_of_the_worst_answers_come_first():
    sure = Answered((Span("no", 0, 2, 3.0, 0.9),), 0.1)
    rows = worst_answers(
        [answered(1.0, "no"), sure, answered(1.0, "cd"), sure], asked([["ab"], ["cd ef"], ["cd"], []]), None
    )
    assert [row["id"] for row in rows] == ["t1", "t3", "t0"]


def test_how_a_model_is_asked_is_kept_beside_it_and_flags_win(tmp_path):
    asking = Asking(max_length=64, doc_stride=16, max_answer_length=9, null_score_diff_threshold=-0.5)
    save_asking(tmp_path, asking)
    assert asking_of(str(tmp_path), None, None) == asking
    assert asking_of(str(tmp_path), None, None, doc_stride=8, max_length=None).doc_stride == 8
    (tmp_path / "answering.json").write_text('{"window": 3}')
    with pytest.raises(UserError, match="not a record of how a model is asked"):
        asking_of(str(tmp_path), None, None)


# --- baselines ---


def test_the_sliding_window_finds_the_words_between_those_of_the_question():
    weights = rarity(["the cat sat", "the dog sat", "the end"])
    context = "The end came. In May the river Rhine froze over completely. The dog sat down and the cat left again."
    assert weights["the"] == 0
    assert sliding_window("Which river froze over completely?", context, 1, weights) == "Rhine"
    assert sliding_window("What?", "word", 3, weights) == "word"


def test_baselines_know_how_many_questions_have_no_answer():
    questions = DatasetDict({"train": asked([["ab"]] * 3), "test": asked([["ab"], [], []])})
    found = answer_baselines(questions)
    assert found["no_answer"] == {"exact": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    assert found["sliding_window"]["exact"] <= 1 / 3
    test = dict.fromkeys(("f1", "f1_low", "f1_high", "exact"), 0.5)
    said = "F1 50.0% (95 %: 50.0% to 50.0%), 50.0% exactly right, on test"
    assert in_words({"test": test}) == said
    assert in_words({"test": test, "baselines": found}) == f"{said}; no answer: F1 66.7%"


def test_choices_are_reported_with_chance_the_longest_and_the_most_shared_words():
    table = {
        "id": ["1", "2", "3", "4"],
        "context": ["the cat sat"] * 4,
        "question": ["who sat?"] * 4,
        "choices": [["the cat", "something longer"], ["a dog", "cat"], ["longest of all", "x"], ["y", "who sat"]],
        "labels": [0, 1, 0, 1],
    }
    rows = DatasetDict({split: Dataset.from_dict(table) for split in ("train", "validation", "test")})
    assert choice_baselines(rows) == {
        "chance": 0.5,
        "usual_place": 0.5,
        "longest_choice": 0.5,
        "most_shared_words": 1.0,
    }
    right, wrong = np.eye(2)[table["labels"]], np.eye(2)[[0, 0, 0, 1]] * 4
    metrics = choice_report({3: {"validation": wrong, "test": right}, 4: {"validation": right, "test": wrong}}, rows)
    assert metrics["saved_seed"] == 4
    assert metrics["test"]["accuracy"] == pytest.approx((1.0 + 0.75) / 2)
    (error,) = metrics["errors"]
    assert (error["id"], error["expected"], error["chosen"]) == ("2", "cat", "a dog")
    assert error["probability"] == pytest.approx(1 / (1 + math.exp(-4)))
    said = choices_in_words(metrics | {"baselines": choice_baselines(rows)})
    assert said.startswith("87.5% of test questions right (95 %: ")
    assert said.endswith("; most shared words: 100.0%")
