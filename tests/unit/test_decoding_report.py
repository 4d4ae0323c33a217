"""The page that explains decoding: complete, self-contained, and safe whatever a prompt or a model says."""

import json
import re
from html import unescape

import pytest
from exhaustive import way
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.decoding.generation import continue_prompts, encode_prompts
from lm_recipes.decoding.probabilities import explain
from lm_recipes.evaluation.diversity import summary
from lm_recipes.reporting.decoding import (
    ABOUT,
    HEAD,
    MEASURES,
    choices,
    compact,
    comparison_page,
    cut_table,
    markdown_table,
    shown_options,
    strip,
    terminal_table,
)

NAMES = ["greedy", "beam", "sample", "nucleus", "contrastive", "diverse_beam"]
PROMPTS = ["the dog", '</script><img src=x onerror="alert(1)">{{ 7 * 7 }}']
TOKENIZER = gpt_tokenizer()


@pytest.fixture(scope="module")
def compared():
    model, encoded = gpt("nanochat"), encode_prompts(TOKENIZER, PROMPTS)
    ways = {
        name: way(name, max_new_tokens=8, **({"num_return_sequences": 2} if name == "sample" else {})) for name in NAMES
    }
    found = {}
    for name, how in ways.items():
        told = [
            explain(model, TOKENIZER, encoded[row // how.texts], tokens, how, HEAD)
            for row, tokens in enumerate(continue_prompts(model, TOKENIZER, encoded, how))
        ]
        found[name] = [told[row : row + how.texts] for row in range(0, len(told), how.texts)]
    record = {
        "command": "python recipes/gpt/compare_decoding.py",
        "config": {
            "model_name_or_path": "tiny",
            "seed": 0,
            "samples": 2,
            "strategies": {name: how.options for name, how in ways.items()},
        },
        "metrics": {"decoding": {name: summary(texts, 1.0) for name, texts in found.items()}},
        "versions": {"torch": "2"},
        "machine": {"cpus": 2, "processor": "x", "python": "3"},
        "finished": "now",
    }
    return record, found


def test_every_strategy_has_its_sentence():
    from lm_recipes.decoding.strategies import STRATEGIES

    assert ABOUT.keys() == STRATEGIES.keys()


def test_the_page_holds_every_text_and_loads_nothing(compared):
    record, found = compared
    page = comparison_page(record, PROMPTS, found)
    for by_prompt in found.values():
        for texts in by_prompt:
            for text in texts:
                first = next((step.text for step in text.tokens if step.text.strip() and step.text.isascii()), "")
                assert first in unescape(page)
    assert page.count('<div class="card">') == len(NAMES) * len(PROMPTS)
    assert page.count('class="skyline"') == sum(len(texts) for by_prompt in found.values() for texts in by_prompt)
    assert not re.findall(r"(src|href)\s*=|@import|url\(|fetch\(", page.replace("&lt;img src=", ""))
    assert set(re.findall(r"https?://[^\s\"']+", page)) == {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme: dark" in page


def test_what_a_prompt_says_is_text_on_the_page(compared):
    record, found = compared
    page = comparison_page(record, PROMPTS, found)
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    assert page.count("</script>") == 2


def test_the_script_finds_a_step_for_every_token_shown(compared):
    record, found = compared
    page = comparison_page(record, PROMPTS, found)
    steps = json.loads(page.split('id="steps">')[1].split("</script>")[0])
    for key, text in re.findall(r'<div class="text" data-key="([^"]+)"[^>]*>(.*?)</div>', page, flags=re.S):
        assert text.count("<i ") == len(steps[key])
    assert len(steps) == len(NAMES) * len(PROMPTS)
    for told in steps.values():
        for _, probability, rank, kept, mass, head in told:
            assert sum(chosen for *_, chosen in head) == 1
            assert rank >= 1
            assert kept >= 1
            assert mass >= sum(p for _, p, drawn, _ in head if drawn) - 1e-3
            assert any(abs(p - probability) < 1e-4 for _, p, _, chosen in head if chosen)


def test_a_token_from_below_the_head_is_added_to_it(compared):
    _, found = compared
    for text in found["sample"][0]:
        for step in text.tokens:
            assert len(compact(step)[-1]) == HEAD + (step.rank > HEAD)


def test_strategies_that_see_the_same_distribution_share_a_column(compared):
    _, found = compared
    table = cut_table({name: by_prompt[0][0].tokens[0] for name, by_prompt in found.items()})
    columns = [set(names) for names, _ in table["columns"]]
    assert {"beam", "sample", "diverse_beam"} in columns
    assert {"greedy"} in columns
    assert {"contrastive"} in columns
    assert sum(map(len, columns)) == len(NAMES)
    kept = {tuple(names): number for names, number in table["columns"]}
    assert kept["greedy",] == 1
    assert kept["contrastive",] == 4
    assert len(table["rows"]) == HEAD
    greedy = [given[columns.index({"greedy"})] for *_, given in table["rows"]]
    assert greedy == [1.0] + [0.0] * (HEAD - 1)
    assert cut_table({}) is None


def test_a_strip_is_the_whole_distribution_and_colours_what_was_kept(compared):
    _, found = compared
    for name, by_prompt in found.items():
        for step in by_prompt[0][0].tokens:
            shown = strip(step)
            assert sum(share for _, _, share, _ in shown["parts"]) == pytest.approx(1, abs=1e-4)
            kept = sum(share for _, _, share, was_kept in shown["parts"] if was_kept)
            assert kept == pytest.approx(shown["mass"], abs=1e-4)
            if name == "nucleus":
                assert kept >= 0.9 - 1e-4
            if name == "greedy":
                assert (step.kept, len([part for part in shown["parts"] if part[3]])) == (1, 1)


def test_strategies_stand_side_by_side_where_the_model_is_sure_and_where_it_is_not(compared):
    _, found = compared
    firsts = [
        (prompt, {name: by_prompt[row][0].tokens[0] for name, by_prompt in found.items()})
        for row, prompt in enumerate(PROMPTS)
    ]
    shown = choices(firsts)
    assert [prompt for prompt, *_ in shown["places"]] in (PROMPTS, PROMPTS[::-1])
    assert shown["places"][0][2] >= shown["places"][1][2]
    assert [names for names, *_ in shown["rows"]] == [
        ["beam", "sample", "diverse_beam"], ["greedy"], ["nucleus"], ["contrastive"],
    ]  # fmt: skip
    assert len(choices(firsts[:1])["places"]) == 1
    assert choices([("the dog", {})]) is None


def test_tables_have_a_row_for_every_strategy_and_a_dash_for_what_cannot_be_measured(compared):
    record, _ = compared
    summaries = record["metrics"]["decoding"]
    lines = terminal_table(summaries).split("\n")
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert len({len(line) for line in lines}) == 1
    assert "–" in lines[1]  # greedy: one text of a prompt has no self-BLEU
    rows = markdown_table(summaries).strip().split("\n")
    assert len(rows) == 2 + len(NAMES)
    assert {row.count("|") for row in rows} == {len(MEASURES) + 2}


def test_options_are_shown_where_they_say_something():
    assert shown_options(way("nucleus", top_p=0.8, max_new_tokens=9).options) == "top_p 0.8"
    assert shown_options(way("sample", temperature=0.7).options) == "temperature 0.7"
    assert shown_options(way("constrained_beam", phrases=["a", "b"]).options) == "phrases a, b, num_beams 8"
    assert shown_options(way("greedy").options) == ""
