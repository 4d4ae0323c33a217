"""Which numbers of a text are a person's: phones, cards, IBANs, IP addresses, national ids?

A shape, a checksum where there is one, and the word or column head that explains the number where there is none. Only
the surroundings of a cluster of digits (`windows`) are looked at.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import import_module

from lm_recipes.text.settings import PII_TYPES

# --- where to look ----------------------------------------------------------------------------------------------------

_GAP = r"[ \xa0\u202f.\-\u2010\u2011/()]"
# Six digits with little between them, four numbers with dots, two to four digits between capitals, or the first
# group of a global IPv6 address.
_CLUSTER = re.compile(
    rf"[0-9](?:(?:{_GAP}{{0,2}}[0-9]){{5,}}|[0-9]{{0,2}}(?:\.[0-9]{{1,3}}){{3}}|[0-9]{{1,3}}[A-Z]|[0-9a-fA-F]{{3}}:)"
)
_YEAR, _DAY = r"(?:1[5-9]|20)\d\d", r"(?:0?[1-9]|[12]\d|3[01])"
_DATES = re.compile(rf"{_YEAR}[/ .()-]{{1,2}}(?:{_YEAR}|\d\d?[/.-]\d\d?)|{_DAY}[/.-]{_DAY}[/.-]{_YEAR}")
_REST_OF_WORD = re.compile(r"[\w+/=-]*")


def windows(text: str) -> Iterator[tuple[int, int]]:
    """The surroundings of clusters of digits, wide enough for an IBAN or a tax code; merged where they meet."""
    start, end = 0, -1
    for cluster in _CLUSTER.finditer(text):
        if _DATES.fullmatch(cluster[0]):
            continue
        left, right = cluster.span()
        if left - 24 > end:
            if end >= 0:
                yield start, end
            start = max(0, left - 24)
        if right + 32 > end:
            end = _REST_OF_WORD.match(text, min(len(text), right + 32)).end()
    if end >= 0:
        yield start, end


# --- the word that explains a number ----------------------------------------------------------------------------------

_WORDS = {
    "phone": r"phone(?! (?:network|compan|line|system))|telef[oó]|t[ée]l[ée]ph|\bt[ée]l\b|\btelf?\b|\btlf"
    r"|(?<!auto)(?<!i[nm])mobil|m[oó]vil|\bmob\b|\bcell? ?(?=\W*$)|celular|cellulare"
    r"|\b(?:tele)?fax|\bfaks|t[ée]l[ée]copie|\bph\b|\bfon[eo]?\b|\bgsm\b"
    r"|\b(?:my|your|his|her|their) number|whats ?app|\bcall\b(?! cent)|\bdial\b|\bring\b|\bsms\b|\bcontacts?\b|landline"
    r"|\b(?:text|reach) (?:me|us|him|her|them|you)|reach(?:ed|able)? (?:me |him |her |us |them )?(?:at|on|under)\b"
    r"|hotline|\bhandy|handy\b|rufnummer|durchwahl|\bprivatn|fernsprech|festnetz|erreich|anruf|\brufen"
    r"|\bappel|portable|joignable|ll[aá]m[ae]|\blig(?:ar?|am|ue)\b|telem[oó]vel|contato|chiama|recapito"
    r"|\bkom\.|kom[oó]rk|dzwo[nń]|\bbel\b|\bbellen",
    "credit_card": r"card|\bcc\b|visa\b|amex|karte\b|carte\b|tarjeta|carta\b|kart[aęy]\b|kaart|cart[aã]o",
    "us.ssn": r"\bssn|\bss ?(?:#|n[ou])|social.?security|soc\.? sec",
    "gb.nhs": r"\bnhs",
    "gb.nino": r"national insurance|nat\w*\.? ins|\bni n|\bnino",
    "pl.pesel": r"pesel",
    "nl.bsn": r"\bbsn\b|burger.?service|sofi-?num",
    "de.idnr": r"steuer-?(?:id|ident)|\bidnr|identifikationsnummer|tax.?id|\btin\b",
    "in_.aadhaar": r"aadha+r|\buidai|\buid\b",
    "in_.pan": r"\bpan\b|permanent account",
    "br.cpf": r"\bcpf\b|\bc\.p\.f\.",
    "ca.sin": r"\bsin\b|social insurance",
    "fr.nir": r"\bnir\b|s[ée]curit[ée] sociale|\bs[ée]cu\b",
    "other": r"order|invoice|isbn|issn|\bdoi\b|\bref(?:s|\b|eren)|ticket|tracking|\bsku\b|serial|\bpart\b|\bitem"
    r"|product|article|commande|facture|bestell|rechnung|auftrag|pedido|factura|fatura|fattura|ordine|zam[oó]wi|faktur"
    r"|factuur|\bnota\b|version|timestamp|\bpp?\.|\bpages?\b|\bvol\b|\blat\b|\blon|coord|\bgps\b|patent|\bzip|\bplz\b"
    r"|\bupc\b|\bean\b|barcode|\bimei\b|\bmodel\b|account|konto|\bbuild\b|\bbatch|\blot\b|\b(?:grant|case|claim)\b"
    r"|#(?=\W*$)|\bno\.|\bnr\b|\bn[°º]",
}
_QUALIFIER = r"(?:[ _.-]{0,2}(?:(?:card|id|sob o|no|nr)\b\.?|n[°º]|num\w*|#)){0,3}"
_LABEL = re.compile(
    "|".join(rf"(?P<_{number}>(?:{words})\w*{_QUALIFIER})" for number, words in enumerate(_WORDS.values()))
)
_LABELS = list(_WORDS)
_PLACEHOLDER = re.compile(r"\[(?:" + "|".join(type.upper() for type in PII_TYPES) + r")\]")
_TIME = re.compile(r"\d\d?:\d\d(?::\d\d)?")
_LETTER = re.compile(r"[^\W\d_]")
_NO_HEAD = re.compile(r"[0-9{:]")
_QUOTED = re.compile(r'"[^"\n]*"')
LABEL_CHARACTERS = 80
LINE_CHARACTERS = 2_000  # longer lines are no table rows, and counting in them would cost


def _labels(text: str, start: int, close: bool = False) -> tuple[str, ...]:
    """What the number at `start` may be said to be, the nearest word last: by the head of its column, by its line, or,
    if that tells nothing, by a question in the lines before it.

    That question, and with `close` any word, must not explain another number: no digit may stand in between.
    """
    before = _PLACEHOLDER.sub(" 0 ", text[max(0, start - LABEL_CHARACTERS) : start]).lower()
    line = before.rpartition("\n")[2][-LABEL_CHARACTERS // 2 :]
    before = _TIME.sub("", before)
    before = before[max(map(before.rfind, "0123456789")) + 1 :]
    labels = _labels_in(_column_head(text, start) or (before[-LABEL_CHARACTERS // 2 :] if close else line))
    if labels:
        return labels
    labels = _labels_in(before)
    return () if labels[-1:] == ("other",) and _LETTER.search(line) else labels


@lru_cache(4096)
def _labels_in(words: str) -> tuple[str, ...]:
    return tuple(_LABELS[int(match.lastgroup[1:])] for match in _LABEL.finditer(words))


def _column_head(text: str, start: int) -> str:
    """The field over `start` in the first line, if that is the head of a table that the line of `start` is a row of."""
    line = text.rfind("\n", max(0, start - LINE_CHARACTERS), start) + 1
    head = text[: max(0, text.find("\n", 0, LINE_CHARACTERS))]
    if not line or not head or _NO_HEAD.search(head):
        return ""
    end = text.find("\n", start, start + LINE_CHARACTERS)
    before, after = text[line:start], text[start : end if end >= 0 else start + LINE_CHARACTERS]
    if before.count('"') % 2:
        before, after = before + '"', '"' + after
    before, after = _QUOTED.sub("", before), _QUOTED.sub("", after)
    for delimiter in (",", ";", "\t", "|", "  "):
        if delimiter == "  ":  # aligned by spaces
            head, before, after = (re.sub(" {2,}", "  ", part) for part in (head, before, after))
        count = head.count(delimiter)
        if count >= 2 and before.count(delimiter) + after.count(delimiter) == count:
            return head.split(delimiter)[before.count(delimiter)].lower()
    return ""


# --- what a number is -------------------------------------------------------------------------------------------------


@cache
def _checksum(module: str):
    """`is_valid` of a python-stdnum module, imported when the first candidate needs it."""
    return import_module(f"stdnum.{module}").is_valid


_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?:[ \xa0\u202f]?[A-Z0-9]{1,4}){3,9}(?!\w)")


def _ibans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """ISO 13616: the country's length and structure, and the checksum modulo 97."""
    for match in _IBAN.finditer(text, start, end):
        number = match[0]
        while number:
            if _iban_is_valid(number):
                yield match.start(), match.start() + len(number)
                break
            # "BIC" and what else in capitals follows is not part of it.
            number = number[: max(number.rfind(gap) for gap in " \xa0\u202f") if not number.isalnum() else 0]


def _iban_is_valid(number: str) -> bool:
    from stdnum import iban
    from stdnum.exceptions import ValidationError

    try:
        # The accounts' own check digits differ by bank and age; a test account has none.
        return bool(iban.validate(number, check_country=False))
    except ValidationError:
        return False


_IN_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: [A-Z0-9]{4})* \Z")  # one that is mistyped, too
_CARD = re.compile(
    r"(?<![\w.])(?:[2-6][0-9]{3}([ \xa0-]?)(?:[0-9]{4}(?:\1[0-9]{4}){2}(?:\1[0-9]{1,3})?|[0-9]{6}\1[0-9]{4,5})"
    r"|[2-6][0-9]{12,18})(?!\w|\.[0-9])"
)
# Visa 16 and 19; Mastercard; American Express; Discover and UnionPay 16..19; JCB; Diners Club; Maestro.
_ISSUER = re.compile(
    r"4(?:\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d)\d{12,15}|35\d{14}|3(?:0[0-59]|[689]\d)\d{11}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)


def _cards(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """ISO/IEC 7812: an issuer's first digits and length, and Luhn's checksum."""
    for match in _CARD.finditer(text, start, end):
        digits = re.sub(r"\D", "", match[0])
        if not _ISSUER.fullmatch(digits) or not _checksum("luhn")(digits) or _is_in_iban(text, match.start()):
            continue
        if not match[0].isdigit() or _labels(text, match.start())[-1:] != ("other",):
            yield match.span()


def _is_in_iban(text: str, start: int) -> bool:
    return _IN_IBAN.search(text, max(0, start - 32), start) is not None


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP = re.compile(
    rf"(?<![\w.])(?<![A-Za-z_][/-])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.[0-9]|-[A-Za-z])"
    r"|(?<![\w:.])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?!:?[\w:])"
)
_VERSION = re.compile(
    r"(?:\bv|vers\w*|wersj\w*|\bver|release|build|firmware|update|patch|(?:up|down)grade[sd]?|driver|edition"
    r"|sect?\w*|clause|chapter|§+|article|\boid|\brev\w*|kapitel|abschnitt|requires?|==|>=|<=|~=|\^)"
    r"(?: to)?[\s\"'`:=.(]*$|(?:^|\n)#[^\n]*$",
    re.IGNORECASE,
)
_ADDRESSED = re.compile(r"\b(?:ip|ipv4|addr\w*|host|server|client|dns|ping|from|remote|src|dst)\b|://$", re.IGNORECASE)


def _ips(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Addresses that lead to a machine on the internet; loopback, private, documentation and netmasks stay.

    Four small numbers (1.2.3.4) are a version or an outline unless a word before them says otherwise.
    """
    for match in _IP.finditer(text, start, end):
        address = match[0] if match[0].endswith("::") else match[0].rstrip(":")
        try:
            if not ipaddress.ip_address(address).is_global:
                continue
        except ValueError:
            continue
        before = text[max(0, match.start() - 24) : match.start()]
        small = ":" not in address and max(map(int, address.split("."))) < 32
        if not _VERSION.search(before) and (not small or _ADDRESSED.search(before)):
            yield match.start(), match.start() + len(address)


# Written so that the shape alone is telling: the stdnum modules that check it -> the shape.
_FIRM_IDS = {
    "us.ssn": r"\d{3}-\d{2}-\d{4}",
    "gb.nino": r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
    "es.dni": r"(?:\d{8}|\d\d\.\d{3}\.\d{3})[ -]?[A-HJ-NP-TV-Z]",
    "es.nie": r"[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]",
    "it.codicefiscale": r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]",
    "fr.nir": r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
    "in_.aadhaar": r"(?<!\d[ -])[2-9]\d{3}(?:-\d{4}-| \d{4} )\d{4}(?![ -]\d)",
    "in_.pan": r"[A-Z]{3}[ABCFGHJKLPT][A-Z]\d{4}[A-Z]",
    "br.cpf": r"\d{3}\.\d{3}\.\d{3}-\d\d",
    "mx.curp": r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d",
    "cn.ric": r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])\d{5}[\dX]",
    "ch.ssn": r"756\.\d{4}\.\d{4}\.\d\d",
    "be.nn": r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d",
    "fi.hetu se.personnummer": r"(?:19|20)?\d{6}[-+A]\d{3}[0-9A-FHJ-NPR-Y]",
}
_FIRM_ID = re.compile(
    r"(?=[A-Z]{0,6}[ -]?[0-9])(?<![\w.+])(?<!\w-)(?:"
    + "|".join(f"(?P<_{number}>{shape})" for number, shape in enumerate(_FIRM_IDS.values()))
    + r")(?!\w|-\w|\.\d)"
)
_FIRM_NAMES = list(_FIRM_IDS)
_WEAK_IDS = ("us.ssn", "gb.nino", "in_.pan", "in_.aadhaar")  # without a checksum, or with one digit of it
# Digits that only the word before them explains. Label -> how many digits.
_LOOSE_IDS = {
    "us.ssn": (9,),
    "gb.nhs": (10,),
    "pl.pesel": (11,),
    "nl.bsn": (9, 8),
    "de.idnr": (11,),
    "in_.aadhaar": (12,),
    "br.cpf": (11,),
    "ca.sin": (9,),
    "fr.nir": (15,),
}
_LOOSE_LENGTHS = {length for lengths in _LOOSE_IDS.values() for length in lengths}
_LOOSE_ID = re.compile(r"(?<![\w.+)])[0-9](?:[ -]?[0-9]){7,14}(?!\w|[.-][0-9])")


def _national_ids(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Ids of persons, each by its checksum (a UK NINO has none: its first letters), plain digits only with a label."""
    for match in _FIRM_ID.finditer(text, start, end):
        name = _FIRM_NAMES[int(match.lastgroup[1:])]
        valid = name == "gb.nino" or any(_checksum(module)(match[0]) for module in name.split())
        if not valid or (name == "in_.aadhaar" and _is_in_iban(text, match.start())):
            continue
        if name not in _WEAK_IDS or _labels(text, match.start())[-1:] != ("other",):
            yield match.span()
    for match in _LOOSE_ID.finditer(text, start, end):
        digits = re.sub(r"\D", "", match[0])
        if len(digits) in _LOOSE_LENGTHS:
            labels = set(_labels(text, match.start())).intersection(_LOOSE_IDS)
            if any(len(digits) in _LOOSE_IDS[label] and _checksum(label)(digits) for label in labels):
                yield match.span()


# One sign, with a space beside it or without; two spaces begin another column.
_JOIN = r"(?:[ \xa0\u202f]?[.\-\u2010\u2011/][ \xa0\u202f]?|[ \xa0\u202f])"
_LOOSE_JOIN = _JOIN.replace("/", "")
_EXTENSION = r"(?P<extension> ?(?:x|ext\.?|#) ?[0-9]{1,6})?"
# Shapes that only phone numbers have.
_FIRM_PHONE = re.compile(
    r"(?=[+(0-9])(?<![\w+])(?<!\w[/-])(?<![0-9][.:])(?:"
    # international: +44 (0)20 7946 0958, 0049 30 123456
    rf"\(?\+[1-9][0-9]{{0,3}}\)?(?:{_JOIN}?\([0-9]{{1,5}}\))?(?:{_JOIN}?[0-9]){{4,14}}"
    rf"|(?<![0-9] )00[1-9][0-9]{{0,2}}(?:{_JOIN}[0-9]{{2,10}}){{2,5}}"
    # North America: (212) 555-0123, 212-555-0123, 1.212.555.0123
    r"|(?:1[-. ])?(?<![0-9] )\([2-9][0-9]{2}\)[ -]{0,2}[2-9][0-9]{2}[-. ]?[0-9]{4}"
    r"|(?:1[-.])?[2-9][0-9]{2}([-.])[2-9][0-9]{2}\1[0-9]{4}"
    # Brazil: (11) 3456-7890, 11 91234-5678
    r"|(?:(?<![0-9] )\(0?[1-9][0-9]\) ?9?|[1-9][0-9] 9)[0-9]{4}-[0-9]{4}"
    # a trunk 0: (030) 123456, 01632 960123, 06-12345678, 01 23 45 67 89
    r"|(?<![0-9][0-9a-f] )(?<![0-9] )(?<![0-9]  )"
    rf"(?:\(0[1-9][0-9]{{0,3}}\){_JOIN}?|0[1-9][0-9]{{0,4}}{_JOIN})"
    r"[0-9]{2,10}(?:[ \xa0\u202f.-][0-9]{2,8}){0,4}"
    rf"){_EXTENSION}(?!\w|[.:/-][0-9])"
)
_LOOSE_PHONE = re.compile(
    # not 046 in 4,046, nor the end of astro-ph/9805273
    r"(?=[+(0-9])(?<![\w+])(?<!\w/)(?!(?<=[0-9],)[0-9]{3}[^0-9])"
    rf"(?:\+ ?)?(?:[0-9]{{1,4}}{_LOOSE_JOIN}?)?(?:\([0-9]{{1,5}}\){_JOIN}?)?"
    rf"[0-9](?:{_LOOSE_JOIN}?[0-9]){{3,14}}{_EXTENSION}(?!\w|[.:][0-9]|-\w)"
)
# A decimal, thousands (1 389 359, 1.389.359), a version, a range of pages, a dump of bytes.
_QUANTITY = re.compile(
    r"\+?\d+\.\d+|[1-9]\d?(?: \d{3})+|[1-9]\d{0,2}(?:\.\d{3})+|\d{1,3}(?:\.\d{1,4}){3}|(\d\d)\d\d-\1\d\d"
    r"|\d\d(?:[ .-]\d\d){5,}"
)
_TRIPLES = re.compile(r"\d{3}(?: \d{3})+")  # a Spanish or Polish number, or millions
_DATE_INSIDE = re.compile(
    rf"(?<![\d./-]){_DAY}([./-]){_DAY}\1(?:{_YEAR}|\d\d)(?![./-]?\d)"
    rf"|(?<!\d){_YEAR}(?:([./-])\d\d\2\d\d|[/-]{_YEAR})(?!\d)"
)


def _phones(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """International, North American and trunk-0 shapes; other digits (ITU E.164: at most 15) only with a label."""
    for shape in (_FIRM_PHONE, _LOOSE_PHONE):
        for match in shape.finditer(text, start, end):
            number = match[0].removesuffix(match["extension"] or "")
            if not _fewest_digits(number, shape) <= sum(map(str.isdigit, number)) <= 15 or _QUANTITY.fullmatch(number):
                continue
            if number[0] == "+" and number[1] != " ":
                yield match.span()
            elif not _DATE_INSIDE.search(number) and not _is_in_iban(text, match.start()):
                labels = _labels(text, match.start(), close=_TRIPLES.fullmatch(number) is not None)
                firm = shape is _FIRM_PHONE or (len(number) >= 9 and _beside_an_address(text, *match.span()))
                if labels[-1:] == ("phone",) or (firm and not labels):
                    yield match.span()


def _fewest_digits(number: str, shape: re.Pattern) -> int:
    if shape is _LOOSE_PHONE:
        return 7
    return 11 if number.startswith("00") else 9 if number.lstrip("(").startswith("0") else 8


_ADDRESS_BEFORE = re.compile(r"@[\w-]+(?:\.[\w-]+)+[^\w@]{1,5}\Z")
_ADDRESS_AFTER = re.compile(r"[^\w@]{1,5}[\w.+-]{1,64}@")


def _beside_an_address(text: str, start: int, end: int) -> bool:
    """In a signature or a row of contacts: nothing but punctuation between the number and an e-mail address."""
    if text[start] == "1" and text[start:end].isdigit():  # seconds since 1970
        return False
    return bool(_ADDRESS_AFTER.match(text, end) or _ADDRESS_BEFORE.search(text, max(0, start - 80), start))


RECOGNISERS = {
    "iban": _ibans,
    "credit_card": _cards,
    "ip_address": _ips,
    "national_id": _national_ids,
    "phone": _phones,
}
