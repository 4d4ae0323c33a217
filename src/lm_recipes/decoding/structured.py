"""How is a text made to match a JSON schema, a regular expression or a grammar? By masks over tokens, from llguidance.

llguidance has no dependencies; what it lacks, a processor for batches, beams and drafts, is here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from lm_recipes.launch import UserError


@dataclass(frozen=True)
class Structure:
    """What a whole text has to match: `grammar` is llguidance's form of it."""

    kind: str  # json_schema, regex, grammar
    grammar: str


def structure(json_schema: str | None = None, regex: str | None = None, grammar: str | None = None) -> Structure | None:
    """The structure that is asked for; None: any text will do.

    Args:
        json_schema: a schema, or the path of a file with one. The JSON has no white space between its parts: where
            some is allowed, a small model may never stop writing it.
        regex: in the syntax of Rust's regex crate; it matches the text from beginning to end.
        grammar: in Lark's form or GBNF (llama.cpp's), or the path of a file with one. It begins with `start` (`root`).

    Raises:
        UserError: several at once, one that is not valid, or llguidance is missing.
    """
    asked = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
    asked = {kind: text for kind, text in asked.items() if text is not None}
    if len(asked) > 1:
        raise UserError(f"{' and '.join(f'--{kind}' for kind in asked)}: a text can be held to one of them; drop one")
    for kind, text in asked.items():
        return _validated(kind, text if kind == "regex" else _text_or_file(kind, text))
    return None


def _text_or_file(kind: str, text: str) -> str:
    if _is_file(text):
        try:
            return Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--{kind} {text}: cannot be read: {error}") from error
    if text.lstrip().startswith("{") if kind == "json_schema" else ":" in text:
        return text
    raise UserError(f"--{kind} {text[:80]}: neither a {kind.replace('_', ' ')} nor a file")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _validated(kind: str, text: str) -> Structure:
    try:
        from llguidance import LLMatcher, grammar_from
    except ImportError as error:
        raise UserError(f"--{kind} needs llguidance: pip install -e '.[structured]'") from error
    try:
        if kind == "json_schema":
            compiled = LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
        else:
            compiled = grammar_from(kind, text)
        wrong = LLMatcher.validate_grammar(compiled)
    except ValueError as error:
        wrong = str(error)
    if wrong and not wrong.startswith("WARNING"):
        raise UserError(f"--{kind}: not valid: {' '.join(wrong.split())[:300]}")
    return Structure(kind, compiled)


@lru_cache(maxsize=4)
def _tokens_of(tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...]):
    """The vocabulary as llguidance sees it; takes about a second for a large one."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, eos_token=list(ends))


class StructureProcessor(LogitsProcessor):
    """Leaves the tokens after which the text can still become whole, and an end only where it is. Where one text is all
    that can follow, llguidance leaves the token with which the tokenizer begins it, not the shorter ones.

    What a row may say next follows from what it has said, so rows can be reordered (beams), repeated (contrastive
    search) or run ahead (drafts). A row that has left the structure (which only rows that no search looks at can)
    is let alone.

    Args:
        ends: the tokens that end a text.
        prompt_length: of `input_ids`, padding included: the structure begins there.

    Raises:
        UserError: there is no end token, or the structure is too much for llguidance's limits.
    """

    def __init__(self, wanted: Structure, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int], prompt_length: int):
        from llguidance import LLMatcher

        self.ends, self.start = sorted(ends), prompt_length
        if not self.ends:
            raise UserError(f"--{wanted.kind}: this model has no end token, so a text could not stop where it is whole")
        vocabulary = _tokens_of(tokenizer, tuple(self.ends))
        self.matchers = {(): LLMatcher(vocabulary, wanted.grammar, log_level=0)}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        rows = [tuple(row) for row in input_ids[:, self.start :].tolist()]
        after = {row: self._matcher(row) for row in rows if not set(row).intersection(self.ends)}
        masks = {row: self._allowed(matcher, scores.shape[-1]) for row, matcher in after.items()}
        whole = np.ones(scores.shape[-1], dtype=bool)
        allowed = np.stack([masks.get(row, whole) for row in rows])
        # Kept: where all begin (a draft may be rejected) and where the rows are now.
        self.matchers = {(): self.matchers[()], **after}
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -float("inf"))

    def _matcher(self, tokens: tuple[int, ...]):
        known = next(n for n in range(len(tokens), -1, -1) if tokens[:n] in self.matchers)
        matcher = self.matchers[tokens[:known]]
        if known < len(tokens):
            matcher = matcher.deep_copy()
            matcher.consume_tokens(list(tokens[known:]))
        return matcher

    def _allowed(self, matcher, vocabulary: int) -> np.ndarray:
        """bool [vocabulary]"""
        if matcher.is_error():
            return np.ones(vocabulary, dtype=bool)
        allowed = np.zeros(vocabulary, dtype=bool)
        if not matcher.is_stopped():
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            if matcher.is_error():
                raise UserError(
                    f"structured text: {' '.join(matcher.get_error().partition('<state>')[0].split())[:300]}"
                )
            found = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
            allowed[: len(found)] = found
        allowed[[end for end in self.ends if end < vocabulary]] = matcher.is_accepting()
        return allowed
