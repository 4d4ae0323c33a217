"""How does a tokenizer come from text? WordPiece for the BERT track, byte-level BPE for the GPT track."""

import logging
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_recipes.launch import UserError

logger = logging.getLogger(__name__)

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0..4
GPT_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")  # ids 0..4; the last two are for chats

# That of bert-base-uncased: lower case, no accents, punctuation and Chinese characters are words of their own.
BERT_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
BERT_WORDS = pre_tokenizers.BertPreTokenizer()


def train_tokenizer(texts: Iterable[str], model_type: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` entries, special tokens included, ready for `save_pretrained`.

    The same texts in the same order give the same tokenizer. Too little text gives a smaller one, with a warning.

    Args:
        texts: held in memory while training.
        model_type: "bpe" or "wordpiece".

    Raises:
        UserError: for another model type, or a vocabulary too small for its alphabet.
    """
    if model_type not in ("bpe", "wordpiece"):
        raise UserError(f"model_type: `{model_type}` is neither bpe nor wordpiece")
    smallest = 256 + len(GPT_TOKENS) if model_type == "bpe" else 128
    if vocab_size < smallest:
        raise UserError(f"vocab_size: {vocab_size} is too small for {model_type}; take at least {smallest}")
    tokenizer = (_train_bpe if model_type == "bpe" else _train_wordpiece)(list(texts), vocab_size)
    if len(tokenizer) != vocab_size:
        logger.warning("vocab_size: the text has only %d pieces of the %d asked for", len(tokenizer), vocab_size)
    return tokenizer


def _train_bpe(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """GPT-2's byte-level BPE (Radford et al. 2019): lossless on any Unicode string, no unknown token.

    Nothing is added around a text: packing decides where documents begin and end.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Offsets without the leading space, so that a span of tokens is a span of words.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(GPT_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, bos, eos, *chat = GPT_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=chat,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _train_wordpiece(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """BERT's WordPiece (Devlin et al. 2019)."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BERT_NORMALIZER, BERT_WORDS
    alphabet = _frequent_characters(texts, min(1000, max(60, vocab_size // 16)))
    # The trainer numbers continuations (##a) as a hash map happens to yield them, and that number breaks ties between
    # merges: no two runs would agree. Named as special tokens they are numbered in our order; below they are not.
    inside_words = [c for c in alphabet if len(BERT_WORDS.pre_tokenize_str(f"a{c}a")) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*BERT_TOKENS, *(f"##{character}" for character in inside_words)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wordpiece(tokenizer.get_vocab())


def _wordpiece(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    pad, unk, cls, sep, mask = BERT_TOKENS
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BERT_NORMALIZER, BERT_WORDS
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_input_names=["input_ids", "attention_mask"],  # ModernBERT has no token types
        clean_up_tokenization_spaces=False,
    )


def _frequent_characters(texts: list[str], limit: int) -> list[str]:
    """The `limit` most frequent characters. Each costs two entries (alone and as ##continuation), so rare scripts
    would fill a small vocabulary; and the trainer's own limit breaks ties at random, so no two runs would agree."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for normalized in set(BERT_NORMALIZER.normalize_str(character)) - {" "}:
            counts[normalized] += count
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]
