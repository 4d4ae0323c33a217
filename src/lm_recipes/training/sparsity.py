"""How do weights that were pruned stay zero while the others learn?"""

import torch
from torch import nn
from transformers import TrainerCallback

# A matrix of which between these shares is exactly zero was pruned: fresh ones have no zeros, and LoRA's B and output
# layers that begin at zero have nothing else. A padding token's embedding is far below.
LEAST, MOST = 0.05, 1.0


def pruned_weights(model: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Trainable matrices that were pruned, each with where it is zero, bool of its shape."""
    found = []
    for parameter in model.parameters():
        if parameter.ndim == 2 and parameter.requires_grad and parameter.is_floating_point():
            zeros = parameter.detach() == 0
            if LEAST <= float(zeros.float().mean()) < MOST:
                found.append((parameter, zeros))
    return found


class KeepZeros(TrainerCallback):
    """Sets pruned weights back to zero after each step of the optimizer (fine-tuning with a mask, arXiv 1506.02626).

    Of a model that was not pruned it does nothing. Resumed from a checkpoint it finds the zeros in its weights.
    """

    def __init__(self) -> None:
        self.masks: list[tuple[nn.Parameter, torch.Tensor]] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.masks = pruned_weights(model)

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        for parameter, zeros in self.masks:
            parameter.masked_fill_(zeros, 0.0)
