"""Fine-tune an encoder or a decoder to classify text: sentiment, topic, spam, entailment, one class a row.

Makes a plain transformers directory (or a LoRA adapter) that `pipeline("text-classification")` loads, with its test
accuracy, an interval, and what simpler methods reach on the same split.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class ClassifyRecipe:
    """Which rows, how they are split, and what is trained."""

    source: str = field(default="demo:movie-reviews", metadata={"help": "Demo set, file, folder or Hub id."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    pair_column: str | None = field(default=None, metadata={"help": "Column with a second text, if any."})
    label_column: str = field(default="label", metadata={"help": "Column with the class, of any type."})
    train_split: str | None = field(default=None, metadata={"help": "The source's own training split."})
    validation_split: str | None = field(default=None, metadata={"help": "Its validation split; else by hash."})
    test_split: str | None = field(default=None, metadata={"help": "Its test split; else by hash of the text."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of rows, where there is no split."})
    test_share: float = field(default=0.1, metadata={"help": "Share of rows, where there is no split."})
    train_rows: int | None = field(default=None, metadata={"help": "Learn from so many rows, others for each seed."})
    max_length: int = field(default=128, metadata={"help": "Tokens per row; longer rows are cut and counted."})
    bidirectional: bool = field(default=False, metadata={"help": "Decoder: every token sees the whole text."})
    from_scratch: bool = field(default=False, metadata={"help": "Random weights: what is pretraining worth?"})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the classification head only."})
    learning_rates: list[float] | None = field(default=None, metadata={"help": "To choose from, on validation."})
    num_seeds: int = field(default=1, metadata={"help": "Runs with seed, seed+1, ...; the best is saved."})
    baselines: bool = field(default=True, metadata={"help": "Also measure majority and TF-IDF + regression."})
    merge_adapter: bool = field(default=False, metadata={"help": "Write adapter + base to OUTPUT_DIR/merged."})


def main() -> None:
    from trl import ModelConfig

    from lm_recipes.training.finetuning import FineTuningArguments

    args, model_args, training_args = parse(ClassifyRecipe, ModelConfig, FineTuningArguments, description=__doc__)

    import numpy as np
    from transformers import DataCollatorWithPadding, Trainer
    from trl import get_quantization_config

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.baselines import classification_baselines
    from lm_recipes.evaluation.classification import predict, report, trainer_metrics
    from lm_recipes.models.heads import sequence_classifier
    from lm_recipes.models.loading import load_tokenizer
    from lm_recipes.sources import describe, resolve_model
    from lm_recipes.sources.labelled import few_labels, load_labelled
    from lm_recipes.tokenization.rows import tokenize_rows
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.callbacks import guards
    from lm_recipes.training.finish import changed_settings, finish
    from lm_recipes.training.hub import refuse_push_without_login

    start = time.perf_counter()
    refuse_push_without_login(training_args)
    preflight.check_arguments(training_args)
    if not model_args.model_name_or_path:
        raise UserError("--model_name_or_path: which encoder? A directory, a Hub id or demo:minilm")
    if args.bidirectional and model_args.use_peft:
        raise UserError("--bidirectional is kept in the model's config, which an adapter has none of; drop --use_peft")
    encoder = resolve_model(model_args.model_name_or_path)
    tokenizer = load_tokenizer(encoder, args.max_length, model_args.model_revision)
    rows, names = load_labelled(
        args.source,
        text_column=args.text_column,
        pair_column=args.pair_column,
        label_column=args.label_column,
        own_splits={"train": args.train_split, "validation": args.validation_split, "test": args.test_split},
        validation=args.validation_share,
        test=args.test_share,
    )
    if tokenizer.pad_token is None:
        raise UserError(f"{encoder}: the tokenizer has no pad token, so rows cannot share a batch; give it one")
    if not tokenizer.num_special_tokens_to_add():  # a GPT's: texts begin and end as documents do in its pretraining
        tokenizer.add_bos_token = tokenizer.add_eos_token = True
    data, rows_cut = tokenize_rows(rows, tokenizer, args.max_length)
    settings = asdict(args) | changed_settings(model_args)
    identity = preflight.identity_of(training_args, **settings, rows=rows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    def train(seed: int, rate: float) -> tuple[Trainer, dict[str, np.ndarray]]:
        model = sequence_classifier(
            encoder, names, seed=seed, from_scratch=args.from_scratch, freeze_encoder=args.freeze_encoder,
            bidirectional=args.bidirectional, pad_token_id=tokenizer.pad_token_id,
            revision=model_args.model_revision, dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation, quantization_config=get_quantization_config(model_args),
        )  # fmt: skip
        own_args = finetuning.for_seed(training_args, seed, args.num_seeds + len(rates) - 1)
        own_args.learning_rate = rate
        trainer = Trainer(
            model=adapters.with_adapter(model, model_args, "SEQ_CLS"),
            args=own_args,
            train_dataset=data["train"].select(few_labels(rows["train"], args.train_rows, seed)),
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=trainer_metrics,
            callbacks=guards(),
        )
        seconds.append(trainer.train(resume_from_checkpoint=checkpoint).metrics["train_runtime"])
        return trainer, {split: predict(trainer, data[split]) for split in ("validation", "test")}

    # 1. The learning rate, on validation and with the first seed; 2. that rate with the other seeds.
    seconds, rates, first = [], args.learning_rates or [training_args.learning_rate], training_args.seed
    truth = {split: np.array(data[split]["labels"]) for split in ("validation", "test")}
    tried = {rate: train(first, rate) for rate in rates}
    scores = {f"{rate:g}": float(np.mean(tried[rate][1]["validation"] == truth["validation"])) for rate in rates}
    rate = max(rates, key=lambda rate: scores[f"{rate:g}"])
    runs = {first: tried[rate]} | {seed: train(seed, rate) for seed in range(first + 1, first + args.num_seeds)}
    metrics = report({seed: guesses for seed, (_, guesses) in runs.items()}, truth, names)
    trainer, test = runs[metrics["saved_seed"]][0], metrics["test"]
    metrics |= {"learning_rate": rate, "validation_accuracy_by_learning_rate": scores}
    metrics |= {"train_rows": len(trainer.train_dataset), "rows_cut_at_max_length": rows_cut}
    for name, only in (("parameters", False), ("trainable_parameters", True)):
        metrics[name] = trainer.model.num_parameters(only_trainable=only)
    if args.baselines:
        rows["train"] = rows["train"].select(few_labels(rows["train"], args.train_rows, first))
        metrics["baselines"] = classification_baselines(rows)
    found = (
        f"{test['accuracy']:.1%} of test rows right (95 %: {test['accuracy_low']:.1%} to {test['accuracy_high']:.1%})"
    )
    finish(
        trainer,
        title=f"Classifier: {', '.join(names[:5])}",
        summary=f"{model_args.model_name_or_path} fine-tuned on {args.source}: {found}, mean of {len(runs)} seed(s).",
        pipeline_tag="text-classification",
        config=settings,
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        metrics=metrics,
        seconds={"total": time.perf_counter() - start, "train": sum(seconds)},
        base_model=model_args.model_name_or_path,
        datasets=[describe(args.source)],
    )
    ready = training_args.output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
    done(
        f"a classifier: {found}", ready, f'python recipes/bert/predict.py --model_name_or_path {ready} --text "A gem."'
    )


if __name__ == "__main__":
    recipe(main)
