"""Decontamination: text of evaluation sets is found however it is written, and ordinary text is left alone."""

import random

import corpus
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.text.decontamination import EvaluationNgrams, common_ngrams, decontaminate
from lm_recipes.text.hashing import find_words

DOCUMENTS = [text for text in corpus.documents() if 40 <= len(text.split()) <= 200]
# Every third document plays an evaluation set; words the others do not have make each of them one of a kind.
EVALUATION = [" ".join(f"{word} {i}" if k % 5 == 0 else word for k, word in enumerate(text.split()))
              for i, text in enumerate(DOCUMENTS[::3])]  # fmt: skip
ORDINARY = DOCUMENTS[1::3]
SETS = {
    "first": EVALUATION[:40],
    "second": EVALUATION[40:80],
    "short": ["Who built the old tower by the harbour, then?"],
}


@pytest.fixture(scope="module")
def evaluation():
    return EvaluationNgrams.build(SETS)


def disguised(text):
    """Another case, other punctuation, other spacing."""
    return "  ".join(f"“{word.upper()}”," if i % 3 else f"{word.title()}—" for i, word in enumerate(text.split()))


def quoting(quote, host):
    words = host.split()
    return " ".join([*words[: len(words) // 2], quote, *words[len(words) // 2 :]])


@pytest.mark.parametrize("number", [0, 7, 39, 40, 79])
def test_contamination_is_found_in_its_set_in_whatever_case_and_punctuation(evaluation, number):
    quote = " ".join(EVALUATION[number].split()[5:25])
    found = evaluation.overlaps(quoting(disguised(quote), ORDINARY[number]))
    assert set(found) == {"first" if number < 40 else "second"}
    assert sum(found.values()) >= 8


def test_ordinary_text_is_kept_to_the_letter(evaluation):
    for text in ORDINARY:
        found = evaluation.matches(text)
        assert evaluation.overlaps(text) == {}
        assert decontaminate(text, found) is text


def test_thirteen_words_are_a_match_and_twelve_are_not(evaluation):
    words = find_words(EVALUATION[0])
    host = ORDINARY[0]
    for count, matches in ((13, 1), (12, 0), (20, 8)):
        quote = words.joined(3, 3 + count).decode()
        assert sum(evaluation.overlaps(quoting(quote, host)).values()) == matches


def test_a_short_text_is_looked_for_as_a_whole(evaluation):
    assert evaluation.overlaps(f"{ORDINARY[0]} WHO BUILT the old tower; by the harbour then {ORDINARY[1]}") == {
        "short": 1
    }
    assert evaluation.overlaps(f"{ORDINARY[0]} who built the old tower by the harbour {ORDINARY[1]}") == {}
    assert (
        EvaluationNgrams.build({"tiny": ["Who built the tower?"]}).overlaps("Who built the tower? Nobody knows.") == {}
    )


def test_a_text_is_found_in_every_set_that_has_it():
    evaluation = EvaluationNgrams.build({"one": EVALUATION[:2], "two": EVALUATION[1:3], "none": []}, n=5)
    found = evaluation.overlaps(EVALUATION[1])
    assert found["one"] == found["two"] > 20
    assert "none" not in found


def test_equal_hashes_of_different_words_are_no_match(evaluation):
    """As if every word had been another one with the same hashes."""
    words = np.frombuffer(evaluation.words.tobytes().replace(b"e", b"o"), np.uint8)
    forged = EvaluationNgrams(**{**vars(evaluation), "words": words})
    assert evaluation.overlaps(EVALUATION[0])
    assert forged.overlaps(EVALUATION[0]) == {}


def test_matches_say_where_in_the_text_they_stand(evaluation):
    quote = " ".join(EVALUATION[3].split()[2:20])
    text = quoting(disguised(quote), "Straße İstanbul ﬁne – 你好 " + ORDINARY[5])
    found = evaluation.matches(text)
    start, end = found.starts.min(), found.ends.max()
    assert find_words(text[start:end]).joined(0, 10**6) == find_words(quote).joined(0, 10**6)


def test_cutting_takes_the_match_and_200_characters_on_both_sides(evaluation):
    before, after = " ".join(ORDINARY[:8]), " ".join(ORDINARY[8:16])
    quote = " ".join(EVALUATION[3].split()[2:20])
    text = f"{before} {quote} {after}"
    left = decontaminate(text, evaluation.matches(text))
    first, second = left.split("\n\n")[0], left.split("\n\n")[-1]
    assert before.startswith(first[:-1]) or first in before
    assert evaluation.overlaps(left) == {}
    assert text.startswith(left[:100])
    assert text.endswith(second[-100:])
    assert len(quote) + 400 <= len(text) - len(left) <= len(quote) + 400 + 60
    assert decontaminate(text, evaluation.matches(text), "drop") == ""


def test_nothing_is_left_of_a_text_that_is_mostly_a_match_or_falls_to_pieces(evaluation):
    assert decontaminate(EVALUATION[0], evaluation.matches(EVALUATION[0])) == ""
    host = " ".join(ORDINARY[:4])
    text = " ".join(f"{host} {' '.join(EVALUATION[i].split()[2:20])}" for i in range(12))
    assert decontaminate(text, evaluation.matches(text)) == ""


def test_phrases_that_stand_in_many_documents_are_common(evaluation):
    rare, phrase = (" ".join(EVALUATION[i].split()[:25]) for i in (1, 2))
    texts = [f"{text} {phrase}" for text in ORDINARY[:11]] + [f"{text} {rare}" for text in ORDINARY[:10]]
    found = [evaluation.matches(text) for text in texts]
    common = common_ngrams([matches.ngrams for matches in found], most_documents=10)
    assert set(common) == set(found[0].ngrams)
    kept = [evaluation.matches(text).without(common) for text in texts]
    assert [len(matches.ngrams) > 0 for matches in kept] == [False] * 11 + [True] * 10
    assert common_ngrams([]).tolist() == []


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=4),
    st.lists(st.sampled_from("abc"), max_size=30),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_matches_are_those_of_plain_python(examples, document, n, min_words):
    evaluation = EvaluationNgrams.build({"set": map(" ".join, examples)}, n=n, min_words=min_words)
    wanted = set()
    for words in examples:
        size = min(n, len(words))
        if len(words) >= min(min_words, n):
            wanted |= {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
    places = [(i, i + size) for size in range(1, 6) for i in range(len(document) - size + 1)]
    expected = sorted((2 * i, 2 * j - 1) for i, j in places if tuple(document[i:j]) in wanted)
    found = evaluation.matches(" ".join(document))
    assert sorted(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == expected
    assert evaluation.overlaps(" ".join(document)).get("set", 0) == len(
        {tuple(document[i // 2 : j // 2 + 1]) for i, j in expected}
    )


@given(st.integers(0, 2**32), st.integers(0, 300))
def test_what_is_cut_is_free_of_matches_and_the_rest_was_there_before(evaluation_seed, window):
    rng = random.Random(evaluation_seed)
    evaluation = EvaluationNgrams.build({"set": EVALUATION[:20]})
    parts = [rng.choice((ORDINARY, EVALUATION[:20]))[rng.randrange(20)] for _ in range(rng.randint(1, 8))]
    text = "\n".join(parts)
    left = decontaminate(text, evaluation.matches(text), window=window)
    assert evaluation.overlaps(left) == {}
    assert all(piece in text for piece in left.split("\n\n"))
