"""Classify with a decoder that is only asked to: a few labelled examples in the prompt, and no training.

Makes results.json (test accuracy with its interval, under four ways of scoring the label words) and predictions.jsonl.
A decoder that was taught the classes as answers (sft.py --prompt_column ... --answer_column ...) is measured with
`--chat --shots 0 --scoring plain`.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.sources.splits import SplitFlags


@dataclass
class FewShotRecipe(SplitFlags):
    """Which decoder, which rows, what the prompt looks like. Splits are those of recipes/bert/classify.py."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, demo:smollm2, or Hub id."})
    output_dir: str = field(metadata={"help": "For results.json and predictions.jsonl."})
    source: str = field(default="demo:movie-reviews", metadata={"help": "Demo set, file, folder or Hub id."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    pair_column: str | None = field(default=None, metadata={"help": "Column with a second text, written under it."})
    label_column: str = field(default="label", metadata={"help": "Column with the class, of any type."})
    test_rows: int | None = field(default=None, metadata={"help": "Ask about so many test rows only, by hash."})
    shots: int = field(default=4, metadata={"help": "Examples of each class, from the training split; may be 0."})
    num_seeds: int = field(default=1, metadata={"help": "Other examples with seed, seed+1, ..."})
    seed: int = field(default=0, metadata={"help": "Draws the examples."})
    instruction: str | None = field(default=None, metadata={"help": "Said before all; in a chat by the system."})
    text_name: str = field(default="Text", metadata={"help": "What stands before a text."})
    label_name: str = field(default="Label", metadata={"help": "What stands before its label."})
    label_words: list[str] = field(
        default_factory=list, metadata={"help": "class=word, for classes whose name is not the word to be said."}
    )
    chat: bool = field(default=False, metadata={"help": "Texts as user's turns, labels as the assistant's."})
    scoring: str = field(
        default="calibrated", metadata={"help": "The one reported: plain, length, calibrated, length_calibrated."}
    )
    max_length: int = field(default=128, metadata={"help": "Tokens per text; longer texts are cut and counted."})
    batch_size: int = field(default=16, metadata={"help": "Prompts read at a time."})


def main() -> None:
    (args,) = parse(FewShotRecipe, description=__doc__)

    import numpy as np
    from sklearn.metrics import confusion_matrix
    from transformers import AutoModelForCausalLM

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.records import write_records
    from lm_recipes.evaluation import few_shot
    from lm_recipes.models import positions_of
    from lm_recipes.sources.labelled import load_labelled

    start = time.perf_counter()
    if args.scoring not in few_shot.SCORINGS:
        raise UserError(f"--scoring {args.scoring}: must be one of {', '.join(few_shot.SCORINGS)}")
    for option, least in (("shots", 0), ("num_seeds", 1), ("max_length", 1), ("batch_size", 1), ("test_rows", 1)):
        if getattr(args, option) is not None and getattr(args, option) < least:
            raise UserError(f"--{option} {getattr(args, option)}: must be at least {least}")
    rows, names = load_labelled(
        args.source, text_column=args.text_column, pair_column=args.pair_column, label_column=args.label_column,
        **args.division(),
    )  # fmt: skip
    prompt = few_shot.Prompt(
        few_shot.words_for(names, args.label_words), args.instruction, args.text_name, args.label_name, args.chat
    )
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.model_name_or_path)

    # texts, cut where they are long, and the rows that are asked about
    columns = [name for name in ("text", "pair") if name in rows["test"].column_names]
    texts = {
        split: ["\n".join(parts) for parts in zip(*(rows[split][name] for name in columns), strict=True)]
        for split in ("train", "test")
    }
    some = sorted(few_shot.by_hash(texts["test"], seed=0)[: args.test_rows])
    texts["test"], references = [texts["test"][row] for row in some], np.array(rows["test"]["labels"])[some]
    cut, rows_cut = few_shot.cut_texts(tokenizer, texts["test"], args.max_length)
    labels = list(rows["train"]["labels"])
    answers = prompt.answers(tokenizer)
    longest, positions = max(map(len, answers)), positions_of(model.config)

    # for each seed its examples; what has no content is asked too, for calibration
    predictions = {name: [] for name in few_shot.SCORINGS}
    for seed in range(args.seed, args.seed + args.num_seeds):
        places = few_shot.examples_of(texts["train"], labels, args.shots, seed)
        shown, _ = few_shot.cut_texts(tokenizer, [texts["train"][place] for place in places], args.max_length)
        examples = list(zip(shown, [labels[place] for place in places], strict=True))
        asked = prompt.questions(tokenizer, [*few_shot.CONTENT_FREE, *cut], examples)
        if positions and max(map(len, asked)) + longest > positions:
            raise UserError(
                f"a prompt and its answer have {max(map(len, asked)) + longest} tokens, the model reads {positions}; "
                "fewer --shots or a smaller --max_length"
            )
        scores = few_shot.log_probabilities(model, asked, answers, args.batch_size)
        free = len(few_shot.CONTENT_FREE)
        for name, found in few_shot.score(scores[free:], scores[:free], [len(answer) for answer in answers]).items():
            predictions[name].append(found.argmax(1))

    by_scoring = {name: few_shot.summary(np.stack(found), references) for name, found in predictions.items()}
    chosen = np.stack(predictions[args.scoring])
    metrics = {
        "test": by_scoring[args.scoring],
        "by_scoring": by_scoring,
        "per_seed": [
            {"seed": args.seed + i, "test": float(np.mean(row == references))} for i, row in enumerate(chosen)
        ],
        "per_seed_by_scoring": {
            name: [float(np.mean(row == references)) for row in found] for name, found in predictions.items()
        },
        "confusion": confusion_matrix(references, chosen[0], labels=range(len(names))).tolist(),
        "labels": names,
        "examples": args.shots * len(names),
        "rows_cut_at_max_length": rows_cut,
    }
    records = [
        {"text": text, "label": names[truth], "predicted": names[said]}
        for text, truth, said in zip(texts["test"], references, chosen[0], strict=True)
    ]
    with atomic_directory(args.output_dir) as directory:
        write_records(str(directory / "predictions.jsonl"), records)
        write_results(
            directory, config=asdict(args), inputs={"model": args.model_name_or_path, "data": args.source},
            metrics=metrics, seconds={"total": time.perf_counter() - start},
        )  # fmt: skip
    test = metrics["test"]
    done(
        f"{test['accuracy']:.1%} of test rows right (95 %: {test['accuracy_low']:.1%} to {test['accuracy_high']:.1%}), "
        + ", ".join(f"{name} {found['accuracy']:.1%}" for name, found in by_scoring.items()),
        args.output_dir,
        f"python recipes/report.py --keep {args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
