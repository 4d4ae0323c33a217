"""What do tags such as B-person and I-person say about the words they stand on?"""

import re
from collections.abc import Iterable, Sequence

# B-egin, I-nside and O-utside; E-nd and S-ingle of IOBES, which BILOU calls L-ast and U-nit.
_OF_AN_ENTITY = re.compile(r"O|[BIESLU]-.+", re.DOTALL)


def marks_entities(names: Iterable[str]) -> bool:
    """Whether tags mark entities (O, B-person, I-person, ...) rather than name each word's class (NOUN, VERB)."""
    names = set(names)
    return len(names | {"O"}) > 1 and all(map(_OF_AN_ENTITY.fullmatch, names))


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sentence as `(type, first word, one past its last word)`, in order.

    Read as conlleval and seqeval (not strict) read them, in any of IOB1, IOB2, IOBES and BILOU: an I-person that
    continues no person begins one.
    """
    found: list[tuple[str, int, int]] = []
    kind, start = None, 0  # of the entity that is open
    for place, tag in enumerate(tags):
        prefix, _, named = tag.partition("-")
        if kind is not None and not (prefix in {"I", "E", "L"} and named == kind):
            found.append((kind, start, place))
            kind = None
        if kind is None and prefix != "O":
            kind, start = named, place
        if kind is not None and prefix in {"E", "S", "L", "U"}:
            found.append((kind, start, place + 1))
            kind = None
    if kind is not None:
        found.append((kind, start, len(tags)))
    return found


def to_iob2(tags: Sequence[str]) -> list[str]:
    """The same entities as B-type, I-type and O: one scheme to learn, and no entity that begins with I-."""
    written = ["O"] * len(tags)
    for kind, start, end in entities(tags):
        written[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return written
