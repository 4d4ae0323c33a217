"""Pretrain a BERT: masked (or, for XLNet, permutation) language modelling on blocks, documents kept apart.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForMaskedLM` loads.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.models import ENCODERS


@dataclass
class PretrainRecipe:
    """Which data, which tokenizer, which model, which masks."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(metadata={"help": "The tokenizer the data was packed with."})
    family: str = field(default="modernbert", metadata={"help": f"Architecture: {', '.join(ENCODERS)}."})
    size: str = field(default="1M", metadata={"help": "1M, 3M, 10M, 30M, 124M, 350M, 1B, or WIDTHxLAYERS."})
    mlm_probability: float = field(default=0.3, metadata={"help": "Share of tokens masked in training."})
    mlm_probability_end: float | None = field(
        default=None, metadata={"help": "Share at the end of the run, reached in a straight line; default: constant."}
    )
    masking: Literal["token", "whole_word", "span", "ngram"] = field(
        default="token", metadata={"help": "What is masked together."}
    )
    exact_masks: bool = field(default=False, metadata={"help": "As many masked tokens in every row: static shapes."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "Settings of the model's configuration: name=value,name=value."}
    )
    initial_embeddings: Literal["random", "cooccurrence"] = field(
        default="random",
        metadata={"help": "cooccurrence: by what stands near what; seconds that save minutes."},
    )
    attn_implementation: str = field(default="sdpa", metadata={"help": "sdpa, or eager, for short blocks on a CPU."})
    stream: str | None = field(
        default=None,
        metadata={
            "help": "Train on text read from here as it goes (folder, glob, s3://, hf://datasets/...) instead of the "
            "packed train split; needs --max_steps."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of --stream that holds the text."})
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(PretrainRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.language_baselines import unigram_accuracy
    from lm_recipes.models import count_parameters, encoder_config, isolation_of, new_model, override
    from lm_recipes.models.cooccurrence import embed_by_cooccurrence
    from lm_recipes.objectives import MaskedLanguageModeling, PermutationLanguageModeling, StreamedBlocks, read_packed
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
    config = encoder_config(args.size, tokenizer, corpus.block_size, args.family)
    override(config, args.config_overrides)
    model = new_model(config, args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    asked = {
        "mlm_probability": args.mlm_probability,
        "mlm_probability_end": args.mlm_probability_end,
        "masking": args.masking,
        "exact": args.exact_masks,
    }
    if args.family == "xlnet":
        if args.masking != "token" or args.mlm_probability_end or args.exact_masks:
            raise UserError("--family xlnet: permutation LM has no masks; leave the flags for them out")
        collator = PermutationLanguageModeling(tokenizer, seed=training_args.seed)
        fixed_masks = PermutationLanguageModeling(tokenizer, seed=training_args.seed)
    else:
        isolation = isolation_of(model.config, model.config._attn_implementation)
        masks = {"tokenizer": tokenizer, "isolation": isolation, "seed": training_args.seed}
        collator = MaskedLanguageModeling(**masks, **asked)
        fixed_masks = MaskedLanguageModeling(**masks, mlm_probability=0.15)  # comparable whatever training masks
    train, more = corpus.train, {name: getattr(args, name) for name in ("config_overrides", "initial_embeddings")}
    if args.stream:
        training_args.train_sampling_strategy = "sequential"  # the stream has an order of its own
        train = StreamedBlocks.for_run(
            args.stream, tokenizer, corpus.block_size, training_args, args.text_column, collator
        )
        more |= {"stream": train.fingerprint, "stream_readers": train.readers}
    identity = preflight.identity_of(
        training_args, family=args.family, size=args.size, **asked, **more, data=fingerprint(args.data)
    )
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    if args.initial_embeddings == "cooccurrence" and not checkpoint:
        embed_by_cooccurrence(model, corpus.train, causal=False, seed=training_args.seed)

    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=fixed_masks,
        processing_class=tokenizer,
    )
    preflight.doctor(trainer, tokenizer, None if args.stream else corpus.counts)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    test = trainer.evaluate(corpus.test, metric_key_prefix="test")

    metrics = {
        "test_masked_accuracy": test["test_accuracy"],
        "test_nats_per_masked_token": test["test_nats_per_token"],
        "test_unigram_accuracy": unigram_accuracy(corpus.train, corpus.test, tokenizer.all_special_ids),
        "train_tokens": trainer.state.global_step * trainer.rows_per_step * corpus.block_size,
    }
    finish(
        trainer,
        title=f"BERT {args.size}",
        summary="An encoder trained with masked language modelling; "
        f"it fills {test['test_accuracy']:.1%} of 15 % masked tokens right.",
        pipeline_tag="fill-mask",
        config=asdict(args),
        inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
        metrics=metrics | count_parameters(model) | (trainer.energy.measured if trainer.energy else {}),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(args.stream or corpus.source)],
    )
    done(
        f"a BERT of {model.num_parameters():,} parameters: {test['test_accuracy']:.1%} of masked tokens right on test",
        training_args.output_dir,
        f"python recipes/bert/classify.py --model_name_or_path {training_args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
