"""How much personal data does a detector find, and how much else does it take for it?

A generated corpus with gold spans: templates (pii_templates.yaml) filled with made-up people of ten countries (faker),
ids with right checksums (python-stdnum), tokens of the shapes their providers document, and strangers: order numbers,
ISBNs, dates, versions, coordinates, hashes, and cards and IBANs with a wrong check digit. The same seed gives the same
documents as long as faker's version is the same.
"""

import ipaddress
import random
import re
import string
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

import yaml

from lm_recipes.text.pii import TYPES, Span

# locale -> kinds of national id; kind -> the python-stdnum module that checks it, if it has a checksum
LOCALES = {
    "en_US": ("ssn",),
    "en_GB": ("nino", "nhs"),
    "de_DE": ("idnr",),
    "fr_FR": ("nir",),
    "es_ES": ("nif", "nie"),
    "it_IT": ("codicefiscale",),
    "pl_PL": ("pesel",),
    "nl_NL": ("bsn",),
    "pt_BR": ("cpf",),
    "en_IN": ("aadhaar", "pan"),
}
ID_KINDS = {
    "ssn": "us.ssn",
    "nino": None,
    "nhs": "gb.nhs",
    "idnr": "de.idnr",
    "nir": "fr.nir",
    "nif": "es.dni",
    "nie": "es.nie",
    "codicefiscale": "it.codicefiscale",
    "pesel": "pl.pesel",
    "bsn": "nl.bsn",
    "cpf": "br.cpf",
    "aadhaar": "in_.aadhaar",
    "pan": "in_.pan",
}
GOLD = {
    "phone": "phone",
    "phone_alone": "phone",
    "email": "email",
    "card": "credit_card",
    "iban": "iban",
    "ip": "ip_address",
    "ip6": "ip_address",
    "id": "national_id",
    "token": "secret",
    "key": "secret",
    "password": "secret",
    "url_password": "secret",
    "private_key": "secret",
}
_NOW = datetime(2025, 1, 1)  # faker's dates end today, and another day would make other documents
_FIELD = re.compile(r"\{([a-z_0-9]+)\}")


class Document(NamedTuple):
    """A generated text, where its personal data stand, and what it was made from."""

    text: str
    spans: list[Span]
    locale: str
    format: str


def generate(number: int, seed: int, split: str) -> list[Document]:
    """`number` documents of the `dev` or `test` templates, every format in every locale in turn."""
    from faker import Faker

    settings = yaml.safe_load(files(__package__).joinpath("pii_templates.yaml").read_text(encoding="utf-8"))
    fakers = {locale: Faker(locale) for locale in LOCALES}
    documents = []
    for count in range(number):
        locale = list(LOCALES)[count % len(LOCALES)]
        format = list(settings[split])[count // len(LOCALES) % len(settings[split])]
        rng = random.Random(f"{split} {seed} {count}")
        fakers[locale].seed_instance(rng.getrandbits(64))
        kind = rng.choice(LOCALES[locale])
        words = settings["labels"][split][locale[:2]], settings["id_words"][split][kind]
        fill = _fields(fakers[locale], rng, kind, *words)
        documents.append(Document(*_render(settings[split][format], fill), locale, format))
    return documents


def _render(template: str, fill: dict[str, Callable[[], str]]) -> tuple[str, list[Span]]:
    parts, spans, position, length = [], [], 0, 0
    for field in _FIELD.finditer(template):
        value = fill[field[1]]()
        parts += (template[position : field.start()], value)
        length += len(parts[-2])
        if field[1] in GOLD:
            spans.append(Span(length, length + len(value), GOLD[field[1]]))
        length += len(value)
        position = field.end()
    return "".join(parts) + template[position:], spans


def _fields(fake, rng: random.Random, kind: str, tel: list[str], id_words: list[str]) -> dict[str, Callable[[], str]]:
    """Field name -> what writes one value of it."""

    def digits(count: int) -> str:
        return rng.choice("123456789") + "".join(rng.choices(string.digits, k=count - 1))

    def wrong(value: str) -> str:
        return value[:-1] + str((int(value[-1]) + rng.randint(1, 9)) % 10) if value[-1].isdigit() else wrong(value[:-1])

    def order() -> str:
        plain = digits(rng.randint(6, 14))
        return rng.choice(
            [plain, plain, f"ORD-{plain}", f"{digits(3)}-{digits(7)}-{digits(7)}", f"{digits(4)}-{digits(6)}"]
        )

    def date() -> str:
        return fake.date_object(end_datetime=_NOW).strftime(
            rng.choice(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %B %Y", "%d-%m-%y"])
        )

    def ip6() -> str:
        groups = [rng.choice(["2a00", "2a02", "2600", "2607", "2401"]), *(f"{rng.getrandbits(16):x}" for _ in range(7))]
        if rng.random() < 0.5:
            groups[4:7] = ["0", "0", "0"]
        return str(ipaddress.ip_address(":".join(groups)))

    def thousands() -> str:
        return rng.choice([",", ".", " "]).join([digits(rng.randint(1, 3)), digits(3), digits(3)])

    start = rng.randint(1500, 2010)
    return {
        "name": fake.name,
        "address": lambda: fake.address().replace("\n", ", "),
        "company": fake.company,
        "sentence": fake.sentence,
        "email": lambda: rng.choice([fake.email, fake.company_email, lambda: _tagged(fake.email())])(),
        "tel": lambda: rng.choice(tel),
        "phone": fake.phone_number,
        "phone_alone": fake.phone_number,
        "card": lambda: _card(fake, rng),
        "iban": lambda: _iban(fake, rng),
        "ip": lambda: _global_address(fake),
        "ip6": ip6,
        "id": lambda: national_id(fake, rng, kind),
        "id_word": lambda: rng.choice(id_words),
        "token": lambda: _token(rng),
        "key": lambda: _characters(rng, rng.choice([32, 40]), rng.choice(["hex", "base62", "base62"])),
        "password": lambda: fake.password(length=rng.randint(9, 16)),
        "url_password": lambda: _characters(rng, 14, "base62"),
        "private_key": lambda: _private_key(rng),
        "order": order,
        "isbn": lambda: rng.choice([fake.isbn10, fake.isbn13])(),
        "date": date,
        "time": lambda: fake.time(end_datetime=_NOW),
        "timestamp": lambda: rng.choice(
            [fake.iso8601(end_datetime=_NOW), fake.date_time(end_datetime=_NOW).strftime("%b %d %H:%M:%S"), digits(10)]
        ),
        "version": lambda: ".".join(
            str(rng.randint(0, top)) for top in rng.choice([(12, 9, 9, 9), (9, 20, 9), (130, 0, 6999, 200)])
        ),
        "hash": lambda: _characters(rng, rng.choice([40, 64]), "hex"),
        "uuid": fake.uuid4,
        "price": lambda: rng.choice(["€{}", "${}", "{} EUR", "£ {}"]).format(f"{rng.uniform(1, 99999):,.2f}"),
        "badcard": lambda: wrong(_card(fake, rng)),
        "badiban": lambda: wrong(_iban(fake, rng)),
        "pages": lambda: f"{(page := rng.randint(100, 2400))}-{page + rng.randint(3, 40)}",
        "years": lambda: f"{start}-{start + rng.randint(1, 9)}" + rng.choice(["", "", f" {start + 10}"]),
        "coords": lambda: f"{rng.uniform(-90, 90):.6f}, {rng.uniform(-180, 180):.6f}",
        "sci": lambda: f"{rng.uniform(1, 10):.8f}e{rng.randint(-30, 30)}",
        "decimals": lambda: repr(rng.random()),
        "thousands": thousands,
        "pid": lambda: digits(rng.randint(3, 6)),
    }


def _tagged(address: str) -> str:
    return address.replace("@", "+list@", 1)


def _card(fake, rng: random.Random) -> str:
    number = fake.credit_card_number(rng.choice(["visa16", "visa16", "mastercard", "amex", "discover", "jcb16"]))
    gap = rng.choice(["", " ", "-"])
    cuts = (0, 4, 10, 15) if len(number) == 15 else (0, 4, 8, 12, 16)
    return gap.join(number[a:b] for a, b in pairwise(cuts))


def _iban(fake, rng: random.Random) -> str:
    number = fake.iban()
    while not _is_iban(number):  # faker's own are of the wrong length in some locales
        number = f"DE{rng.randrange(10**20):020}"
    return rng.choice([number, " ".join(number[i : i + 4] for i in range(0, len(number), 4))])


def _is_iban(number: str) -> bool:
    from stdnum import iban

    try:
        return bool(iban.validate(number, check_country=False))
    except iban.ValidationError:
        return False


def _global_address(fake) -> str:
    while not ipaddress.ip_address(address := fake.ipv4_public()).is_global:
        pass
    return address


def national_id(fake, rng: random.Random, kind: str) -> str:
    """A valid id of one of ID_KINDS, written in one of the ways people write it."""

    def draw(digits: int) -> str:
        return f"{rng.randrange(10**digits):0{digits}}"

    if kind == "nino":
        number = rng.choice(["AB", "CE", "JK", "PL", "WM"]) + draw(6) + rng.choice("ABCD")
        return rng.choice([number, " ".join((number[:2], number[2:4], number[4:6], number[6:8], number[8:]))])
    sources = {
        "ssn": fake.ssn,
        "nhs": lambda: draw(10),
        "idnr": lambda: draw(11),
        "aadhaar": lambda: draw(12),
        "pan": lambda: "".join(rng.choices(string.ascii_uppercase, k=5)) + draw(4) + rng.choice(string.ascii_uppercase),
        # faker draws these two from the process's own generator
        "nif": lambda: draw(8) + rng.choice(string.ascii_uppercase),
        "nie": lambda: rng.choice("XYZ") + draw(7) + rng.choice(string.ascii_uppercase),
        "pesel": lambda: fake.pesel(date_of_birth=fake.date_time(end_datetime=_NOW)),
        "nir": fake.ssn,
        "codicefiscale": fake.ssn,
        "bsn": fake.ssn,
    }
    source = sources.get(kind) or getattr(fake, kind)
    valid = import_module(f"stdnum.{ID_KINDS[kind]}").is_valid
    while not valid(number := source()):
        pass
    groups = {"nhs": (3, 6), "idnr": (2, 5, 8), "aadhaar": (4, 8), "nir": (1, 3, 5, 7, 10, 13)}.get(kind, ())
    cuts = (0, *groups, len(number))
    spaced = " ".join(number[a:b] for a, b in pairwise(cuts))
    return rng.choice([number, spaced])


def _characters(rng: random.Random, count: int, alphabet: str) -> str:
    letters = {"hex": "0123456789abcdef", "base62": string.ascii_letters + string.digits}
    letters["base64url"] = letters["base62"] + "-_"
    return "".join(rng.choices(letters[alphabet], k=count))


def _token(rng: random.Random) -> str:
    """A token of one of the shapes that tell themselves; none was ever issued."""
    base62, url = (lambda n: _characters(rng, n, "base62")), (lambda n: _characters(rng, n, "base64url"))
    return rng.choice(
        [
            lambda: "AKIA" + "".join(rng.choices(string.ascii_uppercase + "234567", k=16)),
            lambda: rng.choice(["ghp_", "gho_", "ghs_"]) + base62(36),
            lambda: "github_pat_" + base62(22) + "_" + base62(59),
            lambda: f"xoxb-{rng.randrange(10**11)}-{rng.randrange(10**12)}-{base62(24)}",
            lambda: "AIza" + url(35),
            lambda: "sk-" + base62(48),
            lambda: "sk-proj-" + url(60),
            lambda: "sk-ant-api03-" + url(80),
            lambda: "sk_live_" + base62(24),
            lambda: f"eyJ{base62(33)}.eyJ{base62(60)}.{url(43)}",
            lambda: "npm_" + base62(36),
            lambda: "pypi-AgEIcHlwaS5vcmc" + url(120),
            lambda: "hf_" + base62(34),
            lambda: "glpat-" + url(20),
        ]
    )()


def _private_key(rng: random.Random) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    lines = "\n".join(_characters(rng, 64, "base62") for _ in range(12))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def score(documents: list[Document], found: list[list[Span]]) -> dict[str, dict]:
    """Per type, per locale and over all: recall, precision and what they are counted from.

    A gold span is recalled when found spans of its type cover all of it; it is `removed` when found spans of any
    types do. A found span is precise when it overlaps a gold span of its type. None where there is nothing to count.

    Args:
        found: one list of spans per document.
    """
    counts: dict[str, dict[str, int]] = {}
    for document, spans in zip(documents, found, strict=True):
        for gold in document.spans:
            same = [span for span in spans if span.type == gold.type]
            for row in (gold.type, document.locale, "all"):
                tally = counts.setdefault(row, dict.fromkeys(("gold", "recalled", "removed", "found", "precise"), 0))
                tally["gold"] += 1
                tally["recalled"] += _covers(same, gold)
                tally["removed"] += _covers(spans, gold)
        for span in spans:
            precise = any(span.type == g.type and span.start < g.end and g.start < span.end for g in document.spans)
            for row in (span.type, document.locale, "all"):
                tally = counts.setdefault(row, dict.fromkeys(("gold", "recalled", "removed", "found", "precise"), 0))
                tally["found"] += 1
                tally["precise"] += precise
    rows = [row for row in (*TYPES, *LOCALES, "all") if row in counts]
    return {row: _rates(counts[row]) for row in rows}


def _rates(tally: dict[str, int]) -> dict:
    gold, found = tally["gold"], tally["found"]
    return {
        "recall": tally["recalled"] / gold if gold else None,
        "precision": tally["precise"] / found if found else None,
        "removed": tally["removed"] / gold if gold else None,
        "gold_spans": gold,
        "found_spans": found,
    }


def _covers(spans: list[Span], gold: Span) -> bool:
    position = gold.start
    for start, end, _ in sorted(spans):
        if start <= position < end:
            position = end
    return position >= gold.end
