"""What became of raw text on its way to a corpus? The record of clean.py read aloud, and one page that shows it."""

import difflib
import json
import math
import re
import unicodedata
from itertools import islice
from pathlib import Path

from lm_recipes.artifacts import write_text
from lm_recipes.text.ledger import StepRecord

LABEL = 56  # characters of a name beside a bar
REASONS = 24  # bars of a picture; the ledger has them all
UNREADABLE = 8  # entries of quarantine.jsonl shown
CUT = 70  # characters: a snippet this long was cut out of a longer text

DUPLICATES = {  # step -> what it finds
    "exact_duplicates": "the same text, but for case and punctuation",
    "duplicate_paragraphs": "paragraphs of an earlier document",
    "near_duplicates": "nearly the same text",
}
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # Unicode categories
FILTERS = {"length", "quality", "repetition", "language", "inappropriate", "c4", "c4_lines", "fineweb", "perplexity"}
# What a reader has to know: step -> (what it leaves where it ran, what follows where it did not).
LIMITS = {
    "language": (
        "Language is judged a document at a time: passages in other languages stay.",
        "Languages were not checked.",
    ),
    "inappropriate": (
        "Offensive language is judged by a small model and word lists, not by a reader: some stays, and some frank "
        "articles about sex or abuse are gone.",
        "Whole documents were not judged for offensive language.",
    ),
    "pii": (
        "Personal data is found by its form ({pii_types}): names, street addresses and whatever is written unusually "
        "stay.",
        "Personal data has not been removed.",
    ),
    "exact_duplicates": (
        "",
        "Copies were not removed: the same text may stand there many times (always in one split).",
    ),
    "duplicate_paragraphs": (
        "Paragraphs that stood in an earlier document were cut out: some texts have gaps.",
        "",
    ),
    "near_duplicates": (
        "Near-duplicates are found by MinHash: a few are missed, and documents with a Jaccard similarity below "
        "{near_duplicate_similarity} stay and may lie in different splits.",
        "Near-duplicates were not looked for: they stay, and may straddle train, validation and test.",
    ),
    "decontamination": (
        "Only the evaluation sets named here were looked for, and as runs of the same words: paraphrases and "
        "translations stay.",
        "It was not compared with any evaluation set: scores on public benchmarks may be too good.",
    ),
}


def ledger_of(record: dict) -> list[StepRecord]:
    """The steps of a results.json; what an older record lacks is zero or empty."""
    return [StepRecord(**entry) for entry in record["metrics"].get("ledger", [])]


def steps_that_ran(record: dict) -> dict[str, StepRecord]:
    """Name -> step, without those that had nothing to look for, or were passed by though there were documents."""
    left = sum(split["documents"] for split in record["metrics"]["splits"].values())
    ran = {entry.step: entry for entry in ledger_of(record) if entry.documents_in or not left}
    if not record["config"].get("evaluation_sets", True):
        ran.pop("decontamination", None)
    return ran


def counted_changes(record: dict, step: str) -> dict[str, int] | None:
    """What a step changed -> times, the most frequent first; None: it did not run."""
    ran = steps_that_ran(record)
    return _ranked(ran[step].changes) if step in ran else None


def totals(record: dict) -> dict[str, float | None]:
    """Documents, bytes and tokens in and out; wall-clock seconds; MB of raw text per second or None."""
    ledger, splits = ledger_of(record), record["metrics"]["splits"].values()
    out = {what: sum(split[what] for split in splits) for what in ("documents", "bytes")}
    seconds = sum(record["seconds"].values())
    bytes_in = ledger[0].bytes_in if ledger else out["bytes"]
    return {
        "documents_in": ledger[0].documents_in if ledger else out["documents"],
        "documents_out": out["documents"],
        "bytes_in": bytes_in,
        "bytes_out": out["bytes"],
        "tokens_in": ledger[0].tokens_in if ledger else 0,
        "tokens_out": _left_after_each(ledger, "tokens")[-1] if ledger else 0,
        "seconds": seconds,
        "speed": bytes_in / 1e6 / seconds if seconds else None,
    }


def token_name(record: dict) -> str:
    """What the ledger counted as tokens."""
    tokenizer = record["config"].get("count_tokens_with")
    return f"tokens of {tokenizer}" if tokenizer else "words"


def known_limits(source: dict[str, str], record: dict) -> list[str]:
    """A sentence for each thing the corpus is not good for, true for the steps that ran."""
    config, ran = record["config"], steps_that_ran(record).keys()
    named = {
        "pii_types": ", ".join(config.get("pii_types", ["e-mail", "phone", "card numbers, ..."])).replace("_", " "),
        "near_duplicate_similarity": config.get("near_duplicate_similarity", "the threshold"),
    }
    limits = [sentences[step not in ran].format(**named) for step, sentences in LIMITS.items()]
    if ran & FILTERS:
        limits.insert(0, "Filters are rules and small models: some bad documents stay, some good ones are gone.")
    else:
        limits.insert(0, "No filter for quality, language or content ran: documents are as good or bad as the source.")
    if not source.get("licence"):
        limits.insert(0, "The licence of the source is not stated: find out what it allows before sharing this.")
    if config.get("limit"):
        limits.append(f"Only the first {config['limit']:,} documents of the source were read.")
    if record["metrics"].get("quarantined"):
        limits.append(
            f"{record['metrics']['quarantined']:,} entries of the source could not be read and are missing; "
            "`quarantine.jsonl` says which."
        )
    if "normalize" in ran and config.get("normal_form") == "NFKC":
        limits.append("Compatibility forms were folded (NFKC): 10² reads 102.")
    limits.append("It says what its source said when it was collected, true or not.")
    return [limit for limit in limits if limit]


def write_corpus_report(directory: str | Path, source: dict[str, str], record: dict) -> None:
    """Write `directory/report.html`: the pictures are inside, no scripts, nothing is loaded from anywhere.

    Args:
        directory: of the corpus; the first entries of `quarantine.jsonl` are read from there if it exists.
        source: what `sources.describe` says.
        record: what `artifacts.write_results` returns, that is, results.json. Under `metrics`: `ledger` (StepRecords as
            dicts), `splits`, and where known `quarantined` (entries) and `lengths` (`edges` in words, `documents`
            from each edge on).
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("lm_recipes.reporting", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"comma": "{:,}".format, "size": as_size, "seconds": as_seconds, "reveal": reveal}
    page = environment.get_template("corpus.html.jinja").render(
        source=source,
        record=record,
        ledger=ledger_of(record),
        ran=steps_that_ran(record),
        totals=totals(record),
        tokens=token_name(record),
        pictures=pictures(record),
        personal=counted_changes(record, "pii"),
        contamination=counted_changes(record, "decontamination"),
        duplicates=DUPLICATES,
        limits=known_limits(source, record),
        unreadable=first_unreadable(directory),
        speed_of=speed_of,
        difference=difference,
        narrowing=narrowing,
    )
    write_text(Path(directory, "report.html"), page.encode("utf-8", "replace").decode())


def first_unreadable(directory: str | Path) -> list[dict[str, str]]:
    """The first entries of quarantine.jsonl: `where`, `reason`."""
    path = Path(directory, "quarantine.jsonl")
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return [json.loads(line) for line in islice(file, UNREADABLE)]


# --- pictures ---


def pictures(record: dict) -> dict[str, str]:
    """Name -> SVG; those with nothing to show are left out."""
    from lm_recipes.reporting import plots

    ledger, count = ledger_of(record), "{:,.0f}".format
    drawn = {}
    if ledger:
        panels = {
            "documents": (_left_after_each(ledger, "documents"), count),
            "text": (_left_after_each(ledger, "bytes"), as_size),
        }
        drawn["flow"] = plots.flow(["raw", *(label(e.step) for e in ledger), "corpus"], panels)
        drawn["time"] = plots.bars(
            [label(entry.step) for entry in ledger],
            [entry.seconds for entry in ledger],
            beside=[_time_and_speed(entry) for entry in ledger],
            unit="processor seconds, summed over workers",
            width=9,
        )
    for name, counts, unit in (
        ("reasons", _reasons(ledger), "documents dropped"),
        ("personal", counted_changes(record, "pii"), "pieces of personal data replaced"),
        ("contamination", counted_changes(record, "decontamination"), "documents with text of the set"),
    ):
        if counts:
            names = list(counts)[:REASONS]
            drawn[name] = plots.bars([label(n) for n in names], [counts[n] for n in names], unit=unit, width=9)
    lengths = record["metrics"].get("lengths")
    if lengths and any(lengths["documents"]):
        drawn["lengths"] = plots.columns(*_without_empty_ends(lengths), unit="words, from", count="documents")
    return drawn


def _left_after_each(ledger: list[StepRecord], what: str) -> list[int]:
    """What went in, what each step left (a step that saw no document left what came to it), and what came out."""
    amounts = [getattr(ledger[0], f"{what}_in")]
    for entry in ledger:
        amounts.append(getattr(entry, f"{what}_out") if entry.documents_in else amounts[-1])
    return [*amounts, amounts[-1]]


def _reasons(ledger: list[StepRecord]) -> dict[str, int]:
    return _ranked({f"{e.step}: {reason}": count for e in ledger for reason, count in e.reasons.items()})


def _ranked(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _without_empty_ends(lengths: dict[str, list[int]]) -> tuple[list[str], list[int]]:
    counts = lengths["documents"]
    filled = [i for i, count in enumerate(counts) if count]
    inside = slice(filled[0], filled[-1] + 1)
    return [f"{edge:,}" for edge in lengths["edges"][inside]], counts[inside]


def speed_of(entry: StepRecord) -> str:
    """MB of text per second of processor time, "" where too little time or text went by to tell."""
    speed = entry.megabytes_per_second
    if not math.isfinite(speed) or not speed:
        return ""
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"


def _time_and_speed(entry: StepRecord) -> str:
    speed = speed_of(entry)
    return as_seconds(entry.seconds) + (f"  ({speed} MB/s)" if speed else "")


# --- text ---


def label(name: str) -> str:
    """A name short enough to stand beside a bar."""
    name = reveal(name)
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"


def as_size(count: float) -> str:
    """Bytes as a reader wants them: 10519738 is 10.5 MB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= power:
            return f"{count / power:,.3g} {unit}" if count < 999.5 * power else f"{count / power:,.0f} {unit}"
    return f"{count:.0f} B"


def narrowing(before: float, after: float) -> str:
    """Two sizes in as little room as it takes: 10.5 → 7.11 MB."""
    (number, unit), end = as_size(before).split(), as_size(after)
    return f"{number} → {end}" if end.endswith(f" {unit}") else f"{number} {unit} → {end}"


def as_seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2f} s"


def reveal(text: str) -> str:
    """Text with what is invisible or turns the line around (zero-width, bidi, control characters) as [U+200B]."""
    return "".join(f"[U+{ord(c):04X}]" if unicodedata.category(c) in HIDDEN else c for c in text)


def difference(before: str, after: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    """Both texts in pieces (changed, text), so that a reader sees what a step did.

    Snippets begin just before the first change. Where both were cut, their ends differ for that reason alone and count
    as unchanged.
    """
    old, new = (re.findall(r"\w+|\s+|.", text) for text in (before, after))
    pieces = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    cut = min(len(before), len(after)) >= CUT and len(pieces) > 1
    sides: tuple[list, list] = [], []
    for number, (kind, *bounds) in enumerate(pieces, start=1):
        changed = kind != "equal" and not (cut and number == len(pieces))
        for side, words, (start, end) in zip(sides, (old, new), (bounds[:2], bounds[2:]), strict=True):
            if start < end:
                side.append((changed, reveal("".join(words[start:end]))))
    return sides
