"""How large is a model? The size dial, and what it comes to in parameters and FLOPs."""

import re
from dataclasses import dataclass

from lm_recipes.launch import UserError


@dataclass(frozen=True)
class Size:
    width: int
    layers: int

    @property
    def heads(self) -> int:
        return max(self.width // 64, 1)

    @property
    def parameters(self) -> int:
        """What every family is made to have between its embeddings: 12 d^2 a layer."""
        return 12 * self.width**2 * self.layers

    @classmethod
    def named(cls, name: str) -> "Size":
        """One of `SIZES`, or a shape of one's own: `160x3` is three layers of width 160.

        Raises:
            UserError: neither, or a width that cannot be divided into heads of about 64, each of an even width.
        """
        if name in SIZES:
            return SIZES[name]
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
            known = ", ".join(SIZES)
            raise UserError(f"--size {name}: there is no such size; choose one of {known}, or WIDTHxLAYERS")
        size = cls(*map(int, name.split("x")))
        if size.width % (2 * size.heads):
            raise UserError(f"--size {name}: {size.heads} heads do not divide the width; take a multiple of 64")
        return size

    def neighbours(self) -> list[str]:
        """Two shapes of about as many parameters: narrower and deeper by a quarter of the width, and the reverse."""
        widths = [round(self.width * share / 32) * 32 for share in (0.75, 1.25)]
        return [f"{width}x{max(round(self.layers * (self.width / width) ** 2), 1)}" for width in widths]


# Named after the parameters inside the layers at the small end (embeddings depend on the vocabulary), and after
# their well-known cousins from 124M up. 1M and 3M are as measured on two cores (results/bench-dial).
SIZES = {
    "tiny": Size(64, 2),  # for tests
    "1M": Size(128, 4),
    "3M": Size(256, 3),
    "10M": Size(320, 8),
    "30M": Size(512, 10),
    "124M": Size(768, 12),
    "350M": Size(1024, 24),
    "1B": Size(2048, 18),
}


def count_parameters(model) -> dict[str, int]:
    """Parameters of a model: all, and those that are neither looked up in a table nor in the output layer.

    Tables of positions and token types count as embeddings (as in https://arxiv.org/abs/2001.08361); biases, norms
    and what stands between the last layer and the output layer do not.
    """
    embeddings = _embeddings(model)
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    inside = sum(size for identity, size in sizes.items() if identity not in embeddings)
    return {"parameters": sum(sizes.values()), "non_embedding_parameters": inside}


def parameters_per_token(model, part: str = "") -> int:
    """Non-embedding parameters as one token meets them: of the experts only those it is sent to, and layers that are
    used several times (ALBERT) several times. For all other families it is what `count_parameters` says.

    Args:
        part: count only parameters whose name begins with this.
    """
    config, embeddings = model.config, _embeddings(model)
    met = 0
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings or not name.startswith(part):
            continue
        if ".experts." in name:
            met += parameter.numel() * config.num_experts_per_tok // config.num_experts
        elif ".albert_layer_groups." in name:
            met += parameter.numel() * config.num_hidden_layers // config.num_hidden_groups
        else:
            met += parameter.numel()
    return met


def flops_per_token(model, context: int, asked: float = 1.0) -> int:
    """Floating point operations that training spends on a token: forward, and backward for twice that.

    Forward is 2 for each parameter the token meets (Kaplan et al., https://arxiv.org/abs/2001.08361), the output layer
    included and lookups not, and 4 d for each token it may attend to (PaLM, https://arxiv.org/abs/2204.02311, appendix
    B). As there, a causal token is counted as if it attended to the whole block; one in a sliding window to the window.
    What is done once per batch (projecting a table of relative positions) is left out, as are norms, softmax and
    recomputed activations.

    Args:
        model: on any device, meta included.
        context: tokens per block.
        asked: share of the tokens whose logits are computed: `mlm_probability` where the head sees masked positions
            only. For an encoder-decoder, tokens of the decoder per token of the encoder.
    """
    config = model.config
    head = asked * model.get_output_embeddings().weight.numel()
    if config.is_encoder_decoder:
        return round(3 * (_encoder_decoder_flops(model, context, asked) + 2 * head))
    parameters = parameters_per_token(model)
    if config.model_type == "xlnet":  # a second stream has all but keys and values again, 2 L positions have a key each
        parameters = 2 * (parameters - config.num_hidden_layers * config.hidden_size**2)
    return round(3 * (2 * (parameters + head) + _attention_flops(config, context)))


def _attention_flops(config, context: int) -> int:
    """Scores and weighted sums of one token in all layers, forward."""
    width, layers = config.hidden_size, config.num_hidden_layers
    if config.model_type == "xlnet":  # per stream 2 d L for contents, 4 d L for positions and 2 d L for the sum
        return layers * 20 * width * context  # and 4 d L to pick the targets
    if config.model_type == "deberta-v2":  # scores with 2 x span positions, from either side
        span = config.position_buckets if config.position_buckets > 0 else config.max_position_embeddings
        return layers * width * (4 * context + 8 * span)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    window = getattr(config, "local_attention", context) + 1
    return sum(4 * width * (min(context, window) if kind == "sliding_attention" else context) for kind in kinds)


def _encoder_decoder_flops(model, context: int, targets: float) -> float:
    """Forward FLOPs of encoder and decoder per token of the encoder."""
    config, width = model.config, model.config.num_attention_heads * model.config.head_dim
    encoder, decoder = parameters_per_token(model, "encoder."), parameters_per_token(model, "decoder.")
    cross = 2 * config.hidden_size * width * config.num_decoder_layers  # keys and values, of the encoder's tokens
    read = 2 * (encoder + cross) + 4 * width * context * config.num_layers
    written = 2 * (decoder - cross) + 4 * width * context * (1 + targets) * config.num_decoder_layers
    return read + targets * written


def describe_model(model, context: int, asked: float = 1.0) -> str:
    """A line for the log: family, layers x width, parameters, FLOPs. Arguments as in `flops_per_token`."""
    config, counts = model.config, count_parameters(model)
    inside, met = counts["non_embedding_parameters"], parameters_per_token(model)
    layers = str(config.num_hidden_layers)
    if config.is_encoder_decoder:
        layers += f"+{config.num_decoder_layers}"
    per_token = "" if met == inside else f" ({_short(met)} per token)"
    return (
        f"{config.model_type} {layers} x {config.hidden_size}: {_short(inside)} parameters{per_token} + "
        f"{_short(counts['parameters'] - inside)} embeddings, {_short(flops_per_token(model, context, asked))}FLOPs "
        "per token"
    )


def _short(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.3g} "


def _embeddings(model) -> set[int]:
    """The ids of all parameters that are looked up in a table or stand in the output layer."""
    from torch import nn

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]
    output = model.get_output_embeddings()
    return {
        id(parameter)
        for layer in [*layers, *([output] if output is not None else [])]
        for parameter in layer.parameters()
    }
