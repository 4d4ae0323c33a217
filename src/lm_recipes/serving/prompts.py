"""What does a conversation or a text give the model to read?"""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lm_recipes.decoding.generation import encode_prompts
from lm_recipes.launch import UserError


def encode_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation (`role`, `content`), up to where the assistant is to speak.

    Control tokens that somebody typed stay plain text.

    Raises:
        UserError: the model has no chat template, or its template refuses these turns.
    """
    if not tokenizer.chat_template:
        raise UserError("this model was not trained on chats (no chat template); continue a text instead")
    try:
        rendered = tokenizer.apply_chat_template(
            list(turns), add_generation_prompt=True, sanitize_control_tokens=True, return_dict=True
        )
    except TemplateError as error:
        raise UserError(f"the model's chat template refuses these turns: {error}") from error
    return rendered["input_ids"]


def encode_text(tokenizer: PreTrainedTokenizerBase, prompt: str | list[int], vocabulary: int) -> list[int]:
    """Token ids of a text, begun as a training document begins; or ids as they were given.

    Args:
        vocabulary: ids the model has embeddings for.

    Raises:
        UserError: an id it has none for, or nothing to start from.
    """
    if isinstance(prompt, str):
        return encode_prompts(tokenizer, [prompt])[0]
    if max(prompt) >= vocabulary:
        raise UserError(f"prompt: there is no token {max(prompt)}; the model has {vocabulary}")
    return prompt


def fit_turns(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], most: int
) -> tuple[list[int], list[dict[str, str]]]:
    """Token ids of a conversation that has at most `most`, and its turns: the oldest exchanges are left out.

    A system turn at the beginning stays, and so does the last turn.

    Raises:
        UserError: these alone are longer.
    """
    turns = list(turns)
    first = 1 if turns[0]["role"] == "system" else 0
    while len(ids := encode_chat(tokenizer, turns)) > most:
        if len(turns) - first < 3:
            raise UserError(f"that is {len(ids)} tokens, and {most} fit; say it shorter")
        del turns[first : first + 2]  # what the user said, and what was answered
    return ids, turns
