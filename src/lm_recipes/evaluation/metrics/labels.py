"""How many labels are right, and how closely do numbers follow? By scikit-learn and scipy."""

from typing import Any

import numpy as np
from datasets import List, Value
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lm_recipes.evaluation.metrics.base import Metric, paired

SCIKIT_LEARN, SCIPY = "arXiv:1201.0490", "arXiv:1907.10121"
CLASS_IDS = {"default": paired(Value("int32")), "multilabel": paired(List(Value("int32")))}
NUMBERS = {"default": paired(Value("float64"))}  # evaluate's own keep float32, which moves the seventh digit


class Accuracy(Metric):
    """Share of class ids int `[N]` that are right; of 0/1 rows `[N, C]` ("multilabel") those that are right throughout.

    `compute` takes the options of `sklearn.metrics.accuracy_score`. Result: `accuracy`.
    """

    SOURCE, FEATURES = SCIKIT_LEARN, CLASS_IDS

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(np.asarray(references), np.asarray(predictions), **options))}


class F1(Metric):
    """Harmonic mean of precision and recall, of class ids int `[N]` or of 0/1 rows `[N, C]` ("multilabel").

    `compute` takes the options of `sklearn.metrics.f1_score`; the default, `average="binary"`, is for two classes.
    A class that is neither guessed nor there scores 0, without a warning. Result: `f1`, a list with `average=None`.
    """

    SOURCE, FEATURES = SCIKIT_LEARN, CLASS_IDS

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, float | list[float]]:
        score = f1_score(np.asarray(references), np.asarray(predictions), **({"zero_division": 0} | options))
        return {"f1": np.asarray(score).tolist()}


class MatthewsCorrelation(Metric):
    """Correlation of guessed and true class ids int `[N]`, -1 to 1; 0 for any constant guess.

    `compute` takes the options of `sklearn.metrics.matthews_corrcoef`. Result: `matthews_correlation`.
    """

    SOURCE, FEATURES = SCIKIT_LEARN, {"default": CLASS_IDS["default"]}

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions, **options))}


class Pearsonr(Metric):
    """Linear correlation of two series of numbers `[N]`, at least two each; NaN where one of them is constant.

    Result: `pearsonr`.
    """

    SOURCE, FEATURES = SCIPY, NUMBERS

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"pearsonr": float(stats.pearsonr(references, predictions).statistic)}


class Spearmanr(Metric):
    """Correlation of the ranks of two series of numbers `[N]`, at least two each; NaN where one of them is constant.

    Result: `spearmanr`.
    """

    SOURCE, FEATURES = SCIPY, NUMBERS

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"spearmanr": float(stats.spearmanr(references, predictions).statistic)}
