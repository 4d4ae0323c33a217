"""Which tag does each word of a sentence carry, and in which split is the sentence?"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from lm_recipes.launch import UserError
from lm_recipes.sources import describe, load_table
from lm_recipes.sources.conll import column_files, read_column_files
from lm_recipes.sources.splits import split_of
from lm_recipes.sources.tag_schemes import marks_entities, to_iob2

if TYPE_CHECKING:
    from datasets import DatasetDict

logger = logging.getLogger(__name__)


class Tagged(NamedTuple):
    """Splits `train`, `validation` and `test` with columns `tokens` (words) and `tags` (ids, one a word)."""

    splits: "DatasetDict"
    names: list[str]  # of the tags, by id
    rewritten: int  # words whose tag another scheme than IOB2 had written


class Sentence(NamedTuple):
    """A row as it was read: `where` and `row` are how errors name it."""

    tokens: list[str]
    tags: list[str]
    where: str
    row: int

    def fault(self, what: str) -> UserError:
        return UserError(f"{self.where}: row {self.row}: {what}")


def load_tagged(
    source: str,
    *,
    tokens_column: str = "tokens",
    tags_column: str = "tags",
    own_splits: dict[str, str | None] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Tagged:
    """Sentences of words with a tag each, in three splits.

    A split the source does not have is taken out of its training rows by a hash of the words, so that it does not
    depend on order and equal sentences never straddle; training rows that also stand in a held-out split are left out.
    Tags that mark entities come back as IOB2 whatever scheme they were written in (`tag_schemes.to_iob2`): an I- that
    begins an entity, as in CoNLL-2003's own files, becomes the B- it stands for. Entity scores do not change by that.

    Args:
        source: what `sources.load_table` takes, with a list of words and a list of tags (texts, numbers or a
            ClassLabel's ids) a row; or files of columns (`sources.conll`), whose columns need no names.
        own_splits: the source's names for "train", "validation" and "test"; None for those it does not have.
        validation, test: shares of the training rows to take where the source has no such split.

    Raises:
        UserError: naming source, row and column: no words, words and tags of different number, a word or tag that is
            missing, a tag that does not fit among entity tags, or one that no training row has.
    """
    own = {name: split for name, split in (own_splits or {}).items() if split}
    whole = list(_read(source, own.get("train"), tokens_column, tags_column))
    parts = {
        name: list(_read(source, own[name], tokens_column, tags_column))
        for name in ("validation", "test")
        if name in own
    }
    rewritten = _normalize([*whole, *chain(*parts.values())])
    held_out = {_key(sentence) for part in parts.values() for sentence in part}
    shares = ({"validation": validation, "test": test} | dict.fromkeys(parts, 0.0)).values()
    splits: dict[str, list[Sentence]] = {"train": [], "validation": [], "test": []}
    for sentence in whole:
        key = _key(sentence)
        if key not in held_out:
            splits[split_of(key, *shares, seed)].append(sentence)
    splits |= parts
    names = _names(splits, source, tags_column)
    return Tagged(_with_ids(splits, names), names, rewritten)


def describe_tagged(source: str, split: str | None = None) -> dict[str, str]:
    """`sources.describe`, which does not know files of columns; those are described as such."""
    if column_files(source, split) is None:
        return describe(source)
    known = {"name": source, "what": "sentences in files with a word and its tag a line"}
    return known | dict.fromkeys(("licence", "homepage", "archive", "size"), "")


def _read(source: str, split: str | None, tokens_column: str, tags_column: str) -> Iterator[Sentence]:
    from datasets import Dataset

    where = f"{source}@{split}" if split else source
    found = column_files(source, split)
    if found is not None:
        tokens_column, tags_column = "tokens", "tags"
        rows = read_column_files(found, source)
        if not rows:
            raise UserError(f"{where}: no sentences")
        table = Dataset.from_list(rows)
    else:
        table = load_table(source, split)
    for column, flag in ((tokens_column, "--tokens_column"), (tags_column, "--tags_column")):
        if column not in table.column_names:
            raise UserError(f"{where}: no column `{column}`; it has {', '.join(table.column_names)} ({flag})")
    ids = getattr(getattr(table.features[tags_column], "feature", None), "names", None)  # of a ClassLabel
    columns = zip(list(table[tokens_column]), list(table[tags_column]), strict=True)
    for row, (tokens, tags) in enumerate(columns, start=1):
        sentence = Sentence(tokens, tags, where, row)
        _check(sentence, tokens_column, tags_column)
        yield sentence._replace(tags=[_tag(sentence, place, ids, tags_column) for place in range(len(tags))])


def _check(sentence: Sentence, tokens_column: str, tags_column: str) -> None:
    for column, values in ((tokens_column, sentence.tokens), (tags_column, sentence.tags)):
        if not isinstance(values, list):
            kind = "empty" if values is None else f"a {type(values).__name__}"
            raise sentence.fault(
                f"`{column}` is {kind}; it must be a list with an entry a word (.jsonl and .parquet rows hold lists, "
                ".csv cells do not; a file with a word and its tag a line may end in .tsv or .conll)"
            )
    if not sentence.tokens:
        raise sentence.fault(f"no words in `{tokens_column}`; leave the row out")
    if len(sentence.tokens) != len(sentence.tags):
        raise sentence.fault(
            f"{len(sentence.tokens)} words in `{tokens_column}`, {len(sentence.tags)} tags in `{tags_column}`; "
            "each word needs one tag"
        )
    for number, word in enumerate(sentence.tokens, start=1):
        if not isinstance(word, str) or not word.strip():
            raise sentence.fault(f"word {number} of `{tokens_column}` is {word!r}; leave it and its tag out")


def _tag(sentence: Sentence, place: int, names: list[str] | None, column: str) -> str:
    tag = sentence.tags[place]
    if names is not None and tag is not None:
        tag = names[tag] if 0 <= tag < len(names) else None
    if tag is None or isinstance(tag, list | dict) or not str(tag).strip():
        raise sentence.fault(f"tag {place + 1} of `{column}` is {sentence.tags[place]!r}; tag the word or leave it out")
    return str(tag)


def _normalize(sentences: list[Sentence]) -> int:
    """Entity tags to IOB2, in place; returns for how many words that changed the tag."""
    if not any(re.match("[BI]-.", tag) for sentence in sentences for tag in sentence.tags):
        return 0
    for sentence in sentences:
        for tag in sentence.tags:
            if not marks_entities([tag, "B-type"]):
                raise sentence.fault(f"tag `{tag}` is not O, B-type or I-type as other tags are (nor IOBES); mend it")
    changed = 0
    for sentence in sentences:
        written = to_iob2(sentence.tags)
        changed += sum(one != other for one, other in zip(sentence.tags, written, strict=True))
        sentence.tags[:] = written
    if changed:
        logger.info("tags    %s of other schemes than IOB2 rewritten, mostly I- that begins an entity", f"{changed:,}")
    return changed


def _key(sentence: Sentence) -> str:
    """Sentences as they are compared: neither case nor spacing makes a copy a new one."""
    return " ".join(" ".join(sentence.tokens).casefold().split())


def _names(splits: dict[str, list[Sentence]], source: str, column: str) -> list[str]:
    """The tags of the training rows: O first, then by type, so that B-x and I-x stand together."""
    for split, sentences in splits.items():
        if not sentences:
            raise UserError(f"{source}: no rows for the {split} split; give more rows or a larger share")
    counts = Counter(tag for sentence in splits["train"] for tag in sentence.tags)
    names = sorted(counts, key=lambda tag: (tag != "O", tag.partition("-")[2], tag))
    if not 2 <= len(names) <= max(2, counts.total() // 2):
        raise UserError(
            f"{source}: column `{column}` holds {len(names)} different tags on {counts.total()} words; tags are "
            "needed that many words share: name their column with --tags_column"
        )
    for sentence in chain(splits["validation"], splits["test"]):
        unknown = next((tag for tag in sentence.tags if tag not in counts), None)
        if unknown is not None:
            raise sentence.fault(
                f"tag `{unknown}` of `{column}` stands in no training row, so it cannot be learned; add rows with it "
                "to the training split, or give the word another tag"
            )
    return names


def _with_ids(splits: dict[str, list[Sentence]], names: list[str]) -> "DatasetDict":
    from datasets import Dataset, DatasetDict

    ids = {name: number for number, name in enumerate(names)}

    def columns(sentences: list[Sentence]) -> dict[str, list]:
        return {
            "tokens": [sentence.tokens for sentence in sentences],
            "tags": [[ids[tag] for tag in sentence.tags] for sentence in sentences],
        }

    return DatasetDict({name: Dataset.from_dict(columns(sentences)) for name, sentences in splits.items()})
