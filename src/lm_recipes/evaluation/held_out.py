"""What does a model lose on a text, however it was cut for it? Sums over whole texts, which can be compared."""

import math
from collections.abc import Iterable, Iterator

import numpy as np


def stream_batches(stream: np.ndarray, block_size: int, batch_size: int = 16) -> Iterator[dict]:
    """Batches for a causal model without packing: a stream cut so that every token but its first is asked for once.

    Each block begins with the last token of the one before it; the last one is filled up with id 0, without labels.
    """
    import torch

    step = block_size - 1
    rows = -(-(len(stream) - 1) // step)
    padded = np.full(rows * step + 1, -1, np.int64)
    padded[: len(stream)] = stream
    blocks = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(padded, block_size)[::step].copy())
    for some in blocks.split(batch_size):
        yield {"input_ids": some.clamp(min=0), "labels": some.masked_fill(some < 0, -100), "use_cache": False}


def packed_batches(texts: Iterable[str], tokenizer, block_size: int, collator, batch_size: int = 16) -> Iterator[dict]:
    """Batches that `collator` makes of texts packed our way (best fit)."""
    from lm_recipes.objectives.packing import Packer
    from lm_recipes.tokenization.fast import encode_batches

    packer = Packer.for_tokenizer(tokenizer, block_size)
    rows = [
        {"input_ids": ids, "position_ids": positions}
        for some in packer.pack(encode_batches(tokenizer, texts))
        for ids, positions in zip(*some, strict=True)
    ]
    for first in range(0, len(rows), batch_size):
        yield collator(rows[first : first + batch_size])


def without_isolation(batches: Iterable[dict], pad_token_id: int) -> Iterator[dict]:
    """The same ids and labels for a model that was trained across documents: it attends to all but padding."""
    for batch in batches:
        ids = batch["input_ids"]
        yield {"input_ids": ids, "attention_mask": ids.ne(pad_token_id).long(), "labels": batch["labels"]}


def summed_nats(model, batches: Iterable[dict]) -> tuple[float, int]:
    """The loss of all labels in nats, in float32, and how many there are."""
    import torch

    nats, asked = 0.0, 0
    shifted = model.can_generate()  # a causal model predicts the next token
    for batch in batches:
        labels = batch["labels"][:, 1:] if shifted else batch["labels"]
        count = int((labels != -100).sum())
        with torch.inference_mode():
            nats += float(model(**batch).loss) * count if count else 0.0
        asked += count
    return nats, asked


def bits_per_byte(nats: float, texts: Iterable[str]) -> float:
    """The loss of whole texts as bits per UTF-8 byte: the same measure for every tokenizer and every way of cutting."""
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)
