"""The pipeline: every step does its work, every document is accounted for, and processes change nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.sources import RawDocument
from lm_recipes.text.dedup import exact_key
from lm_recipes.text.ledger import format_ledger
from lm_recipes.text.pipeline import clean_documents
from lm_recipes.text.settings import STEPS, CleaningSettings

PROSE = (
    "The old harbour lies at the mouth of the river, and most of the town was built with stone that ships brought "
    "as ballast. In spring the market opens again, and people from the villages come to sell bread, cheese and wool. "
    "Nobody knows who built the tower; letters that have been found say it was standing before the church was."
)
ABUSE = "You are a stupid idiot and a complete moron, and all of you should shut up."
FINNISH = "Vanha satama sijaitsee joen suulla, ja suurin osa kaupungista rakennettiin kivestä, jonka laivat toivat. "

# One document that only this step removes or mends, and what is wrong with it afterwards if the step is missing.
BAD = {
    "redirect": RawDocument("redirect", f"#REDIRECT [[Cats]] {PROSE}", "text"),
    "length": RawDocument("length", "The harbour lies at the mouth of the river."),
    "quality": RawDocument("quality", "the price of it and 1234 5678 9012 3456 7890 " * 9),
    "repetition": RawDocument("repetition", "\n".join([PROSE, *["Buy the bread at the market now"] * 20])),
    "language": RawDocument("language", FINNISH * 5 + "the to of and that"),
    "inappropriate": RawDocument("inappropriate", "\n".join([f"{ABUSE} {i}" for i in range(9)])),
    "exact_duplicates": RawDocument("exact_duplicates", PROSE.upper().replace(" ", "  ")),
}
MARKUP = RawDocument("markup", f"<script>evil()</script><p>A page. {PROSE}</p>", "html")
UNICODE = RawDocument("normalize", f"A cafÃ© in the town.\u200b\x00 {PROSE}")
DOCUMENTS = [RawDocument("good", PROSE), MARKUP, UNICODE, *BAD.values()]


def run(documents=DOCUMENTS, num_processes=1, **settings):
    ledger = []
    return list(clean_documents(documents, CleaningSettings(**settings), ledger, num_processes)), ledger


def without(step):
    return [name for name in STEPS if name != step]


def test_all_steps_together_leave_the_good_documents():
    kept, ledger = run()
    assert [document.id for document in kept] == ["good", "markup", "normalize"]
    assert [record.step for record in ledger] == list(STEPS)
    assert kept[0].text == PROSE
    assert kept[1].text == f"A page. {PROSE}"
    assert kept[2].text == f"A café in the town. {PROSE}"


@pytest.mark.parametrize("step", BAD)
def test_each_filter_drops_its_document_and_no_other_step_does(step):
    _, ledger = run()
    record = next(record for record in ledger if record.step == step)
    assert record.documents_in - record.documents_out == 1
    assert sum(record.reasons.values()) == 1
    assert [d.id for d in run(steps=without(step))[0] if d.id in BAD] == [step]


@pytest.mark.parametrize(("step", "remains"), [("markup", "<p>"), ("normalize", "Ã©")])
def test_each_transformation_is_missed_when_it_is_switched_off(step, remains):
    assert not any(remains in document.text for document in run()[0])
    assert any(remains in document.text for document in run(steps=without(step))[0])


def test_the_ledger_adds_up():
    kept, ledger = run()
    assert ledger[0].documents_in == len(DOCUMENTS)
    assert ledger[0].bytes_in == sum(len(document.text.encode()) for document in DOCUMENTS)
    for before, after in pairwise(ledger):
        assert (after.documents_in, after.bytes_in) == (before.documents_out, before.bytes_out)
    for record in ledger:
        assert record.documents_in == record.documents_out + sum(record.reasons.values())
    assert ledger[-1].documents_out == len(kept)
    assert ledger[-1].bytes_out == sum(len(document.text.encode()) for document in kept)


def test_the_ledger_shows_examples_and_never_offensive_ones():
    documents = [*DOCUMENTS, RawDocument("shut up idiot", f"{ABUSE}"), RawDocument("x", "#REDIRECT [[Shut up, idiot]]")]
    _, ledger = run(documents)
    examples = {record.step: record.examples for record in ledger}
    assert examples["length"][0] == {"id": "length", "reason": "too few words", "text": BAD["length"].text}
    assert "<script>" in examples["markup"][0]["before"]
    assert examples["inappropriate"] == [{"id": "[redacted]", "reason": "offensive language", "text": "[redacted]"}]
    assert examples["redirect"][1] == {"id": "[redacted]", "reason": "a redirect", "text": "[redacted]"}
    assert "idiot" not in str(examples) + format_ledger(ledger)


def test_the_result_does_not_depend_on_the_number_of_processes():
    documents = [
        RawDocument(f"{i}-{d.id}", d.text + f"\n{PROSE[: i % 97]}", d.kind) for i in range(60) for d in DOCUMENTS
    ]
    one, two = run(documents), run(documents, num_processes=2)
    assert one[0] == two[0]
    for a, b in zip(one[1], two[1], strict=True):
        a.seconds = b.seconds = 0
        assert a == b


def test_a_long_input_is_read_as_it_is_used():
    read = []

    def source():
        for i in range(10_000):
            read.append(i)
            yield RawDocument(str(i), PROSE)

    next(clean_documents(source(), CleaningSettings(), [], 1))
    assert len(read) < 1_000


def test_an_error_names_its_document():
    with pytest.raises(TypeError) as error:
        run([RawDocument("fine", PROSE), RawDocument("broken", b"bytes")], steps=["normalize"])
    assert "broken" in "".join(error.value.__notes__)


@pytest.mark.parametrize("steps", [["polish"], ["exact_duplicates", "markup"]])
def test_wrong_steps_are_refused(steps):
    with pytest.raises(UserError, match="steps: "):
        CleaningSettings(steps=steps)


@given(st.text())
def test_duplicates_differ_at_most_in_case_punctuation_and_space(text):
    assert exact_key(text) == exact_key(f"  {text} !\n") == exact_key(text.casefold())


def test_different_texts_are_not_duplicates():
    assert len({exact_key(text) for text in ("a b", "ab", "a", "b a", "a 1", "")}) == 6
