"""How is one text written? The same characters for the same thing, nothing invisible, whitespace with a meaning."""

import re
from functools import partial

import ftfy

# Plain is printable ASCII and line feeds. Most lines of most corpora are; only the others need ftfy (2 MB/s).
_NOT_PLAIN = re.compile(r"[^\n -~]")
_LINE_BREAKS = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]\n?")
_TERMINAL_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Control characters (but not \n and \t), soft hyphen, zero-width space, bidirectional marks and overrides,
# invisible operators, the byte-order mark, tag characters, and code points that are not characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)
# Joiners shape Persian, Indic and emoji sequences; anywhere else (beside ASCII, at an edge) they are noise.
_STRAY_JOINERS = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]++|[\u200c\u200d]++(?![^\x00-\x7f\u200c\u200d])"
)
_SPACE_RUNS = re.compile("  +")
_BLANK_LINES = re.compile(r"\n{3,}")
# Four or more of one symbol say no more than three: rules of dashes, rows of dots, !!!!!!!!
_REPEATED_ASCII = re.compile(r"([!-/:-@\[-`{-~])\1{3,}")
_REPEATED_SYMBOL = re.compile(r"([^\w\s]|_)\1{3,}")

_fix = partial(ftfy.fix_text, config=ftfy.TextFixerConfig(unescape_html=False, explain=False))


def normalize(text: str) -> str:
    """The text in one spelling: mojibake repaired, NFC, straight quotes, one kind of space and of line break.

    ftfy (Speer 2019) repairs encodings, width variants and ligatures. NFC and not NFKC, which would
    rewrite what is meant (10² as 102). Idempotent: `normalize(normalize(text)) == normalize(text)`.
    """
    if _NOT_PLAIN.search(text):
        text = _TERMINAL_ESCAPES.sub("", _LINE_BREAKS.sub("\n", text))
        lines = (_repair(line) if _NOT_PLAIN.search(line) else line.strip(" ") for line in text.split("\n"))
    else:
        lines = (line.strip(" ") for line in text.split("\n"))
    text = _REPEATED_ASCII.sub(r"\1\1\1", _SPACE_RUNS.sub(" ", "\n".join(lines)))
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def _repair(line: str) -> str:
    # Removing an invisible character can complete a mojibake sequence, and repairing one can uncover an
    # invisible character, so all of it runs until nothing changes; nearly always the first round is the last.
    while True:
        repaired = " ".join(_fix(_STRAY_JOINERS.sub("", _INVISIBLE.sub("", line))).split())
        repaired = _REPEATED_SYMBOL.sub(r"\1\1\1", repaired)
        if repaired == line:
            return line
        line = repaired
