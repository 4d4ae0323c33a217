"""What is a dialogue a model can learn from, and how does a long one fit?"""

import json
import logging
from collections.abc import Callable

from tqdm import tqdm

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.sources.splits import split_of

logger = logging.getLogger(__name__)

Messages = list[dict[str, str]]  # each {"role": "system" | "user" | "assistant", "content": text}


def load_dialogues(
    source: str, *, column: str = "messages", validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> dict[str, list[Messages]]:
    """Checked dialogues by split ("train", "validation", "test"), divided by a hash of the whole dialogue.

    Raises:
        UserError: naming source, row and message of the first dialogue that cannot be learned from.
    """
    splits: dict[str, list[Messages]] = {"train": [], "validation": [], "test": []}
    table = load_table(source)
    if column not in table.column_names:
        raise UserError(f"{source}: no column `{column}`; it has {', '.join(table.column_names)}")
    for row, messages in enumerate(table[column], start=1):
        messages = check_messages(messages, f"{source}: row {row}: {column}")
        splits[split_of(json.dumps(messages, sort_keys=True), validation, test, seed)].append(messages)
    for name, dialogues in splits.items():
        if not dialogues:
            raise UserError(f"{source}: no dialogues for the {name} split; give more rows or a larger share")
    return splits


def check_messages(messages: object, where: str) -> Messages:
    """The messages with outer spaces stripped: an optional system message, then user and assistant in turn.

    Spaces go because a token may not straddle the border between what is learned and what is not.

    Raises:
        UserError: starting with `where` (source, row, key), for any other shape or a dialogue without an answer.
    """
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: expected a list of {{role, content}}, found {type(messages).__name__}")
    checked: Messages = []
    for number, message in enumerate(messages):
        here = f"{where}[{number}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError(f"{here}: expected the keys `role` and `content`")
        role, content = message["role"], message["content"]
        before = checked[-1]["role"] if checked else None
        if role not in ("system", "user", "assistant"):
            raise UserError(f"{here}.role: `{role}` is none of system, user, assistant")
        if (role == "system" and number > 0) or role == before or (role == "assistant" and before in (None, "system")):
            raise UserError(
                f"{here}.role: `{role}` out of order after {f'`{before}`' if before else 'nothing'}; "
                "a dialogue is [system] user assistant user assistant ..."
            )
        if not isinstance(content, str) or not content.strip():
            raise UserError(f"{here}.content: empty or not a text")
        checked.append({"role": role, "content": content.strip()})
    if not any(message["role"] == "assistant" for message in checked):
        raise UserError(f"{where}: no assistant turn, so no token to learn from")
    return checked


def check_control_tokens(messages: Messages, tokenizer) -> None:
    """Refuse a dialogue whose text spells a control token: typed by a user, it would end or start a turn."""
    for message in messages:
        for token in tokenizer.all_special_tokens:
            if token in message["content"]:
                start = message["content"][:60].replace("\n", " ")
                raise UserError(f"the control token {token} stands in a message ({start!r} ...); take it out")


def windows(messages: Messages, length: Callable[[Messages], int], max_length: int) -> tuple[list[Messages], int]:
    """Cut a dialogue between exchanges into consecutive windows that fit; nothing is cut inside a turn.

    Every window opens with the system message, if there is one, and then a user turn; a last user turn without an
    answer carries no loss and goes.

    Args:
        length: tokens of some messages under the chat template.
        max_length: longest window, in tokens.

    Returns:
        The windows, and how many exchanges (user turn and answer) are longer than a window by themselves.
    """
    system = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(system) :]
    exchanges = [turns[i : i + 2] for i in range(0, len(turns) - 1, 2)]
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


def fit_dialogues(
    dialogues: dict[str, list[Messages]], tokenizer, max_length: int
) -> tuple[dict[str, list[Messages]], dict[str, int]]:
    """`windows` for every dialogue of every split, and what became of them: nothing is lost without being counted.

    Raises:
        UserError: for text that spells a control token, or a split in which no exchange fits.
    """
    fitted: dict[str, list[Messages]] = {}
    counts: dict[str, int] = {}

    def length(messages: Messages) -> int:
        return len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])

    for split, rows in dialogues.items():
        fitted[split], too_long = [], 0
        for messages in tqdm(rows, desc=f"fitting {split} dialogues", leave=False, disable=None):
            check_control_tokens(messages, tokenizer)
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
