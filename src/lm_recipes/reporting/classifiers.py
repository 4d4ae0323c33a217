"""A head, SFT or a prompt? The comparison as a table."""

from lm_recipes.evaluation.classifiers import WAYS
from lm_recipes.evaluation.tracks import REFERENCE


def markdown_table(tasks: dict[str, dict[str, dict]]) -> str:
    """A row per way: labelled rows used, parameters trained, minutes for all tasks; then test accuracy in percent, mean
    ± standard deviation over seeds. The best of a task is bold.

    Args:
        tasks: task -> way -> what `evaluation.classifiers.finding` says.
    """
    lines = [f"| | labelled rows | trained | minutes | {' | '.join(tasks)} |"]
    lines.append("| --- |" + " ---: |" * (3 + len(tasks)))
    for way in (*WAYS, REFERENCE):
        cells = [found[way] for found in tasks.values()]
        rows = sorted({cell["labelled_rows"] for cell in cells})
        used = f"{rows[0]:,}" + (f" to {rows[-1]:,}" if rows[1:] else "")
        trained = f"{max(cell['trained_parameters'] for cell in cells):,}" if way != REFERENCE else ""
        minutes = f"{sum(cell['minutes'] for cell in cells):.1f}" if way != REFERENCE else ""
        accuracies = [_accuracy(found, way) for found in tasks.values()]
        lines.append(f"| {way} | {used} | {trained} | {minutes} | {' | '.join(accuracies)} |")
    return "\n".join(lines) + "\n"


def _accuracy(found: dict[str, dict], way: str) -> str:
    cell, best = found[way], max(one["accuracy"] for one in found.values())
    spread = "" if cell["standard_deviation"] is None else f" ± {100 * cell['standard_deviation']:.1f}"
    text = f"{100 * cell['accuracy']:.1f}{spread}"
    return f"**{text}**" if cell["accuracy"] == best else text
