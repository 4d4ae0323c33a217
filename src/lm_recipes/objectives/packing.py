"""How do documents of any length become blocks of one length, with nothing lost and nothing mixed?

*Best fit*: a document longer than a block is cut into pieces; pieces shorter than a block share one, best fit first.
*Concatenation*: documents one after the other, cut every `block_size` tokens (`group_texts` of transformers' examples,
but with documents kept apart and nothing dropped).

Each block carries `position_ids` that restart at 0 with every piece, which is all that is needed to keep pieces apart:
decoders of transformers read them as they are, and `segments()` turns them into an encoder's block mask.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lm_recipes.artifacts import read_json
from lm_recipes.launch import UserError
from lm_recipes.objectives.packed import PackedSplit, write_blocks

Documents = tuple[np.ndarray, np.ndarray]  # ids of some documents, and offsets: i is ids[offsets[i]:offsets[i + 1]]
Blocks = tuple[np.ndarray, np.ndarray]  # input_ids and position_ids, [blocks, block_size] both


@dataclass(frozen=True)
class Packer:
    """Cuts token ids into pieces of at most `block_size` and packs the pieces into blocks of exactly that length.

    Under best fit every piece is `prefix + part of the document + suffix`. With `overlap=1` (causal LM) a piece starts
    with the last token of the piece before it, so that every token of every document is predicted exactly once: losses
    add up to the document's log-likelihood, and bits per byte are exact.

    Concatenation has neither: a piece ends where the block does, and the first token of a block is never predicted.
    More documents are cut, and only the last block is padded.
    """

    block_size: int
    pad_token_id: int
    prefix: tuple[int, ...] = ()  # opens every piece ([CLS])
    suffix: tuple[int, ...] = ()  # closes every piece ([SEP])
    document_prefix: tuple[int, ...] = ()  # opens every document (<|bos|>)
    document_suffix: tuple[int, ...] = ()  # closes every document (<|eos|>)
    overlap: int = 0
    packing: str = "best_fit"  # or "concatenate"

    def __post_init__(self) -> None:
        if self.packing not in ("best_fit", "concatenate"):
            raise UserError(f"packing is `{self.packing}`; it must be best_fit or concatenate")
        if self.room <= self.overlap:
            raise UserError(f"block_size {self.block_size} leaves no room for text; use a larger one")

    @property
    def room(self) -> int:
        """Tokens of a document that fit into one piece."""
        return self.block_size - len(self.prefix) - len(self.suffix)

    @classmethod
    def for_tokenizer(cls, tokenizer, block_size: int, packing: str = "best_fit") -> "Packer":
        """BERT's way ([CLS] piece [SEP]) where the tokenizer has both tokens, else GPT's (bos document eos).

        Concatenation has the same tokens, but around whole documents on both tracks.
        """
        pad, cls_id, sep_id = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
        if pad is None:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no pad token; packing needs one")
        if cls_id is not None and sep_id is not None:
            if packing == "concatenate":
                return cls(block_size, pad, document_prefix=(cls_id,), document_suffix=(sep_id,), packing=packing)
            return cls(block_size, pad, prefix=(cls_id,), suffix=(sep_id,), packing=packing)
        if tokenizer.eos_token_id is None:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has neither [CLS]/[SEP] nor an eos token")
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return cls(
            block_size,
            pad,
            document_prefix=(start,),
            document_suffix=(tokenizer.eos_token_id,),
            overlap=0 if packing == "concatenate" else 1,
            packing=packing,
        )

    def pack(
        self, batches: Iterable[Documents], counts: Counter | None = None, buffer: int = 65_536
    ) -> Iterator[Blocks]:
        """Blocks, some at a time, in an order fixed by the documents; how these are spread over batches is no matter.

        Args:
            batches: `(ids, offsets)` as `tokenization.fast.encode_batches` yields them. Empty documents are skipped.
            counts: is added to: documents, documents_cut (into several pieces), pieces, and tokens (all but padding).
            buffer: best fit lets a piece that fills a block leave at once; up to this many shorter ones wait to be
                combined, so memory stays flat on a corpus of any size.

        Yields:
            `input_ids` in the dtype of the documents and int32 `position_ids`, both `[n, block_size]`. Padding has
            position ids of its own: it is a piece that nobody else sees.
        """
        counts = Counter() if counts is None else counts
        documents = (self._whole(*batch) for batch in batches)
        if self.packing == "concatenate":
            return self._concatenate(documents, counts)
        return self._best_fit(documents, counts, buffer)

    def _whole(self, ids: np.ndarray, offsets: np.ndarray) -> Documents:
        """Documents between their `document_prefix` and `document_suffix`, without the empty ones."""
        ids, offsets = ids[offsets[0] : offsets[-1]], offsets - offsets[0]
        offsets = np.concatenate([offsets[:1], offsets[1:][np.diff(offsets) > 0]])
        offsets = offsets + np.arange(len(offsets)) * (len(self.document_prefix) + len(self.document_suffix))
        whole, text = np.empty(offsets[-1], ids.dtype), np.ones(offsets[-1], dtype=bool)
        places = [(offsets[:-1] + place, token) for place, token in enumerate(self.document_prefix)]
        places += [(offsets[1:] - place, token) for place, token in enumerate(self.document_suffix[::-1], start=1)]
        for place, token in places:
            whole[place], text[place] = token, False
        whole[text] = ids
        return whole, offsets

    def _best_fit(self, batches: Iterable[Documents], counts: Counter, buffer: int) -> Iterator[Blocks]:
        waiting: list[Documents] = []
        step, shorts = self.room - self.overlap, 0
        for ids, offsets in batches:
            pieces = -(-np.maximum(np.diff(offsets) - self.overlap, 1) // step)
            last = offsets[:-1] + (pieces - 1) * step  # where the last piece of each document starts
            short = offsets[1:] - last < self.room  # all other pieces fill a block
            number = shorts + np.cumsum(short)
            ends_buffer = np.flatnonzero(short & (number % buffer == 0)) + 1
            for start, end in pairwise([0, *ends_buffer, len(pieces)]):
                some = slice(start, end)
                yield from self._full_blocks(ids, offsets[:-1][some], (pieces - short)[some])
                starts, stops = last[some][short[some]], offsets[1:][some][short[some]]
                waiting.append((ids[spans(starts, stops - starts)], np.cumsum([0, *(stops - starts)])))
                if end in ends_buffer:
                    yield from self._shared_blocks(*_joined(waiting))
                    waiting = []
            shorts += int(short.sum())
            around = len(self.prefix) + len(self.suffix)
            counts.update(
                documents=len(pieces),
                documents_cut=int((pieces > 1).sum()),
                pieces=int(pieces.sum()),
                tokens=len(ids) + int(((pieces - 1) * self.overlap + pieces * around).sum()),
            )
        if waiting:
            yield from self._shared_blocks(*_joined(waiting))

    def _full_blocks(self, ids: np.ndarray, documents: np.ndarray, pieces: np.ndarray) -> Iterator[Blocks]:
        """One block for each of the first `pieces` pieces of the documents that start at `documents`."""
        starts = np.repeat(documents, pieces) + (self.room - self.overlap) * spans(np.zeros_like(pieces), pieces)
        for start in range(0, len(starts), self._at_once):
            windows = np.lib.stride_tricks.sliding_window_view(ids, self.room)[starts[start : start + self._at_once]]
            blocks = np.empty((len(windows), self.block_size), ids.dtype)
            blocks[:, : len(self.prefix)] = self.prefix
            blocks[:, len(self.prefix) : len(self.prefix) + self.room] = windows
            blocks[:, len(self.prefix) + self.room :] = self.suffix
            positions = np.arange(self.block_size, dtype=np.int32)
            yield blocks, np.broadcast_to(positions, blocks.shape)

    def _shared_blocks(self, ids: np.ndarray, offsets: np.ndarray) -> Iterator[Blocks]:
        """Short pieces, combined."""
        before, around = len(self.prefix), len(self.prefix) + len(self.suffix)
        order, block_of = best_fit(np.diff(offsets) + around, self.block_size)
        bounds = np.searchsorted(block_of, np.arange(0, block_of[-1] + 1, self._at_once) if len(order) else [])
        for first, end in pairwise([*bounds, len(order)]):
            pieces, block = order[first:end], block_of[first:end] - block_of[first]
            lengths = np.diff(offsets)[pieces] + around
            fill = np.bincount(block, weights=lengths).astype(np.int64)
            blocks = np.full(len(fill) * self.block_size, self.pad_token_id, ids.dtype)
            ends = np.cumsum(lengths)  # one piece right after the other, where blocks had no padding
            starts = ends - lengths + block * self.block_size - (np.cumsum(fill) - fill)[block]
            blocks[spans(starts + before, lengths - around)] = ids[spans(offsets[pieces], lengths - around)]
            for place, token in enumerate(self.prefix):
                blocks[starts + place] = token
            for place, token in enumerate(self.suffix[::-1], start=1):
                blocks[starts + lengths - place] = token
            padding = np.flatnonzero(fill < self.block_size)
            opens = np.zeros(len(blocks), dtype=bool)
            opens[starts] = opens[padding * self.block_size + fill[padding]] = True
            yield blocks.reshape(-1, self.block_size), self._positions(opens)

    def _concatenate(self, batches: Iterable[Documents], counts: Counter) -> Iterator[Blocks]:
        size, rest = self.block_size, None
        for ids, offsets in batches:
            begins = counts["tokens"] + offsets  # places in the endless row of all documents
            opens = np.zeros(len(ids), dtype=bool)
            opens[offsets[:-1]] = True
            cut = begins[:-1] // size != (begins[1:] - 1) // size
            inner = (begins[1:] - 1) // size - begins[:-1] // size  # block borders inside a document
            counts.update(
                documents=len(cut),
                documents_cut=int(cut.sum()),
                pieces=len(cut) + int(inner.sum()),
                tokens=len(ids),
            )
            if rest is not None:
                ids, opens = np.concatenate([rest[0], ids]), np.concatenate([rest[1], opens])
            end = len(ids) // size * size
            yield ids[:end].reshape(-1, size), self._positions(opens[:end])
            rest = ids[end:], opens[end:]
        if rest is not None and len(rest[0]):
            ids, opens = np.full(size, self.pad_token_id, rest[0].dtype), np.zeros(size, dtype=bool)
            ids[: len(rest[0])], opens[: len(rest[1])], opens[len(rest[1])] = *rest, True
            yield ids[None], self._positions(opens)

    def _positions(self, opens: np.ndarray) -> np.ndarray:
        """Where a piece begins, `[n * block_size]` bool, to position ids `[n, block_size]`."""
        index = np.arange(self.block_size, dtype=np.int32)
        return index - np.maximum.accumulate(np.where(opens.reshape(-1, self.block_size), index, 0), axis=1)

    @property
    def _at_once(self) -> int:
        """Blocks to make at a time: a few megabytes."""
        return max(2**20 // self.block_size, 1)


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`[start, start + 1, ..., start + length - 1]` for each pair, end to end."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _joined(batches: list[Documents]) -> Documents:
    lengths = np.concatenate([np.diff(offsets) for _, offsets in batches])
    return np.concatenate([ids for ids, _ in batches]), np.concatenate([[0], np.cumsum(lengths)])


def best_fit(lengths: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Best-fit decreasing bin packing: the longest piece first, each into the fullest block that still takes it.

    Fewer truncations than concatenation and almost no padding: https://arxiv.org/abs/2404.10830. Pieces of one length
    are placed together: a block that is the best fit for the first stays it for the next ones until it is too full.

    Args:
        lengths: of pieces, 1 to `block_size`; `[pieces]` ints.

    Returns:
        The pieces in the order in which blocks hold them (indices), and the block of each, counted from 0; `[pieces]`.
    """
    order = np.argsort(-lengths, kind="stable")
    block_of = np.empty(len(lengths), dtype=np.int64)
    with_room: dict[int, list[np.ndarray]] = defaultdict(list)  # free tokens -> blocks, the last one is taken first
    rooms = 0  # bit r is set while some block has exactly r tokens free: finds the best fit in one operation
    placed = blocks = 0

    def leave(room: int, these: np.ndarray) -> None:
        nonlocal rooms
        if len(these):
            with_room[room].append(these)
            rooms |= 1 << room

    values, counts = np.unique(lengths, return_counts=True)
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            fitting = rooms >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else block_size
            each = room // length  # pieces that one block takes
            wanted = -(-count // each)
            if fitting:
                stack = with_room[room].pop()
                chosen, others = stack[::-1][:wanted], stack[: max(len(stack) - wanted, 0)]
                if not with_room[room]:
                    rooms &= ~(1 << room)
                leave(room, others)
            else:
                chosen = np.arange(blocks, blocks + wanted)
                blocks += wanted
            some = min(count, len(chosen) * each)
            block_of[placed : placed + some] = np.repeat(chosen, each)[:some]
            full, over = divmod(some, each)
            leave(room - each * length, chosen[:full])
            leave(room - over * length, chosen[full:])
            placed, count = placed + some, count - some
    by_block = np.argsort(block_of, kind="stable")
    return order[by_block], block_of[by_block]


def segments(position_ids: np.ndarray) -> np.ndarray:
    """The number of the piece each token belongs to: `[..., L]` position ids to `[..., L]` ints from 1 up."""
    return np.cumsum(position_ids == 0, axis=-1)


@dataclass(frozen=True)
class PackedCorpus:
    """Packed blocks of a corpus: per split rows of `input_ids` and `position_ids`, `[block_size]` each, mapped."""

    train: PackedSplit
    validation: PackedSplit
    test: PackedSplit
    block_size: int
    bytes_per_token: dict[str, float]  # split -> UTF-8 bytes of text per token a causal model predicts
    tokenizer_fingerprint: str | None
    source: str | None  # where the text came from, as clean.py was told
    counts: dict[str, float]  # of the training split, as `write_packed` returned them


def read_packed(directory: str | Path) -> PackedCorpus:
    """What `recipes/corpus/pack.py` wrote.

    Raises:
        UserError: the directory is not a packed corpus, a column is missing, or a split is empty.
    """
    record = read_json(Path(directory) / "results.json", "packed corpus; make one with `python recipes/corpus/pack.py`")
    splits = {split: PackedSplit.open(Path(directory) / split) for split in ("train", "validation", "test")}
    counts = record["metrics"]
    # Concatenation never asks for the first token of a block; it counts at the mean of those that were asked for.
    predicted = {name: counts[name]["predicted_tokens"] + counts[name].get("unasked_tokens", 0) for name in splits}
    return PackedCorpus(
        **splits,
        block_size=record["config"]["block_size"],
        bytes_per_token={name: counts[name]["text_bytes"] / predicted[name] for name in splits},
        tokenizer_fingerprint=record["inputs"]["tokenizer"]["fingerprint"],
        source=record["config"]["source"],
        counts=counts["train"],
    )


def write_packed(texts: Iterable[str], tokenizer, packer: Packer, directory: str | Path) -> dict[str, float]:
    """Tokenise texts, pack them and save the blocks as a `datasets` directory that `read_packed` maps.

    Memory holds a few batches, whatever the size of the corpus.

    Returns:
        documents, text_bytes (UTF-8), tokens, blocks; documents_cut, pieces, pieces_per_document (of those that are not
        empty), pieces_per_block, padding_share; predicted_tokens: how many tokens a causal model is asked for, and
        unasked_tokens: how many more it would be asked for if no block began inside a document.
        `text_bytes / (predicted_tokens + unasked_tokens)` turns its loss into bits per byte.
    """
    from lm_recipes.tokenization.fast import encode_batches

    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    packed: Counter = Counter()
    seen: Counter = Counter()

    def counted() -> Iterator[str]:
        for text in texts:
            seen.update(documents=1, text_bytes=len(text) if text.isascii() else len(text.encode()))
            yield text

    def blocks() -> Iterator[Blocks]:
        batches = ((ids.astype(dtype), offsets) for ids, offsets in encode_batches(tokenizer, counted()))
        for ids, positions in packer.pack(batches, packed):
            seen.update(blocks=len(ids), asked=int(((positions > 0) & (ids != packer.pad_token_id)).sum()))
            yield ids, positions

    write_blocks(directory, blocks(), packer.block_size, dtype)
    return {
        "documents": seen["documents"],
        "text_bytes": seen["text_bytes"],
        "tokens": packed["tokens"],
        "blocks": seen["blocks"],
        "documents_cut": packed["documents_cut"],
        "pieces": packed["pieces"],
        "pieces_per_document": packed["pieces"] / max(packed["documents"], 1),
        "pieces_per_block": packed["pieces"] / max(seen["blocks"], 1),
        "padding_share": 1 - packed["tokens"] / max(seen["blocks"] * packer.block_size, 1) if seen["blocks"] else 0.0,
        "predicted_tokens": seen["asked"],
        "unasked_tokens": packed["pieces"] - packed["documents"] if packer.packing == "concatenate" else 0,
    }
