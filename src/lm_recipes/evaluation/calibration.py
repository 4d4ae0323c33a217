"""When a classifier says 90 %, is it right nine times in ten, and from which probability on should one act?"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from lm_recipes.artifacts import read_json, write_json
from lm_recipes.evaluation.classification import decide, metrics_of
from lm_recipes.launch import UserError, is_main_process
from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE

FILE = "calibration.json"
BINS = 15  # as in arXiv 1706.04599


@dataclass(frozen=True)
class Calibration:
    """What is made of a model's logits before anybody acts on them; `calibration.json` beside the model.

    Fitted on validation. Dividing by a temperature changes no ranking of classes, only how sure the model sounds
    (Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599).

    Attributes:
        temperature: above 1 where the model was too sure of itself.
        thresholds: class -> the calibrated probability from which on it is predicted: each, where a text has several;
            of two classes the one that is looked for. Empty: the likeliest class is.
    """

    problem_type: str
    labels: list[str]
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        logits: np.ndarray,
        references: np.ndarray,
        names: list[str],
        problem_type: str,
        positive: str | None = None,
    ) -> "Calibration":
        """Temperature and thresholds from validation; a regression has neither.

        Args:
            logits: float `[N, C]`. references: as `sources.labelled` has them.
            positive: of two classes the one that is looked for, see `place_of_positive`.
        """
        if problem_type == REGRESSION:
            return cls(problem_type, names)
        temperature = fit_temperature(logits, references, problem_type)
        plain = cls(problem_type, names, temperature)
        true = references if problem_type == MULTI else references[:, None] == np.arange(len(names))
        sought = names if problem_type == MULTI else [positive]
        columns = zip(names, plain.probabilities(logits).T, true.T, strict=True)
        thresholds = {name: best_threshold(*column) for name, *column in columns if name in sought}
        return replace(plain, thresholds=thresholds)

    @classmethod
    def beside(cls, model: str | Path, config) -> "Calibration":
        """What the directory or Hub id `model` keeps; without it nothing is changed, and `config` (of a transformers
        model) says what the logits are.
        """
        from transformers.utils import cached_file

        why = ("gated_repo", "missing_entries", "connection_errors")
        path = cached_file(str(model), FILE, **{f"_raise_exceptions_for_{reason}": False for reason in why})
        if path is not None:
            return cls(**read_json(path, "calibration"))
        labels = [config.id2label[number] for number in range(config.num_labels)]
        kind = SINGLE if config.num_labels > 1 else MULTI  # what transformers' pipeline does: a sigmoid of a single one
        return cls(config.problem_type or kind, labels)

    def save(self, model_dir: str | Path) -> None:
        """Write `calibration.json` (main process only)."""
        if is_main_process():
            write_json(Path(model_dir, FILE), asdict(self))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Float `[N, C]` of logits `[N, C]`; those of a regression stay as they are."""
        if self.problem_type == REGRESSION:
            return logits
        scaled = np.asarray(logits, dtype=float) / self.temperature
        return expit(scaled) if self.problem_type == MULTI else softmax(scaled, axis=-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """As `classification.decide`, by the thresholds instead of one half."""
        if not self.thresholds:
            return decide(logits, self.problem_type)
        probabilities = self.probabilities(logits)
        if self.problem_type == MULTI:
            return (probabilities >= [self.thresholds[name] for name in self.labels]).astype(int)
        ((positive, threshold),) = self.thresholds.items()
        place = self.labels.index(positive)
        return np.where(probabilities[:, place] >= threshold, place, 1 - place)

    def answer(self, logits: dict[str, float]) -> dict:
        """Of one text, class -> logit, what `predict.py` writes: `labels` (of several classes) or `label` and `score`,
        and the `probabilities` with the likeliest class first. Of a regression the `score` alone.
        """
        row = np.array([[logits[name] for name in self.labels]])
        found = dict(zip(self.labels, map(float, self.probabilities(row)[0]), strict=True))
        if self.problem_type == REGRESSION:
            return {"score": found[self.labels[0]]}
        (said,), table = self.decide(row), dict(sorted(found.items(), key=lambda entry: -entry[1]))
        if self.problem_type == MULTI:
            named = {name for name, is_it in zip(self.labels, said, strict=True) if is_it}
            return {"labels": [name for name in table if name in named], "probabilities": table}
        label = self.labels[int(said)]
        return {"label": label, "score": found[label], "probabilities": table}

    def in_words(self) -> str:
        """What a reader of the model card has to know; empty for a regression."""
        if self.problem_type == REGRESSION:
            return ""
        said = "with the thresholds in calibration.json" if self.thresholds else "and names the likeliest class"
        return (
            f"`pipeline` gives the probabilities as they were trained; `recipes/bert/predict.py` divides the logits by "
            f"{self.temperature:.3g} first, fitted on validation (calibration.json), {said}."
        )

    def effect(self, logits: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """What calibration does to a test split: nats and calibration error before and after, and the metrics with the
        thresholds; empty for a regression.
        """
        if self.problem_type == REGRESSION:
            return {}
        found = {"temperature": self.temperature}
        for when, scale in (("before", 1.0), ("after", self.temperature)):
            found[f"nats_{when}"] = _nats(logits / scale, references, self.problem_type)
            found[f"calibration_error_{when}"] = calibration_error(
                *sureness(Calibration(self.problem_type, self.labels, scale).probabilities(logits), references)
            )
        if self.thresholds:
            positive = 1 if self.problem_type == MULTI else self.labels.index(*self.thresholds)
            score = metrics_of(self.problem_type, len(self.labels), positive)
            found["with_thresholds"] = score(self.decide(logits), references)
            found["thresholds"] = self.thresholds
        return found


def place_of_positive(name: str | None, names: list[str], problem_type: str) -> int:
    """Of two classes the id of the one that is looked for, say spam: a threshold is chosen for it, and F1 is of it. The
    second, where none is named.

    Raises:
        UserError: it is none of two classes.
    """
    if name is None:
        return 1
    if problem_type != SINGLE or len(names) != 2 or name not in names:
        raise UserError(
            f"--positive_class {name}: names one of two classes; here {', '.join(names[:10])} ({problem_type})"
        )
    return names.index(name)


def fit_temperature(logits: np.ndarray, references: np.ndarray, problem_type: str = SINGLE) -> float:
    """The divisor of the logits that makes the references likeliest, between 1/4 and 20.

    The loss has one minimum: it is convex in the inverse temperature. Where every row of a small validation split is
    right the best would be 0, endless certainty; the bound stops it.
    """
    found = minimize_scalar(
        lambda inverse: _nats(logits * inverse, references, problem_type), bounds=(1 / 20, 4), method="bounded"
    )
    return float(1 / found.x)


def _nats(logits: np.ndarray, references: np.ndarray, problem_type: str) -> float:
    """Mean negative log-likelihood of a row's class, or of each decision about one of several classes."""
    logits = np.asarray(logits, dtype=float)
    if problem_type == MULTI:
        return float(np.mean(np.logaddexp(0.0, logits) - references * logits))
    return float(-np.mean(np.take_along_axis(log_softmax(logits, axis=-1), references[:, None], axis=-1)))


def sureness(probabilities: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How sure a classifier was `[M]` and whether it was so `[M]`: of the class it named, M = N rows; or, where rows
    have several classes (references `[N, C]`), of each of the M = N x C decisions.
    """
    if references.ndim == 2:
        return probabilities.ravel(), references.ravel()
    return probabilities.max(-1), (probabilities.argmax(-1) == references).astype(float)


def reliability(sure: np.ndarray, was_so: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean sureness, share that was so and number, for each bin of equal width in [0, 1] that is not empty."""
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        (float(sure[place == number].mean()), float(was_so[place == number].mean()), int((place == number).sum()))
        for number in range(bins)
        if (place == number).any()
    ]


def calibration_error(sure: np.ndarray, was_so: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: the gap between sureness and share that was so, averaged over rows."""
    return float(sum(number * abs(mean - share) for mean, share, number in reliability(sure, was_so, bins)) / len(sure))


def best_threshold(probabilities: np.ndarray, references: np.ndarray) -> float:
    """The probability from which on saying yes gives the best F1, half-way between two that were seen.

    Args:
        probabilities: float `[N]`. references: 0 or 1 `[N]`.

    Returns:
        Of several that are as good the nearest to one half; one half where there is no yes, or nothing else.
    """
    if not references.any() or references.all():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    seen, true = probabilities[order], references[order]
    hits = np.concatenate([[0], np.cumsum(true)])  # with the first k rows said to be yes, k = 0 .. N
    f1 = 2 * hits / (np.arange(len(seen) + 1) + true.sum())
    edges = np.concatenate([[1.0], seen, [0.0]])
    between = (edges[:-1] + edges[1:]) / 2
    apart = edges[:-1] > edges[1:]  # a threshold cannot stand between equal probabilities
    score = np.where(apart, f1, -1.0)
    best = np.flatnonzero(score >= score.max() - 1e-12)
    return float(between[min(best, key=lambda place: abs(between[place] - 0.5))])
