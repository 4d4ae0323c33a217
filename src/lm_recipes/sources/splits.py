"""Which split does a document belong to?"""

import hashlib


def split_of(key: str, validation: float, test: float, seed: int = 0) -> str:
    """ "train", "validation" or "test", from a SHA-256 of `key` alone.

    A document keeps its split whatever the order, the number of processes or the other documents; equal
    keys never straddle splits.

    Args:
        validation, test: shares of all documents, each in [0, 1), with a sum below 1.
    """
    digest = hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < validation:
        return "validation"
    return "test" if position < validation + test else "train"
