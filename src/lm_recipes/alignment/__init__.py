"""How does a language model learn to hold a conversation? Chat templates and dialogues."""

from lm_recipes.alignment.dialogues import check_messages, fit_dialogues, load_dialogues, windows
from lm_recipes.alignment.templates import prepare_tokenizer, training_template

__all__ = ["check_messages", "fit_dialogues", "load_dialogues", "prepare_tokenizer", "training_template", "windows"]
