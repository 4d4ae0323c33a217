"""A cache with room behind its last token holds what transformers' own holds, whatever is done to both."""

import copy

import pytest
import torch
from tiny_models import gpt
from transformers import DynamicCache, MistralConfig
from transformers.cache_utils import DynamicSlidingWindowLayer

from lm_recipes.decoding.cache import SPARE, RoomyLayer, roomy_cache

CONFIG = gpt("llama").config


def grow(caches, tokens, rows):
    """The same new keys and values for both, in every layer; what each gives back is the same."""
    for layer in range(CONFIG.num_hidden_layers):
        new = torch.randn(2, rows, 2, tokens, 16)
        (keys, values), (roomy_keys, roomy_values) = (cache.update(new[0], new[1], layer) for cache in caches)
        assert torch.equal(keys, roomy_keys)
        assert torch.equal(values, roomy_values)


CHANGES = {
    "nothing": lambda cache: None,
    "beams that go on": lambda cache: cache.reorder_cache(torch.tensor([2, 2, 0])),
    "tokens taken back": lambda cache: cache.crop(-3),
    "rows that stay": lambda cache: cache.batch_select_indices(torch.tensor([-1])),
    "copies": lambda cache: cache.batch_repeat_interleave(2),
    "forgotten": lambda cache: cache.reset(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_tokens_are_those_of_transformers_cache(change):
    caches = DynamicCache(config=CONFIG), roomy_cache(CONFIG)
    rows = 3
    for tokens in (5, 1, 1, SPARE, 1, 2 * SPARE, 1):
        grow(caches, tokens, rows)
        for cache in caches:
            change(cache)
        rows = len(caches[0].layers[0].keys) if caches[0].get_seq_length() else 3
        assert caches[0].get_seq_length() == caches[1].get_seq_length()
    grow(caches, 1, rows)
    both = [copy.deepcopy(cache) for cache in caches]  # a copy does not write into the room of what it was copied from
    grow(both, 1, rows)
    grow(caches, 1, rows)
    grow(both, 1, rows)


def test_a_token_moves_nothing_while_there_is_room():
    cache = roomy_cache(CONFIG)
    cache.update(torch.zeros(1, 2, 4, 16), torch.zeros(1, 2, 4, 16), 0)
    place = cache.layers[0].keys.data_ptr()
    for _ in range(SPARE):
        cache.update(torch.zeros(1, 2, 1, 16), torch.zeros(1, 2, 1, 16), 0)
        assert cache.layers[0].keys.data_ptr() == place
    cache.update(torch.zeros(1, 2, 1, 16), torch.zeros(1, 2, 1, 16), 0)
    assert cache.layers[0].keys.data_ptr() != place


def test_layers_that_forget_stay_what_they_are():
    config = MistralConfig(num_hidden_layers=2, sliding_window=4)
    assert {type(layer) for layer in roomy_cache(config).layers} == {DynamicSlidingWindowLayer}
    assert {type(layer) for layer in roomy_cache(CONFIG).layers} == {RoomyLayer}
