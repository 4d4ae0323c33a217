"""How is one text written? The same characters for the same thing, nothing invisible, whitespace with a meaning."""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

import ftfy
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from ftfy.chardata import LIGATURES, WIDTH_MAP

_LINE_BREAK_MARKS = "\r\v\f\x1c\x1d\x1e\u2028\u2029"
_LINE_BREAKS = re.compile(f"[{_LINE_BREAK_MARKS}]\n?")
# Control characters (but not \n and \t), soft hyphen, zero-width space, bidirectional marks and overrides, invisible
# operators, the byte-order and object marks, tag characters, and code points that are not characters.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffc\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f"
)
# Joiners shape Persian, Indic and emoji sequences; anywhere else (beside ASCII, at an edge) they are noise.
_STRAY_JOINERS = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]++|[\u200c\u200d]++(?![^\x00-\x7f\u200c\u200d])"
)
_SPACE_RUNS = re.compile("  +")
_BLANK_LINES = re.compile(r"\n{3,}")
# Four or more of one symbol say no more than three: rules of dashes, rows of dots, !!!!!!!!
_REPEATED_ASCII = re.compile(r"([!-/:-@\[-`{-~])\1{3,}")
_REPEATED_SYMBOL = re.compile(r"([^\x00-\x7f\w\s])\1{3,}")
_QUOTES = dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63", "-") | dict.fromkeys("\u2014\u2015", "--")
# Whatever ftfy takes for mojibake has one of the ALONE characters, or a TELLING one (neither a Greek nor a Cyrillic
# letter) beside another one beyond ASCII. Looking there alone is many times as fast as looking everywhere.
# Escapes and surrogates are left to ftfy, too.
_ALONE = "\x1b\x80-\x9f\ud800-\udfffŒœÃÂ"
_TELLING = "Ђ" + "".join(v for k, v in MOJIBAKE_CATEGORIES.items() if k not in ("upper_common", "lower_common"))
_SUSPICIOUS = re.compile(rf"[{_ALONE}{_TELLING}](?:(?<=[{_ALONE}])|(?=[^\x00-\x7f])|(?<=[^\x00-\x7f][{_TELLING}]))")
_ALWAYS_REPAIRED = re.compile("[\x1b\x80-\x9f\ud800-\udfff]")


def normalize(text: str, normal_form: str = "NFC", quotes: str = "straight", dashes: str = "keep") -> str:
    """The text in one spelling: mojibake repaired, one normal form, one kind of space and of line break.

    ftfy (Speer 2019) repairs encodings, width variants and ligatures. Idempotent:
    `normalize(normalize(text)) == normalize(text)` for the same options.

    Args:
        normal_form: NFC, or NFKC, which also folds what looks alike and loses meaning: 10² becomes 102, x₁ becomes
            x1, ℕ becomes N. It suits a search index; a language model should see the difference.
        quotes: "straight" writes curly quotation marks as " and '; "keep" leaves them.
        dashes: "keep" leaves them; "ascii" writes hyphens, en dashes and minus signs as -, em dashes as --.
    """
    if any(mark in text for mark in _LINE_BREAK_MARKS):
        text = _LINE_BREAKS.sub("\n", text)
    repair = _repairer(normal_form, quotes, dashes)
    # Most lines of most corpora are printable ASCII; only the others need a closer look.
    lines = [line.strip(" ") if line.isascii() and line.isprintable() else repair(line) for line in text.split("\n")]
    text = "\n".join(lines)
    if "  " in text:
        text = _SPACE_RUNS.sub(" ", text)
    text = _REPEATED_ASCII.sub(r"\1\1\1", text)
    return (_BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip("\n")


@cache
def _repairer(normal_form: str, quotes: str, dashes: str) -> Callable[[str], str]:
    """The function that repairs one line with these options."""
    config = ftfy.TextFixerConfig(
        unescape_html=False, uncurl_quotes=quotes == "straight", normalization=normal_form, explain=False
    )
    replacements = {chr(code): new for code, new in (LIGATURES | WIDTH_MAP).items()}
    replacements |= _QUOTES if quotes == "straight" else {}
    replacements |= _DASHES if dashes == "ascii" else {}
    replaced = re.compile(f"[{''.join(replacements)}{_INVISIBLE}]")

    def repair(line: str) -> str:
        # One repair can make room for the next (an invisible character gone completes a mojibake sequence), so all of
        # it runs until nothing changes: nearly always the first round is the last.
        while True:
            fixed = line
            if _is_mojibake(line):
                fixed = _LINE_BREAKS.sub("\n", ftfy.fix_text(line, config))
            # What else ftfy does is by character, or the normal form.
            fixed = replaced.sub(lambda match: replacements.get(match[0], ""), fixed)
            if "\u200c" in fixed or "\u200d" in fixed:
                fixed = _STRAY_JOINERS.sub("", fixed)
            if not unicodedata.is_normalized(normal_form, fixed):
                fixed = unicodedata.normalize(normal_form, fixed)
            if "\n" in fixed:
                return "\n".join(map(repair, fixed.split("\n")))
            fixed = _REPEATED_SYMBOL.sub(r"\1\1\1", " ".join(fixed.split()))
            if fixed == line:
                return line
            line = fixed

    return repair


def _is_mojibake(line: str) -> bool:
    """Whether ftfy would decode a part of the line, or remove escapes and surrogates from it."""
    return any(
        _ALWAYS_REPAIRED.match(found[0]) or is_bad(line[max(0, found.start() - 6) : found.end() + 6])
        for found in _SUSPICIOUS.finditer(line)
    )
