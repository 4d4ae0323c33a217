"""One dial, two tracks: an encoder and a decoder of the same width, depth, heads and parameters.

A layer has 12 d^2 parameters on either track: 4 d^2 in attention; in the MLP 2 x d x 4d (NanoChat's ReLU^2) or
3 x d x 8d/3 (ModernBERT's gated GELU). Both keep their input and output embeddings apart.
"""

from dataclasses import dataclass

from lm_recipes.launch import UserError
from lm_recipes.objectives.isolation import Isolation


@dataclass(frozen=True)
class Size:
    width: int
    layers: int

    @property
    def heads(self) -> int:
        return max(self.width // 64, 1)


# Named after the parameters inside the layers at the small end (embeddings depend on the vocabulary), and after
# their well-known cousins from 124M up.
SIZES = {
    "tiny": Size(64, 2),  # for tests
    "1M": Size(128, 4),
    "3M": Size(192, 6),
    "10M": Size(320, 8),
    "30M": Size(512, 10),
    "124M": Size(768, 12),
    "350M": Size(1024, 24),
    "1B": Size(2048, 18),
}


def _size(name: str) -> Size:
    if name not in SIZES:
        raise UserError(f"--size {name}: there is no such size; choose one of {', '.join(SIZES)}")
    return SIZES[name]


def decoder_config(size: str, tokenizer, context: int):
    """A NanoChat decoder (RoPE, QK-norm, ReLU^2, no biases) for `AutoModelForCausalLM.from_config`.

    Args:
        size: a key of `SIZES`.
        tokenizer: gives the vocabulary and the special token ids.
        context: the longest sequence, in tokens.
    """
    from transformers import NanoChatConfig

    dial = _size(size)
    return NanoChatConfig(
        vocab_size=len(tokenizer),
        hidden_size=dial.width,
        intermediate_size=4 * dial.width,
        num_hidden_layers=dial.layers,
        num_attention_heads=dial.heads,
        max_position_embeddings=context,
        # The cap costs an eighth of a training step on a CPU (results/) and was worth nothing at 1M (docs/LOG.md).
        final_logit_softcapping=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def encoder_config(size: str, tokenizer, context: int):
    """A ModernBERT encoder (RoPE, gated GELU, local and global attention) for `AutoModelForMaskedLM.from_config`.

    Arguments as in `decoder_config`. The output embedding is untied, so that both tracks have the same parameters.
    """
    from transformers import ModernBertConfig

    dial = _size(size)
    return ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dial.width,
        intermediate_size=round(dial.width / 3) * 8,
        num_hidden_layers=dial.layers,
        num_attention_heads=dial.heads,
        max_position_embeddings=context,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        classifier_pooling="mean",
        tie_word_embeddings=False,
    )


def isolation_of(config, attn_implementation: str) -> Isolation:
    """The form of mask and positions that a model of this config takes to keep packed pieces apart."""
    return Isolation(getattr(config, "local_attention", None), additive=attn_implementation == "eager")


def count_parameters(model) -> dict[str, int]:
    """Parameters of a model: all, and those outside the input and output embeddings."""
    embeddings = {id(layer.weight): layer.weight.numel() for layer in _embeddings(model)}
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": total, "non_embedding_parameters": total - sum(embeddings.values())}


def _embeddings(model) -> list:
    return [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
