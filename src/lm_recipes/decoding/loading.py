"""How is a saved model, adapter or Hub model made ready to answer?"""

from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from lm_recipes.launch import UserError
from lm_recipes.models.loading import loading, without_loading_report
from lm_recipes.models.packed import pack_linear_layers
from lm_recipes.sources import resolve_model
from lm_recipes.training.adapters import read_config
from lm_recipes.training.saved_adapters import AUTO_CLASSES, load_adapter


def load_for_inference(
    auto_class: type, name: str, packed: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (in eval mode, on the accelerator if there is one) and tokenizer.

    `name` is a model directory, an adapter directory (`adapter_config.json` names its base model), a `demo:` model
    or a Hub id. On a CPU the weights are float32, elsewhere as they were saved.

    Args:
        auto_class: the transformers auto class of the task, such as `AutoModelForCausalLM`.
        packed: on a CPU multiply by `pack_linear_layers`; in vain where weights are changed later.

    Raises:
        UserError: when there is no model under `name`, or it was not trained for the task (its head is missing).
    """
    path = resolve_model(name)
    with loading(name):
        is_adapter = find_adapter_config_file(path) is not None
    if Path(path).is_dir() and not is_adapter and not Path(path, "config.json").is_file():
        raise UserError(f"{name}: this directory holds no model (no config.json or adapter_config.json)")
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    dtype = torch.float32 if device.type == "cpu" else "auto"
    # The table of missing weights is left out: for an adapter it is wrong, for a model it is said in one line below.
    with loading(name), without_loading_report():
        tokenizer = AutoTokenizer.from_pretrained(path)
        try:
            if is_adapter:
                _refuse_other_task(auto_class, path)
                model, loaded = load_adapter(auto_class, path, dtype=dtype), {"missing_keys": ()}
            else:
                model, loaded = auto_class.from_pretrained(path, dtype=dtype, output_loading_info=True)
        except RuntimeError as error:  # weights of other shapes than the config says
            raise UserError(f"{name}: cannot be loaded: {' '.join(str(error).split())}") from error
    if loaded["missing_keys"]:
        weight = sorted(loaded["missing_keys"])[0]
        raise UserError(f"{name}: not trained for this task (there is no {weight} in it); fine-tune it first")
    if model.can_generate():
        # Its decoding defaults would leak into every strategy: only the special tokens are taken over.
        kept = {key: getattr(model.generation_config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**kept)
    model = model.eval().to(device)
    if packed:
        pack_linear_layers(model)
    return model, tokenizer


def _refuse_other_task(auto_class: type, adapter: str) -> None:
    """peft would give a model of another kind than the adapter's a new head, and say nothing."""
    config = read_config(adapter)
    trained = AUTO_CLASSES.get(config.task_type) or (config.auto_mapping or {}).get("base_model_class", "")
    _, known, task = trained.partition("For")
    wanted = auto_class.__name__.partition("For")[2]
    if known and wanted and task != wanted:
        raise UserError(f"{adapter}: not trained for this task (it is an adapter for {task}, not {wanted})")
