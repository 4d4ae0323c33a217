"""Drafts and prompt lookup change how fast a text comes, not which: greedy texts and drawn distributions stay."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from exhaustive import way
from scipy.stats import chisquare
from tiny_models import gpt, gpt_tokenizer, save

from lm_recipes.decoding.drafts import with_draft
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.probabilities import drawing_probabilities, step_logits
from lm_recipes.decoding.strategies import strategy
from lm_recipes.launch import UserError

TOKENIZER = gpt_tokenizer()
PROMPTS = [[1, 7, 9, 11, 7, 9, 11, 7], [300], [41, 42, 43, 41]]


@pytest.mark.parametrize("name", ["assisted", "prompt_lookup"])
@pytest.mark.parametrize("seed", range(3))
def test_the_text_is_that_of_greedy_search(name, seed):
    model = gpt("nanochat", seed=seed)
    expected = continue_prompts(model, TOKENIZER, PROMPTS, strategy("greedy", max_new_tokens=20))
    assert continue_prompts(model, TOKENIZER, PROMPTS, way(name, max_new_tokens=20)) == expected


def pairs_of(model, prompt, how):
    """(first token, second token or None after an end) -> probability."""
    found = {}
    first = drawing_probabilities(step_logits(model, prompt, [0]), torch.tensor([prompt]), how)[0]
    for one, p in enumerate(first.tolist()):
        if one == TOKENIZER.eos_token_id:
            found[one, None] = p
            continue
        then = step_logits(model, prompt, [one, 0])[1:]
        for other, q in enumerate(drawing_probabilities(then, torch.tensor([[*prompt, one]]), how)[0].tolist()):
            found[one, other] = p * q
    return found


def p_value(drawn, expected):
    """Chi-squared of the pairs expected at least five times, and of all others together."""
    number, counts = len(drawn), Counter((text[0], text[1] if len(text) > 1 else None) for text in drawn)
    often = [pair for pair, share in expected.items() if share * number >= 5]
    observed = [counts[pair] for pair in often]
    wanted = [expected[pair] * number for pair in often]
    rest = number - sum(wanted)
    if rest > 1:
        observed, wanted = [*observed, number - sum(observed)], [*wanted, rest]
    scale = sum(observed) / sum(wanted)
    return chisquare(observed, [value * scale for value in wanted]).pvalue


@pytest.mark.parametrize("name", ["assisted", "prompt_lookup"])
def test_drawn_texts_keep_the_models_distribution(name):
    """300 texts; drafted by a model of other weights, whose own distribution the same test tells apart. Were the seed
    not fixed, a right sampler would fail once in a million runs."""
    model, draft, prompt = gpt("llama", vocab_size=8, seed=1), gpt("llama", vocab_size=8, seed=5), [1, 4, 6, 4]
    how = way(name, max_new_tokens=3, temperature=2.0)
    if name == "assisted":
        how = replace(how, extra={"assistant_model": draft})
    drawn = continue_prompts(model, TOKENIZER, [prompt] * 300, how)
    assert p_value(drawn, pairs_of(model, prompt, how)) > 1e-6
    assert p_value(drawn, pairs_of(draft, prompt, how)) < 1e-12


def test_a_draft_is_loaded_and_held_to_the_models_tokens(tmp_path):
    model, how = gpt("llama"), strategy("greedy")
    assert with_draft(how, model, TOKENIZER) is how
    same = save(tmp_path / "same", gpt("nanochat", seed=3), gpt_tokenizer())
    named = strategy("assisted", draft_model=same, num_assistant_tokens=3, max_new_tokens=9)
    loaded = with_draft(named, model, TOKENIZER)
    assert loaded.drafts
    assert loaded.extra["assistant_model"].generation_config.num_assistant_tokens == 3
    greedy = continue_prompts(model, TOKENIZER, PROMPTS, strategy("greedy", max_new_tokens=9))
    assert continue_prompts(model, TOKENIZER, PROMPTS, loaded) == greedy
    other = save(tmp_path / "other", gpt("llama", vocab_size=300), gpt_tokenizer(300))
    with pytest.raises(UserError, match="has other tokens than the model"):
        with_draft(strategy("assisted", draft_model=other), model, TOKENIZER)
