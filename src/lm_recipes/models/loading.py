"""Can this model be loaded, and how long a text does it read?"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of


def load_tokenizer(name: str, max_length: int | None, revision: str | None = None):
    """The tokenizer of a directory or Hub id whose model reads rows of `max_length` tokens.

    Some models fail on longer rows, others answer nonsense. The tokenizer's `model_max_length` counts too.

    Raises:
        UserError: when it cannot be loaded, or `max_length` is None or more than the model has positions for.
    """
    with loading(name):
        config = AutoConfig.from_pretrained(name, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    positions = min(positions_of(config) or 10**9, tokenizer.model_max_length)
    if max_length is None or max_length > positions:
        raise UserError(f"--max_length {max_length}: {name} reads at most {positions} tokens; lower it")
    return tokenizer


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turns transformers' complaints about a missing or broken model into one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split()).partition(" Model type should be one of")[0]  # not all types there are
        raise UserError(f"{name}: cannot be loaded: {why}") from error


@contextmanager
def without_loading_report() -> Iterator[None]:
    """Keeps transformers from warning, over a table, that weights are new, where they are meant to be."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
