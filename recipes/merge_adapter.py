"""Merge an adapter (from classify.py, sft.py or the Hub) into its base model: one plain directory, no peft needed.

python recipes/merge_adapter.py --adapter runs/sft-smollm2-lora --output_dir runs/sft-smollm2
"""

from dataclasses import dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class MergeRecipe:
    """Which adapter, and where the merged model goes."""

    adapter: str = field(metadata={"help": "Adapter directory or Hub id."})
    output_dir: str = field(metadata={"help": "Directory for the merged model."})
    dtype: str = field(
        default="float32",
        metadata={"help": "Of the weights that are written.", "choices": ["float32", "bfloat16", "float16"]},
    )


def main() -> None:
    (args,) = parse(MergeRecipe, description=__doc__)

    from lm_recipes.training.saved_adapters import merge_adapter

    difference = merge_adapter(args.adapter, args.output_dir, args.dtype)
    done(
        f"a merged model; in float32 its logits differ from base + adapter by at most {difference:.0e}",
        args.output_dir,
        f"python recipes/gpt/generate.py --model_name_or_path {args.output_dir} (or recipes/bert/predict.py)",
    )


if __name__ == "__main__":
    recipe(main)
