"""Which parts of a document identify or endanger a person, and what stands in their place?

`scrub` replaces e-mail and IP addresses, phone and card numbers, IBANs, national ids and secrets by `[EMAIL]`,
`[PHONE]` and so on. Shapes follow presidio's pattern recognisers and the providers' documentation; checksums are
python-stdnum's. What is a name, a place or a birthday needs a model and is not looked for.

How it stays fast: text without `@`, without a cluster of digits, without `key = value` and without the first letters of
a known token is scanned by plain substring searches and two regular expressions, and by nothing else. Only the
surroundings of a cluster of digits are looked at closely.
"""

import re
from collections.abc import Iterator
from math import log2
from typing import NamedTuple

from lm_recipes.text.pii_numbers import RECOGNISERS, windows
from lm_recipes.text.settings import PII_TYPES as TYPES


class Span(NamedTuple):
    """`text[start:end]` is of `type`, one of TYPES."""

    start: int
    end: int
    type: str


def scrub(text: str, types: tuple[str, ...] = TYPES) -> tuple[str, dict[str, int]]:
    """Replace what is found by `[TYPE]`; the text, and how many of each type were replaced (types found only).

    Idempotent, because it repeats until nothing is found: a placeholder is shorter than what it replaces, so a
    number may come to stand close to a word that explains it. Each round leaves less text outside placeholders.
    """
    counts: dict[str, int] = {}
    while spans := find(text, types):
        parts, position = [], 0
        for start, end, type in spans:
            counts[type] = counts.get(type, 0) + 1
            parts += (text[position:start], f"[{type.upper()}]")
            position = end
        text = "".join(parts) + text[position:]
    return text, counts


def find(text: str, types: tuple[str, ...] = TYPES) -> list[Span]:
    """What one look finds, in order of position, without overlaps."""
    spans: list[Span] = []
    if "secret" in types:
        spans += (Span(start, end, "secret") for start, end in _secrets(text))
    if "email" in types and "@" in text:
        spans += (Span(start, end, "email") for start, end in _emails(text))
    numeric = [(type, RECOGNISERS[type]) for type in types if type in RECOGNISERS]
    for start, end in windows(text) if numeric else ():
        for type, recognise in numeric:
            spans += (Span(*where, type) for where in recognise(text, start, end))
    if len(spans) < 2:
        return spans
    kept: list[Span] = []
    for span in sorted(spans):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
        elif TYPES.index(span.type) < TYPES.index(kept[-1].type):
            kept[-1] = span
    return kept


# --- e-mail -----------------------------------------------------------------------------------------------------------

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@(])")
# icon@2x.png
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".css", ".js", ".json", ".html")


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """RFC 5322's dot-atom before the `@`, letters of any script, and a domain with a top level after it."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.search(text, max(0, at - 64), at)
        domain = _DOMAIN.match(text, at + 1) if local else None
        if domain and local[0].strip(".") != "git" and not domain[0].lower().endswith(_FILES):
            name = local[0].rpartition("//")[2].rpartition("=")[2].lstrip("./'`{|*")
            if name:
                yield at - len(name), domain.end()
        at = text.find("@", at + 1)


# --- secrets ----------------------------------------------------------------------------------------------------------

# (one of these must be in the text, the shape): by the providers' documentation and the rules of gitleaks.
_TOKENS = [
    (literals.split(), re.compile(rf"(?<![A-Za-z0-9_-])(?:{shape})"))
    for literals, shape in (
        ("AKIA ASIA", r"A[KS]IA[A-Z2-7]{16}(?!\w)"),
        ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"gh[pousr]_\w{36,255}|github_pat_\w{50,}"),
        ("glpat-", r"glpat-[\w-]{20,}"),
        ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
        ("hooks.slack.com", r"https://hooks\.slack\.com/services/[\w/]{20,}"),
        ("AIza ya29. GOCSPX-", r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{24,}"),
        ("sk-", r"sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{20,}"),
        ("k_live_ k_test_ whsec_", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"),
        ("eyJ", r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),
        ("npm_ hf_", r"npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,}"),
        ("pypi-", r"pypi-[\w-]{50,}"),
        ("SG.", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
        ("shpat_ shpss_ dop_v1_", r"shp(?:at|ss)_[a-fA-F0-9]{32}|dop_v1_[a-f0-9]{64}"),
        ("earer ", r"[Bb]earer (?=[\w.~+/-]*[0-9])[\w.~+/-]{20,}=*"),
    )
]
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----)[\s\S])*-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s]*)"
)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/:@\[\]]{0,64}:[^\s/@\[\]]{3,128}(?=@)")
_ASSIGNMENT = re.compile(r"[:=]>?[\"'`\s]{0,3}(?=([^\s\"'`<>,;\[\]=:][^\s\"'`<>,;\[\]]{5,511}))")
_PASSWORD_IS = re.compile(r"(?:assword is:?|\blogin \S{1,128} password) [\"'`]?([^\s\"'`<>,;\[\]]{6,})")
_PASSWORD_KEY = re.compile(
    r"(?:passw(?:or)?d|passwort|passwd|\bpwd|_pwd|passphrase|kennwort|contrase[nñ]a|mot de passe|senha|has[lł]o"
    r"|wachtwoord)[\"'`\])]*(?:\W{0,6}(?:default|value)[\"'`]*)?\s*$",
    re.IGNORECASE,
)
_TOKEN_KEY = re.compile(
    r"(?:secret|token|(?:api|access|secret|private|auth|client|encryption|signing|account|master)[_ -]?key(?:[_ -]id)?"
    r"|credentials?)[\"'`\])]*(?:\W{0,6}(?:default|value)[\"'`]*)?\s*$",
    re.IGNORECASE,
)
# What stands for a value that is elsewhere, quoted or not; and code that fetches one.
_VARIABLE = re.compile(
    r"\$\{|\$\(.*\)|\$[A-Z_]+$|\{\{|\{\w+\}|%\(\w+\)|%\w+%$|(\W)\1\1|(?:your|example|change|x{4})", re.I
)
_CALL = re.compile(r"[A-Za-z_][\w.]{2,}\((?:[\"'`]|\S*\))|(?:self|os|process|config|settings|env|args|\w+Config)\.")


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    """Tokens known by their first letters, private keys, credentials in addresses, and `password = ...`."""
    underscore = "_" in text  # rare in prose; half of the literals have one
    for literals, shape in _TOKENS:
        if (underscore or "_" not in literals[0]) and any(literal in text for literal in literals):
            yield from (match.span() for match in shape.finditer(text))
    if "-----BEGIN" in text:
        yield from (match.span() for match in _PRIVATE_KEY.finditer(text))
    if "://" in text and "@" in text:
        yield from (match.span() for match in _CREDENTIALS.finditer(text))
    if "assword" in text:
        yield from (match.span(1) for match in _PASSWORD_IS.finditer(text) if _is_password(match[1]))
    for match in _ASSIGNMENT.finditer(text):
        key = text[max(0, match.start() - 40) : match.start()]
        is_secret = _is_password if _PASSWORD_KEY.search(key) else _is_token if _TOKEN_KEY.search(key) else None
        if not is_secret or not is_secret(match[1]) or _VARIABLE.match(match[1]):
            continue
        if match[0][-1] in "\"'`" or not _CALL.match(text, match.start(1)):
            yield match.span(1)


def _is_password(value: str) -> bool:
    """Letters with digits or signs: what a person chose, not a word or a type."""
    return bool(re.search(r"[^\W\d_]", value) and re.search(r"[\d!@#$%^&*+?~]", value.rstrip(".!?)")))


def _is_token(value: str) -> bool:
    """16 characters and more, with digits, and at least 3 bits of entropy in each: what a machine drew."""
    if len(value) < 16 or not re.search(r"\d", value):
        return False
    shares = [value.count(character) / len(value) for character in set(value)]
    return -sum(share * log2(share) for share in shares) >= 3
