"""Fine-tune a decoder on dialogues (SFT): the loss is on the assistant's turns only.

Makes a plain transformers directory (or a LoRA adapter) with its chat template, and says how much better it predicts
what the assistant says in dialogues it has not seen, and if it has forgotten how other text goes on.
"""

import time
from dataclasses import asdict, dataclass, field
from itertools import islice

from lm_recipes.launch import done, parse, recipe


@dataclass
class SftRecipe:
    """Which dialogues, and what is left behind."""

    source: str = field(default="demo:doctor-patient", metadata={"help": "Demo set, file, folder or Hub id."})
    messages_column: str = field(default="messages", metadata={"help": "Column with lists of {role, content}."})
    prompt_column: str | None = field(default=None, metadata={"help": "Instead, of a CSV file: the user's turn ..."})
    answer_column: str | None = field(default=None, metadata={"help": "... and the assistant's answer to it."})
    group_column: str | None = field(default=None, metadata={"help": "Rows alike in it share a split (one document)."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of dialogues, by hash."})
    test_share: float = field(default=0.1, metadata={"help": "Share of dialogues, by hash."})
    train_rows: int | None = field(default=None, metadata={"help": "Learn from so many, others for each seed."})
    eval_dialogues: int | None = field(default=200, metadata={"help": "Test dialogues to measure with, by hash."})
    general: str | None = field(default=None, metadata={"help": "Texts on which forgetting is measured, if given."})
    general_documents: int = field(default=64, metadata={"help": "How many held-out ones of them."})
    merge_adapter: bool = field(default=False, metadata={"help": "Write adapter + base to OUTPUT_DIR/merged."})


def main() -> None:
    from trl import SFTConfig

    from lm_recipes.training.adapters import AdapterArguments

    args, model_args, training_args = parse(SftRecipe, AdapterArguments, SFTConfig, description=__doc__)

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed

    from lm_recipes import alignment
    from lm_recipes.alignment.trainer import DialogueTrainer
    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.dialogues import before_and_after, held_out, in_words
    from lm_recipes.evaluation.few_shot import answering, kinds_of_answers
    from lm_recipes.evaluation.forgetting import change, text_bits_per_byte
    from lm_recipes.models.heads import parameter_counts
    from lm_recipes.models.loading import load_tokenizer, loading
    from lm_recipes.models.packed import packed_products
    from lm_recipes.sources import describe
    from lm_recipes.sources.split_texts import split_texts
    from lm_recipes.training import adapters, finetuning, preflight
    from lm_recipes.training.callbacks import guards
    from lm_recipes.training.finish import changed_settings, finish

    start = time.perf_counter()
    base = finetuning.base_model(model_args.model_name_or_path, training_args)
    tokenizer = load_tokenizer(base, training_args.max_length, model_args.model_revision)
    adapters.add_tokens(tokenizer, model_args)
    alignment.prepare_tokenizer(tokenizer, training_args.chat_template_path)
    training_args.chat_template_path = None  # the tokenizer has it now, and its end-of-turn token
    training_args.eos_token = tokenizer.eos_token
    training_args.logging_nan_inf_filter = False  # it would hide a non-finite loss

    # dialogues, cut between exchanges into windows that fit, as ids and labels: TRL packs them and truncates nothing
    columns = {name: getattr(args, name) for name in ("prompt_column", "answer_column", "group_column")}
    shares = {"validation": args.validation_share, "test": args.test_share}
    columns |= {"column": args.messages_column, "control_tokens": alignment.control_tokens(tokenizer)}
    dialogues = alignment.load_dialogues(args.source, **columns, **shares)
    dialogues["train"] = alignment.few_dialogues(dialogues["train"], args.train_rows, training_args.seed)
    dialogues["test"] = alignment.some_dialogues(dialogues["test"], args.eval_dialogues)
    windows, counts = alignment.fit_dialogues(dialogues, tokenizer, training_args.max_length)
    rows = {name: [alignment.encode(tokenizer, one) for one in windows[name]] for name in ("train", "validation")}
    settings = asdict(args) | changed_settings(model_args)
    shaping = {"max_length": training_args.max_length, "packing": training_args.packing, "weights": fingerprint(base)}
    identity = preflight.identity_of(training_args, **settings, **shaping, **counts)
    checkpoint = preflight.prepare_output_dir(training_args, identity)
    general = list(islice(split_texts(args.general, "test", **shares), args.general_documents)) if args.general else []

    kinds = kinds_of_answers(windows["train"])  # yes and no, say: then it also counts which of them is right

    def measured(model) -> tuple[dict, float | None]:
        with packed_products(model):
            found = held_out(model, tokenizer, windows["test"])
            if kinds:
                found |= answering(model, tokenizer, windows["test"], kinds)
            length = training_args.max_length
            return found, text_bits_per_byte(model, tokenizer, general, length) if general else None

    set_seed(training_args.seed)
    with loading(base):
        model = AutoModelForCausalLM.from_pretrained(base, **finetuning.loading_options(model_args))
    if not getattr(model, "is_quantized", False):
        model.to(training_args.device)
    adapters.embed_tokens(model, tokenizer, model_args)
    preflight.check_vocabulary(tokenizer, model)
    before, general_before = measured(model)

    trainer = DialogueTrainer(
        model=adapters.with_adapter(model, model_args, "CAUSAL_LM", tokenizer, packed=training_args.packing),
        args=training_args,
        train_dataset=Dataset.from_list(rows["train"]),
        eval_dataset=Dataset.from_list(rows["validation"]),
        processing_class=tokenizer,
        callbacks=guards(),
    )
    preflight.check_batch(trainer.data_collator([trainer.train_dataset[0]]), tokenizer)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    tuned = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    after, general_after = measured(tuned)

    metrics = {
        **before_and_after(before, after),
        **({"general": change(general_before, general_after)} if general else {}),
        **counts,
        "train_tokens_with_a_label": sum(label != -100 for row in rows["train"] for label in row["labels"]),
        **parameter_counts(trainer.model),
    }
    found = in_words(metrics)
    finish(
        trainer, title="Chat model", pipeline_tag="text-generation", metrics=metrics,
        summary=f"{model_args.model_name_or_path} fine-tuned on the dialogues of {args.source}: {found}.",
        config=settings | {"max_length": training_args.max_length, "assistant_only_loss": True},
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        base_model=model_args.model_name_or_path, datasets=[describe(args.source)],
        limits="It imitates the dialogues it was tuned on; it does not know whether what it says is true.",
    )  # fmt: skip
    ready = training_args.output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
    done(
        f"a chat model: {found}",
        ready,
        f'python recipes/gpt/generate.py --model_name_or_path {ready} --chat --prompt "Hello, can you help me?"',
    )


if __name__ == "__main__":
    recipe(main)
