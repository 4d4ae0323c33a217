"""Pretrain a GPT: causal language modelling on packed blocks, documents kept apart.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForCausalLM` loads.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import done, parse, recipe


@dataclass
class PretrainRecipe:
    """Which data, which tokenizer, which model."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(metadata={"help": "The tokenizer the data was packed with."})
    size: str = field(default="1M", metadata={"help": "Size dial: 1M, 3M, 10M, 30M, 124M, 350M or 1B."})
    attn_implementation: str = field(
        default="sdpa", metadata={"help": "sdpa, eager (faster for short blocks on a CPU), flash_attention_2, ..."}
    )
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(PretrainRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.language_baselines import ngram_bits_per_byte
    from lm_recipes.models import count_parameters, decoder_config
    from lm_recipes.objectives import CausalLanguageModeling, read_packed
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
    config = decoder_config(args.size, tokenizer, corpus.block_size)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    collator = CausalLanguageModeling(tokenizer.pad_token_id)
    preflight.check_batch(collator([corpus.train[0]]), tokenizer)
    identity = preflight.identity_of(training_args, size=args.size, data=fingerprint(args.data))
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=corpus.train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=collator,
        processing_class=tokenizer,
        bytes_per_token=corpus.bytes_per_token["validation"],
    )
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.bytes_per_token = corpus.bytes_per_token["test"]
    test = trainer.evaluate(corpus.test, metric_key_prefix="test")

    metrics = {
        "test_bits_per_byte": test["test_bits_per_byte"],
        "test_nats_per_token": test["test_nats_per_token"],
        **ngram_bits_per_byte(corpus, len(tokenizer), tokenizer.pad_token_id),
        "train_tokens": trainer.state.global_step * trainer.rows_per_step * corpus.block_size,
    }
    finish(
        trainer,
        title=f"GPT {args.size}",
        summary=f"A decoder trained with causal language modelling; {test['test_bits_per_byte']:.3f} bits per byte.",
        pipeline_tag="text-generation",
        config=asdict(args),
        inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
        metrics=metrics | count_parameters(model),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(corpus.source)],
    )
    done(
        f"a GPT of {model.num_parameters():,} parameters: {test['test_bits_per_byte']:.3f} bits per byte on test",
        training_args.output_dir,
        f'python recipes/gpt/generate.py --model_name_or_path {training_args.output_dir} --prompt "The history of"',
    )


if __name__ == "__main__":
    recipe(main)
