"""Fine-tune an encoder or a decoder to classify text: one class a row, several, or a number; texts or pairs of them.

Makes a plain transformers directory (or a LoRA adapter) that `pipeline("text-classification")` loads, with its test
score and an interval, what simpler methods reach on the same split, `calibration.json` and a page of its mistakes.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.sources.splits import SplitFlags
from lm_recipes.training.task_flags import TaskFlags


@dataclass
class ClassifyRecipe(TaskFlags, SplitFlags):
    """Which rows, how they are split, and what is trained."""

    source: str = field(default="demo:movie-reviews", metadata={"help": "Demo set, file, folder or Hub id."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    pair_column: str | None = field(default=None, metadata={"help": "Column with a second text, if any."})
    label_column: str = field(default="label", metadata={"help": "Column with the class(es), of any type, or number."})
    problem_type: str = field(
        default="single_label_classification",
        metadata={"help": "Or multi_label_classification (lists, or a|b), or regression (numbers)."},
    )
    class_names: list[str] | None = field(default=None, metadata={"help": "Names for 0, 1, ...; or all there are."})
    stratify: bool = field(default=False, metadata={"help": "Split each class alike: for rare classes."})
    cross_domain: list[str] = field(default_factory=list, metadata={"help": "More sources to be measured on."})
    train_rows: int | None = field(default=None, metadata={"help": "Learn from so many rows, others for each seed."})
    max_length: int = field(default=128, metadata={"help": "Tokens per row; longer rows are cut and counted."})
    class_weights: str | None = field(default=None, metadata={"help": "balanced: every class weighs the same."})
    positive_class: str | None = field(default=None, metadata={"help": "Of two, the one to find: gets a threshold."})
    bidirectional: bool = field(default=False, metadata={"help": "Decoder: every token sees the whole text."})
    baselines: bool = field(default=True, metadata={"help": "Also measure majority and TF-IDF + regression."})


def main() -> None:
    from lm_recipes.training.adapters import AdapterArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    args, model_args, training_args = parse(ClassifyRecipe, AdapterArguments, FineTuningArguments, description=__doc__)

    import numpy as np
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation import classification as scores
    from lm_recipes.evaluation.baselines import classification_baselines
    from lm_recipes.evaluation.calibration import Calibration, place_of_positive
    from lm_recipes.models.heads import classifier_tokenizer, parameter_counts, with_head
    from lm_recipes.reporting.classification import write_report
    from lm_recipes.sources import describe
    from lm_recipes.sources.labelled import few_labels, load_labelled
    from lm_recipes.text.near_copies import without_near_copies
    from lm_recipes.tokenization.rows import tokenize_rows
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.finish import changed_settings, finish
    from lm_recipes.training.optimizer import FineTuningTrainer

    start, kind, output_dir = time.perf_counter(), args.problem_type, training_args.output_dir
    if args.bidirectional and model_args.use_peft:
        raise UserError("--bidirectional is kept in the model's config, which an adapter has none of; drop --use_peft")
    encoder = finetuning.base_model(model_args.model_name_or_path, training_args)
    tokenizer = classifier_tokenizer(encoder, args.max_length, model_args.model_revision)
    adapters.add_tokens(tokenizer, model_args)
    rows, names = load_labelled(
        args.source, text_column=args.text_column, pair_column=args.pair_column, label_column=args.label_column,
        **args.division(), problem_type=kind, class_names=args.class_names,
        stratify=args.stratify, cross_domain=args.cross_domain,
    )  # fmt: skip
    rows["train"], left_out = without_near_copies(rows, args.made(), ["text", *(["pair"] if args.pair_column else [])])
    positive = place_of_positive(args.positive_class, names, kind)
    weights = finetuning.class_weights(args.class_weights, rows["train"]["labels"], kind)
    data, rows_cut = tokenize_rows(rows, tokenizer, args.max_length)
    settings = asdict(args) | changed_settings(model_args)
    identity = preflight.identity_of(training_args, **settings, rows=rows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    truth = {split: np.array(data[split]["labels"]) for split in data if split != "train"}
    seconds, rates = [], args.learning_rates or [training_args.learning_rate]

    def train(seed: int, rate: float) -> tuple[float, FineTuningTrainer, dict[str, np.ndarray]]:
        model = with_head(
            AutoModelForSequenceClassification, encoder, names, seed=seed, problem_type=kind,
            from_scratch=args.from_scratch, freeze_encoder=args.freeze_encoder, bidirectional=args.bidirectional,
            pad_token_id=tokenizer.pad_token_id, **finetuning.loading_options(model_args),
        )  # fmt: skip
        own_args = finetuning.for_seed(training_args, seed, args.num_seeds + len(rates) - 1)
        own_args.learning_rate = rate
        trainer = FineTuningTrainer(
            model=adapters.with_adapter(model, model_args, "SEQ_CLS", tokenizer),
            args=own_args,
            train_dataset=data["train"].select(few_labels(rows["train"], args.train_rows, seed)),
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
            compute_loss_func=finetuning.ClassificationLoss(kind, weights, own_args.label_smoothing_factor),
            compute_metrics=scores.trainer_metrics(kind, positive),
            callbacks=finetuning.watchers(own_args),
        )  # fmt: skip
        seconds.append(finetuning.fit(trainer, output_dir, checkpoint))
        logits = {split: scores.logits_of(trainer, data[split]) for split in truth}
        return scores.main_score(logits["validation"], truth["validation"], kind), trainer, logits

    # 1. The learning rate, on validation and with the first seed; 2. that rate with the other seeds.
    seeds = [training_args.seed + number for number in range(args.num_seeds)]
    rate, tried, runs = finetuning.best_rate(train, rates, seeds)
    metrics = scores.report(scores.decisions(runs, kind), truth, names, kind, positive)
    metrics["cross_domain"] = {source: metrics.pop(source) for source in args.cross_domain}
    _, trainer, logits = runs[metrics["saved_seed"]]
    metrics |= {"learning_rate": rate, f"validation_{scores.MAIN[kind]}_by_learning_rate": tried}
    metrics |= {"train_rows": len(trainer.train_dataset), "rows_cut_at_max_length": rows_cut}
    metrics |= {"near_copies_left_out": left_out} | parameter_counts(trainer.model)
    if args.baselines:
        rows["train"] = rows["train"].select(few_labels(rows["train"], args.train_rows, training_args.seed))
        metrics["baselines"] = classification_baselines(rows, kind)

    # 3. How sure to be, and from which probability on to act: on validation, measured on test.
    calibration = Calibration.fit(logits["validation"], truth["validation"], names, kind, args.positive_class)
    metrics["calibration"] = calibration.effect(logits["test"], truth["test"])
    title, found = f"Classifier: {', '.join(names[:5])}", scores.in_words(metrics["test"], kind, len(runs))
    calibration.save(output_dir)
    write_report(output_dir, title, found, metrics, rows["test"], logits["test"], truth["test"], calibration)
    finish(
        trainer, title=title, pipeline_tag="text-classification", config=settings, metrics=metrics,
        summary=f"{model_args.model_name_or_path} fine-tuned on {args.source}: {found}.",
        limits=f"Measured on the data above only; try it on your own before relying on it. {calibration.in_words()}",
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        seconds={"total": time.perf_counter() - start, "train": sum(seconds)},
        base_model=model_args.model_name_or_path, datasets=[describe(args.source)],
    )  # fmt: skip
    ready = adapters.merge_beside(trainer) if model_args.use_peft and args.merge_adapter else output_dir
    calibration.save(ready)
    pairs = f"--texts_file YOURS.jsonl --text_column {args.text_column} --pair_column {args.pair_column}"
    texts = pairs if args.pair_column else '--text "A gem."'
    done(found, ready, f"python recipes/bert/predict.py --model_name_or_path {ready} {texts}")


if __name__ == "__main__":
    recipe(main)
