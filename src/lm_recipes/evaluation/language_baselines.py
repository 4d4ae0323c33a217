"""What do numbers of a language model have to beat? Unigram guesses, an n-gram model, and file compressors."""

import lzma
import math
import zlib
from collections.abc import Iterable

import numpy as np

from lm_recipes.objectives.packing import PackedCorpus


def unigram_accuracy(train, test, special_ids: list[int]) -> float:
    """Share of test tokens hit by always guessing the training text's most frequent token.

    Args:
        train, test: packed splits (rows of `input_ids`).
        special_ids: tokens that are never masked and so never guessed.
    """
    regular = [~np.isin(split["input_ids"][:], special_ids) for split in (train, test)]
    train_ids, test_ids = train["input_ids"][:][regular[0]], test["input_ids"][:][regular[1]]
    return float((test_ids == np.bincount(train_ids).argmax()).mean())


def compressed_bits_per_byte(texts: Iterable[str], most_bytes: int = 10_000_000) -> dict[str, float]:
    """Bits per UTF-8 byte of the texts, joined and by themselves, under gzip (level 9) and xz (preset 9 extreme).

    Args:
        most_bytes: texts beyond this size are left out; xz takes a second per megabyte.
    """
    raw = bytearray()
    for text in texts:
        if len(raw) >= most_bytes:
            break
        raw += text.encode() + b"\n"
    return {
        "gzip_bits_per_byte": 8 * len(zlib.compress(raw, 9)) / len(raw),
        "xz_bits_per_byte": 8 * len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) / len(raw),
    }


class NgramModel:
    """A token n-gram model with interpolated absolute discounting (Ney, Essen, Kneser 1994), counted with numpy.

    p_n(t | h) = max(c(h t) - D, 0) / c(h) + D kinds(h) / c(h) * p_{n-1}(t | h'), where h' is h without its first
    token, kinds(h) the number of different tokens seen after h, and p_0 uniform over the vocabulary.

    Args:
        input_ids, position_ids: packed blocks `[N, L]`; n-grams never cross a document.
        order: the longest n-gram, in tokens; `vocab_size ** order` must fit 63 bits.
    """

    def __init__(
        self, input_ids: np.ndarray, position_ids: np.ndarray, vocab_size: int, order: int, discount: float = 0.75
    ) -> None:
        self.vocab_size, self.order, self.discount = vocab_size, order, discount
        self.tables = []  # per order: sorted n-grams, counts; sorted histories, counts, kinds
        for length in range(1, order + 1):
            keys, valid = self._keys(input_ids, position_ids, length)
            grams, counts = np.unique(keys[valid], return_counts=True)
            histories, first, kinds = np.unique(grams // vocab_size, return_index=True, return_counts=True)
            self.tables.append((grams, counts, histories, np.add.reduceat(counts, first), kinds))

    def _keys(self, ids: np.ndarray, positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Each position's n-gram as one integer, and whether it lies inside a document: `[N, L]` both."""
        keys = np.zeros(ids.shape, dtype=np.int64)
        for back in range(length - 1, -1, -1):
            keys = keys * self.vocab_size + np.roll(ids, back, axis=1)
        return keys, positions >= max(length - 1, 1)  # a document's first token is never predicted

    def nats(self, input_ids: np.ndarray, position_ids: np.ndarray) -> np.ndarray:
        """-log p of every token, `[N, L]`; only those with position > 0 were asked for."""
        probability = np.full(input_ids.shape, 1 / self.vocab_size)
        for length, (grams, counts, histories, totals, kinds) in enumerate(self.tables, start=1):
            keys, valid = self._keys(input_ids, position_ids, length)
            count = _look_up(grams, counts, keys)
            total = _look_up(histories, totals, keys // self.vocab_size)
            seen = valid & (total > 0)
            held = self.discount * _look_up(histories, kinds, keys // self.vocab_size)
            mixed = (np.maximum(count - self.discount, 0) + held * probability) / np.maximum(total, 1)
            probability = np.where(seen, mixed, probability)
        return -np.log(probability)


def _look_up(sorted_keys: np.ndarray, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`values` of `keys`, 0 where a key is unknown."""
    index = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[index] == keys, values[index], 0)


def ngram_bits_per_byte(corpus: PackedCorpus, vocab_size: int, pad_token_id: int) -> dict[str, float]:
    """Bits per byte of the test split under an n-gram model of the same tokens a GPT trains on.

    The order (1 to 4) is the one that does best on the validation split.
    """

    def blocks(split) -> tuple[np.ndarray, np.ndarray]:
        return split["input_ids"][:].astype(np.int64), split["position_ids"][:].astype(np.int64)

    def bits_per_byte(model: NgramModel, name: str) -> float:
        ids, positions = blocks(getattr(corpus, name))
        asked = (positions > 0) & (ids != pad_token_id)
        return float(model.nats(ids, positions)[asked].mean()) / math.log(2) / corpus.bytes_per_token[name]

    train = blocks(corpus.train)
    models = [NgramModel(*train, vocab_size, order) for order in range(1, 5)]
    best = min(models, key=lambda model: bits_per_byte(model, "validation"))
    return {"ngram_bits_per_byte": bits_per_byte(best, "test"), "ngram_order": best.order}
