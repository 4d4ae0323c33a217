"""How many texts does a classifier read in a second on this CPU, and what does speed cost in accuracy?

The test split of film reviews, side by side in one process, tokenizing included: transformers' pipeline as it is called
and with batches of like length, ONNX Runtime in 32 and 8 bits, and what recipes/infer.py does without and with --int8.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

from lm_recipes.launch import done, parse, recipe


@dataclass
class EncodingBench:
    """Which model, which rows, and where the record goes."""

    model_name_or_path: str = field(default="runs/classify-minilm", metadata={"help": "A classifier's directory."})
    source: str = field(default="demo:movie-reviews", metadata={"help": "Rows; its test split is read."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    label_column: str = field(default="label", metadata={"help": "Column with the class."})
    max_length: int = field(default=512, metadata={"help": "Tokens that are read of a text."})
    batch_size: int = field(default=32, metadata={"help": "Of all ways that have batches."})
    rounds: int = field(default=5, metadata={"help": "Passes of each way that count."})
    output_dir: str = field(default="runs/bench-encoding", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(EncodingBench, description=__doc__)

    from pathlib import Path
    from tempfile import TemporaryDirectory

    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, pipeline

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.measuring import classifier_batches
    from lm_recipes.compression.onnx_export import export_onnx
    from lm_recipes.compression.onnx_models import OnnxEncoder
    from lm_recipes.compression.quantization import dynamic_int8
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.predictions import class_logits
    from lm_recipes.evaluation.side_by_side import seconds_in_turn
    from lm_recipes.sources.labelled import load_labelled

    start = time.perf_counter()
    splits, names = load_labelled(args.source, text_column=args.text_column, label_column=args.label_column)
    texts, labels = list(splits["test"]["text"]), np.array(splits["test"]["labels"])
    auto_class, name = AutoModelForSequenceClassification, args.model_name_or_path
    (model, tokenizer), (packed, _) = (load_for_inference(auto_class, name, packed) for packed in (False, True))
    lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=args.max_length)["input_ids"]]
    ids_of = {model.config.id2label[number]: number for number in range(len(names))}

    def through_pipeline(batch_size: int) -> Callable[[], list[int]]:
        predict = pipeline("text-classification", model=model, tokenizer=tokenizer)
        cut = {"truncation": True, "max_length": args.max_length}
        # sorted by characters: tokens are not known to who calls a pipeline
        order = sorted(range(len(texts)), key=lambda row: len(texts[row])) if batch_size > 1 else range(len(texts))

        def run() -> list[int]:
            answers = predict([texts[row] for row in order], batch_size=batch_size, **cut)
            found = dict(zip(order, (ids_of[answer["label"]] for answer in answers), strict=True))
            return [found[row] for row in range(len(texts))]

        return run

    def through_onnx(directory: Path, batch_size: int) -> Callable[[], list[int]]:
        encoder = OnnxEncoder(directory)

        def run() -> list[int]:
            batches, rows = classifier_batches(tokenizer, model, texts, batch_size, args.max_length)
            answers = [encoder(batch)["logits"].argmax(-1) for batch in batches]
            found = dict(zip(np.concatenate(rows), np.concatenate(answers), strict=True))
            return [found[row] for row in range(len(texts))]

        return run

    def through_infer(network) -> Callable[[], list[int]]:
        def run() -> list[int]:
            logits = class_logits(network, tokenizer, texts, args.max_length, args.batch_size)
            return [ids_of[max(row, key=row.get)] for row in logits]

        return run

    with TemporaryDirectory() as scratch:
        for name, int8 in (("fp32", False), ("int8", True)):
            export_onnx(model, tokenizer, Path(scratch, name), int8=int8)
        ways = {
            "pipeline, as it is called": through_pipeline(1),
            "pipeline, batches of like length": through_pipeline(args.batch_size),
            "ONNX Runtime, batches of like length": through_onnx(Path(scratch, "fp32"), args.batch_size),
            "ONNX Runtime int8, text by text": through_onnx(Path(scratch, "int8"), 1),
            "ONNX Runtime int8, batches of like length": through_onnx(Path(scratch, "int8"), args.batch_size),
            "infer.py": through_infer(packed),
            "infer.py --int8": through_infer(dynamic_int8(model)),
        }
        times, answers = seconds_in_turn(ways, args.rounds, "passes")
    first = times["pipeline, as it is called"]
    metrics = {
        name: {
            "texts_per_second": len(texts) / median(seconds),
            "ratio": median(a / b for a, b in zip(first, seconds, strict=True)),
            "accuracy": float((np.array(answers[name]) == labels).mean()),
        }
        for name, seconds in times.items()
    }
    title = f"{len(texts)} texts, in the median of {median(lengths):.0f} tokens"
    with atomic_directory(args.output_dir) as directory:
        write_results(
            directory,
            config=asdict(args) | {"threads": torch.get_num_threads()},
            inputs={"model": args.model_name_or_path},
            metrics={"side_by_side": {title: metrics}},
            seconds={"total": time.perf_counter() - start},
            more_versions=("onnxruntime",),
        )
    done("texts a second", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
