"""Markup: what a reader sees stays, what only a machine reads goes."""

import re
from itertools import islice

import mwparserfromhell
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.sources import load_documents
from lm_recipes.text import markup
from lm_recipes.text.markup import html_to_text, markdown_to_text, strip_markup, wikitext_to_text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Cats''' are ''small'' [[animal]]s, [[Felis|felines]] indeed.", "Cats are small animals, felines indeed."),
        ("A{{citation needed}} cat{{convert|1|km}}.", "A cat."),
        ("A {{box|{{inner|x}} y|z={a} }}cat.", "A cat."),
        ("A cat<ref>Smith [[1990]], p. 3</ref> purrs.<ref name=x />", "A cat purrs."),
        ("[[Image:Cat.jpg|thumb|A [[cat]] on a [http://x.org mat]]]It sleeps.", "It sleeps."),
        ("It sleeps.\n[[Category:Cats]]\n[[de:Katze]]\n[[zh-min-nan:Niau]]\n", "It sleeps."),
        ("See [[CSI: Miami]].", "See CSI: Miami."),
        ("Before\n{| class=x\n|-\n| a || b\n{|\n| inner\n|}\n|}\nafter", "Before\nafter"),
        ("Before\n{|\n| {{box\n|a=1\n|}}\n| b\n|}\nafter", "Before\nafter"),
        ("Kyoto ({{lang|ja|x}}, ; ) is old.", "Kyoto is old."),
        ("Rand ({{IPA|x}}, born 1905) wrote.", "Rand (born 1905) wrote."),
        ("5 &lt; 7 &amp; 8&nbsp;&mdash; so", "5 < 7 & 8\xa0— so"),
        ("One<!-- hidden\ncomment -->.<br /><b>Two</b>", "One.\nTwo"),
        ("x<math>a < b</math>y <gallery>\nA.jpg\n</gallery>z", "xy z"),
        ("* first\n** second\n# third\n:; fourth\n----\nfifth", "first\nsecond\nthird\nfourth\n\nfifth"),
        ("; cat : an animal\n; dog : another", "cat : an animal\ndog : another"),
        ("== History ==\nLong ago.\n===Early=== \nLonger.", "History\nLong ago.\nEarly\nLonger."),
        ("Text.\n== See also ==\n* [[Dog]]\n=== Sub ===\n* [[Fox]]\n== Life ==\nMore.", "Text.\nLife\nMore."),
        ("__NOTOC__Text [http://example.org with a link] [http://example.org].", "Text with a link ."),
        ("It is the cat's '''''own''''' {{x}}'''{{y}}''' 5' long.", "It is the cat's own  5' long."),
        ("<nowiki>[[kept]]</nowiki> a = b == c", "kept a = b == c"),
    ],
)
def test_wikitext(wikitext, text):
    assert wikitext_to_text(wikitext) == text


def test_wikitext_is_read_as_mwparserfromhell_reads_it():
    """The library does templates, links, tags and entities; what it does not do is done by our expressions first."""

    def by_library(wikitext: str) -> str:
        text = markup._WIKI_NOT_PROSE.sub("", markup._WIKI_HIDDEN.sub("", "\n" + wikitext))
        text = markup._WIKI_LISTS_AT_THE_END.sub("", text)
        text = markup._innermost_first(markup._WIKI_TABLE, "{|", text)
        return wikitext_to_text(mwparserfromhell.parse(text, skip_style_tags=True).strip_code())

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text)

    documents = (document.text for document in load_documents("demo:enwik8", limit=600))
    articles = list(islice((text for text in documents if not text.startswith("#REDIRECT")), 300))
    same = sum(words(wikitext_to_text(article)) == words(by_library(article)) for article in articles)
    assert len(articles) == 300
    assert same >= 0.95 * len(articles)


SENTENCE = "The cat sat on the mat and looked at the rain, which had not stopped since the morning before. "
TEXT = f"<p>{SENTENCE * 3}</p><p>{SENTENCE * 2}</p>"


def lines(page: str) -> list[str]:
    return html_to_text(page).split("\n")


def test_html_keeps_the_text_in_lines():
    page = f"""<!DOCTYPE html><html><head><title>T</title><style>p {{color: red}}</style></head><body>
    <h1>Caf&eacute; &amp; bar</h1>{TEXT}<p>One <b>bold</b>
       word.<br>Next&nbsp;line.</p><script>alert("no")</script><ul><li>first<li>second</ul>
    <table><tr><th>a<th>b</tr><tr><td>1<td><p>2</p></tr></table><pre>
for x in y:
    print(x)</pre><blockquote>Said.</blockquote>x &lt;b&gt; y<!-- hidden --></body></html>"""
    paragraphs = [(SENTENCE * 3).strip(), (SENTENCE * 2).strip()]
    assert lines(page) == [
        "Café & bar", *paragraphs, "One bold word.", "Next line.", "first", "second", "a | b", "1", "2",
        "for x in y:", "    print(x)", "Said.", "x <b> y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "chrome",
    [
        "<nav>GONE | About</nav>",
        "<header>GONE</header>",
        "<footer>GONE</footer>",
        "<aside>GONE</aside>",
        "<form>GONE<input><button>GONE</button></form>",
        "<script>GONE()</script><style>GONE{}</style><noscript>GONE</noscript><template>GONE</template>",
        f"<div class='post-comments'><p>GONE {SENTENCE}</p></div>",
        f"<div id=sidebar-left><p>GONE {SENTENCE}</p></div>",
        f"<section class='widget_recent'>GONE {SENTENCE}</section>",
        f"<div role=complementary>GONE {SENTENCE}</div>",
        f"<div style='display: none'>GONE {SENTENCE}</div>",
        "<div hidden>GONE</div>",
        "<ul><li><a href=1>GONE</a><li><a href=2>GONE, too</a></ul>",
        "<div class=cookie-consent>GONE</div>",
        "<h2>Title<a class=headerlink href=#t>GONE</a></h2>",
    ],
)
def test_html_drops_the_site_around_the_text(chrome):
    body = f"<article>{TEXT}{chrome}</article>"
    assert "GONE" not in html_to_text(f"<body>{body}</body>")
    assert SENTENCE.strip() in html_to_text(f"<body>{body}</body>")


@pytest.mark.parametrize(
    "page",
    [
        f"<form id=aspnet>{TEXT}</form>",  # a page in one form
        f"<div class=content-with-sidebar>{TEXT}</div>",  # named after what it holds too
        f"<div class=elementor-widget-container>{TEXT}</div>",
        f"<div style='display:none' id=articleBody>{TEXT}</div>",  # until a script shows it
        f"<p class=intro>{SENTENCE}</p><div><div>{TEXT}</div></div>",
        f"<table><tr><td>{TEXT}</td></tr></table>",
        f"{SENTENCE}<br>{SENTENCE}<br>{SENTENCE}",
        f"<p>{SENTENCE} <a href=x>{SENTENCE}</a> {SENTENCE}</p>",
    ],
)
def test_html_keeps_text_wherever_it_stands(page):
    text = html_to_text(f"<body><nav>menu</nav>{page}</body>")
    assert text.count(SENTENCE.strip()) == page.count(SENTENCE.strip())


def test_text_far_from_the_main_block_goes():
    related = f"<section><h2>More</h2><p>{SENTENCE}</p></section>"
    assert html_to_text(f"<main><div>{TEXT * 3}</div></main>{related}").count(SENTENCE.strip()) == 15


@pytest.mark.parametrize("page", ["", "<", "<p>unclosed <b>bold", "no tags at all", "<script>only()</script>", "\0"])
def test_broken_html_is_no_error(page):
    assert "only" not in html_to_text(page)


@pytest.mark.parametrize("tags", ["<div>", "<ul><li>", "<b><p>", "<style>", "<a href=x><div hidden>"])
def test_html_that_is_never_closed_takes_no_minutes(tags):
    assert "end" in html_to_text(tags * 100_000 + "end") or tags == "<style>"


@given(
    st.lists(st.sampled_from(["<p>", "</div>", "<td", "=", ">", "<!--", "&amp", "<?x", "'", "text ", "<pre>\n", "</"]))
)
def test_no_html_is_an_error(pieces):
    html_to_text("".join(pieces))


@pytest.mark.parametrize(
    "sign", ["[[", "[[a|", "{{", "{{a{", "<ref>", "<!--", "\n{|", "=", "(,", "[[Image:[a]", "[http://a b"]
)
def test_wikitext_that_is_never_closed_takes_no_minutes(sign):
    assert "end" in wikitext_to_text(sign * 20_000 + "\nend") or sign == "<!--"


def test_markdown():
    markdown = (
        "---\ntitle: x\n---\n# Heading\n\nSome *light* and **strong** `co_d_e`, a [link](http://x.org/a_(b)) and "
        "![a picture](p.png) \\*so\\*.\n\n> quoted\n\n```python\nx = __init__(2 * 3, *y) &amp; # z\n```\n---\n"
        "| a | b |\n|---|---|\nsnake_case_name &amp; 2*3*4 <br> [`f`][1]\n\n[1]: http://x.org\n"
    )
    assert [line.strip() for line in markdown_to_text(markdown).split("\n") if line.strip()] == [
        "Heading",
        "Some light and strong co_d_e, a link and a picture *so*.",
        "quoted",
        "x = __init__(2 * 3, *y) &amp; # z",
        "a | b",
        "snake_case_name & 2*3*4  f",
    ]


@pytest.mark.parametrize("sign", ["[", "![", "`", "``a ` ", "*a", "[a](", "\n[", "> ", "|-", "~~~\n"])
def test_markdown_that_is_never_closed_takes_no_minutes(sign):
    assert "end" in markdown_to_text(sign * 20_000 + "\n\nend")


def test_plain_text_is_not_taken_for_markup():
    text = "if a < b: print('<b>', \"[[x]]\") # 1"
    assert strip_markup(text, "text") == text
    assert strip_markup("<p>a</p>", "html") == "a"
