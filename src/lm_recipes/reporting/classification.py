"""Where is a classifier wrong, and how sure is it then? One self-contained page beside the model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from lm_recipes.artifacts import write_text
from lm_recipes.evaluation.calibration import Calibration, reliability, sureness
from lm_recipes.evaluation.classification import MAIN, f1_of_classes
from lm_recipes.launch import is_main_process
from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE

MISTAKES = 25  # rows of the error table
BASELINES = {
    "majority": "always the commonest class",
    "tfidf_logistic_regression": "weighted words and word pairs (TF-IDF, logistic regression)",
    "tfidf_ridge": "weighted words and word pairs (TF-IDF, ridge regression)",
}


def write_report(
    model_dir: str | Path,
    title: str,
    result: str,
    metrics: dict,
    rows,
    logits: np.ndarray,
    references: np.ndarray,
    calibration: Calibration,
) -> None:
    """Write `model_dir/report.html` (main process only): the numbers of results.json, and of the saved model as
    predict.py serves it the confusion of classes, how far its probabilities can be trusted, and the mistakes it was
    surest of, with their texts.

    Args:
        result: a sentence. metrics: as in results.json.
        rows: the test split, with columns `text` and perhaps `pair`.
        logits: of the saved model on it, float `[N, C]`. references: `[N]`, or 0/1 `[N, C]`.
    """
    if not is_main_process():
        return
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("lm_recipes.reporting", "."), autoescape=True, trim_blocks=True)
    kind, names, said = calibration.problem_type, calibration.labels, calibration.decide(logits)
    confusion = confusion_matrix(references, said, labels=range(len(names))).tolist() if kind == SINGLE else []
    sure = [] if kind == REGRESSION else [Calibration(kind, names), calibration]
    page = environment.get_template("classification.html.jinja").render(
        title=title,
        result=result,
        metrics=metrics,
        main=MAIN[kind],
        baseline_names=BASELINES,
        confusion=confusion,
        by_class=by_class(confusion, names),
        f1_by_class=dict(zip(names, f1_of_classes(said, references), strict=True)) if kind == MULTI else {},
        diagrams=[reliability_svg(*sureness(one.probabilities(logits), references)) for one in sure],
        mistakes=mistakes(rows, logits, references, calibration),
    )
    write_text(Path(model_dir, "report.html"), page)


def by_class(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict]:
    """Of each class its name, how many rows have it, the share of them found (recall) and of the rows said to have it
    that do (precision); None where there are none. Rows of `confusion` are true classes.
    """
    counts = np.array(confusion, dtype=int)
    return [
        {
            "name": names[number],
            "rows": int(counts[number].sum()),
            "recall": _share(counts[number, number], counts[number].sum()),
            "precision": _share(counts[number, number], counts[:, number].sum()),
        }
        for number in range(len(counts))
    ]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def mistakes(rows, logits: np.ndarray, references: np.ndarray, calibration: Calibration, most: int = MISTAKES) -> list:
    """The test rows the model was surest of and wrong about, worst first: `text`, `pair`, `truth`, `said` and `sure`,
    the calibrated probability of what it said. Where a text has several classes a row for each wrong decision; of
    numbers the largest errors, with `sure` None.
    """
    texts = list(rows["text"])
    pairs = list(rows["pair"]) if "pair" in rows.column_names else [None] * len(texts)
    found = sorted(_wrong(logits, references, calibration), key=lambda one: (-one[0], one[1]))
    return [
        {"text": texts[row], "pair": pairs[row], "truth": truth, "said": said, "sure": sure}
        for _, row, truth, said, sure in found[:most]
    ]


def _wrong(logits: np.ndarray, references: np.ndarray, calibration: Calibration):
    """(how bad, row, truth, said, how sure) of each mistake; `Calibration.decide` says what was said."""
    names, probabilities, said = calibration.labels, calibration.probabilities(logits), calibration.decide(logits)
    if calibration.problem_type == REGRESSION:
        for row, (guess, truth) in enumerate(zip(said, references, strict=True)):
            yield abs(guess - truth), row, f"{truth:.3g}", f"{guess:.3g}", None
    elif calibration.problem_type == MULTI:
        for row, number in np.argwhere(said != references):
            probability = float(probabilities[row, number])
            sure = probability if said[row, number] else 1 - probability
            truth, guess = ("", "not ") if references[row, number] else ("not ", "")
            yield sure, row, truth + names[number], guess + names[number], sure
    else:
        for row in np.flatnonzero(said != references):
            sure = float(probabilities[row, said[row]])
            yield sure, row, names[references[row]], names[said[row]], sure


def reliability_svg(sure: np.ndarray, was_so: np.ndarray, size: int = 260) -> str:
    """How sure (to the right) against how often it was so (upwards): dots on the diagonal can be believed. A dot's area
    grows with its share of the rows.
    """
    dots = "".join(
        f'<circle cx="{mean * size:.1f}" cy="{(1 - share) * size:.1f}" '
        f'r="{3 + 14 * (number / len(sure)) ** 0.5:.1f}"><title>{number} rows: {mean:.1%} sure, {share:.1%} so</title>'
        "</circle>"
        for mean, share, number in reliability(sure, was_so)
    )
    ticks = "".join(
        f'<text x="{share * size:.0f}" y="{size + 18}" text-anchor="middle">{share:.0%}</text>'
        f'<text x="-8" y="{(1 - share) * size + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.5, 1)
    )
    return (
        f'<svg viewBox="-64 -18 {size + 88} {size + 62}" role="img"><rect width="{size}" height="{size}"/>'
        f'<line x1="0" y1="{size}" x2="{size}" y2="0"/>{dots}{ticks}'
        f'<text x="{size / 2:.0f}" y="{size + 38}" text-anchor="middle">how sure it was</text>'
        f'<text transform="translate(-46 {size / 2:.0f}) rotate(-90)" text-anchor="middle">how often that was so</text>'
        "</svg>"
    )
