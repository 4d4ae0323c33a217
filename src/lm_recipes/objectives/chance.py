"""What decides where chance has a say? The run's seed, the epoch and the row itself, and nothing else.

So what becomes of a row does not depend on its batch, its process or what ran before, and a resumed run sees exactly
what an uninterrupted one sees.
"""

import hashlib

import numpy as np


def row_seed(seed: int, epoch: int, ids: np.ndarray, purpose: str = "") -> int:
    """64 bits of `(purpose, seed, epoch, ids)`; ids are int64 `[L]`. Another purpose is another, unrelated choice."""
    key = f"{purpose}{seed}:{epoch}:".encode() + ids.astype(np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def row_generator(seed: int, epoch: int, ids: np.ndarray, purpose: str = "") -> np.random.Generator:
    return np.random.default_rng(row_seed(seed, epoch, ids, purpose))
