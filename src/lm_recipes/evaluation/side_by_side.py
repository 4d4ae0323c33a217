"""How are several ways of doing the same timed against each other?"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tqdm import tqdm


def in_turn(variants: dict[str, Callable[[Path], object]], rounds: int, size: int, scratch: Path) -> tuple[dict, list]:
    """Time each variant in turn (A B A B ...), so that a slow minute of the machine is a slow minute of all.

    Args:
        variants: name -> function of the directory it may write; the first is what the others are compared with.
        rounds: calls of each variant.
        size: bytes that a call works on.
        scratch: a directory for theirs; each is emptied before the next round.

    Returns:
        Per variant the median seconds, megabytes_per_second, and ratio: the median over rounds of its time to the
        first variant's in the same round; and what each variant returned in the last round.
    """
    times, returned = {name: [] for name in variants}, []
    for _ in tqdm(range(rounds), desc=" / ".join(variants)):
        returned = []
        for number, (name, run) in enumerate(variants.items()):
            shutil.rmtree(scratch / str(number), ignore_errors=True)
            start = time.perf_counter()
            returned.append(run(scratch / str(number)))
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    return {
        name: {
            "seconds": median(seconds),
            "megabytes_per_second": size / 1e6 / median(seconds),
            "ratio": median(a / b for a, b in zip(seconds, first, strict=True)),
        }
        for name, seconds in times.items()
    } | {"text_bytes": size}, returned


def seconds_in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, what: str
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Seconds of each call in each round, called in turn (A B A B ...), and what it returned last. A round before the
    first is not counted: in it graphs are compiled and memory is found.

    Args:
        what: is done, for the progress bar.
    """
    seconds, returned = {name: [] for name in calls}, {}
    for number in tqdm(range(rounds + 1), desc=what):
        for name, call in calls.items():
            start = time.perf_counter()
            returned[name] = call()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds, returned


def memory_bandwidth() -> float:
    """Bytes a second that all cores together read from memory: the best of ten sums over 512 MiB."""
    import torch

    numbers = torch.ones(2**27)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - start)
    return numbers.nbytes / min(seconds)
