"""Which tokens are hidden together? Words, n-grams and spans as units, and how a row's budget is filled with them.

Everything here works on whole batches `[B, L]`: a unit is known by its first token, and what is decided about a unit
(a random number, say) is read at that token.
"""

import numpy as np

# How many words a unit has: the probabilities of 1, 2, 3, ...
LENGTHS = {
    "span": 0.2 * 0.8 ** np.arange(10),  # SpanBERT: geometric, at most 10; 3.8 words in the mean once it adds up to 1
    "ngram": 1 / np.arange(1.0, 4.0),  # ALBERT: n words with a probability in proportion to 1/n, n at most 3
}


def join_words(kind: str, word_starts: np.ndarray, breaks: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Lay n-grams or spans over the words of each row, one after the other: where they begin, bool `[B, L]`.

    A unit is as many consecutive words as its length says; it ends earlier where it meets a break.

    Args:
        kind: a key of `LENGTHS`.
        word_starts: bool `[B, L]`, the first token of each word, the row's first token included.
        breaks: bool `[B, L]`, tokens at which a unit must begin (pieces, special tokens); all are word starts.
        draws: floats in [0, 1) `[B, L]`, one for each unit's length.
    """
    cumulative = np.cumsum(LENGTHS[kind])
    lengths = 1 + np.searchsorted(cumulative[:-1] / cumulative[-1], draws, side="right")
    first_words = np.minimum(np.cumsum(lengths, axis=1), draws.shape[1])  # of the second unit, the third, ...
    begins = np.zeros((len(draws), draws.shape[1] + 1), dtype=bool)
    np.put_along_axis(begins, first_words, True, axis=1)
    words = np.cumsum(word_starts, axis=1) - 1
    return word_starts & (np.take_along_axis(begins, words, axis=1) | breaks)


def first_tokens(starts: np.ndarray) -> np.ndarray:
    """Where the unit of each token begins: bool `[B, L]`, True in the first column, to ints `[B, L]`."""
    return np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), 0), axis=1)


def choose_exactly(
    count: int, keys: np.ndarray, allowed: np.ndarray, word_starts: np.ndarray | None = None
) -> np.ndarray:
    """`count` tokens of every row, or all that are allowed where there are fewer: bool `[B, L]`.

    Units are taken by their keys, lowest first. The one that the budget ends in gives its first words as far as they
    fit, and the few tokens that are still missing are the next words of one token. Only a row that has too few
    of those gets a word cut: its first tokens are chosen.

    Args:
        keys: floats `[B, L]`, the same for all tokens of a unit, different for different units.
        allowed: bool `[B, L]`, which tokens may be chosen at all.
        word_starts: bool `[B, L]`, the first token of each word, forbidden tokens being words of one; None: every
            token is a word.
    """
    order = np.argsort(np.where(allowed, keys, np.inf), axis=1, kind="stable")  # the tokens of a unit stay in order
    if word_starts is not None:
        starts = np.take_along_axis(word_starts, order, axis=1)
        ends = np.roll(starts, -1, axis=1)
        ends[:, -1] = True
        straddles = ~ends[:, count - 1]  # the word that stands there goes on behind the budget
        begin = first_tokens(starts)[:, count - 1]
        position = np.arange(starts.shape[1])
        # Whole words first (0), then words of one token (1), then what would be cut (2), then what is forbidden (3).
        rank = np.where(starts & ends, 1, 2)
        rank[position < np.where(straddles, begin, count)[:, None]] = 0
        rank[~np.take_along_axis(allowed, order, axis=1)] = 3
        order = np.take_along_axis(order, np.argsort(rank, axis=1, kind="stable"), axis=1)
    chosen = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(chosen, order[:, :count], True, axis=1)
    return chosen & allowed
