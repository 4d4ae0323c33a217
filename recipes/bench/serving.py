"""What do many clients of recipes/gpt/serve.py wait for, and what do they gain from sharing the model?

Two servers of one model: texts side by side (`--max_rows 64`), and one request at a time (`--max_rows 1`). Clients
stream completions of each in turn (A B A B ...): prompts of 8 to 77 words, 16 to 128 new tokens, nucleus sampling. A
client asks anew when it is answered, and hangs up when time is up. If it still waits for its first token then, what it
has waited counts: where requests queue, the true waits are longer.
"""

import asyncio
import logging
import random
import re
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes.bench")

SERVERS = {"side by side": 64, "one at a time": 1}
WORDS = (
    "The river rises in the hills north of the town and runs for some forty miles to the sea. In spring it floods the "
    "meadows on both sides, and people who live near it keep a boat in the yard, as their parents did. There is a "
    "mill, which has ground no corn since the war, and an old bridge of five arches; over it goes the road to market. "
    "Every year in June the boys of both banks row against each other, and whoever loses has to pay for the dinner."
).split()


@dataclass
class ServingBench:
    """Which model, how many clients, for how long, and where the record goes."""

    model_name_or_path: str = field(default="demo:smollm2", metadata={"help": "As serve.py takes it."})
    clients: list[int] = field(default_factory=lambda: [1, 16, 64], metadata={"help": "At once; one after the other."})
    seconds: float = field(default=30.0, metadata={"help": "Of each server, for each number of clients and round."})
    compare: bool = field(default=True, metadata={"help": "Also a server of one request at a time."})
    rounds: int = field(default=3, metadata={"help": "Turns of both servers; the medians count."})
    output_dir: str = field(default="runs/bench-serving", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(ServingBench, description=__doc__)
    for option in ("seconds", "rounds"):
        if getattr(args, option) <= 0:
            raise UserError(f"--{option} {getattr(args, option)}: must be above 0")
    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.serving.load import server_process

    script = Path(__file__).parents[1] / "gpt" / "serve.py"
    flags = ["--model_name_or_path", args.model_name_or_path, "--max_waiting", 1000, "--request_timeout", 3600]
    start = time.perf_counter()
    metrics: dict[str, dict] = {}
    with atomic_directory(args.output_dir) as directory, ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                server_process([script, *flags, "--max_rows", rows], log=directory / f"{name}.log")
            )
            for name, rows in SERVERS.items()
            if args.compare or rows > 1
        }
        bar = stack.enter_context(tqdm(total=len(args.clients) * args.rounds * len(servers), desc="load"))
        for clients in args.clients:
            rounds: dict[str, list[dict]] = {name: [] for name in servers}
            for _ in range(args.rounds):
                for name, address in servers.items():
                    rounds[name].append(measure(address, clients, args.seconds))
                    bar.update()
            table = {name: summary(of_one) for name, of_one in rounds.items()}
            if args.compare:
                many, one = ([turn["tokens_per_second"] for turn in rounds[name]] for name in servers)
                table["side by side"]["ratio"] = median(a / b for a, b in zip(many, one, strict=True))
            metrics[f"{clients} clients"] = table
        write_results(
            directory,
            config=asdict(args),
            inputs={"model": args.model_name_or_path},
            metrics={"side_by_side": metrics},
            seconds={"total": time.perf_counter() - start},
            more_versions=("fastapi", "uvicorn"),
        )
    done("load on the server", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


def measure(address: str, clients: int, seconds: float) -> dict[str, float]:
    """One turn of one server: what its clients waited for, and the tokens it made meanwhile."""
    import httpx

    from lm_recipes.serving.load import load

    def metric(name: str) -> float:
        return float(re.search(rf"^lm_recipes_{name} (\S+)$", httpx.get(f"{address}/metrics").text, re.M)[1])

    httpx.post(f"{address}/v1/completions", json={"prompt": "warm", "max_tokens": 2}).raise_for_status()
    made, start = metric('tokens_total{kind="completion"}'), time.perf_counter()
    found = asyncio.run(load(address, clients, seconds, request))
    made = metric('tokens_total{kind="completion"}') - made
    rate = made / (time.perf_counter() - start)
    if found.errors:
        logger.warning("%d errors; the first: %s", len(found.errors), found.errors[0])
    while metric("running") or metric("waiting"):  # the work of those who hung up ends with the next step
        time.sleep(0.1)
    counts = {"answers": found.answers, "errors": len(found.errors)}
    return counts | {"tokens_per_second": rate} | found.percentiles()


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Counts are added up; of the rest the median counts."""
    return {name: (sum if name in ("answers", "errors") else median)(one[name] for one in rounds) for name in rounds[0]}


def request(client: int, turn: int) -> dict:
    """Of its own for each client and turn, the same in every run."""
    draw = random.Random(f"{client} {turn}")
    prompt = " ".join(WORDS[: draw.randint(8, len(WORDS))])
    drawn = {"temperature": 0.8, "top_p": 0.95, "seed": draw.randrange(2**31)}
    return {"prompt": prompt, "max_tokens": draw.randint(16, 128), **drawn}


if __name__ == "__main__":
    recipe(main)
