"""Which lines of a web page are its own text, and which belong to the site around it?

Own code and not a library because of the numbers in results/ (`recipes/bench/extraction.py`): it tells text from site
nearly as well as trafilatura and much better than resiliparse, and is several times as fast as the former.

One pass over the tree that Lexbor parses makes lines and counts characters, running text and link text below every
block; the rest is arithmetic on those counts. That the density of text and links tells content from boilerplate is
known from Kohlschuetter, Fankhauser and Nejdl (WSDM 2010); to go down to where most of the running text stands, and
the list of telling names, are from Readability (Arc90, Mozilla).
"""

import html
import re
from typing import NamedTuple

from selectolax.lexbor import LexborAttributes, LexborHTMLParser, LexborNode

# Never text, or not shown.
_UNREAD = (
    "script,style,noscript,template,svg,math,iframe,object,button,select,textarea,title,dialog,"
    "i[aria-hidden=true],span[aria-hidden=true],.headerlink,.sr-only,.screen-reader-text,.visually-hidden,.mw-editsection,.noprint"
)
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr li main menu nav ol p pre section summary table tbody td tfoot th thead tr ul".split()
)
_CELLS = frozenset(("td", "th"))
# What a site puts around a text, by its tag, its role, and the words in its class and id.
_CHROME_TAGS = frozenset(("aside", "footer", "form", "header", "menu", "nav"))
_CHROME_ROLES = frozenset(("banner", "complementary", "contentinfo", "dialog", "menu", "navigation", "search"))
_CHROME_NAMES = re.compile(
    # a word of a name: "post-comments", "nav_main"
    r"(?<![^\s_-])(?:nav|navbar|navigation|navlinks?|(?:top|main|sub|site)?menus?|side-?bars?|foot(?:er|line|s)?"
    r"|(?:bread)?crumbs?|comments?|respond|disqus|discussion|shar(?:e|es|ing)|social(?:s|media)?|sharedaddy|addtoany"
    r"|related(?:posts?)?|recommend(?:ed|ations?)?|cookies?|consent|gdpr|newsletters?|subscri(?:be|ption)s?|signup"
    r"|promos?|advert(?:s|isement|ising|orial)?|sponsor(?:ed|s)?|banners?|pop-?ups?|modal|taglist|pagination|pager"
    r"|paging|toolbar|login|masthead|byline|author-?(?:box|bio|info)|bio|copyright|disclaimer|outbrain|taboola"
    r"|teasers?|toc|skip|jump)(?![^\s_-])"
    # the beginning or the end of a word: "commentlist", "leftsidebar"
    r"|(?<![^\s_-])(?:comment|respond|sidebar|footer|breadcrumb|newsletter|cookie|share|social|related|teaser"
    r"|cmp(?:box|-)|onetrust|usercentrics)"
    r"|(?:sidebar|footer|menu|related|comments|sharing|newsletter)(?![^\s_-])"
    # a whole name: "widget", but not "elementor-widget"
    r"|(?<!\S)(?:ads?|ad-\S*|widget|widget[_-]area|widget_\S*|tags|tag-links|author|(?:post-?|entry-?)?meta"
    r"|entry-utility|hidden|invisible|print-only)(?!\S)",
    flags=re.IGNORECASE,
)
_NOT_SHOWN = re.compile("display *: *none")  # or not before a script runs: such blocks are judged like the names above
# Blocks that are never taken for chrome because of their names, where texts stand and not sites.
_TEXT_TAGS = frozenset(("article", "blockquote", "h1", "h2", "h3", "main", "p", "pre"))
# Blocks that go when most of what they say is links.
_LINK_BOXES = frozenset("div dl figure h2 h3 h4 h5 h6 header li ol section table td tr ul".split())
# The search for the main block ends above these.
_WITHIN_A_TEXT = _TEXT_TAGS - {"article", "main"} | frozenset("dd dl li ol table tbody tr ul".split())

# Only for pages that no parser should see.
_TAGS = re.compile(r"<(script|style)\b[^<]*(?:<(?!/?\1\b)[^<]*)*</\1[^<>]*>|<[^<>]*>", flags=re.IGNORECASE)
_OPENING = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)")
_NEVER_CLOSED = frozenset("area br col dd dt hr img input li link meta option p param source td th tr wbr".split())
DEEPEST = 20_000  # elements within elements

RUNNING_TEXT = 60  # characters outside links from which on a line is running text; shorter ones count a quarter
MOST = 0.8  # the main block is the deepest one with this share of a page's running text
CHROME_SHARE = 0.4  # a block with more of the running text than this is not chrome, whatever its name ...
CHROME_TAG_SHARE = 0.7  # ... or its tag (some sites wrap a whole page in a form)
LINKED_TEXT = 200  # with more running text than this, a block that is mostly links stays
INTRODUCTION_LEVELS = 3  # so many levels above the main block, running text that stands before it belongs to it


class _Page(NamedTuple):
    """Blocks in document order (block 0 is the body), and the lines of text directly in them."""

    tags: list[str]
    parents: list[int]
    names: list[tuple[int, str, str]]  # block, role, class and id
    lines: list[tuple[int, str, int]]  # block, text, characters of it that are links


def main_text(page: str) -> str:
    """The lines of a page's own text: no menus, side bars, comments, footers or forms, and no scripts or styles.

    Paragraphs, headings and list items are lines, rows of a table are lines of cells with " | " between them, and
    `pre` keeps its line breaks. Entities are resolved. Lexbor parses as browsers do: broken HTML is no error.
    """
    if _is_too_deep(page):
        return html.unescape(_TAGS.sub("\n", page))
    tree = LexborHTMLParser(page)
    if tree.body is None:
        return ""
    for node in reversed(tree.css(_UNREAD)):  # reversed: a node inside another goes first
        node.decompose()
    content = _read(tree.body)
    alive = _without_chrome(content)
    inside = _main_part(content, alive)
    return _join(content, inside)


def _is_too_deep(page: str) -> bool:
    """Whether so many tags are never closed that parsing takes minutes: its time grows with the square of the depth."""
    if page.count("<") - 2 * page.count("</") < DEEPEST:
        return False
    opened = sum(tag[1].lower() not in _NEVER_CLOSED for tag in _OPENING.finditer(page))
    return opened - page.count("</") > DEEPEST


def _read(body: LexborNode) -> _Page:
    tags, parents, names, lines = ["body"], [-1], [], []
    # node -> 2 * its block + whether it is in a link
    places = {body.mem_id: 0}
    block, pieces, linked = 0, [], 0

    def end_line() -> None:
        nonlocal pieces, linked
        text = "".join(pieces)
        text = text.strip("\n") if tags[block] == "pre" else " ".join(text.split())
        if text and not text.isspace():
            lines.append((block, text, linked))
        pieces, linked = [], 0

    nodes = body.traverse(include_text=True)
    next(nodes)
    for node in nodes:
        tag = node.tag
        if tag == "-text":
            place = places[node.parent.mem_id]
            if place >> 1 != block:
                if pieces:
                    end_line()
                block = place >> 1
            text = node.text_content
            pieces.append(text)
            if place & 1:
                linked += len(text)
        elif tag in _BLOCKS:
            if pieces:
                end_line()
            block = len(tags)
            place = places[node.parent.mem_id]
            places[node.mem_id] = 2 * block + (place & 1)
            tags.append(tag)
            parents.append(place >> 1)
            about = node.attrs
            if about:
                hidden = "hidden" if _is_hidden(about) else ""
                name = f"{about.get('class') or ''} {about.get('id') or ''} {hidden}"
                names.append((block, about.get("role") or "", name))
        elif tag == "br":
            if pieces:
                end_line()
        elif tag and tag[0] not in "-!_":
            place = places[node.parent.mem_id]
            places[node.mem_id] = place | 1 if tag == "a" else place
    if pieces:
        end_line()
    return _Page(tags, parents, names, lines)


def _is_hidden(about: LexborAttributes) -> bool:
    if "hidden" in about or about.get("aria-hidden") == "true":
        return True
    style = about.get("style")
    return bool(style and _NOT_SHOWN.search(style))


def _running_text(text: str, linked: int) -> int:
    """How much of a line is running text, in characters."""
    size = len(text) - 2 * linked
    if size <= 0:
        return 0
    # A Chinese or Japanese character says as much as several letters.
    dense = size >= RUNNING_TEXT // 3 and not text.isascii() and len(text.encode()) - 6 * linked >= 1.5 * RUNNING_TEXT
    return size if size >= RUNNING_TEXT or dense else size // 4


def _sums(amounts: list[int], parents: list[int]) -> list[int]:
    """What a block and all blocks in it have together; parents stand before their children."""
    for block in range(len(amounts) - 1, 0, -1):
        amounts[parents[block]] += amounts[block]
    return amounts


def _without_chrome(page: _Page) -> list[bool]:
    """For every block, whether it is outside all the blocks that are the site's: menus, shares, boxes of links."""
    size = len(page.tags)
    characters, linked, running = [0] * size, [0] * size, [0] * size
    for block, text, links in page.lines:
        characters[block] += len(text)
        linked[block] += links
        running[block] += _running_text(text, links)
    for amounts in (characters, linked, running):
        _sums(amounts, page.parents)
    alive = [True] * size
    for block in range(1, size):
        tag = page.tags[block]
        if tag in _CHROME_TAGS:
            alive[block] = running[block] > CHROME_TAG_SHARE * running[0]
        elif tag in _LINK_BOXES and 2 * linked[block] > characters[block]:
            alive[block] = running[block] >= LINKED_TEXT
    for block, role, name in page.names:
        if running[block] <= CHROME_SHARE * running[0] and page.tags[block] not in _TEXT_TAGS:
            alive[block] = alive[block] and role not in _CHROME_ROLES and not _CHROME_NAMES.search(name)
    for block in range(1, size):
        alive[block] = alive[block] and alive[page.parents[block]]
    return alive


def _main_part(page: _Page, alive: list[bool]) -> list[bool]:
    """For every block, whether it is alive and part of the main block or of its introduction."""
    size, parents = len(page.tags), page.parents
    running, linked = [0] * size, [0] * size
    for block, text, links in page.lines:
        if alive[block]:
            running[block] += _running_text(text, links)
            linked[block] += links
    _sums(running, parents)
    _sums(linked, parents)
    way_down = {parents[block]: block for block in range(1, size) if running[block] > MOST * running[0]}
    main = 0
    while main in way_down and page.tags[way_down[main]] not in _WITHIN_A_TEXT:
        main = way_down[main]
    inside = [block == main for block in range(size)]
    above = main
    for _ in range(INTRODUCTION_LEVELS):
        above = parents[above]
        if above < 0:
            break
        for block in range(above + 1, main):
            if parents[block] == above and RUNNING_TEXT <= running[block] < running[main] / 2:
                inside[block] = linked[block] < running[block] / 3
    for block in range(1, size):
        inside[block] = alive[block] and (inside[block] or inside[parents[block]])
    return inside


def _join(page: _Page, inside: list[bool]) -> str:
    out: list[str] = []
    row_before = cell_before = None
    for block, text, _ in page.lines:
        if inside[block]:
            row = page.parents[block] if page.tags[block] in _CELLS else None
            if row is not None and row == row_before and block != cell_before:
                out[-1] += f" | {text}"
            else:
                out.append(text)
            row_before, cell_before = row, block
    return "\n".join(out)
