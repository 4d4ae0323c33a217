"""Which optimizer moves which weights? Muon the hidden matrices, AdamW all the rest."""

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` behind one optimizer, as schedulers and checkpoints expect it.

    Both share this object's groups and state, so `state_dict` round-trips and a resumed run is bit-exact.
    Muon: https://kellerjordan.github.io/posts/muon/.

    Args:
        model: its 2-D parameters outside embeddings and output heads go to Muon, everything else to AdamW.
        learning_rate: AdamW's. muon_learning_rate: Muon's.
        weight_decay: for matrices, on both sides; never for norms, biases and embeddings.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        muon_learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        hidden, others = split_parameters(model)
        self.muon = torch.optim.Muon(hidden, lr=muon_learning_rate, weight_decay=weight_decay, momentum=0.95)
        self.adamw = torch.optim.AdamW(others, lr=learning_rate, betas=betas, eps=eps, weight_decay=0.0, fused=True)
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {})
        self._share()

    def _share(self) -> None:
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.state = self.adamw.state = self.state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure=None) -> None:
        self.muon.step()
        self.adamw.step()


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters for Muon (matrices between embedding and output layer) and for AdamW (the rest)."""
    outside = {id(p) for p in model.get_input_embeddings().parameters()}
    if model.get_output_embeddings() is not None:
        outside |= {id(p) for p in model.get_output_embeddings().parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    hidden = [p for p in trainable if p.ndim == 2 and id(p) not in outside]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in trainable if id(p) not in chosen]
