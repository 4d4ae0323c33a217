"""Splits by hash: stable, seeded, and of the shares asked for."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.sources import split_of


def test_shares_are_what_was_asked_for():
    splits = Counter(split_of(f"document {i}", 0.1, 0.2) for i in range(10_000))
    assert abs(splits["validation"] - 1_000) < 150
    assert abs(splits["test"] - 2_000) < 200


def test_a_split_is_the_same_in_every_process_and_release():
    assert [split_of(str(i), 0.3, 0.3) for i in range(8)] == [
        "test", "validation", "train", "train", "validation", "test", "train", "train",
    ]  # fmt: skip


@given(st.text(), st.floats(0, 0.49), st.floats(0, 0.5))
def test_growing_the_validation_share_moves_no_document_out_of_it(key, small, extra):
    if split_of(key, small, 0) == "validation":
        assert split_of(key, small + extra, 0) == "validation"


def test_another_seed_draws_another_split():
    assert [split_of(str(i), 0.5, 0, seed=0) for i in range(50)] != [
        split_of(str(i), 0.5, 0, seed=1) for i in range(50)
    ]


def test_no_share_means_none():
    assert {split_of(str(i), 0, 0) for i in range(1000)} == {"train"}
