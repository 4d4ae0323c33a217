"""What is trained? One shape per size, as a configuration of any family of transformers' own models.

A layer has 12 d^2 parameters in every family, biases and the prediction head included: each width inside the MLP is
what makes it so. Families differ in the rest as their papers do, with two exceptions for pretraining from scratch:

- No dropout. A run reads its corpus once or a few times, so there is nothing to memorise and dropout only slows it
  down (https://arxiv.org/abs/2212.14034). Fine-tuning may set its own.
- A decoder's input and output embeddings are apart, an encoder's are one where the class can: at 1M, each is what
  learns faster on that side (docs/LOG.md). ELECTRA and XLNet are apart. T5 is always tied.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lm_recipes.launch import UserError
from lm_recipes.models.size import Size, parameters_per_token

if TYPE_CHECKING:
    import torch

    from lm_recipes.objectives.isolation import Isolation

ENCODERS = ("modernbert", "bert", "roberta", "albert", "electra", "deberta_v2", "xlnet")
DECODERS = ("nanochat", "llama", "gpt2", "qwen3", "olmoe")
EXPERTS, EXPERTS_PER_TOKEN = 8, 2  # as in Mixtral (https://arxiv.org/abs/2401.04088): 12 d^2 met, 36 d^2 kept


def encoder_config(size: str, tokenizer, context: int, family: str = "modernbert"):
    """A configuration for `new_model`, to be trained with masked LM; `xlnet` with permutation LM.

    Args:
        size: a key of `SIZES`, or WIDTHxLAYERS.
        tokenizer: gives the vocabulary and the special token ids.
        context: the longest sequence, in tokens.
        family: one of `ENCODERS`.

    Raises:
        UserError: there is no such size or family.
    """
    opening, closing = tokenizer.cls_token_id, tokenizer.sep_token_id
    if opening is None:  # a GPT's tokenizer with a mask token
        opening, closing = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = {"bos_token_id": opening, "eos_token_id": closing}
    if family == "modernbert":
        ids |= {"cls_token_id": opening, "sep_token_id": closing}
    return _config(_known(family, ENCODERS), Size.named(size), tokenizer, context, ids)


def decoder_config(size: str, tokenizer, context: int, family: str = "nanochat"):
    """A configuration for `new_model`, to be trained with causal LM. Arguments as in `encoder_config`."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return _config(_known(family, DECODERS), Size.named(size), tokenizer, context, ids)


def encoder_decoder_config(size: str, tokenizer, context: int):
    """A T5 for `new_model`, to be trained with span corruption. Arguments as in `encoder_config`.

    Half of the layers read, half write, so that in all it is as large as an encoder or decoder of the same size.
    """
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    ids |= {"decoder_start_token_id": tokenizer.pad_token_id}
    return _config("t5", Size.named(size), tokenizer, context, ids)


def new_model(config, attn_implementation: str = "sdpa"):
    """A model with fresh weights that takes the masks of `isolation_of`; call `set_seed` before.

    `save_pretrained` writes what the family's class always writes.

    Args:
        attn_implementation: "sdpa" becomes "eager" where the class has no other (DeBERTa, XLNet); the model's
            `config._attn_implementation` says what it is.

    Raises:
        UserError: the class does not have, or the machine cannot run, this attention.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    from lm_recipes.objectives.span_corruption import isolate_encoder

    family = config.model_type.replace("-", "_")
    masked = family in ENCODERS and family != "xlnet"
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForMaskedLM if masked else AutoModelForCausalLM
    try:  # None: transformers takes sdpa if it can
        model = auto.from_config(
            config, attn_implementation=None if attn_implementation == "sdpa" else attn_implementation
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"--attn_implementation {attn_implementation}: {' '.join(str(error).split())}") from error
    if family == "deberta_v2":
        model.deberta.embeddings.register_forward_pre_hook(_keep_block_mask_from_embeddings, with_kwargs=True)
    if family == "t5":
        isolate_encoder(model)
    return model


def isolation_of(config, attn_implementation: str) -> "Isolation":
    """The form of mask and positions that a model of this config takes to keep packed pieces apart.

    Raises:
        UserError: it takes none, so that pieces would see each other or training fail.
    """
    from lm_recipes.objectives.isolation import Isolation

    family = config.model_type
    if family == "xlnet":
        raise UserError("xlnet: only permutation LM keeps the pieces of a block apart; use that objective")
    if family == "olmoe" and config.output_router_logits:
        raise UserError("olmoe: its balancing loss takes any mask for padding; use plain causal LM, which has none")
    if attn_implementation not in ("sdpa", "eager"):
        raise UserError(f"--attn_implementation {attn_implementation}: takes no mask by block; use sdpa or eager")
    return Isolation(
        local_attention=getattr(config, "local_attention", None),
        # DeBERTa reads a mask as booleans whatever its type: added zeros would be "may not attend".
        additive=attn_implementation == "eager" and family != "deberta-v2",
        first_position=_first_position(config),
    )


def override(config, changes: str | None) -> None:
    """Set what `changes` names ("num_attention_heads=4,tie_word_embeddings=false") in a configuration.

    Raises:
        UserError: it has no such setting, or not of such a type.
    """
    try:
        if changes:
            config.update_from_string(changes)
    except (ValueError, TypeError) as error:
        raise UserError(f"--config_overrides {changes}: {error}; write name=value,name=value") from error


def positions_of(config) -> int | None:
    """How many tokens a text may have, in a model of this config; None: any number (XLNet, T5)."""
    positions = getattr(config, "max_position_embeddings", None)
    return positions - _first_position(config) if positions is not None and positions > 0 else None


def _first_position(config) -> int:
    """What positions start at: RoBERTa keeps those up to padding's id free."""
    return config.pad_token_id + 1 if config.model_type == "roberta" else 0


def expert_load(router_logits: "tuple[torch.Tensor, ...]", top_k: int) -> "torch.Tensor":
    """Which share of the tokens' choices goes to which expert: float32 `[layers, experts]`, each row adds up to 1.

    A balanced layer has 1 / experts everywhere; an expert at 0 learns nothing.

    Args:
        router_logits: per layer `[tokens, experts]`, as the model's output has them (`output_router_logits=True`).
        top_k: experts per token (`config.num_experts_per_tok`).
    """
    import torch

    logits = torch.stack([layer.detach() for layer in router_logits])
    chosen = torch.zeros_like(logits, dtype=torch.float32).scatter_(-1, logits.topk(top_k, dim=-1).indices, 1.0)
    return chosen.mean(1) / top_k


def _keep_block_mask_from_embeddings(embeddings, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """DeBERTa multiplies its embeddings by the mask, to blank padding: impossible, and needless, with one by block."""
    mask = kwargs.get("mask")
    return args, kwargs | {"mask": None} if mask is not None and mask.ndim == 4 else kwargs


def _known(family: str, families: tuple[str, ...]) -> str:
    if family not in families:
        raise UserError(f"--family {family}: there is no such family; choose one of {', '.join(families)}")
    return family


def _config(family: str, size: Size, tokenizer, context: int, ids: dict[str, int | None]):
    """The family's settings with the width inside the MLP that gives the size its parameters."""
    from transformers import AutoConfig

    def config_with(inner: int):
        return AutoConfig.for_model(
            family.replace("deberta_v2", "deberta-v2"),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            **ids,
            **_SETTINGS[family](size, context, inner, tokenizer.pad_token_id),
        )

    return config_with(_inner_width(config_with, size))


def _inner_width(config_with: Callable, size: Size) -> int:
    """The width, a multiple of what suits the hardware, that comes nearest to the size's parameters.

    Two models without memory behind them tell what a model costs and what each unit of the width does.
    """
    import torch

    def parameters(inner: int) -> int:
        with torch.device("meta"):
            return parameters_per_token(new_model(config_with(inner)))

    step = 4 if size.width < 128 else 8 if size.width < 512 else 32
    base, more = parameters(step), parameters(2 * step)
    return step * max(round(1 + (size.parameters - base) / (more - base)), 1)


def _shape(size: Size) -> dict:
    return {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }


def _modernbert(size: Size, context: int, inner: int, pad: int) -> dict:
    # mean pooling: with local attention [CLS] does not see all of a text in every layer
    own = {"classifier_pooling": "mean"}
    return _shape(size) | {"intermediate_size": inner, "max_position_embeddings": context} | own


def _bert(size: Size, context: int, inner: int, pad: int) -> dict:
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return _shape(size) | {"intermediate_size": inner, "max_position_embeddings": context} | no_dropout


def _roberta(size: Size, context: int, inner: int, pad: int) -> dict:
    return _bert(size, context + pad + 1, inner, pad) | {"type_vocab_size": 1}  # as published; it has no segments


def _albert(size: Size, context: int, inner: int, pad: int) -> dict:
    # One layer, used `layers` times: the parameters of one, the computation of all.
    return _bert(size, context, inner, pad) | {"embedding_size": min(size.width, 128)}


def _electra(size: Size, context: int, inner: int, pad: int) -> dict:
    return _bert(size, context, inner, pad) | {"embedding_size": size.width, "tie_word_embeddings": False}


def _deberta_v2(size: Size, context: int, inner: int, pad: int) -> dict:
    """DeBERTa-v3's settings (https://arxiv.org/abs/2111.09543): relative positions only, in 256 buckets a side."""
    return _bert(size, context, inner, pad) | {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 256 if context > 256 else -1,  # fewer positions than buckets: a row for each
    }


def _xlnet(size: Size, context: int, inner: int, pad: int) -> dict:
    # no memory: it would carry hidden states from one block to the next, which is another document
    own = {"dropout": 0.0, "mem_len": None, "use_mems_eval": False, "tie_word_embeddings": False}
    return _shape(size) | {"d_inner": inner, "d_head": size.width // size.heads} | own


def _nanochat(size: Size, context: int, inner: int, pad: int) -> dict:
    # The cap costs a sixth of a training step on a CPU (results/) and was worth nothing at 1M (docs/LOG.md).
    own = {"final_logit_softcapping": None}
    return _shape(size) | {"intermediate_size": inner, "max_position_embeddings": context} | own


def _llama(size: Size, context: int, inner: int, pad: int) -> dict:
    return _shape(size) | {"intermediate_size": inner, "max_position_embeddings": context}


def _qwen3(size: Size, context: int, inner: int, pad: int) -> dict:
    heads = {"num_key_value_heads": size.heads, "head_dim": size.width // size.heads}  # its defaults are an 8B model's
    return _llama(size, context, inner, pad) | heads


def _gpt2(size: Size, context: int, inner: int, pad: int) -> dict:
    own = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "tie_word_embeddings": False}
    return _shape(size) | {"n_inner": inner, "max_position_embeddings": context} | own


def _olmoe(size: Size, context: int, inner: int, pad: int) -> dict:
    return _llama(size, context, inner, pad) | {
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "norm_topk_prob": True,  # the outputs of the chosen experts then add up to one MLP's, as in Mixtral and Qwen3
        "output_router_logits": True,  # without them there is no balancing loss
    }


def _t5(size: Size, context: int, inner: int, pad: int) -> dict:
    """T5 v1.1's gated MLP and no dropout in pretraining; its positions are relative, for texts of any length."""
    own = {"feed_forward_proj": "gated-gelu", "dropout_rate": 0.0}
    heads = {"num_heads": size.heads, "d_kv": size.width // size.heads}
    layers = {"num_layers": size.layers - size.layers // 2, "num_decoder_layers": size.layers // 2}
    return own | heads | layers | {"d_model": size.width, "d_ff": inner}


_SETTINGS: dict[str, Callable[[Size, int, int, int], dict]] = {
    "modernbert": _modernbert,
    "bert": _bert,
    "roberta": _roberta,
    "albert": _albert,
    "electra": _electra,
    "deberta_v2": _deberta_v2,
    "xlnet": _xlnet,
    "nanochat": _nanochat,
    "llama": _llama,
    "gpt2": _gpt2,
    "qwen3": _qwen3,
    "olmoe": _olmoe,
    "t5": _t5,
}
