"""Measures of texts, by hand."""

import math

import pytest
from exhaustive import way
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.probabilities import explain
from lm_recipes.evaluation.diversity import distinct, repetition, self_bleu, summary, words


def test_words_are_the_same_for_every_tokenizer():
    assert words("The dog's bark, again.") == ["the", "dog", "'", "s", "bark", ",", "again", "."]


def test_distinct_counts_over_all_texts():
    assert distinct(["a b a", "b a"], 1) == 2 / 5
    assert distinct(["a b a", "b a"], 2) == 2 / 3  # ab, ba, ba
    assert distinct(["a", ""], 2) is None


def test_repetition_is_the_share_that_was_said_before():
    assert repetition("a b c d a b c d a b c d") == pytest.approx(1 - 4 / 9)
    assert repetition("a b c d e f") == 0
    assert repetition("a b c") is None


def test_self_bleu_is_a_hundred_for_copies_and_small_for_strangers():
    assert self_bleu(["one two three four five"] * 3) == pytest.approx(100)
    assert self_bleu(["one two three four five", "six seven eight nine ten"]) < 10
    assert self_bleu(["alone"]) is None


def test_the_summary_is_that_of_its_texts():
    model, tokenizer, how = gpt("llama"), gpt_tokenizer(), way("nucleus", max_new_tokens=9, num_return_sequences=2)
    prompts = [[1, 7], [1, 40, 50]]
    told = [
        explain(model, tokenizer, prompts[row // 2], tokens, how)
        for row, tokens in enumerate(continue_prompts(model, tokenizer, prompts, how))
    ]
    found = summary([told[:2], told[2:]], tokens_per_second=7.0)
    counted = [step for text in told for step in text.tokens if step.id != tokenizer.eos_token_id]
    nats = -sum(step.logprob for step in counted)
    assert found["texts"] == 4
    assert found["tokens"] == sum(len(text.tokens) for text in told)
    assert found["tokens_per_second"] == 7
    assert found["nats_per_token"] == pytest.approx(nats / len(counted))
    size = sum(len(text.text.encode()) for text in told)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert found["logprob_per_text"] == pytest.approx(sum(text.logprob for text in told) / 4)
    assert found["ended"] == sum(text.ended for text in told) / 4
    assert found["self_bleu"] == pytest.approx(
        (self_bleu([told[0].text, told[1].text]) + self_bleu([told[2].text, told[3].text])) / 2
    )
