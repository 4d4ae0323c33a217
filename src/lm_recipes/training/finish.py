"""What does every training run leave behind? A model directory, its numbers, its card; and a copy on the Hub."""

from dataclasses import fields
from pathlib import Path

from transformers import Trainer, TrainingArguments

from lm_recipes.artifacts import write_results
from lm_recipes.reporting.cards import model_card
from lm_recipes.training.adapters import complete_adapter
from lm_recipes.training.hub import push_to_hub


def finish(
    trainer: Trainer,
    *,
    title: str,
    summary: str,
    pipeline_tag: str,
    config: dict,
    inputs: dict[str, str],
    metrics: dict,
    seconds: dict[str, float],
    **card: object,
) -> None:
    """Save model (or adapter), tokenizer, trainer state, `results.json` and the model card; push if asked to.

    Args:
        config: the recipe's own settings; the training arguments that differ from their defaults are added.
        card: further arguments of `reporting.cards.model_card` (base_model, datasets, limits).
    """
    args = trainer.args
    trainer.save_model(_internal_call=True)  # a call of the user's would push, with a card that is not ours
    trainer.save_state()
    if trainer.is_world_process_zero():
        complete_adapter(trainer.model, args.output_dir)
        Path(args.output_dir, "training_args.bin").unlink(missing_ok=True)  # a pickle; results.json has the settings
        pushed = {"hub_model_id": trainer.hub_model_id} if args.push_to_hub else {}  # with its owner
        record = write_results(
            args.output_dir,
            config=config | changed_settings(args) | pushed,
            inputs=inputs,
            metrics=metrics,
            seconds=seconds,
        )
        text = model_card(title=title, summary=summary, record=record, pipeline_tag=pipeline_tag, **card)
        Path(args.output_dir, "README.md").write_text(text, encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    if args.push_to_hub:
        push_to_hub(trainer)


def changed_settings(args: TrainingArguments) -> dict[str, object]:
    """The training arguments that differ from their class's defaults, without paths, secrets and bookkeeping."""
    left_out = {"output_dir", "hub_token", "run_name", "resume_from_checkpoint", "report_to"}
    defaults = {setting.name: setting.default for setting in fields(args)}
    return {
        name: getattr(value, "value", value)
        for name, value in vars(args).items()
        if name in defaults.keys() - left_out
        and isinstance(value, str | int | float | list)
        and value not in (defaults[name], [])
    }
