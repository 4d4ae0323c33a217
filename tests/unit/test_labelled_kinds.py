"""Labels of every kind: several classes a row, numbers, named ones; splits that keep rare classes; other domains."""

import json
import re
from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, List
from hypothesis import given
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.demo import DEMOS
from lm_recipes.sources.labelled import (
    MULTI,
    REGRESSION,
    few_labels,
    load_labelled,
    read_class_names,
    stratified_splits,
)


def write_rows(path, rows) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def labelled(path, labels, **options):
    rows = [{"text": f"film {i}", "label": labels[i % len(labels)]} for i in range(60)]
    return load_labelled(write_rows(path / "rows.jsonl", rows), **options)


@pytest.mark.parametrize("labels", [[["joy"], ["love", "joy"], []], ["joy", "love | joy", "|"]])
def test_several_classes_a_row_as_a_list_or_as_text(labels, tmp_path):
    rows, names = labelled(tmp_path, labels, problem_type=MULTI)
    assert names == ["joy", "love"]
    of_text = dict(zip(rows["train"]["text"], rows["train"]["labels"], strict=True))
    expected = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert all(found == expected[int(text.split()[1]) % 3] for text, found in of_text.items())


def test_a_list_of_class_labels_keeps_the_order_of_the_hub():
    table = Dataset.from_dict({"y": [[0, 2], [1]]}).cast_column("y", List(ClassLabel(names=["ham", "eggs", "bread"])))
    assert read_class_names([table], "s", "y", many=True) == ["ham", "eggs", "bread"]


def test_numbers_stay_numbers_and_are_read_out_of_text(tmp_path):
    rows, names = labelled(tmp_path, ["1.5", "-2", "3e0"], problem_type=REGRESSION)
    assert names == ["label"]
    assert set(rows["train"]["labels"]) == {1.5, -2.0, 3.0}


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 1.0], ["ham", "spam"]])
def test_named_classes_count_numbers_from_zero_or_are_the_text(labels, tmp_path):
    rows, names = labelled(tmp_path, labels, class_names=["ham", "spam"])
    assert names == ["ham", "spam"]
    assert all(int(text.split()[1]) % 2 == label for text, label in zip(*rows["train"][:].values(), strict=True))


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (
            ["x", "spma"],
            {"class_names": ["x", "spam"]},
            "row 2: `label` is 'spma', which is none of the classes x, spam",
        ),
        ([0, 1, 2], {"class_names": ["x", "y"]}, "row 3: `label` is 2, which is none of the classes x, y"),
        (["1.5", "good"], {"problem_type": REGRESSION}, "row 2: `label` is 'good'; a number is needed"),
        ([1.0, None], {"problem_type": REGRESSION}, "row 2: `label` is None; a number is needed"),
        ([2.0], {"problem_type": REGRESSION}, "holds one number only"),
        ([["a"], ["b", ""]], {"problem_type": MULTI}, "row 2: `label` is empty"),
        ([["a"], None], {"problem_type": MULTI}, r"row 2: `label` is empty; .* write \[\] or \|"),
        ([1, 2], {"problem_type": MULTI}, r"row 1: `label` is 1; a list of classes or `a\|b` is needed"),
        ([["a"], ["b"]], {}, "row 1: `label` is a list; one class a row is needed .*multi_label"),
        (["a", "b"], {"problem_type": "ranking"}, "--problem_type ranking: must be one of"),
        (["a", "b"], {"problem_type": REGRESSION, "stratify": True}, "regression has no classes"),
        (["a", "b"], {"class_names": ["a", "a"]}, "two different names"),
    ],
)
def test_labels_that_cannot_be_learned_are_named_by_row_and_column(labels, options, said, tmp_path):
    with pytest.raises(UserError, match=said) as refusal:
        labelled(tmp_path, labels, **options)
    assert "\n" not in str(refusal.value)


def test_a_label_seen_only_in_test_is_named_with_its_row(tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"text": f"a{i}", "label": i % 2} for i in range(40)])
    write_rows(tmp_path / "test.jsonl", [{"text": "old", "label": 0}, {"text": "new", "label": 2}])
    with pytest.raises(UserError, match="split test: row 2: class `2` of `label` has no training row"):
        load_labelled(str(tmp_path), own_splits={"train": "train", "test": "test"}, validation=0.3)


# --- stratified splits ---


def shares(splits: dict[str, str], strata: dict[str, str]) -> dict[str, Counter]:
    found = {name: Counter() for name in ("train", "validation", "test")}
    for key, split in splits.items():
        found[split][strata[key]] += 1
    return found


def test_a_stratified_split_has_the_same_share_of_each_class():
    strata = {f"text {i}": "rare" if i % 50 == 0 else "common" for i in range(1_000)}
    found = shares(stratified_splits(list(strata), list(strata.values()), 0.1, 0.2), strata)
    assert found == {
        "train": {"common": 686, "rare": 14},
        "validation": {"common": 98, "rare": 2},
        "test": {"common": 196, "rare": 4},
    }


@given(order=st.permutations(range(40)))
def test_a_stratified_split_does_not_depend_on_order_and_keeps_copies_together(order):
    keys = [f"text {i % 30}" for i in range(40)]
    strata = [i % 3 for i in range(40)]
    expected = stratified_splits(keys, strata, 0.2, 0.2, seed=1)
    assert stratified_splits([keys[i] for i in order], [strata[i] for i in order], 0.2, 0.2, seed=1) == expected
    assert set(expected) == set(keys)


def test_three_of_a_class_are_in_every_split_and_two_are_for_training():
    splits = stratified_splits([f"{i}" for i in range(5)], ["three"] * 3 + ["two"] * 2, 0.1, 0.1)
    assert sorted(splits[f"{i}"] for i in range(3)) == ["test", "train", "validation"]
    assert [splits["3"], splits["4"]] == ["train", "train"]


def test_rows_with_several_classes_are_divided_by_their_rarest(tmp_path):
    rows = [{"text": f"film {i}", "label": ["old", "rare"] if i % 20 == 0 else ["old"]} for i in range(200)]
    found, names = load_labelled(write_rows(tmp_path / "rows.jsonl", rows), problem_type=MULTI, stratify=True)
    assert names == ["old", "rare"]
    assert {name: sum(label[1] for label in table["labels"]) for name, table in found.items()} == {
        "train": 8.0,
        "validation": 1.0,
        "test": 1.0,
    }


def test_few_labels_look_at_every_class_of_a_row(tmp_path):
    rows, _ = labelled(tmp_path, [["joy"], ["love"], []], problem_type=MULTI)
    assert len(few_labels(rows["train"], 30, 0)) == 30
    only = Dataset.from_dict({"text": ["a", "b"], "labels": [[1.0, 0.0], [0.0, 1.0]]})
    with pytest.raises(UserError, match="1 classes are not among these"):
        few_labels(only, 1, 0)
    assert len(few_labels(Dataset.from_dict({"text": ["a", "b"], "labels": [0.5, 1.5]}), 1, 0)) == 1


# --- other domains ---


def test_other_domains_have_the_same_classes_and_no_text_of_training(tmp_path):
    films = [{"text": f"film {i}", "label": ("bad", "good")[i % 2]} for i in range(60)]
    source = write_rows(tmp_path / "films.jsonl", films)
    tweets = write_rows(tmp_path / "tweets.jsonl", [*films, {"text": "lol", "label": "good"}])
    rows, names = load_labelled(source, cross_domain=[tweets])
    assert list(rows) == ["train", "validation", "test", tweets]
    assert rows[tweets]["labels"][-1] == names.index("good")
    assert not set(rows[tweets]["text"]) & set(rows["train"]["text"])
    assert len(rows[tweets]) == 61 - len(rows["train"])


def test_a_class_that_another_domain_alone_has_is_refused(tmp_path):
    films = [{"text": f"film {i}", "label": ("bad", "good")[i % 2]} for i in range(60)]
    source = write_rows(tmp_path / "films.jsonl", films)
    tweets = write_rows(tmp_path / "tweets.jsonl", [films[0], {"text": "lol", "label": "meh"}])
    with pytest.raises(UserError, match="row 2: `label` is 'meh', which is none of the classes bad, good") as refusal:
        load_labelled(source, cross_domain=[tweets])
    assert str(refusal.value).startswith(tweets)


@pytest.mark.parametrize("name", ["demo:product-reviews", "demo:tweets", "demo:editorials"])
def test_sentiment_of_other_domains_is_in_the_form_of_the_film_reviews(name):
    table = load_table(name)
    assert len(table) == DEMOS[name].rows
    assert sorted(table.unique("label")) == ["negative", "positive"]
    for row in table:
        assert 0.5 <= abs(row["score"]) <= 4
        assert (row["score"] > 0) == (row["label"] == "positive")
        assert not re.search(r"&#?\w+;", row["text"])
        assert row["text"] == " ".join(row["text"].split()) != ""


def test_spam_is_rare():
    table = load_table("demo:sms-spam")
    assert Counter(table["label"]) == {"ham": 4_199, "spam": 638}
    rows, names = load_labelled("demo:sms-spam", stratify=True)
    assert names == ["ham", "spam"]
    spam = [sum(table["labels"]) / len(table) for table in rows.values()]
    assert max(spam) - min(spam) < 0.02
