"""Which choice does a model make, how often is it the right one, and which ones went wrong?"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import softmax

from lm_recipes.evaluation.classification import interval
from lm_recipes.models.families import positions_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@torch.no_grad()
def choose(
    model, tokenizer, question: str, choices: Sequence[str], context: str = "", max_length: int | None = None
) -> list[float]:
    """Probability of each choice, as many as there are; they add up to 1.

    Args:
        model: of `AutoModelForMultipleChoice`.
        max_length: tokens read of what is asked and a choice; default: as many as the model can.
    """
    longest = min(positions_of(model.config) or 10**9, tokenizer.model_max_length)
    asked = [" ".join(filter(None, (context, question)))] * len(choices)
    batch = tokenizer(
        asked, list(choices), truncation=True, max_length=min(max_length or longest, longest), padding=True,
        return_tensors="pt",
    )  # fmt: skip
    logits = model.eval()(**{name: values[None].to(model.device) for name, values in batch.items()}).logits
    return logits[0].double().softmax(-1).tolist()


def report(runs: Mapping[int, Mapping[str, np.ndarray]], rows: "DatasetDict") -> dict:
    """The metrics of one recipe run under S seeds, as results.json holds them.

    Args:
        runs: seed -> split name -> logits float `[N, C]`; the splits are "validation" and "test".
        rows: of `sources.questions.load_choices`.

    Returns:
        For both splits the mean accuracy over seeds with a 95 % interval over rows; `per_seed` accuracies;
        `saved_seed`, the one that is best on validation, and its `errors` on test.
    """
    metrics, per_seed = {}, [{"seed": seed} for seed in runs]
    for split in ("test", "validation"):
        truth = np.array(rows[split]["labels"][:])
        right = np.stack([found[split].argmax(-1) == truth for found in runs.values()])
        low, high = interval(right)
        metrics[split] = {"accuracy": float(right.mean()), "accuracy_low": low, "accuracy_high": high}
        metrics[split]["rows"] = len(truth)
        for run, own in zip(per_seed, right, strict=True):
            run[split] = float(own.mean())
    saved = max(per_seed, key=lambda run: run["validation"])["seed"]
    errors = worst_choices(runs[saved]["test"], rows["test"])
    return metrics | {"per_seed": per_seed, "saved_seed": saved, "errors": errors}


def worst_choices(logits: np.ndarray, rows: "Dataset", limit: int = 20) -> list[dict]:
    """The rows whose wrong choice was thought likeliest.

    Args:
        logits: float `[N, C]`.
    """
    probabilities = softmax(logits, axis=-1)
    wrong = []
    for row, own in zip(rows, probabilities, strict=True):
        said = int(own.argmax())
        if said != row["labels"]:
            texts = {"expected": row["choices"][row["labels"]], "chosen": row["choices"][said]}
            about = {name: row[name] for name in ("id", "context", "question")}
            wrong.append(about | texts | {"probability": float(own[said])})
    return sorted(wrong, key=lambda row: -row["probability"])[:limit]


def in_words(metrics: dict) -> str:
    """The main result in a few words, from what `report` says and, if it was measured, the best of the `baselines`."""
    test, others = metrics["test"], metrics.get("baselines", {})
    value, low, high = (test[f"accuracy{end}"] for end in ("", "_low", "_high"))
    best_other = max(others, key=others.get, default=None)
    beside = f"; {best_other.replace('_', ' ')}: {others[best_other]:.1%}" if best_other else ""
    return f"{value:.1%} of test questions right (95 %: {low:.1%} to {high:.1%}){beside}"
