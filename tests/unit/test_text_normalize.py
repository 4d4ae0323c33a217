"""Normalisation: one spelling for everything, and nothing left to do the second time."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_recipes.text.normalize import normalize

# What meets in real text and goes wrong together: mojibake, invisible characters, odd spaces, symbols.
PIECES = [
    "Ã",
    "©",
    "â€™",
    "â€œ",
    "\x9d",
    "é",
    "e\u0301",
    "ﬁ",
    "ａ",
    "\u200b",
    "\u200d",
    "\u200c",
    "\xad",
    "\ufeff",
    "\u202e",
]
PIECES += [
    "\xa0",
    "\u3000",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\u2028",
    "\x85",
    "\x0b",
    "\x00",
    "\x1b[31m",
    "\x1b",
    "...",
    "!",
    "-",
    "_",
]
PIECES += [
    "…",
    "—",
    "“",
    "a",
    "Z",
    "0",
    "&amp;",
    "س",
    "😀",
    "न",
    "\ufffd",
    "\ufffe",
    "\U000e0041",
    "\xc2",
    "\xef\xbb\xbf",
]


@settings(max_examples=500)
@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
@example("Ã\u200b©")  # removing the space completes a mojibake sequence
@example("Â\xad")
def test_normalising_twice_is_normalising_once(text):
    once = normalize(text)
    assert normalize(once) == once


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_nothing_invisible_is_left(text):
    for character in normalize(text):
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Zl", "Zp", "Cs")
        assert character not in "\u200b\u200e\u202e\ufeff\xad\xa0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schÃ¶n", "schön"),
        ("itâ€™s", "it's"),
        ("e\u0301", "é"),
        ("ﬁne “quotes”", 'fine "quotes"'),
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
    ],
)
def test_one_spelling(text, expected):
    assert normalize(text) == expected


@given(st.text(alphabet=st.characters(min_codepoint=97, max_codepoint=122) | st.sampled_from(".,;'\" "), min_size=1))
def test_plain_sentences_only_lose_spaces_and_repeated_symbols(text):
    kept = [c for c in normalize(text) if c.isalpha()]
    assert kept == [c for c in text if c.isalpha()]
