"""Which documents say the same thing?

Worker processes make small columns, one document at a time: `exact_key`, `paragraph_keys` and `signature`. The
functions further down decide over those columns of all documents, in document order, so that the first stays and the
outcome never depends on how many processes made the columns.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise

import numpy as np

from lm_recipes.text.hashing import NEWLINE, SPACE, fold, mix, ngram_hashes, word_hashes

logger = logging.getLogger(__name__)

SHINGLE_WORDS = 5
# MinHash values a document at most; `bands_and_rows` says how many of them are used.
MINHASHES = 128
MINHASH_SEED = 1
# Of the documents in a bucket the earliest so many are remembered, and a document is compared with at most so many.
MOST_IN_BUCKET = 256
MOST_COMPARISONS = 64

# --- one document ---


def exact_key(text: str) -> bytes:
    """128 bits that two texts share when they differ only in case, punctuation and whitespace.

    Among 10^9 documents the chance that two different ones share a key is about 10^-21.
    """
    folded, _ = fold(text)
    keep = folded > SPACE
    keep[1:] |= keep[:-1].copy()  # the first character after a word stays, as the space between two
    words = folded[keep]
    words[words == NEWLINE] = SPACE
    return hashlib.blake2b(words.tobytes().strip(), digest_size=16).digest()


def paragraph_keys(text: str, min_words: int) -> np.ndarray:
    """uint64 [P], one for each line of the text (`text.split("\\n")`); 0 for lines of fewer than `min_words` words.

    Lines share a key when they differ only in case, punctuation and spacing. Among 10^9 lines the chance that any two
    different ones share one is a few per cent.
    """
    words, hashes = word_hashes(text)
    line_ends = np.append(np.flatnonzero(words.folded == NEWLINE), len(words.folded))
    last = np.searchsorted(words.starts, line_ends)
    first = np.append(0, last[:-1])
    place = np.arange(len(words.starts)) - np.repeat(first, last - first)
    placed = mix(hashes + place.astype(np.uint64))
    keys = np.zeros(len(line_ends), np.uint64)
    long = np.flatnonzero(last - first >= max(min_words, 1))
    if len(long):
        # Modulo 2^64, where differences of sums are exact.
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(placed)])
        keys[long] = np.maximum(mix(sums[last[long]] - sums[first[long]]), 1)
    return keys


def shingles(text: str, words: int = SHINGLE_WORDS) -> np.ndarray:
    """uint64 [S], sorted and unique: hashes of the word n-grams; a text of fewer words is one shingle as a whole."""
    found = np.sort(_shingles(text, words))  # many times as fast as numpy.unique
    return found[np.append(True, found[1:] != found[:-1])]


def _shingles(text: str, words: int) -> np.ndarray:
    _, hashes = word_hashes(text)
    if not len(hashes):
        return np.zeros(1, np.uint64)
    return ngram_hashes(hashes, min(words, len(hashes)))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """What two sets of `shingles` share, over what either has."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def signature(text: str, threshold: float = 0.8, words: int = SHINGLE_WORDS) -> np.ndarray:
    """uint64 [bands]: MinHash for locality-sensitive hashing; 168 bytes at the default threshold.

    Broder (1997), "On the resemblance and containment of documents". Two documents share each of the keys with
    probability J^rows, where J is the Jaccard similarity of their shingles; see `bands_and_rows`. rensa makes the
    MinHash values from shingles hashed here.
    """
    from rensa import RMinHash

    bands, rows = bands_and_rows(threshold)
    hashes = _shingles(text, words)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, len(hashes)], bands * rows, MINHASH_SEED)
    values = np.array(matrix.to_rows()[0], np.uint64).reshape(bands, rows)
    key = np.zeros(bands, np.uint64)
    for row in range(rows):
        key = mix(key ^ values[:, row])
    return key


@cache
def bands_and_rows(threshold: float) -> tuple[int, int]:
    """How MinHash values are cut into bands: as many rows a band as find 99 % of the pairs at the threshold.

    A pair of similarity J shares at least one band with probability 1 - (1 - J^rows)^bands (Leskovec, Rajaraman and
    Ullman, "Mining of Massive Datasets", 3.4). At 0.8 that is 21 bands of 6 rows: 0.998 of the pairs at 0.8, and a
    quarter of those at 0.5, which cost a comparison each.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: a similarity above 0, up to 1")
    enough = [rows for rows in range(1, 17) if (1 - threshold**rows) ** (MINHASHES // rows) <= 0.01]
    rows = max(enough, default=1)
    return MINHASHES // rows, rows


# --- all documents ---


def first_occurrences(keys: np.ndarray) -> np.ndarray:
    """Which documents are the first with their key.

    Args:
        keys: `exact_key` as V16 [N] or uint8 [N, 16], or uint64 [N]. Memory beside them: about 45 bytes a document.

    Returns:
        bool [N].
    """
    keys = np.ascontiguousarray(keys).view(np.uint64).reshape(len(keys), -1 if len(keys) else 1)
    order = np.lexsort(keys.T)  # stable: of equal ones the first comes first
    first = np.ones(len(keys), bool)
    first[1:] = (np.diff(keys[order], axis=0) != 0).any(axis=1)
    keep = np.zeros(len(keys), bool)
    keep[order[first]] = True
    return keep


def duplicate_paragraphs(keys: np.ndarray) -> np.ndarray:
    """Which paragraphs stood before, in the same document or an earlier one.

    Args:
        keys: uint64 [P], `paragraph_keys` of all documents one after the other; 0 is never a duplicate. Memory:
            beside them about 30 bytes a paragraph.

    Returns:
        bool [P].
    """
    return ~first_occurrences(keys) & (keys != 0)


def near_duplicates(
    signatures: Iterable[np.ndarray], threshold: float, verify: Callable[[int, int], float]
) -> np.ndarray:
    """For each document the earlier one that it repeats, or -1 to keep it.

    In document order, a document goes when its similarity to an earlier document that stays is `threshold` or more. So
    nothing goes without something like it staying, and no two that stay are near-duplicates: what is left can be split
    at will. Documents that share a band are compared, those that share most bands first, and `verify` decides; what is
    missed are pairs that share no band (0.2 % at the default threshold, fewer above it), and pairs in a crowd of more
    than 64 documents that share bands without being near-duplicates, which is logged.

    Args:
        signatures: one uint64 [N] a band: `signature` columns of all documents, read one at a time. For a matrix
            [N, bands] in memory, its transpose.
        verify: `verify(document, earlier)` is the exact similarity; called in the order of `document`.

    Returns:
        int64 [N]. Memory: about 40 bytes for each band that a document shares with another, and 40 a document.
    """
    members, buckets, total = _shared_buckets(signatures)
    repeats = np.full(total, -1, np.int64)
    starts = np.searchsorted(buckets, np.arange(buckets[-1] + 1 if len(buckets) else 0))
    staying = np.zeros(len(starts), np.int64)
    by_document = np.argsort(members, kind="stable")
    bounds = np.append(np.flatnonzero(np.diff(members[by_document], prepend=-1)), len(members))
    crowded = 0
    for first, last in pairwise(bounds.tolist()):
        document, own = int(members[by_document[first]]), buckets[by_document[first:last]]
        candidates, shared = _candidates(members, starts[own], np.minimum(staying[own], MOST_IN_BUCKET))
        crowded += len(candidates) > MOST_COMPARISONS
        for place in np.argsort(-shared, kind="stable")[:MOST_COMPARISONS]:
            if verify(document, int(candidates[place])) >= threshold:
                repeats[document] = candidates[place]
                break
        else:
            # The front of a bucket's part of `members`, which is done with, is overwritten with those that stay.
            members[starts[own] + staying[own]] = document
            staying[own] += 1
    if crowded:
        logger.warning("%d documents had over %d candidates: compared with the best", crowded, MOST_COMPARISONS)
    return repeats


def _candidates(members: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members in `counts` places from `starts` on, each once, and how many times each stands there."""
    if not counts.any():
        return members[:0], counts[:0]
    parts = [members[start : start + count] for start, count in zip(starts.tolist(), counts.tolist(), strict=True)]
    return np.unique(np.concatenate(parts), return_counts=True)


def _shared_buckets(signatures: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, int]:
    """Documents that share a band, int32 [E], bucket by bucket in order; numbers of the buckets, int32 [E]; and N."""
    documents, buckets, next_bucket, total = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0, 0
    for keys in signatures:
        keys, total = np.asarray(keys), len(keys)
        order = np.argsort(keys, kind="stable")
        same = np.zeros(total + 1, bool)  # as the one before, in order
        same[1:-1] = np.diff(keys[order]) == 0
        shared = same[1:] | same[:-1]
        begins = ~same[:-1][shared]
        documents.append(order[shared].astype(np.int32))
        buckets.append((next_bucket + np.cumsum(begins) - 1).astype(np.int32))
        next_bucket += int(begins.sum())
    return np.concatenate(documents), np.concatenate(buckets), total
