"""How do texts that began at different times share a forward pass, and read the same as each alone?

Every row of the key-value cache ends at the right edge; what is missing on its left is masked. Keys carry their own
positions, so a text may begin in any column, and a new one joins by padding either side on the left.
"""

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lm_recipes.decoding.cache import roomy_cache
from lm_recipes.launch import UserError


def can_join(model: PreTrainedModel, name: str) -> bool:
    """Whether texts of this model can share a batch: all its layers keep every token.

    A sliding window counts columns from where a text began, so such a model's texts are decoded one after another.

    Raises:
        UserError: it keeps something else than keys and values (recurrent states).
    """
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        raise UserError(f"{name}: keeps more than keys and values of what it has read; use `transformers serve` for it")
    return kinds == {DynamicLayer}


@torch.inference_mode()
def read(
    model: PreTrainedModel, tokens: list[int], cache: DynamicCache | None = None, prefix: torch.Tensor | None = None
) -> tuple[torch.Tensor, DynamicCache]:
    """The logits of the next token, float32 `[V]`, and the cache of one row. A text is read alone: no padding.

    Args:
        cache: of what stands before the tokens. prefix: float `[P, D]`, embeddings that a prompt-tuning adapter puts
            before a text.
    """
    ids = torch.tensor([tokens], device=model.device)
    cache = roomy_cache(model.config) if cache is None else cache
    inputs, width = {"input_ids": ids}, len(tokens)
    if prefix is not None:
        embeddings = model.get_input_embeddings()(ids)
        inputs = {"inputs_embeds": torch.cat([prefix[None].to(embeddings.dtype), embeddings], dim=1)}
        width += len(prefix)
    positions = torch.arange(width, device=model.device)[None] + cache.get_seq_length()
    output = model(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return output.logits[0, -1].float(), cache


class RunningBatch:
    """R texts being continued: their cache and mask, int `[R, width]`, 1 where a column is a token of the text."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.cache: DynamicCache | None = None
        self.mask: torch.Tensor | None = None

    @torch.inference_mode()
    def join(self, cache: DynamicCache, copies: int = 1) -> None:
        """Add `copies` rows that go on from the one row in `cache`, behind those that are there."""
        if copies > 1:
            cache.batch_repeat_interleave(copies)
        mask = torch.ones((copies, cache.get_seq_length()), dtype=torch.long, device=self.model.device)
        if self.cache is None:
            self.cache, self.mask = cache, mask
            return
        gap = mask.shape[1] - self.mask.shape[1]
        ours, theirs = max(gap, 0), max(-gap, 0)
        for layer, new in zip(self.cache.layers, cache.layers, strict=True):
            layer.keys = torch.cat([pad(layer.keys, (0, 0, ours, 0)), pad(new.keys, (0, 0, theirs, 0))])
            layer.values = torch.cat([pad(layer.values, (0, 0, ours, 0)), pad(new.values, (0, 0, theirs, 0))])
        self.mask = torch.cat([pad(self.mask, (ours, 0)), pad(mask, (theirs, 0))])

    @torch.inference_mode()
    def step(self, tokens: list[int]) -> torch.Tensor:
        """Logits of the next tokens, float32 `[R, V]`, after one more token of each row."""
        ids = torch.tensor(tokens, device=self.model.device)[:, None]
        self.mask = pad(self.mask, (0, 1), value=1)
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.mask.sum(-1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    @torch.inference_mode()
    def keep(self, rows: list[int]) -> None:
        """Drop all other rows, and the columns on the left that no row needs any more."""
        if not rows:
            self.cache = self.mask = None
            return
        if len(rows) == len(self.mask):
            return
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]
        spare = int(self.mask.any(0).int().argmax())
        if spare:
            self.mask = self.mask[:, spare:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]
