"""Which texts say nearly what others say? A model that learned one of them is not tested by the other."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from lm_recipes.text.dedup import jaccard, shingles, signature

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

# Pairs of words, not five as in documents: of a message of 20 words with one changed 17 of 21 stay alike, not 11 of 21.
WORDS = 2
SIMILARITY = 0.75
# Where more training rows are copies the rows have one pattern ("Your order 123 has arrived"): it is what is learned.
MOST_LEFT_OUT = 0.1


def near_copies(texts: Sequence[str], of: Sequence[str]) -> np.ndarray:
    """Which of `texts` nearly repeat one of `of`: bool [N].

    Those whose pairs of neighbouring words are the same but for a quarter (Jaccard similarity 0.75 or more, whatever
    their case and punctuation). MinHash proposes, the exact similarity decides. What it remembers grows with `of`.
    """
    known = [shingles(text, WORDS) for text in of]
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, text in enumerate(of):
        for key in enumerate(signature(text, SIMILARITY, WORDS).tolist()):
            buckets[key].append(place)

    def repeats(text: str) -> bool:
        keys = enumerate(signature(text, SIMILARITY, WORDS).tolist())
        candidates = {place for key in keys for place in buckets.get(key, ())}
        own = shingles(text, WORDS)
        return any(jaccard(own, known[place]) >= SIMILARITY for place in candidates)

    return np.array([repeats(text) for text in tqdm(texts, "near copies", delay=2, disable=None)], bool)


def without_near_copies(rows: "DatasetDict", held_out: Sequence[str], columns: Sequence[str]) -> tuple["Dataset", int]:
    """The training rows, without those that nearly repeat a row of a held-out split; and how many those are. Where they
    are more than a tenth none goes, and a warning says so.

    Args:
        rows: "train" and the splits named in `held_out`.
        columns: texts, or lists of words; a row is compared as all of them together.
    """

    def texts(split: str) -> list[str]:
        cells = zip(*(rows[split][column] for column in columns), strict=True)
        return [" ".join(text if isinstance(text, str) else " ".join(text) for text in row) for row in cells]

    if not held_out:
        return rows["train"], 0
    copies = near_copies(texts("train"), [text for split in held_out for text in texts(split)])
    number = int(copies.sum())
    if number > MOST_LEFT_OUT * len(copies):
        logger.warning(
            "copies  %d of %d training rows say nearly what a held-out row says. So many stay: the test measures such "
            "rows, not new ones", number, len(copies),
        )  # fmt: skip
        return rows["train"], 0
    if number:
        logger.info("copies  %d of %d training rows left out: a held-out row says nearly the same", number, len(copies))
    return rows["train"].select(np.flatnonzero(~copies)), number
