"""Which text is certain after each token? What may still become another character, or a stop string, is held back."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no character, or not yet


class Increments:
    """Turns one row's token ids into text that can be shown as it comes.

    The pieces add up to `tokenizer.decode(ids, skip_special_tokens=True)`, or to what stands before the first stop
    string in it. Each token costs the decoding of a few, not of all before it: text is decoded from the last place
    where it was whole, and what was known from there is taken off.

    Attributes:
        emitted: characters given out. seen: characters decoded, held back ones included. stopped: a stop string came.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.ids: list[int] = []
        self.start, self.whole, self.known = 0, 0, ""  # ids[start:whole] read `known`
        self.held = ""
        self.emitted = self.seen = 0
        self.stopped = False

    def push(self, id: int) -> str:
        """The text that `id` makes certain, often "" or more than a token's."""
        self.ids.append(id)
        text = self._decode(self.start)
        if len(text) <= len(self.known) or text.endswith(UNFINISHED):
            return ""
        new = text[len(self.known) :]
        self.start, self.whole = self.whole, len(self.ids)
        self.known = self._decode(self.start)
        return self._release(new)

    def end(self) -> str:
        """What is left when no token follows: half a character as `decode` shows it, the beginning of a stop string."""
        new = self._decode(self.start)[len(self.known) :]
        text = self._release(new)
        if not self.stopped:
            text, self.held = text + self.held, ""
            self.emitted = self.seen
        return text

    def _decode(self, start: int) -> str:
        return self.tokenizer.decode(self.ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _release(self, new: str) -> str:
        self.seen += len(new)
        self.held += new
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        self.stopped = bool(found)
        certain = min(found) if found else len(self.held) - max((_begun(self.held, s) for s in self.stops), default=0)
        text, self.held = self.held[:certain], "" if found else self.held[certain:]
        self.emitted += len(text)
        return text


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
