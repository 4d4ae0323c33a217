"""Normalisation: one spelling for everything, and nothing left to do the second time."""

import unicodedata
from itertools import islice, product

import pytest
from ftfy import TextFixerConfig, fix_text
from ftfy.badness import is_bad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_recipes.sources import load_documents
from lm_recipes.text import normalize as module
from lm_recipes.text.normalize import normalize

# What meets in real text and goes wrong together: mojibake, invisible characters, odd spaces, symbols.
PIECES = """Ã © â€™ â€œ é ﬁ ａ ... ! - _ … — “ ‟ ‐ − a Z 0 &amp; س 😀 न Â œ ² ½ ´ Ђ В Г ў β € Ù Ø à ¹""".split()
PIECES += ["\x9d", "e\u0301", "\u200b", "\u200d", "\u200c", "\xad", "\ufeff", "\u202e", "\xa0", "\u3000", " ", "\t"]
PIECES += ["\n", "\r\n", "\u2028", "\x85", "\x0b", "\x00", "\x1b[31m", "\x1b", "\ufffd", "\ufffe", "\U000e0041"]
PIECES += ["\xc2", "\xef\xbb\xbf", "\ud800", "\udc00", "\x92", "\x80"]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)
OPTIONS = [
    {"normal_form": form, "quotes": quotes, "dashes": dashes}
    for form, quotes, dashes in product(("NFC", "NFKC"), ("straight", "keep"), ("keep", "ascii"))
]


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
@example(text="Ã\u200b©")  # removing the space completes a mojibake sequence
@example(text="Â\xad")
@example(text="a\x1b\x1b[31m[31m")
def test_normalising_twice_is_normalising_once(options, text):
    once = normalize(text, **options)
    assert normalize(once, **options) == once


@pytest.mark.parametrize("options", OPTIONS)
@settings(deadline=None)
@given(text=TEXTS)
def test_nothing_invisible_is_left(options, text):
    for character in normalize(text, **options):
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Zl", "Zp", "Cs")
        assert character not in "\u200b\u200e\u202e\ufeff\xad\xa0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schÃ¶n", "schön"),
        ("itâ€™s", "it's"),
        ("MarÃ\xada GarcÃ\xada", "María García"),  # the mojibake of í ends in a soft hyphen
        ("Ã\x85land", "Åland"),
        ("it\x92s \x93so\x94", 'it\'s "so"'),  # Windows-1252 read as Latin-1
        ("e\u0301", "é"),
        ("ﬁne “quotes”", 'fine "quotes"'),
        ("ＷＩＤＥ", "WIDE"),
        ("zero\u200bwidth, soft\xadhyphen, \ufeffmark", "zerowidth, softhyphen, mark"),
        ("evil\u202etxt", "eviltxt"),
        ("nul\x00 bell\x07 \x1b[31mred\x1b[0m", "nul bell red"),
        ("a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("  two   spaces\tand\u3000more  \n\n\n\n next ", "two spaces and more\n\nnext"),
        ("----------- wow!!!!!!! ......", "--- wow!!! ..."),
        ("――――――", "―――"),
        ("10² and H₂O", "10² and H₂O"),  # NFKC would say 102
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian needs its joiner
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("a\u200db", "ab"),
        ("&amp; stays", "&amp; stays"),  # entities belong to markup
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("1914–1918 — a war", "1914–1918 — a war"),
    ],
)
def test_one_spelling(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ({"normal_form": "NFKC"}, "10² ½ ℕ", "102 1⁄2 N"),
        ({"quotes": "keep"}, "“it’s” itâ€™s", "“it’s” it’s"),
        ({"dashes": "ascii"}, "1914–1918 — a non‐war of −1", "1914-1918 -- a non-war of -1"),
    ],
)
def test_options(option, text, expected):
    assert normalize(text, **option) == expected


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122) | st.sampled_from(".,;'\" "), min_size=1))
def test_plain_sentences_only_lose_spaces_and_repeated_symbols(text):
    kept = [c for c in normalize(text) if c.isalpha()]
    assert kept == [c for c in text if c.isalpha()]


@settings(max_examples=1000, deadline=None)
@given(TEXTS | st.text(alphabet=[chr(c) for c in (*range(0x20, 0x180), *range(0x380, 0x460), 0x20AC, 0x2018, 0x2122)]))
def test_ftfy_is_asked_about_every_line_that_it_calls_bad(text):
    for line in text.split("\n"):
        assert module._is_mojibake(line) or not is_bad(line)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_lines_that_skip_ftfy_end_as_if_they_had_not(form, monkeypatch):
    """On real pages, whole and damaged: as UTF-8 read as Windows-1252, which is where mojibake comes from."""
    pages = [page.text[-2000:] for page in islice(load_documents("demo:enwik8"), 0, 1000, 2)]
    pages = [page for page in pages if not page.isascii()]
    pages += [page.encode().decode("windows-1252", errors="replace") for page in pages]
    assert len(pages) > 200
    fast = [normalize(page, normal_form=form) for page in pages]
    monkeypatch.setattr(module, "_is_mojibake", lambda line: True)
    assert fast == [normalize(page, normal_form=form) for page in pages]


def test_ftfy_has_nothing_left_to_do():
    for page in islice(load_documents("demo:enwik8"), 0, 300, 3):
        text = normalize(page.text[-3000:])
        assert fix_text(text, TextFixerConfig(unescape_html=False)) == text
