"""Which split does a document belong to?"""

import hashlib
from dataclasses import dataclass, field


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


@dataclass(kw_only=True)
class SplitFlags:
    """How a script's rows are divided: by the splits a source has, and where it has none by a hash."""

    train_split: str | None = field(default=None, metadata={"help": "The source's own training split."})
    validation_split: str | None = field(default=None, metadata={"help": "Its validation split; else by hash."})
    test_split: str | None = field(default=None, metadata={"help": "Its test split; else by a hash of the text."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of texts, where there is no split."})
    test_share: float = field(default=0.1, metadata={"help": "Share of texts, where there is no split."})

    def division(self) -> dict[str, object]:
        """`own_splits`, `validation` and `test`, as the loaders take them."""
        own = {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}
        return {"own_splits": own, "validation": self.validation_share, "test": self.test_share}

    def made(self) -> list[str]:
        """The held-out splits that are made here. None where the test is the source's own: that is its protocol's."""
        if self.test_split:
            return []
        return ["test"] if self.validation_split else ["validation", "test"]
