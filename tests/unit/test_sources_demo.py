"""The demo sets, out of their real archives (fetched once per user): what is in them, and in which form."""

import re
from itertools import islice

import pytest

from lm_recipes.launch import UserError
from lm_recipes.sources import describe, load_documents, load_table, resolve_model
from lm_recipes.sources.demo import DEMOS, _messages


def test_enwik8_gives_raw_articles_and_redirects_of_the_main_namespace():
    documents = list(load_documents("demo:enwik8"))
    assert len(documents) == DEMOS["demo:enwik8"].rows
    assert len({document.id for document in documents}) == len(documents)
    assert {document.kind for document in documents} == {"wikitext"}
    assert documents[0].id == "1 AaA"
    assert documents[0].text == "#REDIRECT [[AAA]]"
    assert "[[" in next(d for d in documents if d.id == "12 Anarchism").text
    assert not any(document.id.split(" ", 1)[1].startswith("Wikipedia:") for document in documents)


def test_the_limit_takes_the_first_documents():
    assert list(load_documents("demo:enwik8", limit=3)) == list(islice(load_documents("demo:enwik8"), 3))


def test_movie_reviews_are_clear_and_carry_a_score_and_a_label():
    reviews = load_table("demo:movie-reviews")
    assert len(reviews) == DEMOS["demo:movie-reviews"].rows
    assert reviews.unique("label") == ["positive", "negative"]
    for review in reviews:
        assert 0.5 <= abs(review["score"]) <= 4
        assert (review["score"] > 0) == (review["label"] == "positive")
        assert review["text"] == " ".join(review["text"].split()) != ""


def test_questions_carry_one_of_six_types_and_are_written_as_people_write():
    questions = load_table("demo:question-types")
    assert len(questions) == len(set(questions["text"])) == DEMOS["demo:question-types"].rows
    assert sorted(questions.unique("label")) == ["abbreviation", "description", "entity", "human", "location", "number"]
    assert {"text": 'What is "Nine Inch Nails"?', "label": "description", "subtype": "DESC:def"} in list(questions)
    assert not any(re.search(r" [?.,]( |$)|``|''| 's\b|\ufffd", text) for text in questions["text"])


def test_topics_are_english_and_known():
    topics = load_table("demo:wiki-topics")
    assert len(topics) == DEMOS["demo:wiki-topics"].rows
    assert len(topics.unique("label")) == 11
    assert "Uncategorized" not in topics.unique("label")
    english = {row["text"]: row["topic"] for row in load_table("demo:wiki-summaries") if row["language"] == "en"}
    assert all(english[row["text"]] == row["label"] for row in topics)


def test_dialogues_alternate_from_patient_to_doctor():
    dialogues = load_table("demo:doctor-patient")
    assert len(dialogues) == 140
    assert len(set(dialogues["id"])) == 140
    assert sorted(set(dialogues["source"])) == ["aci-bench", "mts-dialog"]
    for messages in dialogues["messages"]:
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert all(m["content"].strip() for m in messages)
        assert not any(re.search(r"\[(doctor|patient)|(Doctor|Patient) *:", m["content"]) for m in messages)


def test_a_dialogue_is_merged_opened_and_closed():
    text = """Doctor: Hello .
 Doctor: How are you ?
Patient: Fine.
Guest_family: He is not.
Doctor: I see.
Patient: Bye."""
    assert _messages(text, r"^ *(Doctor|Patient|Guest_\w+) *:") == [
        {"role": "user", "content": "Hello, doctor."},
        {"role": "assistant", "content": "Hello. How are you?"},
        {"role": "user", "content": "Fine. He is not."},
        {"role": "assistant", "content": "I see."},
    ]


def test_minilm_is_a_directory_that_transformers_loads():
    from transformers import AutoModel, AutoTokenizer

    path = resolve_model("demo:minilm")
    assert sum(p.numel() for p in AutoModel.from_pretrained(path).parameters()) == pytest.approx(22.7e6, rel=0.01)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.tokenize("Unaffable") == ["una", "##ffa", "##ble"]
    assert resolve_model("demo:minilm") == path


def test_smollm2_answers_and_stops():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = resolve_model("demo:smollm2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_every_demo_set_says_what_it_is_and_under_which_licence():
    for name in DEMOS:
        about = describe(name)
        assert all(about.values()), about


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_table("demo:nothing"),
        lambda: load_table("demo:enwik8"),
        lambda: load_table("demo:movie-reviews", "validation"),
        lambda: list(load_documents("demo:nothing")),
        lambda: resolve_model("demo:nothing"),
        lambda: resolve_model("demo:enwik8"),
        lambda: describe("demo:nothing"),
    ],
)
def test_wrong_demo_names_are_one_line(call):
    with pytest.raises(UserError, match=r"demo:\S+") as error:
        call()
    assert "\n" not in str(error.value)
