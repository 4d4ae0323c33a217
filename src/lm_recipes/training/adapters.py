"""How is a model trained through a small adapter, and how does the adapter become part of the model again?"""

import logging
from pathlib import Path

import torch

from lm_recipes.artifacts import atomic_directory, read_json, write_results
from lm_recipes.launch import UserError
from lm_recipes.models.loading import without_loading_report

logger = logging.getLogger(__name__)


def with_adapter(model, model_args, task_type: str):
    """`model` with the adapter that `adapter_config` describes, or as it is without --use_peft."""
    from peft import get_peft_model

    config = adapter_config(model_args, task_type)
    if config is None:
        return model
    if task_type == "SEQ_CLS":
        # The head may be new, with random weights that no base model could give back: it is saved whole, not adapted.
        config.modules_to_save = sorted({*(config.modules_to_save or []), *_head_modules(model)})
        config.exclude_modules = rf".*\b({'|'.join(config.modules_to_save)})\b.*"
    return get_peft_model(model, config)


def _head_modules(model) -> list[str]:
    """Names of the modules between an encoder's layers and the class logits."""
    outside = [name for name, child in model.named_children() if child is not model.base_model]
    with_weights = [name for name in outside if any(True for _ in getattr(model, name).parameters())]
    return with_weights + (["pooler"] if getattr(model.base_model, "pooler", None) is not None else [])


def adapter_config(model_args, task_type: str):
    """The LoRA that TRL's flags (`--use_peft --lora_r ...`) describe as a `peft.LoraConfig`; None without --use_peft.

    Without `--lora_target_modules` every linear layer gets an adapter, which is what full fine-tuning quality takes
    (QLoRA, arXiv 2305.14314, figure 2), and needs no table of layer names per architecture.

    Args:
        model_args: `trl.ModelConfig`.
        task_type: "CAUSAL_LM", or "SEQ_CLS", whose new classification head is trained and saved whole.
    """
    from trl import get_peft_config

    model_args.lora_task_type = task_type
    if model_args.use_peft and not model_args.lora_target_modules:
        model_args.lora_target_modules = "all-linear"
    return get_peft_config(model_args)


def merge_adapter(adapter: str, output_dir: str | Path) -> float:
    """Write `base + adapter` as a plain float32 model directory, after checking that both answer alike.

    Args:
        adapter: directory (or Hub id) of a LoRA for a causal language model or a sequence classifier.

    Returns:
        The largest difference between their logits on a random probe.

    Raises:
        UserError: when `adapter` is no such adapter, or the merged model answers differently.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    base = _base_model(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(base, adapter).eval()
    probe = torch.randint(len(tokenizer), (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=probe).logits
        merged = model.merge_and_unload(safe_merge=True)
        difference = float((merged(input_ids=probe).logits - expected).abs().max())
    if not difference <= 1e-4 * max(1.0, float(expected.abs().max())):
        raise UserError(f"{adapter}: merged logits differ by {difference:.1e}; the adapter cannot be merged exactly")
    if merged.can_generate() and tokenizer.eos_token_id is not None:
        # Fine-tuning may have changed what ends a turn; the base model's settings do not know.
        merged.generation_config.eos_token_id = tokenizer.eos_token_id
        merged.generation_config.pad_token_id = tokenizer.pad_token_id
    with atomic_directory(output_dir) as scratch:
        merged.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        write_results(
            scratch, config={"dtype": "float32"}, inputs={"adapter": adapter},
            metrics={"max_logit_difference": difference}, seconds={},
        )  # fmt: skip
    return difference


def merge_beside(trainer) -> Path:
    """`merge_adapter` for the adapter a trainer just saved, into `merged/` of its output directory (main process)."""
    output_dir = Path(trainer.args.output_dir) / "merged"
    if trainer.is_world_process_zero():
        merge_adapter(trainer.args.output_dir, output_dir)
    return output_dir


def saved_labels(adapter: str) -> dict[str, dict]:
    """`id2label` and `label2id` of a classification adapter of ours: adapters themselves do not keep class names."""
    if not (Path(adapter) / "results.json").is_file():
        return {}
    names = read_json(Path(adapter) / "results.json", "results").get("metrics", {}).get("labels")
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}} if names else {}


def _base_model(adapter: str):
    from peft import PeftConfig, TaskType
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    try:
        config = PeftConfig.from_pretrained(adapter)
    except (ValueError, OSError) as error:
        raise UserError(f"{adapter}: no adapter here ({' '.join(str(error).split())})") from error
    if config.task_type == TaskType.CAUSAL_LM:
        return AutoModelForCausalLM.from_pretrained(config.base_model_name_or_path, dtype=torch.float32)
    if config.task_type == TaskType.SEQ_CLS:
        with without_loading_report():  # the head comes with the adapter
            return AutoModelForSequenceClassification.from_pretrained(
                config.base_model_name_or_path, dtype=torch.float32, **saved_labels(adapter)
            )
    raise UserError(f"{adapter}: adapters for {config.task_type} are not merged here")
