"""What is a document before stage 1 has touched it, and what becomes of one that cannot be read?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from lm_recipes.launch import UserError

Kind = Literal["text", "html", "wikitext", "markdown"]

# What a reader does with a part of its input that holds no document: told where (file and row) and why.
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as its source holds it; stage 1 strips the markup that `kind` names."""

    id: str
    text: str
    kind: Kind = "text"


class Unreadable(Exception):
    """A file, or the rest of one, cannot be read: `Unreadable(where, reason)`."""


def refuse(where: str, reason: str) -> NoReturn:
    """The `Report` of whoever cannot go on without every document."""
    raise UserError(f"{where}: {reason}")
