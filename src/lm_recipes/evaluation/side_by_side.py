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
