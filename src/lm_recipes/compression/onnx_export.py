"""How does a model become an ONNX graph?

transformers' own exporter traces it. A decoder becomes one graph that reads any number of tokens behind any number of
cached ones, none included: the prompt and every next token go through the same weights, which are stored once.
"""

import io
import logging
import warnings
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.compression.agreement import probe
from lm_recipes.launch import UserError

# Two rows more and a length unlike any width, so that tracing takes no size for a constant.
ROWS, LENGTH = 3, 11


def export_onnx(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: str | Path, int8: bool = False
) -> None:
    """Write `model.onnx`, its weights `model.onnx.data`, `export.json`, the configs and the tokenizer.

    `onnx_models.OnnxEncoder` and `OnnxDecoder` run it, as does `transformers.exporters.ExportedModel.from_pretrained`.

    Args:
        model: with any head, in float32 on the CPU, in eval mode.
        int8: ONNX Runtime's dynamic quantization: weights of matrix products are stored in 8 bits, what they are
            multiplied with is rounded as it comes.

    Raises:
        UserError: the packages are missing, or this model cannot be traced.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install -e '.[export]'")
    from transformers.exporters import (
        OnnxConfig,
        OnnxExporter,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )

    quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True)) if int8 else None
    with _quietly():
        try:
            traced, inputs = _traced(model, tokenizer)
            exported = OnnxExporter().export(traced, inputs, OnnxConfig(dynamic=True, quantizer=quantizer))
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            why = " ".join(str(error).split())[:300]
            raise UserError(f"{type(model).__name__}: transformers cannot export it to ONNX ({why})") from error
    if model.can_generate():
        exported.generation_config = model.generation_config
    exported.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _traced(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[torch.nn.Module, dict]:
    """What is traced: the model, and inputs of its forward."""
    batch = probe(model, tokenizer, ROWS, LENGTH)
    if not model.can_generate():
        return model, batch | ({"use_cache": False} if hasattr(model.config, "use_cache") else {})
    from transformers.exporters.utils import decompose_for_generation

    # Two steps of `generate` behind a prompt, put together: one step would fix the number of new tokens at one.
    return decompose_for_generation(model, batch, multi_token_decode=True)["decode"]


@contextmanager
def _quietly():
    """Tracing prints its steps and warns by the page, of what the comparison afterwards settles."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
