"""Which token carries the label of a word, and which words does a model not get to see?"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict

IGNORED = -100  # what torch's cross-entropy leaves out


def label_words(
    rows: "DatasetDict", tokenizer, max_length: int, continuation: list[int] | None = None
) -> tuple["DatasetDict", dict[str, int]]:
    """Tokenize sentences of tagged words; the first token of a word carries its tag, all other tokens -100.

    Args:
        rows: columns `tokens` (words) and `tags` (ids, one a word).
        max_length: tokens a row, special ones included; longer rows are cut at their end.
        continuation: for each tag id the label of a training word's other tokens (see `continuations`); None: -100.
            Held-out splits never have them, so that evaluation counts words.

    Returns:
        The splits with model inputs, `labels`, `length` (tokens), `places` (of each word's first token; -1: it has
        none) and `tags`; and how many `rows_cut_at_max_length`, `words_cut_at_max_length` and `words_without_tokens`
        there are (a tokenizer may drop a word of invisible characters).
    """
    from datasets import DatasetDict

    def tokenize(batch: dict, continuation: list[int] | None) -> dict:
        encoded = encode_words(batch["tokens"], tokenizer, max_length)
        of_tokens = encoded.pop("word_of_token")
        labels = [labels_of(words, tags, continuation) for words, tags in zip(of_tokens, batch["tags"], strict=True)]
        return {**encoded, "labels": labels, "length": [len(words) for words in of_tokens]}

    tokenized = DatasetDict()
    for name, split in rows.items():
        own = {"continuation": continuation if name == "train" else None}
        tokenized[name] = split.map(
            tokenize, batched=True, remove_columns=["tokens"], fn_kwargs=own, desc=f"tokenizing {name}"
        )
    cut = [number for split in tokenized.values() for number in split["words_cut"]]
    without = [number for split in tokenized.values() for number in split["words_without_tokens"]]
    counts = {
        "rows_cut_at_max_length": sum(number > 0 for number in cut),
        "words_cut_at_max_length": sum(cut),
        "words_without_tokens": sum(without),
    }
    return tokenized.remove_columns(["words_cut", "words_without_tokens"]), counts


def encode_words(sentences: Sequence[Sequence[str]], tokenizer, max_length: int) -> dict[str, list]:
    """Model inputs for sentences of words, and where each word is in them.

    The words are joined by spaces and cut as any text is; a token belongs to the first word that it has a character of,
    and the mark for a space to the word behind it, also where it is a token of its own. So byte-level BPE without
    `add_prefix_space` sees words as they stand in running text; under `is_split_into_words` each would look glued to
    the one before it. For the other kinds of tokenizer both ways are the same.

    Args:
        sentences: words that are neither empty nor blank.
        tokenizer: a fast one, as offsets are needed, that cuts at the right.

    Returns:
        Columns as the tokenizer makes them, and `word_of_token` (-1: of none, such as [CLS]), `places` (of each word's
        first token; -1: none), and, as numbers a row, `words_cut` (behind max_length) and `words_without_tokens`.
    """
    texts, extras = [" ".join(words) for words in sentences], ("offset_mapping", "special_tokens_mask")
    asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    encoded = {name: list(rows) for name, rows in tokenizer(texts, verbose=False, **asked).items()}
    extra: dict[str, list] = {"word_of_token": [], "places": [], "words_cut": [], "words_without_tokens": []}
    for row, words in enumerate(sentences):
        of_tokens = words_of_tokens(*(encoded[name][row] for name in extras), words)
        places = whole = _first_tokens(of_tokens, len(words))
        if len(of_tokens) > max_length:
            cut = tokenizer([texts[row]], truncation=True, max_length=max_length, **asked)
            for name in encoded:
                encoded[name][row] = cut[name][0]
            of_tokens = words_of_tokens(*(encoded[name][row] for name in extras), words)
            places = _first_tokens(of_tokens, len(words))
        extra["word_of_token"].append(of_tokens)
        extra["places"].append(places)
        extra["words_cut"].append(sum(now < 0 <= before for now, before in zip(places, whole, strict=True)))
        extra["words_without_tokens"].append(whole.count(-1))
    return {name: rows for name, rows in encoded.items() if name not in extras} | extra


def words_of_tokens(offsets: Sequence[tuple[int, int]], special: Sequence[int], words: Sequence[str]) -> list[int]:
    """For each token the first word that it has a character of, or the space before; -1 for none.

    Args:
        offsets: of tokens in `" ".join(words)`, in characters; with or without the space before a word, so that a mark
            that is a token of its own may have no characters left.
        special: 1 for a token that the tokenizer put around the text.
    """
    ends = [end - 1 for end in accumulate(len(word) + 1 for word in words)]
    found = [bisect_right(ends, start) for start, _ in offsets]
    return [-1 if added or word == len(words) else word for word, added in zip(found, special, strict=True)]


def _first_tokens(of_tokens: list[int], number: int) -> list[int]:
    places = [-1] * number
    for place in range(len(of_tokens) - 1, -1, -1):
        if of_tokens[place] >= 0:
            places[of_tokens[place]] = place
    return places


def labels_of(of_tokens: list[int], tags: Sequence[int], continuation: list[int] | None = None) -> list[int]:
    """A label for each token: that of its word on the word's first token, `continuation[tag]` or -100 on others."""
    labels, before = [], -1
    for word in of_tokens:
        if word < 0:
            labels.append(IGNORED)
        elif word > before:
            labels.append(tags[word])
        else:
            labels.append(IGNORED if continuation is None else continuation[tags[word]])
        before = max(before, word)
    return labels


def continuations(names: list[str]) -> list[int]:
    """For each tag id that of a word's tokens after the first: I-person behind B-person, otherwise the same."""
    inside = {name: number for number, name in enumerate(names)}
    return [inside.get(re.sub("^B-", "I-", name), number) for number, name in enumerate(names)]


def split_words(text: str) -> list[tuple[int, int]]:
    """The words of a running text as character spans, as tagged corpora have them: punctuation is set apart.

    Marks before and behind a word are words of their own, one a character; those inside it (U.S.A, it's, 3.14) and
    the @ and # of @names and #tags stay. Of languages written without spaces, set spaces between the words first.
    """
    spans = []
    for chunk in re.finditer(r"\S+", text):
        start, end = chunk.span()
        left, right = start, end
        while left < right and _is_mark(text[left]) and text[left] not in "@#":
            left += 1
        while left < right and _is_mark(text[right - 1]):
            right -= 1
        spans += [(place, place + 1) for place in range(start, left)]
        spans += [(left, right)] if left < right else []
        spans += [(place, place + 1) for place in range(right, end)]
    return spans


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")
