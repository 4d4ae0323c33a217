"""The demo sets to fine-tune and adapt decoders with, out of their real archives (fetched once per user)."""

import json

import pytest

from lm_recipes.alignment import load_dialogues
from lm_recipes.launch import UserError
from lm_recipes.sources import describe, instructions, load_table
from lm_recipes.sources.split_texts import split_texts

SHARES = {"validation": 0.1, "test": 0.1}


@pytest.mark.parametrize("name", ["demo:chitchat", "demo:alpaca", "demo:tool-calls"])
def test_every_dialogue_can_be_learned_from(name):
    rows = load_table(name)
    assert len(set(rows["id"])) == len(rows)
    splits = load_dialogues(name)
    assert sum(map(len, splits.values())) == len(rows)


def test_an_instruction_about_nothing_is_the_instruction_alone():
    questions = load_table("demo:alpaca")["question"]
    assert not any("noinput" in question.lower() for question in questions)
    assert sum("\n\n" in question for question in questions) > 300
    assert len(set(questions)) < len(questions)  # copies: sft-instructions.yaml keeps them in one split


def test_conversations_alternate_and_are_answered():
    for messages in load_table("demo:chitchat")["messages"]:
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(message["content"].strip() for message in messages)


def test_who_speaks_first_is_the_user_and_lines_of_one_are_a_turn():
    lines = [("a", "hello"), ("b", "hi"), ("b", "who is there?"), ("a", "me"), ("b", "ah"), ("a", "bye")]
    assert instructions._alternating(lines) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi\nwho is there?"},
        {"role": "user", "content": "me"},
        {"role": "assistant", "content": "ah"},
    ]
    assert instructions._alternating(lines[:1]) == []


def test_tool_calls_have_arguments_by_name_and_are_followed_by_what_came_back():
    dialogues = [one for rows in load_dialogues("demo:tool-calls").values() for one in rows]
    calling = [one for one in dialogues if any("tool_calls" in message for message in one)]
    assert len(calling) > 100
    for messages in calling:
        for place, message in enumerate(messages):
            for call in message.get("tool_calls", []):
                assert isinstance(call["function"]["arguments"], dict)
                assert messages[place + 1]["role"] == "tool"
    tools = [json.loads(row) for row in load_table("demo:tool-calls")["tools"]]
    assert sum("tools" in one[0] for one in dialogues) == sum(map(bool, tools))


def test_questions_come_with_their_document_or_alone():
    for name in ("medical-qa", "legal-qa"):
        opened, closed = load_table(f"demo:{name}"), load_table(f"demo:{name}-closed")
        assert list(opened["question"]) == list(closed["question"])
        for row, alone in zip(opened, closed, strict=True):
            assert row["messages"][0]["content"] == f"{row['document']}\n\n{alone['messages'][0]['content']}"
            assert alone["messages"][0]["content"].startswith(row["question"])
            assert row["messages"][1]["content"] == row["label"]
    assert sorted(load_table("demo:medical-qa").unique("label")) == ["maybe", "no", "yes"]
    assert sorted(load_table("demo:legal-qa").unique("label")) == ["no", "yes"]


def test_an_exam_asks_for_one_of_its_options():
    for row in load_table("demo:medical-exam"):
        assert row["label"] in row["question"].split("\n")


def test_a_model_adapted_to_the_abstracts_has_not_read_those_that_it_is_asked_about():
    """Questions split by `document` are in the split of their abstract."""
    by_document = {row["messages"][0]["content"]: row["document"] for row in load_table("demo:medical-qa")}
    questions = load_dialogues("demo:medical-qa", group_column="document", **SHARES)
    for split, dialogues in questions.items():
        abstracts = set(split_texts("demo:medical-abstracts", split, **SHARES))
        assert {by_document[messages[0]["content"]] for messages in dialogues} <= abstracts


def test_clauses_never_straddle_a_split():
    by_question = {row["messages"][0]["content"]: row["document"] for row in load_table("demo:legal-qa")}
    splits = load_dialogues("demo:legal-qa", group_column="document")
    documents = [{by_question[messages[0]["content"]] for messages in rows} for rows in splits.values()]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 153


def test_texts_of_all_splits_are_all_texts_once(tmp_path):
    rows = [{"text": f"text  {number % 50}" if number < 50 else f"Text {number % 50}"} for number in range(100)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = str(tmp_path / "texts.jsonl")
    found = {split: list(split_texts(source, split, **SHARES)) for split in ("train", "validation", "test")}
    assert sorted(text for texts in found.values() for text in texts) == sorted(row["text"] for row in rows)
    keys = [{text.split()[1] for text in texts} for texts in found.values()]
    assert sum(map(len, keys)) == 50  # neither case nor spacing makes a copy a new text
    with pytest.raises(UserError, match="no column `body`; it has text"):
        list(split_texts(source, "train", text_column="body"))


def test_a_corpus_keeps_its_own_splits(corpus_dir):
    sizes = {split: len(list(split_texts(str(corpus_dir), split))) for split in ("train", "validation", "test")}
    assert sizes["validation"] == 50
    assert sum(sizes.values()) == 400


def test_every_set_says_what_it_is_how_many_rows_it_has_and_under_which_licence():
    for name, (*_, rows, _) in instructions.SETS.items():
        assert all(describe(name).values()), name
        assert len(load_table(name)) == rows
