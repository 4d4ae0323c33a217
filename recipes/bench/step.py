"""Time one training step of each track under the choices the quickstart makes, side by side in one process.

Real blocks and models of `make quickstart`; forward and backward of each variant in turn (A B A B ...), medians in
milliseconds. A ratio is the median over rounds of a variant's time to the first variant's time in the same round.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

from lm_recipes.launch import done, parse, recipe


@dataclass
class StepBench:
    """Which blocks, how many rounds, and where the record goes."""

    run_dir: str = field(default="runs/quickstart", metadata={"help": "Has packed-* and tokenizer-* directories."})
    rounds: int = field(default=30, metadata={"help": "Steps of each variant that count."})
    warmup: int = field(default=5, metadata={"help": "Steps of each variant that do not."})
    output_dir: str = field(default="runs/bench-step", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(StepBench, description=__doc__)

    import torch
    from accelerate.utils import convert_outputs_to_fp32
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, set_seed

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.models import decoder_config, encoder_config, isolation_of
    from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, read_packed
    from lm_recipes.training.loss import LanguageModelLoss, WithAsked

    Variant = tuple[torch.nn.Module, Callable[[], torch.Tensor]]

    def autocast(model) -> Callable:
        return convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.__call__))

    def lean(model, batch: dict) -> Callable[[], torch.Tensor]:
        loss, forward = LanguageModelLoss(model, dtype=torch.bfloat16), autocast(model)
        return lambda: loss(forward, batch)[0] / len(batch["asked"])

    def own(model, batch: dict) -> Callable[[], torch.Tensor]:
        forward, batch = autocast(model), {name: value for name, value in batch.items() if name != "asked"}
        return lambda: forward(**batch).loss

    def gpt(loss_of: Callable, attention: str, cap: float | None = None) -> Variant:
        tokenizer = AutoTokenizer.from_pretrained(f"{args.run_dir}/tokenizer-gpt")
        corpus = read_packed(f"{args.run_dir}/packed-gpt")
        config = decoder_config("1M", tokenizer, corpus.block_size)
        config.final_logit_softcapping = cap
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        collator = WithAsked(CausalLanguageModeling(tokenizer.pad_token_id))
        return model, loss_of(model, collator([corpus.train[i] for i in range(16)]))

    def bert(loss_of: Callable, attention: str) -> Variant:
        tokenizer = AutoTokenizer.from_pretrained(f"{args.run_dir}/tokenizer-bert")
        corpus = read_packed(f"{args.run_dir}/packed-bert")
        config = encoder_config("1M", tokenizer, corpus.block_size)
        model = AutoModelForMaskedLM.from_config(config, attn_implementation=attention)
        collator = WithAsked(MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation_of(config, attention)))
        return model, loss_of(model, collator([corpus.train[i] for i in range(32)]))

    def step(model, loss: Callable[[], torch.Tensor]) -> float:
        start = time.perf_counter()
        loss().backward()
        model.zero_grad()
        return time.perf_counter() - start

    start = time.perf_counter()
    set_seed(0)
    tracks = {
        "gpt": {
            "as in the quickstart": gpt(lean, "eager"),
            "with the model's own loss": gpt(own, "eager"),
            "with sdpa attention": gpt(lean, "sdpa"),
            "with a logit soft-cap": gpt(lean, "eager", 15.0),
        },
        "bert": {
            "as in the quickstart": bert(lean, "eager"),
            "with the model's own loss": bert(own, "eager"),
            "with sdpa attention": bert(lean, "sdpa"),
        },
    }
    metrics = {}
    for track, variants in tracks.items():
        times = {name: [] for name in variants}
        for number in tqdm(range(args.warmup + args.rounds), desc=track):
            for name, variant in variants.items():
                seconds = step(*variant)
                if number >= args.warmup:
                    times[name].append(seconds)
        first = times["as in the quickstart"]
        metrics[track] = {
            name: {
                "milliseconds": 1000 * median(seconds),
                "ratio": median(a / b for a, b in zip(seconds, first, strict=True)),
            }
            for name, seconds in times.items()
        }
    with atomic_directory(args.output_dir) as directory:
        write_results(
            directory,
            config=asdict(args) | {"tokens_per_step": 4096, "threads": torch.get_num_threads()},
            inputs={track: f"{args.run_dir}/packed-{track}" for track in tracks},
            metrics=metrics,
            seconds={"total": time.perf_counter() - start},
        )
    done("step times", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
