"""Export a decoder of the Llama or Qwen family to a GGUF file that llama.cpp runs, and check what it stands for.

python recipes/compress/export_gguf.py --model_name_or_path demo:smollm2 --output_dir runs/smollm2-gguf --type q8_0
llama-cli -m runs/smollm2-gguf/model-q8_0.gguf -p "The capital of France is"
"""

import time
from dataclasses import dataclass, field

from lm_recipes.launch import done, parse, recipe

# By how much of the largest logit answers may differ: float32 in another order; weights rounded to 11 bits. None: any.
TOLERANCES = {"f32": 1e-4, "f16": 2e-2, "q8_0": None, "q4_0": None}


@dataclass
class GgufRecipe:
    """Which model, and in which type its weights are written."""

    model_name_or_path: str = field(metadata={"help": "Model directory (merge adapters first), demo model, Hub id."})
    output_dir: str = field(metadata={"help": "Directory for model-TYPE.gguf."})
    type: str = field(default="f16", metadata={"help": "Of the weights.", "choices": list(TOLERANCES)})
    new_tokens: int = field(default=32, metadata={"help": "Greedy tokens that are compared per prompt."})


def main() -> None:
    (args,) = parse(GgufRecipe, description=__doc__)

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.agreement import agreement, load_whole, probes, refuse_difference, torch_answers
    from lm_recipes.compression.gguf_export import export_gguf
    from lm_recipes.compression.gguf_models import load_gguf
    from lm_recipes.compression.parity import same_greedy_tokens, same_ids
    from lm_recipes.decoding.generation import continue_prompts
    from lm_recipes.decoding.strategies import strategy

    start = time.perf_counter()
    model, tokenizer = load_whole(args.model_name_or_path)
    with atomic_directory(args.output_dir) as directory:
        path = directory / f"model-{args.type}.gguf"
        export_gguf(model, tokenizer, path, args.type)
        exported = time.perf_counter()

        # parity: the file is read again, by transformers, and asked what the model is asked
        again, its_tokenizer = load_gguf(path)
        again.generation_config = model.generation_config
        metrics = agreement(torch_answers(model), torch_answers(again), probes(model, tokenizer))
        if TOLERANCES[args.type] is not None:
            refuse_difference(metrics, TOLERANCES[args.type], args.output_dir)

        def continued(prompts, new_tokens, ends):
            greedy = strategy("greedy", max_new_tokens=new_tokens)
            return continue_prompts(again, tokenizer, prompts, greedy, batch_size=len(prompts))

        metrics |= same_greedy_tokens(model, tokenizer, continued, args.new_tokens)
        metrics |= {"same_ids": same_ids(tokenizer, its_tokenizer), "bytes": path.stat().st_size}
        write_results(
            directory, config={"type": args.type}, inputs={"model": args.model_name_or_path}, metrics=metrics,
            seconds={"export": exported - start, "check": time.perf_counter() - exported}, more_versions=("gguf",),
        )  # fmt: skip
    done(
        f"{metrics['bytes'] / 1e6:.1f} MB of GGUF; logits differ by at most {metrics['max_difference']:.0e} of "
        f"{metrics['max_answer']:.1f}, {metrics['same_continuations']:.0%} of continuations are the same",
        args.output_dir,
        f'llama-cli -m {args.output_dir}/{path.name} -p "The capital of France is"',
    )


if __name__ == "__main__":
    recipe(main)
