"""Pretrain an ELECTRA: a small generator fills masks, and the encoder says of every token whether it is the original.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForSequenceClassification`,
`AutoModelForPreTraining` and `AutoModel` load, and the generator in `generator/`, for `AutoModelForMaskedLM`.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from lm_recipes.launch import done, parse, recipe


@dataclass
class ElectraRecipe:
    """Which data, which tokenizer, which model, which masks."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(metadata={"help": "The tokenizer the data was packed with."})
    size: str = field(default="1M", metadata={"help": "Of the discriminator: 1M, 3M, 10M, 30M, 124M, 350M or 1B."})
    mlm_probability: float = field(
        default=0.15, metadata={"help": "Share of tokens the generator fills in training (0.25 for large models)."}
    )
    initial_embeddings: Literal["random", "cooccurrence"] = field(
        default="random",
        metadata={"help": "cooccurrence: by what stands near what; seconds that save minutes."},
    )
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "sdpa, or eager (faster for short blocks on a CPU)"}
    )
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(ElectraRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.models import count_parameters, encoder_config, isolation_of
    from lm_recipes.models.cooccurrence import embed_by_cooccurrence
    from lm_recipes.models.replaced_tokens import GeneratorAndDiscriminator
    from lm_recipes.objectives import read_packed
    from lm_recipes.objectives.replaced_tokens import ReplacedTokenDetection
    from lm_recipes.sources import describe
    from lm_recipes.training import preflight
    from lm_recipes.training.finish import finish
    from lm_recipes.training.hub import refuse_push_without_login
    from lm_recipes.training.replaced_tokens import ReplacedTokenTrainer

    start = time.perf_counter()
    refuse_push_without_login(training_args)
    preflight.check_arguments(training_args)
    corpus = read_packed(args.data)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name_or_path)
    preflight.check_packed_with(corpus, tokenizer)

    set_seed(training_args.seed)
    config = encoder_config(args.size, tokenizer, corpus.block_size, family="electra")
    model = GeneratorAndDiscriminator(config, tokenizer.all_special_ids, args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    # Every chosen token becomes the mask: as the discriminator never reads one, there is nothing to get used to.
    masks = {
        "tokenizer": tokenizer,
        "isolation": isolation_of(config, args.attn_implementation),
        "seed": training_args.seed,
        "mask_share": 1.0,
        "random_share": 0.0,
    }
    collator = ReplacedTokenDetection(**masks, mlm_probability=args.mlm_probability)
    fixed_masks = ReplacedTokenDetection(**masks, mlm_probability=0.15)  # comparable whatever training masks
    asked = {"mlm_probability": args.mlm_probability, "initial_embeddings": args.initial_embeddings}
    identity = preflight.identity_of(training_args, size=args.size, data=fingerprint(args.data), **asked)
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    if args.initial_embeddings == "cooccurrence" and not checkpoint:
        embed_by_cooccurrence(model, corpus.train, causal=False, seed=training_args.seed)

    trainer = ReplacedTokenTrainer(
        model=model,
        args=training_args,
        train_dataset=corpus.train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=fixed_masks,
        processing_class=tokenizer,
    )
    preflight.doctor(trainer, tokenizer, corpus.counts)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    test = trainer.evaluate(corpus.test, metric_key_prefix="test")

    metrics = {
        "test_auc": test["test_auc"],
        "test_replaced_accuracy": test["test_replaced_accuracy"],
        "test_original_accuracy": test["test_original_accuracy"],
        "test_generator_masked_accuracy": test["test_accuracy"],
        "test_generator_nats_per_masked_token": test["test_nats_per_token"],
        "train_tokens": trainer.state.global_step * trainer.rows_per_step * corpus.block_size,
        "generator_parameters": model.generator.num_parameters(),
    }
    finish(
        trainer,
        title=f"ELECTRA {args.size}",
        summary="An encoder trained to tell replaced tokens from original ones; of a replaced and an original token it "
        f"holds the right one for replaced in {test['test_auc']:.1%} of cases. Its generator is in `generator/`.",
        pipeline_tag="feature-extraction",
        config=asdict(args),
        inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
        metrics=metrics | count_parameters(model.discriminator),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(corpus.source)],
    )
    done(
        f"an ELECTRA of {model.discriminator.num_parameters():,} parameters: AUC {test['test_auc']:.3f} on test",
        training_args.output_dir,
        f"python recipes/bert/classify.py --model_name_or_path {training_args.output_dir}",
    )


if __name__ == "__main__":
    recipe(main)
