"""Continue the pretraining of any decoder on a domain's texts, with general text replayed, and measure what it forgets.

Makes a plain transformers directory; says how much better it predicts held-out text of the domain, and how much worse
(or not) general text.
"""

import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from lm_recipes.launch import done, is_main_process, parse, recipe

SPLITS = ("train", "validation", "test")


@dataclass
class AdaptRecipe:
    """Which model, whose texts, and how much of what it knew is shown again."""

    model_name_or_path: str = field(metadata={"help": "The decoder: a directory, demo:smollm2 or a Hub id."})
    domain: str = field(
        default="demo:medical-abstracts", metadata={"help": "Texts to learn: demo set, files, corpus, Hub id."}
    )
    general: str = field(default="demo:wiki-topics", metadata={"help": "Texts to replay, and to measure with."})
    replay_share: float = field(default=0.2, metadata={"help": "Share of general blocks in training."})
    text_column: str = field(default="text", metadata={"help": "Column with the text, in both."})
    block_size: int = field(default=512, metadata={"help": "Tokens per block; longer texts are cut into pieces."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of texts, by hash; not of a corpus."})
    test_share: float = field(default=0.1, metadata={"help": "Share of texts, by hash; not of a corpus."})
    eval_documents: int | None = field(default=200, metadata={"help": "Test texts to measure with, of each."})
    attn_implementation: str = field(default="sdpa", metadata={"help": "sdpa or eager."})


def main() -> None:
    from lm_recipes.training.adaptation import AdaptationArguments

    args, training_args = parse(AdaptRecipe, AdaptationArguments, description=__doc__)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from lm_recipes.artifacts import fingerprint, read_json, write_json
    from lm_recipes.evaluation.forgetting import change, text_bits_per_byte
    from lm_recipes.models import count_parameters
    from lm_recipes.models.loading import loading
    from lm_recipes.models.packed import packed_products
    from lm_recipes.objectives import CausalLanguageModeling
    from lm_recipes.objectives.packed import PackedSplit
    from lm_recipes.objectives.replay import check_kept_apart, document_packer, pack_splits, with_replay
    from lm_recipes.sources import describe
    from lm_recipes.sources.split_texts import split_texts
    from lm_recipes.training import finetuning, preflight
    from lm_recipes.training.finish import finish
    from lm_recipes.training.trainer import LanguageModelTrainer

    start = time.perf_counter()
    base = finetuning.base_model(args.model_name_or_path, training_args)
    with loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base)

    # texts, cut by the model's own tokenizer: blocks of the domain, and general ones behind them
    def texts(source: str, split: str):
        shares = {"validation": args.validation_share, "test": args.test_share}
        return split_texts(source, split, text_column=args.text_column, **shares)

    packer = document_packer(tokenizer, args.block_size)
    sources = {"domain": args.domain, "general": args.general}
    directory = Path(training_args.output_dir, ".blocks")
    with training_args.main_process_first(local=False, desc="packing"):
        if is_main_process():
            counts = {
                name: pack_splits(
                    {split: texts(source, split) for split in SPLITS}, tokenizer, packer, directory / name
                )
                for name, source in sources.items()
            }
            write_json(directory / "counts.json", counts)
    counts = read_json(directory / "counts.json", "packed texts")
    domain, general = (PackedSplit.open(directory / name / "train") for name in sources)
    mixed = with_replay(domain, general, args.replay_share, training_args.seed)

    identity = preflight.identity_of(
        training_args, replay_share=args.replay_share, texts=fingerprint(directory), weights=fingerprint(base)
    )
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    set_seed(training_args.seed)
    with loading(base):
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, attn_implementation=args.attn_implementation
        )
    model.to(training_args.device)
    collator = CausalLanguageModeling(packer.pad_token_id)
    check_kept_apart(model, collator)
    test = {name: list(islice(texts(source, "test"), args.eval_documents)) for name, source in sources.items()}

    def measured(model) -> dict[str, float]:
        with packed_products(model):
            return {name: text_bits_per_byte(model, tokenizer, test[name], args.block_size) for name in test}

    before = measured(model)
    validation = counts["domain"]["validation"]
    trainer = LanguageModelTrainer(
        model=model,
        args=training_args,
        train_dataset=mixed,
        eval_dataset=PackedSplit.open(directory / "domain" / "validation"),
        data_collator=collator,
        eval_collator=collator,
        processing_class=tokenizer,
        bytes_per_token=validation["text_bytes"] / validation["predicted_tokens"],
    )
    preflight.doctor(trainer, tokenizer, counts["domain"]["train"] | {"blocks": len(mixed)})
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    after = measured(trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False))

    found = {name: change(before[name], after[name]) for name in sources}
    said = "; ".join(
        f"{name} {one['bits_per_byte_before']:.3f} -> {one['bits_per_byte']:.3f}" for name, one in found.items()
    )
    finish(
        trainer,
        title="Language model of a domain",
        summary=f"{args.model_name_or_path}, trained on with {args.domain}. Bits per byte of held-out text: {said}.",
        pipeline_tag="text-generation",
        config=asdict(args),
        inputs={"model": args.model_name_or_path, **sources},
        metrics=found
        | {"domain_blocks": len(domain), "general_blocks": len(mixed) - len(domain)}
        | {"replay_share": 1 - len(domain) / len(mixed)}
        | {"train_tokens": trainer.state.global_step * trainer.rows_per_step * args.block_size}
        | count_parameters(model),
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        base_model=args.model_name_or_path,
        datasets=[describe(source) for source in sources.values()],
        limits="It predicts such texts better; whether what it says is true was not measured.",
    )
    done(
        f"a language model of {args.domain}; bits per byte: {said}",
        training_args.output_dir,
        f'python recipes/gpt/generate.py --model_name_or_path {training_args.output_dir} --prompt "The results"',
    )


if __name__ == "__main__":
    recipe(main)
