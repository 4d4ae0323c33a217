"""Tokenizers and models small enough to make in a test, of the classes the recipes make.

Weights are random with a large deviation, so that predictions differ from token to token and text to text.
"""

import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    NanoChatConfig,
    NanoChatForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

TEXT = [
    "the quick brown fox jumps over the lazy dog, and the dog barks at the fox.",
    "a doctor asks the patient how the knee has been since the fall.",
    "paris is the capital of france; rome is the capital of italy.",
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gpt_tokenizer(vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of recipes/corpus/train_tokenizer.py."""
    special = ["<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        extra_special_tokens=special[3:],
    )


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece with [CLS] $A [SEP], of words, letters and pairs of letters of TEXT (its trainer breaks ties at random,
    so one process would not have the tokens of another)."""
    words = {word for line in TEXT for word in re.findall(r"\w+|[^\w\s]", line)}
    starts = words | {letter for word in words for letter in word}
    inner = {f"##{word[i : i + n]}" for word in words for i in range(len(word)) for n in (1, 2)}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(starts), *sorted(inner)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _shape(vocab_size: int, context: int) -> dict:
    return {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.4,
    }


def gpt(kind: str = "nanochat", vocab_size: int = 320, context: int = 128, seed: int = 0) -> PreTrainedModel:
    """A tiny NanoChat or Llama; ids 0, 1, 2 are pad, bos, eos."""
    classes = {"nanochat": (NanoChatConfig, NanoChatForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    config_class, model_class = classes[kind]
    torch.manual_seed(seed)
    config = config_class(
        **_shape(vocab_size, context), num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    return model_class(config).eval()


def bert_config(kind: str, vocab_size: int, context: int = 64, **more: object) -> PretrainedConfig:
    """Of a tiny BERT or ModernBERT for `AutoModelFor...from_config`."""
    if kind == "bert":
        return BertConfig(**_shape(vocab_size, context), **more)
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    return ModernBertConfig(**_shape(vocab_size, context), **special, initializer_cutoff_factor=2.0, **more)


def save(directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> str:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def enlarge(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough that a leak shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model.eval()
