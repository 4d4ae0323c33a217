"""What is a document before stage 1 has touched it?"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "html", "wikitext", "markdown"]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One document as its source holds it; stage 1 strips the markup that `kind` names."""

    id: str
    text: str
    kind: Kind = "text"
