"""Classes of texts, tags and entities in them, or the likeliest words behind [MASK], and how sure an encoder is.

python recipes/bert/predict.py --model_name_or_path runs/sentiment --text "Two hours, all lost."
python recipes/bert/predict.py --model_name_or_path runs/bert --task fill-mask --text "The [MASK] of France."
python recipes/bert/predict.py --model_name_or_path runs/tags --task token-classification --text "Ada met Babbage."
"""

import logging
from dataclasses import dataclass, field

from lm_recipes.launch import UserError, parse, recipe

logger = logging.getLogger("lm_recipes.predict")


@dataclass
class PredictArguments:
    """What to read and what to answer. Texts come from `--text`, a file, or standard input (one a line)."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, or a Hub id."})
    text: list[str] | None = field(default=None, metadata={"help": "One or more texts."})
    texts_file: str | None = field(default=None, metadata={"help": "A .txt (a text a line), .jsonl or .csv file."})
    text_column: str = field(default="text", metadata={"help": "Where .jsonl and .csv rows hold the text."})
    pair_column: str | None = field(default=None, metadata={"help": "Where they hold a second text, if any."})
    task: str = field(default="text-classification", metadata={"help": "Or token-classification, fill-mask."})
    top_k: int = field(default=5, metadata={"help": "fill-mask: words shown for each [MASK]."})
    max_length: int | None = field(default=None, metadata={"help": "Cut longer texts to this many tokens."})
    batch_size: int = field(default=32, metadata={"help": "Texts read at a time, sorted by length."})
    output: str | None = field(default=None, metadata={"help": "A .jsonl, .json or .csv file for the answers."})


def main() -> None:
    (args,) = parse(PredictArguments, description=__doc__)
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.predictions import class_logits, filler, reading_limit, with_masks
    from lm_recipes.decoding.records import read_texts, refuse_output, write_records
    from lm_recipes.decoding.tagging import spaced, tag_texts
    from lm_recipes.evaluation.calibration import Calibration
    from lm_recipes.sources import resolve_model

    auto_classes = {
        "text-classification": AutoModelForSequenceClassification,
        "fill-mask": AutoModelForMaskedLM,
        "token-classification": AutoModelForTokenClassification,
    }
    if args.task not in auto_classes:
        raise UserError(f"--task {args.task}: must be one of {', '.join(auto_classes)}")
    for option in ("top_k", "batch_size", "max_length"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be at least 1")
    if args.pair_column and (args.task != "text-classification" or not args.texts_file):
        raise UserError("--pair_column: second texts to classify are read from --texts_file, beside --text_column")
    refuse_output(args.output)

    # texts, and the model that reads them
    texts = read_texts(args.text, args.texts_file, args.text_column)
    model, tokenizer = load_for_inference(auto_classes[args.task], args.model_name_or_path)
    rows = spaced(texts) if args.task == "token-classification" else with_masks(tokenizer, texts)
    pairs = read_texts(None, args.texts_file, args.pair_column) if args.pair_column else None
    lengths = [len(ids) for ids in tokenizer(rows, pairs, verbose=False)["input_ids"]]
    limit = reading_limit(model, tokenizer, args.max_length)
    cut = [row for row, length in enumerate(lengths, start=1) if length > limit]
    if cut:
        shown = ", ".join(map(str, cut[:10])) + (", ..." if len(cut) > 10 else "")
        logger.warning("%d of %d texts cut to %d tokens: row %s", len(cut), len(texts), limit, shown)

    # predictions
    if args.task == "token-classification":
        answers = tag_texts(texts, model, tokenizer, limit, args.batch_size)
    elif args.task == "fill-mask":
        answers = fillings(filler(model, tokenizer, limit, args.top_k, args.batch_size)(texts), limit)
    else:
        # what is made of the logits is what calibration.json beside the model says
        calibration = Calibration.beside(resolve_model(args.model_name_or_path), model.config)
        logits = class_logits(model, tokenizer, texts, limit, args.batch_size, pairs)
        answers = [calibration.answer(row) for row in logits]

    # answers
    asked = zip(texts, answers, lengths, strict=True)
    records = [{"text": text, **answer, "truncated": length > limit} for text, answer, length in asked]
    show(records)
    if args.output:
        write_records(args.output, records)


def fillings(answers: list[dict], limit: int) -> list[dict]:
    """A table for each mask, by its number, or a UserError for a text in which nothing is masked."""
    for row, answer in enumerate(answers, start=1):
        if not answer["masks"]:
            raise UserError(f"text {row} has no [MASK] in its first {limit} tokens")
    return [{f"mask_{at}": table for at, table in enumerate(answer["masks"], start=1)} for answer in answers]


def show(records: list[dict]) -> None:
    """Print each text and its probabilities, likeliest first; a line for each entity, or else for each tagged word."""
    for record in records:
        print("\n" + record["text"] + ("  (cut)" if record["truncated"] else ""))
        for key, table in record.items():
            if isinstance(table, dict):
                print(f"  {key}: " + "  ".join(f"{name} {score:.4f}" for name, score in table.items()))
            elif key in ("label", "labels"):
                print(f"  {key}: " + (table if key == "label" else ", ".join(table) or "none"))
            elif key == "score" and "label" not in record:
                print(f"  score: {table:.4f}")
        for item in record.get("entities", record.get("words", [])):
            print(f"  {item['tag']}: {item['text']}" + ("" if item["score"] is None else f"  {item['score']:.4f}"))


if __name__ == "__main__":
    recipe(main)
