"""Which track wins where? The paired experiment as a table and as a picture."""

import matplotlib.pyplot as plt

from lm_recipes.evaluation.tracks import REFERENCE, TASKS, TRACKS
from lm_recipes.reporting import plots

# Colour says whose weights, the line how they are used.
_LOOKS = {
    "encoder": (plots.ACCENT, "-", "o"),
    "decoder": (plots.SECOND, "-", "s"),
    "hybrid, left to right": ("#6d28d9", "-", ">"),
    "hybrid, both ways": ("#6d28d9", "--", "D"),
    "encoder, not pretrained": (plots.ACCENT, ":", "o"),
    "decoder, not pretrained": (plots.SECOND, ":", "s"),
    REFERENCE: (plots.MUTED, "-.", "x"),
}


def markdown_table(metrics: dict) -> str:
    """A row per track: bits per byte, pseudo-perplexity, then test accuracy in percent, mean ± standard deviation.

    The best of a column is bold; of the accuracies, the best of what is no reference.

    Args:
        metrics: of `recipes/compare_tracks.py`.
    """
    modelling, tasks = metrics["language_modelling"], metrics["tasks"]
    columns = [(task, number) for task in tasks for number in tasks[task]]
    measures = {"bits per byte": ("bits_per_byte", "{:.3f}"), "pseudo-perplexity": ("pseudo_perplexity", "{:.1f}")}
    table = [["", *measures, *(f"{task}, {_labels(number)}" for task, number in columns)]]
    for track in (*TRACKS, REFERENCE):
        row = [track]
        for key, form in measures.values():
            values = {name: found[key] for name, found in modelling.items() if key in found}
            best = min(values.values(), default=None)
            row.append(_bold(form.format(values[track]), values[track] == best) if track in values else "")
        for task, number in columns:
            cells = tasks[task][number]
            best = max(cells[name]["accuracy"] for name in TRACKS)
            row.append(_bold(_percent(cells[track]), track in TRACKS and cells[track]["accuracy"] == best))
        table.append(row)
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(table[0]) - 1), *lines[1:]]) + "\n"


def _labels(number: str) -> str:
    return "all" if number == "all" else f"{int(number):,}"


def _percent(cell: dict) -> str:
    spread = cell["standard_deviation"]
    return f"{100 * cell['accuracy']:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def accuracy_plot(tasks: dict) -> str:
    """Test accuracy over the number of labels, a panel per task and a line per track, as SVG; whiskers are one
    standard deviation over seeds.

    Args:
        tasks: task -> number of labels ("all" too) -> track -> `accuracy`, `standard_deviation`, `train_rows`.
    """
    with plt.rc_context(plots.STYLE):
        figure, row = plt.subplots(1, len(tasks), figsize=(3.6 * len(tasks) + 0.4, 4.6), squeeze=False)
        for axes, (task, numbers) in zip(row[0], tasks.items(), strict=True):
            sizes = [TASKS[task].rows if number == "all" else int(number) for number in numbers]
            for track, (color, line, marker) in _LOOKS.items():
                cells = [numbers[number][track] for number in numbers]
                axes.errorbar(
                    sizes,
                    [100 * cell["accuracy"] for cell in cells],
                    [100 * (cell["standard_deviation"] or 0.0) for cell in cells],
                    color=color, linestyle=line, marker=marker, markersize=4, linewidth=1.6, elinewidth=1, label=track,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(sizes, [_labels(number) for number in numbers])
            axes.minorticks_off()
            axes.set(title=task, xlabel="labelled texts")
        row[0][0].set_ylabel("test accuracy, %")
        handles, names = row[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3, frameon=False)
        return plots.svg(figure)
