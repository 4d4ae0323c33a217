"""How much sooner do our recipes reach the loss that others end at? One training at a time, each in its own process.

Peers (evaluation/pretraining_peers.py) get `--budget` seconds from process start to saved model: run_clm or run_mlm as
shipped, with the learning rate swept, and with every setting tuned (a trial has a third of the steps); nanoGPT from a
checkout. Ours get a ladder of budgets, and the quickest that ends at a peer's loss counts. Parameters are within 2 %,
held-out text is the same, text was tokenised beforehand. Finished runs are kept: a killed bench goes on.
"""

import math
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe

PARTS = ["shipped", "swept", "tuned", "nanogpt", "ours", "ablations", "throughput"]


@dataclass
class PretrainingBench:
    """Which track, how long, which parts."""

    track: str = field(metadata={"help": "gpt or bert."})
    budget: float = field(default=300.0, metadata={"help": "Seconds that a peer has, start-up included."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Peers are tuned on the first one."})
    ladder: list[float] = field(
        default_factory=lambda: [10, 12, 15, 20, 25, 30, 37, 45, 60, 75, 90, 120, 180, 300],
        metadata={"help": "Budgets of ours, in seconds."},
    )
    ablation_budget: float = field(default=60.0, metadata={"help": "Seconds of ours with one thing changed."})
    only: list[str] | None = field(default=None, metadata={"help": f"Of {' '.join(PARTS)}; default: all."})
    plan: bool = field(default=False, metadata={"help": "Only list what is to run and how long."})
    settings_of: str | None = field(default=None, metadata={"help": "Record whose settings of peers are not searched."})
    nanogpt: str | None = field(default=None, metadata={"help": "Checkout of karpathy/nanoGPT; else it is left out."})
    size: str = field(default="1M", metadata={"help": "Size dial of ours; peers are matched to it."})
    data: str = field(default="runs/enwik8/corpus", metadata={"help": "Clean corpus directory made by clean.py."})
    run_dir: str = field(default="runs/quickstart", metadata={"help": "Has tokenizer-gpt and tokenizer-bert."})
    eval_kilobytes: float = field(default=1000.0, metadata={"help": "Validation text that losses are measured on."})
    warm_compile_cache: bool = field(default=False, metadata={"help": "Keep what torch.compile made between runs."})
    output_dir: str | None = field(default=None, metadata={"help": "Default: runs/bench-pretraining-<track>."})


# One technique of ours changed at a time (flags of pretrain.py; None leaves one out, capitals are the environment's).
CHANGES = {
    "ours": {},
    "random embeddings": {"initial_embeddings": "random"},
    **{f"AdamW for all, {rate:g}": {"muon_learning_rate": None, "learning_rate": rate} for rate in (2e-3, 5e-3, 1e-2)},
    "cosine schedule": {"lr_scheduler_type": "cosine"},
    "fp32": {"bf16": False},
    "sdpa attention": {"attn_implementation": "sdpa"},
    "glibc's own heap settings": {"GLIBC_TUNABLES": ""},
    "documents concatenated, then cut": {"packing": "concatenate"},
    "batch 8": {"per_device_train_batch_size": 8},
    "batch 64": {"per_device_train_batch_size": 64},
}
VOCABULARIES = (8192, 30522)


def main() -> None:
    (args,) = parse(PretrainingBench, description=__doc__)
    if args.track not in ("gpt", "bert") or set(args.only or PARTS) - set(PARTS):
        raise UserError(f"--track {args.track} --only {args.only}: gpt or bert, and of {' '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the training that is under way, too

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.evaluation.contest import TURNS, Contest
    from lm_recipes.evaluation.contest_texts import Texts
    from lm_recipes.evaluation.pretraining_peers import SHIPPED, SPEEDS, STAGES, check_nanogpt
    from lm_recipes.evaluation.runs import Runs, climb, quickstart_settings, settings_of
    from lm_recipes.models import SIZES
    from lm_recipes.reporting import pretraining as reporting

    begun, gpt = time.perf_counter(), args.track == "gpt"
    script, unit = ("run_clm", "bits_per_byte") if gpt else ("run_mlm", "nats_per_masked_token")
    if args.nanogpt:
        check_nanogpt(Path(args.nanogpt))
    output = Path(args.output_dir or f"runs/bench-pretraining-{args.track}")
    runs, tokenizer = Runs(output / "runs"), Path(args.run_dir, f"tokenizer-{args.track}")
    block_size, nanogpt = 256 if gpt else 128, Path(args.nanogpt).resolve() if args.nanogpt else None
    texts = Texts(args.track, Path(args.data), tokenizer, output / "work", block_size, args.eval_kilobytes)
    ours = quickstart_settings(args.track) | {"size": args.size}
    contest = Contest(runs, texts, ours, nanogpt, args.warm_compile_cache)

    def turn_to(part: str) -> None:
        """What is asked for from here on is made if it is missing; only read, if the part is not wanted."""
        runs.listed = part in (args.only or PARTS)
        runs.dry = args.plan or not runs.listed

    searches = [  # 1. Peers: the settings of each row, found on the first seed.
        (f"{script} as shipped", "shipped", script, 0),
        (f"{script}, learning rate swept", "swept", script, 1),
        (f"{script}, fully tuned", "tuned", script, None),
        ("nanoGPT as shipped", "nanogpt", "nanogpt", 0),
        ("nanoGPT, tuned", "nanogpt", "nanogpt", None),
    ][: 5 if gpt and args.nanogpt else 3]
    wanted = [name for name, part, *_ in searches if part in (args.only or PARTS)]
    known, chosen = settings_of(Path(args.settings_of), wanted) if args.settings_of else {}, {}
    for name, part, who, stages in searches:
        turn_to(part)
        start, trials = (known[name], []) if name in known else (SHIPPED[who], STAGES[who][:stages])
        settings, complete = contest.tuned(who, start, trials, args.seeds[0], args.budget)
        if complete or args.plan:
            chosen[name] = (part, who, settings)

    # 2. Seed by seed: every row, then ours, as far up the ladder as it takes to be below all of them.
    peers, ladders = {name: [] for name in chosen}, []
    for seed in args.seeds:
        for name, (part, who, settings) in chosen.items():
            turn_to(part)
            peers[name].append(contest.trained(who, settings, seed, args.budget))
        turn_to("ours")
        lowest = min((found[-1]["loss"] for found in peers.values() if found[-1]), default=-math.inf)
        ladders.append(climb(args.ladder, partial(contest.trained, "ours", {}, seed), lowest))
    budgets = args.ladder[: max(map(len, ladders))]  # all of them for all seeds
    ladders = [climb(budgets, partial(contest.trained, "ours", {}, seed)) for seed in args.seeds]
    turn_to("ablations")  # 3. Ours with one thing changed, in turn.
    steps = contest.steps_in_equal_time(CHANGES, args.ablation_budget)
    changed = {name: [] for name in CHANGES}
    for seed, (name, change) in product(args.seeds, CHANGES.items()):
        changed[name].append(contest.trained_for(change, seed, steps[name], args.ablation_budget))

    turn_to("throughput")  # 4. Speed alone, at equal width and depth, with larger vocabularies.
    speeds, size = {}, SIZES[args.size]
    for entries in [] if gpt else VOCABULARIES:
        other = contest.with_vocabulary(entries, {script: (size.width, size.layers, max(size.width // 64, 1))})
        speeds[f"vocabulary {entries:,}"] = turns = {name: [] for name in ("ours", *SPEEDS)}
        for turn in range(TURNS):
            turns["ours"].append(other.sample("ours", {}, turn))
            for name, change in SPEEDS.items():
                turns[name].append(other.sample(script, SHIPPED[script] | change, turn))

    if args.plan:
        return print(runs.plan())
    rows = {name: (chosen[name][2], found) for name, found in peers.items()}
    metrics = reporting.metrics_of(rows, ladders, budgets, changed, speeds, unit)
    write_results(
        output, config=asdict(args) | {"ours": contest.ours}, inputs={"data": args.data, "tokenizer": str(tokenizer)},
        metrics=metrics, seconds={"since the last start": time.perf_counter() - begun},
    )  # fmt: skip
    title = f"{args.track.upper()}, {args.size}"
    write_text(output / "curves.svg", reporting.draw(metrics, peers, texts.units_per_nat(), unit, title))
    done("times to equal losses", output, f"python recipes/report.py --keep {output}")


if __name__ == "__main__":
    recipe(main)
