"""Where are the words of a text, and which are the same? Answered for the filters without making a string of each."""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy

# What a character is, in the order that `>=` wants: from _WORD on, re's \w; from _LETTER on, letters.
_SPACE, _WORD, _LETTER, _IDEOGRAPH = 1, 2, 3, 4
# Scripts written without spaces (Thai, Lao, Myanmar, Khmer, kana, Han): each of their letters counts as a word.
_UNSPACED = (
    (0x0E01, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3041, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class Words(NamedTuple):
    """The words of a text. Positions count characters from 1: a space is put before and after the text.

    Attributes:
        characters: uint32[n + 2], code points.
        classes: uint8[n + 2], what each of them is.
        starts, ends: int64[words], first character and the one after the last.
    """

    characters: numpy.ndarray
    classes: numpy.ndarray
    starts: numpy.ndarray
    ends: numpy.ndarray

    def with_letters(self) -> int:
        """How many words have at least one letter, in any script."""
        letters = numpy.cumsum(self.classes >= _LETTER, dtype=numpy.int32)
        return int((letters[self.ends - 1] > letters[self.starts - 1]).sum())


@lru_cache(maxsize=1)  # the filters of one document ask one after the other
def words(text: str) -> Words:
    """What stands between white space, as `text.split()` cuts it; in scripts without spaces, each letter."""
    characters = numpy.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), numpy.uint32)
    classes = _classes()[characters]
    space = classes == _SPACE
    change = space[1:] != space[:-1]
    if text.isascii() or not (classes == _IDEOGRAPH).any():
        edges = numpy.flatnonzero(change) + 1
        return Words(characters, classes, edges[0::2], edges[1::2])
    alone = classes == _IDEOGRAPH
    change |= alone[1:] | alone[:-1]
    starts, ends = numpy.flatnonzero(change & ~space[1:]) + 1, numpy.flatnonzero(change & ~space[:-1]) + 1
    return Words(characters, classes, starts, ends)


def ngram_hashes(found: Words) -> Iterator[numpy.ndarray]:
    """A 64-bit number for each run of 1, of 2, of 3, ... words: equal runs have equal numbers.

    Yields:
        uint64 arrays; the one of n-grams has `words - n + 1` entries.
    """
    single = _hashes(found.characters, found.starts, found.ends)
    hashes = single
    for n in range(2, len(single) + 2):
        yield hashes
        hashes = hashes[:-1] * _NEXT_WORD + single[n - 1 :]


def lower_words(text: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    r"""All matches of `\w+` in lower case.

    Returns:
        uint64[words], a number for each: equal words have equal numbers (`Vocabulary` looks them up);
        int32[words], the line that it stands in, from 0.
    """
    if not text.isascii():
        text = text.replace("İ", "i\u0307")  # the one character whose lower case is two
    found = words(text)
    word = found.classes >= _WORD
    edges = numpy.flatnonzero(word[1:] != word[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    lines = numpy.cumsum(found.characters == ord("\n"), dtype=numpy.int32)[starts]
    return _hashes(_lower()[found.characters], starts, ends), lines


class Vocabulary:
    """Words, numbered in their order; all words of a text are looked up at once, at some 10 ns each.

    Args:
        entries: single words, all different in lower case.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        hashes, _ = lower_words("\n".join(entries))
        self.size = len(hashes)
        self._order = numpy.argsort(hashes)
        self._sorted = hashes[self._order]
        # The words of a bucket (the first bits of a hash) stand side by side; most buckets are empty.
        bits = max(16, self.size.bit_length() + 3)
        self._shift = numpy.uint64(64 - bits)
        counts = numpy.bincount((hashes >> self._shift).astype(numpy.int64), minlength=1 << bits)
        self._first = numpy.cumsum(counts) - counts
        self._deepest = int(counts.max())

    def codes(self, hashes: numpy.ndarray) -> numpy.ndarray:
        """int64[words]: the number of each word, or `size` for words that are not in the vocabulary."""
        codes = numpy.full(len(hashes), self.size)
        first = self._first[hashes >> self._shift]
        for depth in range(self._deepest):
            at = numpy.minimum(first + depth, self.size - 1)
            found = numpy.flatnonzero(self._sorted[at] == hashes)
            codes[found] = self._order[at[found]]
        return codes


# --- numbers for words ---

_AT_ONCE = 100_000
_NEXT_CHARACTER, _NEXT_WORD = numpy.uint64(0x9E3779B97F4A7C15), numpy.uint64(0xD6E8FEB86659FD93)


def _hashes(characters: numpy.ndarray, starts: numpy.ndarray, ends: numpy.ndarray) -> numpy.ndarray:
    """uint64[words]: polynomials over code points modulo 2^64 (Rabin and Karp 1987), out of one running sum, mixed.

    Two different words of a document of a million share a number with a chance of about 10^-8.
    """
    if len(starts) > _AT_ONCE:  # in two parts: memory stays that of a part
        half = len(starts) // 2
        parts = ((slice(None, half), 0), (slice(half, None), starts[half] - 1))
        return numpy.concatenate([_hashes(characters[o : ends[p][-1]], starts[p] - o, ends[p] - o) for p, o in parts])
    powers, inverses = _powers(max(16, len(characters).bit_length()))
    sums = numpy.cumsum(characters * powers[: len(characters)])
    hashes = (sums[ends - 1] - sums[starts - 1]) * inverses[starts]
    hashes ^= hashes >> numpy.uint64(32)
    hashes *= numpy.uint64(0xD6E8FEB86659FD93)
    return hashes ^ (hashes >> numpy.uint64(32))


@cache
def _powers(bits: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Powers of the base and of its inverse modulo 2^64, `2 ** bits` of each."""
    both = []
    for base in (_NEXT_CHARACTER, numpy.uint64(pow(int(_NEXT_CHARACTER), -1, 2**64))):
        factors = numpy.full(1 << bits, base)
        factors[0] = 1
        both.append(numpy.cumprod(factors))
    return both[0], both[1]


@cache
def _classes() -> numpy.ndarray:
    """uint8[code points]: what each character is."""
    table = numpy.zeros(0x110000, numpy.uint8)
    for code in range(0x110000):
        character = chr(code)
        if character.isalpha():
            table[code] = _LETTER
        elif character.isalnum() or character == "_":
            table[code] = _WORD
        elif character.isspace():
            table[code] = _SPACE
    for first, last in _UNSPACED:
        part = table[first : last + 1]
        part[part == _LETTER] = _IDEOGRAPH
    return table


@cache
def _lower() -> numpy.ndarray:
    """uint32[code points]: each character's lower case."""
    table = numpy.arange(0x110000, dtype=numpy.uint32)
    for code in range(0x20000):
        if len(lower := chr(code).lower()) == 1:
            table[code] = ord(lower)
    return table
