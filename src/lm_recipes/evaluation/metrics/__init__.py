"""Which number says how good predictions are? `evaluate` metrics that need no Hub and whose batches wait on disk."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lm_recipes.launch import UserError

if TYPE_CHECKING:
    import evaluate
    import torch

# name -> file and class; what a file imports is needed only by those who ask for its metrics (extra `metrics`)
METRICS = {
    "accuracy": ("labels", "Accuracy"),
    "f1": ("labels", "F1"),
    "matthews_correlation": ("labels", "MatthewsCorrelation"),
    "pearsonr": ("labels", "Pearsonr"),
    "spearmanr": ("labels", "Spearmanr"),
    "seqeval": ("tags", "Seqeval"),
    "squad_v2": ("answers", "SquadV2"),
    "perplexity": ("likelihood", "Perplexity"),
    "rouge": ("texts", "Rouge"),
    "sacrebleu": ("texts", "Sacrebleu"),
    "chrf": ("texts", "Chrf"),
}


def load(name: str, config_name: str | None = None, **options: Any) -> "evaluate.Metric":
    """A new metric by name, in place of `evaluate.load`: same inputs, same keys in the result, nothing downloaded.

    Batches go to a directory of this metric alone (`base.Metric`), so any number of metrics and processes run side
    by side. Under several processes gather first (Trainer does); evaluate's own rendezvous is not used.

    Args:
        name: one of METRICS.
        config_name: "multilabel" for accuracy and f1 of 0/1 rows `[N, C]`.
        options: of `compute`, given once: `load("f1", average="macro")`. Those given to `compute` itself win.

    Raises:
        UserError: no such metric or configuration, or its library is not installed.
        TypeError: an option the metric does not have.
    """
    if name not in METRICS:
        raise UserError(f"no metric `{name}`; there are {', '.join(METRICS)}")
    file, class_name = METRICS[name]
    try:
        module = importlib.import_module(f"{__name__}.{file}")
    except ModuleNotFoundError as error:
        raise UserError(f"metric `{name}` needs {error.name}: pip install -e '.[metrics]'") from error
    return getattr(module, class_name)(config_name, **options)


def streamed(metric: "evaluate.Metric", columns: Callable[[Any], dict]) -> Callable[..., dict[str, float]]:
    """`Trainer(compute_metrics=...)` that hands each batch to `metric` and lets go of it.

    With `--batch_eval_metrics True` Trainer calls it batch by batch and keeps neither logits nor labels: no loop of
    our own is needed. Without, it is called once with everything and gives the same numbers. Logits still cross
    processes and wait for one batch: reduce them on the device, `Trainer(preprocess_logits_for_metrics=class_ids)`.

    Args:
        metric: from `load`, or several by `evaluate.combine`. All processes compute it, on what Trainer gathered.
        columns: an `EvalPrediction` of some rows -> what `metric.add_batch` takes.

    Returns:
        The function; it answers numbers only, since Trainer's loggers take no tables.
    """

    def compute_metrics(prediction, compute_result: bool = True) -> dict[str, float]:
        metric.add_batch(**columns(prediction))
        found = metric.compute() if compute_result else {}
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    return compute_metrics


def class_ids(logits: "torch.Tensor | tuple", labels: "torch.Tensor") -> "torch.Tensor":
    """Logits `[..., C]` as the likeliest class int64 `[...]`, for `Trainer(preprocess_logits_for_metrics=...)`."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
