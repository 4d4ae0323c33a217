"""Golden label masks: which tokens of a conversation are learned under each template; and what is refused."""

import csv
import json
from itertools import groupby

import pytest
from tiny_models import gpt_tokenizer

from lm_recipes.alignment import encode, few_dialogues, fit_dialogues, load_dialogues, prepare_tokenizer, windows
from lm_recipes.alignment.templates import TEMPLATES, check_tools, training_template
from lm_recipes.launch import UserError
from lm_recipes.sources.labelled import few_labels, load_labelled

TOOL = {"type": "function", "function": {"name": "find_ward", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "find_ward", "arguments": {"floor": 7}}}
SEVERAL = [
    {"role": "user", "content": "my knee"},
    {"role": "assistant", "content": "since when?"},
    {"role": "user", "content": "the fall"},
    {"role": "assistant", "content": "the dog?"},
    {"role": "user", "content": "yes"},
]
SYSTEM = [{"role": "system", "content": "be brief"}, *SEVERAL[:2]]
CALLING = [
    {"role": "system", "content": "be brief", "tools": [TOOL]},
    {"role": "user", "content": "which ward?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "open"},
    {"role": "assistant", "content": "go to 7"},
]
HELPFUL = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
FUNCTIONS = f"You may call these functions:\n{json.dumps(TOOL)}\n"
CHATML_CALL = '<tool_call>\n{"name": "find_ward", "arguments": {"floor": 7}}\n</tool_call>'
CHATML_HOW = 'A call is <tool_call>\n{"name": name, "arguments": {...}}\n</tool_call>.'

# What stands between « and » is learned.
CHATML_SEVERAL = (
    "<|im_start|>user\nmy knee<|im_end|>\n<|im_start|>assistant\n«since when?<|im_end|>»\n"
    "<|im_start|>user\nthe fall<|im_end|>\n<|im_start|>assistant\n«the dog?<|im_end|>»\n"
    "<|im_start|>user\nyes<|im_end|>\n"
)
CHATML_SYSTEM = (
    "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nmy knee<|im_end|>\n"
    "<|im_start|>assistant\n«since when?<|im_end|>»\n"
)
CHATML_CALLING = (
    f"<|im_start|>system\nbe brief\n\n{FUNCTIONS}{CHATML_HOW}<|im_end|>\n"
    f"<|im_start|>user\nwhich ward?<|im_end|>\n<|im_start|>assistant\n«{CHATML_CALL}<|im_end|>»\n"
    "<|im_start|>tool\nopen<|im_end|>\n<|im_start|>assistant\n«go to 7<|im_end|>»\n"
)
GOLDEN = {
    ("chatml", "several"): f"<|bos|>{CHATML_SEVERAL}",
    ("chatml", "system"): f"<|bos|>{CHATML_SYSTEM}",
    ("chatml", "calling"): f"<|bos|>{CHATML_CALLING}",
    ("smollm2", "several"): f"<|im_start|>system\n{HELPFUL}<|im_end|>\n{CHATML_SEVERAL}",
    ("smollm2", "system"): CHATML_SYSTEM,
    ("smollm2", "calling"): CHATML_CALLING,
    ("llama3", "several"): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nmy knee<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«since when?<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nthe fall<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«the dog?<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nyes<|eot_id|>"
    ),
    ("llama3", "system"): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nmy knee<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«since when?<|eot_id|>»"
    ),
    ("llama3", "calling"): (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief\n\n{FUNCTIONS}"
        'A call is {"name": name, "parameters": {...}}; several have a semicolon between them.<|eot_id|>'
        "<|start_header_id|>user<|end_header_id|>\n\nwhich ward?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '«{"name": "find_ward", "parameters": {"floor": 7}}<|eot_id|>»'
        "<|start_header_id|>ipython<|end_header_id|>\n\nopen<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«go to 7<|eot_id|>»"
    ),
}


def tokenizer_for(name: str):
    tokenizer = gpt_tokenizer()
    if name == "llama3":
        tokens = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        tokenizer.add_tokens(tokens, special_tokens=True)
        tokenizer.bos_token = "<|begin_of_text|>"
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    prepare_tokenizer(tokenizer)
    return tokenizer


def marked(tokenizer, messages: list[dict]) -> str:
    row, text = encode(tokenizer, messages), ""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    for learned, run in groupby(pairs, key=lambda pair: pair[1] != -100):
        run = list(run)
        assert not learned or all(id == label for id, label in run)
        part = tokenizer.decode([id for id, _ in run])
        text += f"«{part}»" if learned else part
    return text


@pytest.mark.parametrize(("name", "kind"), GOLDEN)
def test_what_the_assistant_says_is_learned_with_its_end_and_nothing_else(name, kind):
    messages = {"several": SEVERAL, "system": SYSTEM, "calling": CALLING}[kind]
    assert marked(tokenizer_for(name), messages) == GOLDEN[name, kind]


def test_tools_without_a_system_turn_get_one():
    alone = [{"role": "system", "content": "", "tools": [TOOL]}, *CALLING[1:]]
    chatml = marked(tokenizer_for("chatml"), alone)
    assert chatml.startswith(f"<|bos|><|im_start|>system\n{FUNCTIONS}{CHATML_HOW}<|im_end|>\n<|im_start|>user")
    assert marked(tokenizer_for("smollm2"), alone).startswith(f"<|im_start|>system\n{HELPFUL}\n\n{FUNCTIONS}")


def test_words_before_a_call_and_several_calls_are_one_turn():
    turn = {"role": "assistant", "content": "let me look", "tool_calls": [CALL, CALL]}
    said = marked(tokenizer_for("chatml"), [CALLING[0], CALLING[1], turn])
    assert said.endswith(f"<|im_start|>assistant\n«let me look\n{CHATML_CALL}\n{CHATML_CALL}<|im_end|>»\n")


def test_llama_3_is_known_by_what_its_own_template_writes():
    from trl.chat_template_utils import llama3_chat_template

    tokenizer = tokenizer_for("llama3")
    ours, tokenizer.chat_template = tokenizer.chat_template, llama3_chat_template
    assert training_template(tokenizer) == ours
    for messages in (SEVERAL, SYSTEM):
        for prompt in (False, True):
            texts = [
                tokenizer.apply_chat_template(messages, chat_template=one, tokenize=False, add_generation_prompt=prompt)
                for one in (ours, llama3_chat_template)
            ]
            assert texts[0] == texts[1]


def test_a_template_that_leaves_tools_out_is_refused_and_qwens_is_not():
    from trl.chat_template_utils import qwen2_5_training_chat_template

    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}\n{% endfor %}"
    )
    prepare_tokenizer(tokenizer)
    with pytest.raises(UserError, match=r"does not write them; pass one .* --chat_template_path"):
        fit_dialogues({"train": [CALLING]}, tokenizer, 500)
    tokenizer.chat_template = qwen2_5_training_chat_template
    check_tools(tokenizer)
    fitted, counts = fit_dialogues({"train": [CALLING]}, tokenizer, 2_000)
    assert fitted["train"] == [CALLING]
    assert counts["train_exchanges_longer_than_max_length"] == 0


def words(messages) -> int:
    return sum(1 + len(message["content"].split()) for message in messages)


def test_a_call_what_it_returned_and_the_answer_stay_in_one_window():
    dialogue = [*CALLING, {"role": "user", "content": "thanks"}, {"role": "assistant", "content": "bye"}]
    assert windows(dialogue, words, words(dialogue)) == ([dialogue], 0)
    assert windows(dialogue, words, words(dialogue) - 1) == ([CALLING, [CALLING[0], *dialogue[-2:]]], 0)
    assert windows(dialogue, words, 8) == ([[CALLING[0], *dialogue[-2:]]], 1)
    unanswered = [*CALLING, {"role": "user", "content": "and now?"}]
    assert windows(unanswered, words, 100) == ([CALLING], 0)


# --- files ---


def load(tmp_path, *rows: dict, **options):
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_dialogues(str(tmp_path / "chats.jsonl"), **options)


def test_calls_and_tools_of_a_file_come_out_as_they_went_in(tmp_path):
    """Though a table gives every row the arguments of all functions."""
    other = {"type": "function", "function": {"name": "send", "arguments": {"to": {"name": "Ann"}, "copies": [1, 2]}}}
    ward, rows = {"type": "function", "function": {"name": "find_ward", "description": "d"}}, []
    for number in range(160):
        call, tool = ((CALL, ward), (other, {"name": "send", "parameters": {"type": "object"}}))[number % 2]
        messages = [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "it is done"},
        ]
        if number % 4 > 1:  # as JSON
            function = call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}
            messages[1] = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
        rows.append((messages, [tool]))
    for half in (0, 1):  # Arrow knows a column of texts or of structures, not of both
        some = [row for number, row in enumerate(rows) if number % 4 // 2 == half]
        splits = load(tmp_path, *({"messages": m, "tools": t} for m, t in some), validation=0.2, test=0.2)
        for dialogue in (one for dialogues in splits.values() for one in dialogues):
            calls, tools = dialogue[2]["tool_calls"], dialogue[0]["tools"]
            name = calls[0]["function"]["name"]
            assert calls == [{"find_ward": CALL, "send": other}[name]]
            assert [tool["function"]["name"] for tool in tools] == [name]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([*SEVERAL[:1], {"role": "tool", "content": "x"}], r"messages\[1\].role: `tool` out of order after `user`"),
        (
            [*SEVERAL[:1], {"role": "assistant", "content": "", "tool_calls": [CALL]}, SEVERAL[2]],
            r"messages\[2\].role: `user` out of order after `assistant` with tool_calls",
        ),
        (
            [
                *SEVERAL[:1],
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "find_ward", "arguments": "{floor"}}],
                },
            ],
            r"messages\[1\].tool_calls\[0\].arguments: not JSON",
        ),
        ([*SEVERAL[:2], SEVERAL[3]], r"messages\[2\].role: `assistant` out of order after `assistant`"),
        ([*SEVERAL[:1], {"role": "assistant", "content": " "}], r"messages\[1\].content: empty"),
        (SEVERAL[:1], "messages: no assistant turn"),
    ],
)
def test_a_dialogue_that_cannot_be_learned_from_is_named_by_file_row_and_key(row, complaint, tmp_path):
    with pytest.raises(UserError, match=rf"chats.jsonl: row 2: {complaint}"):
        load(tmp_path, {"messages": SEVERAL}, {"messages": row})


@pytest.mark.parametrize(
    ("tools", "complaint"),
    [
        ("[{", "not JSON"),
        ('"find_ward"', "expected a list"),
        ('[{"parameters": {}}]', r"\[0\]: a tool without a `name`"),
    ],
)
def test_tools_that_are_none_are_named_by_file_row_and_key(tools, complaint, tmp_path):
    with pytest.raises(UserError, match=rf"chats.jsonl: row 2: tools:?.*{complaint}"):
        load(tmp_path, {"messages": SEVERAL, "tools": "[]"}, {"messages": SEVERAL, "tools": tools})


def test_the_pieces_of_a_consultation_never_straddle_a_split(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"piece {piece} of {case}"}, SEVERAL[1]], "case": f"Case {case}"}
        for piece in range(3)
        for case in range(40)
    ]
    splits = load(tmp_path, *rows, group_column="case", validation=0.25, test=0.25)
    cases = {name: {one[0]["content"].split(" of ")[1] for one in dialogues} for name, dialogues in splits.items()}
    assert sum(map(len, cases.values())) == 40
    assert all(len(splits[name]) == 3 * len(cases[name]) for name in splits)
    with pytest.raises(UserError, match="no column `patient`; it has messages, case"):
        load(tmp_path, *rows, group_column="patient")


def test_a_csv_file_of_texts_and_classes_has_the_splits_and_the_few_rows_of_a_classifier(tmp_path):
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        rows.writerows([f"{'A  gem' if i % 2 else 'all lost'} {i}", "good" if i % 2 else "bad"] for i in range(80))
    columns = {"prompt_column": "text", "answer_column": "label"}
    dialogues = load_dialogues(str(path), **columns)
    labelled, _ = load_labelled(str(path))
    for split, rows in dialogues.items():
        assert [one[0]["content"] for one in rows] == list(labelled[split]["text"])
        assert {one[1]["content"] for one in rows} <= {"good", "bad"}
    few = few_dialogues(dialogues["train"], 20, seed=3)
    drawn = labelled["train"].select(few_labels(labelled["train"], 20, seed=3))
    assert [one[0]["content"] for one in few] == list(drawn["text"])
    with pytest.raises(UserError, match="--train_rows 999: there are"):
        few_dialogues(dialogues["train"], 999, seed=3)
    with pytest.raises(UserError, match="give both or neither"):
        load_dialogues(str(path), prompt_column="text")


@pytest.mark.parametrize(("row", "column"), [({"asked": "", "said": "a"}, "asked"), ({"asked": "q"}, "said")])
def test_a_missing_turn_of_a_table_is_named_by_file_row_and_column(row, column, tmp_path):
    with pytest.raises(UserError, match=f"chats.jsonl: row 2: {column}: empty"):
        load(tmp_path, {"asked": "q", "said": "a"}, row, prompt_column="asked", answer_column="said")


def test_answers_to_one_prompt_never_straddle_a_split(tmp_path):
    rows = [{"asked": f"q{i % 30}", "said": f"a{i}"} for i in range(90)]
    splits = load(tmp_path, *rows, prompt_column="asked", answer_column="said", validation=0.2, test=0.2)
    asked = [{messages[0]["content"] for messages in dialogues} for dialogues in splits.values()]
    assert sum(map(len, asked)) == 30
