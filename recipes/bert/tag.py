"""Fine-tune an encoder or a decoder to tag words: named entities, parts of speech, one tag a word.

Makes a plain transformers directory (or a LoRA adapter) that `pipeline("token-classification")` loads, with its test
score (F1 of whole entities, or accuracy of words), an interval, and what the usual tag of each word reaches.
"""

import time
from dataclasses import asdict, dataclass, field
from functools import partial

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.sources.splits import SplitFlags
from lm_recipes.training.task_flags import TaskFlags


@dataclass
class TagRecipe(TaskFlags, SplitFlags):
    """Which sentences, how they are split, and what is trained."""

    source: str = field(default="demo:tweet-ner", metadata={"help": "Demo set, table, CoNLL file or folder, Hub id."})
    tokens_column: str = field(default="tokens", metadata={"help": "Column with the list of words."})
    tags_column: str = field(default="tags", metadata={"help": "Column with the list of tags, of any type."})
    max_length: int = field(default=128, metadata={"help": "Tokens per row; words beyond are counted, and O."})
    label_all_tokens: bool = field(default=False, metadata={"help": "Train all tokens of a word, not its first only."})
    bidirectional: bool = field(default=False, metadata={"help": "Decoder: every token sees the whole sentence."})
    baselines: bool = field(default=True, metadata={"help": "Also measure the usual tag of each word."})


def main() -> None:
    from lm_recipes.training.adapters import AdapterArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    args, model_args, training_args = parse(TagRecipe, AdapterArguments, FineTuningArguments, description=__doc__)

    import numpy as np
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation import tagging
    from lm_recipes.evaluation.metrics import class_ids
    from lm_recipes.models.heads import classifier_tokenizer, parameter_counts, with_head
    from lm_recipes.sources.tagged import describe_tagged, load_tagged
    from lm_recipes.text.near_copies import without_near_copies
    from lm_recipes.tokenization.word_labels import continuations, label_words
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.finish import changed_settings, finish
    from lm_recipes.training.optimizer import FineTuningTrainer
    from lm_recipes.training.tagging import tagging_loss

    start, output_dir = time.perf_counter(), training_args.output_dir
    if args.bidirectional and model_args.use_peft:
        raise UserError("--bidirectional is kept in the model's config, which an adapter has none of; drop --use_peft")
    encoder = finetuning.base_model(model_args.model_name_or_path, training_args)
    tokenizer = classifier_tokenizer(encoder, args.max_length, model_args.model_revision)
    adapters.add_tokens(tokenizer, model_args)
    if not tokenizer.is_fast:
        raise UserError(f"{encoder}: its tokenizer cannot say which token belongs to which word; take another model")
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # places of words count from the left
    rows, names, rewritten = load_tagged(
        args.source, tokens_column=args.tokens_column, tags_column=args.tags_column,
        **args.division(),
    )  # fmt: skip
    rows["train"], left_out = without_near_copies(rows, args.made(), ["tokens"])
    continued = continuations(names) if args.label_all_tokens else None
    data, lost = label_words(rows, tokenizer, args.max_length, continued)
    settings = asdict(args) | changed_settings(model_args)
    identity = preflight.identity_of(training_args, **settings, rows=rows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    truth = {split: [np.array(tags) for tags in rows[split]["tags"]] for split in ("validation", "test")}
    seconds, rates, main_score = [], args.learning_rates or [training_args.learning_rate], tagging.main_score(names)

    def train(seed: int, rate: float) -> tuple[float, FineTuningTrainer, dict[str, list[np.ndarray]]]:
        model = with_head(
            AutoModelForTokenClassification, encoder, names, seed=seed, from_scratch=args.from_scratch,
            freeze_encoder=args.freeze_encoder, bidirectional=args.bidirectional,
            **finetuning.loading_options(model_args),
        )  # fmt: skip
        own_args = finetuning.for_seed(training_args, seed, args.num_seeds + len(rates) - 1)
        own_args.learning_rate = rate
        own_args.batch_eval_metrics = True  # sums of the validation split's batches, not its tags
        trainer = FineTuningTrainer(
            model=adapters.with_adapter(model, model_args, "TOKEN_CLS", tokenizer),
            args=own_args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
            compute_loss_func=partial(tagging_loss, label_smoothing=own_args.label_smoothing_factor),
            compute_metrics=tagging.trainer_metrics(names),
            preprocess_logits_for_metrics=class_ids,
            callbacks=finetuning.watchers(own_args),
        )
        seconds.append(finetuning.fit(trainer, output_dir, checkpoint))
        guesses = {split: tagging.predict(trainer, data[split]) for split in truth}
        return tagging.scores(guesses["validation"], truth["validation"], names)[main_score], trainer, guesses

    # 1. The learning rate, on validation and with the first seed; 2. that rate with the other seeds.
    seeds = [training_args.seed + number for number in range(args.num_seeds)]
    rate, tried, runs = finetuning.best_rate(train, rates, seeds)
    guesses = {seed: run[2] for seed, run in runs.items()}
    metrics = tagging.report(guesses, truth, names, tagging.unknown_words(rows))
    trainer = runs[metrics["saved_seed"]][1]
    metrics |= {"learning_rate": rate, f"validation_{main_score}_by_learning_rate": tried}
    metrics |= {"train_rows": len(data["train"]), "near_copies_left_out": left_out}
    metrics |= {"tags_rewritten_as_iob2": rewritten} | lost
    metrics |= parameter_counts(trainer.model)
    if args.baselines:
        metrics["baselines"] = tagging.tagging_baseline(rows, names)
    found = tagging.in_words(metrics["test"], names)
    finish(
        trainer,
        title=f"Tagger: {', '.join(row['name'] for row in metrics['per_class'][:5])}",
        summary=f"{model_args.model_name_or_path} fine-tuned on {args.source}: {found}, mean of {len(runs)} seed(s).",
        pipeline_tag="token-classification",
        config=settings,
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        metrics=metrics,
        seconds={"total": time.perf_counter() - start, "train": sum(seconds)},
        base_model=model_args.model_name_or_path,
        datasets=[describe_tagged(args.source, args.train_split)],
    )
    ready = output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
    predict = f"python recipes/bert/predict.py --task token-classification --model_name_or_path {ready}"
    done(f"a tagger: {found}", ready, f'{predict} --text "Ada Lovelace met Babbage in London."')


if __name__ == "__main__":
    recipe(main)
