"""text/pii.py: what is replaced, what stays, and that the libraries it leans on agree."""

import logging
import random
import time
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_recipes.evaluation.pii import ID_KINDS, LOCALES, generate, national_id, score
from lm_recipes.text.pii import TYPES, find, scrub
from tests.corpus import documents

# Every value here is made up; the numbers with checksums are the examples of the standards' own documents.
REPLACED = [
    ("email", "Write to jane.doe+list@mail.example.co.uk.", "Write to [EMAIL]."),
    ("email", "<müller@bücher.example>, or mailto:a@b.org", "<[EMAIL]>, or mailto:[EMAIL]"),
    ("phone", "Ring +44 (0)20 7946 0958 or 0049 30 1234567.", "Ring [PHONE] or [PHONE]."),
    ("phone", "(212) 555-0123, 212.555.0123 x45, 01632 960123", "[PHONE], [PHONE], [PHONE]"),
    ("phone", "au 01 23 45 67 89; in (030) 123456", "au [PHONE]; in [PHONE]"),
    ("phone", "Mobile: 600 123 456", "Mobile: [PHONE]"),
    ("phone", '{"customerPhone": "9123456789"}', '{"customerPhone": "[PHONE]"}'),
    ("phone", "name,phone,sum\nJo,600123456,12\n", "name,phone,sum\nJo,[PHONE],12\n"),
    ("phone", "name  phone       sum\nJo    600123456   12\n", "name  phone       sum\nJo    [PHONE]   12\n"),
    ("phone", "Your number?\nB: it is 9123456789", "Your number?\nB: it is [PHONE]"),
    ("credit_card", "4111 1111 1111 1111, 3782-822463-10005", "[CREDIT_CARD], [CREDIT_CARD]"),
    ("credit_card", "card=5555555555554444;", "card=[CREDIT_CARD];"),
    ("iban", "GB82 WEST 1234 5698 7654 32 BIC WESTGB2L", "[IBAN] BIC WESTGB2L"),
    ("iban", "to DE89370400440532013000.", "to [IBAN]."),
    ("ip_address", "from 81.2.69.142:443, http://8.8.8.8/", "from [IP_ADDRESS]:443, http://[IP_ADDRESS]/"),
    ("ip_address", "2a00:1450:4001:82a::200e: timeout", "[IP_ADDRESS]: timeout"),
    ("national_id", "SSN 536-90-4399, AB 12 34 56 C", "SSN [NATIONAL_ID], [NATIONAL_ID]"),
    ("national_id", "DNI 54362315-K, NIE X2482300W", "DNI [NATIONAL_ID], NIE [NATIONAL_ID]"),
    ("national_id", "RCCMNL83S18D969H 2 95 10 99 126 111 93", "[NATIONAL_ID] [NATIONAL_ID]"),
    ("national_id", "CPF 390.533.447-05, PESEL: 44051401359", "CPF [NATIONAL_ID], PESEL: [NATIONAL_ID]"),
    ("national_id", "NHS number 943 476 5919, BSN 111222333", "NHS number [NATIONAL_ID], BSN [NATIONAL_ID]"),
    ("national_id", "Steuer-ID 36 574 261 809", "Steuer-ID [NATIONAL_ID]"),
    ("national_id", "Aadhaar 2341 2341 2346, PAN ACUPA7085R", "Aadhaar [NATIONAL_ID], PAN [NATIONAL_ID]"),
    ("national_id", "131052-308T 880320-0016 756.9217.0769.85", "[NATIONAL_ID] [NATIONAL_ID] [NATIONAL_ID]"),
    ("national_id", "BOXW310820HNERXN09 360426199101010071", "[NATIONAL_ID] [NATIONAL_ID]"),
    ("secret", "AWS AKIA" + "QRSTUVWXYZ234567", "AWS [SECRET]"),
    ("secret", "ghp_" + "a1B2" * 9 + " and xoxb-" + "1a2B-" * 5 + "x", "[SECRET] and [SECRET]"),
    ("secret", "sk-proj-" + "aB3-" * 8, "[SECRET]"),
    ("secret", "(eyJ" + "a1B2" * 4 + ".eyJ" + "c3D4" * 4 + "." + "e5F6" * 4 + ")", "([SECRET])"),
    ("secret", "x\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\ny", "x\n[SECRET]\ny"),
    ("secret", "postgres://app:Sup3rS3cret@db.example.org/x", "postgres://[SECRET]@db.example.org/x"),
    ("secret", "DB_PASSWORD='hunt3r!2'", "DB_PASSWORD='[SECRET]'"),
    ("secret", '{"api_key": "9f86d081884c7d659a2feaa0c55ad015"}', '{"api_key": "[SECRET]"}'),
    ("secret", "my password is Tr0ub4dor&3", "my password is [SECRET]"),
]
KEPT = {
    "email": ["git@github.com:a/b.git", "icon@2x.png", "lodash@4.17.21", "@property", "a @ b.c", "root@localhost"],
    "phone": [
        "1990-1995 2000",
        "on 2004-05-03 and 01.02.2003 12:30",
        "ISBN 978-3-16-148410-0 or 0-306-40615-2",
        "order 0123-456789",
        "pp. 1234-1245",
        "52.520008, 13.404954",
        "telephones: 1 389 359 (2001)",
        "6.02214076e23",
        "26824404 + 153656394",
        "the number 9123456789",
        "arxiv.org/abs/astro-ph/9805273",
        "id 21783750-342b-477c-b01a-446655440000",
        "RFC 2616, 12 (1990) 123-145",
    ],
    "credit_card": ["4111 1111 1111 1112", "order 4111111111111111", "0.4111111111111111", "1234567812345670"],
    "iban": ["GB82 WEST 1234 5698 7654 33", "DE12", "ABCD 1234"],
    "ip_address": ["version 8.8.4.4", "v81.2.69.142", "127.0.0.1 192.168.1.1 255.255.255.0", "1.2.3.4", "12:30:45"],
    "other addresses": [
        "nginx/81.2.69.142",
        "std::vector",
        "aa:bb:cc:dd:ee:ff",
        "999.1.1.1",
        "1.2.3.4.5",
        "2001:db8::1",
    ],
    "national_id": [
        "000-12-3456",
        "54362315-A",
        "390.533.447-06",
        "44051401359",
        "PESEL 44051401358",
        "caffeine 58-08-2, water 7732-18-5",
        "part 536-90-4399",
    ],
    "secret": [
        "password = settings.password",
        'token=read_token("default")',
        "the key: understanding",
        "password: required",
        "API_KEY=${API_KEY}",
        "commit 9f86d081884c7d659a2feaa0c55ad015",
        "risk-averse, task-oriented-programming-paradigm",
        "max_tokens = 10000000000000000",
    ],
}


@pytest.mark.parametrize(("type", "text", "scrubbed"), REPLACED)
def test_personal_data_is_replaced_by_a_placeholder_of_its_type(type, text, scrubbed):
    placeholder = f"[{type.upper()}]"
    assert scrub(text, (type,)) == (scrubbed, {type: scrubbed.count(placeholder)})
    assert placeholder in scrub(text)[0]


@pytest.mark.parametrize("text", [text for texts in KEPT.values() for text in texts])
def test_what_only_looks_like_personal_data_stays(text):
    assert scrub(text) == (text, {})


@pytest.mark.parametrize("type", TYPES)
def test_types_that_are_not_asked_for_stay(type):
    others = tuple(other for other in TYPES if other != type)
    text = " | ".join(text for kind, text, _ in REPLACED if kind == type)
    assert type in scrub(text)[1]
    assert f"[{type.upper()}]" not in scrub(text, others)[0]


PIECES = [
    *(text for _, text, _ in REPLACED), *(text for texts in KEPT.values() for text in texts),
    *(f"[{type.upper()}]" for type in TYPES),
    *"phone Tel. order SSN PESEL BSN card password= token: @ :// + ( ) . - / , ; = 0 12 345 6789 \n".split(" "),
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12), st.sampled_from(["", " ", ", ", "\n"]))
@settings(deadline=None, max_examples=300)
@example(["Tel. order 123456789012 9123456789 9123456789 9123456789"], "")
def test_scrubbing_twice_is_scrubbing_once(pieces, glue):
    once, _ = scrub(glue.join(pieces))
    assert scrub(once) == (once, {})


@cache
def generated():
    return generate(300, seed=3, split="test") + generate(300, seed=3, split="dev")


def test_generated_documents_are_scrubbed_once_and_for_all():
    for document in generated():
        once, counts = scrub(document.text)
        assert scrub(once) == (once, {})
        for span in document.spans:
            if span.type in ("email", "iban"):
                assert document.text[span.start : span.end] not in once
        assert set(counts) <= set(TYPES)


def test_recall_and_precision_are_at_least_95_percent_per_type():
    rates = score(generated(), [find(document.text) for document in generated()])
    for type in TYPES:
        assert rates[type]["gold_spans"] >= 50
        assert rates[type]["recall"] >= 0.95, type
        assert rates[type]["precision"] >= 0.95, type


def test_a_detector_that_finds_nothing_or_everything_scores_nothing():
    documents = generated()[:20]
    nothing = score(documents, [[] for _ in documents])["all"]
    assert nothing["recall"] == 0
    assert nothing["precision"] is None
    shifted = [[span._replace(start=span.start + 1) for span in document.spans] for document in documents]
    rates = score(documents, shifted)["all"]
    assert (rates["recall"], rates["precision"]) == (0, 1)


def test_the_same_seed_generates_the_same_documents():
    assert generate(30, 5, "test") == generate(30, 5, "test") != generate(30, 6, "test")


def test_plain_documentation_is_left_as_it_is():
    found = [span for text in documents() for span in find(text)]
    assert len(found) <= len(documents()) / 50


@pytest.mark.parametrize("kind", ID_KINDS)
def test_ids_that_stdnum_calls_valid_are_found_with_their_label_and_with_one_digit_wrong_are_not(kind):
    from faker import Faker

    locale = next(locale for locale, kinds in LOCALES.items() if kind in kinds)
    fake, rng = Faker(locale), random.Random(kind)
    fake.seed_instance(kind)
    module = ID_KINDS[kind]
    words = {"nhs": "NHS", "idnr": "Steuer-ID", "pesel": "PESEL", "bsn": "BSN", "cpf": "CPF", "aadhaar": "Aadhaar"}
    prefix = f"{words.get(kind, 'id')} "
    for _ in range(50):
        number = national_id(fake, rng, kind)
        assert scrub(prefix + number) == (prefix + "[NATIONAL_ID]", {"national_id": 1})
        if module not in (None, "us.ssn", "in_.pan"):  # these have no checksum
            digit = rng.choice([i for i, character in enumerate(number) if character.isdigit()])
            wrong = number[:digit] + str((int(number[digit]) + 1) % 10) + number[digit + 1 :]
            assert "national_id" not in scrub(prefix + wrong)[1]


def test_phone_numbers_of_every_region_are_found():
    phonenumbers = pytest.importorskip("phonenumbers")
    kinds = (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE)
    formats = (phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164)
    examples = [phonenumbers.example_number_for_type(r, k) for r in phonenumbers.SUPPORTED_REGIONS for k in kinds]
    numbers = [phonenumbers.format_number(number, form) for number in filter(None, examples) for form in formats]
    assert len(numbers) > 900
    assert [number for number in numbers if scrub(f"see {number} for it")[0] != "see [PHONE] for it"] == []


def test_nothing_is_said_about_what_was_found(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        for document in generated()[:50]:
            counts = scrub(document.text)[1]
            assert all(isinstance(count, int) for count in counts.values())
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


WORST = [
    *("1", "1 ", "a@", "=", "password=", "12345678abcdef", "AB12 3456 ", "://a:bcd", "2a00:", "sk-a1", "(0"),
    *("-----BEGIN PRIVATE KEY-----", "1234567890,", "tel 1234567\n"),
]


@pytest.mark.parametrize("piece", WORST)
def test_time_grows_with_the_length_of_the_worst_text_not_with_its_square(piece):
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        start = time.process_time()
        scrub(text)
        return time.process_time() - start

    seconds(10_000)
    # up to three times: a garbage collection of all that the tests hold can fall into one
    assert any(seconds(160_000) < 4 * 8 * max(seconds(20_000), 0.01) for _ in range(3))
