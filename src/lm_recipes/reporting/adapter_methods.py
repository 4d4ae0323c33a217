"""What does each way of fine-tuning cost and reach? The comparison as tables."""

from lm_recipes.evaluation.adapter_methods import TASKS

HEAD = ("method", "trained", "of all, %", "saved, MB", "peak memory, MB", "training, s", "learning rate")


def markdown_table(metrics: dict[str, dict]) -> str:
    """A table per task under what its runs were given, a row per method, in the order they were asked for.

    Memory is the whole process at its highest (or all tensors on a GPU), time that of the training steps.

    Args:
        metrics: `methods`: task -> method -> what `evaluation.adapter_methods.compared` found;
            `budgets`: task -> words.
    """
    return "\n".join(_table(task, found, metrics["budgets"][task]) for task, found in metrics["methods"].items())


def _table(task: str, found: dict[str, dict], budget: str) -> str:
    score = TASKS[task].score
    rows = [
        [
            name, f"{row['trainable']:,}", f"{100 * row['trainable'] / row['parameters']:.3g}",
            f"{row['saved_bytes'] / 1e6:.1f}", f"{row['peak_bytes'] / 1e6:,.0f}", f"{row['train_seconds']:.0f}",
            f"{row['learning_rate']:g}", _score(row["test"], score),
        ]
        for name, row in found.items()
    ]  # fmt: skip
    head = [*HEAD, f"test {score.replace('_', ' ')}" + (", %" if score == "accuracy" else "")]
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return "\n".join([budget, "", lines[0], "| --- |" + " ---: |" * (len(head) - 1), *lines[1:], ""])


def _score(test: dict[str, float], score: str) -> str:
    """The score, and its interval or what it was before training."""
    if f"{score}_before" in test:
        return f"{test[score]:.3f} ({test[f'{score}_before']:.3f} before)"
    low, high = test[f"{score}_low"], test[f"{score}_high"]
    return f"{100 * test[score]:.1f} ({100 * low:.1f} to {100 * high:.1f})"
