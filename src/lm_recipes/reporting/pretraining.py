"""How soon does who reach which loss? The numbers of recipes/bench/pretraining.py, and their picture."""

from collections.abc import Iterable, Sequence
from statistics import median

import matplotlib.pyplot as plt

from lm_recipes.evaluation.runs import compare, spread, typical
from lm_recipes.reporting import plots
from lm_recipes.reporting.cards import markdown_rows

TICKS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200)  # seconds
COLORS = ("#c2410c", "#d97706", "#6d28d9", "#1d4ed8", "#7b8794")
CHANGED = "ours with one thing changed"  # the ablations' record
SPEED = "tokens per second, "  # and of what: a table for each


def metrics_of(
    peers: dict[str, tuple[dict, list]],
    ladders: list[list],
    budgets: Sequence[float],
    changed: dict[str, list],
    speeds: dict[str, dict[str, list]],
    unit: str,
) -> dict:
    """Everything that the runs at hand say; what is not complete (a run is None) is left out.

    Args:
        peers: row -> its settings and its runs, one per seed, as `evaluation.contest.Contest.trained` gives them.
        ladders: ours, per seed the runs at each of the budgets (seconds).
        changed: variant of ours -> its runs, one per seed; the first is what the others are held against.
        speeds: vocabulary -> variant -> its short runs, one per turn; the first is ours.
        unit: what a loss is called.
    """
    metrics: dict = {}
    ladder_is_whole = _complete(run for ladder in ladders for run in ladder)
    for name, (settings, runs) in peers.items():
        if _complete(runs):
            metrics[name] = peer_record(settings, runs, ladders if ladder_is_whole else None, unit)
    if ladder_is_whole:
        metrics["ours"] = ladder_record(ladders, budgets, unit)
    finished = {name: runs for name, runs in changed.items() if _complete(runs)}
    if len(finished) == len(changed):
        metrics[CHANGED] = ablation_record(finished, unit)
    for name, turns in speeds.items():
        if _complete(run for runs in turns.values() for run in runs):
            metrics[f"{SPEED}{name}"] = speed_record(turns)
    return metrics


def _complete(runs: Iterable[dict | None]) -> bool:
    return all(run is not None for run in runs)


def peer_record(settings: dict, runs: Sequence[dict], ladders: Sequence[Sequence[dict]] | None, unit: str) -> dict:
    """A row of the table: medians over seeds with their ranges, and how much sooner ours were there, if known.

    Args:
        runs: of the peer, one per seed, as `evaluation.contest.Contest.trained` gives them.
        ladders: ours of the same seeds, each at several budgets.
        unit: what a loss is called.
    """
    record = spread(unit, [run["loss"] for run in runs]) | spread("seconds", [run["wall_seconds"] for run in runs])
    for name in ("tokens", "tokens_per_second", "parameters", "start_up_seconds"):
        record[name] = median(run[name] for run in runs)
    record["runs"] = [{name: value for name, value in run.items() if name not in {"log", "name"}} for run in runs]
    record["settings_chosen"] = ", ".join(f"{name} {value}" for name, value in settings.items())
    return record | ({"ours": compare(runs, ladders)} if ladders else {})


def ladder_record(ladders: Sequence[Sequence[dict]], budgets: Sequence[float], unit: str) -> dict:
    """Ours at each budget: loss over seeds, seconds and tokens (medians); and every run."""
    record: dict = {}
    for budget, runs in zip(budgets, zip(*ladders, strict=True), strict=True):
        record[f"{budget:g} seconds"] = spread(unit, [run["loss"] for run in runs]) | {
            name: median(run[name] for run in runs)
            for name in ("wall_seconds", "start_up_seconds", "tokens", "tokens_per_second", "parameters")
        }
    kept = ("wall_seconds", "loss", "tokens", "tokens_per_second", "code")
    runs = [[{name: run[name] for name in kept} for run in ladder] for ladder in ladders]
    return record | {"runs": runs, "versions_of_our_code": len({run["code"] for ladder in runs for run in ladder})}


def ablation_record(variants: dict[str, Sequence[dict]], unit: str) -> dict:
    """Each variant of ours at equal time: its loss, what that is above the loss of the first (`worse_by`), and how many
    times as fast it trained (`speed`), both seed by seed; and how many tokens it saw."""
    first, record = next(iter(variants.values())), {}
    for name, runs in variants.items():
        pairs = list(zip(runs, first, strict=True))
        record[name] = spread(unit, [run["loss"] for run in runs])
        record[name] |= spread("worse_by", [run["loss"] - base["loss"] for run, base in pairs])
        record[name] |= spread("speed", [run["tokens_per_second"] / base["tokens_per_second"] for run, base in pairs])
        record[name] |= {key: median(run[key] for run in runs) for key in ("tokens", "start_up_seconds")}
    return record


def ablation_table(record: dict, unit: str) -> str:
    """Of an `ablation_record`: a row per variant."""
    rows = [
        [name, _ranged(row, unit, 3), _ranged(row, "worse_by", 3), _ranged(row, "speed", 2), f"{row['tokens']:,.0f}"]
        for name, row in record.items()
    ]
    return markdown_rows([CHANGED, unit.replace("_", " "), "worse by", "speed", "tokens"], rows)


def speed_record(turns: dict[str, Sequence[dict]]) -> dict:
    """Tokens per second of each variant (medians over turns), and how many times faster the first one is: as the
    median of the ratios within a turn, against each and against the fastest of the others."""
    first = next(iter(turns.values()))
    record = {}
    for name, runs in turns.items():
        ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(first, runs, strict=True)]
        speeds = spread("tokens_per_second", [run["tokens_per_second"] for run in runs])
        record[name] = speeds | spread("first_is_times_faster", ratios)
    others = [record[name]["first_is_times_faster"] for name in list(turns)[1:]]
    return record | {"times_faster_than_the_fastest_other": min(others)}


def markdown_table(metrics: dict) -> str:
    """A row per peer: where it ended and when, when ours were there, and why; then ours at each budget; then ablations,
    and a table of speeds for each vocabulary. Medians over seeds or turns, ranges in brackets.

    Args:
        metrics: of `metrics_of`.
    """
    peers = {name: row for name, row in metrics.items() if "settings_chosen" in row}
    unit = "bits_per_byte" if "bits_per_byte" in next(iter(peers.values()), {}) else "nats_per_masked_token"
    ratios = ("times_sooner", "times_fewer_tokens", "times_faster")
    head = ["", *(name.replace("_", " ") for name in (unit, "seconds", "our_seconds", *ratios))]
    rows = []
    for name, row in peers.items():
        ours = row.get("ours", {})
        cells = [_ranged(row, unit, 3), _ranged(row, "seconds", 0), _ranged(ours, "our_seconds", 1)]
        cells += [_ranged(ours, ratio, 1) for ratio in ratios]
        rows.append([f"{name} ({row['settings_chosen']})", *cells])
    for budget, row in metrics.get("ours", {}).items():
        if budget.endswith("seconds"):
            rows.append([f"ours, {budget}", _ranged(row, unit, 3), f"{row['wall_seconds']:.1f}", *[""] * 4])
    speeds = {name: row for name, row in metrics.items() if name.startswith(SPEED)}
    tables = [markdown_rows(head, rows)]
    if CHANGED in metrics:
        tables.append(ablation_table(metrics[CHANGED], unit))
    return "\n\n".join([*tables, *(speed_table(name.removeprefix(SPEED), row) for name, row in speeds.items())])


def speed_table(title: str, record: dict) -> str:
    """Of a `speed_record`: a row per variant."""
    rows = [
        [name, _ranged(row, "tokens_per_second", 0), _ranged(row, "first_is_times_faster", 1)]
        for name, row in record.items()
        if isinstance(row, dict)
    ]
    return markdown_rows([title, "tokens per second", f"{rows[0][0]}, times faster"], rows)


def dial_table(metrics: dict) -> str:
    """What recipes/bench/dial.py tried, in its order: a table per track and size, the best settings in bold."""
    tables = []
    for title, record in metrics.items():
        rows = [
            [
                f"**{settings}**" if settings == record["best"] else settings,
                *(f"{run['loss']:.3f}", f"{run['tokens']:,}", f"{run['tokens_per_second']:,.0f}"),
                f"{run['parameters'] / 1e6:.2f}M",
            ]
            for settings, run in record["tried"].items()
        ]
        unit = "bits per byte" if title.startswith("gpt") else "nats per masked token"
        tables.append(markdown_rows([title, unit, "tokens", "tokens per second", "parameters"], rows))
    return "\n\n".join(tables)


def _ranged(row: dict, name: str, digits: int) -> str:
    if name not in row:
        return ""
    middle, least, most = (f"{row[key]:,.{digits}f}" for key in (name, f"{name}_least", f"{name}_most"))
    return f"{middle} ({least} to {most})"


def draw(metrics: dict, peers: dict[str, list], units_per_nat: float, unit: str, title: str) -> str:
    """SVG: loss over wall-clock seconds since a process started, on a logarithmic axis.

    Ours (a line per seed): where runs of so many tokens ended, on held-out text. Peers: training loss on the way (thin,
    first seed), held-out loss at the end (diamonds) and the level that ours have to reach.

    Args:
        metrics: of `metrics_of`. peers: row -> runs, for the losses on the way.
        units_per_nat: what turns those, nats per token, into `unit`.
    """
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
        ends = []
        for number, ladder in enumerate(metrics.get("ours", {"runs": []})["runs"]):
            points = [(run["wall_seconds"], run["loss"]) for run in typical(ladder)]
            ends += points
            label = "ours, a run per point" if number == 0 else None
            axes.plot(*zip(*points, strict=True), color=plots.ACCENT, marker="o", markersize=4, label=label)
        for name, color in zip([name for name in peers if name in metrics], COLORS, strict=False):
            log = [(entry["seconds"], entry["loss"] * units_per_nat) for entry in peers[name][0]["log"]]
            last = [(run["wall_seconds"], run["loss"]) for run in peers[name]]
            ends += last
            axes.plot(*zip(*log, strict=True), color=color, linewidth=0.8, alpha=0.6)
            axes.plot(*zip(*last, strict=True), color=color, marker="D", linestyle="", label=name)
            axes.axhline(metrics[name][unit], color=color, linewidth=0.8, linestyle=(0, (5, 3)))
        axes.set(xscale="log", xlabel="seconds since the process started", ylabel=unit.replace("_", " "), title=title)
        axes.set_xticks(TICKS, [f"{seconds:g}" for seconds in TICKS])
        axes.xaxis.set_minor_locator(plt.NullLocator())
        if ends:
            lowest, highest = min(loss for _, loss in ends), max(loss for _, loss in ends)
            axes.set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.15 * (highest - lowest) + 0.01)
            axes.set_xlim(0.8 * min(seconds for seconds, _ in ends), 1.2 * max(seconds for seconds, _ in ends))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return plots.svg(figure)
