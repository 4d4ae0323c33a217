"""How varied, how repetitive and how likely are texts that a model wrote? Measures that need no reference."""

import math
import re
from collections.abc import Iterable, Sequence
from statistics import fmean

from lm_recipes.decoding.probabilities import Continuation
from lm_recipes.launch import UserError


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks: the unit of n-grams here, the same for every tokenizer."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def distinct(texts: Iterable[str], n: int) -> float | None:
    """Different n-grams by all n-grams of the texts together, 0 to 1 (Li et al., 2016); None: there are none.

    It falls with the amount of text: compare equally many texts of equal length.
    """
    found = [ngram for text in texts for ngram in _ngrams(text, n)]
    return len(set(found)) / len(found) if found else None


def repetition(text: str, n: int = 4) -> float | None:
    """The share of a text's n-grams that it said before, 0 to 1 (seq-rep-n; arXiv:1908.04319); None: it is shorter."""
    found = _ngrams(text, n)
    return 1 - len(set(found)) / len(found) if found else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """BLEU of each text against the others, as their mean, 0 to 100 (arXiv:1802.01886): 100 is the same text again and
    again. None: there are not two.

    Raises:
        UserError: sacrebleu is missing.
    """
    if len(texts) < 2:
        return None
    try:
        from sacrebleu import sentence_bleu
    except ImportError as error:
        raise UserError("self-BLEU needs sacrebleu: pip install -e '.[metrics]'") from error
    return fmean(
        sentence_bleu(text, [other for j, other in enumerate(texts) if j != i]).score for i, text in enumerate(texts)
    )


def summary(by_prompt: Sequence[Sequence[Continuation]], tokens_per_second: float) -> dict[str, float | int | None]:
    """What one strategy's texts come to.

    Args:
        by_prompt: for each prompt its continuations. tokens_per_second: at which it writes, measured elsewhere.

    Returns:
        texts, tokens (of all texts), tokens_per_text, nats_per_token and bits_per_byte (of the texts, under the model
        that wrote them; the end token is not part of the text), logprob_per_text (nats, with the end token,
        as a mean), distinct_1 and distinct_2 (all texts together), repetition (mean of texts), self_bleu (mean
        over prompts), ended (the share of texts that an end token ended), tokens_per_second.
    """
    texts = [text for group in by_prompt for text in group]
    steps = [step for text in texts for step in (text.tokens[:-1] if text.ended else text.tokens)]
    nats, size = -math.fsum(step.logprob for step in steps), sum(len(text.text.encode()) for text in texts)
    written = sum(len(text.tokens) for text in texts)
    return {
        "texts": len(texts),
        "tokens": written,
        "tokens_per_text": written / len(texts),
        "nats_per_token": nats / len(steps) if steps else None,
        "bits_per_byte": nats / math.log(2) / size if size else None,
        "logprob_per_text": fmean(text.logprob for text in texts),
        "distinct_1": distinct([text.text for text in texts], 1),
        "distinct_2": distinct([text.text for text in texts], 2),
        "repetition": _mean(repetition(text.text) for text in texts),
        "self_bleu": _mean(self_bleu([text.text for text in group]) for group in by_prompt),
        "ended": fmean(text.ended for text in texts),
        "tokens_per_second": tokens_per_second,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
