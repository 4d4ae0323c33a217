"""Markup: what a reader sees stays, what only a machine reads goes."""

import pytest

from lm_recipes.text.markup import html_to_text, markdown_to_text, strip_markup, wikitext_to_text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Cats''' are ''small'' [[animal]]s, [[Felis|felines]] indeed.", "Cats are small animals, felines indeed."),
        ("A{{citation needed}} cat{{convert|1|km}}.", "A cat."),
        ("A cat<ref>Smith [[1990]], p. 3</ref> purrs.<ref name=x />", "A cat purrs."),
        ("[[Image:Cat.jpg|thumb|A [[cat]] on a [http://x.org mat]]]It sleeps.", "It sleeps."),
        ("It sleeps.\n[[Category:Cats]]\n[[de:Katze]]\n[[zh-min-nan:Niau]]\n", "It sleeps."),
        ("See [[CSI: Miami]].", "See CSI: Miami."),
        ("Before\n{| class=x\n|-\n| a || b\n{|\n| inner\n|}\n|}\nafter", "Before\n\nafter"),
        ("Kyoto ({{lang|ja|x}}, ; ) is old.", "Kyoto is old."),
        ("Rand ({{IPA|x}}, born 1905) wrote.", "Rand (born 1905) wrote."),
        ("5 &lt; 7 &amp; 8&nbsp;&mdash; so", "5 < 7 & 8\xa0— so"),
        ("One<!-- hidden\ncomment -->.<br /><b>Two</b>", "One.Two"),
        ("* first\n** second\n# third\n:; fourth", "first\nsecond\nthird\nfourth"),
        ("== History ==\nLong ago.", "History\nLong ago."),
        ("Text.\n== See also ==\n* [[Dog]]\n=== Sub ===\n* [[Fox]]\n== Life ==\nMore.", "Text.\nLife\nMore."),
        ("__NOTOC__Text [http://example.org with a link].", "Text with a link."),
    ],
)
def test_wikitext(wikitext, text):
    assert wikitext_to_text(wikitext).replace(" \n", "\n") == text


PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {color: red}</style></head><body>
<nav>Home | About</nav><header>Site</header>
<h1>Caf&eacute; &amp; bar</h1><p>One <b>bold</b>
   word.<br>Next line.</p><script>alert("no")</script>
<ul><li>first<li>second</ul><table><tr><td>a</td><td>b</td></tr></table><form><button>Buy</button></form>
<footer>Copyright</footer></body></html>"""


def test_html_keeps_the_text_in_lines_and_drops_the_frame():
    lines = [line.strip() for line in html_to_text(PAGE).split("\n")]
    assert lines == ["Café & bar", "One bold word.", "Next line.", "first", "second", "ab"]


@pytest.mark.parametrize("page", ["", "<", "<p>unclosed <b>bold", "no tags at all", "<script>only()</script>", "\0"])
def test_broken_html_is_no_error(page):
    assert "only" not in html_to_text(page)


def test_markdown():
    markdown = (
        "---\ntitle: x\n---\n# Heading\n\nSome *light* and **strong** `code`, a [link](http://x.org) and "
        "![a picture](p.png).\n\n> quoted\n\n```python\nx = 1\n```\n---\n| a | b |\n|---|---|\n"
        "snake_case_name &amp; 2*3*4"
    )
    assert [line for line in markdown_to_text(markdown).split("\n") if line] == [
        "Heading",
        "Some light and strong code, a link and a picture.",
        "quoted",
        "x = 1",
        "| a | b |",
        "snake_case_name & 2*3*4",
    ]


def test_plain_text_is_not_taken_for_markup():
    text = "if a < b: print('<b>', \"[[x]]\") # 1"
    assert strip_markup(text, "text") == text
    assert strip_markup("<p>a</p>", "html") == "a"
