"""Which pictures does a report show? Each function draws one, as SVG text that sits in the page."""

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, MUTED, GRID, ACCENT, SECOND = "#1f2933", "#7b8794", "#e4e7eb", "#0f766e", "#c2410c"
STYLE = {
    "font.size": 11, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID,
    "xtick.color": MUTED, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none",
    "axes.axisbelow": True, "svg.hashsalt": "lm-recipes",
}  # fmt: skip


def _svg(figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return stream.getvalue().split("?>", 1)[1].split(">", 1)[1]  # without XML prolog and doctype


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    unit: str,
    intervals: Sequence[tuple[float, float] | None] | None = None,
    highlight: Sequence[bool] | None = None,
    number: str = "{:,.0f}",
    start: float = 0.0,
) -> str:
    """Horizontal bars, the first label on top; `intervals` are (low, high) or None per bar."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.42 * len(labels) + 0.7))
        colors = [ACCENT if mark else "#9fb3c8" for mark in highlight or [True] * len(labels)]
        rows = range(len(labels))
        axes.barh(rows, [value - start for value in values], left=start, color=colors, height=0.66)
        ends = list(values)
        for row, interval in enumerate(intervals or []):
            if interval:
                axes.plot(interval, (row, row), color=INK, linewidth=1.4, marker="|", markersize=7)
                ends[row] = max(ends[row], interval[1])
        span = max(max(ends) - start, 1e-9)
        for row, (value, end) in enumerate(zip(values, ends, strict=True)):
            axes.text(end + 0.015 * span, row, number.format(value), va="center", fontsize=10)
        axes.set(xlim=(start, start + 1.14 * span), xlabel=unit)
        axes.set_yticks(rows, labels)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def curve(
    tokens: Sequence[float],
    values: Sequence[float],
    *,
    title: str,
    unit: str,
    levels: dict[str, float],
    final: float | None = None,
) -> str:
    """One learning curve over tokens seen, with named horizontal lines to beat and the final test value as a dot."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.6))
        millions = [count / 1e6 for count in tokens]
        axes.plot(millions, values, color=ACCENT, linewidth=2.4, marker="o", markersize=4, label="validation")
        for name, level in levels.items():
            axes.axhline(level, color=SECOND, linewidth=1.1, linestyle=(0, (5, 3)))
            axes.annotate(
                f"{name} {level:.3g}", (1, level), (-2, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", fontsize=9.5, color=SECOND,
            )  # fmt: skip
        if final is not None:
            axes.plot(millions[-1:], [final], color=INK, marker="D", markersize=6, linestyle="", label="test")
        axes.set(xlabel="million tokens seen", ylabel=unit, title=title, xlim=(0, None))
        axes.legend(frameon=False, loc="best")
        return _svg(figure)
