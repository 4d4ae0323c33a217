"""Fine-tune an encoder on multiple choice: which of several texts answers a question, ends a story, solves a task?

Makes a plain transformers directory (or a LoRA adapter) that scores each choice; its test accuracy with an interval,
what guessing and counting words reach on the same rows, and its surest mistakes.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe
from lm_recipes.sources.splits import SplitFlags
from lm_recipes.training.task_flags import TaskFlags


@dataclass
class ChooseRecipe(TaskFlags, SplitFlags):
    """Which questions, how they are split, and what is trained."""

    source: str = field(default="demo:siqa-choices", metadata={"help": "Demo set, table, folder or Hub id."})
    question_column: str = field(default="question", metadata={"help": "Column with the question."})
    choices_column: list[str] = field(
        default_factory=lambda: ["choices"], metadata={"help": "Column with a list, or columns with one choice each."}
    )
    label_column: str = field(default="label", metadata={"help": "The right choice: number, letter, name or text."})
    context_column: str | None = field(default=None, metadata={"help": "Column with a text before the question."})
    max_length: int = field(default=128, metadata={"help": "Tokens per choice; longer ones are cut and counted."})
    baselines: bool = field(default=True, metadata={"help": "Also measure chance, longest choice, shared words."})


def main() -> None:
    from lm_recipes.training.adapters import AdapterArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    args, model_args, training_args = parse(ChooseRecipe, AdapterArguments, FineTuningArguments, description=__doc__)

    import numpy as np
    from transformers import AutoModelForMultipleChoice

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation import choices
    from lm_recipes.evaluation.classification import logits_of, trainer_metrics
    from lm_recipes.evaluation.question_baselines import choice_baselines
    from lm_recipes.models.heads import classifier_tokenizer, parameter_counts, with_head
    from lm_recipes.sources.labelled import SINGLE
    from lm_recipes.sources.questions import describe_questions, limits_of, load_choices
    from lm_recipes.tokenization.choices import ChoiceCollator, tokenize_choices
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.finish import changed_settings, finish
    from lm_recipes.training.optimizer import FineTuningTrainer

    start, output_dir = time.perf_counter(), training_args.output_dir
    encoder = finetuning.base_model(model_args.model_name_or_path, training_args)
    tokenizer = classifier_tokenizer(encoder, args.max_length, model_args.model_revision)
    adapters.add_tokens(tokenizer, model_args)
    rows = load_choices(
        args.source, question_column=args.question_column, choices_columns=args.choices_column,
        label_column=args.label_column, context_column=args.context_column, **args.division(),
        )  # fmt: skip
    data, rows_cut = tokenize_choices(rows, tokenizer, args.max_length)
    settings = asdict(args) | changed_settings(model_args)
    identity = preflight.identity_of(training_args, **settings, rows=rows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    seconds, rates = [], args.learning_rates or [training_args.learning_rate]

    def train(seed: int, rate: float) -> tuple[float, FineTuningTrainer, dict[str, np.ndarray]]:
        model = with_head(
            AutoModelForMultipleChoice, encoder, seed=seed, from_scratch=args.from_scratch,
            freeze_encoder=args.freeze_encoder, **finetuning.loading_options(model_args),
        )  # fmt: skip
        own_args = finetuning.for_seed(training_args, seed, args.num_seeds + len(rates) - 1)
        own_args.learning_rate = rate
        trainer = FineTuningTrainer(
            model=adapters.with_adapter(model, model_args, None, tokenizer),
            args=own_args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=ChoiceCollator(tokenizer),
            processing_class=tokenizer,
            compute_loss_func=finetuning.ClassificationLoss(SINGLE, None, own_args.label_smoothing_factor),
            compute_metrics=trainer_metrics(SINGLE),
            callbacks=finetuning.watchers(own_args),
        )
        seconds.append(finetuning.fit(trainer, output_dir, checkpoint))
        logits = {split: logits_of(trainer, data[split]) for split in ("validation", "test")}
        right = logits["validation"].argmax(-1) == np.array(rows["validation"]["labels"][:])
        return float(right.mean()), trainer, logits

    # 1. The learning rate, on validation and with the first seed; 2. that rate with the other seeds.
    seeds = [training_args.seed + number for number in range(args.num_seeds)]
    rate, tried, runs = finetuning.best_rate(train, rates, seeds)
    metrics = choices.report({seed: run[2] for seed, run in runs.items()}, rows)
    trainer = runs[metrics["saved_seed"]][1]
    metrics |= {"learning_rate": rate, "validation_accuracy_by_learning_rate": tried}
    metrics |= {"train_rows": len(data["train"]), "rows_cut_at_max_length": rows_cut} | parameter_counts(trainer.model)
    if args.baselines:
        metrics["baselines"] = choice_baselines(rows)
    found = choices.in_words(metrics)
    finish(
        trainer, title="Chooses between answers", pipeline_tag="multiple-choice", config=settings, metrics=metrics,
        summary=f"{model_args.model_name_or_path} fine-tuned on {args.source}, {len(runs)} seed(s): {found}.",
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        seconds={"total": time.perf_counter() - start, "train": sum(seconds)},
        base_model=model_args.model_name_or_path, datasets=[describe_questions(args.source)],
        limits=limits_of(args.source),
    )  # fmt: skip
    ready = output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
    example = '--question "What is a knife for?" --choice cutting sleeping'
    ask = f"python recipes/bert/ask.py --model_name_or_path {ready} {example}"
    done(f"a model that chooses: {found}", ready, ask)


if __name__ == "__main__":
    recipe(main)
