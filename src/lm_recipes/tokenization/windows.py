"""How does a long text fit a model that reads so many tokens at once, and where in each window is the answer?"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lm_recipes.launch import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)


def prepare_tokenizer(tokenizer) -> None:
    """Set a tokenizer so that windows follow the text from left to right, and padding comes last.

    Raises:
        UserError: it has no [CLS] token, which stands for "no answer here"; or does not know the characters of a token.
    """
    if tokenizer.cls_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer has no [CLS] or no [PAD]; answers are found by an encoder"
        )
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path}: its tokenizer does not say which characters a token stands for")
    tokenizer.truncation_side = tokenizer.padding_side = "right"


def cut_windows(
    questions: "DatasetDict", tokenizer, max_length: int, doc_stride: int
) -> tuple["DatasetDict", dict[str, int]]:
    """Questions with their contexts as the rows a model reads: one row for each window of a context, see `windows_of`.

    Args:
        questions: columns `id`, `question`, `context` and `answers`, as `sources.questions.load_questions` makes them.

    Returns:
        The splits, and counts of the training split: `train_windows`; `train_answers_in_no_window`, questions whose
        answers are too long for every window; `train_answers_within_a_token`, whose first or last token holds more
        than the answer.
    """

    def cut(batch: dict, rows: list[int]) -> dict:
        return windows_of(batch, rows, tokenizer, max_length, doc_stride)

    windows = questions.map(
        cut, with_indices=True, batched=True, remove_columns=questions["train"].column_names, desc="cutting windows"
    )
    counts = _count(windows["train"], questions["train"])
    if lost := counts["train_answers_in_no_window"]:
        logger.warning("%d training questions have an answer that no window holds: raise --doc_stride", lost)
    return windows, counts


def windows_of(
    batch: Mapping[str, Sequence], rows: Sequence[int], tokenizer, max_length: int, doc_stride: int
) -> dict[str, list]:
    """Every window of every context: `[CLS] question [SEP] part of the context [SEP]`.

    Windows of a context come in its order; neighbours share `doc_stride` tokens, so that what is cut by one border
    stands whole in the other, and all of them together hold every token of the context (BERT's way with SQuAD,
    https://arxiv.org/abs/1810.04805).

    Args:
        batch: `question`, `context`, `id` and perhaps `answers`, N each.
        rows: what the N questions are called in column `row`.
        tokenizer: one that `prepare_tokenizer` has seen.

    Returns:
        Columns with a value for each of the W windows: the tokenizer's own (`input_ids`, ... of its tokens); `row`;
        `cls`, the place of [CLS]; `offsets`, for each token the characters [first, last + 1] of the context without
        spaces around them, [-1, -1] outside it; `labels`, first and last token of the first answer that stands whole
        in the window, twice `cls` where none does; `within`, whether these tokens hold more than that answer;
        `length` in tokens.

    Raises:
        UserError: naming the id of a question that leaves no room for its context.
    """
    _refuse_long_questions(batch, tokenizer, max_length, doc_stride)
    encoded = tokenizer(
        list(batch["question"]), list(batch["context"]), truncation="only_second", max_length=max_length,
        stride=doc_stride, return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    of, raw = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    found: dict[str, list] = {name: [] for name in ("row", "cls", "offsets", "labels", "within", "length")}
    for window, (sample, ids) in enumerate(zip(of, encoded["input_ids"], strict=True)):
        if window == 0 or of[window - 1] != sample:
            words = _not_space(batch["context"][sample])
        ends = (window == 0 or of[window - 1] != sample, window + 1 == len(of) or of[window + 1] != sample)
        in_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
        offsets = np.where(in_context[:, None], _tight(np.array(raw[window]), words), -1)
        cls = ids.index(tokenizer.cls_token_id)
        answers = batch["answers"][sample] if "answers" in batch else {"text": [], "answer_start": []}
        labels, within = _target(offsets, answers, ends, cls)
        values = (rows[sample], cls, offsets.tolist(), labels, within, len(ids))
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    return {**encoded, **found}


def _refuse_long_questions(batch: Mapping[str, Sequence], tokenizer, max_length: int, doc_stride: int) -> None:
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    asked = tokenizer(list(batch["question"]), add_special_tokens=False, verbose=False)["input_ids"]
    for id, ids in zip(batch["id"], asked, strict=True):
        if room - len(ids) <= doc_stride:
            raise UserError(
                f"question {id}: {len(ids)} tokens leave {max(room - len(ids), 0)} of --max_length {max_length} to the "
                f"context, of which windows share {doc_stride}; shorten it, or change --max_length or --doc_stride"
            )


def _not_space(text: str) -> np.ndarray:
    """The places of the characters of a text that are no spaces, int `[K]`."""
    return np.array([place for place, character in enumerate(text) if not character.isspace()], dtype=np.int64)


def _tight(offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Offsets int `[L, 2]` without the spaces that some tokenizers count to a token; a token of nothing but spaces
    starts with the next word and ends with the one before.

    Args:
        words: of `_not_space`.
    """
    end = words[-1] + 1 if len(words) else 0
    first = np.append(words, end)[np.searchsorted(words, offsets[:, 0])]
    last = np.append(words, -1)[np.searchsorted(words, offsets[:, 1]) - 1] + 1
    return np.stack([first, last], axis=1)


def _target(offsets: np.ndarray, answers: dict, ends: tuple[bool, bool], cls: int) -> tuple[list[int], bool]:
    """First and last token of the first answer that stands whole in a window, and whether they hold more than it.

    Args:
        ends: whether the window is the first, and the last, of its context: beyond these there are only characters that
            the tokenizer leaves out.
    """
    tokens = np.flatnonzero(offsets[:, 1] > np.maximum(offsets[:, 0], 0))
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        touched = tokens[(offsets[tokens, 0] < start + len(text)) & (offsets[tokens, 1] > start)]
        if not len(touched):
            continue
        begins = ends[0] or offsets[tokens[0], 0] <= start
        stops = ends[1] or offsets[tokens[-1], 1] >= start + len(text)
        if begins and stops:
            first, last = int(touched[0]), int(touched[-1])
            span = (int(offsets[first, 0]), int(offsets[last, 1]))
            return [first, last], span != (start, start + len(text))
    return [cls, cls], False


def _count(windows: "Dataset", questions: "Dataset") -> dict[str, int]:
    row = np.array(windows["row"][:])
    found = np.array(windows["labels"][:])[:, 0] != np.array(windows["cls"][:])
    with_answer = {number for number, answers in enumerate(questions["answers"]) if answers["text"]}
    return {
        "train_windows": len(windows),
        "train_answers_in_no_window": len(with_answer - set(row[found].tolist())),
        "train_answers_within_a_token": len(set(row[np.array(windows["within"][:])].tolist())),
    }
