"""Which 64-bit numbers stand for the words of a text, and for several words in a row?

Duplicates and contamination are found by comparing words without regard to case, punctuation and spacing. Everything
here is the same on every run and machine, and works on whole arrays: well over 20 MB of text a second.
"""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SPACE, NEWLINE = 32, 10
# Longer runs of letters (addresses, base64) count as several words, so that hashing takes eight steps at most.
LONGEST_WORD = 64

# UTF-8 bytes: ASCII letters and digits in lower case, a newline as it is, everything else in ASCII a space.
_FOLD_ASCII = bytes(
    ord(chr(byte).lower()) if chr(byte).isalnum() else NEWLINE if byte == NEWLINE else SPACE for byte in range(128)
) + bytes(range(128, 256))
_BETWEEN, _IN_WORD, _ALONE = 0, 1, 2
_KNOWN_KINDS = np.full(0x110000, -1, np.int8)
# Scripts written without spaces, each character of which is a word here: Thai, Lao, Myanmar, Khmer, kana, ideographs.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
# Odd constants of splitmix64 (Steele et al. 2014).
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_FIRST_BYTES = np.array([2 ** (8 * count) - 1 for count in range(9)], np.uint64)


class FoldedWords(NamedTuple):
    """The words of a text in order.

    Attributes:
        folded: uint8 [B], UTF-8 of the casefolded text; what is no word is spaces, one a byte, and newlines.
        starts, ends: int64 [W], word i is `folded[starts[i]:ends[i]]`.
    """

    folded: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def joined(self, first: int, last: int) -> bytes:
        """Words `first` to `last - 1` with a space between two."""
        pairs = zip(self.starts[first:last].tolist(), self.ends[first:last].tolist(), strict=True)
        return b" ".join([self.folded[start:end].tobytes() for start, end in pairs])


def fold(text: str) -> tuple[np.ndarray, np.ndarray]:
    """`FoldedWords.folded`, and int8 [B] that is 0 between words and changes where a word follows another at once."""
    if text.isascii():
        folded = np.frombuffer(text.encode().translate(_FOLD_ASCII), np.uint8)
        return folded, (folded > SPACE).view(np.int8)
    text = text.casefold()
    folded = np.frombuffer(bytearray(text.encode("utf-8", "surrogatepass").translate(_FOLD_ASCII)), np.uint8)
    kinds = (folded > SPACE).view(np.int8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    points = points[points > 127]
    found = _kinds(points)
    special = np.flatnonzero(found != _IN_WORD)
    if len(special):
        firsts, points, found = np.flatnonzero(folded >= 0xC0)[special], points[special], found[special]
        alone = np.flatnonzero(found == _ALONE)
        found[alone] += np.arange(len(alone), dtype=np.int64).astype(np.int8) & 1  # neighbours differ
        for offset, smallest in enumerate((0x80, 0x80, 0x800, 0x10000)):  # the characters of so many bytes
            places = firsts[points >= smallest] + offset
            kinds[places] = found[points >= smallest]
            folded[places[kinds[places] == _BETWEEN]] = SPACE
    return folded, kinds


def _kinds(points: np.ndarray) -> np.ndarray:
    """int8, what each code point is; looked up in Unicode's tables when it is first met."""
    found = _KNOWN_KINDS[points]
    if (found < 0).any():
        for point in set(points[found < 0].tolist()):
            in_word = chr(point).isalnum() or unicodedata.category(chr(point))[0] == "M"
            alone = any(first <= point <= last for first, last in _WITHOUT_SPACES)
            _KNOWN_KINDS[point] = _BETWEEN if not in_word else _ALONE if alone else _IN_WORD
        found = _KNOWN_KINDS[points]
    return found


def find_words(text: str) -> FoldedWords:
    """Words are runs of letters, digits and marks, of any script; a character of Chinese, Thai, ... is one alone."""
    folded, kinds = fold(text)
    padded = np.zeros(len(kinds) + 2, np.int8)
    padded[1:-1] = kinds
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    if len(edges) and np.diff(edges).max() > LONGEST_WORD:
        long = np.flatnonzero(np.diff(edges) > LONGEST_WORD)
        edges = np.union1d(edges, np.concatenate([np.arange(edges[i], edges[i + 1], LONGEST_WORD) for i in long]))
    runs = np.flatnonzero(padded[edges[:-1] + 1] != _BETWEEN)
    return FoldedWords(folded, edges[runs], edges[runs + 1])


@lru_cache(maxsize=1)  # several steps ask for the same document in turn
def word_hashes(text: str) -> tuple[FoldedWords, np.ndarray]:
    """The words of a text, and uint64 [W], a hash of each: eight bytes of all words at a time. Not to be changed."""
    words = folded, starts, ends = find_words(text)
    data = np.concatenate([folded, np.zeros(8, np.uint8)])
    eights = np.ndarray(len(folded) + 1, "<u8", data, strides=(1,))  # the eight bytes from each byte on
    left = ends - starts
    hashes = mix((eights[starts] & _FIRST_BYTES[np.minimum(left, 8)]) * _GOLDEN)
    longer, offset = np.flatnonzero(left > 8), 8
    while len(longer):
        more = eights[starts[longer] + offset] & _FIRST_BYTES[np.minimum(left[longer] - offset, 8)]
        hashes[longer] = mix((hashes[longer] ^ more) * _GOLDEN)
        offset += 8
        longer = longer[left[longer] > offset]
    return words, hashes


def mix(hashes: np.ndarray) -> np.ndarray:
    """Splitmix64's finalizer: a bijection of uint64 after which every bit depends on every bit."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX_1
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX_2
    return hashes ^ (hashes >> np.uint64(31))


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """uint64 [max(0, W - n + 1)] of the n-grams of `word_hashes`, in about 2 log2(n) array operations."""
    if n > len(hashes):
        return np.empty(0, np.uint64)
    return mix(_polynomials(hashes, n) + np.uint64(n))


def _polynomials(hashes: np.ndarray, n: int) -> np.ndarray:
    """h[i] x^(n-1) + ... + h[i + n-1] modulo 2^64 for every i, out of those of half the length."""
    if n == 1:
        return hashes
    half = n // 2
    halves = _polynomials(hashes, half)
    sums = halves[: len(hashes) - 2 * half + 1] * np.uint64(pow(int(_MIX_2), half, 2**64)) + halves[half:]
    return sums[: len(hashes) - n + 1] * _MIX_2 + hashes[n - 1 :] if n % 2 else sums


def character_positions(text: str, places: np.ndarray) -> np.ndarray:
    """Indices into `text` of places in `FoldedWords.folded`; int64, same shape. Slow: for the few texts that need it.

    A place in the folded form of one character ("ss" of "ß") is that character's.
    """
    if text.isascii():
        return places
    encoded = np.frombuffer(text.casefold().encode("utf-8", "surrogatepass"), np.uint8)
    character = np.cumsum((encoded & 0xC0) != 0x80) - 1
    lengths = np.cumsum([len(character.casefold()) for character in text])
    return np.searchsorted(lengths, character[places], side="right")
