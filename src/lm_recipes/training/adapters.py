"""How is a model trained through a small adapter, and what of it is saved?"""

import difflib
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import yaml
from trl import ModelConfig

from lm_recipes.artifacts import read_json, write_json
from lm_recipes.launch import UserError
from lm_recipes.models.heads import head_modules

logger = logging.getLogger(__name__)

# What peft asks of a training loop or of the data that `Trainer` does not give.
UNTRAINABLE = {
    "ADALORA": "it moves ranks between layers in every step, which Trainer does not",
    "XLORA": "it mixes adapters that are trained already",
    "POLY": "it wants the number of a task with every row",
    "MULTITASK_PROMPT_TUNING": "it wants the number of a task with every row",
}
UNUSABLE_START = {
    "eva": "it looks at the data before training, which no script here does",
    "corda": "it looks at the data before training, which no script here does",
    "lora_ga": "it looks at the gradients before training, which no script here does",
    "loftq": "it rounds the base's weights by itself; use --load_in_4bit",
}
# These take a part out of the base's weights and train that part (PiSSA arXiv 2404.02948, OLoRA 2406.01775).
CHANGE_THE_BASE = ("pissa", "olora")
LORA_FLAGS = {
    "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora",
    "use_dora": "use_dora", "lora_target_parameters": "target_parameters",
}  # fmt: skip
OWN_TARGETS = {"LN_TUNING", "TRAINABLE_TOKENS", "ADAPTION_PROMPT"}  # not linear layers
ALL_EMBEDDINGS = ".token_adapter.base_layer.weight"
KEPT = ("id2label", "problem_type", "pad_token_id")


@dataclass
class AdapterArguments(ModelConfig):
    """TRL's flags for model, LoRA and quantisation, and any other method of peft."""

    peft_method: str = field(
        default="lora", metadata={"help": "With --use_peft: lora, ia3, oft, vera or any other of peft's methods."}
    )
    peft_settings: list[str] | None = field(
        default=None, metadata={"help": "name=value of the method's peft config, e.g. init_lora_weights=pissa."}
    )
    train_tokens: list[str] | None = field(
        default=None, metadata={"help": "Tokens whose embeddings are trained; added where the tokenizer lacks them."}
    )


def add_tokens(tokenizer, model_args) -> None:
    """Give the tokenizer those of --train_tokens that it lacks, before any text is cut.

    <...> and [...] are control tokens: special, so that decoding can leave them out. Others are words.
    """
    known = tokenizer.get_vocab()
    new = [token for token in getattr(model_args, "train_tokens", None) or [] if token not in known]
    control = [token for token in new if token[0] + token[-1] in ("<>", "[]")]
    tokenizer.add_special_tokens({"extra_special_tokens": control}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([token for token in new if token not in control])


def embed_tokens(model, tokenizer, model_args) -> None:
    """Give the model embeddings for what `add_tokens` added, right after loading.

    New rows are drawn around the mean of the old ones, so that they change no other token's probability much
    (Hewitt, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    if getattr(model_args, "train_tokens", None) and len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def with_adapter(model, model_args, task_type: str | None, tokenizer=None, *, packed: bool = False):
    """`model` with the adapter that `adapter_config` describes, or as it is without --use_peft.

    What an adapter cannot be loaded without (class names, the quantisation of its base, how many tokens are embedded)
    is written into its `adapter_config.json`.

    Args:
        task_type: one of peft's; None for what it has no type for (multiple choice).
        tokenizer: needed with --train_tokens, after `add_tokens`.
        packed: rows hold several texts, which only `position_ids` keep apart.

    Raises:
        UserError: peft has no such method or setting, or cannot apply it to this model or to packed rows.
    """
    from peft import get_peft_model, get_peft_model_state_dict
    from peft.utils.other import TrainableTokensWrapper
    from transformers.integrations import is_deepspeed_zero3_enabled

    embed_tokens(model, tokenizer, model_args)
    config = adapter_config(model_args, task_type)
    if config is None:
        return model
    if packed and config.is_prompt_learning:
        raise UserError("--packing: prompt tokens make peft drop position_ids, and texts would see each other")
    tokens = getattr(model_args, "train_tokens", None) or []
    quantized = getattr(model.config, "quantization_config", None)
    if quantized is not None and changes_base(config):
        raise UserError(
            f"--peft_settings init_lora_weights={config.init_lora_weights} changes the base's weights, which the "
            "quantisation would round anew; drop one of them"
        )
    if task_type != "CAUSAL_LM":
        _train_head(config, model)
    if tokens:
        _train_tokens(config, model, tokenizer.convert_tokens_to_ids(tokens))
    config.auto_mapping = _to_remember(model, model_args, task_type)
    config.revision = model_args.model_revision if model_args.model_revision != "main" else None
    # ZeRO-3 gathers parameters of one type only: there the adapter stays in the base's (trl issue 6089).
    same_type = is_deepspeed_zero3_enabled() and quantized is None
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=not same_type)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = one_line(error).replace("`target_modules` in `peft_config`", "--lora_target_modules")
        raise UserError(f"--peft_method {config.peft_type.lower()}: {reason}") from error
    for module in adapted.modules():
        if isinstance(module, TrainableTokensWrapper):
            module.bias = None  # TRL's loss asks an output layer for it; one that has a bias was refused
    if changes_base(config):
        state = get_peft_model_state_dict(adapted)
        start = {name: weight for name, weight in state.items() if ".lora_A." in name or ".lora_B." in name}
        adapted.adapter_before_training = {name: weight.detach().clone() for name, weight in start.items()}
    return adapted


def adapter_config(model_args, task_type: str | None):
    """The `peft.PeftConfig` that the flags describe; None without --use_peft.

    Without --lora_target_modules every linear layer gets an adapter, which is what full fine-tuning quality takes
    (QLoRA, arXiv 2305.14314, figure 2), and needs no table of layer names per architecture.

    Args:
        model_args: `AdapterArguments`, or `trl.ModelConfig` for LoRA alone.
        task_type: one of peft's: "CAUSAL_LM"; "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", whose new head is saved whole.

    Raises:
        UserError: an unknown or untrainable method, or a setting it does not have.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if not model_args.use_peft:
        return None
    method = getattr(model_args, "peft_method", "lora").upper()
    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = sorted(name.lower() for name in PEFT_TYPE_TO_CONFIG_MAPPING)
        raise UserError(f"--peft_method {method.lower()}: peft has {', '.join(known)}")
    if method in UNTRAINABLE:
        raise UserError(f"--peft_method {method.lower()} is not trained here: {UNTRAINABLE[method]}")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[method]
    known = {setting.name for setting in fields(config_class)}
    given = _flags(model_args, method) | {"task_type": task_type}
    given |= {"feedforward_modules": []}  # IA3: scale what layers give; peft's own table knows few architectures
    settings = _settings(getattr(model_args, "peft_settings", None), method, known)
    try:
        config = config_class(**{name: value for name, value in given.items() if name in known} | settings)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"--peft_method {method.lower()}: {one_line(error)}") from error
    if config.is_prompt_learning and not config.num_virtual_tokens:
        raise UserError(f"--peft_method {method.lower()}: how many? Add --peft_settings num_virtual_tokens=20")
    return config


def _flags(model_args, method: str) -> dict[str, object]:
    targets = model_args.lora_target_modules or (None if method in OWN_TARGETS else "all-linear")
    given = {"target_modules": targets, "modules_to_save": model_args.lora_modules_to_save}
    if method == "LORA":
        return given | {name: getattr(model_args, flag) for flag, name in LORA_FLAGS.items()}
    if model_args.use_dora or model_args.use_rslora:
        raise UserError(f"--peft_method {method.lower()}: --use_dora and --use_rslora are LoRA's; drop them")
    logger.warning("peft    %s has settings of its own (--peft_settings); --lora_r and its like are LoRA's", method)
    return given


def _settings(pairs: list[str] | None, method: str, known: set[str]) -> dict[str, object]:
    """Of ["r=8", "init_lora_weights=pissa"] a dictionary; values are read as YAML."""
    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--peft_settings {pair}: write name=value")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known))}"
            raise UserError(f"--peft_settings {pair}: {method.lower()} has no such setting; {hint}")
        settings[name] = _value(value)
    start = str(settings.get("init_lora_weights", "")).lower()
    if start in UNUSABLE_START:
        raise UserError(f"--peft_settings init_lora_weights={start}: {UNUSABLE_START[start]}")
    return settings


def _value(text: str) -> object:
    try:
        return float(text) if "e-" in text else yaml.safe_load(text)  # 1e-4 is a string to YAML
    except (ValueError, yaml.YAMLError):
        return text


def changes_base(config) -> bool:
    """Whether an adapter of this `peft.PeftConfig` is trained on weights that are no longer the base's."""
    return str(getattr(config, "init_lora_weights", "")).lower().startswith(CHANGE_THE_BASE)


def _train_head(config, model) -> None:
    """A head may be new, with random weights that no base model could give back: it is saved whole, not adapted."""
    if not hasattr(config, "modules_to_save"):
        raise UserError(f"--peft_method {config.peft_type.lower()} trains no new head beside itself; take another one")
    config.modules_to_save = sorted({*(config.modules_to_save or []), *head_modules(model)})
    if hasattr(config, "exclude_modules") and not config.exclude_modules:
        config.exclude_modules = rf".*\b({'|'.join(config.modules_to_save)})\b.*"


def _train_tokens(config, model, ids: list[int]) -> None:
    """Train the rows `ids` of the embeddings, and of an output layer that is not the same matrix."""
    if not hasattr(config, "trainable_token_indices"):
        raise UserError(f"--train_tokens: only LoRA trains tokens beside itself, not {config.peft_type.lower()}")
    names = {id(module): name for name, module in model.named_modules()}
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError("--train_tokens: peft would lose the bias of this model's output layer; train all its weights")
    config.trainable_token_indices = {names[id(embed)]: list(ids)}
    if head is not None and head.weight is not embed.weight:
        config.trainable_token_indices[names[id(head)]] = list(ids)


def _to_remember(model, model_args, task_type: str | None) -> dict | None:
    """What the base's own config will not say when the adapter is loaded, for `adapter_config.json`."""
    kept = {name: getattr(model.config, name, None) for name in KEPT if task_type != "CAUSAL_LM"}
    about = {"config": {name: value for name, value in kept.items() if value is not None}}
    if "id2label" in about["config"]:
        about["config"]["label2id"] = {name: number for number, name in kept["id2label"].items()}
    if getattr(model.config, "quantization_config", None) is not None:
        about["quantization"] = model.config.quantization_config.to_dict()
    if getattr(model_args, "train_tokens", None):
        about["embeddings"] = model.get_input_embeddings().num_embeddings
    if (model_args.model_name_or_path or "").startswith("demo:"):
        about["base"] = model_args.model_name_or_path  # on another machine its files lie elsewhere
    return {name: value for name, value in about.items() if value} or None


def complete_adapter(model, directory: str | Path) -> None:
    """Mend what peft just saved of an adapter, so that it is small and loads on the base as it was before training.

    - PiSSA and OLoRA train on W - B0 A0. What they learned, B A - B0 A0, is a LoRA of twice the rank on W itself; other
      adapters then share the base, and loading decomposes nothing. (peft's own conversion,
      `path_initial_model_for_weight_conversion`, drops heads, new tokens and DoRA's magnitudes.)
    - With new tokens peft saves all embeddings, and once more as the output layer, beside the rows that were trained.
    - Of an adapter without a task type peft overwrites what `with_adapter` noted about its base.
    """
    if not hasattr(model, "peft_config"):
        return
    config, weights = model.peft_config["default"], Path(directory, "adapter_model.safetensors")
    start = getattr(model, "adapter_before_training", None)
    if start is not None or getattr(config, "trainable_token_indices", None):
        from safetensors.torch import load_file, save_file

        state = {name: _trained(name, weight, start) for name, weight in load_file(weights).items()}
        state = {name: weight for name, weight in state.items() if not name.endswith(ALL_EMBEDDINGS)}
        new = weights.with_suffix(".new")  # the old file is still mapped
        save_file(state, new, metadata={"format": "pt"})
        new.replace(weights)
    path = Path(directory, "adapter_config.json")
    saved = read_json(path, "adapter")
    saved["auto_mapping"] = (saved["auto_mapping"] or {}) | (config.auto_mapping or {}) or None
    write_json(path, saved | (_twice_the_rank(config) if start is not None else {}))


def _trained(name: str, weight: torch.Tensor, start: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """[A; A0] and [B, -B0] of LoRA's A and B, everything else as it is."""
    if start is None or name not in start:
        return weight
    before = start[name].to(weight)
    return torch.cat([weight, before], dim=0) if ".lora_A." in name else torch.cat([weight, -before], dim=1)


def _twice_the_rank(config) -> dict[str, object]:
    """Settings of a `LoraConfig` with twice the ranks whose scale, alpha / r or alpha / sqrt(r), is as before."""
    scale = 2**0.5 if config.use_rslora else 2
    return {
        "r": 2 * config.r,
        "lora_alpha": scale * config.lora_alpha,
        "rank_pattern": {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()},
        "alpha_pattern": {name: scale * alpha for name, alpha in (config.alpha_pattern or {}).items()},
        "init_lora_weights": True,
    }


def saved_labels(adapter: str) -> dict[str, object]:
    """What `from_pretrained` of an adapter's base must be told: `id2label`, `label2id`, ...; {} for language models.

    peft keeps no class names: ours are in `adapter_config.json`, under `auto_mapping`.
    """
    kept = dict((read_config(adapter).auto_mapping or {}).get("config", {}))
    if "id2label" in kept:
        kept["id2label"] = {int(number): name for number, name in kept["id2label"].items()}
    return kept


def read_config(adapter: str):
    """The `peft.PeftConfig` of a directory or Hub id; UserError where there is none, or none that can be loaded."""
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(adapter)
    except (ValueError, OSError) as error:
        raise UserError(f"{adapter}: no adapter here ({one_line(error)})") from error
    if "_niter_" in str(getattr(config, "init_lora_weights", "")):
        raise UserError(f"{adapter}: it belongs to a base that was changed at random and not saved; train it again")
    return config


def merge_beside(trainer) -> Path:
    """`merge_adapter` for the adapter a trainer just saved, into `merged/` of its output directory (main process)."""
    from lm_recipes.training.saved_adapters import merge_adapter

    output_dir = Path(trainer.args.output_dir) / "merged"
    if trainer.is_world_process_zero():
        merge_adapter(trainer.args.output_dir, output_dir)
    return output_dir


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
