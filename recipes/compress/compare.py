"""One model in several forms, side by side on this CPU: size on disk, time alone and in batches, and how good it is.

python recipes/compress/compare.py --model_name_or_path demo:smollm2 --variants int8-at-load onnx=runs/smollm2-onnx
python recipes/compress/compare.py --model_name_or_path runs/sentiment --variants onnx-int8=runs/sentiment-onnx-int8

A decoder is scored in bits per byte of held-out texts, a classifier by the accuracy on its test split. Makes
results.json and table.md.
"""

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class CompareRecipe:
    """Which forms of which model, and the rows they are measured on."""

    model_name_or_path: str = field(metadata={"help": "The original: model directory, demo model or Hub id."})
    variants: list[str] = field(
        default_factory=lambda: ["int8-at-load"],
        metadata={"help": "name=PATH of ONNX, GGUF or model directories; int8-at-load rounds the original here."},
    )
    output_dir: str = field(default="runs/compressed", metadata={"help": "Directory for the measurements."})
    source: str | None = field(
        default=None, metadata={"help": "Default: demo:wiki-topics for decoders, else demo:movie-reviews."}
    )
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    label_column: str = field(default="label", metadata={"help": "Classifiers: column with the class."})
    eval_documents: int = field(default=100, metadata={"help": "Decoders: test texts for bits per byte."})
    block_size: int = field(default=256, metadata={"help": "Decoders: tokens read at once."})
    max_length: int = field(default=128, metadata={"help": "Classifiers: tokens per text."})
    new_tokens: int = field(default=64, metadata={"help": "Decoders: tokens per timed prompt."})
    batch_size: int = field(default=32, metadata={"help": "Prompts or texts of a batch."})
    rounds: int = field(default=5, metadata={"help": "How often each is timed, in turn; the median counts."})


def main() -> None:
    (args,) = parse(CompareRecipe, description=__doc__)
    paths = named(args.variants)

    from lm_recipes.artifacts import write_results, write_text
    from lm_recipes.compression import measuring
    from lm_recipes.compression.agreement import load_whole
    from lm_recipes.reporting.compression import markdown_table

    start = time.perf_counter()
    model, tokenizer = load_whole(args.model_name_or_path)
    if not (model.can_generate() or type(model).__name__.endswith("ForSequenceClassification")):
        raise UserError(
            f"{args.model_name_or_path}: a {type(model).__name__}; decoders and text classifiers are compared"
        )
    variants = {"original": measuring.of_transformers(model, tokenizer, 4 * model.num_parameters())}
    variants |= {name: measuring.open_variant(path, model, tokenizer) for name, path in paths.items()}
    measured = {name: {"bytes": variant.bytes} for name, variant in variants.items()}
    measure = of_decoders if model.can_generate() else of_classifiers
    for name, values in measure(args, variants, model, tokenizer).items():
        measured[name] |= values
    write_results(
        args.output_dir, config=asdict(args), inputs={"original": args.model_name_or_path, **paths},
        metrics={"compressed": measured}, seconds={"total": time.perf_counter() - start},
    )  # fmt: skip
    table = markdown_table(measured)
    write_text(Path(args.output_dir, "table.md"), table)
    logger.info("\n%s", table)
    done("the comparison", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


def named(variants: list[str]) -> dict[str, str]:
    """`name=path` as a table; a path without a name is called after its last part."""
    pairs = [text.split("=", 1) if "=" in text else [Path(text).name, text] for text in variants]
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1 or name == "original"]:
        raise UserError(f"--variants: two are called {twice[0]}; name them: name=path")
    return dict(pairs)


def of_decoders(args: CompareRecipe, variants: dict, model, tokenizer) -> dict[str, dict[str, float]]:
    from lm_recipes.compression import measuring
    from lm_recipes.compression.agreement import first_texts

    texts = first_texts(args.source or "demo:wiki-topics", "test", args.text_column, args.eval_documents)
    found = measuring.decoder_times(variants, model, tokenizer, args.new_tokens, args.batch_size, args.rounds)
    for name, variant in variants.items():
        found[name]["bits_per_byte"] = measuring.bits_per_byte(variant, tokenizer, texts, args.block_size)
    return found


def of_classifiers(args: CompareRecipe, variants: dict, model, tokenizer) -> dict[str, dict[str, float]]:
    from lm_recipes.compression import measuring
    from lm_recipes.sources.labelled import load_labelled

    source = args.source or "demo:movie-reviews"
    rows, names = load_labelled(source, text_column=args.text_column, label_column=args.label_column)
    if missing := set(names) - set(model.config.id2label.values()):
        raise UserError(f"{source}: class {sorted(missing)[0]}, which {args.model_name_or_path} does not know")
    test = rows["test"]
    labels = [model.config.label2id[names[number]] for number in test["labels"]]
    cut = (args.batch_size, args.max_length)
    batches, places = measuring.classifier_batches(tokenizer, model, test["text"], *cut)
    single = measuring.classifier_batches(tokenizer, model, test["text"][:1], *cut)[0][0]
    found = measuring.classifier_times(variants, single, batches, args.rounds)
    truth = [[labels[place] for place in some] for some in places]
    for name, variant in variants.items():
        found[name]["accuracy"] = measuring.accuracy(variant, batches, truth)
    return found


if __name__ == "__main__":
    recipe(main)
