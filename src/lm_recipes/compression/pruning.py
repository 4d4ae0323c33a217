"""Which parts of a trained model can go: layers, neurons of its MLPs, or single weights?

What is taken out whole makes a smaller model of the same class, which any program loads and which is faster. Single
weights become zeros: the file is as large, and time as long, until something packs them. Training keeps them zero
(`training.sparsity.KeepZeros`).
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from lm_recipes.launch import UserError

Batches = Iterable[dict[str, torch.Tensor]]

# model_type -> the linear layers, within one of the model's, that make the MLP's neurons, and the one that reads them.
MLPS: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "smollm3"), (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
    ),
    "nanochat": (("mlp.fc1",), "mlp.fc2"),
    "modernbert": (("mlp.Wi",), "mlp.Wo"),
    **dict.fromkeys(("bert", "roberta", "electra", "deberta-v2"), (("intermediate.dense",), "output.dense")),
}
STEP = 32  # widths stay multiples of this: of what hardware reads at once, and of GGUF's blocks


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's layers.

    Raises:
        UserError: it has no such list (ALBERT has one layer for all; T5 two lists).
    """
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers
    ]
    if len(lists) != 1:
        raise UserError(f"{model.config.model_type}: its layers do not lie in one list; it cannot be pruned here")
    return lists[0]


@torch.no_grad()
def drop_layers(model: PreTrainedModel, share: float, batches: Batches) -> dict[str, list]:
    """Take out the layers that change their input least, in place; the first stays always.

    A layer's importance is its block influence, 1 - mean cosine of what goes in and what comes out, over tokens
    (ShortGPT, arXiv 2403.03853).

    Args:
        share: of layers, in (0, 1). batches: `input_ids` and `attention_mask`, read once.

    Returns:
        `importance` of all layers, and the numbers of those `dropped`.
    """
    layers, config = layers_of(model), model.config
    importance = _block_influence(model, layers, batches)
    count = min(max(round(share * len(layers)), 1), len(layers) - 1)
    dropped = sorted(sorted(range(1, len(layers)), key=importance.__getitem__)[:count])
    kept = [number for number in range(len(layers)) if number not in dropped]
    remaining = [layers[number] for number in kept]
    del layers[len(kept) :]
    for place, layer in enumerate(remaining):
        layers[place] = layer
        for module in layer.modules():
            if hasattr(module, "layer_idx"):  # its place in the cache
                module.layer_idx = place
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in kept]
    return {"importance": importance, "dropped": dropped}


def _block_influence(model: PreTrainedModel, layers: nn.ModuleList, batches: Batches) -> list[float]:
    similar, tokens = torch.zeros(len(layers), dtype=torch.float64), 0
    mask = None

    def watch(number: int):
        def hook(layer, args, kwargs, output) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            similar[number] += functional.cosine_similarity(before, after, dim=-1)[mask].sum().double()

        return hook

    handles = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for batch in batches:
            mask = batch["attention_mask"].bool()
            tokens += int(mask.sum())
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return (1 - similar / tokens).tolist()


@torch.no_grad()
def drop_neurons(model: PreTrainedModel, share: float, batches: Batches) -> dict[str, float]:
    """Take the least important neurons out of every MLP, in place: as many in each layer.

    A neuron's importance is the length of its activations over all tokens times the length of the weights that read
    them: the scores that Wanda (arXiv 2306.11695) gives these weights, |weight| x ||activation||, taken together.

    Args:
        share: of neurons, in (0, 1); what is left is a multiple of STEP. batches: see `drop_layers`.

    Returns:
        `importance_kept`: the share of all importance that the neurons have that stay.

    Raises:
        UserError: it is not known where this family's neurons are.
    """
    config = model.config
    if config.model_type not in MLPS:
        raise UserError(f"--method neurons: not known for a {config.model_type}; for {', '.join(MLPS)}; or take layers")
    writers, reader = MLPS[config.model_type]
    width = config.intermediate_size
    left = max(round((1 - share) * width / STEP) * STEP, min(STEP, width))
    layers = layers_of(model)
    kept_importance, all_importance = 0.0, 0.0
    for layer, length in zip(layers, _activation_lengths(model, layers, reader, batches), strict=True):
        down = layer.get_submodule(reader)
        importance = length * down.weight.norm(dim=0)
        kept = importance.topk(left).indices.sort().values
        kept_importance += float(importance[kept].sum())
        all_importance += float(importance.sum())
        for name in writers:
            up = layer.get_submodule(name)
            blocks = up.out_features // width  # gate and value may stand above each other in one matrix
            rows = torch.cat([kept + block * width for block in range(blocks)])
            _take(up, rows=rows)
        _take(down, columns=kept)
    config.intermediate_size = left
    return {"importance_kept": kept_importance / all_importance}


def _take(linear: nn.Linear, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> None:
    if rows is not None:
        linear.weight = nn.Parameter(linear.weight[rows].clone())
        linear.out_features = len(rows)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias[rows].clone())
    else:
        linear.weight = nn.Parameter(linear.weight[:, columns].clone())
        linear.in_features = len(columns)


def _activation_lengths(
    model: PreTrainedModel, layers: nn.ModuleList, reader: str, batches: Batches
) -> list[torch.Tensor]:
    """Per layer the length of each neuron's activations over all tokens, float32 `[intermediate_size]`."""
    squares = [torch.zeros(model.config.intermediate_size) for _ in layers]
    mask = None

    def watch(number: int):
        def hook(module, args) -> None:
            squares[number] += args[0][mask].square().sum(0)

        return hook

    handles = [
        layer.get_submodule(reader).register_forward_pre_hook(watch(number)) for number, layer in enumerate(layers)
    ]
    try:
        for batch in batches:
            mask = batch["attention_mask"].bool()
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return [square.sqrt() for square in squares]


@torch.no_grad()
def zero_weights(model: PreTrainedModel, share: float) -> dict[str, float]:
    """Set the smallest weights of every linear layer in the model's layers to zero, in place: magnitude pruning
    (arXiv 1506.02626), the same share of each matrix.

    Returns:
        `zeros`: the share of all the model's parameters that are zero now.
    """
    for linear in layers_of(model).modules():
        if isinstance(linear, nn.Linear):
            weight = linear.weight
            smallest = weight.abs().flatten().argsort()[: round(share * weight.numel())]
            weight.view(-1)[smallest] = 0.0
    parameters = list(model.parameters())
    zeros = sum(int((parameter == 0).sum()) for parameter in parameters)
    return {"zeros": zeros / sum(parameter.numel() for parameter in parameters)}
