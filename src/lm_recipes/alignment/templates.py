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
    encoded = tokenizer.apply_chat_template(PROBES[0], return_dict=True, return_assistant_tokens_mask=True)
    learned = [i for i, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
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
