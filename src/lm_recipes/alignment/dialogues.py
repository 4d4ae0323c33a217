"""What is a dialogue a model can learn from, and how does a long one fit?"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lm_recipes.alignment.templates import check_tools, render
from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.splits import split_of

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# Each {"role": "system" | "user" | "assistant" | "tool", "content": text}. An assistant's may have `tool_calls`, as
# transformers' templates read them; a system message may have `tools`: what there is to call in this dialogue.
Messages = list[dict[str, Any]]

ROLES = ("system", "user", "assistant", "tool")
# what a message is -> the roles of the one after it
FOLLOWS = {
    "nothing": ("system", "user"),
    "`system`": ("user",),
    "`user`": ("assistant",),
    "`assistant`": ("user",),
    "`assistant` with tool_calls": ("tool",),
    "`tool`": ("tool", "assistant"),
}


def load_dialogues(
    source: str,
    *,
    column: str = "messages",
    prompt_column: str | None = None,
    answer_column: str | None = None,
    group_column: str | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    control_tokens: Sequence[str] = (),
) -> dict[str, list[Messages]]:
    """Checked dialogues by split ("train", "validation", "test"), divided by a hash of the whole dialogue.

    A column `tools` (a list of JSON schemas, or that as JSON) says what may be called in a row's dialogue.

    Args:
        column: with lists of messages.
        prompt_column, answer_column: both instead of `column`: a user's turn and its answer, as a CSV file has them.
        group_column: rows with the same value are in the same split: the pieces of one consultation, the questions on
            one document; by default those with the same prompt. It is compared like the texts of `load_labelled`,
            whose splits these then are.
        control_tokens: that no message may spell (`templates.control_tokens`).

    Raises:
        UserError: naming source, row and message of the first dialogue that cannot be learned from.
    """
    if bool(prompt_column) != bool(answer_column):
        raise UserError("--prompt_column and --answer_column: a turn and its answer; give both or neither")
    table = load_table(source)
    wanted = (prompt_column, answer_column) if prompt_column else (column,)
    for name in (*wanted, group_column):
        if name and name not in table.column_names:
            raise UserError(f"{source}: no column `{name}`; it has {', '.join(table.column_names)}")
    splits: dict[str, list[Messages]] = {"train": [], "validation": [], "test": []}
    group_column = group_column or prompt_column
    groups = table[group_column] if group_column else [None] * len(table)
    for row, (found, tools, group) in enumerate(
        zip(_messages(table, *wanted), _column(table, "tools"), groups, strict=True), start=1
    ):
        where = f"{source}: row {row}: "
        if prompt_column:
            found = _exchange(found, wanted, where)
        messages = check_messages(found, f"{where}{column}")
        messages = _with_tools(messages, tools, f"{where}tools")
        _refuse_control_tokens(messages, control_tokens, where)
        key = " ".join(str(group).casefold().split()) if group_column else json.dumps(messages, sort_keys=True)
        splits[split_of(key, validation, test, seed)].append(messages)
    for name, dialogues in splits.items():
        if not dialogues:
            raise UserError(f"{source}: no dialogues for the {name} split; give more rows or a larger share")
    return splits


def _column(table: "Dataset", name: str) -> list:
    return table[name] if name in table.column_names else [None] * len(table)


def _messages(table: "Dataset", first: str, answer: str | None = None) -> Iterable:
    """The dialogues of a table, not checked yet; or, of two columns, pairs of a turn and its answer."""
    if answer is None:
        return table[first]
    from datasets import ClassLabel

    feature, answers = table.features[answer], table[answer]
    if isinstance(feature, ClassLabel):
        answers = [None if value in (None, -1) else feature.int2str(value) for value in answers]
    return zip(table[first], answers, strict=True)


def _exchange(said: tuple, columns: tuple[str, ...], where: str) -> Messages:
    texts = ["" if text is None else str(text).strip() for text in said]
    for name, text in zip(columns, texts, strict=True):
        if not text:
            raise UserError(f"{where}{name}: empty; fill it in or take the row out")
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]


def few_dialogues(dialogues: list[Messages], number: int | None, seed: int) -> list[Messages]:
    """`number` dialogues to learn from, drawn as `some_dialogues` says.

    Raises:
        UserError: there are not so many.
    """
    if number is not None and not 0 < number <= len(dialogues):
        raise UserError(f"--train_rows {number}: there are {len(dialogues)} dialogues to learn from")
    return some_dialogues(dialogues, number, seed)


def some_dialogues(dialogues: list[Messages], number: int | None, seed: int = 0) -> list[Messages]:
    """At most `number` dialogues, in their order: those whose hash of seed and first user's turn is lowest, so that a
    dialogue made of a labelled row is drawn when `sources.labelled.few_labels` draws that row.
    """

    def drawn(place: int) -> bytes:
        asked = next(message["content"] for message in dialogues[place] if message["role"] == "user")
        return hashlib.blake2b(f"{seed}\0{asked}".encode("utf-8", "surrogatepass")).digest()

    return [dialogues[place] for place in sorted(sorted(range(len(dialogues)), key=drawn)[:number])]


def check_messages(messages: object, where: str) -> Messages:
    """The messages with outer spaces stripped: an optional system message, then user and assistant in turn. An
    assistant that calls tools is followed by what they return, and then speaks again.

    Spaces go because a token may not straddle the border between what is learned and what is not.

    Raises:
        UserError: starting with `where` (source, row, key), for any other shape or a dialogue without an answer.
    """
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: expected a list of {{role, content}}, found {type(messages).__name__}")
    checked: Messages = []
    before = "nothing"
    for number, message in enumerate(messages):
        here = f"{where}[{number}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys() | _instead_of_content(message):
            raise UserError(f"{here}: expected the keys `role` and `content`")
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"{here}.role: `{role}` is none of {', '.join(ROLES)}")
        if role not in FOLLOWS[before]:
            raise UserError(
                f"{here}.role: `{role}` out of order after {before}; a dialogue is [system] user assistant user "
                "assistant ..., with `tool` turns after an assistant that has tool_calls, and nowhere else"
            )
        calls = _calls(message["tool_calls"], f"{here}.tool_calls") if message.get("tool_calls") else []
        if calls and role != "assistant":
            raise UserError(f"{here}.tool_calls: only an assistant calls tools")
        checked.append({"role": role, "content": _content(message, role, calls, here)})
        if calls:
            checked[-1]["tool_calls"] = calls
        before = "`assistant` with tool_calls" if calls else f"`{role}`"
    if not any(message["role"] == "assistant" for message in checked):
        raise UserError(f"{where}: no assistant turn, so no token to learn from")
    return checked


def _instead_of_content(message: dict) -> set[str]:
    return {"content"} if message.get("tool_calls") else set()


def _content(message: dict, role: str, calls: list[dict], here: str) -> str:
    content = message.get("content")
    if role == "tool" and isinstance(content, dict | list):
        content = json.dumps(_without_none(content), ensure_ascii=False)
    if calls and content is None:
        return ""
    if not isinstance(content, str) or not (content.strip() or calls):
        raise UserError(f"{here}.content: empty or not a text")
    return content.strip()


def _calls(calls: object, where: str) -> list[dict]:
    """`[{"type": "function", "function": {"name", "arguments": a dictionary}}]`, as chat templates expect it."""
    if not isinstance(calls, list):
        raise UserError(f"{where}: expected a list, found {type(calls).__name__}")
    checked = []
    for number, call in enumerate(calls):
        function = (call.get("function") or call) if isinstance(call, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except json.JSONDecodeError as error:
                raise UserError(f"{where}[{number}].arguments: not JSON ({error})") from error
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            raise UserError(f"{where}[{number}]: expected a `name`, and `arguments` with a value for each name")
        checked.append({"type": "function", "function": {"name": name, "arguments": _without_none(arguments)}})
    return checked


def _with_tools(messages: Messages, tools: object, where: str) -> Messages:
    """The messages with `tools` on their system message, which is made if there is none (see `templates.render`)."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error})") from error
    if not tools:
        return messages
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"{where}: expected a list of JSON schemas, found {type(tools).__name__}")
    checked = []
    for number, tool in enumerate(_without_none(tools)):
        function = tool.get("function", tool)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UserError(f"{where}[{number}]: a tool without a `name`")
        checked.append({"type": "function", "function": function})
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": ""}, *messages]
    return [messages[0] | {"tools": checked}, *messages[1:]]


def _without_none(value: object) -> Any:
    """What a table gave to all rows because one of them has it."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def _refuse_control_tokens(messages: Messages, tokens: Sequence[str], where: str) -> None:
    """Typed by a user, a control token would end or start a turn."""
    for message in messages:
        beside = [message[key] for key in ("tool_calls", "tools") if key in message]
        text = message["content"] + (json.dumps(beside, ensure_ascii=False) if beside else "")
        for token in tokens:
            if token in text:
                start = text[:60].replace("\n", " ")
                raise UserError(f"{where}the control token {token} stands in a message ({start!r} ...); take it out")


def windows(messages: Messages, length: Callable[[Messages], int], max_length: int) -> tuple[list[Messages], int]:
    """Cut a dialogue between exchanges into consecutive windows that fit; nothing is cut inside a turn.

    Every window opens with the system message, if there is one, and then a user turn; last turns without an
    answer carry no loss and go.

    Args:
        length: tokens of some messages under the chat template.
        max_length: longest window, in tokens.

    Returns:
        The windows, and how many exchanges (a user's turn and all up to the next one) are longer than a window by
        themselves.
    """
    system = messages[:1] if messages[0]["role"] == "system" else []
    exchanges = _exchanges(messages[len(system) :])
    whole = system + [message for exchange in exchanges for message in exchange]
    if exchanges and length(whole) <= max_length:
        return [whole], 0
    found, current, too_long = [], [], 0
    for exchange in exchanges:
        if length(system + current + exchange) <= max_length:
            current = current + exchange
            continue
        if current:
            found.append(system + current)
        fits = length(system + exchange) <= max_length
        current, too_long = (exchange if fits else []), too_long + (not fits)
    return ([*found, system + current] if current else found), too_long


def _exchanges(turns: Messages) -> list[Messages]:
    """A user's turn and what follows up to the next one, each to its last assistant's turn."""
    exchanges: list[Messages] = []
    for message in turns:
        if message["role"] == "user":
            exchanges.append([])
        exchanges[-1].append(message)
    while exchanges and exchanges[-1][-1]["role"] != "assistant":  # only the last one can end without an answer
        exchanges[-1].pop()
        if not exchanges[-1]:
            exchanges.pop()
    return exchanges


def fit_dialogues(
    dialogues: dict[str, list[Messages]], tokenizer, max_length: int
) -> tuple[dict[str, list[Messages]], dict[str, int]]:
    """`windows` for every dialogue of every split, and what became of them: nothing is lost without being counted.

    Raises:
        UserError: for a split in which no exchange fits, or tools that the chat template does not write.
    """
    if any("tools" in message or "tool_calls" in message for rows in dialogues.values() for m in rows for message in m):
        check_tools(tokenizer)
    fitted: dict[str, list[Messages]] = {}
    counts: dict[str, int] = {}

    def length(messages: Messages) -> int:
        quiet = {"verbose": False}  # it would warn of each dialogue that is longer than the model reads
        return len(render(tokenizer, messages, return_dict=True, tokenizer_kwargs=quiet)["input_ids"])

    for split, rows in dialogues.items():
        fitted[split], too_long = [], 0
        for messages in tqdm(rows, desc=f"fitting {split} dialogues", leave=False, disable=None):
            found, skipped = windows(messages, length, max_length)
            fitted[split] += found
            too_long += skipped
        if not fitted[split]:
            raise UserError(f"no exchange of the {split} dialogues fits into max_length {max_length}; raise it")
        counts |= {f"{split}_dialogues": len(rows), f"{split}_windows": len(fitted[split])}
        counts |= {f"{split}_exchanges_longer_than_max_length": too_long}
        if too_long:
            logger.warning(
                "%s: %d exchanges are longer than max_length %d by themselves and are left out",
                split, too_long, max_length,
            )  # fmt: skip
    return fitted, counts
