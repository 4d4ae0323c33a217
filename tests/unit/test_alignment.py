"""Chat templates, dialogues, and the likelihood of what an assistant says."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import gpt, gpt_tokenizer

from lm_recipes.alignment import (
    check_messages,
    control_tokens,
    fit_dialogues,
    load_dialogues,
    prepare_tokenizer,
    some_dialogues,
    windows,
)
from lm_recipes.alignment.templates import TEMPLATES, training_template
from lm_recipes.evaluation.dialogues import assistant_bits_per_byte
from lm_recipes.launch import UserError

# As shipped in SmolLM2-135M-Instruct's tokenizer.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)


def said(*contents: str, system: str | None = None) -> list[dict]:
    messages = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return messages + [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def chat_tokenizer(template: str | None = None):
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = template
    prepare_tokenizer(tokenizer)
    return tokenizer


def learned_text(tokenizer, messages) -> list[str]:
    """The runs of text whose tokens are asked of the model."""
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    runs, before = [], 0
    for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
        if mask:
            runs = [*runs, []] if not before else runs
            runs[-1].append(token)
        before = mask
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [None, SMOLLM2])
def test_only_the_assistants_words_and_the_end_of_its_turns_are_learned(template):
    tokenizer = chat_tokenizer(template)
    messages = said("my knee hurts", "since when?", "the fall", "the dog?", "yes")
    assert learned_text(tokenizer, messages) == ["since when?<|im_end|>", "the dog?<|im_end|>"]
    assert learned_text(tokenizer, said("a", "b", system="be brief")) == ["b<|im_end|>"]


def test_chatml_golden_rendering():
    tokenizer = chat_tokenizer()
    rendered = tokenizer.apply_chat_template(said("a", "b", "c"), tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|bos|><|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(contents=st.lists(text, min_size=1, max_size=6), system=st.none() | text, prompt=st.booleans())
def test_our_smollm2_template_writes_every_conversation_as_its_own_does(contents, system, prompt):
    tokenizer = gpt_tokenizer()
    ours = (TEMPLATES / "smollm2.jinja").read_text("utf-8")
    renderings = [
        tokenizer.apply_chat_template(
            said(*contents, system=system), chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
        for template in (ours, SMOLLM2)
    ]
    assert renderings[0] == renderings[1]


@given(contents=st.lists(text.map(str.strip), min_size=2, max_size=6))
def test_learned_tokens_spell_exactly_the_answers_whatever_they_hold(contents):
    tokenizer = chat_tokenizer()
    answers = [content for i, content in enumerate(contents) if i % 2]
    assert learned_text(tokenizer, said(*contents)) == [f"{answer}<|im_end|>" for answer in answers]


def test_the_token_that_ends_a_turn_becomes_eos_and_differs_from_pad():
    tokenizer = chat_tokenizer()
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|pad|>"


def test_pad_equal_to_the_end_of_a_turn_is_refused():
    tokenizer = gpt_tokenizer()
    tokenizer.pad_token = "<|im_end|>"
    with pytest.raises(UserError, match=r"pad token is <\|im_end\|>"):
        prepare_tokenizer(tokenizer)


def test_a_tokenizer_without_the_templates_tokens_is_refused():
    tokenizer = gpt_tokenizer()
    plain = "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    tokenizer.chat_template = plain
    with pytest.raises(UserError, match="never learn to stop"):
        prepare_tokenizer(tokenizer)


def test_a_template_with_markers_is_kept_and_one_nobody_knows_is_refused(tmp_path):
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = "{% generation %}mine{% endgeneration %}"
    assert training_template(tokenizer) == tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    with pytest.raises(UserError, match="--chat_template_path"):
        training_template(tokenizer)
    (tmp_path / "bare.jinja").write_text("{{ messages }}")
    with pytest.raises(UserError, match="nothing would be learned"):
        training_template(tokenizer, str(tmp_path / "bare.jinja"))
    with pytest.raises(UserError, match="no such file"):
        training_template(tokenizer, str(tmp_path / "missing.jinja"))


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "expected a list"),
        ("hello", "expected a list"),
        (said("a"), "no assistant turn"),
        ([{"role": "user"}], r"\[0\]: expected the keys"),
        ([{"role": "doctor", "content": "a"}], r"\[0\].role: `doctor` is none of"),
        ([{"role": "assistant", "content": "a"}], r"\[0\].role: `assistant` out of order after nothing"),
        (said("a", "b")[:1] * 2, r"\[1\].role: `user` out of order after `user`"),
        (said("a", "b") + said("c", system="s")[:1], r"\[2\].role: `system` out of order"),
        (said("a", "  "), r"\[1\].content: empty"),
        ([{"role": "user", "content": None}], r"\[0\].content: empty"),
    ],
)
def test_bad_dialogues_are_refused_by_place(messages, complaint):
    with pytest.raises(UserError, match=rf"^chats.jsonl: row 3: messages.*{complaint}"):
        check_messages(messages, "chats.jsonl: row 3: messages")


def test_bad_rows_of_a_file_are_named(tmp_path):
    good, bad = {"messages": said("a", "b")}, {"messages": said("a", "b")[1:]}
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, [good, good, bad])))
    with pytest.raises(UserError, match=r"chats.jsonl: row 3: messages\[0\].role"):
        load_dialogues(str(tmp_path / "chats.jsonl"))


def test_identical_dialogues_never_straddle_a_split(tmp_path):
    rows = [{"messages": said(f"q{i % 20}", f" a{i % 20} ")} for i in range(60)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = load_dialogues(str(tmp_path / "chats.jsonl"), validation=0.25, test=0.25)
    questions = {name: {dialogue[0]["content"] for dialogue in rows} for name, rows in splits.items()}
    assert sum(map(len, questions.values())) == 20
    assert all(len(splits[name]) == 3 * len(questions[name]) for name in splits)


def test_control_tokens_typed_by_a_user_are_refused_by_row(tmp_path):
    rows = [{"messages": said("hi", "b")}, {"messages": said("hi <|im_end|>", "b")}]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"chats.jsonl: row 2: the control token <\|im_end\|> stands in a message"):
        load_dialogues(str(tmp_path / "chats.jsonl"), control_tokens=control_tokens(chat_tokenizer()))


def test_control_tokens_are_those_that_the_template_writes_and_those_with_a_name():
    tokenizer = gpt_tokenizer()
    tokenizer.add_tokens(["<|header|>", "<filename>"], special_tokens=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<|header|>{{ m['role'] }} {% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}{% endfor %}"
    )
    prepare_tokenizer(tokenizer)
    assert {"<|header|>", "<|im_end|>", "<|pad|>"} <= set(control_tokens(tokenizer))
    assert "<filename>" not in control_tokens(tokenizer)


def words(messages) -> int:
    return sum(1 + len(message["content"].split()) for message in messages)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=14),
    system=st.none() | st.just("be brief"),
    max_length=st.integers(8, 40),
)
def test_windows_fit_lose_only_what_is_counted_and_cut_only_between_exchanges(lengths, system, max_length):
    messages = said(*(" ".join([f"w{i}"] * n) for i, n in enumerate(lengths)), system=system)
    head = messages[: bool(system)]
    found, too_long = windows(messages, words, max_length)
    exchanges = [messages[i : i + 2] for i in range(len(head), len(messages) - 1, 2)]
    kept = [exchange for exchange in exchanges if words(head + exchange) <= max_length]
    assert too_long == len(exchanges) - len(kept)
    assert [m for window in found for m in window[len(head) :]] == [m for exchange in kept for m in exchange]
    for window in found:
        assert words(window) <= max_length
        assert window[: len(head)] == head
        assert (window[len(head)]["role"], window[-1]["role"]) == ("user", "assistant")


def test_a_split_in_which_nothing_fits_is_refused():
    with pytest.raises(UserError, match="no exchange of the test dialogues fits into max_length 4"):
        fit_dialogues({"test": [said("my knee hurts", "since when?")]}, chat_tokenizer(), 4)


def test_bits_per_byte_counts_the_assistants_words_only_whatever_the_batches():
    tokenizer, model = chat_tokenizer(), gpt()
    conversations = [
        said("a", "since when?", "ü", "the dog?"),
        said("my knee " * 5, "é"),
        said("x", "the lazy dog " * 3),
    ]
    conversations = [[{**m, "content": m["content"].strip()} for m in c] for c in conversations]
    nats, size = 0.0, 0
    for messages in conversations:
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids = torch.tensor([encoded["input_ids"]])
        log_probabilities = model(ids).logits[0].log_softmax(-1).detach()
        for position, (token, mask) in enumerate(zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)):
            if mask and token != tokenizer.eos_token_id:
                nats -= float(log_probabilities[position - 1, token])
        size += sum(len(m["content"].encode()) for m in messages if m["role"] == "assistant")
    expected = nats / math.log(2) / size
    for tokens_per_batch in (1, 100, 10_000):
        assert assistant_bits_per_byte(model, tokenizer, conversations, tokens_per_batch) == pytest.approx(
            expected, rel=1e-5
        )


def test_some_dialogues_do_not_depend_on_the_order_of_rows():
    dialogues = [said(f"question {i}", "a") for i in range(40)]
    some = some_dialogues(dialogues, 7)
    assert [one for one in dialogues if one in some] == some  # in their order
    assert sorted(map(str, some_dialogues(dialogues[::-1], 7))) == sorted(map(str, some))
    assert some_dialogues(dialogues, None) == some_dialogues(dialogues, 99) == dialogues
