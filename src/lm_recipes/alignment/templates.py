"""How is a conversation written as one text, and which of its tokens are the assistant's?

A training template is a chat template with `{% generation %}` markers around what the assistant says, its end-of-turn
token included: that token is how a model learns to stop.
"""

from pathlib import Path

from lm_recipes.launch import UserError

TEMPLATES = Path(__file__).with_name("templates")

PROBES = (
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
)
_WARD = {"name": "find_ward", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS_PROBE = [
    {"role": "system", "content": "", "tools": [{"type": "function", "function": _WARD}]},
    {"role": "user", "content": "a"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "find_ward", "arguments": {"floor": 7}}}],
    },
    {"role": "tool", "content": "open"},
    {"role": "assistant", "content": "b"},
]


def render(tokenizer, messages: list[dict], **options):
    """`tokenizer.apply_chat_template`, which wants tools beside the messages; here they ride on the system message.

    A system message that has no text of its own is there for its tools alone, and is not written.

    Args:
        options: of `apply_chat_template`.
    """
    tools = messages[0].get("tools")
    if tools:
        head = {key: value for key, value in messages[0].items() if key != "tools"}
        messages = [head, *messages[1:]] if head["content"] else messages[1:]
    return tokenizer.apply_chat_template(messages, tools=tools or None, **options)


def encode(tokenizer, messages: list[dict]) -> dict[str, list[int]]:
    """A conversation as a row to train on: `input_ids`, and `labels` that are -100 where it is not the assistant's."""
    rendered = render(tokenizer, messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, masks = rendered["input_ids"], rendered["assistant_masks"]
    return {"input_ids": ids, "labels": [id if mask else -100 for id, mask in zip(ids, masks, strict=True)]}


def training_template(tokenizer, path: str | None = None) -> str:
    """The Jinja template to train a tokenizer's model with.

    The file at `path` if given; the tokenizer's own if it has markers; one of ours or TRL's that writes every
    conversation as the tokenizer's own template does; ChatML if the tokenizer has none.

    Raises:
        UserError: for a file that is missing or has no markers, or a template nobody has a marked version of.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"--chat_template_path {path}: no such file")
        template = Path(path).read_text(encoding="utf-8")
        if not has_generation_markers(template):
            raise UserError(
                f"--chat_template_path {path}: no {{% generation %}} ... {{% endgeneration %}} around the assistant's "
                "text, so nothing would be learned; see src/lm_recipes/alignment/templates/ for examples"
            )
        return template
    own = tokenizer.chat_template
    if not own:
        return (TEMPLATES / "chatml.jinja").read_text(encoding="utf-8")
    if has_generation_markers(own):
        return own
    for file in sorted(TEMPLATES.glob("*.jinja")):
        ours = file.read_text(encoding="utf-8")
        if _renderings(tokenizer, ours) == _renderings(tokenizer, own):
            return ours
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template has no generation markers and is not one we know; write "
            "them into a copy of it and pass that with --chat_template_path"
        ) from None


def _renderings(tokenizer, template: str) -> list[str]:
    return [
        tokenizer.apply_chat_template(probe, chat_template=template, tokenize=False, add_generation_prompt=prompt)
        for probe in PROBES
        for prompt in (False, True)
    ]


def prepare_tokenizer(tokenizer, path: str | None = None) -> None:
    """Give a tokenizer its training template, and the token that ends an assistant's turn as eos token.

    Raises:
        UserError: when turns would not end in a token of their own, inside the markers, other than the pad token.
    """
    tokenizer.chat_template = training_template(tokenizer, path)
    learned = [label for label in encode(tokenizer, PROBES[0])["labels"] if label != -100]
    special = [i for i in learned if i in tokenizer.get_added_vocab().values()]
    if not special:
        raise UserError(
            f"{tokenizer.name_or_path}: under its chat template the assistant's turn does not end in a special token "
            "inside the generation markers, so the model would never learn to stop; add the token (<|im_end|> for "
            "ChatML) to the tokenizer, or mend the template"
        )
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(special[-1])
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError(
            f"{tokenizer.name_or_path}: the pad token is {tokenizer.pad_token or 'missing'}, the end of a turn is "
            f"{tokenizer.eos_token}; they must differ, or the end of a turn is never learned: save the tokenizer with "
            "another pad_token"
        )


def control_tokens(tokenizer) -> list[str]:
    """The special tokens that the template writes, and those with a name (eos, pad, ...): nobody may say them.

    A tokenizer's other special tokens (<filename>, say) are words like others in a dialogue.
    """
    special = {id: token.content for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    written = {id for probe in PROBES for id in encode(tokenizer, probe)["input_ids"]}
    return sorted({special[id] for id in written & special.keys()} | set(tokenizer.all_special_tokens))


def check_tools(tokenizer) -> None:
    """The template writes which tools there are, what they return, and, as the assistant's words, how they are called.

    Many templates leave all of that out without a word: the model would learn to call what it was never told of.

    Raises:
        UserError: the template does not.
    """
    from jinja2 import TemplateError

    try:
        text = render(tokenizer, TOOLS_PROBE, tokenize=False)
        learned = tokenizer.decode([label for label in encode(tokenizer, TOOLS_PROBE)["labels"] if label != -100])
    except TemplateError:  # a template may refuse roles that it does not know
        text = learned = ""
    if text.count("find_ward") < 2 or "open" not in text or "find_ward" not in learned:
        raise UserError(
            f"{tokenizer.name_or_path}: the dialogues have tools, but the chat template does not write them; pass one "
            "that does, such as --chat_template_path src/lm_recipes/alignment/templates/chatml.jinja"
        )
