"""The same classification tasks, solved by an encoder with a head and by a decoder: with a head, by SFT, by prompting.

Runs the real scripts one after the other and keeps what each has found: started again it goes on where it stopped.
Heads choose the better of two learning rates on validation; SFT has one. Makes results.json and table.md.
"""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class CompareClassifiers:
    """Which two models, which tasks, and how much they are shown."""

    encoder: str = field(default="demo:minilm", metadata={"help": "Encoder: directory, demo model, Hub id."})
    decoder: str = field(default="demo:smollm2", metadata={"help": "Decoder that transformers has a classifier for."})
    output_dir: str = field(default="runs/classifiers", metadata={"help": "For all runs, and what they come to."})
    tasks: list[str] = field(
        default_factory=lambda: ["sentiment", "question"], metadata={"help": "Of sentiment, topic, question."}
    )
    train_rows: int | None = field(default=500, metadata={"help": "Labelled rows to learn from."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "How often they are read."})
    shots: int = field(default=4, metadata={"help": "Few-shot: examples of each class."})
    num_seeds: int = field(default=1, metadata={"help": "Of rows drawn, their order, examples and heads."})
    encoder_peft: bool = field(default=False, metadata={"help": "The encoder learns through LoRA."})
    decoder_peft: bool = field(default=True, metadata={"help": "The decoder learns through LoRA."})
    plan: bool = field(default=False, metadata={"help": "Show the runs and which are done, and stop."})


def main() -> None:
    (args,) = parse(CompareClassifiers, description=__doc__)

    from tqdm import tqdm

    from lm_recipes.evaluation import classifiers, tracks

    root = Path(args.output_dir)
    ways = classifiers.runs(
        root,
        args.tasks,
        models={"encoder": args.encoder, "decoder": args.decoder},
        peft={"encoder": args.encoder_peft, "decoder": args.decoder_peft},
        train_rows=args.train_rows,
        epochs=args.num_train_epochs,
        shots=args.shots,
        num_seeds=args.num_seeds,
    )
    runs = {run.name: run for needed in ways.values() for run in needed}
    if args.plan:
        for run in runs.values():
            logger.info("%s  %s", "done" if run.record() else "    ", run.name)
        return

    records = {}
    bar = tqdm(runs.values(), unit="run")
    for run in bar:
        bar.set_description(run.name)
        records[run.name] = run.record() or run.carry_out()

    from transformers import AutoTokenizer

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.reporting.classifiers import markdown_table
    from lm_recipes.sources import resolve_model

    tasks = {task: {} for task in args.tasks}
    for (task, way), needed in ways.items():
        tasks[task][way] = classifiers.finding(way, [records[run.name] for run in needed])
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(args.encoder))
    number = "all" if args.train_rows is None else str(args.train_rows)
    for task, found in tasks.items():
        reference = tracks.reference(tracks.TASKS[task], number, args.num_seeds, tokenizer)
        found[tracks.REFERENCE] = reference | {"labelled_rows": found["encoder, head"]["labelled_rows"]}
    write_results(
        root,
        config=asdict(args),
        inputs={"encoder": args.encoder, "decoder": args.decoder},
        metrics={"classifiers": tasks},
        seconds={"runs": sum(record["seconds"].get("total", 0.0) for record in records.values())},
    )
    write_text(root / "table.md", markdown_table(tasks))
    done("the comparison of classifiers", root, f"python recipes/report.py --keep {root}")


if __name__ == "__main__":
    recipe(main)
