"""Encoder or decoder? Pretrain both and their hybrid on the same tokens, then teach all of them the same tasks.

Runs the real scripts and keeps what each has found: started again it goes on where it stopped.
Makes results.json, table.md and tracks.svg: accuracy by task and number of labels, bits per byte, pseudo-perplexity.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class CompareTracks:
    """Which corpus and models, how many tokens, which tasks."""

    corpus: str = field(default="runs/quickstart/corpus", metadata={"help": "Directory that clean.py made."})
    output_dir: str = field(default="runs/tracks", metadata={"help": "For all runs, and for what they come to."})
    size: str = field(default="1M", metadata={"help": "Size dial, the same for all: 1M, 3M, 10M, ..."})
    family: str = field(default="qwen3", metadata={"help": "Of decoder and hybrid: qwen3, llama, gpt2."})
    vocab_size: int = field(default=4096, metadata={"help": "Of the one tokenizer that all of them share."})
    block_size: int = field(default=256, metadata={"help": "Tokens per block in pretraining."})
    train_tokens: int = field(default=1_900_000, metadata={"help": "Tokens each is pretrained on."})
    tasks: list[str] = field(
        default_factory=lambda: ["sentiment", "topic", "question"], metadata={"help": "sentiment, topic, question"}
    )
    labels: list[str] = field(
        default_factory=lambda: ["300", "1000", "all"], metadata={"help": "How many labelled texts to learn from."}
    )
    num_seeds: int = field(default=3, metadata={"help": "Of fine-tuning: head, rows drawn and their order."})
    passages: int = field(default=48, metadata={"help": "Test paragraphs for the pseudo-perplexity."})
    jobs: int = field(
        default_factory=lambda: min(os.cpu_count() or 1, 8), metadata={"help": "Learned at a time, one thread each."}
    )
    plan: bool = field(default=False, metadata={"help": "Show the runs, what is done and what is left, and stop."})


def main() -> None:
    (args,) = parse(CompareTracks, description=__doc__)

    from tqdm import tqdm

    from lm_recipes.evaluation import tracks

    root = Path(args.output_dir)
    shape = {"size": args.size, "vocab_size": args.vocab_size}
    data = {"corpus": args.corpus, "block_size": args.block_size, "tokens": args.train_tokens}
    pretraining = tracks.pretraining_runs(root, **data, family=args.family, **shape)
    cells = tracks.finetuning_runs(root, args.tasks, args.labels, num_seeds=args.num_seeds, jobs=args.jobs, **shape)
    runs = [*pretraining, *cells.values()]
    table, _ = tracks.plan(runs)
    if args.plan:
        logger.info("%s", table)
        return

    records = {}
    bar = tqdm(total=len(runs), unit="run")
    for run in pretraining:
        bar.set_description(run.name)
        records[run.name] = run.record() or run.carry_out()
        bar.update()
    # Nothing here is timed, and two of one thread take 0.6 of the time that two threads take for one by one.
    with ThreadPoolExecutor(args.jobs) as pool:
        alone = {"OMP_NUM_THREADS": "1"}
        found = pool.map(lambda run: run.record() or run.carry_out(alone), cells.values())
        for run in cells.values():
            bar.set_description(run.name)
            records[run.name] = next(found)
            bar.update()

    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.evaluation.pseudo_perplexity import passages, pseudo_perplexity
    from lm_recipes.reporting.tracks import accuracy_plot, markdown_table
    from lm_recipes.sources import load_texts

    # What language modelling alone has taught them, on text of the test split.
    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer")
    texts = passages(load_texts(args.corpus, "test"), args.passages)
    encoder = AutoModelForMaskedLM.from_pretrained(root / "encoder", dtype=torch.float32)
    hybrid = AutoModelForCausalLM.from_pretrained(root / "hybrid", dtype=torch.float32)
    hybrid.config.is_causal = False  # read in both directions
    modelling = {
        "encoder": pseudo_perplexity(encoder, tokenizer, texts),
        "decoder": {"bits_per_byte": records["decoder"]["metrics"]["test_bits_per_byte"]},
        "hybrid, left to right": {"bits_per_byte": records["hybrid"]["metrics"]["test_bits_per_byte"]},
        "hybrid, both ways": pseudo_perplexity(hybrid, tokenizer, texts),
    }

    tasks = {task: {number: {} for number in args.labels} for task in args.tasks}
    for (task, number, track), run in cells.items():
        tasks[task][number][track] = tracks.found(records[run.name])
    for task in args.tasks:
        for number in args.labels:
            found = tracks.reference(tracks.TASKS[task], number, args.num_seeds, tokenizer)
            tasks[task][number][tracks.REFERENCE] = found

    models = {name: records[name]["metrics"]["parameters"] for name in ("encoder", "decoder", "hybrid")}
    metrics = {"parameters": models, "language_modelling": modelling, "tasks": tasks}
    write_results(
        root,
        config=asdict(args),
        inputs={"corpus": args.corpus, "tokenizer": str(root / "tokenizer")},
        metrics=metrics,
        seconds={"runs": sum(record["seconds"].get("total", 0.0) for record in records.values())},
    )
    write_text(root / "table.md", markdown_table(metrics))
    write_text(root / "tracks.svg", accuracy_plot(tasks))
    done("the comparison of the tracks", root, f"python recipes/report.py --keep {root}")


if __name__ == "__main__":
    recipe(main)
