"""How well does a tokenizer fit a text?"""

from collections.abc import Iterable
from itertools import islice

from transformers import PreTrainedTokenizerFast


def measure_fertility(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> dict[str, float]:
    """`tokens_per_word` (fertility; words are what whitespace separates), `bytes_per_token`, `unknown_rate`.

    Special tokens that a template adds are not counted. The unknown rate is a share of tokens.
    """
    tokens = unknown = words = size = 0
    texts = iter(texts)
    while batch := list(islice(texts, 64)):
        for text in batch:
            words += len(text.split())
            size += len(text.encode())
        for ids in tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]:
            tokens += len(ids)
            unknown += ids.count(tokenizer.unk_token_id)
    return {
        "tokens_per_word": tokens / max(words, 1),
        "bytes_per_token": size / max(tokens, 1),
        "unknown_rate": unknown / max(tokens, 1),
    }


def cut(tokenizer: PreTrainedTokenizerFast, sentence: str) -> list[str]:
    """The tokens of a sentence as a person reads them: " breakthrough", "##through"."""
    return [tokenizer.decode([token]) for token in tokenizer(sentence, add_special_tokens=False)["input_ids"]]
