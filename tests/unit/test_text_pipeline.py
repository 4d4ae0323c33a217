"""The pipeline: every step does its work, every document is accounted for, and batches and workers change nothing."""

import json
from itertools import pairwise

import pytest

from lm_recipes.launch import UserError
from lm_recipes.sources import RawDocument
from lm_recipes.text import filters, pipeline
from lm_recipes.text.ledger import StepRecord, format_ledger
from lm_recipes.text.pipeline import clean_documents
from lm_recipes.text.settings import ACROSS_DOCUMENTS, OPTIONAL_STEPS, STEPS, CleaningSettings

PROSE = (
    "The old harbour lies at the mouth of the river, and most of the town was built with stone that ships brought "
    "as ballast. In spring the market opens again, and people from the villages come to sell bread, cheese and wool. "
    "Nobody knows who built the tower; letters that have been found say it was standing before the church was."
)
SHORE, BREAD, SNOW, CLOCK, GARDEN, TRAIN = (
    "When we came down to the shore that evening, the boats were already lying with their keels in the sand, and the "
    "men who had rowed them stood about a fire of driftwood and said little. My uncle asked them for the way to the "
    "farm behind the hill, and one of them, the oldest, pointed with his pipe at a light that I had taken for a star.",
    "Good bread needs time more than skill. Mix the flour with water in the evening, leave the bowl under a cloth, and "
    "do not look at it again before breakfast. By then the dough has doubled and smells of apples. Shape it with wet "
    "hands, give it another hour near the stove, and bake it until the crust sings when you hold it to your ear.",
    "It had snowed for three days, so that nobody could have said where the road ended and the fields began. The mail "
    "coach waited at the inn with steaming horses. Two merchants played cards, a student read by the window, and the "
    "landlord's daughter counted the candles that were left, because she had been told that they must last until May.",
    "A pendulum clock loses a few seconds on a warm day, since the rod grows longer and swings more slowly. Makers "
    "found several cures: a jar of mercury whose level rises, or a grid of brass and steel bars that pull against one "
    "another. Both were in use for two centuries, until quartz crystals made every kitchen clock as good as they are.",
    "Behind the school there is a garden that the children keep. Each class has a bed of its own, and what grows there "
    "is decided by vote, which is why one year they had nothing but pumpkins. Their teacher thinks that arguing about "
    "seeds is the best lesson in government they will ever get, and that the soup at the end is only a fair reward.",
    "The last train over the pass left at nine. Its two carriages were lit by gas, and the guard walked from one to "
    "the other with a tray of tea, although there was a rule against it. Whoever travelled often knew each tunnel by "
    "its sound and could tell, with closed eyes, how far it was to the lake where most of the passengers got out.",
)
ABUSE = """You are a stupid idiot, and everybody in this town knows it.
What a complete moron you must be to write such a letter to your own brother.
Shut up, you dumb fool, before somebody else throws you out of the house.
Only a damned loser with the brain of a stupid pig could believe what the mayor says.
Go to hell with your ugly hat and take your idiot friends along, all nine of those morons."""
PASSAGE = (
    "A lighthouse keeper had to trim the wick every four hours, wind the clockwork that turned the lens and write down "
    "each ship that passed. Supplies came once a month by boat when the sea allowed it. Most keepers lived on the rock "
    "with two assistants and a goat, and some of them said that the goat was the best company of the three by far."
)  # of an evaluation set
FINNISH = (
    "Vanha satama sijaitsee joen suulla, ja suurin osa kaupungista rakennettiin kivestä, jonka laivat toivat. Kirjeet, "
    "jotka on löydetty, kertovat että se seisoi täällä ennen kirkkoa, eikä kukaan tiedä kuka sen rakensi. Keväällä "
    "tori avataan uudelleen, ja kylistä tullaan myymään leipää, juustoa ja villaa. Vanhat miehet istuvat rannalla ja "
    "puhuvat veneistä, joita ei enää ole, ja meri on hiljaa. Illalla sytytetään lyhdyt, ja lapset juoksevat pitkin "
    "laituria kunnes heidät kutsutaan kotiin. the to of and that"
)

# One document that only this step removes.
BAD = {
    "redirect": RawDocument("redirect", f"#REDIRECT [[Cats]] {SHORE}", "text"),
    "length": RawDocument("length", "The harbour lies at the mouth of the river."),
    "quality": RawDocument("quality", "the price of it and " + " ".join(map(str, range(1000, 1060)))),
    "repetition": RawDocument("repetition", "\n".join([BREAD, *["Buy the bread at the market now"] * 20])),
    "language": RawDocument("language", FINNISH),
    "inappropriate": RawDocument("inappropriate", ABUSE),
    "decontamination": RawDocument("decontamination", f"As the exam has it: {PASSAGE}"),
    "exact_duplicates": RawDocument("exact_duplicates", PROSE.upper().replace(" ", "  ")),
    "near_duplicates": RawDocument("near_duplicates", PROSE.replace("the church was", "the church existed")),
}
MARKUP = RawDocument("markup", f"<script>evil()</script><p>A page. {SNOW}</p>", "html")
UNICODE = RawDocument("normalize", f"A cafÃ© in the town.\u200b\x00 {CLOCK}")
PERSON = RawDocument("pii", f"Write to jane.doe@example.org, or not. {GARDEN}")
QUOTE = RawDocument("duplicate_paragraphs", f"{TRAIN}\n{PROSE}\nSo it was said.")
DOCUMENTS = [RawDocument("good", PROSE), MARKUP, UNICODE, PERSON, QUOTE, *BAD.values()]
GOOD = ["good", "markup", "normalize", "pii", "duplicate_paragraphs"]


@pytest.fixture
def run(tmp_path):
    def run(documents=DOCUMENTS, workers=1, **settings):
        ledger = []
        questions = tmp_path / "questions.jsonl"
        questions.write_text(
            json.dumps({"passage": PASSAGE, "question": "Who was the best company?", "answer": "goat"})
        )
        settings = CleaningSettings(evaluation_sets=[str(questions)], **settings)
        return list(clean_documents(documents, settings, ledger, tmp_path / "work", workers=workers)), ledger

    return run


def without(step):
    return [name for name in STEPS if name != step]


def texts_of(kept):
    return {document.id: document.text for document in kept}


def test_all_steps_together_leave_the_good_documents(run):
    kept, ledger = run()
    assert [record.step for record in ledger] == list(STEPS)
    texts = texts_of(kept)
    assert list(texts) == GOOD
    assert texts["good"] == PROSE
    assert texts["markup"].startswith("A page. ")
    assert texts["normalize"] == f"A café in the town. {CLOCK}"
    assert texts["pii"].startswith("Write to [EMAIL], or not. ")
    assert PROSE not in texts["duplicate_paragraphs"]
    assert texts["duplicate_paragraphs"].endswith("\nSo it was said.")


@pytest.mark.parametrize("step", BAD)
def test_each_filter_drops_its_document_and_no_other_step_does(run, step):
    _, ledger = run()
    record = next(record for record in ledger if record.step == step)
    assert record.documents_in - record.documents_out == 1
    assert sum(record.reasons.values()) == 1
    if step == "exact_duplicates":  # its document is also nearly another, and a paragraph of another
        others = [name for name in STEPS if name not in ("exact_duplicates", "near_duplicates", "duplicate_paragraphs")]
        kept, _ = run(steps=others)
        assert [d.id for d in kept if d.id in BAD] == ["exact_duplicates", "near_duplicates"]
        kept, _ = run(steps=[*others[:-1], "exact_duplicates", "decontamination"])
        assert [d.id for d in kept if d.id in BAD] == ["near_duplicates"]
        return
    assert [d.id for d in run(steps=without(step))[0] if d.id in BAD] == [step]


@pytest.mark.parametrize(
    ("step", "remains"),
    [("markup", "<p>"), ("normalize", "Ã©"), ("pii", "jane.doe@"), ("duplicate_paragraphs", f"\n{PROSE}")],
)
def test_each_transformation_is_missed_when_it_is_switched_off(run, step, remains):
    assert not any(remains in document.text for document in run()[0])
    assert any(remains in document.text for document in run(steps=without(step))[0])


def test_what_was_changed_is_counted(run):
    ledger = {record.step: record for record in run()[1]}
    assert ledger["pii"].changes == {"email": 1}
    assert list(ledger["decontamination"].changes.values()) == [1]
    assert ledger["duplicate_paragraphs"].changes == {"paragraphs removed": 1}


def test_a_paragraph_of_a_document_that_is_gone_stays_in_the_next(run):
    documents = [RawDocument("a", SHORE), RawDocument("b", SHORE.upper()), RawDocument("c", f"{SHORE}\n{BREAD}")]
    assert texts_of(run(documents)[0]) == {"a": SHORE, "c": BREAD}
    assert texts_of(run(documents[1:])[0]) == {"b": SHORE.upper(), "c": BREAD}


def test_a_paragraph_that_went_with_a_near_duplicate_stays_where_it_stands_next(run):
    long = "\n".join([SHORE, BREAD, SNOW, CLOCK, GARDEN])
    only = " ".join(TRAIN.split()[:25])
    documents = [RawDocument("a", long), RawDocument("b", f"{long}\n{only}"), RawDocument("c", f"{PROSE}\n{only}")]
    assert texts_of(run(documents)[0]) == {"a": long, "c": f"{PROSE}\n{only}"}


def test_documents_that_removed_paragraphs_told_apart_are_compared_again(run):
    earlier = [RawDocument("a", SHORE), RawDocument("b", f"{BREAD}\n{SNOW}")]
    one = RawDocument("one", f"{SHORE}\n{GARDEN}")
    other = RawDocument("other", f"{BREAD}\n{SNOW}\n{GARDEN.replace('reward', 'price')}")
    kept, ledger = run([*earlier, one, other])
    assert texts_of(kept) == {"a": SHORE, "b": f"{BREAD}\n{SNOW}", "one": GARDEN}
    assert ledger[-1].reasons == {"nearly the text of an earlier document": 1}


def test_of_a_near_duplicate_nothing_is_left(run):
    text = "\n".join([SHORE, BREAD, SNOW, CLOCK, GARDEN])
    kept, _ = run([RawDocument("a", text), RawDocument("b", text.replace("uncle", "father"))])
    assert texts_of(kept) == {"a": text}


def test_the_ledger_adds_up(run):
    kept, ledger = run()
    assert ledger[0].documents_in == len(DOCUMENTS)
    assert ledger[0].bytes_in == sum(len(document.text.encode()) for document in DOCUMENTS)
    for before, after in pairwise(ledger):
        assert (after.documents_in, after.bytes_in) == (before.documents_out, before.bytes_out)
        assert after.tokens_in == before.tokens_out
    for record in ledger:
        assert record.documents_in == record.documents_out + sum(record.reasons.values())
    assert ledger[-1].documents_out == len(kept)
    assert ledger[-1].bytes_out == sum(len(document.text.encode()) for document in kept)
    assert ledger[-1].tokens_out == sum(len(document.text.split()) for document in kept)


def test_the_ledger_shows_examples_and_never_offensive_or_personal_ones(run):
    more = [RawDocument("shut up idiot", ABUSE), RawDocument("x", "#REDIRECT [[Shut up, idiot]]")]
    mail = RawDocument("to jane.doe@example.org", "Too short, jane.doe@example.org.")
    _, ledger = run([*DOCUMENTS, *more, mail])
    examples = {record.step: record.examples for record in ledger}
    assert examples["length"][0] == {"id": "length", "reason": "too few words", "text": BAD["length"].text}
    assert examples["length"][1] == {"id": "to [EMAIL]", "reason": "too few words", "text": "Too short, [EMAIL]."}
    assert "<script>" in examples["markup"][0]["before"]
    assert examples["inappropriate"] == [{"id": "[redacted]", "reason": "offensive language", "text": "[redacted]"}] * 2
    assert examples["redirect"][1] == {"id": "[redacted]", "reason": "a redirect", "text": "[redacted]"}
    for secret in ("idiot", "jane"):
        assert secret not in str(examples) + format_ledger(ledger)


@pytest.mark.parametrize(("size", "workers"), [(1, 1), (7, 1), (1000, 1), (50, 2)])
def test_the_result_does_not_depend_on_batches_and_workers(run, tmp_path, monkeypatch, size, workers):
    documents = [
        RawDocument(f"{i}-{d.id}", d.text + f"\n{PROSE[: i % 97]}", d.kind) for i in range(20) for d in DOCUMENTS
    ]
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 31)
    first = run(documents)
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", size)
    second = run(documents, workers=workers)
    assert first[0] == second[0]
    for a, b in zip(first[1], second[1], strict=True):
        a.seconds = b.seconds = 0
        assert a == b


def test_a_second_run_takes_over_the_first_ones_parts_unless_something_changed(run, tmp_path):
    def parts() -> dict:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.part")}

    kept, _ = run()
    done = parts()
    assert run()[0] == kept
    assert parts() == done
    assert len(run(min_words=5)[0]) == len(kept) + 1
    assert len(parts()) == 2 * len(done)
    run([*DOCUMENTS, RawDocument("new", SHORE)])
    assert len(parts()) > 2 * len(done)


def test_nothing_in_nothing_out(run):
    kept, ledger = run([])
    assert kept == []
    assert [(record.documents_in, record.documents_out) for record in ledger] == [(0, 0)] * len(STEPS)


def test_tokens_are_counted_with_a_tokenizer_on_request(run, tokenizer_dirs):
    from transformers import AutoTokenizer

    kept, ledger = run(count_tokens_with=str(tokenizer_dirs["gpt"]))
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dirs["gpt"])
    ids = tokenizer([document.text for document in kept], add_special_tokens=False)["input_ids"]
    assert ledger[-1].tokens_out == sum(map(len, ids)) > sum(len(document.text.split()) for document in kept)


def test_an_error_names_its_document(run, monkeypatch):
    def fails(text: str) -> None:
        raise ZeroDivisionError(text[:3])

    monkeypatch.setattr(filters, "redirect", fails)
    with pytest.raises(ZeroDivisionError) as error:
        run([RawDocument("the broken one", PROSE)])
    assert error.value.__notes__ == ["in document 'the broken one'"]


@pytest.mark.parametrize("steps", [["polish"], ["exact_duplicates", "markup"], ["near_duplicates", "exact_duplicates"]])
def test_wrong_steps_are_refused(steps):
    with pytest.raises(UserError, match="steps: "):
        CleaningSettings(steps=steps)


def test_every_step_there_is_can_run(run, tmp_path):
    good = [SHORE, BREAD, SNOW, CLOCK, GARDEN, TRAIN, PROSE] * 3
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good))
    steps = [step for step in (*STEPS, *OPTIONAL_STEPS) if step not in ACROSS_DOCUMENTS] + list(ACROSS_DOCUMENTS)
    _, ledger = run(steps=steps, perplexity_reference=str(tmp_path / "good.jsonl"))
    assert [record.step for record in ledger] == steps
    assert ledger[0].documents_in == len(DOCUMENTS)


def test_records_of_batches_add_up():
    record = StepRecord("x", documents_in=2, reasons={"a": 1}, changes={"b": 2}, examples=[{"id": "1"}])
    record.add(
        StepRecord("x", documents_in=3, reasons={"a": 1, "c": 1}, examples=[{"id": str(i)} for i in range(2, 9)])
    )
    assert record.documents_in == 5
    assert record.reasons == {"a": 2, "c": 1}
    assert record.changes == {"b": 2}
    assert [example["id"] for example in record.examples] == ["1", "2", "3"]
