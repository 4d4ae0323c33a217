"""Does each text find the one it belongs to among all others?"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from lm_recipes.evaluation.classification import interval

AT_ONCE = 1_024  # anchors compared with all positives together


def ranks(anchors, positives) -> np.ndarray:
    """The place of each anchor's own positive, the one in its row, among all of them by dot product: int `[N]`, 1 is
    the first. Of equal ones it is the last.

    Args:
        anchors, positives: float `[N, D]`, dense or sparse.
    """
    found = []
    for start in range(0, anchors.shape[0], AT_ONCE):
        similar = anchors[start : start + AT_ONCE] @ positives.T
        similar = np.asarray(similar.todense()) if hasattr(similar, "todense") else similar
        own = similar[np.arange(len(similar)), start + np.arange(len(similar))]
        found.append((similar >= own[:, None]).sum(1))
    return np.concatenate(found)


def retrieval_metrics(places: np.ndarray) -> dict[str, float]:
    """Share of anchors whose positive is first (with a 95 % interval) or among the first ten, and the mean of one over
    its place (0 beyond ten), from `ranks`.
    """
    first = places == 1
    low, high = interval(first)
    return {
        "recall_at_1": float(first.mean()),
        "recall_at_1_low": low,
        "recall_at_1_high": high,
        "recall_at_10": float((places <= 10).mean()),
        "mrr_at_10": float(np.where(places <= 10, 1 / places, 0.0).mean()),
        "pairs": len(places),
    }


def tfidf_retrieval(known: Sequence[str], anchors: Sequence[str], positives: Sequence[str]) -> dict[str, float]:
    """`retrieval_metrics` of weighted words, their weights learned from the texts `known`: what shared words tell."""
    words = TfidfVectorizer(sublinear_tf=True).fit(known)
    return retrieval_metrics(ranks(words.transform(anchors), words.transform(positives)))
