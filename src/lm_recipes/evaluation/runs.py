"""Which of many long runs are done, which settings are the best so far, and how soon was a loss reached?"""

import hashlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import median

import yaml
from filelock import FileLock, Timeout

from lm_recipes.artifacts import read_json, write_json
from lm_recipes.launch import UserError

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parents[3] / "recipes"
FEWEST_STEPS = 16  # with fewer no schedule has a shape


def quickstart_settings(track: str) -> dict:
    """Settings of the quickstart's pretraining, "gpt" or "bert"."""
    return yaml.safe_load(Path(RECIPES, track, "configs", "pretrain-quickstart.yaml").read_text(encoding="utf-8"))


class Runs:
    """Trainings by name, each made at most once: what a finished one gave is kept in a small JSON file.

    Only one process at a time makes runs in a directory; its threads may make several at a time.

    Args:
        directory: run n's is `directory/<name>-<hash of its settings>/result.json`.

    Attributes:
        dry: while set, nothing is made: a run that is missing is None.
        listed: while set, runs that are asked for are part of the plan.
        asked: run of the plan -> the seconds it is expected to take, and whether it was there when first asked for.
        missing: how often a run was asked for in vain.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.dry, self.listed, self.missing = directory, False, True, 0
        self.asked: dict[str, tuple[float, bool]] = {}
        self._lock = FileLock(directory / "lock", thread_local=False)

    def __call__(self, name: str, settings: dict, seconds: float, train: Callable[[Path], dict]) -> dict | None:
        """The result of a run: read if it was finished before, else made now by `train(directory)`."""
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        directory = self.directory / f"{re.sub('[^a-z0-9.]+', '-', name.lower())}-{key}"
        there = (directory / "result.json").is_file()
        if self.listed:
            self.asked.setdefault(directory.name, (seconds, there))
        if not there and self.dry:
            self.missing += 1
            return None
        if not there:
            self._claim()
            logger.info("run     %s (about %.0f s)", directory.name, seconds)
            shutil.rmtree(directory, ignore_errors=True)  # what a killed bench left of it
            directory.mkdir(parents=True)
            write_json(directory / "result.json", {"name": name, "settings": settings} | train(directory))
        return read_json(directory / "result.json", "result of a run")

    def plan(self) -> str:
        """A line for each run that was asked for: done, or how many minutes it will take; and the sum."""
        to_go = sum(seconds for seconds, there in self.asked.values() if not there)
        rows = [("done" if there else f"{seconds / 60:.1f} min", name) for name, (seconds, there) in self.asked.items()]
        return "\n".join(f"{state:>9}  {name}" for state, name in [*rows, (f"{to_go / 60:.0f} min", "to go")])

    def _claim(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            if not self._lock.is_locked:
                self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{self.directory}: another bench makes runs there; wait for it") from error


def launch(
    arguments: Sequence[object],
    directory: Path,
    environment: dict[str, str] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> float:
    """Run Python with `arguments` to its end, or until `until()`, and kill what it started; the Unix time it began.

    Raises:
        UserError: it failed; with the last line that it said. All it said is in `directory/log.txt`.
    """
    # A script of ours sets this for itself; a peer must not inherit it from the one that runs the comparison.
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    log = directory / "log.txt"
    with log.open("w", encoding="utf-8") as said:
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], stdout=said, stderr=subprocess.STDOUT,
            env=inherited | (environment or {}), start_new_session=True,
        )  # fmt: skip
        try:
            while (code := process.poll()) is None and not until():
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{log}: a training ended with {code}: {lines[-1] if lines else 'it said nothing'}")
    return began


def words(flags: dict[str, object]) -> list[object]:
    """Settings as words of a command; None is left out."""
    return [word for name, value in flags.items() if value is not None for word in (f"--{name}", value)]


def steps_within(seconds: float, calibration: dict) -> int:
    """How many steps end, with start-up and saving, after `seconds`; `FEWEST_STEPS` even if they take longer."""
    return max(FEWEST_STEPS, int((seconds - calibration["start_up_seconds"]) / calibration["step_seconds"]))


def tune(start: dict, stages: Iterable[Sequence[dict]], loss_of: Callable[[dict], float]) -> dict:
    """The best settings that a search finds which goes through `stages`: each tries its changes on the best so far.

    Args:
        loss_of: of settings; not finite where they are not known or diverged.
    """

    def finite(settings: dict) -> float:
        loss = loss_of(settings)
        return loss if math.isfinite(loss) else math.inf

    best, lowest = start, finite(start)
    for changes in stages:
        tried = [(finite(settings), settings) for settings in [best | change for change in changes]]
        loss, settings = min(tried, key=lambda pair: pair[0])
        if loss < lowest:
            best, lowest = settings, loss
    return best


def settings_of(record: Path, rows: Iterable[str]) -> dict[str, dict]:
    """Row -> the settings that a search found for it, from a kept record of recipes/bench/pretraining.py.

    Raises:
        UserError: the record is not there, or lacks one of the rows.
    """
    found, metrics = {}, read_json(record, "record").get("metrics", {})
    for row in rows:
        if "settings_chosen" not in metrics.get(row, {}):
            raise UserError(f"{record}: no settings of {row!r}; leave its part out (--only) or --settings_of")
        flags = [flag.split()[0] for flag in metrics[row]["settings_chosen"].split(", ")]
        found[row] = {flag: metrics[row]["runs"][0]["settings"][flag] for flag in flags}
    return found


def climb(
    budgets: Iterable[float], train: Callable[[float], dict | None], enough: float = -math.inf
) -> list[dict | None]:
    """A training for each budget, in their order, up to the first whose loss is `enough` or less.

    Args:
        train: of a budget; None: not made yet, in a plan.
    """
    made = []
    for seconds in budgets:
        made.append(train(seconds))
        if made[-1] and made[-1]["loss"] <= enough:
            break
    return made


def typical(ladder: Iterable[dict]) -> list[dict]:
    """Of runs that saw equally many `tokens` the one in the middle by `wall_seconds` (the later of two), by tokens.

    Budgets that come to the same steps repeat a run; its best time would be luck that a peer, run once, has not.
    """
    by_tokens = groupby(sorted(ladder, key=itemgetter("tokens", "wall_seconds")), key=itemgetter("tokens"))
    return [same[len(same) // 2] for same in (list(runs) for _, runs in by_tokens)]


def time_to_loss(ladder: Iterable[dict], loss: float) -> dict | None:
    """Of the `typical` runs at several budgets the quickest that ended at `loss` or below; None: none did.

    A run between two budgets might have reached it sooner: nothing is interpolated.
    """
    reached = [run for run in typical(ladder) if run["loss"] <= loss]
    return min(reached, key=itemgetter("wall_seconds"), default=None)


def against(peer: dict, ladder: Sequence[dict]) -> dict | None:
    """How many times sooner than `peer` a run of the ladder reached its loss, and why; None: none did.

    `times_sooner` is the product of `times_fewer_tokens` (sample efficiency) and `times_faster`: tokens in a second of
    all the time it took, start-up and compilation included.
    """
    ours = time_to_loss(ladder, peer["loss"])
    if ours is None:
        return None
    fewer = peer["tokens"] / ours["tokens"]
    times = peer["wall_seconds"] / ours["wall_seconds"]
    return {"times_sooner": times, "times_fewer_tokens": fewer, "times_faster": times / fewer, "run": ours}


def compare(peer_runs: Sequence[dict], ladders: Sequence[Sequence[dict]]) -> dict:
    """`against` over seeds: medians and ranges; where a seed's ladder did not reach the loss, only what is known."""
    found = [against(peer, ladder) for peer, ladder in zip(peer_runs, ladders, strict=True)]
    reached = [one for one in found if one is not None]
    summary: dict = {"seeds": len(found), "seeds_reached": len(reached)}
    if len(reached) < len(found):
        return summary | {
            "times_sooner_below": max(
                peer["wall_seconds"] / max(run["wall_seconds"] for run in ladder)
                for peer, ladder, one in zip(peer_runs, ladders, found, strict=True)
                if one is None and ladder
            )
        }
    for name in ("times_sooner", "times_fewer_tokens", "times_faster"):
        summary |= spread(name, [one[name] for one in reached])
    return summary | spread("our_seconds", [one["run"]["wall_seconds"] for one in reached])


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The median under `name`, and the range beside it."""
    return {name: median(values), f"{name}_least": min(values), f"{name}_most": max(values)}
