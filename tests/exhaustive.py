"""Every continuation there is, by brute force, and every strategy ready for tiny models."""

import itertools
from dataclasses import replace

from tiny_models import gpt

from lm_recipes.decoding.probabilities import step_logits
from lm_recipes.decoding.strategies import Strategy, strategy

NEEDED = {"constrained_beam": {"phrases": ["dog"]}, "assisted": {"draft_model": "tiny"}}


def way(name: str, **options) -> Strategy:
    """A strategy with what it cannot do without; the draft is a tiny llama of other weights."""
    made = strategy(name, **{**NEEDED.get(name, {}), **options})
    if name == "assisted":
        return replace(made, extra={**made.extra, "assistant_model": gpt("llama", seed=7)})
    return made


def all_continuations(model, prompt, length, end):
    """Every continuation of `length` tokens (or that ended before) with its log-probability."""
    found = {}
    for tokens in itertools.product(range(model.config.vocab_size), repeat=length):
        tokens = list(tokens)
        if end in tokens:
            tokens = tokens[: tokens.index(end) + 1]
        if tuple(tokens) not in found:
            steps = step_logits(model, prompt, tokens).log_softmax(-1)
            found[tuple(tokens)] = sum(steps[i, token].item() for i, token in enumerate(tokens))
    return found


def contains(tokens, phrase) -> bool:
    tokens, phrase = list(tokens), list(phrase)
    return any(tokens[i : i + len(phrase)] == phrase for i in range(len(tokens) - len(phrase) + 1))
