"""How well is a text predicted? Perplexity and bits per byte, from losses that were summed batch by batch."""

import math

import numpy as np
from datasets import Features, Value

from lm_recipes.evaluation.metrics.base import Metric
from lm_recipes.launch import UserError

SUMS = {"default": Features({"nats": Value("float64"), "tokens": Value("int64"), "bytes": Value("int64")})}


class Perplexity(Metric):
    """Perplexity of a token and bits per UTF-8 byte of text, from sums: one row per batch, or per text, or per token.

    `add_batch(nats=[...], tokens=[...], bytes=[...])`: the summed loss in nats, the tokens it was asked of, and the
    UTF-8 bytes of their text. Unlike evaluate's module of this name it loads no model and sees no text: whoever has
    the logits sums. Perplexities under different tokenizers cannot be compared; bits per byte (arXiv:2101.00027) can,
    where every token of the text was asked for.

    Result: `perplexity`, `nats_per_token`, `bits_per_byte`, `tokens`, `bytes`. The sums are exact (`math.fsum`): the
    same for every order and grouping of equal rows.

    Raises:
        UserError: no tokens or no bytes.
    """

    SOURCE, FEATURES = "arXiv:2101.00027", SUMS

    def _compute(self, nats: list[float], tokens: list[int], bytes: list[int]) -> dict[str, float]:
        total, asked, size = math.fsum(nats), sum(tokens), sum(bytes)
        if not asked or not size:
            raise UserError(f"perplexity: {asked} tokens and {size} bytes were counted; there must be some of both")
        return {
            "perplexity": float(np.exp(total / asked)),  # numpy's is inf where a model is lost, not an error
            "nats_per_token": total / asked,
            "bits_per_byte": total / math.log(2) / size,
            "tokens": asked,
            "bytes": size,
        }
