"""Which documents are dropped, and for what reason?

Each filter takes one text and its thresholds, and returns a short reason to drop it, or None to keep it.
Reasons are constant strings, so that the ledger can count them. Repetition, language, offence and perplexity
have files of their own.
"""

import re

from lm_recipes.text.words import words

_REDIRECT = re.compile(r"\s*#redirect\b", flags=re.IGNORECASE)
_DISAMBIGUATION = re.compile(
    r"\{\{ *(?:[\w -]*disambig\w*|[234]\w\w|dab|hndis|geodis)(?: *\|[^{}]*)? *\}\}", flags=re.IGNORECASE
)
_BULLET = re.compile(r"[-*•‣▪◦·–—]\s?")
_DUMP = 10_000_000
_STOP_WORD = re.compile(r"(?<!\S)(?:the|be|to|of|and|that|have|with)(?!\S)", flags=re.IGNORECASE)


def redirect(wikitext: str) -> str | None:
    """Wiki pages that only point elsewhere: redirects and disambiguation pages. Looks at raw markup."""
    if _REDIRECT.match(wikitext):
        return "a redirect"
    return "a disambiguation page" if _DISAMBIGUATION.search(wikitext) else None


def length(text: str, min_words: int, max_words: int) -> str | None:
    """Documents outside `min_words`..`max_words`: stubs, menus, dumps (Gopher: 50..100,000; Rae et al. 2021)."""
    # A dump of many megabytes is not cut into words to be refused.
    count = _spaces(text) + 1 if len(text) > _DUMP else len(words(text).starts)
    if count < min_words:
        return "too few words"
    return "too many words" if count > max_words else None


def _spaces(text: str) -> int:
    return text.count(" ") + text.count("\n")


def quality(
    text: str,
    min_mean_word_length: float,
    max_mean_word_length: float,
    max_symbol_word_ratio: float,
    max_bullet_lines: float,
    max_ellipsis_lines: float,
    min_alphabetic_words: float,
    min_stop_words: int,
) -> str | None:
    """The document rules of Gopher (Rae et al. 2021, arXiv 2112.11446, A.1.1): text, not lists, code or noise.

    Args:
        min_mean_word_length, max_mean_word_length: characters.
        max_symbol_word_ratio: hashes, or ellipses, per word.
        max_bullet_lines, max_ellipsis_lines: share of lines that start with a bullet, or end with an ellipsis.
        min_alphabetic_words: share of words with at least one letter, in any script.
        min_stop_words: how many different ones of the, be, to, of, and, that, have, with; 0 for text that
            is not English.
    """
    if len(text) > _DUMP and len(text) > (max_mean_word_length + 1) * (_spaces(text) + 1):
        return "words too short or too long"
    found = words(text)
    count = max(len(found.starts), 1)
    mean = int((found.ends - found.starts).sum()) / count
    if not min_mean_word_length <= mean <= max_mean_word_length:
        return "words too short or too long"
    if text.count("#") > max_symbol_word_ratio * count:
        return "too many hashes"
    if text.count("...") + text.count("…") > max_symbol_word_ratio * count:
        return "too many ellipses"
    lines = [line for line in text.split("\n") if line]
    if sum(bool(_BULLET.match(line)) for line in lines) > max_bullet_lines * len(lines):
        return "mostly bullet points"
    if sum(line.endswith(("...", "…")) for line in lines) > max_ellipsis_lines * len(lines):
        return "lines that break off"
    if found.with_letters() < min_alphabetic_words * count:
        return "too few words with letters"
    return "too few stop words" if _fewer_stop_words(text, min_stop_words) else None


def _fewer_stop_words(text: str, minimum: int) -> bool:
    found: set[str] = set()
    matches = _STOP_WORD.finditer(text)
    while len(found) < minimum:
        match = next(matches, None)
        if match is None:
            return True
        found.add(match[0].lower())
    return False


# --- C4 ---

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_BLANK_LINES = re.compile(r"\n{3,}")
# Not after U.S. or e.g.; every line that c4_lines keeps ends a sentence.
_SENTENCE_END = re.compile(r"(?<!\.\w)[.!?][\"')\]]*\s|\S(?=\n|\Z)")


def c4_lines(text: str, min_words_per_line: int, max_word_length: int) -> str:
    """The text's lines that C4 keeps (Raffel et al. 2020, JMLR 21:140, 2.2): sentences, not menus and notices.

    A line must end in . ! ? or a quotation mark (and not in an ellipsis), have `min_words_per_line` words, none of
    them longer than `max_word_length` characters, and not speak of JavaScript, cookies or terms of use. Citation
    marks ([1], [edit]) go. Blank lines between what is left stay: they part paragraphs.
    """
    lowered = text.lower()
    unwanted = tuple(phrase for phrase in ("javascript", *_POLICY) if phrase in lowered)
    kept = []
    for line in (_CITATION.sub("", text) if "[" in text else text).split("\n"):
        line = line.strip()
        if line and (
            not line.endswith((".", "!", "?", '"', "'", "”", "’"))
            or line.endswith("...")
            or len(line.split(None, min_words_per_line - 1)) < min_words_per_line
            or (len(line) > max_word_length and max(map(len, line.split())) > max_word_length)
            or (unwanted and any(phrase in line.lower() for phrase in unwanted))
        ):
            continue
        kept.append(line)
    return _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n")


def c4(text: str, min_sentences: int) -> str | None:
    """Pages that C4 drops: placeholder text, code, and what has too few sentences once `c4_lines` has run.

    Its list of bad words is the `lexicon` of the step `inappropriate`.
    """
    if "{" in text:
        return "a curly bracket"
    if "lorem ipsum" in text.lower():
        return "lorem ipsum"
    ends = _SENTENCE_END.finditer(text)
    return "too few sentences" if any(next(ends, None) is None for _ in range(min_sentences)) else None


# --- FineWeb ---

# Full stops, question and exclamation marks of living scripts: Latin, CJK, Arabic, Devanagari, Armenian,
# Ethiopic, Myanmar, Khmer, Tibetan, Mongolian.
_TERMINAL = tuple(".!?‽‼⁇⁈⁉。．！？｡؟۔։।॥።፧፨၊။។៕༎᠃᠉")


def fineweb(
    text: str,
    min_punctuated_lines: float,
    max_short_lines: float,
    short_line_length: int,
    max_duplicate_line_characters: float,
    max_line_breaks_per_word: float,
) -> str | None:
    """FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, 3.6), found by comparing good and bad crawls.

    Args:
        min_punctuated_lines: share of lines that end in terminal punctuation.
        max_short_lines: share of lines of at most `short_line_length` characters.
        max_duplicate_line_characters: share of characters in lines that stood before.
        max_line_breaks_per_word: a text with more is a list.
    """
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if not lines:
        return "no lines"
    if sum(line.endswith(_TERMINAL) for line in lines) < min_punctuated_lines * len(lines):
        return "few lines end in punctuation"
    if sum(len(line) <= short_line_length for line in lines) > max_short_lines * len(lines):
        return "mostly short lines"
    breaks = text.count("\n")
    repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
    if repeated > max_duplicate_line_characters * (len(text) - breaks):
        return "text in repeated lines"
    return "a list" if breaks > max_line_breaks_per_word * len(words(text).starts) else None
