"""How does a WordPiece vocabulary come from text, and the same one every time?"""

from collections import Counter

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_recipes.tokenization.special import BERT_TOKENS

# That of bert-base-uncased: lower case, no accents, punctuation and Chinese characters are words of their own.
BERT_NORMALIZER = normalizers.BertNormalizer(lowercase=True)
BERT_WORDS = pre_tokenizers.BertPreTokenizer()


def train_wordpiece(texts: list[str], vocab_size: int, reserved: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """BERT's WordPiece (Devlin et al. 2019)."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BERT_NORMALIZER, BERT_WORDS
    alphabet = _frequent_characters(texts, min(1000, max(60, vocab_size // 16)))
    # The trainer numbers continuations (##a) as a hash map happens to yield them, and that number breaks ties between
    # merges: no two runs would agree. Named as special tokens they are numbered in our order; below they are not.
    inside_words = [c for c in alphabet if len(BERT_WORDS.pre_tokenize_str(f"a{c}a")) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*BERT_TOKENS, *reserved, *(f"##{character}" for character in inside_words)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wordpiece(tokenizer.get_vocab(), reserved)


def _wordpiece(vocabulary: dict[str, int], reserved: tuple[str, ...]) -> PreTrainedTokenizerFast:
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
        extra_special_tokens=list(reserved),
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
