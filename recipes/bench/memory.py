"""How much memory does a large corpus take? Clean a made-up input of some gigabytes and watch the whole process tree.

The input is real text, perturbed: each document has paragraphs of several articles with some words replaced by others,
and one in ten is nearly the document before it. Memory is the proportional set size (shared pages counted once), summed
over the recipe and its workers, twice a second.
"""

import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class MemoryBench:
    """How large the input is, what it is made of, and where the record goes."""

    data: str = field(default="runs/enwik8/corpus", metadata={"help": "Corpus directory whose text is perturbed."})
    gigabytes: float = field(default=2.0, metadata={"help": "Size of the input."})
    num_processes: int = field(default=2, metadata={"help": "Workers of clean.py."})
    seed: int = field(default=0, metadata={"help": "Another seed makes another input."})
    output_dir: str = field(default="runs/bench-memory", metadata={"help": "Directory for results.json."})


def perturbed(articles: list[str], size: float, seed: int) -> Iterator[str]:
    """Texts of `size` bytes in all, from the articles' paragraphs and words."""
    draw = random.Random(seed)
    text = ""
    while size > 0:
        if not text or draw.random() > 0.1:
            lines = [line for _ in range(3) for line in draw.choice(articles).split("\n")]
            words = " \n".join(draw.sample(lines, min(len(lines), draw.randint(3, 40)))).split(" ")
            for place in draw.sample(range(len(words)), len(words) // 3):
                words[place] = draw.choice(words)
        else:
            words = text.split(" ")
            words[draw.randrange(len(words))] = "otherwise"
        text = " ".join(words)
        size -= len(text.encode())
        yield text


def main() -> None:
    (args,) = parse(MemoryBench, description=__doc__)

    import psutil
    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, read_json, write_results
    from lm_recipes.sources import load_texts

    articles = list(load_texts(args.data, "train"))
    with atomic_directory(args.output_dir) as directory:
        raw = directory / "raw.jsonl"
        with raw.open("w") as file, tqdm(desc="making the input", unit="B", unit_scale=True) as bar:
            for number, text in enumerate(perturbed(articles, args.gigabytes * 1e9, args.seed)):
                bar.update(file.write(json.dumps({"id": str(number), "text": text}) + "\n"))
        size = raw.stat().st_size
        script = Path(__file__).parents[1] / "corpus" / "clean.py"
        command = [sys.executable, str(script), "--source", str(raw), "--output_dir", str(directory / "corpus")]
        start, peak = time.perf_counter(), 0
        process = psutil.Popen([*command, "--num_processes", str(args.num_processes)])
        while process.poll() is None:
            peak = max(peak, tree_memory(process))
            time.sleep(0.5)
        if process.returncode:
            raise UserError("clean.py failed; what it says stands above")
        seconds = time.perf_counter() - start
        metrics = read_json(directory / "corpus" / "results.json", "results")["metrics"]
        raw.unlink()
        shutil.rmtree(directory / "corpus")
        write_results(
            directory,
            config=asdict(args),
            inputs={"data": args.data},
            metrics={
                "input_bytes": size,
                "peak_memory_bytes": peak,
                "megabytes_per_second": size / 1e6 / seconds,
                "ledger": [{**record, "examples": []} for record in metrics["ledger"]],
            },
            seconds={"clean": seconds},
        )
    done(
        f"{size / 1e9:.2f} GB in {seconds:.0f} s, never more than {peak / 1e9:.2f} GB of memory",
        args.output_dir,
        f"python recipes/report.py --keep {args.output_dir}",
    )


def tree_memory(process) -> int:
    """Proportional set size of a process and all below it, bytes."""
    import psutil

    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


if __name__ == "__main__":
    recipe(main)
