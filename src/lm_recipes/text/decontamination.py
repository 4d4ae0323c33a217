"""Which documents hold text of an evaluation set, and what is done to them?

Overlap of word n-grams, as for GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C): 13 words in a row, whatever
their case and punctuation, that also stand in an evaluation set. Workers look for them one document at a time
(`EvaluationNgrams.matches`); which ones are mere phrases is known when all documents have been seen
(`common_ngrams`); documents that are left with a match are dropped, or lose the text around it (`decontaminate`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm_recipes.text.hashing import NEWLINE, FoldedWords, character_positions, ngram_hashes, word_hashes

ACTIONS = ("cut", "drop")
# Characters cut away on both sides of a match, and of the shortest piece that stays; most pieces: as for GPT-3.
WINDOW = 200
MOST_PIECES = 10
# Bits for each n-gram in the table that is asked first: one in 16 of the n-grams that match nothing gets past it.
FILTER_BITS = 16
_SPACE = re.compile(r"\s")


class Matches(NamedTuple):
    """N-grams of evaluation sets in one text: int64 [M] each.

    Attributes:
        ngrams: which n-gram: a row of `EvaluationNgrams.in_set`.
        starts, ends: the match is `text[start:end]`.
    """

    ngrams: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def without(self, ngrams: np.ndarray) -> "Matches":
        """Those that are none of `ngrams`, the common ones say."""
        return Matches(*(column[~np.isin(self.ngrams, ngrams)] for column in self))


@dataclass(frozen=True, eq=False)
class EvaluationNgrams:
    """The n-grams of some evaluation sets, made by `build`: plain arrays, about 35 bytes an n-gram.

    Attributes:
        sets: str [S], their names.
        in_set: bool [K, S], where each n-gram stands.
        sizes: int64 [1 or 2], an n-gram is looked up by a hash of its first so many words.
        keys: uint64 [K], sorted: that hash.
        starts, ends: uint32 [K]; `words[start:end]` are the words of the n-gram: they settle whether it is one.
        words: uint8 [B], the words of all texts, a space between two.
        filter: uint8 [2^k / 8], a bit for the first k bits of each key.
    """

    sets: np.ndarray
    in_set: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    words: np.ndarray
    filter: np.ndarray

    @classmethod
    def build(cls, sets: Mapping[str, Iterable[str]], n: int = 13, min_words: int = 8) -> "EvaluationNgrams":
        """The n-grams of all texts of the sets.

        Args:
            sets: name -> its texts. Give questions, passages and answers one by one: what was joined for a prompt is
                not found in a document.
            n: words of an n-gram.
            min_words: a text of fewer words than n is looked for as a whole, if it has so many; shorter ones, which
                stand in many innocent documents, are left out.
        """
        min_words = min(min_words, n)
        columns: list[list[np.ndarray]] = [
            [np.empty(0, kind)] for kind in (np.uint64, np.uint64, np.int64, np.int64, int)
        ]
        blob = bytearray()
        for number, texts in enumerate(sets.values()):
            words, *found = _ngrams_of(texts, n, min_words, len(blob))
            blob += words
            for column, values in zip(columns, [*found, np.full(len(found[0]), number)], strict=True):
                column.append(values)
        whole, keys, starts, ends, number = map(np.concatenate, columns)
        _, firsts, rows = np.unique(whole, return_index=True, return_inverse=True)
        in_set = np.zeros((len(firsts), len(sets)), bool)
        in_set[rows, number] = True
        order = np.argsort(keys[firsts], kind="stable")
        firsts = firsts[order]
        return cls(
            sets=np.array(list(sets), str),
            in_set=in_set[order],
            sizes=np.unique([n, min_words]),
            keys=keys[firsts],
            starts=starts[firsts].astype(np.uint32),
            ends=ends[firsts].astype(np.uint32),
            words=np.frombuffer(bytes(blob), np.uint8),
            filter=_bit_table(keys[firsts]),
        )

    def matches(self, text: str) -> Matches:
        """Every n-gram of the text that stands in an evaluation set, word by word the same."""
        words, hashes = word_hashes(text)
        found = []
        for size in self.sizes.tolist():
            grams = ngram_hashes(hashes, size)
            maybe = np.flatnonzero(_in_bit_table(self.filter, grams))
            places = np.searchsorted(self.keys, grams[maybe])
            for first, place in zip(maybe.tolist(), places.tolist(), strict=True):
                found += self._same_words(words, first, place, grams[first])
        if not found:
            return Matches(*np.empty((3, 0), np.int64))
        ngrams, starts, lasts = np.array(found, np.int64).T
        return Matches(ngrams, character_positions(text, starts), character_positions(text, lasts) + 1)

    def _same_words(self, words: FoldedWords, first: int, ngram: int, key: np.uint64) -> Iterator[tuple[int, int, int]]:
        """Of the n-grams with this key, from number `ngram` on, those whose words these are, from word `first` on."""
        while ngram < len(self.keys) and self.keys[ngram] == key:
            wanted = self.words[self.starts[ngram] : self.ends[ngram]].tobytes()
            last = first + wanted.count(b" ") + 1
            if words.joined(first, last) == wanted:
                yield ngram, words.starts[first], words.ends[last - 1] - 1
            ngram += 1

    def overlaps(self, text: str) -> dict[str, int]:
        """Set -> how many different n-grams of it stand in the text; sets without any are left out."""
        return self.count(self.matches(text).ngrams)

    def count(self, ngrams: np.ndarray) -> dict[str, int]:
        """Set -> how many of these n-grams (int64, any number of times each) are its own; none: left out."""
        counts = self.in_set[np.unique(ngrams)].sum(axis=0)
        return {str(name): int(count) for name, count in zip(self.sets, counts, strict=True) if count}


def _ngrams_of(texts: Iterable[str], n: int, min_words: int, offset: int) -> tuple[bytes, *[np.ndarray] * 4]:
    """All n-grams of some texts: the texts' words; whole and key hash of each n-gram, where it starts and ends there.

    Args:
        offset: added to starts and ends.
    """
    # All at once, a text a line: arrays of a few words each would take a hundred times as long.
    words, hashes = word_hashes("\n".join(text.replace("\n", " ") for text in texts))
    line = np.searchsorted(np.flatnonzero(words.folded == NEWLINE), words.starts)
    first, length = np.unique(line, return_index=True, return_counts=True)[1:]
    ends = offset + np.cumsum(words.ends - words.starts + 1) - 1
    starts = ends - (words.ends - words.starts)
    whole = ngram_hashes(hashes, n)
    inside = np.flatnonzero(line[: len(whole)] == line[len(line) - len(whole) :])
    found = [(whole[inside], whole[inside], starts[inside], ends[inside + n - 1])]
    keys = ngram_hashes(hashes, min_words)
    for size in range(min_words, n):
        short = first[length == size]
        found.append((ngram_hashes(hashes, size)[short], keys[short], starts[short], ends[short + size - 1]))
    return words.joined(0, len(hashes)) + b" ", *map(np.concatenate, zip(*found, strict=True))


def _bit_table(keys: np.ndarray) -> np.ndarray:
    bits = max(10, (FILTER_BITS * len(keys)).bit_length())
    table = np.zeros(2**bits // 8, np.uint8)
    places = (keys >> np.uint64(64 - bits)).view(np.int64)
    np.bitwise_or.at(table, places >> 3, np.uint8(1) << (places & 7).astype(np.uint8))
    return table


def _in_bit_table(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    places = (keys >> np.uint64(64 - 3 - (len(table).bit_length() - 1))).view(np.int64)
    return table[places >> 3] >> (places & 7).astype(np.uint8) & 1


def common_ngrams(ngrams: Iterable[np.ndarray], most_documents: int = 10) -> np.ndarray:
    """N-grams that stand in more documents than that: phrases and boilerplate, which GPT-3 left alone too.

    Args:
        ngrams: for each document with matches their `Matches.ngrams`.

    Returns:
        int64, sorted.
    """
    found, documents = np.unique(np.concatenate([[], *map(np.unique, ngrams)]), return_counts=True)
    return found[documents > most_documents].astype(np.int64)


def decontaminate(text: str, matches: Matches, action: str = "cut", window: int = WINDOW) -> str:
    """The text without what it shares with evaluation sets; empty when it is to be dropped.

    "drop" drops every text with a match. "cut" is what GPT-3 did: it takes the match and `window` characters on both
    sides away (to the next space), and pieces under `window` characters, and drops a text that falls into more than
    10 pieces. What is left is joined by empty lines.
    """
    if not len(matches.ngrams):
        return text
    if action == "drop":
        return ""
    pieces, end = [], 0
    for start, stop in sorted(zip(matches.starts.tolist(), matches.ends.tolist(), strict=True)):
        if start - window > end:
            pieces.append(text[end : _space_before(text, start - window, end)])
        end = max(end, _space_after(text, stop + window))
    pieces = [piece for piece in map(str.strip, [*pieces, text[end:]]) if len(piece) >= max(window, 1)]
    return "" if len(pieces) > MOST_PIECES else "\n\n".join(pieces)


def _space_before(text: str, place: int, lowest: int) -> int:
    """The nearest white space, or `place` itself where none is near: not every script has spaces."""
    lowest = max(lowest, place - 50)
    spaces = [found.start() for found in _SPACE.finditer(text, lowest, place)]
    return spaces[-1] if spaces else place


def _space_after(text: str, place: int) -> int:
    found = _SPACE.search(text, place, place + 50)
    return found.start() if found else place
