"""How does a decoder become a GGUF file that llama.cpp runs?

The file holds everything: weights under ggml's names, the shape, and a byte-level BPE tokenizer with its special tokens
and chat template. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.launch import UserError
from lm_recipes.tokenization.training import PRE_TOKENIZERS

# model_type -> ggml's architecture, whether it wants the two halves of a rotary head interleaved
FAMILIES = {"llama": True, "qwen2": False, "qwen3": False}
# What the file's type is called, in the metadata as well. Smaller ones (Q4_K_M, ...) are llama.cpp's own to make, with
# `llama-quantize model-f16.gguf out.gguf Q4_K_M`: the gguf package reads but does not write them.
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
BLOCK = 32  # weights that share a scale in q8_0 and q4_0


def export_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path, kind: str) -> None:
    """Write a GGUF file.

    In 8 and 4 bits the embeddings and the output layer are kept at 8, which llama.cpp's own quantizer does in its way
    too; norms and biases are always float32. A matrix whose rows are no multiple of 32 stays float16.

    Args:
        model: a decoder of FAMILIES, in float32 on the CPU. tokenizer: byte-level BPE.
        kind: a key of FILE_TYPES.

    Raises:
        UserError: llama.cpp has no such architecture or tokenizer, or the gguf package is missing.
    """
    if kind not in FILE_TYPES:
        raise UserError(f"--type {kind}: must be one of {', '.join(FILE_TYPES)}")
    _refuse_family(model.config)
    vocabulary = Vocabulary.of(tokenizer, model.get_input_embeddings().num_embeddings)
    if find_spec("gguf") is None:
        raise UserError("GGUF needs the gguf package: pip install -e '.[export]'")
    import gguf

    writer = gguf.GGUFWriter(path, model.config.model_type)
    _add_shape(writer, model.config, kind)
    _add_tokenizer(writer, tokenizer, vocabulary, model)
    for name, weights, qtype in tqdm(list(_tensors(model, kind)), desc="gguf", disable=None):
        packed = gguf.quants.quantize(weights, qtype)
        writer.add_tensor(name, packed, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _refuse_family(config) -> None:
    if config.model_type not in FAMILIES:
        raise UserError(
            f"{config.model_type}: no GGUF; llama.cpp runs what was pretrained with --family llama or qwen3 (or is a "
            "llama, qwen2 or qwen3 from elsewhere)"
        )
    rope = config.rope_parameters or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{config.model_type} with {rope['rope_type']} rotary embeddings: not exported to GGUF")
    if getattr(config, "use_sliding_window", False):
        raise UserError(f"{config.model_type} with sliding attention: not exported to GGUF")


def _add_shape(writer, config, kind: str) -> None:
    import gguf

    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(config.model_type)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10_000.0)))
    writer.add_vocab_size(config.vocab_size)


def _tensors(model: PreTrainedModel, kind: str):
    """ggml's name, float32 weights and type of each tensor; not of a tied output layer: ggml takes the embeddings."""
    import gguf

    config = model.config
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for hf_name, tensor in model.state_dict().items():
        if hf_name == "lm_head.weight" and tied:
            continue
        name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError(f"{hf_name}: llama.cpp's {config.model_type} has no such tensor")
        weights = tensor.to(torch.float32).numpy()
        if FAMILIES[config.model_type] and ".self_attn.q_proj." in hf_name:
            weights = _interleaved(weights, config.num_attention_heads)
        if FAMILIES[config.model_type] and ".self_attn.k_proj." in hf_name:
            weights = _interleaved(weights, config.num_key_value_heads)
        yield name, np.ascontiguousarray(weights), _type(gguf.GGMLQuantizationType, name, weights, kind)


def _interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as ggml's llama rotates them: neighbours are a pair, where transformers pairs a row of a
    head's first half with one of its second."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _type(types, name: str, weights: np.ndarray, kind: str):
    if weights.ndim == 1 or kind == "f32":
        return types.F32
    if kind == "f16" or weights.shape[-1] % BLOCK:
        return types.F16
    return types.Q8_0 if kind == "q8_0" or name in ("token_embd.weight", "output.weight") else types.Q4_0


# --- the tokenizer ---


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE tokenizer as ggml spells it."""

    tokens: list[str]  # by id
    special: frozenset[int]  # ids of control tokens
    added: frozenset[int]  # ids of other tokens that are found whole in a text
    unused: frozenset[int]  # ids without a token
    merges: list[str]  # "left right", in their order
    pre: str  # llama.cpp's name for what no token crosses

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, size: int) -> "Vocabulary":
        """Of a tokenizer whose model has embeddings for `size` tokens.

        Raises:
            UserError: it is no byte-level BPE, cuts words as nothing llama.cpp knows, or has more tokens.
        """
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        model = described["model"]
        if model["type"] != "BPE" or (described.get("decoder") or {}).get("type") != "ByteLevel":
            raise UserError(
                f"{tokenizer.name_or_path}: a {model['type']} tokenizer; GGUF takes byte-level BPE (--model_type bpe)"
            )
        ids = tokenizer.get_vocab()
        if max(ids.values()) >= size:
            raise UserError(f"{tokenizer.name_or_path}: {max(ids.values()) + 1} tokens, but {size} embeddings")
        tokens = [f"[PAD{number}]" for number in range(size)]
        for token, number in ids.items():
            tokens[number] = token
        apart = dict(tokenizer.added_tokens_decoder)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return cls(
            tokens=tokens,
            special=frozenset(number for number, token in apart.items() if token.special),
            added=frozenset(number for number, token in apart.items() if not token.special),
            unused=frozenset(range(size)) - frozenset(ids.values()),
            merges=merges,
            pre=_pre_tokenizer(described, model),
        )


def _pre_tokenizer(described: dict, model: dict) -> str:
    """llama.cpp's name of a pre-tokenizer (`tokenizer.ggml.pre`), which its source spells out by hand."""
    step = described["pre_tokenizer"] or {}
    steps = step.get("pretokenizers", [step])
    if described.get("normalizer") is None and not any(one.get("add_prefix_space") for one in steps):
        kinds = [one.get("type") for one in steps]
        own_regex = steps[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and own_regex:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and own_regex:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not own_regex:
            regex = steps[0]["pattern"].get("Regex")
            if regex == PRE_TOKENIZERS["qwen2"]:
                return "qwen2"
            if regex == PRE_TOKENIZERS["gpt4"]:  # Llama 3's is the same, but takes whole words before it merges
                return "llama-bpe" if model.get("ignore_merges") else "dbrx"
    raise UserError(
        "the tokenizer cuts text in a way that llama.cpp has no name for; it knows --pre_tokenizer gpt2, gpt4 and qwen2"
    )


def _add_tokenizer(writer, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, model: PreTrainedModel) -> None:
    import gguf

    kinds = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    for numbers, kind in (
        (vocabulary.special, gguf.TokenType.CONTROL),
        (vocabulary.added, gguf.TokenType.USER_DEFINED),
        (vocabulary.unused, gguf.TokenType.UNUSED),
    ):
        for number in numbers:
            kinds[number] = kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(vocabulary.merges)
    ends = model.generation_config.eos_token_id  # fine-tuning may have changed what ends a turn
    end = (ends[0] if isinstance(ends, list) else ends) if ends is not None else tokenizer.eos_token_id
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, end),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if number is not None:
            add(number)
    around = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and around[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
