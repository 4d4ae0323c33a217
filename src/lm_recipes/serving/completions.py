"""How are continuations written in OpenAI's form? Chat and plain completions, whole and as a stream."""

import json
import time
import uuid
from collections.abc import Iterable, Iterator

from lm_recipes.serving.decoder import Piece, Token


class Form:
    """One request's answer: its id, time and model, and what it asked to be told.

    Args:
        log: log-probabilities were asked for.
        prompt_tokens: of all prompts.
    """

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, model: str, choices: int, log: bool, prompt_tokens: int) -> None:
        self.log, self.prompt_tokens = log, prompt_tokens
        self.made = [0] * choices
        self.unfinished = choices
        self.about = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def take(self, piece: Piece) -> None:
        self.made[piece.index] = piece.made
        self.unfinished -= piece.finish is not None

    def usage(self) -> dict[str, int]:
        made = sum(self.made)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
        }

    def whole(self, pieces: Iterable[Piece]) -> dict:
        """The answer to a request without `stream`."""
        by_choice: list[list[Piece]] = [[] for _ in self.made]
        for piece in pieces:
            by_choice[piece.index].append(piece)
        choices = [
            self.choice(index, "".join(piece.text for piece in own), [token for piece in own for token in piece.tokens])
            | {"finish_reason": own[-1].finish}
            for index, own in enumerate(by_choice)
        ]
        return self.about | {"object": self.kind, "choices": choices, "usage": self.usage()}

    def chunk(self, piece: Piece) -> dict:
        """A piece of a stream."""
        choice = self.delta(piece) | {"finish_reason": piece.finish}
        return self.about | {"object": self.chunk_kind, "choices": [choice]}

    def opening(self) -> Iterator[dict]:
        """What a stream begins with."""
        return iter(())

    def closing(self) -> dict:
        """The last chunk, where token counts were asked for."""
        return self.about | {"object": self.chunk_kind, "choices": [], "usage": self.usage()}

    def choice(self, index: int, text: str, tokens: list[Token]) -> dict:
        return {"index": index, "text": text, "logprobs": self._logprobs(tokens)}

    def delta(self, piece: Piece) -> dict:
        return self.choice(piece.index, piece.text, list(piece.tokens))

    def _logprobs(self, tokens: list[Token]) -> dict | None:
        if not self.log:
            return None
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.top) for token in tokens],
        }


class ChatForm(Form):
    """The form of chats."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def opening(self) -> Iterator[dict]:
        for index in range(len(self.made)):
            choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield self.about | {"object": self.chunk_kind, "choices": [choice]}

    def choice(self, index: int, text: str, tokens: list[Token]) -> dict:
        return {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "logprobs": self._logprobs(tokens),
        }

    def delta(self, piece: Piece) -> dict:
        said = {"content": piece.text} if piece.text else {}
        return {"index": piece.index, "delta": said, "logprobs": self._logprobs(list(piece.tokens))}

    def _logprobs(self, tokens: list[Token]) -> dict | None:
        if not self.log:
            return None
        return {
            "content": [
                _likelihood(token.text, token.logprob)
                | {"top_logprobs": [_likelihood(text, value) for text, value in token.top]}
                for token in tokens
            ]
        }


def _likelihood(text: str, logprob: float) -> dict:
    # a token that is part of a character has no text of its own
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


def event(content: dict) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(content, allow_nan=False, separators=(',', ':'))}\n\n"
