"""Pretrain a T5: span corruption on packed blocks, documents kept apart.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForSeq2SeqLM` loads.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class PretrainRecipe:
    """Which data, which tokenizer, which model, which spans."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(
        metadata={"help": "The tokenizer the data was packed with: unigram or bpe, with sentinels reserved."}
    )
    size: str = field(default="1M", metadata={"help": "Size dial: 1M, 3M, 10M, 30M, 124M, 350M or 1B."})
    noise_density: float = field(default=0.15, metadata={"help": "Share of tokens taken out in training."})
    mean_noise_span_length: float = field(default=3.0, metadata={"help": "Tokens per span on average, in training."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "sdpa, or eager (faster for short blocks on a CPU)"}
    )
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(PretrainRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.models import count_parameters, encoder_decoder_config, isolation_of, new_model
    from lm_recipes.objectives import read_packed
    from lm_recipes.objectives.span_corruption import SpanCorruption
    from lm_recipes.sources import describe
    from lm_recipes.training import preflight
    from lm_recipes.training.finish import finish
    from lm_recipes.training.hub import refuse_push_without_login
    from lm_recipes.training.trainer import LanguageModelTrainer

    start = time.perf_counter()
    refuse_push_without_login(training_args)
    preflight.check_arguments(training_args)
    corpus = read_packed(args.data)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name_or_path)
    preflight.check_packed_with(corpus, tokenizer)

    set_seed(training_args.seed)
    config = encoder_decoder_config(args.size, tokenizer, corpus.block_size)
    model = new_model(config, args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    spans = {
        "tokenizer": tokenizer,
        "block_size": corpus.block_size,
        "isolation": isolation_of(config, args.attn_implementation),
        "seed": training_args.seed,
    }
    rates = {"noise_density": args.noise_density, "mean_noise_span_length": args.mean_noise_span_length}
    collator = SpanCorruption(**spans, **rates)
    fixed_spans = SpanCorruption(**spans)  # T5's rates, comparable whatever training takes out
    identity = preflight.identity_of(training_args, size=args.size, data=fingerprint(args.data), **rates)
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=corpus.train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=fixed_spans,
        processing_class=tokenizer,
    )
    preflight.doctor(trainer, tokenizer, corpus.counts)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    test = trainer.evaluate(corpus.test, metric_key_prefix="test")

    metrics = {
        "test_target_accuracy": test["test_accuracy"],
        "test_nats_per_target_token": test["test_nats_per_token"],
        "train_tokens": trainer.state.global_step * trainer.rows_per_step * corpus.block_size,
    }
    finish(
        trainer,
        title=f"T5 {args.size}",
        summary="An encoder-decoder trained with span corruption; it writes what stood in the gaps of a text, "
        f"{test['test_nats_per_token']:.3f} nats per token of that.",
        pipeline_tag="text2text-generation",
        config=asdict(args),
        inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
        metrics=metrics | count_parameters(model) | (trainer.energy.measured if trainer.energy else {}),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(corpus.source)],
    )
    done(
        f"a T5 of {model.num_parameters():,} parameters: {test['test_nats_per_token']:.3f} nats per target token",
        training_args.output_dir,
        f"python recipes/t5/pretrain.py --data {args.data} --tokenizer_name_or_path {args.tokenizer_name_or_path} "
        "--size 10M --output_dir ...",
    )


if __name__ == "__main__":
    recipe(main)
