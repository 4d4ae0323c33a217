"""Which width, depth and learning rates suit a size? Ours, tried one thing after the other, each for the same time.

First shapes (width x layers) with about the size's parameters, then Muon's rate or AdamW in its place, then AdamW's
rate, each with the best so far; on both tracks. Finished runs are kept: a killed bench goes on.
"""

import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class DialBench:
    """Which sizes, for how long."""

    sizes: list[str] = field(default_factory=lambda: ["1M", "3M"], metadata={"help": "Of the dial."})
    seconds: list[float] = field(
        default_factory=lambda: [60.0, 120.0], metadata={"help": "For a training of each size, start-up included."}
    )
    tracks: list[str] = field(default_factory=lambda: ["gpt", "bert"], metadata={"help": "gpt, bert or both."})
    data: str = field(default="runs/enwik8/corpus", metadata={"help": "Clean corpus directory made by clean.py."})
    run_dir: str = field(default="runs/quickstart", metadata={"help": "Has tokenizer-gpt and tokenizer-bert."})
    plan: bool = field(default=False, metadata={"help": "Only list what is to run and how long."})
    output_dir: str = field(default="runs/bench-dial", metadata={"help": "For all runs and the record."})


MUON_RATES = (0.01, 0.02, 0.04, None)  # None: AdamW's rate, as for everything else
ADAMW_RATES = (2e-3, 8e-3)


def main() -> None:
    (args,) = parse(DialBench, description=__doc__)
    if len(args.sizes) != len(args.seconds):
        raise UserError(f"--seconds {args.seconds}: one for each of --sizes {' '.join(args.sizes)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the training that is under way, too

    from lm_recipes.artifacts import write_results
    from lm_recipes.evaluation.contest import Contest
    from lm_recipes.evaluation.contest_texts import Texts
    from lm_recipes.evaluation.runs import Runs, quickstart_settings

    output = Path(args.output_dir)
    runs, metrics = Runs(output / "runs"), {}
    runs.dry = args.plan
    for track in args.tracks:
        tokenizer, block_size = Path(args.run_dir, f"tokenizer-{track}"), 256 if track == "gpt" else 128
        texts = Texts(track, Path(args.data), tokenizer, output / "work", block_size)
        contest = Contest(runs, texts, quickstart_settings(track))
        for size, seconds in zip(args.sizes, args.seconds, strict=True):
            metrics[f"{track}, {size}, {seconds:g} s"] = search(contest, size, seconds)
    if args.plan:
        return print(runs.plan())
    trainings = sum(run["wall_seconds"] for found in metrics.values() for run in found["tried"].values())
    write_results(
        output, config=asdict(args), inputs={"data": args.data}, metrics=metrics, seconds={"trainings": trainings}
    )
    done("shapes and rates tried", output, f"python recipes/report.py --keep {output}")


def search(contest, size: str, seconds: float) -> dict:
    """The best settings that were tried for a size, and what each of them gave in so many seconds."""
    from lm_recipes.evaluation.runs import tune
    from lm_recipes.models.size import Size

    kept = ("loss", "tokens", "tokens_per_second", "parameters", "wall_seconds")
    tried, shapes, own = {}, Size.named(size).neighbours(), contest.ours.get("muon_learning_rate")
    variants = {shape: {"size": shape} for shape in (size, *shapes)}
    other = {"size": size, "muon_learning_rate": 0.02 if own is None else None}
    steps = contest.steps_in_equal_time(variants | {"other optimizer": other}, seconds)

    def steps_for(settings: dict) -> int | None:
        """The other optimizer makes as many more or fewer of them in other shapes as in the size's own."""
        number, rate = steps[settings["size"]], settings.get("muon_learning_rate", own)
        if number and (rate is None) != (own is None):
            return round(number * steps["other optimizer"] / steps[size])
        return number

    def said(settings: dict) -> str:
        all_of_them = contest.ours | settings
        shape, muon = Size.named(all_of_them["size"]), all_of_them.get("muon_learning_rate")
        rates = ([] if muon is None else [f"Muon {muon:g}"]) + [f"AdamW {float(all_of_them['learning_rate']):g}"]
        return ", ".join([f"{shape.width}x{shape.layers}", *rates])

    def loss_of(settings: dict) -> float:
        run = contest.trained_for(settings, 0, steps_for(settings), seconds)
        if run is None:
            return float("inf")
        tried[said(settings)] = {key: run[key] for key in kept}
        return run["loss"]

    stages = [
        [{"size": shape} for shape in shapes],
        [{"muon_learning_rate": rate} for rate in MUON_RATES if rate != own],
        [{"learning_rate": rate} for rate in ADAMW_RATES],
    ]
    best = tune({"size": size}, stages, loss_of)
    return {"best": said(best), "tried": tried}


if __name__ == "__main__":
    recipe(main)
