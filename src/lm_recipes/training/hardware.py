"""What can this machine do, and what will a run ask of it? Peak FLOP/s, memory, room for checkpoints."""

import shutil
from pathlib import Path

import psutil
import torch
from torch import nn

from lm_recipes.launch import UserError
from lm_recipes.training.optimizer import split_parameters

# Dense bf16 products on tensor cores, fp32 sums, in TFLOP/s: half of what a data sheet prints "with sparsity".
# NVIDIA's data sheets: H100 and H200 (with sparsity 1,979 for SXM, 1,513 for PCIe, 1,671 for NVL), A100, L40S, L4, A10.
# RTX 4090: Ada white paper, appendix A. RTX 3090: GA102 white paper, appendix A.
# A name matches when all its words are in the device's; the first match counts.
PEAK_TFLOPS = {
    "H200 NVL": 835.5, "H200": 989.4, "H100 NVL": 835.5, "H100 PCIe": 756.5, "H100": 989.4, "A100": 312.0,
    "L40S": 362.05, "L4": 121.0, "A10": 125.0, "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of an accelerator, by the name its driver gives it; None where it is not known.

    A part of a device (MIG) and a laptop's chip have names of the whole one, and less: not known. CPUs neither: their
    peak depends on clock, number of cores lent and instructions, which no name tells.
    """
    words = device_name.replace("-", " ").split()
    if "MIG" in words or "Laptop" in words:
        return None
    found = (tflops for name, tflops in PEAK_TFLOPS.items() if set(name.split()) <= set(words))
    return next((tflops * 1e12 for tflops in found), None)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_memory(device: torch.device) -> int:
    """Bytes that a new run could take on the device: free ones, on a CPU also those that caches would give back."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def optimizer_bytes(model: nn.Module, muon: bool) -> int:
    """What the optimizer keeps: two moments of each trainable parameter with AdamW, one momentum where Muon is."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = split_parameters(model)[0] if muon else []
    return 2 * _bytes(trainable) - _bytes(matrices)


def training_bytes(model: nn.Module, muon: bool, kept: int) -> dict[str, int]:
    """An estimate of what training takes on a device that holds all of the model, part by part, in bytes.

    weights + gradients (as large, of what is trained) + optimizer (see `optimizer_bytes`) + activations (`kept`).
    Not in it: the program itself, what an operation needs while it runs, and memory lost between blocks. On a CPU the
    process can hold half as much again, beside the program.
    """
    return {
        "weights": _bytes(model.parameters()),
        "gradients": _bytes(p for p in model.parameters() if p.requires_grad),
        "optimizer": optimizer_bytes(model, muon),
        "activations": kept,
    }


def kept_for_backward(loss_of_rows, model: nn.Module, rows: int) -> int:
    """Bytes that a forward pass over `rows` rows keeps for the backward pass, counted on one row and on two.

    Some is kept once (bf16 copies of the weights), the rest per row; the weights themselves are not counted.

    Args:
        loss_of_rows: from a number of rows, 1 or 2, to the loss of a forward pass over them.
    """
    one, two = (_saved_bytes(loss_of_rows, model, number) for number in (1, 2))
    return one + (two - one) * (rows - 1)


def _saved_bytes(loss_of_rows, model: nn.Module, number: int) -> int:
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Training continues with the random numbers it would have had.
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of_rows(number)  # held until all is counted: an address in use is not given out again
    del loss
    return sum(storages.values())


def checkpoint_bytes(model: nn.Module, muon: bool) -> int:
    """Weights and optimizer state: what one checkpoint takes on disk, but for a few kilobytes."""
    return _bytes(model.parameters()) + optimizer_bytes(model, muon)


def check_disk(directory: str | Path, needed: int) -> None:
    """The disk of `directory` (which need not be there yet) has `needed` bytes free.

    Raises:
        UserError: it has not.
    """
    place = Path(directory).absolute()
    place = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"--output_dir {directory}: {free / 1e9:.2f} GB free, but checkpoints take up to {needed / 1e9:.2f} GB; "
            "make room, choose another disk, or lower --save_total_limit"
        )


def _bytes(parameters) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
