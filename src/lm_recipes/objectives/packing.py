"""How do documents of any length become blocks of one length, with nothing lost and nothing mixed?

A document longer than a block is cut into pieces; pieces shorter than a block share one, best fit first. Each
block carries `position_ids` that restart at 0 with every piece, which is all that is needed to keep pieces apart:
decoders of transformers read them as they are, and `segments()` turns them into an encoder's block mask.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lm_recipes.artifacts import read_json
from lm_recipes.launch import UserError


@dataclass(frozen=True)
class Packer:
    """Cuts token ids into pieces of at most `block_size` and packs the pieces into blocks of exactly that length.

    Every piece is `prefix + part of the document + suffix`. With `overlap=1` (causal LM) a piece starts with the
    last token of the piece before it, so that every token of every document is predicted exactly once: losses add
    up to the document's log-likelihood, and bits per byte are exact.
    """

    block_size: int
    pad_token_id: int
    prefix: tuple[int, ...] = ()  # opens every piece ([CLS])
    suffix: tuple[int, ...] = ()  # closes every piece ([SEP])
    document_prefix: tuple[int, ...] = ()  # opens every document (<|bos|>)
    document_suffix: tuple[int, ...] = ()  # closes every document (<|eos|>)
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.room <= self.overlap:
            raise UserError(f"block_size {self.block_size} leaves no room for text; use a larger one")

    @property
    def room(self) -> int:
        """Tokens of a document that fit into one piece."""
        return self.block_size - len(self.prefix) - len(self.suffix)

    @classmethod
    def for_tokenizer(cls, tokenizer, block_size: int) -> "Packer":
        """BERT's way ([CLS] piece [SEP]) where the tokenizer has both tokens, else GPT's (bos document eos)."""
        if tokenizer.pad_token_id is None:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no pad token; packing needs one")
        if tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
            return cls(
                block_size,
                tokenizer.pad_token_id,
                prefix=(tokenizer.cls_token_id,),
                suffix=(tokenizer.sep_token_id,),
            )
        if tokenizer.eos_token_id is None:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has neither [CLS]/[SEP] nor an eos token")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return cls(
            block_size,
            tokenizer.pad_token_id,
            document_prefix=(start,),
            document_suffix=(tokenizer.eos_token_id,),
            overlap=1,
        )

    def pieces(self, ids: Iterable[int]) -> Iterator[np.ndarray]:
        """The pieces of one document (int64 arrays), in order. An empty document has none."""
        body = np.asarray(ids, dtype=np.int64)
        if not len(body):
            return
        body = np.concatenate([self.document_prefix, body, self.document_suffix]).astype(np.int64)
        step = self.room - self.overlap
        for start in range(0, max(len(body) - self.overlap, 1), step):
            part = body[start : start + self.room]
            yield np.concatenate([self.prefix, part, self.suffix]).astype(np.int64)

    def pack(self, documents: Iterable[Iterable[int]], buffer: int = 65_536) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks as `(input_ids, position_ids)`, each int64 `[block_size]`, in an order fixed by the input.

        A piece that fills a block leaves at once; up to `buffer` shorter ones wait to be combined, so memory stays
        flat on a corpus of any size. Padding has position ids of its own: it is a piece that nobody else sees.
        """
        waiting: list[np.ndarray] = []
        for ids in documents:
            for piece in self.pieces(ids):
                if len(piece) == self.block_size:
                    yield self._block([piece])
                else:
                    waiting.append(piece)
            if len(waiting) >= buffer:
                yield from map(self._block, best_fit(waiting, self.block_size))
                waiting = []
        yield from map(self._block, best_fit(waiting, self.block_size))

    def _block(self, pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        padding = self.block_size - sum(map(len, pieces))
        parts = [*pieces, np.full(padding, self.pad_token_id, dtype=np.int64)]
        return np.concatenate(parts), np.concatenate([np.arange(len(part)) for part in parts])


def best_fit(pieces: list[np.ndarray], block_size: int) -> Iterator[list[np.ndarray]]:
    """Best-fit decreasing bin packing: the longest piece first, each into the fullest bin that still takes it.

    Fewer truncations than concatenation and almost no padding: https://arxiv.org/abs/2404.10830.
    """
    bins: list[list[np.ndarray]] = []
    by_room: dict[int, list[int]] = defaultdict(list)  # free tokens -> bins
    rooms = 0  # bit r is set while some bin has exactly r tokens free: finds the best fit in one operation
    for piece in sorted(pieces, key=len, reverse=True):
        fitting = rooms >> len(piece)
        if fitting:
            room = len(piece) + (fitting & -fitting).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, chosen = block_size, len(bins)
            bins.append([])
        bins[chosen].append(piece)
        by_room[room - len(piece)].append(chosen)
        rooms |= 1 << (room - len(piece))
    yield from bins


def segments(position_ids: np.ndarray) -> np.ndarray:
    """The number of the piece each token belongs to: `[..., L]` position ids to `[..., L]` ints from 1 up."""
    return np.cumsum(position_ids == 0, axis=-1)


@dataclass(frozen=True)
class PackedCorpus:
    """Packed blocks of a corpus: per split a memory-mapped `datasets.Dataset` with numpy rows `[block_size]`."""

    train: object
    validation: object
    test: object
    block_size: int
    bytes_per_token: dict[str, float]  # split -> UTF-8 bytes of text per token a causal model predicts
    tokenizer_fingerprint: str | None
    source: str | None  # where the text came from, as clean.py was told


def read_packed(directory: str | Path) -> PackedCorpus:
    """What `recipes/corpus/pack.py` wrote.

    Raises:
        UserError: the directory is not a packed corpus, a column is missing, or a split is empty.
    """
    from datasets import load_from_disk

    record = read_json(Path(directory) / "results.json", "packed corpus; make one with `python recipes/corpus/pack.py`")
    splits = {}
    for split in ("train", "validation", "test"):
        path = Path(directory) / split
        if not (path / "dataset_info.json").is_file():
            raise UserError(f"{path}: no packed blocks here; make them with `python recipes/corpus/pack.py`")
        dataset = load_from_disk(str(path))
        for column in ("input_ids", "position_ids"):
            if column not in dataset.column_names:
                raise UserError(f"{path}: column `{column}` is missing; pack the corpus with recipes/corpus/pack.py")
        if not len(dataset):
            raise UserError(f"{path}: the {split} split is empty")
        splits[split] = dataset.with_format("numpy", columns=["input_ids", "position_ids"])
    counts = record["metrics"]
    return PackedCorpus(
        **splits,
        block_size=record["config"]["block_size"],
        bytes_per_token={name: counts[name]["text_bytes"] / counts[name]["predicted_tokens"] for name in splits},
        tokenizer_fingerprint=record["inputs"]["tokenizer"]["fingerprint"],
        source=record["config"]["source"],
    )


def write_packed(texts: Iterable[str], tokenizer, packer: Packer, directory: str | Path) -> dict[str, float]:
    """Tokenise texts, pack them and save the blocks as a `datasets` directory that `read_packed` maps.

    Returns:
        documents, text_bytes (UTF-8), tokens, blocks, padding_share, and predicted_tokens: how many tokens a causal
        model is asked for, so that `text_bytes / predicted_tokens` turns its loss into bits per byte.
    """
    import datasets
    import pyarrow as pa

    dtype = pa.uint16() if len(tokenizer) <= 2**16 else pa.uint32()
    counts = {"documents": 0, "text_bytes": 0}

    def encoded() -> Iterator[list[int]]:
        documents = iter(texts)
        while batch := list(islice(documents, 256)):  # enough to keep all cores of the tokenizer busy
            counts["documents"] += len(batch)
            counts["text_bytes"] += sum(len(text.encode()) for text in batch)
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield encoding.ids

    def column(rows: list[np.ndarray]) -> pa.FixedSizeListArray:
        flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, type=dtype), packer.block_size)

    tables, predicted, padding, blocks = [], 0, 0, packer.pack(encoded())
    while rows := list(islice(blocks, 4096)):
        ids, positions = map(list, zip(*rows, strict=True))
        pad = np.stack(ids) == packer.pad_token_id
        padding += int(pad.sum())
        predicted += int(((np.stack(positions) > 0) & ~pad).sum())
        tables.append(pa.table({"input_ids": column(ids), "position_ids": column(positions)}))
    if not tables:
        tables = [pa.table({"input_ids": column([]), "position_ids": column([])})]
    table = pa.concat_tables(tables)
    datasets.Dataset(table).save_to_disk(str(directory))
    size = len(table) * packer.block_size
    return counts | {
        "tokens": size - padding,
        "blocks": len(table),
        "padding_share": padding / max(size, 1),
        "predicted_tokens": predicted,
    }
