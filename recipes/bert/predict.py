"""Classes of texts, tags and entities in them, or the likeliest words behind [MASK], and how sure an encoder is.

python recipes/bert/predict.py --model_name_or_path runs/sentiment --text "Two hours, all lost."
python recipes/bert/predict.py --model_name_or_path runs/bert --task fill-mask --text "The [MASK] of France."
python recipes/bert/predict.py --model_name_or_path runs/tags --task token-classification --text "Ada met Babbage."
"""

import logging
from dataclasses import dataclass, field
from functools import partial

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
    from tqdm.auto import tqdm
    from transformers import (
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        pipeline,
    )

    from lm_recipes.decoding.loading import load_for_inference
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
    if args.task == "fill-mask":
        texts = [text.replace("[MASK]", tokenizer.mask_token) for text in texts]
    rows = spaced(texts) if args.task == "token-classification" else texts
    pairs = read_texts(None, args.texts_file, args.pair_column) if args.pair_column else None
    lengths = [len(ids) for ids in tokenizer(rows, pairs, verbose=False)["input_ids"]]
    if pairs:
        rows = [{"text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 10**9))
    if (args.max_length or 0) > longest:
        raise UserError(f"--max_length {args.max_length}: the model reads at most {longest} tokens")
    limit = args.max_length or longest
    cut = [row for row, length in enumerate(lengths, start=1) if length > limit]
    if cut:
        shown = ", ".join(map(str, cut[:10])) + (", ..." if len(cut) > 10 else "")
        logger.warning("%d of %d texts cut to %d tokens: row %s", len(cut), len(texts), limit, shown)

    # predictions: sorted by length there is little padding; the answers go back into the order of the texts
    if args.task == "fill-mask":
        for row, ids in enumerate(tokenizer(texts, truncation=True, max_length=limit)["input_ids"], start=1):
            if tokenizer.mask_token_id not in ids:
                raise UserError(f"text {row} has no {tokenizer.mask_token} in its first {limit} tokens")
        options = {"top_k": args.top_k, "tokenizer_kwargs": {"truncation": True, "max_length": limit}}
    else:
        # logits: what is made of them is what calibration.json beside the model says
        options = {"top_k": None, "function_to_apply": "none", "truncation": True, "max_length": limit}
    if args.task == "token-classification":
        by_row, describe = tag_texts(texts, model, tokenizer, limit, args.batch_size), dict
    else:
        order = sorted(range(len(texts)), key=lengths.__getitem__, reverse=True)
        predictor = pipeline(args.task, model=model, tokenizer=tokenizer)
        answers = predictor((rows[i] for i in order), batch_size=args.batch_size, **options)
        answers = tqdm(answers, total=len(texts), desc="predict", disable=len(texts) <= args.batch_size)
        by_row = dict(zip(order, answers, strict=True))
        describe = fillings
        if args.task == "text-classification":
            describe = partial(classes, Calibration.beside(resolve_model(args.model_name_or_path), model.config))

    # answers
    records = [
        {"text": text, **describe(by_row[row]), "truncated": lengths[row] > limit} for row, text in enumerate(texts)
    ]
    show(records)
    if args.output:
        write_records(args.output, records)


def classes(calibration, entries: list[dict]) -> dict:
    """What a `Calibration` makes of the pipeline's logits for one text."""
    return calibration.answer({entry["label"]: entry["score"] for entry in entries})


def fillings(masks: list) -> dict:
    """The pipeline's candidates (a list of them where there are several masks) as a table for each mask."""
    masks = masks if isinstance(masks[0], list) else [masks]
    return {
        f"mask_{number}": {entry["token_str"]: entry["score"] for entry in mask}
        for number, mask in enumerate(masks, start=1)
    }


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
