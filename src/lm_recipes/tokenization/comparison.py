"""How do tokenizers compare on the same texts?"""

import time
from collections.abc import Mapping
from statistics import median

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lm_recipes.launch import UserError
from lm_recipes.sources import resolve_model
from lm_recipes.tokenization.fertility import count_entries, lossless_share, measure_fertility, readable
from lm_recipes.tokenization.samples import LANGUAGES


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer by directory, Hub id or demo name.

    Raises:
        UserError: if there is none, or only one in Python (without the `tokenizers` library behind it).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(name))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: no tokenizer to be had there ({' '.join(str(error).split())[:200]})") from error
    if not tokenizer.is_fast:
        raise UserError(f"{name}: a tokenizer written in Python; only those of the `tokenizers` library are compared")
    return tokenizer


def compare(tokenizer: PreTrainedTokenizerFast, texts: Mapping[str, list[str]]) -> dict:
    """What a tokenizer costs on each text, in one flat record.

    `bytes_per_token`, `tokens_per_word`, `unknown_rate` and `lossless_share`: by name of the text. `vocab_size`;
    `used_share`: entries that occur in any of the texts; `parity`: tokens per byte of the dearest of the languages to
    those of the cheapest (1 is equal; None below two languages); `longest`: the longest entries in use.
    """
    fits = {name: measure_fertility(tokenizer, documents) for name, documents in texts.items()}
    record = {
        measure: {name: fit[measure] for name, fit in fits.items()}
        for measure in ("bytes_per_token", "tokens_per_word", "unknown_rate")
    }
    counts = sum(count_entries(tokenizer, documents) for documents in texts.values())
    used = [readable(tokenizer, int(entry)) for entry in counts.nonzero()[0]]
    costs = [1 / fits[name]["bytes_per_token"] for name in LANGUAGES.values() if name in fits]
    return record | {
        "lossless_share": {name: lossless_share(tokenizer, documents) for name, documents in texts.items()},
        "vocab_size": len(tokenizer),
        "used_share": len(used) / len(tokenizer),
        "parity": max(costs) / min(costs) if len(costs) > 1 else None,
        "longest": sorted((word for word in used if word.strip().isalpha()), key=lambda word: (-len(word), word))[:12],
    }


def encoding_speeds(
    tokenizers: Mapping[str, PreTrainedTokenizerFast], texts: list[str], rounds: int = 3
) -> dict[str, float]:
    """Megabytes of UTF-8 per second and tokenizer, all cores: medians over rounds in which each has its turn."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in tokenizers}
    for number in range(rounds + 1):
        for name, tokenizer in tokenizers.items():
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()
            backend.no_padding()
            start = time.perf_counter()
            backend.encode_batch_fast(texts, add_special_tokens=False)
            if number:  # the first round fills caches
                seconds[name].append(time.perf_counter() - start)
    return {name: size / median(times) for name, times in seconds.items()}
