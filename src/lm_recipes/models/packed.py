"""How does a CPU multiply sooner by weights that stay as they are? They are laid out once, as oneDNN reads them."""

import copy
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn
from torch.nn import functional as F

logger = logging.getLogger(__name__)


class PackedProduct:
    """The forward of a linear layer, by a copy of its weights in blocks of the processor's registers.

    PyTorch multiplies float32 by MKL. oneDNN, whose operators PyTorch has for its compiler, took a half to a quarter of
    its time on the AMD processor where both were measured (docs/LOG.md). Where gradients or a compiler ask, or the
    weights have changed since, the layer is what it was.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.weight, self.version = layer, layer.weight, _version(layer.weight)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, None)

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """float32 [..., in] -> float32 [..., out]"""
        layer = self.layer
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or input.dtype != torch.float32:
            return F.linear(input, layer.weight, layer.bias)
        if layer.weight is not self.weight or _version(layer.weight) != self.version:
            return F.linear(input, layer.weight, layer.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self.packed, layer.bias, "none", [], "")

    def __deepcopy__(self, memo: dict) -> "PackedProduct":
        found = copy.copy(self)  # packed weights have no storage to copy, and never change
        found.layer, found.weight = copy.deepcopy((self.layer, self.weight), memo)
        found.version = _version(found.weight)
        return found


def _version(weight: torch.Tensor) -> int:
    return 0 if weight.is_inference() else weight._version  # made in inference mode, a tensor counts no changes


def pack_linear_layers(model: nn.Module) -> None:
    """The linear layers of a model whose weights no longer change multiply by `PackedProduct` from now on.

    Those in float32 on an x86 processor. Their weights are then in memory twice: where that would take more than half
    of what is free, nothing is done.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu"
    ]
    if 2 * sum(layer.weight.nbytes for layer in layers) > psutil.virtual_memory().available:
        logger.info("weights not packed, for want of memory: products take longer")
        return
    for layer in layers:
        layer.forward = PackedProduct(layer)


@contextmanager
def packed_products(model: nn.Module) -> Iterator[None]:
    """`pack_linear_layers` for a while, for a model that is measured between two trainings."""
    pack_linear_layers(model)
    try:
        yield
    finally:
        for layer in model.modules():
            if isinstance(vars(layer).get("forward"), PackedProduct):
                del layer.forward
