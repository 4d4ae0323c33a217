"""What does each way of fine-tuning cost, and what does it reach? All weights, LoRA and its kin, on both tracks.

MiniLM on film review sentiment and SmolLM2-135M on doctor-patient dialogues, by the scripts that users run, with the
same small budget for every method: it stands above each table. Finished runs are kept: a killed bench goes on.
"""

import logging
import time
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class PeftBench:
    """Which tasks, and which methods."""

    tasks: list[str] = field(
        default_factory=lambda: ["sentiment", "dialogues"], metadata={"help": "sentiment, dialogues"}
    )
    only: list[str] | None = field(default=None, metadata={"help": "Names of methods; default: all."})
    max_steps: int | None = field(default=None, metadata={"help": "Of each run, instead of the budget: to try it."})
    plan: bool = field(default=False, metadata={"help": "Only list what is to run and how long."})
    output_dir: str = field(default="runs/bench-peft", metadata={"help": "For all runs and the record."})


def main() -> None:
    (args,) = parse(PeftBench, description=__doc__)

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.evaluation.adapter_methods import METHODS, TASKS, budget, compared
    from lm_recipes.evaluation.runs import Runs
    from lm_recipes.reporting.adapter_methods import markdown_table

    names = args.only or list(METHODS)
    for flag, asked, known in (("only", names, METHODS), ("tasks", args.tasks, TASKS)):
        if unknown := [name for name in asked if name not in known]:
            raise UserError(f"--{flag} {unknown[0]!r}: choose of {', '.join(map(repr, known))}")
    for name in names:
        if (needs := METHODS[name].needs) and find_spec(needs) is None:
            raise UserError(f"{name} needs {needs}: pip install -e '.[quantize]', or name others with --only")
    begun, output = time.perf_counter(), Path(args.output_dir)
    runs = Runs(output / "runs")
    runs.dry = args.plan
    methods = {task: {} for task in args.tasks}
    for task in args.tasks:
        for name in names:
            if task in METHODS[name].rates:
                methods[task][name] = compared(runs, task, name, args.max_steps)
    if args.plan:
        logger.info("%s", runs.plan())
        return
    metrics = {"budgets": {task: budget(task, args.max_steps) for task in methods}, "methods": methods}
    table = markdown_table(metrics)
    logger.info("%s", table)
    write_results(
        output, config=asdict(args), inputs={}, metrics=metrics,
        more_versions=sorted({METHODS[name].needs for name in names} - {None}),
        seconds={"since the last start": time.perf_counter() - begun},
    )  # fmt: skip
    write_text(output / "table.md", table)
    done(f"{len(names)} methods on {len(methods)} task(s)", output, f"python recipes/report.py --keep {output}")


if __name__ == "__main__":
    recipe(main)
