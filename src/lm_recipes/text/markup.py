"""How does markup become plain text? One function for each kind of document."""

import html
import re

import mwparserfromhell
from selectolax.lexbor import LexborHTMLParser

from lm_recipes.sources.documents import Kind

# --- MediaWiki ---

# What shows nothing in the running text: categories, interlanguage links, pictures with their captions (which
# may hold links of their own), and references.
_WIKI_INVISIBLE = re.compile(
    r"\[\[ *(?:[Cc]ategory|[a-z]{2,3}(?:-[a-z-]+)?|simple) *:[^\[\]\n]*\]\]\n?"
    r"|\[\[ *(?:[Ii]mage|[Ff]ile|[Mm]edia) *:(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*\]\]"
    r"|<ref\b[^<>/]*/>|<ref\b[^<>]*>.*?</ref *>",
    flags=re.DOTALL,
)
# A table without a table inside it; applied until none is left.
_WIKI_TABLE = re.compile(r"^[ :*#]*\{\|(?:(?!^[ :*#]*\{\|).)*?^ *\|\}", flags=re.MULTILINE | re.DOTALL)
_WIKI_LISTS_AT_THE_END = re.compile(
    r"^== *(?:See also|External links?|References|Further reading|Footnotes|Notes|Sources|Bibliography) *== *$"
    r"(?:(?!^==[^=]).)*",
    flags=re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_WIKI_LEFTOVERS = re.compile(r"'{2,}|__[A-Z]+__|\{\{|\}\}|\[\[|\]\]|^[ |!*#:;]+|^ *\|[-}+].*$", flags=re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>|<!--.*?-->", flags=re.DOTALL)
# "Kyoto (京都, ...)" whose template or language link is gone
_EMPTY_BRACKETS = re.compile(r" ?\([\s,;:]*\)")
_BRACKET_START = re.compile(r"\((?:\s*[,;])+\s*")


def wikitext_to_text(wikitext: str) -> str:
    """Article prose and headings: without templates, tables, pictures, references, categories and link lists.

    mwparserfromhell does the parsing; what its 2006-style input leaves behind is removed before and after it.
    """
    wikitext = _WIKI_LISTS_AT_THE_END.sub("", _WIKI_INVISIBLE.sub("", wikitext))
    tables = 1
    while tables:
        wikitext, tables = _WIKI_TABLE.subn("", wikitext)
    # Bold and italics are left to a regular expression: unbalanced quotes are what the parser is slowest at.
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    text = html.unescape(code.strip_code(normalize=True, collapse=True))
    text = _WIKI_LEFTOVERS.sub("", _TAG.sub("", text))
    return _BRACKET_START.sub("(", _EMPTY_BRACKETS.sub("", text))


# --- HTML ---

_HTML_UNREAD = (
    "script,style,noscript,template,svg,math,iframe,object,nav,header,footer,aside,form,button,select,textarea,title"
)
_HTML_BLOCKS = (
    "p,div,br,li,ul,ol,dl,dt,dd,h1,h2,h3,h4,h5,h6,tr,table,caption,section,article,main,blockquote,pre,figure,hr"
)
_BREAK = "\ue000"  # a private-use character stands for the line breaks that tags make: source line breaks are spaces


def html_to_text(page: str) -> str:
    """What a reader sees of a page's body: without scripts, styles, navigation, headers, footers and forms.

    Block elements become lines; entities are resolved. Lexbor parses as browsers do, so broken HTML is no error.
    """
    tree = LexborHTMLParser(page)
    if tree.body is None:
        return ""
    for node in tree.css(_HTML_UNREAD):
        node.decompose()
    for node in tree.css(_HTML_BLOCKS):
        node.insert_before(_BREAK)
        node.insert_after(_BREAK)
    text = re.sub(r"\s+", " ", tree.body.text())
    return re.sub(rf" ?{_BREAK}[ {_BREAK}]*", "\n", text).strip()


# --- Markdown ---

_MARKDOWN = [
    (re.compile(r"\A---\n.*?\n---\n", flags=re.DOTALL), ""),  # front matter
    (re.compile(r"^ {0,3}(```|~~~).*$", flags=re.MULTILINE), ""),
    (re.compile(r"!\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"^ {0,3}\[[^\]]+\]: .*$", flags=re.MULTILINE), ""),  # link targets
    (re.compile(r"^ {0,3}(?:#{1,6} +|(?:> ?)+)", flags=re.MULTILINE), ""),
    (re.compile(r"^ {0,3}(?:[-=_*] *){3,}$", flags=re.MULTILINE), ""),  # rules and underlined headings
    (re.compile(r"^[|: -]*-{3,}[|: -]*$", flags=re.MULTILINE), ""),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)"), r"\1\2"),
    (re.compile(r"(`+)(.+?)\1"), r"\2"),
]


def markdown_to_text(markdown: str) -> str:
    """Markdown without its signs: link and image texts, headings, emphasised words and code stay."""
    for pattern, replacement in _MARKDOWN:
        markdown = pattern.sub(replacement, markdown)
    return html.unescape(_TAG.sub("", markdown))


def strip_markup(text: str, kind: Kind) -> str:
    """Plain text of a document of this kind; a document that is plain text comes back as it is."""
    if kind == "wikitext":
        return wikitext_to_text(text)
    if kind == "html":
        return html_to_text(text)
    return markdown_to_text(text) if kind == "markdown" else text
