"""Which pages does a MediaWiki XML dump hold?"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import BinaryIO

from lm_recipes.sources.documents import RawDocument, Unreadable


def read_pages(stream: BinaryIO, name: str, cut_off: bool = False) -> Iterator[RawDocument]:
    """The main-namespace pages of a dump, redirects included, one at a time; ids are `<page id> <title>`.

    Args:
        name: what to call the dump in an error.
        cut_off: the dump is known to end in mid-page (enwik8 is 10^8 bytes): that last page is left out.

    Raises:
        Unreadable: for XML that is not well formed, with its line; the pages before it have been given.
    """
    namespaces: set[str] = set()
    events = ElementTree.iterparse(stream, events=("start", "end"))
    try:
        _, root = next(events)
        for event, element in events:
            tag = element.tag.rpartition("}")[2]
            if event == "end" and tag == "namespace" and element.text:
                namespaces.add(element.text)
            elif event == "end" and tag == "page":
                if _in_main_namespace(element, namespaces):
                    title, text = element.findtext("{*}title"), element.findtext("{*}revision/{*}text")
                    yield RawDocument(f"{element.findtext('{*}id')} {title}", text or "", "wikitext")
                root.clear()  # memory stays that of one page
    except ElementTree.ParseError as error:
        if not cut_off:
            raise Unreadable(f"{name}: line {error.position[0]}", f"not well-formed XML ({error})") from error


def _in_main_namespace(page: ElementTree.Element, namespaces: set[str]) -> bool:
    """Newer dumps number a page's namespace. In older ones it is the title's prefix, if the dump's header
    lists it ("Wikipedia:Sandbox"; the film title "Blade Runner 2: ..." is an article)."""
    number = page.findtext("{*}ns")
    if number is not None:
        return number == "0"
    prefix, colon, _ = page.findtext("{*}title", "").partition(":")
    return not (colon and prefix in namespaces)
