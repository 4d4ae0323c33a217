"""What near-duplicate removal promises, checked on real documents against every pair's exact similarity."""

import multiprocessing
import random

import corpus
import numpy as np
import pytest
import scipy.sparse

from lm_recipes.evaluation.near_duplicates import planted_copies, recall_and_precision
from lm_recipes.sources import split_of
from lm_recipes.text.dedup import exact_key, jaccard, near_duplicates, shingles, signature

THRESHOLD = 0.8


def words_of(text):
    """The words, found in another way than the code under test finds them."""
    return "".join(c if c.isalnum() else " " for c in text.casefold()).split()


def ngrams(text):
    words = words_of(text)
    return set(zip(*(words[i:] for i in range(5)), strict=False)) or {tuple(words)}


def perturbed(text, edits, rng):
    """The text with some words deleted, doubled or replaced by others, and with its case and line ends changed."""
    words = text.split()
    for place in rng.sample(range(len(words)), edits):
        words[place] = rng.choice(("", f"{words[place]} {words[place]}", rng.choice(words), "another"))
    return rng.choice((str.upper, str.lower, str))(" ".join(words))


@pytest.fixture(scope="module")
def documents():
    """About 600 real documents; from 300 of them one to three copies more, at every similarity from 0.4 to 1."""
    rng = random.Random(0)
    texts = [text for text in corpus.documents() if len(text.split()) >= 60]
    originals = rng.sample(texts, min(300, len(texts)))
    for text in originals:
        for _ in range(rng.choice((1, 1, 3))):
            edits = rng.randint(0, max(1, len(text.split()) // 12))
            texts.append(perturbed(text, edits, rng))
    rng.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def repeats(documents):
    return repeats_among(documents)


def repeats_among(texts):
    sets = [shingles(text) for text in texts]
    signatures = np.stack([signature(text, THRESHOLD) for text in texts])
    return near_duplicates(signatures.T, THRESHOLD, lambda i, j: jaccard(sets[i], sets[j]))


@pytest.fixture(scope="module")
def similarity(documents):
    """[N, N], the exact Jaccard similarity of every two documents, counted from n-grams of words as they are."""
    numbers: dict[tuple, int] = {}
    sets = [[numbers.setdefault(ngram, len(numbers)) for ngram in ngrams(text)] for text in documents]
    bounds = np.cumsum([0, *map(len, sets)])
    matrix = scipy.sparse.csr_array((np.ones(bounds[-1]), np.concatenate(sets), bounds))
    common = (matrix @ matrix.T).toarray()
    sizes = np.diff(bounds)
    return common / (sizes[:, None] + sizes[None, :] - common)


def test_the_similarity_of_hashed_shingles_is_that_of_the_words(documents, similarity):
    pairs = np.argwhere((similarity > 0.3) & (similarity < 1))
    assert len(pairs) > 300
    for i, j in pairs[:300]:
        assert jaccard(shingles(documents[i]), shingles(documents[j])) == pytest.approx(similarity[i, j], abs=1e-12)


def test_recall_and_precision_against_all_pairs(similarity, repeats):
    """Truth: the greedy rule over exact similarities of all pairs."""
    right = wrong = missed = 0
    for document, repeated in enumerate(repeats):
        kept = np.flatnonzero(repeats[:document] < 0)
        truth = (similarity[document, kept] >= THRESHOLD).any()
        right += truth and repeated >= 0
        wrong += not truth and repeated >= 0
        missed += truth and repeated < 0
    assert right > 150
    assert right / (right + missed) >= 0.99
    assert wrong == 0


def test_recall_and_precision_on_planted_copies():
    originals = [text for text in corpus.documents() if len(text.split()) >= 60]
    originals = [text for text, repeated in zip(originals, repeats_among(originals), strict=True) if repeated < 0]
    copies, similarities = planted_copies(originals, seed=0, every=1)
    assert min(similarities) < 0.6 < 0.95 < max(similarities)
    removed = repeats_among(originals + copies)[len(originals) :] >= 0
    found = recall_and_precision(removed.tolist(), similarities, THRESHOLD)
    assert found["recall"] >= 0.99
    assert found["precision"] >= 0.99


def test_a_document_goes_only_when_one_like_it_stays(similarity, repeats):
    gone = np.flatnonzero(repeats >= 0)
    assert (repeats[gone] < gone).all()
    assert (repeats[repeats[gone]] == -1).all()
    assert (similarity[gone, repeats[gone]] >= THRESHOLD).all()


def test_near_duplicates_never_straddle_splits(documents, similarity, repeats):
    """But for the one in a hundred that LSH may miss of the pairs that would straddle without removal."""
    splits = np.array([split_of(exact_key(text).hex(), 0.2, 0.2) for text in documents])
    straddle = np.triu((similarity >= THRESHOLD) & (splits[:, None] != splits[None, :]))
    stay = repeats < 0
    assert straddle.sum() > 50
    assert straddle[stay][:, stay].sum() <= 0.01 * straddle.sum()


def test_signatures_do_not_depend_on_the_process(documents):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        elsewhere = pool.map(signature, documents[:50])
    assert all((signature(text) == other).all() for text, other in zip(documents, elsewhere, strict=False))
