"""What does each way of fine-tuning cost and reach? The comparison as tables."""

from lm_recipes.evaluation.adapter_methods import TASKS


def markdown_table(methods: dict[str, dict[str, dict]]) -> str:
    """A table per task, a row per method, best on validation first.

    Memory is the whole process at its highest (or all tensors on a GPU), time that of the training steps. Scores are
    means over seeds, of the test split; the range stands behind.

    Args:
        methods: task -> method -> what `evaluation.adapter_methods.compared` found.
    """
    return "\n".join(_table(task, found) for task, found in methods.items())


def _table(task: str, found: dict[str, dict]) -> str:
    about = TASKS[task]
    score = f"test {about.score.replace('_', ' ')}" + (", %" if about.sign > 0 else "")
    head = ["method", "trained", "of all, %", "saved, MB", "peak memory, MB", "seconds", "learning rate", score]
    rows = [
        [
            name, f"{row['trainable']:,}", f"{100 * row['trainable'] / row['parameters']:.3g}",
            f"{row['saved_bytes'] / 1e6:.1f}", f"{row['peak_bytes'] / 1e6:,.0f}", f"{row['train_seconds']:.0f}",
            f"{row['learning_rate']:g}", _score(row, about.sign),
        ]
        for name, row in sorted(found.items(), key=lambda item: -about.sign * item[1]["validation"])
    ]  # fmt: skip
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return "\n".join([f"**{task}**", "", lines[0], "| --- |" + " ---: |" * (len(head) - 1), *lines[1:], ""])


def _score(row: dict, sign: int) -> str:
    factor, digits = (100, 1) if sign > 0 else (1, 3)
    text = f"{factor * row['test']:.{digits}f}"
    low, high = (factor * edge(row["tests"]) for edge in (min, max))
    return text if len(row["tests"]) == 1 else f"{text} ({low:.{digits}f} to {high:.{digits}f})"
