"""Structured text: whatever a model of random weights would say, what it says matches; and what is wrong is refused."""

import json
import re
import sys

import pytest
import regex
import torch
from exhaustive import way
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.probabilities import explain
from lm_recipes.decoding.strategies import strategy
from lm_recipes.decoding.structured import StructureProcessor, structure
from lm_recipes.launch import UserError

TOKENIZER = gpt_tokenizer()
MODEL = gpt("nanochat")
PROMPTS = [[1, 40, 41], [1, 300], [1, 7, 8, 9, 10]]
DATE = r"[12][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]"
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["fox", "dog"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 99},
        "asleep": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["kind", "legs", "asleep", "names"],
    "additionalProperties": False,
}
WAYS = ["greedy", "beam", "diverse_beam", "sample", "nucleus", "contrastive", "dola", "prompt_lookup", "assisted"]


def texts(how):
    found = continue_prompts(MODEL, TOKENIZER, PROMPTS, how)
    assert all(tokens[-1] == TOKENIZER.eos_token_id for tokens in found)
    return [TOKENIZER.decode(tokens, skip_special_tokens=True) for tokens in found]


@pytest.mark.parametrize("name", WAYS)
def test_every_text_matches_the_expression_under_every_strategy(name):
    found = texts(way(name, max_new_tokens=20, regex=DATE))
    assert all(re.fullmatch(DATE, text) for text in found), found


@pytest.mark.parametrize("name", ["greedy", "beam", "sample"])
def test_every_text_is_json_of_the_schema(name):
    for text in texts(way(name, max_new_tokens=110, json_schema=json.dumps(SCHEMA))):
        said = json.loads(text)
        assert said.keys() == set(SCHEMA["required"])
        assert said["kind"] in ("fox", "dog")
        assert 0 <= said["legs"] <= 99
        assert said["asleep"] in (True, False)
        assert len(said["names"]) <= 2
        assert all(len(name) <= 4 for name in said["names"])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_whatever_is_drawn_parses(seed):
    digits = {"type": "integer", "minimum": -9, "maximum": 9}
    schema = json.dumps({"type": "array", "items": digits, "minItems": 1, "maxItems": 3})
    how = strategy("sample", max_new_tokens=30, temperature=3.0, json_schema=schema)
    for tokens in continue_prompts(MODEL, TOKENIZER, PROMPTS, how, seed=seed):
        assert 1 <= len(json.loads(TOKENIZER.decode(tokens, skip_special_tokens=True))) <= 3


@pytest.mark.parametrize(
    "grammar", ['start: "yes" | "no, " NAME\nNAME: /[a-c]{2}/', 'root ::= "yes" | "no, " [a-c] [a-c]']
)
def test_grammars_are_read_in_both_forms(grammar, tmp_path):
    (tmp_path / "g.lark").write_text(grammar)
    for given_as in (grammar, str(tmp_path / "g.lark")):
        for text in texts(strategy("sample", max_new_tokens=12, temperature=3.0, grammar=given_as)):
            assert re.fullmatch(r"yes|no, [a-c]{2}", text), text


def test_a_prompt_is_answered_alike_alone_and_in_a_batch():
    how = strategy("beam", max_new_tokens=20, regex=DATE)
    together = continue_prompts(MODEL, TOKENIZER, PROMPTS, how)
    assert together == [continue_prompts(MODEL, TOKENIZER, [prompt], how)[0] for prompt in PROMPTS]


def test_what_a_row_may_say_follows_from_what_it_has_said():
    """In any order, again, from a shorter text after a longer one: rows of beams and drafts."""

    def processor():
        return StructureProcessor(structure(regex="ab?(c|d)"), TOKENIZER, [2], prompt_length=1)

    def ids(text):
        return [9, *TOKENIZER.convert_tokens_to_ids(list(text))]

    def allowed(mask):
        return {TOKENIZER.convert_ids_to_tokens(i) for i in mask.isfinite().nonzero().flatten().tolist()}

    used = processor()
    for rows in (["a"], ["ab", "ac"], ["ac", "ab", "ab"], ["a"], ["abd"]):
        width = max(map(len, rows))
        rows = [row for row in rows if len(row) == width]
        scores = used(torch.tensor([ids(row) for row in rows]), torch.zeros(len(rows), 320))
        fresh = [processor()(torch.tensor([ids(row)]), torch.zeros(1, 320))[0] for row in rows]
        assert torch.equal(scores, torch.stack(fresh))
    assert {"b", "c", "d"} <= allowed(used(torch.tensor([ids("a")]), torch.zeros(1, 320))[0])
    assert allowed(used(torch.tensor([ids("abd")]), torch.zeros(1, 320))[0]) == {"<|eos|>"}


@pytest.mark.parametrize("pattern", [DATE, r"(the|the dog|fo[x-z]+)( barks| asks)? ?at\.*", r"(a|an){2,5}d*|foxes"])
def test_a_token_is_allowed_where_brute_force_finds_that_a_match_can_begin_so(pattern):
    """Every token of the vocabulary at every step of random walks; an end only behind a whole match. Where one text is
    all that can follow, only as the tokenizer cuts it."""
    words = [TOKENIZER.decode([i]) for i in range(320)]
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        processor, ids = StructureProcessor(structure(regex=pattern), TOKENIZER, [2], prompt_length=1), [9]
        while len(ids) < 14 and ids[-1] != 2:
            text = "".join(words[i] for i in ids[1:])
            allowed = processor(torch.tensor([ids]), torch.zeros(1, 320))[0].isfinite()
            expected = [regex.fullmatch(pattern, text + word, partial=True) is not None for word in words]
            expected[2] = re.fullmatch(pattern, text) is not None
            if allowed.tolist() != expected:
                (only,) = [words[i] for i in allowed.nonzero().flatten().tolist()]
                assert all(only.startswith(word) for word, could in zip(words, expected, strict=True) if could), text
            ids.append(int(torch.multinomial(allowed.double(), 1, generator=draw)))


def test_the_explanation_knows_what_the_structure_forbade():
    how = strategy("sample", max_new_tokens=20, regex=DATE)
    (tokens,) = continue_prompts(MODEL, TOKENIZER, [PROMPTS[0]], how)
    told = explain(MODEL, TOKENIZER, PROMPTS[0], tokens, how)
    assert told.ended
    assert all(0 < step.kept < 20 and step.drawn > 0 for step in told.tokens)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"regex": "(a"}, "--regex: not valid"),
        ({"json_schema": "{"}, "--json_schema: not valid"),
        ({"json_schema": "gone.json"}, "--json_schema gone.json: neither a json schema nor a file"),
        ({"grammar": "start: missing"}, "--grammar: not valid"),
        ({"grammar": "gone.lark"}, "--grammar gone.lark: neither a grammar nor a file"),
        ({"regex": "a", "grammar": 'start: "a"'}, "--regex and --grammar: a text can be held to one of them"),
    ],
)
def test_what_is_no_structure_is_refused_in_one_line(options, complaint):
    with pytest.raises(UserError) as refusal:
        strategy("greedy", **options)
    assert str(refusal.value).startswith(complaint)
    assert "\n" not in str(refusal.value)


def test_a_model_without_an_end_and_a_machine_without_the_library_are_told_so(monkeypatch):
    with pytest.raises(UserError, match="has no end token"):
        StructureProcessor(structure(regex="a"), TOKENIZER, [], 1)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r"--regex needs llguidance: pip install -e '\.\[structured\]'"):
        structure(regex="a")
