"""How are the weights of a trained model rounded, so that a plain `from_pretrained` loads the small ones?"""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from lm_recipes.launch import UserError
from lm_recipes.models.heads import head_modules
from lm_recipes.models.loading import loading
from lm_recipes.models.quantization import need_bitsandbytes
from lm_recipes.sources import resolve_model

METHODS = {
    "bfloat16": "8 bits of each float32's mantissa, in embeddings and head too; computed with in float32",
    "int8-weights": "torchao: weights in 8 bits, a scale for each row; multiplied in float",
    "int8-dynamic": "torchao: the same, and what they are multiplied with is rounded to 8 bits as it comes",
    "nf4": "bitsandbytes: 4-bit NormalFloat (arXiv 2305.14314) in blocks of 64, their scales in 8 bits",
}
LIBRARIES = {"bfloat16": (), "int8-weights": ("torchao",), "int8-dynamic": ("torchao",), "nf4": ("bitsandbytes",)}


def round_weights(name: str, model: PreTrainedModel, method: str, directory: str | Path) -> None:
    """Write a model directory with rounded weights of linear layers, in safetensors; its config says how they are read.

    Embeddings and the head stay as they are, except in bfloat16.

    Args:
        name: directory, demo model or Hub id. model: the same, loaded, with the head that it was saved with.
        method: a key of METHODS.

    Raises:
        UserError: the package is missing, or the model cannot be rounded so.
    """
    if method == "bfloat16":
        with loading(name):
            type(model).from_pretrained(resolve_model(name), dtype=torch.bfloat16).save_pretrained(directory)
        return
    # Left to itself, transformers rounds a classifier's last layer too. None: a model without a head.
    config = _config(method, None if model.base_model is model else head_modules(model))
    with loading(name):
        rounded = type(model).from_pretrained(resolve_model(name), dtype=torch.float32, quantization_config=config)
    if method == "nf4":
        _refuse_widths(rounded)
    # Saved before anything is computed: on some CPUs bitsandbytes packs weights anew when it multiplies.
    rounded.save_pretrained(directory)


def _refuse_widths(model: PreTrainedModel) -> None:
    """bitsandbytes' kernel for CPUs with AVX512-BF16 fails on other widths than these, when it is first asked."""
    from bitsandbytes.nn import Linear4bit

    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit) and (layer.in_features % 64 or layer.out_features % 32):
            raise UserError(
                f"--method nf4: {name} is {layer.in_features} x {layer.out_features}; on a CPU it must read a multiple "
                "of 64 and make a multiple of 32; take int8-weights"
            )


def _config(method: str, exact: list[str] | None):
    if method not in METHODS:
        raise UserError(f"--method {method}: must be one of {', '.join(METHODS)}")
    if method == "nf4":
        from transformers import BitsAndBytesConfig

        need_bitsandbytes("--method nf4")
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=exact,
        )
    if find_spec("torchao") is None:
        raise UserError(f"--method {method} needs torchao: pip install -e '.[quantize]'")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    kind = Int8WeightOnlyConfig() if method == "int8-weights" else Int8DynamicActivationInt8WeightConfig()
    return TorchAoConfig(kind, modules_to_not_convert=exact)


def load_rounded(directory: str | Path, model_class: type) -> PreTrainedModel:
    """What `round_weights` wrote, in eval mode on the CPU."""
    with loading(str(directory)):
        return model_class.from_pretrained(directory, dtype=torch.float32).eval()


def dynamic_int8(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose linear layers multiply 8-bit integers, by the kernels that PyTorch has for CPUs.

    As "int8-dynamic", but made anew in each process: PyTorch packs these weights for the machine it runs on, and packed
    they go into no safetensors file.
    """
    logging.getLogger("torch.ao").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torchao is to take this over one day
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
