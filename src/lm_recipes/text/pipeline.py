"""In which order do the steps of stage 1 run, over all workers, with every document accounted for?

1. One document at a time (steps.py), in batches, wherever `executors.in_order` runs them; each batch becomes a part on
   disk (parts.py). A killed run finds its parts again.
2. Across documents (dedup.py): the small columns of all parts decide, in document order, what stood before.
3. The documents that are left are read back from the parts, in their order.

The result depends on the documents, the settings and this code alone.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lm_recipes.sources.documents import RawDocument
from lm_recipes.text import dedup, parts
from lm_recipes.text.decontamination import Matches, common_ngrams, decontaminate
from lm_recipes.text.executors import in_order
from lm_recipes.text.ledger import EXAMPLES, StepRecord
from lm_recipes.text.settings import CleaningSettings
from lm_recipes.text.steps import Cleaner, add_example, clean_batch, replace_texts

logger = logging.getLogger(__name__)

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000

Run = Callable[[Callable, Cleaner, Iterable], Iterator]


class CleanDocument(NamedTuple):
    """A document that came through. `key` is equal for documents that differ only in case and punctuation."""

    id: str
    text: str
    key: bytes


def clean_documents(
    documents: Iterable[RawDocument],
    settings: CleaningSettings,
    ledger: list[StepRecord],
    work: Path,
    executor: str = "processes",
    workers: int = 1,
) -> Iterator[CleanDocument]:
    """The documents that every step keeps, cleaned, in their order.

    Args:
        ledger: an empty list; it has one record per step when the first document comes.
        work: a directory for parts. Those that an interrupted run left there are used.
    """
    cleaner = Cleaner.prepare(settings)
    run = partial(in_order, executor=executor, workers=workers)
    corpus = parts.Parts(list(_make_parts(documents, cleaner, work, run)))
    ledger += [StepRecord(step) for step in settings.steps]
    for path in corpus.paths:
        for record, addition in zip(ledger, parts.ledger_of(path), strict=True):
            record.add(addition)
    keep = np.ones(len(corpus), dtype=bool)
    rewrite = partial(_rewrite, corpus=corpus, cleaner=cleaner, work=work, run=run)
    across = {
        "exact_duplicates": _drop_exact_duplicates,
        "decontamination": partial(_decontaminate, cleaner=cleaner, rewrite=rewrite),
        "near_duplicates": partial(_drop_near_duplicates, settings=settings, work=work),
        "duplicate_paragraphs": partial(_remove_paragraphs, rewrite=rewrite),
    }
    for record in ledger:
        if record.step in across:
            start = time.process_time()
            across[record.step](corpus, keep, record)
            record.seconds += time.process_time() - start
    yield from _kept(corpus, keep)


# --- 1. one document at a time ---


def _make_parts(documents: Iterable[RawDocument], cleaner: Cleaner, work: Path, run: Run) -> Iterator[Path]:
    """The paths of all parts, in order, when they are on disk."""
    work.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    missing: list[Path] = []

    def unfinished() -> Iterator[list[RawDocument]]:
        for number, batch in enumerate(_batches(documents)):
            path = work / f"{number:08}-{parts.digest(batch, cleaner.recipe)}.part"
            paths.append(path)
            if not path.exists():
                missing.append(path)
                yield batch

    for number, part in enumerate(run(clean_batch, cleaner, unfinished())):
        parts.write(missing[number], part)
    if len(missing) < len(paths):
        logger.info("of %d batches %d were done before", len(paths), len(paths) - len(missing))
    yield from paths


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


# --- 2. across documents: each changes `keep`, bool [N], and fills its record ---


def _drop_exact_duplicates(corpus: parts.Parts, keep: np.ndarray, record: StepRecord) -> None:
    keys = np.concatenate([np.empty(0, "V16"), *(_bytes16(part) for part in corpus.column("key"))])
    _account(corpus, keep, record, {"the text of an earlier document": dedup.first_occurrences(keys)})


def _bytes16(column) -> np.ndarray:
    return np.frombuffer(column.buffers()[1], dtype="V16", count=len(column), offset=16 * column.offset)


def _decontaminate(
    corpus: parts.Parts, keep: np.ndarray, record: StepRecord, cleaner: Cleaner, rewrite: Callable
) -> None:
    """Treat what the workers found of evaluation sets, except phrases that stand in many documents."""
    found = {}
    for start, column in zip(corpus.starts, corpus.column("matches"), strict=False):
        for row in np.flatnonzero(column.value_lengths().to_numpy()):
            if keep[start + row]:
                found[int(start + row)] = Matches(*column[row].values.to_numpy().reshape(3, -1))
    common = common_ngrams((matches.ngrams for matches in found.values()), cleaner.settings.common_overlap_documents)
    found = {document: matches.without(common) for document, matches in found.items()}
    found = {document: matches for document, matches in found.items() if len(matches.ngrams)}
    hits = Counter(name for matches in found.values() for name in cleaner.evaluation.count(matches.ngrams))
    record.changes |= {name: hits[name] for name in cleaner.settings.evaluation_sets}
    texts = ((d, decontaminate(corpus.text(d), found[d], cleaner.settings.contaminated)) for d in sorted(found))
    rewrite(texts, keep, record, "little but text of an evaluation set")


def _remove_paragraphs(corpus: parts.Parts, keep: np.ndarray, record: StepRecord, rewrite: Callable) -> None:
    """Take paragraphs that stood in an earlier document out of the texts."""
    lengths, keys = [], []
    for column in corpus.column("paragraphs"):
        lengths.append(column.value_lengths().to_numpy())
        keys.append(column.flatten().to_numpy())
    lengths = np.concatenate([np.empty(0, np.int64), *lengths]).astype(np.int64)
    keys = np.concatenate([np.empty(0, np.uint64), *keys])
    keys[np.repeat(~keep, lengths)] = 0  # what is gone already is no reason for a later one to go
    ends = np.cumsum(lengths)
    repeated = dedup.duplicate_paragraphs(keys)
    record.changes["paragraphs removed"] = int(repeated.sum())

    def without_repeated(document: int) -> str:
        gone = repeated[ends[document] - lengths[document] : ends[document]]
        lines = corpus.text(document).split("\n")
        return "\n".join(line for line, drop in zip(lines, gone, strict=True) if not drop).strip("\n")

    touched = np.unique(np.searchsorted(ends, np.flatnonzero(repeated), side="right"))
    rewrite(((int(d), without_repeated(d)) for d in touched), keep, record, "too little is left")


def _rewrite(
    texts: Iterable[tuple[int, str]],
    keep: np.ndarray,
    record: StepRecord,
    reason: str,
    corpus: parts.Parts,
    cleaner: Cleaner,
    work: Path,
    run: Run,
) -> None:
    """Give documents new texts, and drop those whose new text is too short to stay.

    What distinguished two documents may be gone: near-duplicates are looked for once more where they already were.

    Args:
        texts: document and text, in the order of the documents.
    """
    before = parts.Parts(list(corpus.paths))
    numbers: list[int] = []

    def tasks() -> Iterator[tuple]:
        for part, group in groupby(texts, key=lambda item: corpus.part_of(item[0])):
            numbers.append(part)
            yield corpus.rows(part), {document - int(corpus.starts[part]): text for document, text in group}

    for number, data in enumerate(run(replace_texts, cleaner, tasks())):
        part = numbers[number]  # its texts have been read, and are read no more
        path = work / f"{before.paths[part].stem}.{record.step}"
        parts.write(path, data)
        corpus.replace(part, path)
    stays = {reason: corpus.numbers("bytes") > 0}
    steps = cleaner.settings.steps
    if numbers and "near_duplicates" in steps[: steps.index(record.step)]:
        stays[NEARLY] = _singles(corpus, keep & stays[reason], cleaner.settings, work)
    _account(corpus, keep, record, stays, before)


NEARLY = "nearly the text of an earlier document"


def _drop_near_duplicates(
    corpus: parts.Parts, keep: np.ndarray, record: StepRecord, settings: CleaningSettings, work: Path
) -> None:
    _account(corpus, keep, record, {NEARLY: _singles(corpus, keep, settings, work)})


def _singles(corpus: parts.Parts, keep: np.ndarray, settings: CleaningSettings, work: Path) -> np.ndarray:
    """Which documents are no near-duplicates of an earlier one that stays: bool [N], True where `keep` is not."""
    documents = np.flatnonzero(keep)  # only what is still there: a document goes for one that stays
    threshold = settings.near_duplicate_similarity

    @lru_cache(maxsize=4096)
    def shingles(number: int) -> np.ndarray:
        return dedup.shingles(corpus.text(documents[number]))

    bands = _bands(corpus, keep, work / "bands.npy", dedup.bands_and_rows(threshold)[0])
    twins = dedup.near_duplicates(bands, threshold, lambda a, b: dedup.jaccard(shingles(a), shingles(b)))
    single = np.ones(len(corpus), dtype=bool)
    single[documents[twins >= 0]] = False
    return single


def _bands(corpus: parts.Parts, keep: np.ndarray, file: Path, bands: int) -> np.ndarray:
    """The signatures of kept documents, a row for each band: uint64 [bands, N], mapped from a file, so that the
    comparison holds one band in memory at a time."""
    columns = np.lib.format.open_memmap(file, "w+", np.uint64, (bands, max(int(keep.sum()), 1)))
    filled = 0
    for start, column in zip(corpus.starts, corpus.column("signature"), strict=False):
        rows = column.flatten().to_numpy().reshape(-1, bands)[keep[start : start + len(column)]]
        columns[:, filled : filled + len(rows)] = rows.T
        filled += len(rows)
    return columns[:, :filled]


def _account(
    corpus: parts.Parts,
    keep: np.ndarray,
    record: StepRecord,
    stays: dict[str, np.ndarray],
    before: parts.Parts | None = None,
) -> None:
    """Narrow `keep` and fill the record.

    Args:
        stays: reason to drop -> bool [N], False for those it holds for.
        before: the documents as the step found them, if it changed any.
    """
    before = before or corpus
    record.documents_in, record.bytes_in, record.tokens_in = _totals(before, keep)
    for reason, staying in stays.items():
        dropped = np.flatnonzero(keep & ~staying)
        for document in dropped[:EXAMPLES]:
            add_example(record, before.id(document), reason=reason, text=before.text(document)[:1000])
        if len(dropped):
            record.reasons[reason] = len(dropped)
        keep &= staying
    record.documents_out, record.bytes_out, record.tokens_out = _totals(corpus, keep)


def _totals(corpus: parts.Parts, keep: np.ndarray) -> list[int]:
    return [int(keep.sum()), *(int(corpus.numbers(name)[keep].sum()) for name in ("bytes", "tokens"))]


# --- 3. what is left ---


def _kept(corpus: parts.Parts, keep: np.ndarray) -> Iterator[CleanDocument]:
    with tqdm(total=int(keep.sum()), desc="writing", unit=" documents") as bar:
        for part in range(len(corpus.paths)):
            table = corpus.rows(part).select(["id", "text", "key"])
            table = table.filter(keep[corpus.starts[part] : corpus.starts[part + 1]])
            for row in table.to_pylist():
                yield CleanDocument(row["id"], row["text"], row["key"])
            bar.update(len(table))
