"""A mark is found in texts written under it, not in others, and not with another key."""

import pytest
from exhaustive import way
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.strategies import strategy
from lm_recipes.decoding.watermark import detect, detector, verdict

TOKENIZER = gpt_tokenizer()
MODEL = gpt("nanochat")
PROMPTS = [[1, 7], [1, 40, 41], [1, 300, 20]]
DRAWN = {"max_new_tokens": 100, "temperature": 2.0}


def verdicts(texts, key=None):
    """At 5 standard deviations, which one of three million unmarked texts reaches."""
    judge = detector(MODEL.config, key)
    return [verdict(judge, text, threshold=5.0) for text in texts]


@pytest.mark.parametrize("key", [None, 4711])
@pytest.mark.parametrize("name", ["sample", "greedy", "dola", "contrastive"])
def test_marked_texts_are_recognised(name, key):
    options = DRAWN if name == "sample" else {"max_new_tokens": 60, "no_repeat_ngram_size": 2}
    how = way(name, **options, watermark=6.0, watermark_key=key)
    found = verdicts(continue_prompts(MODEL, TOKENIZER, PROMPTS, how), key)
    assert all(one.marked and one.z > 5 and one.p_value < 3e-7 and one.green > 0.25 for one in found)


@pytest.mark.parametrize("name", ["sample", "greedy"])
def test_unmarked_texts_and_those_of_another_key_are_not(name):
    plain = strategy(name, **(DRAWN if name == "sample" else {"max_new_tokens": 100}))
    assert not any(one.marked for one in verdicts(continue_prompts(MODEL, TOKENIZER, PROMPTS, plain)))
    marked = strategy("sample", **DRAWN, watermark=6.0, watermark_key=4711)
    assert not any(one.marked for one in verdicts(continue_prompts(MODEL, TOKENIZER, PROMPTS, marked), key=815))


def test_a_text_that_repeats_itself_does_not_count_twice():
    once = verdict(detector(MODEL.config), [40, 50, 60, 40])
    assert verdict(detector(MODEL.config), [40, 50, 60] * 30) == once
    assert once.tokens == 3


def test_texts_are_judged_as_they_are_written_and_short_ones_are_not():
    found = detect(MODEL.config, TOKENIZER, ["the quick brown fox jumps over the lazy dog", "a", "", "<|bos|>a"])
    assert found[0].tokens > 3
    assert 0 <= found[0].green <= 1
    assert found[1:] == [None, None, None]
