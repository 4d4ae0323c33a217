"""How many tokens a second does a decoder write on this CPU, greedily, and how near is that to what memory allows?

Side by side in one process, on prompts of equal length: transformers' `generate()` as it is called, the same with a
static cache and a compiled forward pass, `generate.py`, and that with `--compile`. For one prompt at a time also prompt
lookup, the faster the more a text repeats itself, and llama.cpp where `llama-cpp-python` is installed.

The first model is the quickstart's with `--size 10M --family llama --max_steps 120`, the second is the first after
`recipes/compress/quantize.py --method bfloat16`.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class GenerationBench:
    """Which models, how many prompts at a time, and where the record goes."""

    models: list[str] = field(
        default_factory=lambda: ["runs/llama-10M", "runs/llama-10M-bfloat16", "demo:smollm2"],
        metadata={"help": "Decoders, computed with in float32."},
    )
    batch_sizes: list[int] = field(default_factory=lambda: [1, 32], metadata={"help": "Prompts at a time."})
    prompts: str = field(default="demo:wiki-topics", metadata={"help": "Texts that prompts are the beginnings of."})
    prompt_tokens: int = field(default=32, metadata={"help": "Of each prompt."})
    new_tokens: int = field(default=64, metadata={"help": "Of each continuation; no text ends before."})
    rounds: int = field(default=3, metadata={"help": "Continuations by each way that count."})
    output_dir: str = field(default="runs/bench-generation", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(GenerationBench, description=__doc__)

    import copy
    from importlib.util import find_spec
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.gguf_export import FAMILIES, export_gguf
    from lm_recipes.compression.gguf_models import LlamaCpp
    from lm_recipes.decoding.cache import roomy_cache
    from lm_recipes.decoding.compiled import compiled_lookup, compiled_steps, in_16_bits
    from lm_recipes.decoding.generation import encode_prompts
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.evaluation.side_by_side import memory_bandwidth, seconds_in_turn
    from lm_recipes.sources import load_documents

    start = time.perf_counter()
    settings = GenerationConfig(max_new_tokens=args.new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    looked_up = GenerationConfig(**settings.to_diff_dict() | {"prompt_lookup_num_tokens": 10})
    length = args.prompt_tokens + args.new_tokens

    def through_generate(model, roomy: bool = False, **options) -> Callable[[torch.Tensor], list[list[int]]]:
        def run(ids: torch.Tensor) -> list[list[int]]:
            given = {"attention_mask": torch.ones_like(ids), "generation_config": settings, **options}
            if roomy:
                given["past_key_values"] = roomy_cache(model.config)
            with torch.inference_mode():
                found = model.generate(ids, **given)
            return found[:, ids.shape[1] :].tolist()

        return run

    def compiled_forward(model) -> Callable[[torch.Tensor], list[list[int]]]:
        model = copy.deepcopy(model)
        model.forward = torch.compile(model.forward, dynamic=False)
        return through_generate(model, cache_implementation="static")

    def through_llama_cpp(model, tokenizer, kind: str, scratch: Path) -> Callable[[torch.Tensor], list[list[int]]]:
        path = scratch / f"{kind}.gguf"
        export_gguf(model, tokenizer, path, kind)
        runs = LlamaCpp(path, context=length)
        return lambda ids: runs.continue_prompts(ids.tolist(), args.new_tokens, set())

    metrics = {}
    for name in args.models:
        model, tokenizer = load_for_inference(AutoModelForCausalLM, name, packed=False)
        packed, _ = load_for_inference(AutoModelForCausalLM, name)
        texts = [document.text for document in load_documents(args.prompts, limit=400)]
        encoded = (ids[: args.prompt_tokens] for ids in encode_prompts(tokenizer, texts))
        prompts = [ids for ids in encoded if len(ids) == args.prompt_tokens][: max(args.batch_sizes)]
        if len(prompts) < max(args.batch_sizes):
            raise UserError(f"{args.prompts}: only {len(prompts)} texts of {args.prompt_tokens} tokens")
        with TemporaryDirectory() as scratch:
            ways = {
                "generate()": through_generate(model),
                "generate(), compiled forward, static cache": compiled_forward(model),
                "generate.py": through_generate(packed, roomy=True),
                "generate.py --compile": through_generate(packed, custom_generate=compiled_steps),
            }
            alone = {
                "generate(), prompt lookup": through_generate(model, generation_config=looked_up),
                "generate.py --compile, prompt lookup": through_generate(packed, custom_generate=compiled_lookup),
            }
            if find_spec("llama_cpp") and model.config.model_type in FAMILIES:
                for kind in ("f32", "f16"):
                    alone[f"llama.cpp {kind.upper()}"] = through_llama_cpp(model, tokenizer, kind, Path(scratch))
            for size in args.batch_sizes:
                ids = torch.tensor(prompts[:size])
                those = ways | alone if size == 1 else ways
                calls = {way: lambda run=run, ids=ids: run(ids) for way, run in those.items()}
                metrics[f"{name}, batch {size}"] = table(calls, args, size, seconds_in_turn)
        # a step reads every weight once, but of the embeddings only the rows of its tokens
        copies, unread = in_16_bits(model), model.get_input_embeddings().weight
        if model.get_output_embeddings().weight is unread:
            unread = None
        read = sum(copies.get(key, weight).nbytes for key, weight in model.named_parameters() if weight is not unread)
        limit = {"tokens_per_second": memory_bandwidth() / read}
        metrics[f"{name}, batch 1"] |= {"what memory allows": limit}
    with atomic_directory(args.output_dir) as directory:
        write_results(
            directory,
            config=asdict(args) | {"threads": torch.get_num_threads(), "dtype": "float32"},
            inputs={name: name for name in args.models},
            metrics={"side_by_side": metrics},
            seconds={"total": time.perf_counter() - start},
        )
    done("tokens a second", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


def table(calls: dict, args: GenerationBench, size: int, seconds_in_turn: Callable) -> dict[str, dict[str, float]]:
    """Of each way: tokens a second, times as fast as the first, and the share of texts that are the first's."""
    times, texts = seconds_in_turn(calls, args.rounds, f"batch {size}")
    first = next(iter(calls))
    return {
        way: {
            "tokens_per_second": size * args.new_tokens / median(seconds),
            "ratio": median(a / b for a, b in zip(times[first], seconds, strict=True)),
            "same_texts": sum(a == b for a, b in zip(texts[way], texts[first], strict=True)) / size,
        }
        for way, seconds in times.items()
    }


if __name__ == "__main__":
    recipe(main)
