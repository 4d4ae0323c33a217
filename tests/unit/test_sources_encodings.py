"""Encodings: a page is read as a browser reads it, and what is no text is not taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.sources.encodings import decode_html

GERMAN = "<p>Größe und Maße, schöne Grüße aus Köln: wir hören früh die Vögel über den Bäumen.</p>"


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ("<meta charset='windows-1251'><p>Привет, мир!", "cp1251"),
        ("<META HTTP-EQUIV=Content-Type CONTENT='text/html; charset=iso-8859-1'><p>“Café” — 5 €", "cp1252"),
        ("<?xml version='1.0' encoding='shift_jis'?><p>日本語のページです。", "cp932"),
        ("<meta charset=gb2312><p>简体中文，镕", "gb18030"),
        ("<meta charset=iso-2022-jp><p>日本語", "iso2022_jp"),
        ("<meta charset=iso-8859-1><p>declared wrongly: Größe", "utf-8"),
        ("<meta charset=nonsense><p>Größe", "utf-8"),
        ("<p>no declaration: Größe", "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "latin-1"),
    ],
)
def test_a_page_is_read_in_its_encoding(page, encoding):
    assert decode_html(page.encode(encoding)) == page


def test_a_page_that_was_cut_off_is_read():
    assert decode_html(("<p>" + "word " * 1000 + "ö").encode()[:-1]) == "<p>" + "word " * 1000 + "\ufffd"


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 20, b"\0\1\2\3" * 100, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9]
)
def test_what_is_no_text_is_none(data):
    assert decode_html(data) is None


@given(st.binary())
def test_no_bytes_are_an_error(data):
    decode_html(data)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1b\ufeff")))
def test_utf8_is_read_as_it_is(text):
    assert decode_html(text.encode()) == text
