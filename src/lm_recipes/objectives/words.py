"""Where does a word begin, in ids alone? Packed ids carry no offsets, and the answer differs by tokenizer."""

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np

_SPACE, _LETTER, _NUMBER, _OTHER, _OPENING = range(5)


@dataclass(frozen=True)
class WordStarts:
    """Marks the first token of each word: `[L]` ids to bool `[L]`.

    WordPiece: a token continues a word if it starts with `##`. Byte-level BPE and Metaspace (Unigram): a token
    starts a word if it begins with a space (a run of spaces is one word), or where letters, numbers and other
    signs meet, which is how GPT-2's pre-tokenizer cuts; only contractions stay whole here. A part of a character
    counts as a letter.
    """

    joins: np.ndarray  # bool [V]: may continue a word
    first: np.ndarray  # uint8 [V]: kind of the first character
    last: np.ndarray  # uint8 [V]: kind of the last character

    @classmethod
    def for_tokenizer(cls, tokenizer) -> "WordStarts":
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(tokenizer.all_special_tokens)
        if any(token.startswith("##") for token in tokens):
            same = np.zeros(len(tokens), dtype=np.uint8)
            return cls(np.array([t.startswith("##") and t not in special for t in tokens]), same, same)
        texts = [_text(token) for token in tokens]
        joins = [
            token not in special and text != " " and (text.isspace() or not text[:1].isspace())
            for text, token in zip(texts, tokens, strict=True)
        ]
        return cls(
            np.array(joins),
            np.array([_kind(t[0]) if t else _SPACE for t in texts], dtype=np.uint8),
            # a space that is a token of its own belongs to whatever follows
            np.array([_OPENING if t == " " else _kind(t[-1]) if t else _SPACE for t in texts], dtype=np.uint8),
        )

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        starts = ~self.joins[ids]
        first, before = self.first[ids[1:]], self.last[ids[:-1]]
        starts[1:] |= (first != before) & (before != _OPENING)
        starts[:1] = True
        return starts


@cache
def _byte_of_character() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def _text(token: str) -> str:
    """The text behind a vocabulary entry; bytes that are no character of their own come out as U+FFFD."""
    to_byte = _byte_of_character()
    if token.startswith("▁"):
        return " " + token[1:]
    if all(character in to_byte for character in token):
        return bytes(to_byte[character] for character in token).decode("utf-8", errors="replace")
    return token


def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character == "\ufffd":  # a part of a character
        return _LETTER
    return {"L": _LETTER, "N": _NUMBER}.get(unicodedata.category(character)[0], _OTHER)
