"""Which characters do the bytes of a web page stand for?"""

import codecs
import re

from charset_normalizer import from_bytes

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARATION = re.compile(
    rb"<(?:meta\b[^<>]*?|\?xml\b[^<>]*?en)c(?:harset|oding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE
)
_DECLARED_WITHIN = 4096  # bytes; the standard says 1024, pages do not keep to it
# What browsers take a declared encoding for (WHATWG Encoding Standard): supersets that pages really use.
_REALLY = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs",
    "utf-16": "utf-8", "utf-16-le": "utf-8", "utf-16-be": "utf-8",
}  # fmt: skip
_GUESSED_FROM = 65_536  # bytes
_MAX_BROKEN = 0.001  # share of characters


def decode_html(data: bytes) -> str | None:
    """The text of an HTML page, or None if it is no text that we can read.

    In this order: a byte-order mark; UTF-8, which other encodings hardly ever pass for; what the page declares
    (`<meta charset>`); and, if it declares nothing that fits, the guess of charset-normalizer. A declared encoding
    or UTF-8 may have a few broken bytes (a page that was cut off), which become U+FFFD.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decode(data[len(mark) :], encoding)
    declared = _declared_encoding(data)
    # UTF-8 first, but for what is written in 7 bits; no text holds NULs but UTF-16
    for encoding in (declared, "utf-8") if declared == "iso2022_jp" else ("utf-8", declared):
        text = _decode(data, encoding) if encoding and b"\0" not in data else None
        if text is not None:
            return text
    guess = from_bytes(data[:_GUESSED_FROM]).best()
    text = _decode(data, guess.encoding) if guess else None
    return None if text is None or "\0" in text else text


def _declared_encoding(data: bytes) -> str | None:
    declaration = _DECLARATION.search(data, 0, _DECLARED_WITHIN)
    if not declaration:
        return None
    try:
        name = codecs.lookup(declaration[1].decode("ascii", "replace")).name
    except LookupError:
        return None
    return _REALLY.get(name, name)


def _decode(data: bytes, encoding: str) -> str | None:
    try:
        text = data.decode(encoding, "replace")
    except (LookupError, UnicodeError):  # not a text encoding
        return None
    return text if text.count("\ufffd") <= _MAX_BROKEN * len(text) else None
