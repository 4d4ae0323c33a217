"""How does markup become plain text? One function for each kind of document."""

import html
import re

from lm_recipes.sources.documents import Kind
from lm_recipes.text.webpage import main_text

# --- MediaWiki ---

# Regular expressions and not a parser: mwparserfromhell reads 3 MB/s. None of them can go back further than to the
# construct it began with, so that markup that is never closed costs no more than the rest.
_WIKI_HIDDEN = re.compile(
    r"<(?:!--.*?(?:-->|\Z)|ref\b[^<>/]*/>|ref\b[^<>]*>[^<]*(?:<(?!/?ref\b)[^<]*)*</ref *>"
    r"|(gallery|graph|hiero|imagemap|inputbox|math|score|templatedata|timeline)\b[^<>]*>"
    r"[^<]*(?:<(?!/?\1\b)[^<]*)*</\1 *>)",
    flags=re.DOTALL,
)
# Categories, interlanguage links, and pictures with their captions, which may hold links of their own.
_WIKI_NOT_PROSE = re.compile(
    r"\[\[ *(?:(?:[Cc]ategory|[a-z]{2,3}(?:-[a-z-]+)?|simple) *:[^\[\]\n]*\]\]\n?"
    r"|(?:[Ii]mage|[Ff]ile|[Mm]edia) *:[^\[\]]*(?:\[(?:\[[^\[\]]*\]\]|[^\[\]]*\])[^\[\]]*)*\]\])"
)
_WIKI_LISTS_AT_THE_END = re.compile(
    r"\n== *(?i:See also|External links?|References|Further reading|Footnotes|Notes|Sources|Bibliography) *=="
    r" *(?=\n|\Z)[^\n]*(?:\n(?!==[^=])[^\n]*)*"
)
# Without another of its kind inside.
_WIKI_TEMPLATE = re.compile(r"\{\{[^{}]*(?:(?:\{(?!\{)|\}(?!\}))[^{}]*)*\}\}")
_WIKI_TABLE = re.compile(r"\n[ :*#]*\{\|[^\n]*(?:\n(?![ :*#]*\{\|| *\|\})[^\n]*)*\n *\|\}")
_WIKI_NESTING = 40  # templates in templates deeper than this are left
# What stands around the text of a link: [[target| and ]]
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|]*+\|(?=[^\[\]]*\]\])|(?:https?|ftp)://[^\s\[\]]*+)?+|\]\]")
_WIKI_EXTERNAL_LINK = re.compile(
    r"\[(?:(?:https?|ftp|irc|gopher)://|mailto:|news:)[^\s\[\]<>]*+ *([^\[\]\n]*(?:\[[^\[\]\n]*\][^\[\]\n]*)*)\]"
)
_WIKI_HEADING = re.compile(r"\n=[^\n]*=[^\S\n]*(?=\n|\Z)")
_WIKI_BREAK = re.compile(r"<(?:[bB][rR]|/?[pP]|/?[dD][iI][vV]|/?blockquote|/?center)\b[^<>\n]{0,200}>\n?")
_WIKI_LINE_STARTS = re.compile(r"\n(?: *\|[-}+][^\n]*|-{4,}|[ |!*#:;]+)")
_WIKI_SWITCH = re.compile(r"__[A-Z]+__")
_TAG = re.compile(r"<(?:/?[a-zA-Z][^<>\n]{0,200}>|!--.*?-->)", flags=re.DOTALL)
# "Kyoto (京都, ...)" whose template or language link is gone
_AN_EMPTY_BRACKET = re.compile(r"\([\s:]*+[,;)]")
_EMPTY_BRACKETS = re.compile(r" ?\([\s,;:]*\)")
_BRACKET_START = re.compile(r"\((?:\s*[,;])+\s*")


def wikitext_to_text(wikitext: str) -> str:
    """Article prose and headings: without templates, tables, pictures, references, categories and link lists.

    Says, word for word, what mwparserfromhell's `strip_code` says on nearly every article of enwik8 (a test counts
    them), and loses less on the others: unbalanced quotes, line breaks, terms with a definition.
    """
    text = "\n" + wikitext
    if "<" in text:
        text = _WIKI_HIDDEN.sub("", text)
    text = _WIKI_LISTS_AT_THE_END.sub("", _WIKI_NOT_PROSE.sub("", text))
    text = _innermost_first(_WIKI_TABLE, "{|", _innermost_first(_WIKI_TEMPLATE, "{{", text))
    text = _WIKI_EXTERNAL_LINK.sub(r"\1", _WIKI_LINK.sub("", text))
    for sign in ("''''''", "'''''", "'''", "''", "{{", "}}"):
        text = text.replace(sign, "")
    text = _WIKI_HEADING.sub(lambda line: "\n" + line[0].strip("= \t\n"), text)
    text = html.unescape(html.unescape(text))  # dumps of 2006 hold entities of entities
    if "<" in text:
        text = _TAG.sub("", _WIKI_BREAK.sub("\n", text))
    text = _WIKI_LINE_STARTS.sub("\n", text)
    if "__" in text:
        text = _WIKI_SWITCH.sub("", text)
    if _AN_EMPTY_BRACKET.search(text):
        text = _BRACKET_START.sub("(", _EMPTY_BRACKETS.sub("", text))
    return text.strip("\n")


def _innermost_first(construct: re.Pattern, opening: str, text: str) -> str:
    for _ in range(_WIKI_NESTING):
        if opening not in text:
            break
        text, found = construct.subn("", text)
        if not found:
            break
    return text


# --- HTML ---


def html_to_text(page: str) -> str:
    """A web page's own text in lines, without the site around it: `webpage.main_text`."""
    return main_text(page)


# --- Markdown ---

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", flags=re.DOTALL)
# A fenced block, to its end or the end of the text; a span between two runs of as many backticks; or a sign that is
# escaped because it is meant as such.
_MARKDOWN_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<block>.*?)(?:^ {0,3}(?P=fence)[`~]*[ \t]*$\n?|\Z)"
    r"|(?<!`)(?P<ticks>`{1,3})(?!`)(?P<span>[^`\n]+(?:\n[^`\n]+)*)(?P=ticks)(?!`)"
    r"|\\(?P<sign>[!-/:-@\[-`{-~])",
    flags=re.MULTILINE | re.DOTALL,
)
_CODE_PLACE = re.compile("\ue000([0-9]{1,9})\ue000")  # a private-use character, kept out of the text itself
_MARKDOWN = [
    (re.compile(r"!\[([^\[\]]*)\]\((?:[^()\n]|\([^()\n]*\))*\)"), r"\1"),
    (re.compile(r"\[([^\[\]]+)\](?:\((?:[^()\n]|\([^()\n]*\))*\)|\[[^\[\]\n]*\])"), r"\1"),
    (re.compile(r"^ {0,3}\[[^\[\]\n]+\]: .*$", flags=re.MULTILINE), ""),  # link targets
    (re.compile(r"^ {0,3}(?:#{1,6} +|(?:> ?)+)", flags=re.MULTILINE), ""),
    (re.compile(r"^ {0,3}(?:[-=_*] *){3,}$", flags=re.MULTILINE), ""),  # rules and underlined headings
    (re.compile(r"^[|: -]*-{3,}[|: -]*$", flags=re.MULTILINE), ""),
    (re.compile(r"^ {0,3}\| *(.*?) *\|[ \t]*$", flags=re.MULTILINE), r"\1"),  # rows of a table: a | b
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)"), r"\1\2"),
    (_TAG, ""),
]


def markdown_to_text(markdown: str) -> str:
    """Markdown without its signs: the words of links, pictures, headings and emphasis stay, and code stays as it is."""
    code: list[str] = []

    def put_aside(match: re.Match) -> str:
        code.append(match["block"].rstrip("\n") if match["fence"] else match["span"] or match["sign"])
        return f"\ue000{len(code) - 1}\ue000" + ("\n" if match["fence"] else "")

    text = _MARKDOWN_CODE.sub(put_aside, _FRONT_MATTER.sub("", markdown.replace("\ue000", "")))
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    # An entity can be the private-use character again: then there may be no code of that number.
    return _CODE_PLACE.sub(lambda place: "".join(code[int(place[1]) :][:1]), html.unescape(text))


def strip_markup(text: str, kind: Kind) -> str:
    """Plain text of a document of this kind; a document that is plain text comes back as it is."""
    if kind == "wikitext":
        return wikitext_to_text(text)
    if kind == "html":
        return html_to_text(text)
    return markdown_to_text(text) if kind == "markdown" else text
