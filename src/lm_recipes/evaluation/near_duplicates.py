"""How well are near-duplicates found? Copies of known similarity, planted among real documents."""

import random
import re
from collections.abc import Sequence


def shingle_texts(text: str) -> list[str]:
    """Every five words in a row, or all words of a shorter text, written out: the slow and obvious way."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def planted_copies(texts: Sequence[str], seed: int, every: int = 4) -> tuple[list[str], list[float]]:
    """A copy of one text in `every` with words replaced, and its Jaccard similarity to the original.

    Similarities are exact, of sets of `shingle_texts`. They are drawn evenly from about 0.5 to 1; a short text may miss
    its aim.
    """
    rng = random.Random(seed)
    copies, similarities = [], []
    for text in texts[::every]:
        words, strangers, aim = text.split(), rng.choice(texts).split(), rng.uniform(0.5, 1)
        # A replaced word changes five shingles: of s shingles and e such words, (s - 5e) / (s + 5e) stay.
        for place in rng.sample(range(len(words)), round(len(words) * (1 - aim) / (1 + aim) / 5)):
            words[place] = rng.choice(strangers)
        copies.append(" ".join(words))
        first, second = set(shingle_texts(text)), set(shingle_texts(copies[-1]))
        similarities.append(len(first & second) / len(first | second))
    return copies, similarities


def recall_and_precision(removed: Sequence[bool], similarities: Sequence[float], threshold: float) -> dict[str, float]:
    """Of the copies of at least `threshold` the share that was removed, and the share of such ones in what was."""
    right = sum(gone for gone, similarity in zip(removed, similarities, strict=True) if similarity >= threshold)
    alike = sum(similarity >= threshold for similarity in similarities)
    return {"recall": right / max(alike, 1), "precision": right / max(sum(removed), 1)}
