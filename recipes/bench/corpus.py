"""Time clean text -> packed ids and raw text -> clean -> deduplicated -> packed ids, beside `datasets` and datatrove.

Three comparisons on two cores, each in rounds (A B A B ...): medians, and ratios of paired rounds to our first variant.

- pack: Parquet to packed ids; `datasets.map` and grouping as run_clm does, one and two processes. Same ids required.
- tokenize: JSONL to token ids on disk; datatrove's DocumentTokenizer. Same ids required.
- chain: JSONL to filtered, MinHash-deduplicated token ids; clean.py and pack.py as they are launched, start-up, reports
  and all, beside datatrove's executors with two workers. Which documents stay differs by design.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe

STEPS = ["normalize", "length", "quality", "repetition", "near_duplicates"]


@dataclass
class CorpusBench:
    """Which text, how much of it, and where the record goes."""

    data: str = field(default="runs/enwik8/corpus", metadata={"help": "Clean corpus directory (train.parquet)."})
    tokenizer: str = field(default="runs/quickstart/tokenizer-gpt", metadata={"help": "Its directory; has bos, eos."})
    megabytes: float = field(default=1000.0, metadata={"help": "Use the first so many of the text, for `pack`."})
    chain_megabytes: float = field(default=10.0, metadata={"help": "The same, beside datatrove; 5 or more."})
    block_size: int = field(default=256, metadata={"help": "Tokens per block."})
    rounds: int = field(default=3, metadata={"help": "Runs of each variant."})
    output_dir: str = field(default="runs/bench-corpus", metadata={"help": "Directory for results.json."})


def launch(text: Path, tokenizer: str, block_size: int, output: Path) -> dict:
    """Our chain as a user runs it; seconds per script, and what each says of its own stages."""
    corpus, packed, seconds = output / "corpus", output / "packed", {}
    clean = ["--source", text, "--output_dir", corpus, "--validation", 0.05, "--test", 0.05, "--steps", *STEPS]
    pack = ["--data", corpus, "--tokenizer_name_or_path", tokenizer, "--output_dir", packed, "--block_size", block_size]
    for script, flags, made in (("clean.py", clean, corpus), ("pack.py", pack, packed)):
        start = time.perf_counter()
        command = [sys.executable, Path(__file__).parents[1] / "corpus" / script, *flags]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if ended.returncode:
            raise UserError(f"{script}: {ended.stderr.strip().splitlines()[-1]}")
        seconds[script] = time.perf_counter() - start
        seconds[f"inside {script}"] = json.loads((made / "results.json").read_text())["seconds"]
    return seconds


def main() -> None:
    (args,) = parse(CorpusBench, description=__doc__)

    import datasets
    from transformers import AutoTokenizer

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.evaluation import corpus_peers as peers
    from lm_recipes.evaluation.side_by_side import in_turn
    from lm_recipes.objectives.packing import Packer, write_packed
    from lm_recipes.sources import load_documents, load_texts

    begun = time.perf_counter()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)

    def pack(packing: str, texts: Callable[[], Iterator[str]], output: Path) -> Path:
        write_packed(texts(), tokenizer, Packer.for_tokenizer(tokenizer, args.block_size, packing), output)
        return output

    with atomic_directory(args.output_dir) as directory:
        scratch = directory / "scratch"
        whole, some, table = scratch / "whole", scratch / "some", scratch / "whole" / "train.parquet"
        size = peers.write_text(load_texts(args.data, "train"), args.megabytes, whole)
        chain_size = peers.write_text(load_texts(args.data, "train"), args.chain_megabytes, some)

        rows, lines = partial(load_texts, str(whole), "train"), partial(load_documents, str(some / "jsonl"))
        framed = peers.framed(tokenizer)
        variants = {
            "ours, concatenated": partial(pack, "concatenate", rows),
            "ours, best fit": partial(pack, "best_fit", rows),
            "datasets, as run_clm does": partial(peers.grouped, table, framed, args.block_size, None),
            "datasets, 2 processes": partial(peers.grouped, table, framed, args.block_size, 2),
        }
        pack_times, (ours, _, one, two) = in_turn(variants, args.rounds, size, scratch)
        pack_times["tokens_dropped_by_datasets"] = peers.check_grouped(ours, one, rows(), tokenizer, 1)
        peers.check_grouped(ours, two, rows(), tokenizer, 2)

        texts = lambda: (document.text for document in lines())  # noqa: E731
        variants = {
            "ours": partial(pack, "concatenate", texts),
            "datatrove": partial(peers.datatrove_tokens, some / "jsonl", tokenizer, []),
        }
        tokenize_times, (_, tokens) = in_turn(variants, args.rounds, chain_size, scratch)
        peers.check_datatrove(tokens, texts(), tokenizer)

        variants = {
            "ours": partial(launch, some / "jsonl", args.tokenizer, args.block_size),
            "datatrove": partial(peers.datatrove_chain, some / "jsonl", tokenizer),
        }
        chain_times, stages = in_turn(variants, args.rounds, chain_size, scratch)
        chain_times["seconds_by_stage"] = dict(zip(variants, stages, strict=True))
        pack_times["seconds_by_stage"] = peers.our_stages(rows, tokenizer, args.block_size, scratch / "stages")
        shutil.rmtree(scratch)
        write_results(
            directory,
            config=asdict(args) | {"steps": STEPS, "workers": peers.WORKERS},
            inputs={"data": args.data, "tokenizer": args.tokenizer},
            metrics={"pack": pack_times, "tokenize": tokenize_times, "chain": chain_times},
            seconds={"total": time.perf_counter() - begun},
        )
    done("times from text to ids", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
