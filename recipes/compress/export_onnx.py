"""Export an encoder with any head, or a decoder, to ONNX, and check that onnxruntime answers as transformers does.

python recipes/compress/export_onnx.py --model_name_or_path runs/sentiment --output_dir runs/sentiment-onnx
python recipes/compress/export_onnx.py --model_name_or_path demo:smollm2 --output_dir runs/smollm2-onnx --int8
"""

import time
from dataclasses import dataclass, field

from lm_recipes.launch import done, parse, recipe

# Of the largest logit: what float32 arithmetic in another order may change.
TOLERANCE = 1e-3


@dataclass
class OnnxRecipe:
    """Which model, and where its graph goes."""

    model_name_or_path: str = field(metadata={"help": "Model directory (merge adapters first), demo model, Hub id."})
    output_dir: str = field(metadata={"help": "Directory for model.onnx, its weights, configs and tokenizer."})
    int8: bool = field(default=False, metadata={"help": "Store weights in 8 bits; answers then differ a little."})
    new_tokens: int = field(default=32, metadata={"help": "Decoders: greedy tokens that are compared per prompt."})


def main() -> None:
    (args,) = parse(OnnxRecipe, description=__doc__)

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.agreement import (
        agreement,
        load_whole,
        probes,
        refuse_difference,
        torch_answers,
    )
    from lm_recipes.compression.onnx_export import export_onnx
    from lm_recipes.compression.onnx_models import OnnxDecoder, OnnxEncoder
    from lm_recipes.compression.parity import numpy_answers, same_greedy_tokens

    start = time.perf_counter()
    model, tokenizer = load_whole(args.model_name_or_path)
    with atomic_directory(args.output_dir) as directory:
        export_onnx(model, tokenizer, directory, args.int8)
        exported = time.perf_counter()

        # parity: the same batches through both, and the same prompts continued by both
        runs = OnnxDecoder(directory) if model.can_generate() else OnnxEncoder(directory)
        answers = numpy_answers(runs.logits if model.can_generate() else runs)
        metrics = agreement(torch_answers(model), answers, probes(model, tokenizer))
        if not args.int8:
            refuse_difference(metrics, TOLERANCE, args.output_dir)
        if model.can_generate():
            metrics |= same_greedy_tokens(model, tokenizer, runs.continue_prompts, args.new_tokens)
        metrics |= {"bytes": sum(file.stat().st_size for file in directory.glob("model.onnx*"))}
        write_results(
            directory, config={"int8": args.int8}, inputs={"model": args.model_name_or_path},
            metrics=metrics,
            seconds={"export": exported - start, "check": time.perf_counter() - exported},
            more_versions=("onnx", "onnxruntime", "onnxscript"),
        )  # fmt: skip
    done(
        f"{metrics['bytes'] / 1e6:.1f} MB of ONNX; logits differ by at most {metrics['max_difference']:.0e} of "
        f"{metrics['max_answer']:.1f}, {metrics['same_decisions']:.1%} of decisions are the same",
        args.output_dir,
        f"python recipes/compress/compare.py --model_name_or_path {args.model_name_or_path} "
        f"--variants onnx={args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
