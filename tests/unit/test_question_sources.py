"""Rows that ask something: what is read, what is mended, what is refused, and in which split they are."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.sources import describe, load_table
from lm_recipes.sources.benchmarks import CHOICES, _mentions
from lm_recipes.sources.demo import DEMOS
from lm_recipes.sources.questions import describe_questions, load_asked, load_choices, load_questions

PARIS = "Paris is the capital of France. Rome is the capital of Italy."


def questions(number: int = 40) -> list[dict]:
    """Two questions about each of `number` / 2 texts, one with an answer."""
    rows = []
    for i in range(number):
        context = f"Text {i // 2}. {PARIS}"
        start = context.index("Paris")
        answers = {"text": ["Paris"], "answer_start": [start]} if i % 2 else {"text": [], "answer_start": []}
        rows.append({"id": f"q{i}", "question": f"Where is {i}?", "context": context, "answers": answers})
    return rows


def write(path, rows) -> str:
    lines = [json.dumps(rows)] if path.suffix == ".json" else map(json.dumps, rows)
    path.write_text("\n".join(lines))
    return str(path)


def load(source: str, **options):
    return load_questions(source, validation=0.3, test=0.3, **options)


def with_answer(answers: object, context: str = PARIS) -> list[dict]:
    row = {"id": "bad", "question": "Which?", "context": context, "answers": answers}
    return [*questions(), row]


@pytest.mark.parametrize("name", ["demo:disfl-qa", "demo:narrative-qa"])
def test_demo_answers_stand_in_their_texts_and_no_text_stands_in_two_splits(name):
    splits, mended = load_questions(name, validation=0.15, test=0.2)
    assert sum(splits.num_rows.values()) == DEMOS[name].rows
    assert mended == {}
    contexts = {split: set(rows["context"]) for split, rows in splits.items()}
    assert not contexts["train"] & (contexts["validation"] | contexts["test"])
    assert not contexts["validation"] & contexts["test"]
    for rows in splits.values():
        for row in rows:
            for text, start in zip(*row["answers"].values(), strict=True):
                assert row["context"][start : start + len(text)] == text == text.strip() != ""
    assert "not comparable with published scores" in describe(name)["what"]


def test_a_quarter_of_disfl_qa_has_no_answer_and_all_of_narrative_qa_has():
    disfl, narrative = load_table("demo:disfl-qa"), load_table("demo:narrative-qa")
    assert sum(not answers["text"] for answers in disfl["answers"]) == 245
    assert all(answers["text"] for answers in narrative["answers"])
    assert len(set(narrative["context"])) == 101


def test_an_answer_is_found_as_whole_words_however_the_text_sets_them_apart():
    (found,) = _mentions(["40,000 (O2)"], "of 140,000 and 40 , 000 ( O2 ) men", 0)
    assert found.group() == "40 , 000 ( O2 )"
    assert _mentions(["cat"], "concatenate", 0) == []


@pytest.mark.parametrize("name", CHOICES)
def test_demo_choices_are_as_many_in_every_row_and_the_right_one_stands_there_once(name):
    splits = load_choices(name, context_column="context")
    assert sum(splits.num_rows.values()) == DEMOS[name].rows == CHOICES[name][3]
    asked = {split: {row["context"] or row["question"] for row in rows} for split, rows in splits.items()}
    assert not asked["train"] & asked["test"]
    for row in splits["test"]:
        assert len(row["choices"]) == CHOICES[name][2]
        assert row["choices"].count(row["choices"][row["labels"]]) == 1
        assert not any(choice[:3] in ("A. ", "B. ", "C. ") for choice in row["choices"])
    assert "not comparable with published scores" in describe(name)["what"]


def test_every_form_of_answers_gives_the_same_rows(tmp_path):
    rows = questions()
    listed = [
        {**row, "answers": [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]}
        for row in rows
    ]
    texts = [{**row, "answers": row["answers"]["text"]} for row in rows]
    asked = [{key: row[key] for key in ("id", "question", "answers")} for row in listed]
    paragraphs = [{"context": row["context"], "qas": [own]} for row, own in zip(listed, asked, strict=True)]
    (tmp_path / "squad.json").write_text(json.dumps({"version": "2", "data": [{"paragraphs": paragraphs}]}))
    (tmp_path / "list.json").write_text(json.dumps(rows))
    expected, _ = load(write(tmp_path / "rows.jsonl", rows))
    for source in (
        str(tmp_path / "squad.json"),
        str(tmp_path / "list.json"),
        write(tmp_path / "listed.jsonl", listed),
        write(tmp_path / "texts.jsonl", texts),
    ):
        found, mended = load(source)
        assert mended == {}
        assert describe_questions(source)["what"].endswith("files")
        assert {name: list(table) for name, table in found.items()} == {n: list(t) for n, t in expected.items()}


def test_squads_own_files_are_the_splits_of_their_folder(tmp_path):
    for name, number in (("train-v2.0", 40), ("dev-v2.0", 4)):
        rows = [{**row, "context": f"{name} {row['context']}"} for row in questions(number)]
        (tmp_path / f"{name}.json").write_text(json.dumps([{**row, "answers": row["answers"]["text"]} for row in rows]))
    splits, _ = load_questions(str(tmp_path), own_splits={"test": "dev"}, validation=0.3)
    assert len(splits["test"]) == 4
    assert len(splits["train"]) + len(splits["validation"]) == 40


@pytest.mark.parametrize(
    ("text", "start", "context", "found"),
    [
        (" Paris ", 0, f" {PARIS}", ("Paris", 1)),
        ("Paris", 3, PARIS, ("Paris", 0)),
        ("capital of France", 13, PARIS.replace("capital of", "capital\n of"), ("capital\n of France", 13)),
    ],
)
def test_offsets_that_are_off_by_spaces_are_mended_and_counted(text, start, context, found, tmp_path):
    rows = with_answer({"text": [text], "answer_start": [start]}, context)
    splits, mended = load(write(tmp_path / "rows.json", rows))
    answers = {row["id"]: row["answers"] for table in splits.values() for row in table}
    assert answers["bad"] == {"text": [found[0]], "answer_start": [found[1]]}
    assert mended == {"answers_with_mended_offsets": 1}


def test_an_answer_without_a_place_is_taken_at_its_first_mention_and_counted(tmp_path):
    rows = with_answer({"text": ["is the capital"], "answer_start": None})
    splits, mended = load(write(tmp_path / "rows.json", rows))
    answers = {row["id"]: row["answers"] for table in splits.values() for row in table}
    assert answers["bad"] == {"text": ["is the capital"], "answer_start": [6]}
    assert mended == {"answers_taken_at_the_first_of_several_mentions": 1}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            with_answer({"text": ["Berlin"], "answer_start": [0]}),
            '41 .id bad.: the answer "Berlin" is not in its conte',
        ),
        (with_answer({"text": ["Rome"], "answer_start": [0]}), "not in its context at character 0 .but at 32."),
        (with_answer({"text": ["Berlin"], "answer_start": None}), 'the answer "Berlin" is not in its context; mend'),
        (with_answer({"text": [" "], "answer_start": [0]}), "row 41 .id bad.: an empty answer"),
        (with_answer({"text": ["Paris", "Rome"], "answer_start": [0]}), "row 41 .id bad.: `answers` is not in SQuAD"),
        ([*questions(), {**questions()[3], "question": "  "}], "its id `q3` is that of row 4 too"),
        ([*questions(), {**questions()[3], "id": "new", "question": "  "}], "row 41 .id new.: no text in `question`"),
        ([*questions(), {**questions()[3], "id": "new", "context": ""}], "row 41 .id new.: no text in `context`"),
        (
            [{**row, "answers": {"text": [], "answer_start": []}} for row in questions()],
            "no training row has an answer",
        ),
        ([{"id": row["id"], "question": "?", "context": PARIS} for row in questions()], "row 1: no column `answers`"),
        ([{**row, "context": PARIS, "answers": ["Paris"]} for row in questions()], "no rows for the"),
    ],
)
def test_questions_that_cannot_be_learned_from_are_refused_by_row_and_id(rows, said, tmp_path):
    source = tmp_path / "rows.json"  # a list of rows: their answers may have different forms
    source.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=said) as refusal:
        load_questions(str(source))
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(source))


@pytest.mark.parametrize("content", ['{"data": 3}', '{"data": [{"paragraphs": [{"qas": [1]}]}]}', "[1, 2]", "{"])
def test_json_that_is_not_squads_is_one_line(content, tmp_path):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(UserError, match=r"rows\.json: ") as refusal:
        load_questions(str(tmp_path / "rows.json"))
    assert "\n" not in str(refusal.value)


@given(order=st.permutations(range(40)))
@settings(max_examples=20, deadline=None)
def test_splits_do_not_depend_on_order_and_questions_about_one_text_stay_together(order, tmp_path_factory):
    rows = questions()
    for row in rows[::2]:
        row["context"] = row["context"].upper()
    rows[0]["context"] = rows[0]["context"].replace(" ", "  ")
    source = write(tmp_path_factory.mktemp("rows") / "rows.json", [rows[i] for i in order])
    splits, _ = load(source)
    place = {row["id"]: name for name, table in splits.items() for row in table}
    assert all(place[f"q{i}"] == place[f"q{i + 1}"] for i in range(0, 40, 2))


def test_training_rows_about_a_held_out_text_are_left_out_and_counted(tmp_path):
    write(tmp_path / "train.jsonl", questions())
    write(tmp_path / "test.jsonl", [{**questions()[1], "id": "other", "question": "Another?"}])
    splits, counts = load_questions(str(tmp_path), own_splits={"train": "train", "test": "test"}, validation=0.3)
    assert splits["test"]["id"][:] == ["other"]
    assert len(splits["train"]) + len(splits["validation"]) == 38
    assert counts == {"training_rows_left_out_as_their_context_is_held_out": 2}


# --- choices ---


def choices(number: int = 40, **more) -> list[dict]:
    return [
        {"question": f"Which {i}?", "choices": ["one", "two", "three"], "label": i % 3, **more} for i in range(number)
    ]


def labels_of(splits) -> dict[str, int]:
    return {row["question"]: row["labels"] for table in splits.values() for row in table}


@pytest.mark.parametrize(
    "label",
    [lambda i: i, lambda i: i + 1, str, lambda i: "ABC"[i], lambda i: ["one", "two", "three"][i]],
    ids=["from 0", "from 1", "digit", "letter", "text"],
)
def test_the_right_choice_may_be_a_number_a_letter_or_a_text(label, tmp_path):
    rows = [{**row, "label": label(row["label"])} for row in choices()]
    found = labels_of(load_choices(write(tmp_path / "rows.json", rows), validation=0.3, test=0.3))
    assert found == {row["question"]: row["label"] for row in choices()}


def test_choices_may_be_columns_or_the_hubs_table_with_names(tmp_path):
    named = [
        {**row, "choices": {"text": row["choices"], "label": ["x", "y", "z"]}, "key": "xyz"[row["label"]]}
        for row in choices()
    ]
    columns = [{**row, **dict(zip("abc", row.pop("choices"), strict=True))} for row in choices()]
    expected = {row["question"]: row["label"] for row in choices()}
    assert (
        labels_of(load_choices(write(tmp_path / "named.json", named), validation=0.3, test=0.3, label_column="key"))
        == expected
    )
    split = load_choices(
        write(tmp_path / "columns.json", columns), validation=0.3, test=0.3, choices_columns=["a", "b", "c"]
    )
    assert labels_of(split) == expected
    assert split["train"][0]["choices"] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label": 3}, "row 41 .id 41.: `label` is 3: no number, letter or text of one of its 3 choices"),
        ({"label": "four"}, "`label` is 'four'"),
        ({"label": None}, "`label` is None"),
        ({"choices": ["one", "two"]}, "2 choices, but the first row has 3"),
        ({"choices": ["one"]}, "no list of two choices or more"),
        ({"choices": ["one", " ", "two"]}, "an empty choice"),
        ({"choices": ["one", "two", "one"], "label": 0}, "the right choice stands there twice"),
        ({"question": ""}, "no text in `question`"),
    ],
)
def test_choices_that_cannot_be_learned_from_are_refused_by_row(changed, said, tmp_path):
    rows = choices()
    (tmp_path / "rows.json").write_text(json.dumps([*rows, {**rows[0], "question": "Last?", **changed}]))
    with pytest.raises(UserError, match=said) as refusal:
        load_choices(str(tmp_path / "rows.json"))
    assert "\n" not in str(refusal.value)


def test_what_is_asked_comes_from_the_command_line_or_a_file(tmp_path):
    assert load_asked(None, ["Where?"], PARIS, None) == [{"id": "1", "question": "Where?", "context": PARIS}]
    source = write(tmp_path / "rows.jsonl", [{"id": 7, "question": "Which?", "choices": ["a", "b"]}])
    assert load_asked(source, None, None, None) == [{"id": "7", "question": "Which?", "choices": ["a", "b"]}]
    about = write(tmp_path / "about.jsonl", [{"question": "Whose?"}, {"question": "Which?", "context": "Another."}])
    assert [row["context"] for row in load_asked(about, None, PARIS, None)] == [PARIS, "Another."]
    for wrong in ((None, None, None, None), (source, ["Where?"], None, None), (None, ["Where?"], None, None)):
        with pytest.raises(UserError):
            load_asked(*wrong)
