"""How unlike a reference is a text? A byte n-gram model, small enough to run over every document.

CCNet (Wenzek et al. 2020, arXiv 1911.00359) sorts crawled pages by their perplexity under a 5-gram model of Wikipedia.
Ours counts bytes, so that it needs no tokenizer and no language, and its unit, bits per byte, is that of this
project's language models.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy

from lm_recipes.launch import UserError

ORDER = 6
# n-grams share 2^21 slots (8 MB an order) by a hash; of those that meet in one, the most frequent stays, and 8 bits of
# the hash beside its count tell the others apart.
_SLOTS = 21
_COUNT = numpy.uint32(0xFFFFFF)
_MIX = numpy.uint64(0x9E3779B97F4A7C15)
# How many observations the shorter context is worth (the concentration of a hierarchical Dirichlet model; MacKay and
# Peto 1995).
_CONCENTRATION = 16.0
_LEARN_BYTES = 1 << 24
_READ_BYTES = 10_000
HELD_OUT = 10  # every tenth reference document sets the scale instead of being counted


class ByteModel(NamedTuple):
    """Attributes:
    counts: uint32[ORDER, slots], how often n-grams of 1 .. ORDER bytes occurred (lower 24 bits), and which they are.
    held_out: float32[documents], sorted, bits per byte of the reference documents that were not counted.
    """

    counts: numpy.ndarray
    held_out: numpy.ndarray


def perplexity(text: str, model: ByteModel, percentile: float, max_bits_per_byte: float | None = None) -> str | None:
    """Documents that the reference makes hard to predict: other languages, tables, code, scans gone wrong.

    Args:
        model: what `learn` counted in the reference.
        percentile: documents are dropped that are harder than this percentage of the reference's own held-out
            documents,
        max_bits_per_byte: or than this, where it is given.
    """
    limit = max_bits_per_byte
    if limit is None:
        last = len(model.held_out) - 1
        limit = model.held_out[round(last * percentile / 100)]
    return "unlike the reference" if bits_per_byte(model, text) > limit else None


def learn(texts: Iterable[str]) -> ByteModel:
    """Count the n-grams of reference texts, of which every tenth is held out; it reads until it has 16 MB.

    Raises:
        UserError: if there are fewer than 20 texts: too few to say what is usual.
    """
    counted, held_out, size = [], [], 0
    for number, text in enumerate(texts):
        (counted if number % HELD_OUT else held_out).append(text)
        size += len(text)
        if size >= _LEARN_BYTES:
            break
    if len(counted) + len(held_out) < 20:
        found = len(counted) + len(held_out)
        raise UserError(f"perplexity_reference: {found} documents are too few to compare with; give 20 or more")
    counts = numpy.zeros((ORDER, 1 << _SLOTS), numpy.uint32)
    data = "\n".join(counted).encode("utf-8", "surrogatepass")
    for row, keys in zip(counts, _keys(data), strict=True):
        ngrams, times = numpy.unique(keys, return_counts=True)
        rising = numpy.argsort(times, kind="stable")  # of several values for a slot, the last one stays
        slots, marks = _places(ngrams[rising])
        row[slots] = marks | numpy.minimum(times[rising], _COUNT).astype(numpy.uint32)
    model = ByteModel(counts, numpy.empty(0, numpy.float32))
    return model._replace(held_out=numpy.sort(numpy.array([bits_per_byte(model, t) for t in held_out], numpy.float32)))


def bits_per_byte(model: ByteModel, text: str) -> float:
    """Mean of -log2 p(byte | the 5 before it) over the UTF-8 bytes of a text.

    Of a text longer than 10,000 bytes it reads that many in ten pieces, evenly spread. An empty text costs 8 bits.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > _READ_BYTES:
        piece = _READ_BYTES // 10
        data = b"".join(data[i * (len(data) - piece) // 9 :][:piece] for i in range(10))
    if not data:
        return 8.0
    probability = numpy.full(len(data), 1 / 256)
    context = numpy.full(len(data), float((model.counts[0, _places(_BYTES)[0]] & _COUNT).sum()))
    for row, keys in zip(model.counts, _keys(data), strict=True):
        slots, marks = _places(keys)
        found = row[slots]
        seen = numpy.where(found & ~_COUNT == marks, found & _COUNT, 0).astype(numpy.float64)
        # The context's own count may have lost its slot: then the n-gram says nothing either.
        probability = (numpy.minimum(seen, context) + _CONCENTRATION * probability) / (context + _CONCENTRATION)
        context[0], context[1:] = 0, seen[:-1]
    return float(-numpy.log2(probability).mean())


def _keys(data: bytes) -> Iterator[numpy.ndarray]:
    """For n = 1 .. ORDER, uint64[bytes]: the n-gram that ends at each byte; before the text there are zero bytes."""
    padded = numpy.frombuffer(bytes(ORDER - 1) + data, numpy.uint8).astype(numpy.uint64)
    key = numpy.zeros(len(data), numpy.uint64)
    for n in range(1, ORDER + 1):
        key = key | (padded[ORDER - n : len(padded) - n + 1] << numpy.uint64(8 * (n - 1)))
        yield key


def _places(keys: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The slot of each n-gram, and the mark that says it is this one (uint32, the lower 24 bits free)."""
    hashes = keys * _MIX
    hashes ^= hashes >> numpy.uint64(29)
    hashes *= _MIX
    marks = (hashes & numpy.uint64(0xFF)).astype(numpy.uint32) << numpy.uint32(24)
    return (hashes >> numpy.uint64(64 - _SLOTS)).astype(numpy.int64), marks


_BYTES = numpy.arange(256, dtype=numpy.uint64)
