"""Which pictures does a report show? Each function draws one, as SVG text that sits in the page."""

import io
import warnings
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, MUTED, GRID, ACCENT, SECOND = "#1f2933", "#7b8794", "#e4e7eb", "#0f766e", "#c2410c"
PALE, STREAM = "#7cc4bb", "#d5ece9"
STYLE = {
    "font.size": 11, "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID,
    "xtick.color": MUTED, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GRID, "svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none",
    "axes.axisbelow": True, "svg.hashsalt": "lm-recipes", "text.parse_math": False,  # a label's $ is a dollar
}  # fmt: skip


def svg(figure) -> str:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the letters that our font lacks
        # With a layout the picture has the width it was given, and text the same size in all of them.
        fit = None if figure.get_layout_engine() else "tight"
        figure.savefig(stream, format="svg", bbox_inches=fit, metadata={"Date": None})
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
    beside: Sequence[str] | None = None,
    width: float | None = None,
) -> str:
    """Horizontal bars, the first label on top; `intervals` are (low, high) or None per bar.

    Args:
        beside: what stands at the end of each bar in place of its value.
        width: of the whole picture in inches; by default the bars decide.
    """
    with plt.rc_context(STYLE):
        layout = "constrained" if width else None
        figure, axes = plt.subplots(figsize=(width or 7, 0.42 * len(labels) + 0.7), layout=layout)
        colors = [ACCENT if mark else "#9fb3c8" for mark in highlight or [True] * len(labels)]
        rows = range(len(labels))
        axes.barh(rows, [value - start for value in values], left=start, color=colors, height=0.66)
        ends = list(values)
        for row, interval in enumerate(intervals or []):
            if interval:
                axes.plot(interval, (row, row), color=INK, linewidth=1.4, marker="|", markersize=7)
                ends[row] = max(ends[row], interval[1])
        span = max(max(ends) - start, 1e-9)
        texts = beside or [number.format(value) for value in values]
        for row, (text, end) in enumerate(zip(texts, ends, strict=True)):
            axes.text(end + 0.015 * span, row, text, va="center", fontsize=10)
        axes.set(xlim=(start, start + (1.3 if beside else 1.14) * span), xlabel=unit)
        if all(isinstance(value, int) for value in values):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_yticks(rows, labels)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        return svg(figure)


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
        return svg(figure)


def flow(labels: Sequence[str], panels: dict[str, tuple[Sequence[float], Callable[[float], str]]]) -> str:
    """How much is left after each step, as a stream that narrows downwards, and what each step took out of it.

    Args:
        labels: what went in, the steps, what came out.
        panels: title -> (amounts left, one per label; how one is written). Panels stand side by side.
    """
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(
            1, len(panels), figsize=(9, 0.42 * len(labels) + 0.6), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, (title, (amounts, write)) in zip(row[0], panels.items(), strict=True):
            _stream(axes, amounts, write)
            axes.set_title(title, loc="left", fontsize=11)
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
        row[0][0].set_yticks(range(len(labels)), labels)
        row[0][0].invert_yaxis()
        return svg(figure)


def _stream(axes, amounts: Sequence[float], write: Callable[[float], str]) -> None:
    last, span = len(amounts) - 1, max(*amounts, 1e-9)
    for row, (before, left) in enumerate(zip([amounts[0], *amounts], amounts, strict=False)):
        axes.barh(row, left, color=ACCENT if row in (0, last) else PALE, height=0.6)
        if row:
            axes.fill_betweenx([row - 0.7, row - 0.3], 0, before, color=STREAM, linewidth=0)
            axes.barh(row, max(before - left, 0), left=left, color=SECOND, height=0.6)
        change = left - before
        total = row in (0, last)
        text = write(left) if total else f"{'+' if change > 0 else '−'}{write(abs(change))}" if change else "0"
        color = INK if change or total else MUTED
        axes.text(max(before, left) + 0.02 * span, row, text, va="center", fontsize=10, color=color)
    axes.set(xlim=(0, 1.3 * span), ylim=(-0.6, last + 0.6))
    axes.grid(visible=False)


def columns(labels: Sequence[str], values: Sequence[float], *, unit: str, count: str) -> str:
    """Upright bars that touch: a histogram. `labels` name the lower edge of each, in `unit`; `count` says of what."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
        axes.bar(range(len(values)), values, width=0.94, align="edge", color=ACCENT)
        axes.set_xticks(range(len(labels)), labels, fontsize=9.5)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel=unit, ylabel=count, xlim=(-0.1, len(values)))
        axes.grid(axis="x", visible=False)
        return svg(figure)
