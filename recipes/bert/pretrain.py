"""Pretrain a BERT: masked language modelling on packed blocks, documents kept apart.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForMaskedLM` loads.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class PretrainRecipe:
    """Which data, which tokenizer, which model, which masks."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(metadata={"help": "The tokenizer the data was packed with."})
    size: str = field(default="1M", metadata={"help": "Size dial: 1M, 3M, 10M, 30M, 124M, 350M or 1B."})
    mlm_probability: float = field(default=0.3, metadata={"help": "Share of tokens masked in training."})
    whole_word: bool = field(default=False, metadata={"help": "Mask all tokens of a word together."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "sdpa, eager (faster for short blocks on a CPU), flash_attention_2, ..."}
    )
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(PretrainRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoModelForMaskedLM, AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.language_baselines import unigram_accuracy
    from lm_recipes.models import count_parameters, encoder_config, isolation_of
    from lm_recipes.objectives import MaskedLanguageModeling, read_packed
    from lm_recipes.sources import describe
    from lm_recipes.training import preflight
    from lm_recipes.training.finish import finish
    from lm_recipes.training.hub import refuse_push_without_login
    from lm_recipes.training.trainer import LanguageModelTrainer

    start = time.perf_counter()
    refuse_push_without_login(training_args)
    corpus = read_packed(args.data)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name_or_path)
    preflight.check_packed_with(corpus, tokenizer)

    set_seed(training_args.seed)
    config = encoder_config(args.size, tokenizer, corpus.block_size)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation=args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    masks = {
        "tokenizer": tokenizer,
        "isolation": isolation_of(config, args.attn_implementation),
        "seed": training_args.seed,
    }
    collator = MaskedLanguageModeling(**masks, mlm_probability=args.mlm_probability, whole_word=args.whole_word)
    fixed_masks = MaskedLanguageModeling(**masks, mlm_probability=0.15)  # comparable whatever training masks
    preflight.check_batch(collator([corpus.train[0]]), tokenizer)
    identity = preflight.identity_of(
        training_args,
        size=args.size,
        data=fingerprint(args.data),
        mlm_probability=args.mlm_probability,
        whole_word=args.whole_word,
    )
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=corpus.train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=fixed_masks,
        processing_class=tokenizer,
    )
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
        metrics=metrics | count_parameters(model),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(corpus.source)],
    )
    done(
        f"a BERT of {model.num_parameters():,} parameters: {test['test_accuracy']:.1%} of masked tokens right on test",
        training_args.output_dir,
        f"python recipes/bert/classify.py --model_name_or_path {training_args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
