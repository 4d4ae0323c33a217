"""What is pretraining worth to an encoder? The comparison of variants as a table and as a picture."""

from statistics import mean

import matplotlib.pyplot as plt

from lm_recipes.evaluation.encoder_variants import NONE, QUICKSTART, average
from lm_recipes.evaluation.tracks import TASKS
from lm_recipes.reporting import plots
from lm_recipes.reporting.cards import markdown_rows


def markdown_table(metrics: dict) -> str:
    """A row per variant, best first: speed, validation loss of its own objective (comparable among those with masks and
    one vocabulary), validation accuracy in percent at the labels all were compared at, then what is known of the test
    split. Accuracies are means over seeds.

    Args:
        metrics: of `recipes/bench/encoder.py`.
    """
    variants, scores, screen = metrics["variants"], metrics["scores"], metrics["screen"]
    names = sorted([*variants, NONE], key=lambda name: -average(name, scores, screen))
    columns = [(task, number) for task in scores for number in scores[task]]
    head = ["", "tokens/s", "loss", "mean", *(f"{task}, {screen}" for task in scores)]
    head += [f"{task}, {number} (test)" for task, number in columns]
    rows = []
    for name in names:
        model = variants.get(name)
        row = [name, *([f"{model['tokens_per_second']:,.0f}", f"{model['loss']:.3f}"] if model else ["", ""])]
        row += [f"{100 * average(name, scores, screen):.1f}"]
        row += [f"{100 * mean(scores[task][screen][name]['validation']):.1f}" for task in scores]
        cells = [scores[task][number].get(name) for task, number in columns]
        rows.append([*row, *(f"{100 * mean(cell['test']):.1f}" if cell else "" for cell in cells)])
    return markdown_rows(head, rows) + "\n"


def accuracy_plot(metrics: dict) -> str:
    """Test accuracy over the number of labels, a panel per task: the best variant, the quickstart's, none; as SVG."""
    scores, best = metrics["scores"], metrics["best"]
    looks = {NONE: (plots.MUTED, ":"), QUICKSTART: (plots.SECOND, "--"), best: (plots.ACCENT, "-")}
    with plt.rc_context(plots.STYLE):
        figure, row = plt.subplots(1, len(scores), figsize=(3.6 * len(scores) + 0.4, 3.6), squeeze=False)
        for axes, (task, numbers) in zip(row[0], scores.items(), strict=True):
            sizes = [TASKS[task].rows if number == "all" else int(number) for number in numbers]
            for name, (color, line) in looks.items():
                runs = [numbers[number][name]["test"] for number in numbers]
                axes.errorbar(
                    sizes,
                    [100 * mean(run) for run in runs],
                    [[100 * (mean(run) - min(run)) for run in runs], [100 * (max(run) - mean(run)) for run in runs]],
                    color=color, linestyle=line, marker="o", markersize=4, linewidth=1.6, elinewidth=1, label=name,
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.minorticks_off()
            axes.set(title=task, xlabel="labelled texts")
        row[0][0].set_ylabel("test accuracy, %")
        row[0][-1].legend(loc="lower right", frameon=False)
        figure.tight_layout()
        return plots.svg(figure)
