"""How well does a classifier do, and how sure is that number?"""

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef
from torch.utils.data import DataLoader
from tqdm import tqdm

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def classification_metrics(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-averaged F1 and Matthews correlation of class ids, both int `[N]`.

    Macro F1 weighs every class alike, so it falls when a rare class is ignored; Matthews is 0 for any constant guess.
    """
    return {
        "accuracy": float(accuracy_score(references, predictions)),
        "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        "matthews_correlation": float(matthews_corrcoef(references, predictions)),
    }


def trainer_metrics(prediction) -> dict[str, float]:
    """`classification_metrics` as `Trainer(compute_metrics=...)` wants them (logits float `[N, C]`)."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return classification_metrics(logits.argmax(-1), prediction.label_ids)


def accuracy_interval(correct: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of an accuracy, over the rows of a test set.

    Args:
        correct: 0/1 `[N]`, or `[S, N]` for S models on the same rows. Then rows are resampled, never single answers:
            the interval is that of the models' mean accuracy, and answers to one row stay together.
        level: probability the interval is made for.
    """
    per_row = np.atleast_2d(np.asarray(correct, dtype=float)).mean(axis=0)
    if len(per_row) < 2 or per_row.min() == per_row.max():  # nothing to resample; scipy would answer NaN
        return float(per_row.mean()), float(per_row.mean())
    interval = stats.bootstrap(
        (per_row,), np.mean, n_resamples=5_000, batch=100, confidence_level=level, method="percentile", rng=seed
    ).confidence_interval
    return float(interval.low), float(interval.high)


def report(guesses: dict[int, dict[str, np.ndarray]], references: dict[str, np.ndarray], names: list[str]) -> dict:
    """The metrics of one recipe run under S seeds, as results.json holds them.

    Args:
        guesses: seed -> split name -> class ids int `[N]`; the splits are "validation" and "test".
        references: split name -> true class ids int `[N]`.
        names: the classes.

    Returns:
        For both splits the mean metrics over seeds with a 95 % interval of the accuracy; `per_seed` accuracies;
        `saved_seed`, the one that is best on validation, and its test `confusion` (rows: true classes).
    """
    per_seed = [
        {"seed": seed} | {split: float(np.mean(found[split] == references[split])) for split in references}
        for seed, found in guesses.items()
    ]
    best = max(per_seed, key=lambda run: run["validation"])["seed"]
    counts = confusion_matrix(references["test"], guesses[best]["test"], labels=range(len(names)))
    means = {
        split: _summarize(np.stack([found[split] for found in guesses.values()]), references[split])
        for split in ("test", "validation")
    }
    return means | {"per_seed": per_seed, "saved_seed": best, "confusion": counts.tolist(), "labels": names}


def _summarize(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Mean metrics of class ids `[S, N]`, and an interval that holds for the mean accuracy."""
    per_model = [classification_metrics(row, references) for row in predictions]
    means = {name: float(np.mean([metrics[name] for metrics in per_model])) for name in per_model[0]}
    low, high = accuracy_interval(predictions == references)
    return means | {"accuracy_low": low, "accuracy_high": high, "rows": len(references)}


def predict(trainer, dataset) -> np.ndarray:
    """Class ids int `[N]` of a tokenized dataset, in its order.

    In the precision the model is saved in, not in the autocast it was trained in: whoever loads the saved model gets
    these very predictions.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    order = np.argsort(dataset["length"], kind="stable")  # batches of like length: less padding
    rows = dataset.select(order).remove_columns([name for name in dataset.column_names if name not in MODEL_INPUTS])
    loader = trainer.accelerator.prepare(
        DataLoader(rows, batch_size=trainer.args.eval_batch_size, collate_fn=trainer.data_collator)
    )
    predicted = []
    with torch.no_grad():
        for batch in tqdm(loader, desc="predicting", leave=False, disable=None):
            predicted.append(trainer.accelerator.gather_for_metrics(model(**batch).logits.argmax(-1)).cpu())
    return torch.cat(predicted).numpy()[np.argsort(order)]
