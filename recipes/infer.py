"""Answer every row of a file: the same file comes out, with more columns. A run that was killed goes on where it was.

python recipes/infer.py --task text-classification --model_name_or_path runs/sentiment --input r.csv --output o.csv
python recipes/infer.py --task text-generation --model_name_or_path runs/gpt --input p.jsonl --output o.jsonl
python recipes/infer.py --task question-answering --model_name_or_path runs/answers --input q.parquet --output o.parquet
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.decoding.options import StrategyOptions
from lm_recipes.launch import UserError, done, parse, recipe

TASKS = {
    "text-generation": "AutoModelForCausalLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-extraction": "AutoModel",
}


@dataclass
class InferArguments:
    """Which file, which model and what it is asked. An option that is one task's own says so."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, demo model or Hub id."})
    task: str = field(metadata={"help": "What to ask.", "choices": list(TASKS)})
    input: str = field(metadata={"help": "A .jsonl, .csv, .tsv or .parquet file."})
    output: str = field(metadata={"help": "The same rows with the answers: a file of the same kind."})
    text_column: str = field(default="text", metadata={"help": "Column with the text or prompt."})
    prefix: str = field(default="", metadata={"help": "Of the new columns' names, where theirs are taken."})
    max_length: int | None = field(default=None, metadata={"help": "Encoders: cut longer texts to so many tokens."})
    int8: bool = field(default=False, metadata={"help": "Encoders on a CPU: multiply in 8 bits; sooner, less exact."})
    batch_size: int = field(default=32, metadata={"help": "Rows answered at a time, of like length."})
    seed: int = field(default=0, metadata={"help": "Of what is drawn."})
    strategy: str = field(default="greedy", metadata={"help": "text-generation: as of recipes/gpt/generate.py."})
    chat: bool = field(default=False, metadata={"help": "text-generation: each prompt is a user's turn."})
    question_column: str = field(default="question", metadata={"help": "question-answering: column to answer."})
    context_column: str = field(default="context", metadata={"help": "question-answering: column to look in."})
    n_best: int = field(default=3, metadata={"help": "question-answering: answers for each question."})


def main() -> None:
    args, options = parse(InferArguments, StrategyOptions, description=__doc__)
    for option in ("max_length", "batch_size", "n_best"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be at least 1")
    import transformers

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.compression.quantization import dynamic_int8
    from lm_recipes.decoding.batches import answer_file
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.records import row_file
    from lm_recipes.sources import resolve_model

    # the file and every flag are looked at before a model is loaded
    row_file(args.input, args.output)
    way = strategy_of(args, options)
    path = resolve_model(args.model_name_or_path)
    auto_class = getattr(transformers, TASKS[args.task])
    model, tokenizer = load_for_inference(auto_class, args.model_name_or_path, packed=not args.int8)
    if args.int8:
        model = dynamic_int8(model)
    task = task_of(args, model, tokenizer, way, options)

    unread = ("input", "output", "prefix", "model_name_or_path")
    settings = asdict(args) | asdict(options)
    identity = {name: value for name, value in settings.items() if name not in unread}
    weights = fingerprint(path) if Path(path).exists() else path
    counts = answer_file(
        args.input, args.output, task, identity=identity | {"model": weights}, prefix=args.prefix,
        batch_size=args.batch_size, seed=args.seed,
    )  # fmt: skip
    look = f"head -c 1000 {args.output}"
    if args.output.endswith(".parquet"):
        look = f"python -c \"import pandas; print(pandas.read_parquet('{args.output}'))\""
    done(f"answers to {counts['rows']} rows", args.output, look)


def strategy_of(args: InferArguments, options: StrategyOptions):
    """How text is generated; of the other tasks only fill-mask reads one of its options, `--top_k`."""
    from lm_recipes.decoding.strategies import strategies

    given = {name: value for name, value in asdict(options).items() if value != getattr(StrategyOptions, name)}
    if args.task != "text-generation":
        if other := given.keys() - ({"top_k"} if args.task == "fill-mask" else set()):
            raise UserError(f"--{min(other)} changes nothing under --task {args.task}")
        if options.top_k is not None and options.top_k < 1:
            raise UserError(f"--top_k {options.top_k}: must be at least 1")
        return None
    if args.int8:
        raise UserError("--int8: for encoders; what a decoder loses by it is in docs/export.md")
    way = strategies([args.strategy], asdict(options))[args.strategy]
    if way.texts > 1:
        raise UserError(f"--strategy {args.strategy} gives {way.texts} texts a prompt; a row has room for one")
    return way


def task_of(args: InferArguments, model, tokenizer, way, options: StrategyOptions):
    """What is asked of each row, as a `batches.Task`."""
    from lm_recipes.decoding import tasks
    from lm_recipes.decoding.drafts import with_draft
    from lm_recipes.decoding.predictions import reading_limit
    from lm_recipes.evaluation.answering_rows import classification, question_answering
    from lm_recipes.sources import resolve_model

    path = resolve_model(args.model_name_or_path)
    if args.task == "text-generation":
        way = with_draft(way, model, tokenizer)
        return tasks.generation(model, tokenizer, args.text_column, way, options.max_new_tokens, args.chat)
    if args.task == "question-answering":
        columns = {"question": args.question_column, "context": args.context_column}
        return question_answering(path, model, tokenizer, columns, args.max_length, args.n_best)
    limit = reading_limit(model, tokenizer, args.max_length)
    if args.task == "fill-mask":
        return tasks.filling(model, tokenizer, args.text_column, limit, options.top_k or 5)
    if args.task == "text-classification":
        return classification(path, model, tokenizer, args.text_column, limit)
    ask = tasks.tagging if args.task == "token-classification" else tasks.embedding
    return ask(model, tokenizer, args.text_column, limit)


if __name__ == "__main__":
    recipe(main)
