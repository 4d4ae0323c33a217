"""The page and the card of a corpus say what the ledger says, of steps that ran and of steps that did not."""

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from lm_recipes.reporting import corpus
from lm_recipes.reporting.dataset_card import dataset_card
from lm_recipes.sources.archives import sha256
from lm_recipes.text.corpus import CorpusWriter
from lm_recipes.text.ledger import StepRecord

SOURCE = {
    "name": "demo:docstrings",
    "what": "docstrings of Python's standard library",
    "licence": "PSF-2.0",
    "homepage": "https://docs.python.org/3/",
    "archive": "python==3 --hash=sha256:abc",
    "size": "0.3 MB",
}
HOSTILE = '<script>alert("x")</script> & a|b `c` $\\frac$ \u202eevil\u200b \ud800'


def step(name: str, texts: list[str], kept: list[str], **what) -> StepRecord:
    """What a step that took `texts` and left `kept` writes down."""
    record = StepRecord(name, **{"seconds": 0.25} | what)
    for text in texts:
        record.enter(len(text.encode()), len(text.split()))
    for text in kept:
        record.leave(len(text.encode()), len(text.split()))
    return record


@pytest.fixture(scope="module")
def cleaned(documents, tmp_path_factory):
    """A directory with a corpus of real documents, two thirds of them kept, and its record."""
    directory = tmp_path_factory.mktemp("report") / "corpus"
    directory.mkdir()
    raw = documents[:60]
    long = [text for text in raw if len(text.split()) >= 50]
    unquoted = [text.replace("'", "") for text in long]
    short = {"id": "doc-1", "reason": "too few words", "text": raw[0][:80]}
    change = {"id": "doc-2", "before": "it's a `list' of", "after": "its a `list of"}
    ledger = [
        step("length", raw, long, reasons={"too few words": len(raw) - len(long)}, examples=[short]),
        step("normalize", long, unquoted, changes={"quotes dropped": 77}, examples=[change]),
        step("pii", unquoted, unquoted, changes={"EMAIL": 12, "PHONE": 31}),
        step("exact_duplicates", unquoted, unquoted[:-3], reasons={"the text of an earlier document": 3}, seconds=0.0),
        step("decontamination", unquoted[:-3], unquoted[:-4], changes={"demo:movie-reviews": 4, "trivia": 0}),
    ]
    with CorpusWriter(directory) as writer:
        for number, text in enumerate(unquoted[:-4]):
            writer.write("test" if number % 5 == 0 else "train", str(number), text)
    splits = {name: n | {"sha256": sha256(directory / f"{name}.parquet")} for name, n in writer.splits.items()}
    return directory, record_of(ledger, splits, directory)


def record_of(ledger: list[StepRecord], splits: dict, output_dir="runs/x/corpus", **metrics) -> dict:
    config = {"source": "demo:docstrings", "output_dir": str(output_dir), "limit": None, "seed": 0}
    config |= {"evaluation_sets": ["demo:movie-reviews", "trivia"]}
    config |= {"steps": [entry.step for entry in ledger], "languages": ["en"], "min_words": 50}
    return {
        "command": "python recipes/corpus/clean.py --source demo:docstrings",
        "config": config,
        "inputs": {"source": {"path": "demo:docstrings", "fingerprint": None}},
        "metrics": {"ledger": [asdict(entry) for entry in ledger], "splits": splits, **metrics},
        "seconds": {"clean": 2.0},
        "versions": {"datasets": "5.2.0"},
        "machine": {"cpus": 2, "processor": "x86_64", "python": "3.11"},
        "finished": "2026-01-01T00:00:00Z",
    }


def splits_of(documents: int) -> dict:
    return {name: {"documents": documents, "bytes": 10 * documents, "sha256": "0" * 64} for name in ("train", "test")}


@pytest.fixture(scope="module")
def page(cleaned):
    """The page of `cleaned`: as it is written, and as it is read."""
    return page_of(*cleaned)


class Reader(HTMLParser):
    """What a browser makes of a page: its elements, and its text without the pictures' numbers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.shown: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.shown.append(data)


def page_of(directory, record, source=SOURCE) -> tuple[str, Reader]:
    corpus.write_corpus_report(directory, source, record)
    page = (directory / "report.html").read_text(encoding="utf-8")
    return page, Reader(page)


def card_of(directory, record, source=SOURCE) -> DatasetCard:
    dataset_card(directory, source, record)
    return DatasetCard.load(directory / "README.md")


def test_the_page_shows_every_number_of_the_ledger(cleaned, page):
    (_, record), (_, page) = cleaned, page
    for entry in record["metrics"]["ledger"]:
        for key in ("documents_in", "bytes_in", "bytes_out", "tokens_out"):
            assert f"{entry[key]:,}" in page.text, (entry["step"], key)
    for split in record["metrics"]["splits"].values():
        assert split["sha256"] in page.text
    first, total = record["metrics"]["ledger"][0], corpus.totals(record)
    assert f"{first['documents_in']} → {total['documents_out']}" in page.text
    assert f"{first['bytes_in'] / 1e6 / 2.0:.2f} MB of raw text a second" in page.text
    assert f"{first['bytes_in'] / 1e6 / 0.25:.2g} MB/s" in page.text  # of the step's own time, in the picture
    assert "43 pieces were replaced" in page.text
    assert "normalize quotes dropped 77" in page.text
    assert "paragraphs of an earlier document not looked for" in page.text
    assert "PSF-2.0" in page.text
    assert record["command"] in page.text


def test_totals_come_from_the_first_step_and_the_files(cleaned):
    _, record = cleaned
    total, ledger = corpus.totals(record), record["metrics"]["ledger"]
    assert total["documents_in"] == 60
    assert total["documents_out"] == ledger[-1]["documents_out"] > 10
    assert total["bytes_out"] == ledger[-1]["bytes_out"]
    assert total["speed"] == pytest.approx(ledger[0]["bytes_in"] / 1e6 / 2.0)


def test_the_page_needs_nothing_but_itself(page):
    _, page = page
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("href", "src")
    ]
    assert addresses == [SOURCE["homepage"]]


def test_a_change_is_marked_where_it_happened(page):
    page, _ = page
    assert "<del>it&#39;s</del> a " in page
    assert "<ins>its</ins> a " in page
    before, after = corpus.difference("keep this word", "keep that word")
    assert before == [(False, "keep "), (True, "this"), (False, " word")]
    assert after == [(False, "keep "), (True, "that"), (False, " word")]


def test_where_snippets_were_cut_is_no_change():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    before, after = corpus.difference(f"<b>{text}"[:80], text[:80])
    assert before[0] == (True, "<b>")
    assert not any(changed for changed, _ in before[1:] + after)


def test_a_hostile_text_is_shown_and_does_nothing(tmp_path):
    long = HOSTILE + "x" * 300
    ledger = [
        step(
            "length", ["a", "b"], ["a"], reasons={HOSTILE: 1}, examples=[{"id": long, "reason": HOSTILE, "text": long}]
        ),
        step("pii", ["a"], ["a"], changes={HOSTILE: 3, long: 1}, examples=[{"id": "1", "before": long, "after": "y"}]),
        step(long, ["a"], ["a"]),
        step("decontamination", ["a"], ["a"], changes={long: 2}),
    ]
    (tmp_path / "quarantine.jsonl").write_text(json.dumps({"where": long, "reason": HOSTILE}) + "\n")
    record = record_of(ledger, splits_of(1), quarantined=1)
    source = SOURCE | {"name": long, "what": HOSTILE, "licence": "mine: ---\n*all*", "homepage": "javascript:alert(1)"}
    page, reader = page_of(tmp_path, record, source)
    assert "script" not in {tag for tag, _ in reader.elements}
    assert "javascript:" not in {value for _, attributes in reader.elements for value in attributes.values()}
    assert '<script>alert("x")</script>' in reader.text
    assert "\u202e" not in page.split("<main>")[1].split("Examples")[1].split("Known limits")[0]
    assert "[U+202E]evil[U+200B]" in reader.text
    record["command"] = "python clean.py"
    card = card_of(tmp_path, record, source)
    assert card.data.license_name == "mine-all"
    assert "<script" not in re.sub(r"`[^`]*`", "", card.text.replace("\\<", "").replace("\\`", ""))
    assert "\u202e" not in re.sub(r"`[^`]*`", "", card.text)
    rows = [line for line in card.text.splitlines() if line.startswith("| `length`")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 6


def test_steps_without_documents_are_shown_without_infinities(tmp_path):
    ledger = [
        step("length", ["a b"], [], reasons={"too few words": 1}, seconds=0.0),
        step("language", [], [], seconds=0.0),
        step("pii", [], [], seconds=0.0),
        step("near_duplicates", [], [], seconds=0.0),
        step("decontamination", [], []),
    ]
    record = record_of(ledger, splits_of(0), lengths={"edges": [1, 2, 4], "documents": [0, 0, 0]})
    record["seconds"] = {"clean": 0.0}
    page, reader = page_of(tmp_path, record)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page)
    assert "Looked for; none found" in reader.text
    card = card_of(tmp_path, record)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", card.content)


@pytest.mark.parametrize("ledger", [[], [step("redirect", ["a"], ["a"])]])
def test_what_was_not_done_is_said(tmp_path, ledger):
    record = record_of(ledger, splits_of(3))
    _, page = page_of(tmp_path, record, SOURCE | {"licence": ""})
    card = card_of(tmp_path, record, SOURCE | {"licence": ""})
    for text in (page.text, card.text):
        assert "Personal data has not been removed" in text
        assert "may straddle train, validation and test" in text
        assert "scores on public benchmarks may be too good" in text
        assert "licence of the source is not stated" in text
    assert "Not removed: the step `pii` did not run" in card.text
    assert "Not compared with any: the step `decontamination` did not run" in card.text
    assert card.data.license == "unknown"
    assert card.data.language is None  # nobody looked


def test_a_record_from_before_tokens_were_counted_is_shown(tmp_path):
    record = record_of([step("length", ["a b"], ["a b"])], splits_of(1))
    for key in ("tokens_in", "tokens_out", "changes"):
        del record["metrics"]["ledger"][0][key]
    _, page = page_of(tmp_path, record)
    assert "words out" not in page.text


def test_limits_follow_the_steps():
    steps = ["length", "language", "inappropriate", "pii", "exact_duplicates", "near_duplicates", "decontamination"]
    record = record_of([step(name, ["a"], ["a"]) for name in steps], splits_of(1))
    record["config"] |= {"near_duplicate_similarity": 0.75, "pii_types": ["email", "ip_address"]}
    done = " ".join(corpus.known_limits(SOURCE, record))
    assert "has not been removed" not in done
    assert "not looked for" not in done
    assert "below 0.75" in done
    assert "(email, ip address)" in done
    record = record_of([step("length", ["a"], ["a"])], splits_of(1), quarantined=1234)
    record["config"]["limit"] = 5000
    some = " ".join(corpus.known_limits(SOURCE, record))
    assert "first 5,000 documents" in some
    assert "1,234 entries" in some


def test_a_step_that_was_passed_by_did_not_run(tmp_path):
    ledger = [step("length", ["a", "b"], ["a"]), StepRecord("decontamination"), step("pii", ["a"], ["a"])]
    _, page = page_of(tmp_path, record_of(ledger, splits_of(1)))
    assert "Not compared with any" in page.text
    assert "raw length decontamination pii corpus" in page.text
    assert "+1" not in page.text  # no document comes back after the step that saw none
    ledger[1] = step("decontamination", ["a"], ["a"])
    record = record_of(ledger, splits_of(1))
    assert "decontamination" in corpus.steps_that_ran(record)
    record["config"]["evaluation_sets"] = []
    assert "decontamination" not in corpus.steps_that_ran(record)


def test_lengths_are_drawn_from_the_first_to_the_last_filled_bin(tmp_path):
    lengths = {"edges": [1, 2, 4, 8, 16, 32], "documents": [0, 0, 40, 0, 2, 0]}
    picture = corpus.pictures(record_of([], splits_of(1), lengths=lengths))["lengths"]
    assert [edge for edge in ("1", "2", "4", "8", "16", "32") if f">{edge}</text>" in picture] == ["4", "8", "16"]
    assert "lengths" not in corpus.pictures(record_of([], splits_of(1)))


def test_entries_that_could_not_be_read_are_listed_and_counted(tmp_path):
    lines = [json.dumps({"where": f"rows.jsonl:{n}", "reason": "not valid JSON"}) for n in range(500)]
    (tmp_path / "quarantine.jsonl").write_text("\n".join(lines))
    _, page = page_of(tmp_path, record_of([], splits_of(1), quarantined=500))
    assert "500 entries" in page.text
    assert "rows.jsonl:0" in page.text
    assert "rows.jsonl:499" not in page.text


def test_the_same_record_gives_the_same_page(cleaned, page):
    directory, record = cleaned
    assert page_of(directory, json.loads(json.dumps(record)))[0] == page[0]


def test_the_card_loads_the_corpus_with_its_splits(cleaned):
    directory, record = cleaned
    card = card_of(directory, record)
    assert card.data.configs[0]["data_files"][0] == {"split": "train", "path": "train.parquet"}
    assert card.data.task_categories == ["text-generation", "fill-mask"]
    assert card.data.size_categories == ["n<1K"]
    assert (card.data.license, card.data.license_name) == ("other", "psf-2.0")
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
    namespace = {}
    exec(code, namespace)  # what the card tells its reader to do
    assert {name: len(rows) for name, rows in namespace["corpus"].items()} == {
        name: split["documents"] for name, split in record["metrics"]["splits"].items() if name != "validation"
    }
    assert load_dataset(str(directory), split="test")[0]["id"] == "0"


def test_a_corpus_made_anew_is_not_answered_with_the_old_one(tmp_path):
    """datasets keeps what it loaded under the directory's name, wherever that is and whatever it holds now."""
    for text in ("old", "new"):
        directory = tmp_path / text / "corpus"
        directory.mkdir(parents=True)
        with CorpusWriter(directory) as writer:
            writer.write("train", "1", f"{text} {tmp_path}")
        splits = {name: n | {"sha256": sha256(directory / f"{name}.parquet")} for name, n in writer.splits.items()}
        dataset_card(directory, SOURCE, record_of([], splits, directory))
        assert load_dataset(str(directory), split="train")["text"][:] == [f"{text} {tmp_path}"]


def test_the_card_says_what_each_step_removed(cleaned):
    directory, record = cleaned
    text = card_of(directory, record).text
    first = record["metrics"]["ledger"][0]
    removed = [first[f"{what}_in"] - first[f"{what}_out"] for what in ("documents", "bytes", "tokens")]
    assert f"| `length` | {' | '.join(f'{n:,}' for n in removed)} | too few words {removed[0]} |" in text
    assert "| PHONE | 31 |\n| EMAIL | 12 |" in text
    assert "| demo:movie-reviews | 4 |\n| trivia | 0 |" in text
    assert "Looked for: demo:movie-reviews, trivia.\n" in text
    assert "(`exact_duplicates`): 3 documents dropped" in text
    assert "(`near_duplicates`): not looked for" in text
    assert "--hash=sha256:abc" in text
    assert record["command"] in text


@pytest.mark.parametrize(
    ("stated", "identifier"),
    [("CC BY-SA 4.0", "cc-by-sa-4.0"), ("MIT", "mit"), ("Apache-2.0", "apache-2.0"), ("GFDL / CC BY-SA", "other")],
)
def test_a_licence_becomes_the_identifier_of_the_hub(tmp_path, stated, identifier):
    card = card_of(tmp_path, record_of([], splits_of(1)), SOURCE | {"licence": stated})
    assert card.data.license == identifier


def test_sizes_are_written_for_reading():
    sizes = [0, 999, 1000, 10_519_738, 999_600_000, 2e9]
    assert [corpus.as_size(n) for n in sizes] == ["0 B", "999 B", "1 kB", "10.5 MB", "1,000 MB", "2 GB"]
    assert corpus.narrowing(10_519_738, 7_106_380) == "10.5 → 7.11 MB"
    assert corpus.narrowing(10_519_738, 640) == "10.5 MB → 640 B"
