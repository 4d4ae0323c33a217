"""How does a corpus become token ids quickly, and still exactly as the tokenizer itself cuts it?

Two fast ways, each for the kinds of tokenizer it was proved equal on (tests/unit/test_fast_tokenizer.py), and the
tokenizer's own for everything else:

- byte-level BPE: gigatoken (extra `fast`, https://github.com/marcelroed/gigatoken), where it is installed;
- WordPiece, byte-level Unigram and BPE: words repeat, so each different one is cut once by the tokenizer itself and
  remembered.

A document in which a fast way could differ goes to the tokenizer itself, and so does everything if the first
documents of a corpus come out differently.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lm_recipes.artifacts import read_json
from lm_recipes.tokenization.training import PRE_TOKENIZERS

logger = logging.getLogger(__name__)

Encoded = tuple[np.ndarray, np.ndarray]  # ids of all documents, uint32; where each begins and the last ends, int64

PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Letters and digits of Unicode 17: gigatoken knows them, the regular expressions of `tokenizers` do not yet.
NEW_LETTERS = (
    r"[\x{88f}\x{c5c}\x{cdc}\x{a7ce}\x{a7cf}\x{a7d2}\x{a7d4}\x{a7f1}\x{10940}-\x{10959}\x{10ec5}-\x{10ec7}"
    r"\x{11db0}-\x{11ddb}\x{11de0}-\x{11de9}\x{16ea0}-\x{16eb8}\x{16ebb}-\x{16ed3}\x{16ff2}-\x{16ff6}"
    r"\x{187f8}-\x{187ff}\x{18d09}-\x{18d1e}\x{18d80}-\x{18df2}\x{1e6c0}-\x{1e6de}\x{1e6e0}-\x{1e6e2}"
    r"\x{1e6e4}\x{1e6e5}\x{1e6e7}-\x{1e6ed}\x{1e6f0}-\x{1e6f4}\x{1e6fe}\x{1e6ff}\x{2b73a}-\x{2b73f}"
    r"\x{2cea2}-\x{2cead}\x{323b0}-\x{33479}]"
)
ASCII_PUNCTUATION = r"[!-/:-@\[-`{-~]"
# What any of Unicode, Python and regular expressions calls a space, in runs; the ASCII space next to another one.
_SPACES = r"[\t-\r\x1c- \x{85}\x{a0}\x{1680}\x{2000}-\x{200b}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}]"
RUNS_OF_SPACES = f" {_SPACES}|{_SPACES} "


def load_tokenizer(name_or_path: str):
    """A fast transformers tokenizer. AutoTokenizer imports torch, two seconds that packing has no use for: a directory
    that says it is nothing but its tokenizer.json is opened without."""
    config = Path(name_or_path, "tokenizer_config.json")
    if config.is_file() and read_json(config, "tokenizer").get("tokenizer_class") in PLAIN_CLASSES:
        return PreTrainedTokenizerFast.from_pretrained(name_or_path)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name_or_path)


def encode_batches(tokenizer, texts: Iterable[str], batch_characters: int = 8_000_000) -> Iterator[Encoded]:
    """Token ids of documents, in order, a batch of documents at a time; memory holds one batch.

    Special tokens typed in a text become their ids, as everywhere in transformers; none is added around it, and a
    truncation or padding that the tokenizer's file asks for is left out.

    Args:
        tokenizer: a fast transformers tokenizer.
        batch_characters: a batch ends with the document that reaches this.

    Yields:
        `(ids, offsets)`: uint32 `[tokens]`, int64 `[documents + 1]`; document i is `ids[offsets[i] : offsets[i + 1]]`.
    """
    encode = None
    for batch in _batches(texts, batch_characters):
        encode = encode or exact_encoder(tokenizer, batch)
        yield encode(batch)


def _batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text) + 64  # empty documents end a batch, too
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def exact_encoder(tokenizer, sample: list[str]) -> Callable[[list[str]], Encoded]:
    """The fastest way of encoding that gives this tokenizer's own ids: tried on `sample` beside the tokenizer."""
    own = _OwnEncoder(tokenizer.backend_tokenizer)
    fast = _gigatoken(own) or _word_cache(own)
    if fast is None:
        return own
    probe = [text[:5_000] for text in sample[:32]]
    if all(np.array_equal(ours, theirs) for ours, theirs in zip(fast(probe), own(probe), strict=True)):
        return fast
    logger.warning("%s: %s differs on this text; using the tokenizer itself", tokenizer.name_or_path, fast.name)
    return own


class _OwnEncoder:
    """The tokenizer itself, on all cores."""

    name = "tokenizers"

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = Tokenizer.from_str(backend.to_str())  # a copy: the caller's truncation is the caller's
        self.backend.no_truncation()
        self.backend.no_padding()
        self.spec = json.loads(self.backend.to_str())
        self.added = [token["content"] for token in self.spec["added_tokens"]]

    def is_kind(self, models: tuple[str, ...], normalizer: str | None) -> bool:
        """Whether the model is one of these, fed by this normalizer, and its added tokens are found as they stand."""
        plain = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
        return (
            self.spec["model"]["type"] in models
            and not self.spec["model"].get("dropout")
            and (self.spec["normalizer"] or {}).get("type") == normalizer
            and all(token | plain == token for token in self.spec["added_tokens"])
        )

    def cuts_byte_level_words(self) -> bool:
        """Whether words are those of GPT-2, GPT-4 or Qwen2, in the alphabet of bytes."""
        cuts = self.spec["pre_tokenizer"] or {}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False}
        split, *rest = cuts.get("pretokenizers") or [cuts]
        if split | byte_level == split and not rest:
            return split["use_regex"]
        isolated = {"type": "Split", "behavior": "Isolated", "invert": False}
        if split | isolated != split or split["pattern"].get("Regex") not in PRE_TOKENIZERS.values() or len(rest) != 1:
            return False
        return rest[0] | byte_level == rest[0] and not rest[0]["use_regex"]

    def __call__(self, texts: list[str]) -> Encoded:
        return _joined([encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)])


def _joined(rows: list) -> Encoded:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.uint32), *rows], dtype=np.uint32, casting="unsafe"), offsets


@dataclass
class _FastEncoder:
    """`encode` for all documents but those in which `differs` (RE2) is found; they go to the tokenizer itself."""

    name: str
    encode: Callable[[pa.Array], Encoded]
    differs: str
    own: _OwnEncoder

    def __call__(self, texts: list[str]) -> Encoded:
        array = pa.array(texts, pa.large_string())
        differs = pc.match_substring_regex(array, self.differs)
        odd = np.flatnonzero(differs.to_numpy(zero_copy_only=False))
        if not len(odd):
            return self.encode(array)
        ids, offsets = self.encode(pc.if_else(differs, "", array))
        rows = np.split(ids, offsets[1:-1])
        own_ids, own_offsets = self.own([texts[row] for row in odd])
        for row, replacement in zip(odd, np.split(own_ids, own_offsets[1:-1]), strict=True):
            rows[row] = replacement
        return _joined(rows)


def _gigatoken(own: _OwnEncoder) -> _FastEncoder | None:
    """gigatoken, where it is installed and takes this tokenizer."""
    if not own.is_kind(("BPE",), None) or not own.cuts_byte_level_words():
        return None
    try:
        import awkward
        import gigatoken
    except ImportError:
        return None
    try:
        tokenizer = gigatoken.Tokenizer.from_json(own.backend.to_str())
    except RuntimeError as refused:
        logger.info("gigatoken: %s", str(refused).splitlines()[0])
        return None

    def encode(texts: pa.Array) -> Encoded:
        layout = tokenizer.encode_batch(awkward.from_arrow(texts)).layout
        return np.asarray(layout.content.data), np.asarray(layout.offsets.data)

    return _FastEncoder("gigatoken", encode, NEW_LETTERS, own)


def _word_cache(own: _OwnEncoder) -> _FastEncoder | None:
    """A word cache, provided that no added token can be mistaken for a word or for a part of another one."""
    separator, *others = [token for token in own.added if token != own.spec["model"].get("unk_token")] or [""]
    mark = re.compile(rf"(?=.*{ASCII_PUNCTUATION})\S{{2,}}").fullmatch
    if not all(map(mark, own.added)) or not separator:
        return None
    if any(token.startswith(separator) or separator[0] in token[1:] for token in others):
        return None
    differs = "|".join(map(re.escape, own.added))
    if own.is_kind(("WordPiece",), "BertNormalizer") and own.spec["pre_tokenizer"] == {"type": "BertPreTokenizer"}:
        cut = _bert_words_in_lower_case if own.spec["normalizer"]["lowercase"] else _bert_words
    elif own.is_kind(("BPE", "Unigram"), None) and own.cuts_byte_level_words():
        cut, differs = _byte_level_words, rf"{differs}|\x00|{RUNS_OF_SPACES}"
    else:
        return None
    return _FastEncoder("the word cache", _WordCache(own, separator, cut), differs, own)


def _bert_words(texts: pa.Array) -> pa.Array:
    """Texts cut at spaces, at line ends and around ASCII punctuation, where BertPreTokenizer cuts under every setting.

    All other rules (accents, Chinese characters, control characters) act inside such a piece.
    """
    texts = pc.replace_substring(texts, "\n", " ")
    return pc.split_pattern(pc.replace_substring_regex(texts, f"({ASCII_PUNCTUATION})", r" \1 "), " ")


def _bert_words_in_lower_case(texts: pa.Array) -> pa.Array:
    """The same where BertNormalizer lowers letters: ASCII ones can be lowered first."""
    return _bert_words(pc.ascii_lower(texts))


def _byte_level_words(texts: pa.Array) -> pa.Array:
    """Texts cut before a space and between an ASCII letter or digit and punctuation, where the regular expressions of
    GPT-2, GPT-4 and Qwen2 all cut whatever stands around, provided that the space has no other beside it."""
    texts = pc.replace_substring_regex(texts, f"([0-9A-Za-z])({ASCII_PUNCTUATION})", "\\1\x00\\2")
    return pc.split_pattern(pc.replace_substring(texts, " ", "\x00 "), "\x00")


class _WordCache:
    """The ids of every word seen so far, each cut once by the tokenizer itself.

    Args:
        separator: an added token; words are handed to the tokenizer many in a string, with this in between.
        cut: texts to their words, a list array; a place where it cuts is one where the tokenizer always cuts.
    """

    most_words = 2_000_000  # then it starts afresh: memory stays flat on a corpus of any size

    def __init__(self, own: _OwnEncoder, separator: str, cut: Callable[[pa.Array], pa.Array]) -> None:
        self.own, self.separator, self.cut = own, separator, cut
        self.separator_id = own.backend.token_to_id(separator)
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self._forget()

    def _forget(self) -> None:
        self.numbers: dict[str, int] = {}
        self.ids, self.offsets = np.empty(0, np.uint32), np.zeros(1, np.int64)

    def __call__(self, texts: pa.Array) -> Encoded:
        if len(self.numbers) > self.most_words:
            self._forget()
        size = -(-len(texts) // os.cpu_count()) or 1
        parts = [texts.slice(start, size) for start in range(0, len(texts), size)]
        encoded = [self._gather(*part) for part in self.pool.map(self._cut, parts)]  # Arrow lets go of the GIL
        shifts = np.cumsum([0, *(len(ids) for ids, _ in encoded)])
        offsets = [bounds[:-1] + shift for (_, bounds), shift in zip(encoded, shifts[:-1], strict=True)]
        return np.concatenate([np.empty(0, np.uint32), *(ids for ids, _ in encoded)]), np.concatenate(
            [*offsets, shifts[-1:]]
        )

    def _cut(self, texts: pa.Array) -> tuple[pa.DictionaryArray, np.ndarray]:
        """The words of all texts, and where each text begins among them."""
        words = self.cut(texts)
        return words.values.dictionary_encode(), words.offsets.to_numpy()

    def _gather(self, words: pa.DictionaryArray, bounds: np.ndarray) -> Encoded:
        numbers = self._look_up(words.dictionary.to_pylist())[words.indices.to_numpy()]
        starts, lengths = self.offsets[numbers], np.diff(self.offsets)[numbers]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])
        return self.ids[source], ends[bounds]

    def _look_up(self, words: list[str]) -> np.ndarray:
        numbers = list(map(self.numbers.get, words))
        new = [word for word, number in zip(words, numbers, strict=True) if number is None]
        if new:
            self.numbers.update(zip(new, range(len(self.numbers), len(self.numbers) + len(new)), strict=True))
            self._learn(new)
            numbers = list(map(self.numbers.__getitem__, words))
        return np.array(numbers, dtype=np.int64)

    def _learn(self, words: list[str]) -> None:
        thousands = (words[start : start + 1000] for start in range(0, len(words), 1000))
        ids, _ = self.own([self.separator.join([*some, ""]) for some in thousands])
        ends = np.flatnonzero(ids == self.separator_id) - np.arange(len(words))  # once separators are out
        self.offsets = np.concatenate([self.offsets, len(self.ids) + ends])
        self.ids = np.concatenate([self.ids, ids[ids != self.separator_id]])
