"""Answer questions with words of a text, or choose between given answers, with a model that was trained to.

python recipes/bert/ask.py --model_name_or_path runs/answers --question "Who wrote it?" --context_file essay.txt
python recipes/bert/ask.py --model_name_or_path runs/answers --questions_file rows.jsonl --output answers.jsonl
python recipes/bert/ask.py --model_name_or_path runs/choices --question "Knives are for?" --choice cutting sleeping
"""

from dataclasses import dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, parse, recipe


@dataclass
class AskArguments:
    """What to ask. Rows of a file have `question`, perhaps `id`, and `context` (a text) or `choices` (a list), which
    the flags give to rows without."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, or a Hub id."})
    question: list[str] | None = field(default=None, metadata={"help": "One or more questions."})
    context: str | None = field(default=None, metadata={"help": "The text to look for the answer in."})
    context_file: str | None = field(default=None, metadata={"help": "A file with that text, of any length."})
    choice: list[str] | None = field(default=None, metadata={"help": "Two answers or more to choose between."})
    questions_file: str | None = field(default=None, metadata={"help": "A .jsonl, .csv, .parquet or SQuAD .json."})
    n_best: int = field(default=3, metadata={"help": "Answers shown for each question."})
    max_length: int | None = field(default=None, metadata={"help": "Tokens of a window; default: as trained."})
    doc_stride: int | None = field(default=None, metadata={"help": "Tokens windows share; default: as trained."})
    max_answer_length: int | None = field(default=None, metadata={"help": "Tokens; default: as trained."})
    null_score_diff_threshold: float | None = field(
        default=None, metadata={"help": "No answer where none is likelier by so many nats; default: as chosen."}
    )
    always_answer: bool = field(default=False, metadata={"help": "Give the best answer, however unlikely."})
    batch_size: int = field(default=32, metadata={"help": "Windows read at a time, sorted by length."})
    output: str | None = field(
        default=None, metadata={"help": "For the answers: .jsonl, .json, or .csv without n-best."}
    )


def main() -> None:
    (args,) = parse(AskArguments, description=__doc__)
    from tqdm.auto import tqdm
    from transformers import AutoModelForMultipleChoice, AutoModelForQuestionAnswering

    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.records import refuse_output, write_records
    from lm_recipes.evaluation.answers import answer_all, asking_of, records
    from lm_recipes.evaluation.choices import choose
    from lm_recipes.sources import resolve_model
    from lm_recipes.sources.questions import load_asked

    for option in ("n_best", "batch_size", "max_length", "max_answer_length"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be at least 1")
    refuse_output(args.output)
    if args.context and args.context_file:
        raise UserError("--context and --context_file: give one of them")
    context = read_context(args.context_file) if args.context_file else args.context
    rows = load_asked(args.questions_file, args.question, context, args.choice)

    if any("choices" in row for row in rows):
        model, tokenizer = load_for_inference(AutoModelForMultipleChoice, args.model_name_or_path)
        answers = []
        for row in tqdm(rows, desc="choosing", disable=len(rows) < 50):
            if "choices" not in row:
                raise UserError(f"{args.questions_file}: question {row['id']} has no choices, but others have")
            found = choose(model, tokenizer, row["question"], row["choices"], row.get("context", ""), args.max_length)
            best = max(range(len(found)), key=found.__getitem__)
            said = {"answer": row["choices"][best], "probability": found[best], "probabilities": found}
            answers.append({**row, **said})
    else:
        model, tokenizer = load_for_inference(AutoModelForQuestionAnswering, args.model_name_or_path)
        flags = ("max_length", "doc_stride", "max_answer_length", "null_score_diff_threshold")
        asking = asking_of(
            resolve_model(args.model_name_or_path), model, tokenizer, **{name: getattr(args, name) for name in flags}
        )
        found = answer_all(model, tokenizer, rows, asking, args.n_best, args.batch_size)
        threshold = None if args.always_answer else asking.null_score_diff_threshold
        answers = list(records(rows, found, threshold))
    show(answers)
    if args.output and args.output.endswith(".csv"):  # no place for n_best and the like
        answers = [{name: value for name, value in row.items() if not isinstance(value, list)} for row in answers]
    if args.output:
        write_records(args.output, answers)


def read_context(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--context_file {path}: not a text that can be read ({error})") from error


def show(answers: list[dict]) -> None:
    """Print each question with its answers, likeliest first; an arrow marks what is answered."""
    for row in answers:
        print("\n" + row["question"])
        if "choices" in row:
            pairs = zip(row["probabilities"], row["choices"], strict=True)
            shown = [(probability, text, text == row["answer"]) for probability, text in pairs]
            shown.sort(reverse=True)
        else:
            places = [(one["start"], one["end"]) for one in row["n_best"]]
            shown = [
                (one["probability"], f"{one['text']} [{start}:{end}]", (start, end) == (row["start"], row["end"]))
                for one, (start, end) in zip(row["n_best"], places, strict=True)
            ]
            shown.append((row["no_answer_probability"], "(no answer)", row["start"] is None))
        for probability, text, said in shown:
            print(f"  {'->' if said else '  '} {probability:.4f}  {' '.join(text.split())}")


if __name__ == "__main__":
    recipe(main)
