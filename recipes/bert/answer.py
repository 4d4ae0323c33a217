"""Fine-tune an encoder to answer questions with words of a text (extractive QA), and to say when it holds no answer.

Makes a plain transformers directory (or a LoRA adapter) with `answering.json`, how it is asked; its exact match and F1
on test with intervals, what counted words reach there, and its worst answers. Long texts are read in windows.
"""

import time
from dataclasses import asdict, dataclass, field
from functools import partial

from lm_recipes.launch import done, is_main_process, parse, recipe
from lm_recipes.sources.splits import SplitFlags
from lm_recipes.training.task_flags import TaskFlags


@dataclass
class AnswerRecipe(TaskFlags, SplitFlags):
    """Which questions, how they are split, and what is trained."""

    source: str = field(default="demo:disfl-qa", metadata={"help": "Demo set, SQuAD JSON, table, folder or Hub id."})
    question_column: str = field(default="question", metadata={"help": "Column with the question."})
    context_column: str = field(default="context", metadata={"help": "Column with the text that answers it, or not."})
    answers_column: str = field(default="answers", metadata={"help": "SQuAD's {text, answer_start}, or texts alone."})
    max_length: int = field(default=384, metadata={"help": "Tokens of a window: question and part of the context."})
    doc_stride: int = field(default=128, metadata={"help": "Context tokens that neighbouring windows share."})
    max_answer_length: int = field(default=30, metadata={"help": "Tokens of an answer, at most."})
    baselines: bool = field(default=True, metadata={"help": "Also measure a sliding window and no answer at all."})


def main() -> None:
    from lm_recipes.training.adapters import AdapterArguments
    from lm_recipes.training.finetuning import FineTuningArguments

    args, model_args, training_args = parse(AnswerRecipe, AdapterArguments, FineTuningArguments, description=__doc__)

    from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation import answer_scores as scores
    from lm_recipes.evaluation.answers import Answered, Asking, find_answers, save_asking, span_logits
    from lm_recipes.evaluation.question_baselines import answer_baselines
    from lm_recipes.models.heads import classifier_tokenizer, parameter_counts, with_head
    from lm_recipes.sources.questions import describe_questions, limits_of, load_questions
    from lm_recipes.tokenization.windows import cut_windows, prepare_tokenizer
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.answering import AnswerTrainer, answer_loss
    from lm_recipes.training.finish import changed_settings, finish

    start, output_dir = time.perf_counter(), training_args.output_dir
    encoder = finetuning.base_model(model_args.model_name_or_path, training_args)
    tokenizer = classifier_tokenizer(encoder, args.max_length, model_args.model_revision)
    prepare_tokenizer(tokenizer)
    adapters.add_tokens(tokenizer, model_args)
    questions, mended = load_questions(
        args.source, question_column=args.question_column, context_column=args.context_column,
        answers_column=args.answers_column, **args.division(),
        )  # fmt: skip
    windows, counts = cut_windows(questions, tokenizer, args.max_length, args.doc_stride)
    settings = asdict(args) | changed_settings(model_args)
    identity = preflight.identity_of(training_args, **settings, rows=windows.num_rows, weights=fingerprint(encoder))
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    training_args.label_names = ["labels"]  # first and last token in one; Trainer looks for two columns
    collator = DataCollatorWithPadding(tokenizer)
    seconds, rates = [], args.learning_rates or [training_args.learning_rate]

    def ask(trainer: AnswerTrainer, split: str, as_saved: bool) -> list[Answered]:
        """In the precision of the saved model, or, on the way, in that of the training, which goes on with it."""
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=not as_saved)
        batch_size = training_args.eval_batch_size
        logits = span_logits(model, windows[split], collator, batch_size, trainer.accelerator)
        return find_answers(logits, windows[split], questions[split]["context"][:], args.max_answer_length)

    def train(seed: int, rate: float) -> tuple[float, AnswerTrainer, dict[str, list[Answered]]]:
        model = with_head(
            AutoModelForQuestionAnswering, encoder, seed=seed, from_scratch=args.from_scratch,
            freeze_encoder=args.freeze_encoder, **finetuning.loading_options(model_args),
        )  # fmt: skip
        own_args = finetuning.for_seed(training_args, seed, args.num_seeds + len(rates) - 1)
        own_args.learning_rate = rate
        trainer = AnswerTrainer(
            # not peft's QUESTION_ANS: that class keeps token_type_ids from the model
            model=adapters.with_adapter(model, model_args, None, tokenizer),
            args=own_args,
            train_dataset=windows["train"],
            eval_dataset=windows["validation"],
            data_collator=collator,
            processing_class=tokenizer,
            compute_loss_func=partial(answer_loss, label_smoothing=own_args.label_smoothing_factor),
            score=lambda trainer: scores.best_scores(ask(trainer, "validation", False), questions["validation"]),
            callbacks=finetuning.watchers(own_args),
        )
        seconds.append(finetuning.fit(trainer, output_dir, checkpoint))
        found = {split: ask(trainer, split, True) for split in ("validation", "test")}
        return scores.best_scores(found["validation"], questions["validation"])["f1"], trainer, found

    # 1. The learning rate, on validation and with the first seed; 2. that rate with the other seeds.
    seeds = [training_args.seed + number for number in range(args.num_seeds)]
    rate, tried, runs = finetuning.best_rate(train, rates, seeds)
    metrics = scores.report({seed: run[2] for seed, run in runs.items()}, questions)
    trainer = runs[metrics["saved_seed"]][1]
    metrics |= {"learning_rate": rate, "validation_f1_by_learning_rate": tried}
    metrics |= {"train_questions": len(questions["train"])} | counts | mended | parameter_counts(trainer.model)
    if args.baselines:
        metrics["baselines"] = answer_baselines(questions)
    asking = Asking(args.max_length, args.doc_stride, args.max_answer_length, metrics["null_score_diff_threshold"])
    found = scores.in_words(metrics)
    if is_main_process():
        save_asking(output_dir, asking)
    finish(
        trainer, title="Answers questions with words of a text", pipeline_tag="question-answering", config=settings,
        summary=f"{model_args.model_name_or_path} fine-tuned on {args.source}, {len(runs)} seed(s): {found}.",
        inputs={"model": model_args.model_name_or_path, "data": args.source}, metrics=metrics,
        seconds={"total": time.perf_counter() - start, "train": sum(seconds)},
        base_model=model_args.model_name_or_path, datasets=[describe_questions(args.source)],
        limits=limits_of(args.source),
    )  # fmt: skip
    ready = output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
        if is_main_process():
            save_asking(ready, asking)
    example = '--question "Who wrote it?" --context "Ada Lovelace wrote the first program."'
    done(f"a model that answers: {found}", ready, f"python recipes/bert/ask.py --model_name_or_path {ready} {example}")


if __name__ == "__main__":
    recipe(main)
