"""Which web pages are there whose own text is known?

Each set is out of a pinned package archive (`demo.py`). The pages belong to their publishers: they are here to measure
extraction with, not to train on. The documentation pages are under the MIT licence.
"""

import ast
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser

from lm_recipes.sources.demo import demo_archive
from lm_recipes.sources.encodings import decode_html


class KnownPage(NamedTuple):
    """A page, and what a good extractor makes of it: all of `text`, or at least all of `keep` and none of `drop`."""

    name: str
    html: str
    text: str | None = None
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    @property
    def is_held_out(self) -> bool:
        """Half of the pages. The rules of `text/webpage.py` were written with the others in view."""
        return sha256(self.name.encode()).digest()[0] % 2 == 1


def web_pages() -> list[KnownPage]:
    """83 pages (German, English, French, Chinese ...) with 209 passages that belong to their text and 219 that do not.

    People wrote the passages down as tests of trafilatura, which therefore does as well on these pages as it can. The
    passages that those tests leave out, because trafilatura failed, are among them here.
    """
    with _files("demo:web-pages") as files:
        tests = files("tests/realworld_tests.py").decode()
        names = dict(re.findall(r"^'(http[^\n]*?)' *: *'([^']+)'", tests, flags=re.MULTILINE))
        pages: dict[str, tuple[list[str], list[str]]] = {}
        passages = None
        for line in tests.splitlines():
            if line.lstrip().startswith("#"):
                continue
            if loaded := re.search(r"load_mock_page\('([^']+)'", line):
                passages = pages.setdefault(names.get(loaded[1], ""), ([], []))
            for passage, is_absent in re.findall(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\") (not )?in result", line):
                if passages and "<" not in passage:  # not those on XML
                    passages[bool(is_absent)].append(ast.literal_eval(passage))
        return [
            KnownPage(name, decode_html(files(f"tests/cache/{name}")), keep=tuple(keep), drop=tuple(drop))
            for name, (keep, drop) in sorted(pages.items())
            if name and (keep or drop)
        ]


def article_pages() -> list[KnownPage]:
    """28 articles of 12 sites, as a browser showed them in 2026, with the part of the page that is the article.

    The parts were made by a program and looked through; in a few there is some of the site left.
    """
    with _files("demo:article-pages") as files:
        return [
            KnownPage(
                name.split("/")[-3], decode_html(files(name)), _all_text(files(name.replace("raw.", "expected.")))
            )
            for name in files.names
            if name.endswith("/raw.html")
        ]


def documentation_pages() -> list[KnownPage]:
    """181 pages of SQLAlchemy's documentation; their text is what stands in the template's own main element."""
    pages = []
    with _files("demo:documentation-pages") as files:
        for name in files.names:
            if re.search(r"/doc/(?!_modules/|genindex|search|notfound).*\.html$", f"/{name}"):
                page = files(name)
                pages.append(KnownPage(name, decode_html(page), _all_text(page, "#docs-body")))
    return pages


PAGE_SETS: dict[str, Callable[[], list[KnownPage]]] = {
    "web pages, held out": lambda: [page for page in web_pages() if page.is_held_out],
    "web pages": lambda: [page for page in web_pages() if not page.is_held_out],
    "articles": article_pages,
    "documentation": documentation_pages,
}


def _all_text(page: bytes, element: str = "body") -> str:
    tree = LexborHTMLParser(decode_html(page))
    for node in reversed(tree.css("script,style,noscript,template,.headerlink")):
        node.decompose()
    return tree.css_first(element).text(separator=" ")


@contextmanager
def _files(demo: str) -> Iterator[Callable[[str], bytes]]:
    """A function from a name to the bytes of a file in a source distribution; its attribute `names` has the names."""
    with tarfile.open(demo_archive(demo)) as archive:
        root = archive.getnames()[0].split("/")[0]

        def read(name: str) -> bytes:
            return archive.extractfile(f"{root}/{name}").read()

        read.names = sorted(name.removeprefix(f"{root}/") for name in archive.getnames())
        yield read
