"""Long texts in windows: nothing of them is lost, and an answer is where its window says."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import bert_tokenizer, gpt_tokenizer
from tokenizers import normalizers, processors

from lm_recipes.launch import UserError
from lm_recipes.tokenization.windows import cut_windows, prepare_tokenizer, windows_of

WORDS = "the quick brown fox jumps over a lazy dog paris rome italy doctor knee ÜBER 東京 e\u0301t\u00e9 x9".split()
GAPS = [" ", "  ", "\n", ", ", " \t", "; "]


def byte_level():
    """A byte-level BPE with [CLS] and [SEP] whose offsets count a word's leading space to it, as GPT's do."""
    tokenizer = gpt_tokenizer()
    tokenizer.cls_token = "<|bos|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|eos|>",
        pair="<|bos|> $A <|eos|> $B:1 <|eos|>:1",
        special_tokens=[("<|bos|>", 1), ("<|eos|>", 2)],
    )
    return tokenizer


TOKENIZERS = {"wordpiece": bert_tokenizer(), "bytes": byte_level()}
for ready in TOKENIZERS.values():
    prepare_tokenizer(ready)


@st.composite
def asked(draw) -> tuple[str, str, int]:
    """A context, an answer of whole words in it, and where that starts."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=50))
    gaps = draw(st.lists(st.sampled_from(GAPS), min_size=len(words), max_size=len(words)))
    first = draw(st.integers(0, len(words) - 1))
    last = draw(st.integers(first, min(first + 5, len(words) - 1)))
    context, places = draw(st.sampled_from(["", " ", "\n"])), []
    for word, gap in zip(words, gaps, strict=True):
        places.append((len(context), len(context) + len(word)))
        context += word + gap
    start, end = places[first][0], places[last][1]
    return context, context[start:end], start


def windows(kind: str, context: str, answers: list[tuple[str, int]], max_length: int, doc_stride: int) -> list[dict]:
    table = {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}
    batch = {"id": ["q"], "question": ["the dog"], "context": [context], "answers": [table]}
    columns = windows_of(batch, [0], TOKENIZERS[kind], max_length, doc_stride)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def context_ids(kind: str, row: dict) -> list[int]:
    return [id for id, (first, _) in zip(row["input_ids"], row["offsets"], strict=True) if first >= 0]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(asked(), st.integers(24, 60), st.integers(0, 12))
@settings(deadline=None)
def test_a_gold_span_is_exactly_the_answer_and_short_ones_stand_whole_in_some_window(kind, case, max_length, stride):
    context, answer, start = case
    rows = windows(kind, context, [(answer, start)], max_length, stride)
    found = 0
    for row in rows:
        first, last = row["labels"]
        if first == row["cls"]:
            assert last == row["cls"]
            continue
        found += 1
        assert not row["within"]
        assert context[row["offsets"][first][0] : row["offsets"][last][1]] == answer
        assert row["offsets"][first][0] == start
    # a byte-level BPE cuts words in another way when a space is before them; more tokens than bytes there never are
    tokens = TOKENIZERS[kind](answer, add_special_tokens=False)["input_ids"]
    length = len(tokens) if kind == "wordpiece" else len(answer.encode()) + 1
    assert found or length > stride


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(asked(), st.integers(24, 60), st.integers(0, 12))
@settings(deadline=None)
def test_windows_hold_every_token_of_the_context_and_share_what_was_asked_for(kind, case, max_length, stride):
    context, *_ = case
    rows = windows(kind, context, [], max_length, stride)
    together: list[int] = []
    for number, row in enumerate(rows):
        assert row["length"] == len(row["input_ids"]) <= max_length
        ids = context_ids(kind, row)
        assert number == 0 or ids[:stride] == together[len(together) - stride :]
        together += ids[stride:] if number else ids
        assert row["labels"] == [row["cls"], row["cls"]] == [0, 0]
    assert together == TOKENIZERS[kind](context, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(asked())
@settings(deadline=None)
def test_offsets_have_no_spaces_around_them_and_stay_outside_the_question(kind, case):
    context, *_ = case
    for row in windows(kind, context, [], 40, 8):
        parts = TOKENIZERS[kind]("the dog", add_special_tokens=False)["input_ids"]
        assert all(offset == [-1, -1] for offset in row["offsets"][: len(parts) + 2])
        for first, last in row["offsets"]:
            assert context[first:last] == context[first:last].strip()


def test_the_first_of_several_answers_that_stands_whole_in_a_window_is_its_target():
    context = " ".join(["fox"] * 40 + ["paris"] + ["dog"] * 40 + ["rome"])
    rows = windows("wordpiece", context, [("rome", context.index("rome")), ("paris", context.index("paris"))], 30, 8)
    said = []
    for row in rows:
        first, last = row["labels"]
        said.append(context[row["offsets"][first][0] : row["offsets"][last][1]] if first != row["cls"] else "")
    assert said[0] == ""
    assert said[-1] == "rome"
    assert {"paris", "rome", ""} == set(said)


def test_an_answer_within_a_token_is_widened_and_one_longer_than_any_window_is_counted_and_said(caplog):
    contexts = ["the ΩmegaΩ fox", "fox " * 60, "the dog"]
    answers = [("mega", 5), (("fox " * 50).strip(), 0), ("dog", 4)]
    table = {
        "id": ["a", "b", "c"],
        "question": ["the dog"] * 3,
        "context": contexts,
        "answers": [{"text": [text], "answer_start": [start]} for text, start in answers],
    }
    questions = DatasetDict({"train": Dataset.from_dict(table)})
    cut, counts = cut_windows(questions, TOKENIZERS["wordpiece"], 30, 8)
    rows = [row for row in cut["train"] if row["row"] == 0]
    (first, last) = rows[0]["labels"]
    assert contexts[0][rows[0]["offsets"][first][0] : rows[0]["offsets"][last][1]] == "ΩmegaΩ"
    assert counts == {
        "train_windows": len(cut["train"]),
        "train_answers_in_no_window": 1,
        "train_answers_within_a_token": 1,
    }
    assert sorted(set(cut["train"]["row"])) == [0, 1, 2]
    assert "1 training questions have an answer that no window holds" in caplog.text


def test_characters_that_a_tokenizer_leaves_out_do_not_hide_an_answer():
    context = "\u200b\u00adparis\u200b is the capital of france\u200b"
    tokenizer = bert_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer()  # drops what is invisible
    prepare_tokenizer(tokenizer)
    answers = [{"text": [context], "answer_start": [0]}]
    batch = {"id": ["q"], "question": ["the dog"], "context": [context], "answers": answers}
    row = windows_of(batch, [0], tokenizer, 60, 8)
    ((first, last),) = row["labels"]
    assert row["offsets"][0][first][0] == 2
    assert first < last == row["length"][0] - 2


def test_a_question_without_room_for_its_context_is_refused_by_its_id():
    batch = {"id": ["q7"], "question": ["the dog " * 9], "context": ["the fox"]}
    tokens = len(TOKENIZERS["wordpiece"]("the dog " * 9, add_special_tokens=False)["input_ids"])
    longest = tokens + 3 + 9
    with pytest.raises(UserError, match=rf"question q7: {tokens} tokens leave 9 of --max_length {longest}") as refusal:
        windows_of(batch, [0], TOKENIZERS["wordpiece"], longest, 9)
    assert "\n" not in str(refusal.value)
    assert windows_of(batch, [0], TOKENIZERS["wordpiece"], longest, 8)["length"] <= [longest]


def test_a_tokenizer_without_a_place_for_no_answer_is_refused():
    with pytest.raises(UserError, match="no \\[CLS\\]"):
        prepare_tokenizer(gpt_tokenizer())


def test_contexts_of_a_batch_do_not_mix():
    contexts = ["the quick brown fox " * 9, "paris is the capital of france; " * 7, "knee"]
    batch = {"id": list("abc"), "question": ["the dog"] * 3, "context": contexts}
    together = windows_of(batch, [5, 6, 7], TOKENIZERS["wordpiece"], 24, 6)
    for number, context in enumerate(contexts):
        alone = windows_of(
            {name: [column[number]] for name, column in batch.items()}, [0], TOKENIZERS["wordpiece"], 24, 6
        )
        own = [place for place, row in enumerate(together["row"]) if row == 5 + number]
        assert [together["input_ids"][place] for place in own] == alone["input_ids"]
        assert [together["offsets"][place] for place in own] == alone["offsets"]
        ends = np.array(alone["offsets"][-1])[:, 1].max()
        assert ends == len(context.rstrip())
