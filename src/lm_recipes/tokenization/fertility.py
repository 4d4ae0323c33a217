"""How well does a tokenizer fit a text?"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast


def measure_fertility(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> dict[str, float]:
    """`tokens_per_word` (fertility; words are what whitespace separates), `bytes_per_token`, `unknown_rate`.

    Special tokens that a template adds are not counted. The unknown rate is a share of tokens.
    """
    tokens = unknown = words = size = 0
    for text, ids in _encode(tokenizer, texts):
        words += len(text.split())
        size += len(text.encode())
        tokens += len(ids)
        unknown += ids.count(tokenizer.unk_token_id)
    return {
        "tokens_per_word": tokens / max(words, 1),
        "bytes_per_token": size / max(tokens, 1),
        "unknown_rate": unknown / max(tokens, 1),
    }


def lossless_share(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> float:
    """The share of texts that decoding gives back, character for character."""
    same = [
        tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text for text, ids in _encode(tokenizer, texts)
    ]
    return sum(same) / max(len(same), 1)


def count_entries(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> np.ndarray:
    """How often each entry of the vocabulary occurs: int64 `[len(tokenizer)]`."""
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    for _, ids in _encode(tokenizer, texts):
        counts += np.bincount(ids, minlength=len(counts)) if ids else 0
    return counts


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    texts = iter(texts)
    while batch := list(islice(texts, 64)):
        encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)
        yield from zip(batch, encoded["input_ids"], strict=True)


def cut(tokenizer: PreTrainedTokenizerFast, sentence: str) -> list[str]:
    """The tokens of a sentence as a person reads them: " breakthrough", "##through", "<e6 97>" for half a character."""
    ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
    return [readable(tokenizer, token) for token in ids]


def readable(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """One entry of the vocabulary as text; bytes that are no character are written as <e6 97>."""
    text = tokenizer.decode([token])
    if "\ufffd" in text:
        entry = tokenizer.convert_ids_to_tokens(token)
        if all(character in _byte_of_character() for character in entry):
            return f"<{bytes(_byte_of_character()[character] for character in entry).hex(' ')}>"
    return text


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's 256 characters that stand for bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
