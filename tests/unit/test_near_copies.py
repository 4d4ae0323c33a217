"""Near copies of held-out rows: found as by comparing all with all, and left out of what is learned from."""

import random

import corpus
import numpy as np
from datasets import Dataset, DatasetDict

from lm_recipes.sources.splits import SplitFlags
from lm_recipes.text.dedup import jaccard, shingles
from lm_recipes.text.near_copies import near_copies, without_near_copies


def test_near_copies_are_those_that_a_comparison_of_all_with_all_finds():
    rng, known = random.Random(0), [" ".join(text.split()[:40]) for text in corpus.documents()[:150]]
    texts = []
    for text in known:
        words = text.split()
        for place in rng.sample(range(len(words)), k=min(rng.randrange(8), len(words))):
            words[place] = rng.choice(("another", "word"))
        texts.append(" ".join(words).upper())
    similarity = [[jaccard(shingles(text, 2), shingles(one, 2)) for one in known] for text in texts]
    expected = np.max(similarity, axis=1) >= 0.75
    assert 30 < expected.sum() < 120
    found = near_copies(texts, known)
    assert not (found & ~expected).any()
    assert (found == expected).mean() >= 0.98


def test_one_changed_word_makes_no_new_message():
    message = (
        "You have been specially selected to receive a prize of 3000 pounds; call this number before the lines close"
    )
    known = [message, "Okie.. Thanx.."]
    other = "You have been invited to dinner; call this number before the restaurant's lines close"
    assert near_copies([message.replace("3000", "2000"), "okie, thanx", other], known).tolist() == [True, True, False]
    assert near_copies([], known).tolist() == []
    assert near_copies([message], []).tolist() == [False]


def rows(**splits):
    return DatasetDict({name: Dataset.from_dict(columns) for name, columns in splits.items()})


def test_only_training_rows_that_say_nearly_what_a_held_out_row_says_are_left_out():
    said, others = "the view from where I live for two weeks is the best", [f"something else: {i}" for i in range(30)]
    data = rows(
        train={"text": [*others, said + " !", said], "pair": [*others, "a b", "quite another question, of many words"]},
        validation={"text": ["nothing of the kind"], "pair": ["a b"]},
        test={"text": [said], "pair": ["a b"]},
    )
    kept, number = without_near_copies(data, ["validation", "test"], ["text", "pair"])
    assert (kept["pair"], number) == ([*others, "quite another question, of many words"], 1)
    kept, number = without_near_copies(data, ["validation", "test"], ["text"])
    assert (kept["pair"], number) == (others, 2)
    assert without_near_copies(data, ["validation"], ["text", "pair"])[1] == 0
    assert without_near_copies(data, [], ["text"])[1] == 0
    tokens = [other.split() for other in others]
    words = rows(train={"tokens": [*tokens, said.split()]}, test={"tokens": [said.split()]})
    assert without_near_copies(words, ["test"], ["tokens"])[0]["tokens"] == tokens


def test_rows_of_one_pattern_stay_and_it_is_said(caplog):
    pattern = "your order {} has arrived at our shop in the high street and waits for you there"
    data = rows(train={"text": list(map(pattern.format, range(9)))}, test={"text": [pattern.format(9)]})
    kept, number = without_near_copies(data, ["test"], ["text"])
    assert (len(kept), number) == (9, 0)
    assert "9 of 9 training rows say nearly" in caplog.text


def test_a_test_of_the_source_s_own_is_left_alone():
    assert SplitFlags().made() == ["validation", "test"]
    assert SplitFlags(validation_split="dev").made() == ["test"]
    assert SplitFlags(test_split="test").made() == []
