"""Pretrain a GPT: causal language modelling (or prefix, fill-in-the-middle, hybrid) on blocks, documents kept apart.

Makes a plain transformers directory (model, tokenizer, card, results.json) that `AutoModelForCausalLM` loads.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from lm_recipes.launch import done, parse, recipe
from lm_recipes.models import DECODERS


@dataclass
class PretrainRecipe:
    """Which data, which tokenizer, which model."""

    data: str = field(metadata={"help": "Packed directory made by recipes/corpus/pack.py."})
    tokenizer_name_or_path: str = field(metadata={"help": "The tokenizer the data was packed with."})
    objective: Literal["clm", "prefix", "fim", "hybrid"] = field(
        default="clm", metadata={"help": "What is asked; evaluation is always plain CLM. docs/objectives.md"}
    )
    fim_rate: float = field(default=0.5, metadata={"help": "fim: share of documents whose middle goes to the end."})
    masked_share: float = field(default=0.75, metadata={"help": "hybrid: share of rows that are masked."})
    mlm_probability: float = field(default=0.3, metadata={"help": "hybrid: share of tokens hidden in masked rows."})
    family: str = field(default="nanochat", metadata={"help": f"Architecture: {', '.join(DECODERS)}."})
    size: str = field(default="1M", metadata={"help": "1M, 3M, 10M, 30M, 124M, 350M, 1B, or WIDTHxLAYERS."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "Settings of the model's configuration: name=value,name=value."}
    )
    initial_embeddings: Literal["random", "cooccurrence"] = field(
        default="random",
        metadata={"help": "cooccurrence: by what stands near what; seconds that save minutes."},
    )
    attn_implementation: str = field(default="sdpa", metadata={"help": "sdpa, eager (short blocks on a CPU), ..."})
    stream: str | None = field(
        default=None,
        metadata={
            "help": "Train on text read from here as it goes (folder, glob, s3://, hf://datasets/...) instead of the "
            "packed train split; needs --max_steps."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of --stream that holds the text."})
    eval_blocks: int | None = field(default=None, metadata={"help": "Validation blocks per evaluation; default: all."})


def objective(args: PretrainRecipe, tokenizer, config, seed: int):
    """The collator that turns blocks into questions."""
    from lm_recipes import objectives
    from lm_recipes.models import isolation_of

    if args.objective == "clm":
        return objectives.CausalLanguageModeling(tokenizer.pad_token_id)
    if args.objective == "fim":
        return objectives.FillInTheMiddle(tokenizer, args.fim_rate, seed=seed)
    isolation = isolation_of(config, args.attn_implementation)
    if args.objective == "prefix":
        return objectives.PrefixLanguageModeling(tokenizer.pad_token_id, isolation, seed=seed)
    masked = objectives.MaskedLanguageModeling(tokenizer, args.mlm_probability, isolation=isolation, seed=seed)
    return objectives.HybridLanguageModeling(masked, args.masked_share)


def main() -> None:
    from lm_recipes.training.arguments import PretrainingArguments

    args, training_args = parse(PretrainRecipe, PretrainingArguments, description=__doc__)

    from transformers import AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.language_baselines import ngram_bits_per_byte
    from lm_recipes.models import count_parameters, decoder_config, new_model, override
    from lm_recipes.models.cooccurrence import embed_by_cooccurrence
    from lm_recipes.objectives import CausalLanguageModeling, StreamedBlocks, read_packed
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
    config = decoder_config(args.size, tokenizer, corpus.block_size, args.family)
    override(config, args.config_overrides)
    model = new_model(config, args.attn_implementation)
    preflight.check_vocabulary(tokenizer, model)

    collator = objective(args, tokenizer, config, training_args.seed)
    shaping = "family size objective fim_rate masked_share mlm_probability config_overrides initial_embeddings"
    train, asked = corpus.train, {name: getattr(args, name) for name in shaping.split()}
    if args.stream:
        training_args.train_sampling_strategy = "sequential"  # the stream has an order of its own
        train = StreamedBlocks.for_run(
            args.stream, tokenizer, corpus.block_size, training_args, args.text_column, collator
        )
        asked |= {"stream": train.fingerprint, "stream_readers": train.readers}
    identity = preflight.identity_of(training_args, **asked, data=fingerprint(args.data))
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    if args.initial_embeddings == "cooccurrence" and not checkpoint:
        embed_by_cooccurrence(model, corpus.train, causal=True, seed=training_args.seed)

    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=corpus.validation.select(range(min(args.eval_blocks or 10**9, len(corpus.validation)))),
        data_collator=collator,
        eval_collator=CausalLanguageModeling(tokenizer.pad_token_id),
        processing_class=tokenizer,
        bytes_per_token=corpus.bytes_per_token["validation"],
    )
    preflight.doctor(trainer, tokenizer, None if args.stream else corpus.counts)
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
        metrics=metrics | count_parameters(model) | (trainer.energy.measured if trainer.energy else {}),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        datasets=[describe(args.stream or corpus.source)],
    )
    done(
        f"a GPT of {model.num_parameters():,} parameters: {test['test_bits_per_byte']:.3f} bits per byte on test",
        training_args.output_dir,
        f'python recipes/gpt/generate.py --model_name_or_path {training_args.output_dir} --prompt "The history of"',
    )


if __name__ == "__main__":
    recipe(main)
