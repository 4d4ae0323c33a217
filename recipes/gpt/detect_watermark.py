"""Say of texts whether they were written under a watermark (`generate.py --watermark 2`). No model is run.

python recipes/gpt/detect_watermark.py --model_name_or_path runs/gpt --texts_file texts.jsonl --watermark_key 4711
"""

from dataclasses import asdict, dataclass, field

from lm_recipes.launch import parse, recipe


@dataclass
class DetectArguments:
    """Which texts, and the mark to look for. Texts: `--text`, a file, or standard input (one a line)."""

    model_name_or_path: str = field(metadata={"help": "The model that may have written them: directory or Hub id."})
    text: list[str] | None = field(default=None, metadata={"help": "One or more texts, without their prompts."})
    texts_file: str | None = field(default=None, metadata={"help": "A .txt (a text a line), .jsonl or .csv file."})
    text_column: str = field(default="text", metadata={"help": "Where .jsonl and .csv rows hold the text."})
    watermark_key: int | None = field(default=None, metadata={"help": "The key they were written with, if any."})
    threshold: float = field(
        default=3.0, metadata={"help": "Standard deviations above chance that count as marked (3: 1 false in 740)."}
    )
    output: str | None = field(default=None, metadata={"help": "A .jsonl, .json or .csv file for the verdicts."})


def main() -> None:
    (args,) = parse(DetectArguments, description=__doc__)
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from lm_recipes.decoding.records import read_texts, refuse_output, write_records
    from lm_recipes.decoding.watermark import detect
    from lm_recipes.models.loading import loading
    from lm_recipes.sources import resolve_model

    refuse_output(args.output)
    texts = read_texts(args.text, args.texts_file, args.text_column)
    path = resolve_model(args.model_name_or_path)
    with loading(args.model_name_or_path):
        config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    device = (torch.accelerator.current_accelerator() or torch.device("cpu")).type
    verdicts = detect(config, tokenizer, texts, key=args.watermark_key, threshold=args.threshold, device=device)

    for text, verdict in zip(texts, verdicts, strict=True):
        shown = " ".join(text.split())[:60]
        if verdict is None:
            print(f"too short   {shown}")
            continue
        said = "marked    " if verdict.marked else "not marked"
        print(f"{said}  z {verdict.z:6.2f}  {verdict.green:5.1%} of {verdict.tokens:4d} green  {shown}")
    if args.output:
        nothing = {"tokens": 0, "green": None, "z": None, "p_value": None, "marked": None}
        rows = [nothing if verdict is None else asdict(verdict) for verdict in verdicts]
        write_records(args.output, [{"text": text, **row} for text, row in zip(texts, rows, strict=True)])


if __name__ == "__main__":
    recipe(main)
