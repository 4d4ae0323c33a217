"""How is a saved adapter put on its base again, switched with others, and merged into it?"""

from pathlib import Path

import torch

from lm_recipes.artifacts import atomic_directory, write_results
from lm_recipes.launch import UserError
from lm_recipes.models.loading import loading, without_loading_report
from lm_recipes.models.quantization import need_bitsandbytes
from lm_recipes.sources import resolve_model
from lm_recipes.training.adapters import changes_base, one_line, read_config, saved_labels

AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def load_adapter(auto_class: type, adapter: str, **options: object):
    """A model with one adapter on it, in eval mode; of the base's own class, as far as the method allows.

    See `load_adapters`. Methods that put tokens before the text (prompt tuning) are a `peft.PeftModel`.
    """
    model = load_adapters(auto_class, {"default": adapter}, **options)
    return model if model.active_peft_config.is_prompt_learning else model.get_base_model()


def load_adapters(auto_class: type, adapters: dict[str, str], *, dequantize: bool = False, **options: object):
    """One base model with several adapters, in eval mode. The first is active; `set_adapter(name)` switches.

    Args:
        auto_class: of transformers, such as `AutoModelForCausalLM`.
        adapters: name -> directory or Hub id; all of one base and, for classifiers, one set of classes.
        dequantize: a quantised base becomes the weights that it stands for, in `dtype`.
        options: of `from_pretrained` (dtype, attn_implementation).

    Returns:
        `peft.PeftModel`

    Raises:
        UserError: no adapter there, or adapters that cannot share a base.
    """
    from peft import PeftModel

    configs = {name: read_config(adapter) for name, adapter in adapters.items()}
    _refuse_strangers(adapters, configs)
    (first, adapter), *others = adapters.items()
    base = _base(auto_class, adapter, configs[first], dequantize, options)
    try:
        model = PeftModel.from_pretrained(base, adapter, adapter_name=first)
        for name, other in others:
            adapter = other
            model.load_adapter(other, adapter_name=name)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{adapter}: does not fit its base: {one_line(error)}") from error
    return model.eval()


def _base(auto_class: type, adapter: str, config, dequantize: bool, options: dict):
    """The model that an adapter was trained on, with the adapter's classes and as many embeddings."""
    from transformers import AutoConfig
    from transformers.quantizers import AutoQuantizationConfig

    about, name = config.auto_mapping or {}, base_name(config)
    if "quantization" in about:
        need_bitsandbytes(f"{adapter}: its base was loaded with bitsandbytes; loading it")
        options = options | {"quantization_config": AutoQuantizationConfig.from_dict(about["quantization"])}
    with loading(name), without_loading_report():  # a new head comes with the adapter
        base_config = AutoConfig.from_pretrained(name, revision=config.revision, **saved_labels(adapter))
        base = auto_class.from_pretrained(name, revision=config.revision, config=base_config, **options)
    if dequantize and getattr(base, "hf_quantizer", None) is not None:
        try:
            base = base.dequantize(dtype=options.get("dtype"))
        except NotImplementedError as error:
            raise UserError(f"{name}: its weights are rounded and cannot be restored: {one_line(error)}") from error
        base.is_loaded_in_4bit = base.is_loaded_in_8bit = False  # transformers leaves them; peft asks
    if about.get("embeddings", 0) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(about["embeddings"], mean_resizing=False)  # the rows come with the adapter
    return base


def base_name(config) -> str:
    """Directory or Hub id of an adapter's base; a demo model is found (or fetched) on any machine."""
    about = config.auto_mapping or {}
    return resolve_model(about["base"]) if "base" in about else config.base_model_name_or_path


def _refuse_strangers(adapters: dict[str, str], configs: dict) -> None:
    (first, expected), *others = configs.items()
    if dotted := [name for name in adapters if "." in name]:
        raise UserError(f"adapter name {dotted[0]}: no dots, please")
    for name, config in others:
        if (other := base_name(config)) != (base := base_name(expected)):
            raise UserError(
                f"{adapters[name]} was trained on {other}, {adapters[first]} on {base}; only adapters of one base can "
                "be switched"
            )
        if config.auto_mapping != expected.auto_mapping:
            raise UserError(f"{adapters[name]} has other classes or tokens than {adapters[first]}; load it by itself")
    if others and (changed := [name for name, config in configs.items() if changes_base(config)]):
        raise UserError(f"{adapters[changed[0]]}: belongs to a base that training changed; load it by itself")


def merge_adapter(adapter: str, output_dir: str | Path, dtype: str = "float32") -> float:
    """Write `base + adapter` as a plain model directory, after checking in float32 that both answer alike.

    A base that was quantised becomes the weights that it stood for in training; it is never rounded again.

    Args:
        adapter: directory or Hub id of an adapter that can be merged.
        dtype: of the weights that are written: float32, bfloat16 or float16.

    Returns:
        The largest difference between their logits on a random probe, in float32. What rounding to 16 bits adds is in
        the directory's `results.json`.

    Raises:
        UserError: `adapter` is no such adapter, or the merged model answers differently.
    """
    import transformers

    config = read_config(adapter)
    class_name = AUTO_CLASSES.get(config.task_type) or (config.auto_mapping or {}).get("base_model_class", "")
    auto_class = getattr(transformers, class_name, None)
    if config.is_prompt_learning or auto_class is None:
        what = "adds tokens, not weights" if config.is_prompt_learning else f"is for {config.task_type}"
        raise UserError(f"{adapter}: {config.peft_type.lower()} {what}: it cannot be merged; load it with its base")
    model = load_adapters(auto_class, {"default": adapter}, dequantize=True, dtype=torch.float32)
    tokenizer = _tokenizer(adapter, config)
    expected = _answers(model)
    _unwrap_heads(model)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError) as error:
        raise UserError(f"{adapter}: cannot be merged: {one_line(error)}") from error
    difference = float((_answers(merged) - expected).abs().max())
    if not difference <= 1e-4 * max(1.0, float(expected.abs().max())):
        raise UserError(f"{adapter}: merged logits differ by {difference:.1e}; the adapter cannot be merged exactly")
    metrics = {"max_logit_difference": difference, "max_logit": float(expected.abs().max())}
    if dtype != "float32":
        for parameter in merged.parameters():  # not the buffers: rotary frequencies stay in float32
            parameter.data = parameter.data.to(getattr(torch, dtype))
        metrics["max_logit_difference_rounded"] = float((_answers(merged) - expected).abs().max())
    if merged.can_generate() and tokenizer.eos_token_id is not None:
        # Fine-tuning may have changed what ends a turn; the base model's settings do not know.
        merged.generation_config.eos_token_id = tokenizer.eos_token_id
        merged.generation_config.pad_token_id = tokenizer.pad_token_id
    with atomic_directory(output_dir) as scratch:
        merged.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        write_results(scratch, config={"dtype": dtype}, inputs={"adapter": adapter}, metrics=metrics, seconds={})
    return difference


def _unwrap_heads(model) -> None:
    """Put trained heads in their places: but for LoRA, peft fails to where a head has several layers."""
    from peft.utils.other import ModulesToSaveWrapper

    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            base.set_submodule(name, module.modules_to_save["default"])


def _tokenizer(adapter: str, config):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(adapter)
    except (OSError, ValueError):  # many adapters on the Hub come without one
        with loading(base_name(config)):
            return AutoTokenizer.from_pretrained(base_name(config), revision=config.revision)


@torch.no_grad()
def _answers(model) -> torch.Tensor:
    """All logits for a row of 32 random tokens, flat, float32."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    tokens = base.get_input_embeddings().weight.shape[0]
    probe = torch.randint(tokens, (1, 32), generator=torch.Generator().manual_seed(0)).to(base.device)
    if type(base).__name__.endswith("ForMultipleChoice"):
        probe = probe[None]
    outputs = model(input_ids=probe).to_tuple()
    return torch.cat([tensor.flatten().float() for tensor in outputs if isinstance(tensor, torch.Tensor)])
