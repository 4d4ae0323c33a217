"""Our filters decide as datatrove's, at the same thresholds, on real pages, raw markup and documentation.

Two readings differ on purpose. datatrove's tokenizers make every comma a word (so that a page of dates has "too few
words with letters"); ours are words between spaces, as in Dolma's Gopher rules. And a phrase that occurs once repeats
nothing.
"""

from itertools import islice

import numpy as np
import pytest
from corpus import documents as docstrings
from corpus import thresholds

from lm_recipes.sources import load_documents
from lm_recipes.text import filters, repetition
from lm_recipes.text.markup import strip_markup
from lm_recipes.text.normalize import normalize
from lm_recipes.text.words import ngram_hashes, words

datatrove = pytest.importorskip("datatrove.pipeline.filters")
from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.filters.gopher_repetition_filter import (  # noqa: E402
    find_all_duplicate,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.word_tokenizers import WordTokenizer  # noqa: E402


class BetweenSpaces(WordTokenizer):
    def word_tokenize(self, text):
        return text.split()

    sent_tokenize = span_tokenize = None


def gopher_quality(text):
    return filters.quality(text, **thresholds(filters.quality))


def gopher_repetition(text):
    return repetition.repetition(text, max_duplicate_lines=0.3, max_duplicate_characters=0.2)


def c4(text):
    return filters.c4(filters.c4_lines(text, min_words_per_line=3, max_word_length=1000), min_sentences=5)


def fineweb(text):
    return filters.fineweb(text, **thresholds(filters.fineweb))


@pytest.fixture(scope="module")
def documents():
    """Some 400 documents of 50 words and more: cleaned pages, raw wiki markup, docstrings, and damaged ones."""
    pages = [page.text for page in islice(load_documents("demo:enwik8"), 0, 1500, 3)]
    texts = [page if number % 3 == 0 else strip_markup(page, "wikitext") for number, page in enumerate(pages)]
    texts = [normalize(text) for text in [*texts, *docstrings()[::2]] if len(text) < 6000]
    texts = [text for text in texts if len(text.split()) >= 50]
    damaged = [text[: len(text) // 2] + "\n" + text[len(text) // 4 :] for text in texts[::5]]
    return texts + damaged


def agreement(ours, theirs, texts):
    """Share of texts on which both decide the same, and how many texts theirs drops."""
    kept = np.array([ours(text) is None for text in texts])
    kept_by_them = np.array([theirs.filter(Document(text=text, id="")) is True for text in texts])
    return float((kept == kept_by_them).mean()), int((~kept_by_them).sum())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (gopher_quality, lambda words: datatrove.GopherQualityFilter(min_doc_words=None, language=words)),
        (gopher_repetition, lambda words: datatrove.GopherRepetitionFilter(language=words)),
        (fineweb, lambda words: datatrove.FineWebQualityFilter(language=words)),
    ],
)
def test_with_the_same_words_decisions_are_the_same(ours, theirs, documents):
    share, dropped = agreement(ours, theirs(BetweenSpaces("en")), documents)
    assert dropped >= 10
    assert share >= 0.99


def test_repeated_phrases_are_counted_to_the_character(documents):
    """The numbers behind all nine n-gram rules, not only what they decide; a phrase that occurs once counts 0 here."""
    compared = 0
    for text in documents:
        split = text.split()
        found = words(" ".join(split))
        for n, hashes in enumerate(islice(ngram_hashes(found), 10), start=1):
            if n in repetition.TOP_NGRAMS:
                most, ours = repetition._most_frequent(hashes, found.ends[n - 1 :] - found.starts[: len(hashes)])
                theirs = find_top_duplicate(get_n_grams(split, n)) if most > 1 else 0
            elif n in repetition.DUPLICATE_NGRAMS:
                repeated = repetition._repeated_positions(hashes)
                ours = repetition._duplicate_characters(hashes, repeated, found, n)
                theirs = find_all_duplicate(split, n)
            else:
                continue
            assert ours == theirs
            compared += ours > 0
    assert compared > 1000


SPACY = {
    "c4": (c4, lambda: datatrove.C4QualityFilter(), 0.99),
    "fineweb": (fineweb, lambda: datatrove.FineWebQualityFilter(), 0.99),
    "repetition": (gopher_repetition, lambda: datatrove.GopherRepetitionFilter(), 0.96),
    "quality": (
        lambda text: filters.quality(text, **(thresholds(filters.quality) | {"min_alphabetic_words": 0})),
        lambda: datatrove.GopherQualityFilter(min_doc_words=None, max_non_alpha_words_ratio=None),
        0.99,
    ),
}


@pytest.mark.parametrize("name", SPACY)
def test_with_spacy_words_few_of_100_decisions_differ(name, documents):
    ours, theirs, _ = SPACY[name]
    share, dropped = agreement(ours, theirs(), [text for text in documents if len(text) < 2000][:200:2])
    assert share >= 0.96
    assert dropped


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACY)
def test_with_spacy_words_decisions_on_all_documents(name, documents):
    ours, theirs, least = SPACY[name]
    assert agreement(ours, theirs(), documents)[0] >= least
