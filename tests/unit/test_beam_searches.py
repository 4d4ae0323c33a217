"""Beam searches of our own: against plain beam search, a slow reference on lists, and exhaustive search."""

from collections import Counter
from functools import cache

import pytest
import torch
from exhaustive import all_continuations, contains
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import gpt, gpt_tokenizer
from transformers import GenerationConfig

from lm_recipes.decoding.constrained_beam import Phrases, constrained_beam_search, phrase_tokens
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.probabilities import step_logits
from lm_recipes.decoding.strategies import strategy
from lm_recipes.launch import UserError

TOKENIZER = gpt_tokenizer()
END = 2


# --- diverse beam search ---


@pytest.mark.parametrize("seed", range(4))
def test_the_first_group_is_plain_beam_search(seed):
    model, prompts = gpt("nanochat", vocab_size=40, seed=seed), [[1, 7, 9], [5]]
    diverse = strategy("diverse_beam", max_new_tokens=10, num_beams=6, num_beam_groups=3, diversity_penalty=1.0)
    plain = strategy("beam", max_new_tokens=10, num_beams=2)
    found = continue_prompts(model, TOKENIZER, prompts, diverse)
    assert found[::3] == continue_prompts(model, TOKENIZER, prompts, plain)
    assert len({tuple(text) for text in found[:3]}) > 1


def test_groups_say_the_same_where_likeness_costs_nothing_and_never_where_it_costs_much():
    model, options = gpt("llama", seed=1), {"max_new_tokens": 8, "num_beams": 4, "num_beam_groups": 4}
    for prompt in ([1, 7, 9], [1, 200]):
        free = continue_prompts(model, TOKENIZER, [prompt], strategy("diverse_beam", **options, diversity_penalty=0.0))
        assert free[0] == free[1] == free[2] == free[3]
        dear = continue_prompts(
            model, TOKENIZER, [prompt], strategy("diverse_beam", **options, diversity_penalty=100.0)
        )
        for said in zip(*dear, strict=False):
            going_on = [token for token in said if token != END]
            assert len(set(going_on)) == len(going_on)


def slow_diverse(model, prompt, groups, width, penalty, length):
    """Algorithm 1 of arXiv:1610.02424 on lists, a forward pass per hypothesis, in double precision."""
    running, finished = [[((), 0.0)] for _ in range(groups)], [[] for _ in range(groups)]
    for step in range(1, length + 1):
        said = Counter()
        for group in range(groups):
            best = max((score / len(tokens) for tokens, score in running[group] if tokens), default=0)
            pool = sorted((score / len(tokens) for tokens, score in finished[group]), reverse=True)[:width]
            if len(pool) == width and best <= pool[-1]:
                continue  # settled
            found = []
            for tokens, score in running[group]:
                logprobs = step_logits(model, prompt, [*tokens, 0])[-1].double().log_softmax(-1).tolist()
                found += [((*tokens, token), score + p - penalty * said[token]) for token, p in enumerate(logprobs)]
            found = sorted(found, key=lambda entry: -entry[1])[: 2 * width]
            finished[group] += [entry for entry in found[:width] if entry[0][-1] == END]
            running[group] = [entry for entry in found if entry[0][-1] != END][:width]
            said.update(tokens[-1] for tokens, _ in running[group])
            if step == length:
                finished[group] += running[group]
    return [list(max(pool, key=lambda entry: entry[1] / len(entry[0]))[0]) for pool in finished]


@pytest.mark.parametrize("seed", range(4))
def test_diverse_beam_search_finds_what_the_paper_says(seed):
    model, prompt = gpt("llama", vocab_size=12, seed=seed), [1, 7, 9]
    how = strategy("diverse_beam", max_new_tokens=6, num_beams=6, num_beam_groups=3, diversity_penalty=0.7)
    assert continue_prompts(model, TOKENIZER, [prompt], how) == slow_diverse(model, prompt, 3, 2, 0.7, 6)


def test_second_best_texts_of_groups_follow_the_best_of_each():
    model, shared = gpt("llama", seed=2), {"max_new_tokens": 6, "num_beams": 4, "num_beam_groups": 2}
    two = continue_prompts(model, TOKENIZER, [[1, 9]], strategy("diverse_beam", **shared))
    four = continue_prompts(model, TOKENIZER, [[1, 9]], strategy("diverse_beam", **shared, num_return_sequences=4))
    assert four[:2] == two
    assert len({tuple(text) for text in (four[0], four[2])}) == 2


# --- constrained beam search ---


def say(model, prompts, phrases, beams, length, pad=0):
    """`generate` with token ids for phrases."""
    width = max(map(len, prompts))
    output = model.generate(
        torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]),
        generation_config=GenerationConfig(num_beams=beams, max_new_tokens=length, pad_token_id=pad, eos_token_id=END),
        custom_generate=constrained_beam_search,
        phrases=phrases,
    )
    rows = output[:, width:].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@cache
def every_text(seed):
    return all_continuations(gpt("llama", vocab_size=6, seed=seed), [1, 4], length=4, end=END)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("phrases", [[[3, 4]], [[5], [3]], [[3, 4], [4, 5]], [[4, 4]]])
def test_with_enough_beams_the_best_text_with_the_phrases_is_found(seed, phrases):
    model, found = gpt("llama", vocab_size=6, seed=seed), every_text(seed)
    possible = [tokens for tokens in found if all(contains(tokens, phrase) for phrase in phrases)]
    best = max(possible, key=lambda tokens: found[tokens] / len(tokens))
    assert 0 < len(possible) < len(found)
    assert say(model, [[1, 4]], phrases, beams=700, length=4) == [list(best)]


phrase = st.lists(st.integers(3, 11), min_size=1, max_size=3)


@given(phrases=st.lists(phrase, min_size=1, max_size=3), seed=st.integers(0, 20), beams=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_a_text_says_every_phrase_however_few_beams_there_are(phrases, seed, beams):
    model = gpt("nanochat", vocab_size=12, seed=seed)
    for text in say(model, [[1, 5], [7, 8, 9]], phrases, beams, length=10):
        assert all(contains(text, wanted) for wanted in phrases)
        assert END not in text[:-1]


def test_phrases_are_not_put_off_until_nothing_else_fits():
    """Of 16 tokens the phrase can begin at 13 at the latest, and does where the best beginnings take all beams."""
    starts = []
    for seed in range(8):
        (text,) = say(gpt("nanochat", vocab_size=40, seed=seed), [[1, 5]], [[7, 8, 9]], beams=8, length=16)
        starts.append(next(i for i in range(14) if text[i : i + 3] == [7, 8, 9]))
    assert sum(starts) / len(starts) < 9


def test_phrases_that_overlap_fit_where_they_would_not_side_by_side():
    (text,) = say(gpt("llama", vocab_size=12), [[1, 5]], [[6, 7], [7, 8]], beams=4, length=3)
    assert text == [6, 7, 8]
    with pytest.raises(UserError, match="--phrases have 4 tokens, --max_new_tokens is 3: raise it"):
        say(gpt("llama", vocab_size=12), [[1, 5]], [[6, 7], [8, 9]], beams=4, length=3)


def test_what_the_other_options_forbid_cannot_be_said():
    model, prompt = gpt("llama"), TOKENIZER(" dog dog")["input_ids"]
    how = strategy("constrained_beam", max_new_tokens=8, phrases=["dog dog"], no_repeat_ngram_size=2)
    with pytest.raises(UserError, match="cannot be said under the other options"):
        continue_prompts(model, TOKENIZER, [prompt], how)


@given(
    phrases=st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=3), min_size=1, max_size=3),
    tokens=st.lists(st.integers(3, 5), max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_the_fewest_tokens_are_enough_to_say_what_is_missing(phrases, tokens):
    """One can always go on with a phrase so that a token fewer is needed, until nothing is missing."""
    wanted, said, missing = Phrases(phrases), (), Phrases(phrases).all
    for token in tokens:
        said = (*said, token)
        missing = wanted.left(said, missing)
    left = wanted.fewest(said, missing)
    assert left <= sum(map(len, wanted.phrases))
    for needed in range(left, 0, -1):
        assert wanted.fewest(said, missing) <= needed
        if not missing:
            break
        steps = [((*said, token), wanted.left((*said, token), missing)) for token in wanted.onward(said, missing)]
        said, missing = min(steps, key=lambda step: wanted.fewest(*step))
    assert not missing
    assert all(contains(said, one) for one in phrases)


def test_phrases_are_cut_as_they_stand_in_running_text():
    assert phrase_tokens(TOKENIZER, ["the dog", "?!"]) == [
        TOKENIZER(" the dog")["input_ids"],
        TOKENIZER("?!")["input_ids"],
    ]
    for hopeless in ([""], ["  "]):
        with pytest.raises(UserError, match="cannot write it"):
            phrase_tokens(TOKENIZER, hopeless)
    with pytest.raises(UserError, match="9 of them; at most 8"):
        phrase_tokens(TOKENIZER, [str(number) for number in range(9)])


def test_the_text_with_a_phrase_is_one_a_reader_finds_it_in():
    how = strategy("constrained_beam", max_new_tokens=12, phrases=["the knee", "rome"])
    for text in continue_prompts(gpt("nanochat"), TOKENIZER, [[1, 40], [1, 50, 60]], how):
        decoded = TOKENIZER.decode(text, skip_special_tokens=True)
        assert " the knee" in decoded
        assert " rome" in decoded
