"""How does a language model learn to hold a conversation? Chat templates and dialogues."""

from lm_recipes.alignment.dialogues import (
    check_messages,
    few_dialogues,
    fit_dialogues,
    load_dialogues,
    some_dialogues,
    windows,
)
from lm_recipes.alignment.templates import control_tokens, encode, prepare_tokenizer, render, training_template

__all__ = [
    "check_messages",
    "control_tokens",
    "encode",
    "few_dialogues",
    "fit_dialogues",
    "load_dialogues",
    "prepare_tokenizer",
    "render",
    "some_dialogues",
    "training_template",
    "windows",
]
