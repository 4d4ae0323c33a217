"""Round the weights of a trained model to 16, 8 or 4 bits: a directory that `from_pretrained` loads, and what it costs.

python recipes/compress/quantize.py --model_name_or_path demo:smollm2 --method nf4 --output_dir runs/smollm2-nf4
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class QuantizeRecipe:
    """Which model, how it is rounded, and the texts on which it is compared with what it was."""

    model_name_or_path: str = field(metadata={"help": "Model directory (merge adapters first), demo model, Hub id."})
    output_dir: str = field(metadata={"help": "Directory for the rounded model."})
    method: str = field(
        default="int8-weights",
        metadata={"help": "How.", "choices": ["bfloat16", "int8-weights", "int8-dynamic", "nf4"]},
    )
    source: str = field(default="demo:wiki-topics", metadata={"help": "Texts to compare on: demo set, file, Hub id."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    eval_documents: int = field(default=100, metadata={"help": "Test texts to compare on."})


def main() -> None:
    (args,) = parse(QuantizeRecipe, description=__doc__)

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.agreement import agreement, first_texts, load_whole, text_batches, torch_answers
    from lm_recipes.compression.quantization import LIBRARIES, load_rounded, round_weights

    start = time.perf_counter()
    model, tokenizer = load_whole(args.model_name_or_path)
    texts = first_texts(args.source, "test", args.text_column, args.eval_documents)
    with atomic_directory(args.output_dir) as directory:
        round_weights(args.model_name_or_path, model, args.method, directory)
        tokenizer.save_pretrained(directory)
        rounded = time.perf_counter()

        # what is on disk is loaded again, and asked what the model is asked
        small = load_rounded(directory, type(model))
        batches = text_batches(model, tokenizer, texts)
        metrics = agreement(torch_answers(model), torch_answers(small), batches)
        metrics |= {
            "bytes": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
            "bytes_before": sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        }
        write_results(
            directory, config=asdict(args), inputs={"model": args.model_name_or_path, "data": args.source},
            metrics=metrics, seconds={"round": rounded - start, "check": time.perf_counter() - rounded},
            more_versions=LIBRARIES[args.method],
        )  # fmt: skip
    done(
        f"{metrics['bytes'] / 1e6:.1f} MB of weights (before {metrics['bytes_before'] / 1e6:.1f}); "
        f"{metrics['same_decisions']:.1%} of decisions are the same",
        args.output_dir,
        f"python recipes/compress/compare.py --model_name_or_path {args.model_name_or_path} "
        f"--variants {args.method}={args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
