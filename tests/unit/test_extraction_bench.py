"""The extraction benchmark measures what it says, and our extractor is as good as its record claims."""

import importlib.util
from pathlib import Path
from statistics import mean

import pytest

from lm_recipes.sources.web_pages import KnownPage, article_pages, documentation_pages, web_pages
from lm_recipes.text.markup import html_to_text

SCRIPT = Path(__file__).parents[2] / "recipes/bench/extraction.py"
bench = importlib.util.module_from_spec(importlib.util.spec_from_file_location("extraction_bench", SCRIPT))
bench.__spec__.loader.exec_module(bench)


def test_words_and_passages_are_counted():
    assert bench.words_right("a b b c", "a b d") == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert bench.words_right("", "a") == (0, 0, 0)
    page = KnownPage("x", "", keep=("one  two", "three"), drop=("menu", "share"))
    assert bench.passages_right(["one\ntwo share"], [page]) == pytest.approx((1 / 2, 1 / 2, 1 / 2))


def test_passages_of_real_pages_are_told_apart():
    pages = web_pages()
    assert (len(pages), sum(len(page.keep) for page in pages), sum(len(page.drop) for page in pages)) == (83, 209, 219)
    for half in (True, False):
        chosen = [page for page in pages if page.is_held_out == half]
        precision, recall, f1 = bench.passages_right([html_to_text(page.html) for page in chosen], chosen)
        assert precision > 0.85
        assert recall > 0.85
        assert f1 > 0.87


@pytest.mark.parametrize(("load", "f1"), [(article_pages, 0.92), (documentation_pages, 0.86)])
def test_the_text_of_real_pages_is_found(load, f1):
    pages = load()[:40]
    assert mean(bench.words_right(html_to_text(page.html), page.text)[2] for page in pages) > f1
