"""Take layers, MLP neurons or single weights out of a trained model, and say how far it is from what it was.

A pruned model is trained on by the script that made it, and mostly recovers:
python recipes/compress/prune.py --model_name_or_path demo:smollm2 --method neurons --output_dir runs/pruned
python recipes/gpt/adapt.py --model_name_or_path runs/pruned --domain demo:wiki-topics --output_dir runs/recovered
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class PruneRecipe:
    """Which model, what goes, and the texts by which importance and damage are measured."""

    model_name_or_path: str = field(metadata={"help": "Model directory (merge adapters first), demo model, Hub id."})
    output_dir: str = field(metadata={"help": "Directory for the pruned model."})
    method: str = field(default="neurons", metadata={"help": "What goes.", "choices": ["layers", "neurons", "weights"]})
    share: float = field(
        default=0.25, metadata={"help": "Of layers, of each MLP's neurons, or of the layers' weights."}
    )
    source: str = field(default="demo:wiki-topics", metadata={"help": "Texts: demo set, file, corpus, Hub id."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    calibration_documents: int = field(default=100, metadata={"help": "Training texts that say what matters."})
    eval_documents: int = field(default=100, metadata={"help": "Test texts to compare on."})
    block_size: int = field(default=256, metadata={"help": "Decoders: tokens per block of bits per byte."})


def main() -> None:
    (args,) = parse(PruneRecipe, description=__doc__)
    if not 0 < args.share < 1:
        raise UserError(f"--share {args.share}: must be between 0 and 1")

    import copy

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.agreement import agreement, first_texts, load_whole, text_batches, torch_answers
    from lm_recipes.compression.pruning import drop_layers, drop_neurons, zero_weights
    from lm_recipes.evaluation.forgetting import change, text_bits_per_byte

    start = time.perf_counter()
    model, tokenizer = load_whole(args.model_name_or_path)
    texts = {
        split: first_texts(args.source, split, args.text_column, number)
        for split, number in (("train", args.calibration_documents), ("test", args.eval_documents))
    }
    with atomic_directory(args.output_dir) as directory:
        original = copy.deepcopy(model)
        if args.method == "weights":
            found = zero_weights(model, args.share)
        else:
            prune = drop_layers if args.method == "layers" else drop_neurons
            found = prune(model, args.share, text_batches(model, tokenizer, texts["train"]))

        # damage: against the original, on texts that said nothing about importance
        batches = text_batches(original, tokenizer, texts["test"])
        metrics = agreement(torch_answers(original), torch_answers(model), batches)
        metrics |= found | {"parameters": model.num_parameters(), "parameters_before": original.num_parameters()}
        if model.can_generate():
            scores = (text_bits_per_byte(one, tokenizer, texts["test"], args.block_size) for one in (original, model))
            metrics |= change(*scores)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        write_results(
            directory, config=asdict(args), inputs={"model": args.model_name_or_path, "data": args.source},
            metrics=metrics, seconds={"total": time.perf_counter() - start},
        )  # fmt: skip
    recover = "gpt/adapt.py" if model.can_generate() else "bert/classify.py"
    done(
        f"{metrics['parameters']:,} parameters of {metrics['parameters_before']:,}; {metrics['same_decisions']:.1%} of "
        "decisions are the same, before it is trained on",
        args.output_dir,
        f"python recipes/{recover} --model_name_or_path {args.output_dir} --output_dir {args.output_dir}-recovered",
    )


if __name__ == "__main__":
    recipe(main)
