"""Text that comes token by token is the text that comes at once, and ends before a stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import gpt_tokenizer

from lm_recipes.serving.increments import Increments

TOKENIZER = gpt_tokenizer()
ids = st.lists(st.integers(0, 319), max_size=40)


def pieces(tokens: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], Increments]:
    text, found = Increments(TOKENIZER, stops), []
    for token in tokens:
        found.append(text.push(token))
        if text.stopped:
            return found, text
    found.append(text.end())
    return found, text


def decoded(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens, skip_special_tokens=True)


@given(tokens=ids)
@settings(max_examples=300, deadline=None)
def test_the_pieces_of_any_tokens_add_up_to_their_text(tokens):
    found, text = pieces(tokens)
    assert "".join(found) == decoded(tokens)
    assert text.emitted == text.seen == len(decoded(tokens))


@given(text=st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_character_of_several_tokens_comes_whole(text):
    found, _ = pieces(TOKENIZER(text)["input_ids"])
    assert "".join(found) == decoded(TOKENIZER(text)["input_ids"])
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)


@given(tokens=ids, stops=st.lists(st.text("ab\u00e9 the", min_size=1, max_size=4), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_text_ends_before_the_first_stop_string(tokens, stops):
    found, text = pieces(tokens, tuple(stops))
    said = "".join(found)
    assert not any(stop in said for stop in stops)
    assert decoded(tokens).startswith(said)
    if any(stop in decoded(tokens) for stop in stops):
        assert text.stopped
        assert any(decoded(tokens)[len(said) :].startswith(stop) for stop in stops)
    else:
        assert said == decoded(tokens)


def test_what_may_become_a_stop_string_is_held_back_until_it_cannot():
    text = Increments(TOKENIZER, ("dog, and",))
    before, after = TOKENIZER("the lazy dog, ")["input_ids"], TOKENIZER("but")["input_ids"]
    said = "".join(map(text.push, before))
    assert said == "the lazy "
    said += "".join(map(text.push, after)) + text.end()
    assert said == "the lazy dog, but"


@pytest.mark.parametrize("stop", ["lazy", " lazy dog", "x over the la"])
def test_a_stop_string_across_tokens_is_found(stop):
    found, text = pieces(TOKENIZER("the fox over the lazy dog")["input_ids"], (stop,))
    assert text.stopped
    assert "".join(found) == "the fox over the lazy dog".partition(stop)[0]
