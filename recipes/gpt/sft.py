"""Fine-tune a decoder on dialogues (SFT): the loss is on the assistant's turns only.

Makes a plain transformers directory (or a LoRA adapter) with its chat template, and says how much better it predicts
what the assistant says in dialogues it has not seen.
"""

import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class SftRecipe:
    """Which dialogues, and what is left behind."""

    source: str = field(default="demo:doctor-patient", metadata={"help": "Demo set, file, folder or Hub id."})
    messages_column: str = field(default="messages", metadata={"help": "Column with lists of {role, content}."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of dialogues, by hash."})
    test_share: float = field(default=0.1, metadata={"help": "Share of dialogues, by hash."})
    merge_adapter: bool = field(default=False, metadata={"help": "Write adapter + base to OUTPUT_DIR/merged."})


def main() -> None:
    from trl import ModelConfig, SFTConfig

    args, model_args, training_args = parse(SftRecipe, ModelConfig, SFTConfig, description=__doc__)

    from datasets import Dataset
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTTrainer, get_quantization_config

    from lm_recipes.alignment import fit_dialogues, load_dialogues, prepare_tokenizer
    from lm_recipes.artifacts import fingerprint
    from lm_recipes.evaluation.dialogues import held_out
    from lm_recipes.models.loading import load_tokenizer, loading
    from lm_recipes.sources import describe, resolve_model
    from lm_recipes.training import adapters, preflight
    from lm_recipes.training.callbacks import guards
    from lm_recipes.training.finish import changed_settings, finish
    from lm_recipes.training.hub import refuse_push_without_login

    start = time.perf_counter()
    refuse_push_without_login(training_args)
    preflight.check_arguments(training_args)
    if not model_args.model_name_or_path:
        raise UserError("--model_name_or_path: which decoder? A directory, a Hub id or demo:smollm2")
    base = resolve_model(model_args.model_name_or_path)
    tokenizer = load_tokenizer(base, training_args.max_length, model_args.model_revision)
    prepare_tokenizer(tokenizer, training_args.chat_template_path)
    training_args.chat_template_path = None  # the tokenizer has it now, and its end-of-turn token
    training_args.eos_token = tokenizer.eos_token
    training_args.assistant_only_loss = True
    training_args.logging_nan_inf_filter = False  # it would hide a non-finite loss

    dialogues = load_dialogues(
        args.source, column=args.messages_column, validation=args.validation_share, test=args.test_share
    )
    windows, counts = fit_dialogues(dialogues, tokenizer, training_args.max_length)
    settings = asdict(args) | changed_settings(model_args)
    shaping = {"max_length": training_args.max_length, "packing": training_args.packing, "weights": fingerprint(base)}
    identity = preflight.identity_of(training_args, **settings, **shaping, **counts)
    checkpoint = preflight.prepare_output_dir(training_args, identity)

    set_seed(training_args.seed)
    with loading(base):
        model = AutoModelForCausalLM.from_pretrained(
            base,
            revision=model_args.model_revision,
            dtype=model_args.dtype,
            attn_implementation=model_args.attn_implementation,
            quantization_config=get_quantization_config(model_args),
        )
    preflight.check_vocabulary(tokenizer, model)
    before = held_out(model.to(training_args.device), tokenizer, windows["test"])

    trainer = SFTTrainer(
        model=model,
        args=training_args,
        train_dataset=Dataset.from_list([{"messages": window} for window in windows["train"]]),
        eval_dataset=Dataset.from_list([{"messages": window} for window in windows["validation"]]),
        processing_class=tokenizer,
        peft_config=adapters.adapter_config(model_args, "CAUSAL_LM"),
        callbacks=guards(),
    )
    preflight.check_batch(trainer.data_collator([trainer.train_dataset[0]]), tokenizer)
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    after = held_out(
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), tokenizer, windows["test"]
    )

    metrics = {
        "test": {"bits_per_byte_before": before["bits_per_byte"], "bits_per_byte": after["bits_per_byte"]},
        "sample": {key: before[key] for key in ("prompt", "reference")}
        | {"before": before["answer"], "after": after["answer"]},
        **counts,
        "parameters": trainer.model.num_parameters(),
        "trainable_parameters": trainer.model.num_parameters(only_trainable=True),
    }
    found = (
        f"{before['bits_per_byte']:.2f} bits per byte of held-out answers before, {after['bits_per_byte']:.2f} after"
    )
    finish(
        trainer,
        title="Chat model",
        summary=f"{model_args.model_name_or_path} fine-tuned on the dialogues of {args.source}: {found}.",
        pipeline_tag="text-generation",
        config=settings | {"max_length": training_args.max_length},
        inputs={"model": model_args.model_name_or_path, "data": args.source},
        metrics=metrics,
        seconds={"total": time.perf_counter() - start, "train": trained.metrics["train_runtime"]},
        base_model=model_args.model_name_or_path,
        datasets=[describe(args.source)],
        limits="It imitates the dialogues it was tuned on; it does not know whether what it says is true.",
    )
    ready = training_args.output_dir
    if model_args.use_peft and args.merge_adapter:
        ready = adapters.merge_beside(trainer)
    done(
        f"a chat model: {found}",
        ready,
        f'python recipes/gpt/generate.py --model_name_or_path {ready} --chat --prompt "My knee hurts."',
    )


if __name__ == "__main__":
    recipe(main)
