"""Which optimizer moves which weights? Muon the hidden matrices, AdamW all the rest."""

from collections import defaultdict

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.pytorch_utils import Conv1D

from lm_recipes.launch import UserError

# of the polynomial a x + b x^3 + c x^5 that drives singular values towards 1 in five rounds; as in torch.optim.Muon
COEFFICIENTS, ROUNDS, EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7
MOMENTUM = 0.95
AT_ONCE = 2**26  # elements orthogonalised together: 128 MB in bf16


class MuonAdamW(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon/) and `torch.optim.AdamW` as one optimizer, as schedulers and
    checkpoints expect it: groups and state are shared, so `state_dict` round-trips and a resumed run is bit-exact.

    Muon's update is that of `torch.optim.Muon`, bit for bit, but for what that one cannot do: matrices of one shape are
    orthogonalised together, and so are the matrices of stacked experts `[E, out, in]`, each for itself. An update is
    scaled by sqrt(max(1, out / in)) (torch's "original"), where `transformers`' Conv1D (GPT-2) keeps `[in, out]`.

    Args:
        model: see `split_parameters` for which of its parameters go where.
        learning_rate: AdamW's. muon_learning_rate: Muon's.
        weight_decay: of all matrices: Muon's and those of heads; never of norms, biases and embeddings, nor of an
            output layer that is tied to one.

    Raises:
        UserError: the model has nothing for Muon.
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
        if not hidden:
            raise UserError("--muon_learning_rate: the model has no hidden matrices to train with Muon; leave it unset")
        flipped = {id(m.weight) for m in model.modules() if isinstance(m, Conv1D)}
        embeddings = _embeddings(model)
        muon = [
            {"params": [p for p in hidden if (id(p) in flipped) is flip], "flipped": flip, "lr": muon_learning_rate}
            | {"weight_decay": weight_decay}
            for flip in (False, True)
        ]
        heads = [p for p in others if p.ndim >= 2 and id(p) not in embeddings]
        rest = [p for p in others if p.ndim < 2 or id(p) in embeddings]
        adamw = [{"params": heads, "weight_decay": weight_decay}, {"params": rest}]
        self.adamw = torch.optim.AdamW(
            [group for group in adamw if group["params"]],
            lr=learning_rate, betas=betas, eps=eps, weight_decay=0.0, fused=True,
        )  # fmt: skip
        super().__init__([group for group in muon if group["params"]] + self.adamw.param_groups, {})
        self._share()

    def _share(self) -> None:
        self.adamw.param_groups = [group for group in self.param_groups if "flipped" not in group]
        self.adamw.state = self.state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            if "flipped" in group:
                self._muon(group)
        self.adamw.step()

    def _muon(self, group: dict) -> None:
        by_shape = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            rows, columns = shape[-2:] if not group["flipped"] else shape[:-3:-1]
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            number = max(AT_ONCE // shape.numel(), 1)
            for some in (parameters[start : start + number] for start in range(0, len(parameters), number)):
                update = orthogonal(torch.stack([self._momentum(parameter) for parameter in some]))
                torch._foreach_mul_(some, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(some, [one.to(some[0].dtype) for one in update], alpha=-rate)

    def _momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        """The gradient with Nesterov's momentum, in bf16 as orthogonalisation wants it."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        buffer = state["momentum_buffer"].lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(buffer, MOMENTUM).bfloat16()


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with singular values of about 1 (0.7 to 1.2), by Newton-Schulz iteration.

    Args:
        matrices: bf16 `[..., A, B]`; each for itself.
    """
    x = matrices.flatten(0, -3)
    x = x.mT if x.shape[-2] > x.shape[-1] else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if matrices.shape[-2] > matrices.shape[-1] else x).view(matrices.shape)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters for Muon (matrices that lead from hidden to hidden states) and for AdamW (the rest).

    For AdamW are: embeddings of every kind (tokens, positions, token types, relative positions), output layers (of
    tokens, classes, scores), norms, biases, convolutions and XLNet's attention `[D, heads, D / heads]`. Muon has
    everything else with two dimensions, such as the transform in an MLM head and a router, and stacked experts.
    """
    outside = _embeddings(model) | _output_layers(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = [p for name, p in trainable.items() if id(p) not in outside and _is_matrix(name, p)]
    chosen = {id(p) for p in hidden}
    return hidden, [p for p in trainable.values() if id(p) not in chosen]


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    stacked = parameter.ndim == 3 and ".experts." in name
    return (parameter.ndim == 2 or stacked) and "bias" not in name  # the biases of stacked experts are [E, out]


def _embeddings(model: nn.Module) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def _output_layers(model: nn.Module) -> set[int]:
    """Ids of what makes logits: output embeddings, and matrices of a head that do not lead to hidden states again."""
    found = set()
    for module in model.modules():
        head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
        found |= {id(p) for p in head.parameters()} if head is not None else set()
        if isinstance(module, PreTrainedModel) and module.base_model is not module:
            body = {id(p) for p in module.base_model.parameters()}
            inner = {module.config.hidden_size, getattr(module.config, "embedding_size", None)}
            head = (p for p in module.parameters() if id(p) not in body and p.ndim == 2)
            found |= {id(p) for p in head if p.shape[0] not in inner}
    return found


class FineTuningTrainer(Trainer):
    """Trainer, and the input embeddings' learning rate is `args.embedding_rate_factor` (1 without it) times the rest's.

    Adam moves a weight by about the rate, whatever its size, and a token's embedding only while the token is about.
    Minutes of pretraining leave embeddings several times as large as fresh ones; with one rate for all they hardly
    move, and words that pretraining has not told apart are learned worse (docs/LOG.md, sentiment).
    """

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        created, factor = self.optimizer is None, getattr(self.args, "embedding_rate_factor", 1.0)
        optimizer = super().create_optimizer(model)
        if not created or factor == 1:
            return optimizer
        model = self.model if model is None else model
        embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
        for group in list(optimizer.param_groups):
            apart = [p for p in group["params"] if id(p) in embeddings]
            if apart:
                group["params"] = [p for p in group["params"] if id(p) not in embeddings]
                optimizer.add_param_group(group | {"params": apart, "lr": factor * group["lr"]})
        return optimizer
