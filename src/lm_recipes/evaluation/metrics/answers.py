"""Is an answer the right one? SQuAD's exact match and F1, also where the right answer is none."""

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np
from datasets import List, Value

from lm_recipes.evaluation.metrics.base import Metric, paired
from lm_recipes.launch import UserError

PREDICTION = {"id": Value("string"), "prediction_text": Value("string"), "no_answer_probability": Value("float64")}
REFERENCE = {"id": Value("string"), "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))}}
QUESTIONS = {"default": paired(PREDICTION, REFERENCE)}


class SquadV2(Metric):
    """Exact match and word F1 of answers, in percent, as SQuAD 2.0 counts them; each question's best of its answers.

    Predictions are `{"id", "prediction_text", "no_answer_probability"}`, references `{"id", "answers"}` with `answers`
    as SQuAD has them (`{"text": [...], "answer_start": [...]}`, empty where there is no answer). They meet by id, in
    any order. SQuAD 1.1 is the same with probabilities of 0.

    `compute` takes `no_answer_threshold` (1.0): a higher probability means that no answer is given. Result: `exact`,
    `f1`, `total`; the same with the prefixes `HasAns_` and `NoAns_` where there are such questions; and `best_exact`,
    `best_f1` with `best_exact_thresh`, `best_f1_thresh`: what the best threshold would give. Choose it on validation,
    never on the questions that are reported. Each is reached with its threshold (the original script also tries to cut
    between equal probabilities, and there takes a lone article for an answer, which its scores do not).

    Raises:
        UserError: a question without a prediction or twice, or a prediction without a question.
    """

    SOURCE, FEATURES = "arXiv:1806.03822", QUESTIONS

    def _compute(
        self, predictions: list[dict], references: list[dict], no_answer_threshold: float = 1.0
    ) -> dict[str, float]:
        said = _by_id(predictions, "predictions")
        wanted = _by_id(references, "references")
        if said.keys() != wanted.keys():
            alone = min(said.keys() ^ wanted.keys())
            raise UserError(f"squad_v2: `{alone}` is among the {'predictions' if alone in said else 'references'} only")
        silent = np.array([said[question]["no_answer_probability"] for question in wanted])
        answerable = np.array([bool(row["answers"]["text"]) for row in references])
        abstaining = (~answerable).astype(float)  # the score of giving no answer
        found: dict[str, float] = {}
        for name, score in (("exact", exact_match), ("f1", word_f1)):
            answering = np.array(
                [best(score, said[key]["prediction_text"], row["answers"]["text"]) for key, row in wanted.items()]
            )
            scores = np.where(silent > no_answer_threshold, abstaining, answering)
            for prefix, rows in (("", answerable | True), ("HasAns_", answerable), ("NoAns_", ~answerable)):
                if rows.any():
                    found |= {f"{prefix}{name}": 100 * float(scores[rows].mean()), f"{prefix}total": int(rows.sum())}
            found[f"best_{name}"], found[f"best_{name}_thresh"] = _best_threshold(silent, answering, abstaining)
        return found


def normalize_answer(text: str) -> str:
    """SQuAD's: lower case, without ASCII punctuation, then without `a`, `an`, `the`, single spaces (arXiv:1606.05250).

    In this order: "the-end" keeps its article, typographic quotes and accents stay.
    """
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(said: str, wanted: str) -> float:
    """1 where both normalise to the same text."""
    return float(normalize_answer(said) == normalize_answer(wanted))


def word_f1(said: str, wanted: str) -> float:
    """F1 of the normalised words, as bags; where one side has none, 1 if neither has."""
    said_words, wanted_words = normalize_answer(said).split(), normalize_answer(wanted).split()
    if not said_words or not wanted_words:
        return float(said_words == wanted_words)
    # 2PR / (P + R) with P and R written out
    return 2 * (Counter(said_words) & Counter(wanted_words)).total() / (len(said_words) + len(wanted_words))


def best(score: Callable[[str, str], float], said: str, answers: list[str]) -> float:
    """The best score over the answers; those that normalise to nothing do not count, and none left means no answer."""
    return max(score(said, wanted) for wanted in [text for text in answers if normalize_answer(text)] or [""])


def _by_id(rows: list[dict], what: str) -> dict[str, dict]:
    by_id = {row["id"]: row for row in rows}
    if len(by_id) != len(rows):
        twice = Counter(row["id"] for row in rows).most_common(1)[0][0]
        raise UserError(f"squad_v2: question `{twice}` is among the {what} more than once")
    return by_id


def _best_threshold(silent: np.ndarray, answering: np.ndarray, abstaining: np.ndarray) -> tuple[float, float]:
    """The highest mean score in percent over all thresholds, and the lowest threshold that gives it; all `[N]`."""
    order = np.argsort(silent, kind="stable")
    thresholds = np.unique(np.append(silent, 0.0))
    answered = np.searchsorted(silent[order], thresholds, side="right")  # how many questions each lets through
    gains = np.concatenate([[0.0], np.cumsum((answering - abstaining)[order])])[answered]
    highest = int(np.argmax(gains))
    return 100 * float(abstaining.sum() + gains[highest]) / len(silent), float(thresholds[highest])
