"""Batch generation == single generation; and what a seed makes is made again by the same seed."""

import pytest
from exhaustive import way
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.strategies import strategy

TOKENIZER = gpt_tokenizer()
MODELS = {kind: gpt(kind) for kind in ("nanochat", "llama")}
OTHERS = ["diverse_beam", "constrained_beam", "contrastive", "dola"]
prompts = st.lists(st.lists(st.integers(5, 319), min_size=1, max_size=40), min_size=2, max_size=5)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ["greedy", "beam"])
@given(prompts=prompts)
@settings(max_examples=10, deadline=None)
def test_a_prompt_continues_the_same_alone_and_in_a_batch(kind, name, prompts):
    how = strategy(name, max_new_tokens=8)
    together = continue_prompts(MODELS[kind], TOKENIZER, prompts, how, batch_size=8)
    alone = [continue_prompts(MODELS[kind], TOKENIZER, [prompt], how)[0] for prompt in prompts]
    assert together == alone


@pytest.mark.parametrize("name", OTHERS)
@given(prompts=prompts)
@settings(max_examples=3, deadline=None)
def test_our_own_methods_do_not_let_a_prompt_see_its_neighbours(name, prompts):
    how = way(name, max_new_tokens=6)
    together = continue_prompts(MODELS["nanochat"], TOKENIZER, prompts, how, batch_size=8)
    alone = [text for prompt in prompts for text in continue_prompts(MODELS["nanochat"], TOKENIZER, [prompt], how)]
    assert together == alone


def test_what_may_not_be_repeated_does_not_depend_on_padding():
    model, prompts = MODELS["llama"], [[7, 9, 11, 200, 13, 7, 9], [300], [41, 42]]
    how = way("greedy", max_new_tokens=12, repetition_penalty=1.4, no_repeat_ngram_size=2)
    alone = [continue_prompts(model, TOKENIZER, [prompt], how)[0] for prompt in prompts]
    assert continue_prompts(model, TOKENIZER, prompts, how) == alone
    assert alone != [continue_prompts(model, TOKENIZER, [p], way("greedy", max_new_tokens=12))[0] for p in prompts]


@pytest.mark.parametrize("name", ["greedy", "beam", *OTHERS])
def test_a_batch_does_not_depend_on_which_token_pads_it(name):
    model, prompts = MODELS["llama"], [[7, 9, 11, 200, 13], [300], [41, 42]]
    padded_by_eos = gpt_tokenizer()
    padded_by_eos.pad_token = padded_by_eos.eos_token
    without_pad = gpt_tokenizer()
    without_pad.pad_token = None
    how = way(name, max_new_tokens=12)
    expected = continue_prompts(model, TOKENIZER, prompts, how)
    assert continue_prompts(model, padded_by_eos, prompts, how) == expected
    assert continue_prompts(model, without_pad, prompts, how) == expected


def test_a_continuation_stops_at_its_own_end_and_not_at_its_neighbours():
    """Whatever greedy search says first is declared the end token of one prompt."""
    model, prompts = gpt("llama"), [[7, 9, 11, 200, 13], [300], [41, 42]]
    free = continue_prompts(model, TOKENIZER, prompts, strategy("greedy", max_new_tokens=8))
    model.generation_config.eos_token_id = [2, free[1][3]]
    ended = continue_prompts(model, TOKENIZER, prompts, strategy("greedy", max_new_tokens=8))
    assert ended[1] == free[1][: free[1].index(free[1][3]) + 1]
    for before, after in zip(free, ended, strict=True):
        assert after == before[: len(after)]
        assert len(after) == 8 or after[-1] in model.generation_config.eos_token_id


@pytest.mark.parametrize("name", ["greedy", "contrastive", "dola"])
def test_texts_stop_at_their_own_ends_under_every_method(name):
    """As above; what came after the end of a shorter text is padding, and no one's."""
    model, prompts = gpt("llama"), [[7, 9, 11, 200, 13], [300], [41, 42]]
    free = continue_prompts(model, TOKENIZER, prompts, way(name, max_new_tokens=8))
    model.generation_config.eos_token_id = [2, free[1][2]]
    ended = continue_prompts(model, TOKENIZER, prompts, way(name, max_new_tokens=8))
    assert ended[1] == free[1][: free[1].index(free[1][2]) + 1]
    assert all(after == before[: len(after)] for before, after in zip(free, ended, strict=True))


@pytest.mark.parametrize("name", ["sample", "top_k", "nucleus", "min_p", "typical", "eta"])
def test_the_same_seed_draws_the_same_text_and_another_seed_another(name):
    how, prompts = strategy(name, max_new_tokens=10), [[7, 9], [300, 12, 13]]
    first, again, other = (
        continue_prompts(MODELS["nanochat"], TOKENIZER, prompts, how, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
