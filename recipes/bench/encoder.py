"""What is a little pretraining worth to an encoder? One thing changed at a time, then the same tasks for all.

Every variant trains for the same seconds; then it learns each task from 1,000 labelled rows. The best by validation
accuracy, the same with random weights, and the quickstart's go on to all numbers of labels. Finished runs are kept: a
killed bench goes on.
"""

import logging
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class EncoderBench:
    """How long, which variants, which tasks."""

    data: str = field(default="runs/enwik8/corpus", metadata={"help": "Clean corpus directory made by clean.py."})
    seconds: float = field(default=150.0, metadata={"help": "Of training that each variant gets."})
    only: list[str] | None = field(default=None, metadata={"help": "Names of variants; default: all."})
    tasks: list[str] = field(
        default_factory=lambda: ["sentiment", "topic", "question"], metadata={"help": "sentiment, topic, question"}
    )
    labels: list[str] = field(
        default_factory=lambda: ["300", "1000", "all"], metadata={"help": "For those that go on."}
    )
    screen: str = field(default="1000", metadata={"help": "Labels that variants are compared at."})
    num_seeds: int = field(default=3, metadata={"help": "Of fine-tuning: head, rows drawn and their order."})
    jobs: int = field(
        default_factory=lambda: min(os.cpu_count() or 1, 8), metadata={"help": "Learned at a time, one thread each."}
    )
    plan: bool = field(default=False, metadata={"help": "Only list what is to run and how long."})
    output_dir: str = field(default="runs/bench-encoder", metadata={"help": "For all runs and the record."})


def main() -> None:
    (args,) = parse(EncoderBench, description=__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the training that is under way, too

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.evaluation.encoder_variants import NONE, QUICKSTART, VARIANTS, Workshop, average
    from lm_recipes.evaluation.runs import Runs
    from lm_recipes.reporting.encoder_variants import accuracy_plot, markdown_table

    names = [QUICKSTART, *(name for name in args.only or VARIANTS if name != QUICKSTART)]
    if unknown := set(names) - set(VARIANTS):
        raise UserError(f"--only {' '.join(unknown)}: there is no such variant; choose of {', '.join(VARIANTS)}")
    begun, output = time.perf_counter(), Path(args.output_dir)
    runs = Runs(output / "runs")
    runs.dry = args.plan
    shop = Workshop(runs, Path(args.data), output / "work", args.seconds, args.num_seeds)

    def learn(name: str, numbers: list[str], row: str, from_scratch: bool = False) -> None:
        """Nothing here is timed, and two of one thread take 0.6 of the time that two threads take for one by one."""
        cells = list(product(args.tasks, numbers))
        with ThreadPoolExecutor(args.jobs) as pool:
            found = pool.map(lambda cell: shop.classified(name, *cell, from_scratch), cells)
        for (task, number), score in zip(cells, found, strict=True):
            scores[task][number][row] = score

    # 1. Every variant on the same few labels; 2. the best, as judged on validation, and none, on all numbers.
    numbers = dict.fromkeys([*args.labels, args.screen])
    models, scores = {}, {task: {number: {} for number in numbers} for task in args.tasks}
    for name in names:
        models[name] = shop.pretrained(name)
        learn(name, [args.screen], name)
    if args.plan:
        logger.info("%s\nand the best, with and without pretraining, on %s labels", runs.plan(), ", ".join(numbers))
        return
    best = max(names, key=lambda name: average(name, scores, args.screen))
    for name in dict.fromkeys([best, QUICKSTART]):
        learn(name, list(numbers), name)
    learn(best, list(numbers), NONE, from_scratch=True)

    gains = {
        split: average(best, scores, args.screen, split) - average(NONE, scores, args.screen, split)
        for split in ("validation", "test")
    }
    kept = ("steps", "tokens", "tokens_per_second", "train_seconds", "parameters", "loss")
    metrics = {
        "variants": {name: {key: model[key] for key in kept} for name, model in models.items()},
        "scores": scores,
        "screen": args.screen,
        "best": best,
        "gain": gains,
    }
    write_results(
        output, config=asdict(args), inputs={"data": args.data}, metrics=metrics,
        seconds={"since the last start": time.perf_counter() - begun},
    )  # fmt: skip
    write_text(output / "table.md", markdown_table(metrics))
    write_text(output / "labels.svg", accuracy_plot(metrics))
    done(f"{len(names)} variants; best: {best}", output, f"python recipes/report.py --keep {output}")


if __name__ == "__main__":
    recipe(main)
