"""How does a tokenizer come from text? BPE, parity-aware BPE and Unigram over bytes, and BERT's WordPiece."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_recipes.launch import UserError
from lm_recipes.tokenization.special import BERT_TOKENS, GPT_TOKENS, MASK_TOKEN, reserved_tokens
from lm_recipes.tokenization.unigram import unigram_pieces
from lm_recipes.tokenization.wordpiece import train_wordpiece

logger = logging.getLogger(__name__)

MODEL_TYPES = ("bpe", "wordpiece", "unigram", "parity_bpe")

# What no token crosses, as published with these models. They differ in numbers: GPT-2's keeps a run of digits whole,
# GPT-4's cuts it into groups of three from the left, Qwen2's into digits.
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {"gpt2": None, "gpt4": _GPT4, "qwen2": _GPT4.replace("{1,3}", "")}


def train_tokenizer(
    texts: Iterable[str] | Mapping[str, Iterable[str]],
    model_type: str,
    vocab_size: int,
    *,
    reserved: Sequence[str] = (),
    pre_tokenizer: str = "gpt2",
    parity_ratios: Sequence[float] | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` entries, special tokens included, ready for `save_pretrained`.

    The same texts in the same order give the same tokenizer. Too little text gives a smaller one, with a warning.

    Args:
        texts: held in memory while training; for "parity_bpe" those of each language, by its name.
        model_type: "bpe", "unigram", "parity_bpe" (all three lossless on any Unicode string) or "wordpiece".
        reserved: special tokens to put aside; see `special.reserved_tokens`. They are part of `vocab_size`.
        pre_tokenizer: a key of `PRE_TOKENIZERS`; WordPiece has BERT's own.
        parity_ratios: wanted bytes per token of the languages, in proportion to each other; default: equal.

    Raises:
        UserError: for another model type or pre-tokenizer, a vocabulary too small for its alphabet, or parity
            between fewer than two languages.
    """
    if model_type not in MODEL_TYPES:
        raise UserError(f"model_type: `{model_type}` is none of {', '.join(MODEL_TYPES)}")
    if pre_tokenizer not in PRE_TOKENIZERS:
        raise UserError(f"pre_tokenizer: `{pre_tokenizer}` is none of {', '.join(PRE_TOKENIZERS)}")
    aside = reserved_tokens(reserved)
    smallest = len(aside) + (128 if model_type == "wordpiece" else 256 + len(GPT_TOKENS))
    if vocab_size < smallest:
        raise UserError(f"vocab_size: {vocab_size} is too small for {model_type}; take at least {smallest}")
    languages = texts if isinstance(texts, Mapping) else {"": texts}
    together = chain.from_iterable(languages.values())
    if model_type == "wordpiece":
        tokenizer = train_wordpiece(list(together), vocab_size, aside)
    else:
        special, cuts = [*GPT_TOKENS, *aside], _byte_level(pre_tokenizer)
        if model_type == "bpe":
            model = _train_bpe(together, vocab_size, special, cuts)
        elif model_type == "unigram":
            model = _train_unigram(together, vocab_size, special, cuts)
        else:
            model = _train_parity_bpe(languages, vocab_size, special, cuts, parity_ratios)
        tokenizer = _gpt_tokenizer(model, cuts, aside)
    if len(tokenizer) != vocab_size:
        logger.warning("vocab_size: the text has only %d pieces of the %d asked for", len(tokenizer), vocab_size)
    return tokenizer


def _byte_level(name: str) -> pre_tokenizers.PreTokenizer:
    """Words in the alphabet of 256 characters that stand for bytes: any Unicode string can be written in it."""
    if PRE_TOKENIZERS[name] is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZERS[name]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _train_bpe(texts: Iterable[str], vocab_size: int, special: list[str], cuts) -> models.Model:
    """GPT-2's byte-level BPE (Radford et al. 2019)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cuts
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.model


def _train_parity_bpe(
    languages: Mapping[str, Iterable[str]], vocab_size: int, special: list[str], cuts, ratios: Sequence[float] | None
) -> models.Model:
    """Parity-aware BPE (Foroutan et al. 2026, https://arxiv.org/abs/2508.04796): each merge is the best one for the
    language that is compressed least so far, so that no language pays for having less text."""
    if len(languages) < 2:
        raise UserError(
            "parity_bpe balances languages and found one; name several corpora, or the column that tells "
            "languages apart (language_column)"
        )
    ratios = list(ratios or [1.0] * len(languages))
    if len(ratios) != len(languages) or min(ratios) <= 0:
        raise UserError(f"parity_ratios: one number above 0 for each of {', '.join(languages)} is needed")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = cuts
    trainer = trainers.ParityBpeTrainer(
        num_merges=vocab_size,
        total_symbols=True,  # num_merges is the size of the whole vocabulary
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trainer.train_from_iterator(tokenizer, [iter(texts) for texts in languages.values()], ratio=ratios)
    return tokenizer.model


def _train_unigram(texts: Iterable[str], vocab_size: int, special: list[str], cuts) -> models.Model:
    """Unigram over bytes: no unknown token and nothing normalised, unlike SentencePiece's own tokenizers, which
    lose runs of spaces and write a leading space as U+2581, so that a text with that character changes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = unigram_pieces(texts, cuts, alphabet, vocab_size - len(special))
    return models.Unigram([*((token, 0.0) for token in special), *pieces])


def _gpt_tokenizer(model: models.Model, cuts, reserved: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Nothing is added around a text: packing decides where documents begin and end."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = cuts
    tokenizer.decoder = decoders.ByteLevel()
    # Offsets without the leading space, so that a span of tokens is a span of words.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    pad, bos, eos, *chat = GPT_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        mask_token=MASK_TOKEN if MASK_TOKEN in reserved else None,
        extra_special_tokens=[*chat, *(token for token in reserved if token != MASK_TOKEN)],
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


__all__ = ["BERT_TOKENS", "GPT_TOKENS", "MODEL_TYPES", "PRE_TOKENIZERS", "train_tokenizer"]
