"""How well does a classifier do, and how sure is that number?"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef
from torch.utils.data import DataLoader
from tqdm import tqdm

from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# What seeds and learning rates are chosen by on validation, and what has an interval on test.
MAIN = {SINGLE: "accuracy", MULTI: "macro_f1", REGRESSION: "spearman"}


def classification_metrics(
    predictions: np.ndarray, references: np.ndarray, classes: int | None = None, positive: int = 1
) -> dict[str, float]:
    """Accuracy, macro-averaged F1 and Matthews correlation of class ids, both int `[N]`.

    Macro F1 weighs every class alike, so it falls when a rare class is ignored; Matthews is 0 for any constant guess.

    Args:
        classes: how many there are; of two, the F1 of `positive` is added (GLUE has that of the second for MRPC, QQP).
    """
    found = {
        "accuracy": float(accuracy_score(references, predictions)),
        "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        "matthews_correlation": float(matthews_corrcoef(references, predictions)),
    }
    if classes == 2:
        found["f1"] = float(f1_score(references, predictions, pos_label=positive, zero_division=0))
    return found


def multi_label_metrics(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Of 0/1 `[N, C]`: F1 averaged over classes and over single decisions, and the share of rows without a mistake."""
    each = f1_of_classes(predictions, references)
    hits, said = (predictions * references).sum(), predictions.sum() + references.sum()
    return {
        "macro_f1": float(each.mean()),
        "micro_f1": float(2 * hits / said) if said else 0.0,
        "exact_match": float((predictions == references).all(1).mean()),
    }


def f1_of_classes(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """F1 of each column of 0/1 `[N, C]`, float `[C]`; 0 where a class neither is there nor is predicted."""
    said = (predictions + references).sum(0)
    return np.divide(2 * (predictions * references).sum(0), said, out=np.zeros(len(said)), where=said > 0)


def regression_metrics(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation (0 for a constant guess) and the root of the mean squared error, of `[N]`."""
    pearson, spearman = (_correlation(*pair) for pair in ((predictions, references), _ranks(predictions, references)))
    error = float(np.sqrt(np.mean((predictions - references) ** 2)))
    return {"pearson": pearson, "spearman": spearman, "root_mean_squared_error": error}


def _ranks(*columns: np.ndarray) -> list[np.ndarray]:
    return [stats.rankdata(column) for column in columns]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def metrics_of(
    problem_type: str, classes: int, positive: int = 1
) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """The metrics of a kind of problem, from predictions and references as `decide` gives them."""
    kinds = {MULTI: multi_label_metrics, REGRESSION: regression_metrics}
    return kinds.get(problem_type) or partial(classification_metrics, classes=classes, positive=positive)


def decide(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """What logits `[N, C]` say: the likeliest class int `[N]`; of several classes 0 or 1 each, int `[N, C]` (1 where
    it is likelier than not); or the number, float `[N]`.
    """
    if problem_type == MULTI:
        return (logits > 0).astype(int)
    return logits[:, 0] if problem_type == REGRESSION else logits.argmax(-1)


def decisions(runs: dict[int, tuple], problem_type: str) -> dict[int, dict[str, np.ndarray]]:
    """What `report` takes, from seed -> a run, whose last entry is split -> logits."""
    return {
        seed: {split: decide(logits, problem_type) for split, logits in run[-1].items()} for seed, run in runs.items()
    }


def main_score(logits: np.ndarray, references: np.ndarray, problem_type: str) -> float:
    """The number by which runs are compared on validation, see MAIN."""
    return metrics_of(problem_type, logits.shape[1])(decide(logits, problem_type), references)[MAIN[problem_type]]


def trainer_metrics(problem_type: str, positive: int = 1) -> Callable:
    """The metrics as `Trainer(compute_metrics=...)` wants them (logits float `[N, C]`)."""

    def compute(prediction) -> dict[str, float]:
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        return metrics_of(problem_type, logits.shape[1], positive)(decide(logits, problem_type), prediction.label_ids)

    return compute


def interval(per_row: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (an accuracy, an exact match), over the rows of a test set.

    Args:
        per_row: scores (0/1 for right and wrong) `[N]`, or `[S, N]` for S models on the same rows. Then rows are
            resampled, never single answers: the interval is that of the models' mean, and answers to one row stay
            together.
        level: probability the interval is made for.
    """
    per_row = np.atleast_2d(np.asarray(per_row, dtype=float)).mean(axis=0)
    if len(per_row) < 2 or per_row.min() == per_row.max():  # nothing to resample; scipy would answer NaN
        return float(per_row.mean()), float(per_row.mean())
    found = stats.bootstrap(
        (per_row,), np.mean, n_resamples=5_000, batch=100, confidence_level=level, method="percentile", rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def metric_interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    predictions: np.ndarray,
    references: np.ndarray,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """`interval` for what is no mean over rows: F1, a correlation.

    Args:
        predictions: `[S, N, ...]` of S models. references: `[N, ...]`.
    """
    rng, scores = np.random.default_rng(seed), []
    for _ in range(1_000):
        rows = rng.integers(len(references), size=len(references))
        scores.append(np.mean([metric(one[rows], references[rows]) for one in predictions]))
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def report(
    guesses: dict[int, dict[str, np.ndarray]],
    references: dict[str, np.ndarray],
    names: list[str],
    problem_type: str = SINGLE,
    positive: int = 1,
) -> dict:
    """The metrics of one recipe run under S seeds, as results.json holds them.

    Args:
        guesses: seed -> split name -> what `decide` made of the logits; "validation", "test" and others.
        references: split name -> the truth in the same form.
        names: the classes. positive: of two, the id of the one whose F1 is given.

    Returns:
        For each split the mean metrics over seeds, with a 95 % interval of the one in MAIN; `per_seed` that one
        on validation and test; `saved_seed`, the one that is best on validation; of it on test the `confusion`
        (rows: true classes), or the F1 of each class where a row has several.
    """
    score = metrics_of(problem_type, len(names), positive)
    per_seed = [
        {"seed": seed}
        | {split: score(found[split], references[split])[MAIN[problem_type]] for split in ("validation", "test")}
        for seed, found in guesses.items()
    ]
    best = max(per_seed, key=lambda run: run["validation"])["seed"]
    found = {
        split: _summarize(np.stack([run[split] for run in guesses.values()]), references[split], score, problem_type)
        for split in ("test", *(split for split in references if split != "test"))
    }
    found |= {"per_seed": per_seed, "saved_seed": best, "labels": names, "problem_type": problem_type}
    if problem_type == SINGLE:
        counts = confusion_matrix(references["test"], guesses[best]["test"], labels=range(len(names)))
        found["confusion"] = counts.tolist()
    if problem_type == MULTI:
        each = f1_of_classes(guesses[best]["test"], references["test"])
        found["f1_by_class"] = dict(zip(names, map(float, each), strict=True))
    return found


def _summarize(predictions: np.ndarray, references: np.ndarray, score: Callable, problem_type: str) -> dict:
    """Mean metrics of S models' predictions `[S, N, ...]`, and an interval that holds for the mean."""
    main = MAIN[problem_type]
    per_model = [score(one, references) for one in predictions]
    means = {name: float(np.mean([metrics[name] for metrics in per_model])) for name in per_model[0]}
    if problem_type == SINGLE:
        low, high = interval(predictions == references)
    else:
        low, high = metric_interval(lambda said, true: score(said, true)[main], predictions, references)
    return means | {f"{main}_low": low, f"{main}_high": high, "rows": len(references)}


def in_words(test: dict, problem_type: str, seeds: int = 1) -> str:
    """The main result in a few words, from what `report` says of a split."""
    main, mean = MAIN[problem_type], f", mean of {seeds} seeds" if seeds > 1 else ""
    value, low, high = (test[f"{main}{end}"] for end in ("", "_low", "_high"))
    if problem_type == SINGLE:
        return f"{value:.1%} of {test['rows']:,} test rows right (95 %: {low:.1%} to {high:.1%}){mean}"
    name = {MULTI: "macro F1", REGRESSION: "Spearman correlation"}[problem_type]
    return f"{name} {value:.3f} on {test['rows']:,} test rows (95 %: {low:.3f} to {high:.3f}){mean}"


def logits_of(trainer, dataset) -> np.ndarray:
    """Logits float32 `[N, C]` of a tokenized dataset, in its order.

    In the precision the model is saved in, not in the autocast it was trained in: whoever loads the saved model gets
    these very predictions.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    order = np.argsort(dataset["length"], kind="stable")  # batches of like length: less padding
    rows = dataset.select(order).remove_columns([name for name in dataset.column_names if name not in MODEL_INPUTS])
    loader = trainer.accelerator.prepare(
        DataLoader(rows, batch_size=trainer.args.eval_batch_size, collate_fn=trainer.data_collator)
    )
    found = []
    with torch.no_grad():
        for batch in tqdm(loader, desc="predicting", leave=False, disable=None):
            found.append(trainer.accelerator.gather_for_metrics(model(**batch).logits).float().cpu())
    return torch.cat(found).numpy()[np.argsort(order)]
