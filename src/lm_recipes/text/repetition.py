"""Does a document say the same thing again and again? Gopher's table A1 (Rae et al. 2021, arXiv 2112.11446)."""

from collections.abc import Sequence

import numpy

from lm_recipes.text.words import Words, ngram_hashes, words

TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)


def repetition(
    text: str,
    max_duplicate_lines: float,
    max_duplicate_characters: float,
    max_top_ngrams: Sequence[float] = (0.20, 0.18, 0.16),
    max_duplicate_ngrams: Sequence[float] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
) -> str | None:
    """Documents that repeat lines, paragraphs or runs of words. Shares are of the document's characters.

    Args:
        max_duplicate_lines: share of lines, and of paragraphs, that stood before in the document.
        max_duplicate_characters: share of characters in such lines, and in such paragraphs.
        max_top_ngrams: share of characters in the most frequent n-gram, for n = 2, 3, 4; it must occur twice.
        max_duplicate_ngrams: share of characters in n-grams that stood before, for n = 5 .. 10, overlaps
            counted once.
    """
    for separator, name in (("\n", "lines"), ("\n\n", "paragraphs")):
        parts = [part for part in text.split(separator) if part]
        distinct = set(parts)
        if len(parts) == len(distinct):
            break  # without repeated lines there are no repeated paragraphs
        if len(parts) - len(distinct) > max_duplicate_lines * len(parts):
            return f"repeated {name}"
        if sum(map(len, parts)) - sum(map(len, distinct)) > max_duplicate_characters * len(text):
            return f"much text in repeated {name}"
    return _repeated_ngrams(text, max_top_ngrams, max_duplicate_ngrams)


def _repeated_ngrams(text: str, max_top: Sequence[float], max_duplicate: Sequence[float]) -> str | None:
    found = words(text)
    limits = dict(zip(TOP_NGRAMS + DUPLICATE_NGRAMS, (*max_top, *max_duplicate), strict=True))
    most = len(found.starts)  # how often any n-gram occurs, at most: longer ones are never more frequent
    for n, hashes in enumerate(ngram_hashes(found), start=1):
        limit = limits.get(n, 1) * len(text)
        lengths = found.ends[n - 1 :] - found.starts[: len(hashes)]
        if n in TOP_NGRAMS and most * int(lengths.max()) > limit:
            most, characters = _most_frequent(hashes, lengths)
            if characters > limit:
                return "one phrase again and again"
        elif n in DUPLICATE_NGRAMS:
            repeated = _repeated_positions(hashes)
            # If even all of them, overlaps counted twice, are few, then longer n-grams cover no more.
            if int(lengths[repeated].sum()) <= min(max_duplicate) * len(text):
                return None
            if _duplicate_characters(hashes, repeated, found, n) > limit:
                return "repeated phrases"
            if n == DUPLICATE_NGRAMS[-1]:
                return None
    return None


def _most_frequent(hashes: numpy.ndarray, lengths: numpy.ndarray) -> tuple[int, int]:
    """How often the most frequent n-gram occurs, and in how many characters (0 if it does not repeat)."""
    ordered = numpy.sort(hashes)
    edge = numpy.ones(len(ordered) + 1, bool)
    numpy.not_equal(ordered[1:], ordered[:-1], out=edge[1:-1])
    edges = numpy.flatnonzero(edge)
    counts = edges[1:] - edges[:-1]
    most = int(counts.max())
    if most < 2:
        return most, 0
    # Of several equally frequent ones, the first in the text.
    first = numpy.isin(hashes, ordered[edges[:-1][counts == most]]).argmax()
    return most, most * int(lengths[first])


def _repeated_positions(hashes: numpy.ndarray) -> numpy.ndarray:
    ordered = numpy.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    return numpy.flatnonzero(numpy.isin(hashes, repeated)) if len(repeated) else numpy.empty(0, numpy.int64)


def _duplicate_characters(hashes: numpy.ndarray, positions: numpy.ndarray, found: Words, n: int) -> int:
    """Characters (without spaces) of the n-grams that stood before, from left to right, none counted twice."""
    letters = numpy.concatenate(([0], numpy.cumsum(found.ends - found.starts)))
    seen, free, characters = set(), 0, 0
    for position, ngram in zip(positions.tolist(), hashes[positions].tolist(), strict=True):
        if position < free:
            continue
        if ngram in seen:
            characters += int(letters[position + n] - letters[position])
            free = position + n
        seen.add(ngram)
    return characters
