"""How often is an answer right, when is none the better answer, and which ones went wrong?"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lm_recipes.evaluation.answers import Answered
from lm_recipes.evaluation.classification import interval
from lm_recipes.evaluation.metrics.answers import best, exact_match, word_f1

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def exact_and_f1(said: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 over words against the best of several right answers, as SQuAD counts them, in [0, 1].

    Args:
        said: "" for no answer. answers: none for a question without an answer.
    """
    return best(exact_match, said, answers), best(word_f1, said, answers)


def choose_threshold(answered: Sequence[Answered], references: Sequence[Sequence[str]]) -> float | None:
    """The `null_score_diff_threshold` with the highest mean F1; None where every question has an answer, or where
    answering every question is best.

    It lies in the middle between the last question that is answered and the first that is not.

    Args:
        references: per question the right answers.
    """
    if all(references):
        return None
    diffs = np.array([found.null_score_diff for found in answered])
    order = np.argsort(diffs, kind="stable")
    with_answer = np.array(
        [exact_and_f1(found.text(None), texts)[1] for found, texts in zip(answered, references, strict=True)]
    )
    without = np.array([exact_and_f1("", texts)[1] for texts in references])
    gain = np.concatenate([[0.0], np.cumsum((with_answer - without)[order])])  # of answering the first k questions
    diffs = diffs[order]
    possible = [k for k in range(len(diffs) + 1) if k in (0, len(diffs)) or diffs[k - 1] < diffs[k]]
    k = max(possible, key=lambda k: gain[k])
    if k == len(diffs) or not np.isfinite(diffs[0]):
        return None
    if k == 0 or not np.isfinite(diffs[k]):
        return float(diffs[0] - 1.0 if k == 0 else diffs[k - 1] + 1.0)
    return float((diffs[k - 1] + diffs[k]) / 2)


def best_scores(answered: Sequence[Answered], questions: "Dataset") -> dict[str, float]:
    """Mean `exact` and `f1` with the threshold that is best on these very questions: for validation only."""
    threshold = choose_threshold(answered, [answers["text"] for answers in questions["answers"]])
    exact, f1 = scores_of(answered, questions, threshold).mean(axis=1).tolist()
    return {"exact": exact, "f1": f1}


def scores_of(answered: Sequence[Answered], questions: "Dataset", threshold: float | None) -> np.ndarray:
    """Exact match and F1 of each question, float `[2, N]`; their means are those of metric `squad_v2`, over 100."""
    pairs = zip(answered, questions["answers"], strict=True)
    return np.array([exact_and_f1(found.text(threshold), right["text"]) for found, right in pairs]).T


def report(runs: Mapping[int, Mapping[str, Sequence[Answered]]], questions: "DatasetDict") -> dict:
    """The metrics of one recipe run under S seeds, as results.json holds them.

    Args:
        runs: seed -> split name -> what was found for its questions; the splits are "validation" and "test".

    Returns:
        For both splits the mean scores over seeds, with 95 % intervals of `exact` and `f1` over questions; `per_seed`
        F1 and threshold (chosen on validation); `saved_seed`, the one that is best on validation, and its
        `null_score_diff_threshold`; its `errors` on test.
    """
    right = [answers["text"] for answers in questions["validation"]["answers"]]
    thresholds = {seed: choose_threshold(found["validation"], right) for seed, found in runs.items()}
    metrics, f1 = {}, {}
    for split in ("test", "validation"):
        each = np.stack([scores_of(found[split], questions[split], thresholds[seed]) for seed, found in runs.items()])
        metrics[split] = summary(each, questions[split])
        f1[split] = dict(zip(runs, each[:, 1].mean(axis=1).tolist(), strict=True))
    per_seed = [
        {"seed": seed, "validation": f1["validation"][seed], "test": f1["test"][seed]}
        | {"null_score_diff_threshold": thresholds[seed]}
        for seed in runs
    ]
    saved = max(per_seed, key=lambda run: run["validation"])["seed"]
    errors = worst_answers(runs[saved]["test"], questions["test"], thresholds[saved])
    chosen = {"saved_seed": saved, "null_score_diff_threshold": thresholds[saved]}
    return metrics | {"per_seed": per_seed} | chosen | {"errors": errors}


def summary(each: np.ndarray, questions: "Dataset") -> dict[str, float]:
    """Means over models and questions, with 95 % intervals over questions: of all, and of those with an answer
    (SQuAD 2.0's `HasAns_`) and without (`NoAns_`), where there are such.

    Args:
        each: of S models' `scores_of`, float `[S, 2, N]`.
    """
    found: dict[str, float] = {}
    for name, values in (("exact", each[:, 0]), ("f1", each[:, 1])):
        low, high = interval(values)
        found |= {name: float(values.mean(axis=0).mean()), f"{name}_low": low, f"{name}_high": high}
    answerable = np.array([bool(answers["text"]) for answers in questions["answers"]])
    for name, rows in (("with", answerable), ("without", ~answerable)):
        if rows.any():
            exact, f1 = each[:, :, rows].mean(axis=(0, 2)).tolist()
            found |= {f"exact_{name}_answer": exact, f"f1_{name}_answer": f1, f"rows_{name}_answer": int(rows.sum())}
    return found | {"rows": len(answerable)}


def worst_answers(
    answered: Sequence[Answered], questions: "Dataset", threshold: float | None, limit: int = 20
) -> list[dict]:
    """The questions with the lowest F1; of equal ones those first of which the model was surest."""
    f1 = scores_of(answered, questions, threshold)[1]
    rows = []
    for row, found, score in zip(questions, answered, f1, strict=True):
        said = found.best(threshold)
        probability = said.probability if said else found.no_answer_probability
        texts = {"expected": row["answers"]["text"], "answer": said.text if said else ""}
        rows.append({"id": row["id"], "question": row["question"], **texts, "probability": probability, "f1": score})
    return sorted((row for row in rows if row["f1"] < 1), key=lambda row: (row["f1"], -row["probability"]))[:limit]


def in_words(metrics: dict) -> str:
    """The main result in a few words, from what `report` says and, if it was measured, the best of the `baselines`."""
    test, others = metrics["test"], metrics.get("baselines", {})
    value, low, high = (test[f"f1{end}"] for end in ("", "_low", "_high"))
    best_other = max(others, key=lambda name: others[name]["f1"], default=None)
    beside = f"; {best_other.replace('_', ' ')}: F1 {others[best_other]['f1']:.1%}" if best_other else ""
    return f"F1 {value:.1%} (95 %: {low:.1%} to {high:.1%}), {test['exact']:.1%} exactly right, on test{beside}"
