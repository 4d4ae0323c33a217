"""How well does a model predict plain text, before and after it was taught something else?"""

from collections.abc import Iterable, Iterator

import torch

from lm_recipes.evaluation.held_out import bits_per_byte, summed_nats
from lm_recipes.objectives.causal import CausalLanguageModeling
from lm_recipes.objectives.replay import document_packer
from lm_recipes.tokenization.fast import encode_batches

TOKENS_AT_ONCE = 2_048  # bounds memory: logits are [tokens, vocabulary]


def text_bits_per_byte(model, tokenizer, texts: Iterable[str], block_size: int) -> float:
    """Bits per UTF-8 byte of whole texts, as documents and not as turns of a chat; texts longer than a block are cut
    into pieces, and each token is asked for once, given what stands before it in its piece.

    Comparable between tokenizers, and between a model and what became of it.

    Args:
        model: any causal LM, in the precision to be measured.
        block_size: tokens the model reads at a time.
    """
    texts = list(texts)
    training = model.training
    nats, _ = summed_nats(model.eval(), _batches(model, tokenizer, texts, block_size))
    model.train(training)
    return bits_per_byte(nats, texts)


def _batches(model, tokenizer, texts: list[str], block_size: int) -> Iterator[dict]:
    packer = document_packer(tokenizer, block_size)
    collator = CausalLanguageModeling(packer.pad_token_id)
    rows = [
        {"input_ids": ids, "position_ids": positions}
        for some in packer.pack(encode_batches(tokenizer, texts))
        for ids, positions in zip(*some, strict=True)
    ]
    number = max(TOKENS_AT_ONCE // block_size, 1)
    for first in range(0, len(rows), number):
        batch = collator(rows[first : first + number])
        yield {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}


def change(before: float, after: float) -> dict[str, float]:
    """For results.json: bits per byte before and after, and by which share of the first it rose (below 0: it fell)."""
    return {"bits_per_byte_before": before, "bits_per_byte": after, "change": after / before - 1}
