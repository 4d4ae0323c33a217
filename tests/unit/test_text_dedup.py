"""Duplicates: what the keys of a text stand for, and decisions over all documents equal to plain Python's."""

import hashlib
import random
import unicodedata
from itertools import pairwise

import corpus
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lm_recipes.text.dedup import (
    bands_and_rows,
    duplicate_paragraphs,
    exact_key,
    first_occurrences,
    jaccard,
    near_duplicates,
    paragraph_keys,
    shingles,
    signature,
)
from lm_recipes.text.hashing import LONGEST_WORD, character_positions, find_words, ngram_hashes, word_hashes

# Letters of one to four bytes, marks, characters that are words alone, that fold to two, and what stands between.
CHARACTERS = "aBz9 _-'\n\t\u00a0éßİΣς\u0301’—。你好ไย\u0e31ネक\u093f😀𐐀𠀀\ud800"
texts = st.text(st.sampled_from(CHARACTERS)) | st.text()


def is_word_character(character):
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def stands_alone(character):
    return any(name in unicodedata.name(character, "") for name in ("CJK", "THAI", "KATAKANA"))


def plain_words(text):
    """What `find_words` finds, one character after the other."""
    words, before = [], " "
    for character in text.casefold():
        if is_word_character(character):
            if not is_word_character(before) or stands_alone(character) or stands_alone(before):
                words.append("")
            words[-1] += character
        before = character
    words = [word.encode("utf-8", "surrogatepass") for word in words]
    return [word[cut : cut + LONGEST_WORD] for word in words for cut in range(0, len(word), LONGEST_WORD)]


def found_words(text):
    """In UTF-8: of a word that is too long the cut may go through a character."""
    words = find_words(text)
    return [words.joined(i, i + 1) for i in range(len(words.starts))]


# --- words ---


@given(st.text(st.sampled_from(CHARACTERS), max_size=200))
def test_words_are_those_that_plain_python_finds(text):
    assert found_words(text) == plain_words(text)


@given(texts)
def test_every_word_is_found_at_its_place_in_the_text(text):
    words = find_words(text)
    starts, lasts = (character_positions(text, places) for places in (words.starts, words.ends - 1))
    for i, (start, last) in enumerate(zip(starts, lasts, strict=True)):
        found = words.joined(i, i + 1).decode("utf-8", "replace").strip("\ufffd")
        assert found in text[start : last + 1].casefold()


def test_a_long_run_of_letters_is_several_words():
    words = found_words("x" * 150 + " " * 200 + "y")
    assert words == [b"x" * LONGEST_WORD, b"x" * LONGEST_WORD, b"x" * 22, b"y"]


def test_different_words_and_ngrams_of_real_text_have_different_hashes():
    text = "\n".join(corpus.documents())
    words, (_, hashes) = found_words(text), word_hashes(text)
    assert len(set(words)) == len(np.unique(hashes)) > 3000
    for n in (2, 5, 13):
        ngrams = set(zip(*(words[i:] for i in range(n)), strict=False))
        assert len(ngrams) == len(np.unique(ngram_hashes(hashes, n)))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(1, 22))
def test_an_ngram_hash_depends_on_its_words_alone(values, n):
    hashes = np.array(values, np.uint64)
    found = ngram_hashes(hashes, n)
    assert found.tolist() == [ngram_hashes(hashes[i : i + n], n)[0] for i in range(len(values) - n + 1)]


# --- one document ---


@given(texts)
def test_the_exact_key_is_a_hash_of_the_words_in_order(text):
    words = "".join(c if is_word_character(c) else " " for c in text.casefold()).split()
    expected = hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    assert exact_key(text) == expected == exact_key(f" {text}\n!")


@example(["000000000²²²²²²²²²¹¹¹¹¹¹¹¹¹¹¹¹¹¹¹ŉŉª"], 0)  # cut at 64 bytes, within a character
@given(st.lists(texts.map(lambda text: text.replace("\n", " ")), min_size=1), st.integers(0, 3))
def test_lines_have_equal_keys_when_their_words_are_equal(lines, min_words):
    keys = paragraph_keys("\n".join(lines), min_words)
    assert keys.dtype == np.uint64
    words = [tuple(found_words(line)) for line in lines]
    assert [key == 0 for key in keys] == [len(found) < max(min_words, 1) for found in words]
    long = [found for found, key in zip(words, keys, strict=True) if key]
    assert len(set(long)) == len(set(keys.tolist()) - {0})
    by_words = dict(zip(words, keys, strict=True))
    assert all(by_words[found] == key for found, key in zip(words, keys, strict=True))


def test_the_order_of_words_in_a_line_counts():
    assert len(set(paragraph_keys("a b c\nb a c\na b\nc b a\na b c d", 1).tolist())) == 5


def test_numbers_do_not_change_from_one_version_or_machine_to_the_next():
    text = "The old harbour lies at the mouth of the river, and most of the town was built with stone. Café 你好"
    assert exact_key(text).hex() == "dd5954e6e3d9e723f4d09cefee8256b4"
    assert [f"{key:016x}" for key in paragraph_keys(f"{text}\n{text} x", 1)] == ["ce1220f9add5040c", "f5d23407a49b855f"]
    assert [f"{key:016x}" for key in signature(text)[:2]] == ["35c11efe3948b9b7", "32685526e4d5cebd"]


def test_signatures_and_shingles_see_words_only():
    text = "It's a café, at the old harbour; most of the town was built of stone."
    same = "it's A CAFÉ at the old   harbour\n\nMost of the town was built (of) stone"
    other = text.replace("harbour", "station")
    assert (signature(text) == signature(same)).all()
    assert not (signature(text) == signature(other)).all()
    assert jaccard(shingles(text), shingles(same)) == 1
    assert jaccard(shingles(text), shingles(other)) == 7 / 17  # 12 shingles each, 5 of them hold the word


def test_a_text_shorter_than_a_shingle_is_one_as_a_whole():
    assert len(shingles("three words only")) == 1
    assert jaccard(shingles("three words only"), shingles("Three words, only!")) == 1
    assert jaccard(shingles("three words only"), shingles("three words")) == 0
    assert jaccard(shingles(""), shingles("...")) == 1


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_99_percent_of_the_pairs_at_the_threshold(threshold):
    bands, rows = bands_and_rows(threshold)
    assert 1 - (1 - threshold**rows) ** bands >= 0.99
    assert len(signature("a text", threshold)) == bands


def test_signatures_share_bands_as_often_as_the_theory_says():
    rng = random.Random(0)
    bands, rows = bands_and_rows(0.8)
    words = [f"w{i}" for i in range(400)]
    shared, expected = [], []
    for _ in range(150):
        other = words.copy()
        for place in rng.sample(range(400), 12):
            other[place] = f"x{rng.random()}"
        pair = [" ".join(words), " ".join(other)]
        shared.append((signature(pair[0]) == signature(pair[1])).sum())
        expected.append(bands * jaccard(*map(shingles, pair)) ** rows)
        words = [f"w{rng.random()}" for _ in range(400)]
    assert np.mean(shared) == pytest.approx(np.mean(expected), rel=0.1)


# --- all documents ---


@given(st.lists(st.binary(min_size=16, max_size=16).map(lambda key: key[:15] + b"\0") | st.just(b"\0" * 16)))
def test_first_occurrences_are_those_of_a_set(keys):
    seen = set()
    expected = [not (key in seen or seen.add(key)) for key in keys]
    matrix = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
    assert first_occurrences(matrix).tolist() == expected
    assert first_occurrences(np.frombuffer(b"".join(keys), "V16")).tolist() == expected


@given(st.lists(st.integers(0, 5)))
def test_duplicate_paragraphs_are_those_that_stood_before(keys):
    expected = [key != 0 and key in keys[:place] for place, key in enumerate(keys)]
    assert duplicate_paragraphs(np.array(keys, np.uint64)).tolist() == expected


@given(st.data())
def test_near_duplicates_are_those_of_the_greedy_rule(data):
    count = data.draw(st.integers(0, 12))
    signatures = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=count, max_size=count)),
        np.uint64,
    ).reshape(-1, 3)
    seed = data.draw(st.integers(0, 2**32))
    similarity = np.random.default_rng(seed).random((count, count))
    asked = []

    def verify(document, earlier):
        asked.append((document, earlier))
        return similarity[document, earlier]

    repeats = near_duplicates(signatures.T, 0.7, verify)
    kept: list[int] = []
    for document in range(count):
        candidates = [e for e in kept if (signatures[document] == signatures[e]).any()]
        alike = [earlier for earlier in candidates if similarity[document, earlier] >= 0.7]
        assert (repeats[document] in alike) if alike else repeats[document] == -1
        if not alike:
            kept.append(document)
    assert all(document <= following for (document, _), (following, _) in pairwise(asked))
    assert len(set(asked)) == len(asked)


def test_a_giant_cluster_costs_one_comparison_a_document():
    asked = []
    signatures = np.zeros((1000, 21), np.uint64)
    repeats = near_duplicates(signatures.T, 0.8, lambda i, j: asked.append((i, j)) or 1.0)
    assert repeats.tolist() == [-1] + [0] * 999
    assert len(asked) == 999


def test_a_crowd_that_is_not_alike_costs_a_bounded_number_of_comparisons(caplog):
    asked = []
    near_duplicates(np.zeros((500, 2), np.uint64).T, 0.8, lambda i, j: asked.append((i, j)) or 0.5)
    assert len(asked) < 500 * 64
    assert "435 documents" in caplog.text


def test_the_most_alike_are_compared_first():
    signatures = np.array([[1, 2, 3], [1, 5, 6], [1, 5, 9]], np.uint64)
    asked = []
    near_duplicates(signatures.T, 0.8, lambda i, j: asked.append((i, j)) or 0.0)
    assert asked == [(1, 0), (2, 1), (2, 0)]
