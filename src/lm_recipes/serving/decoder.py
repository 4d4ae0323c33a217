"""How do many clients get their continuations from one model, each as if it were alone?

A round takes in what waits and fits, reads new prompts for a while, each alone, and makes one token for every running
text. Texts of one adapter share a batch; a text leaves with its last token, and its place is free for the next round.
"""

import logging
import time
from dataclasses import dataclass, field
from itertools import groupby

import torch
from transformers import DynamicCache

from lm_recipes.decoding.generation import arguments
from lm_recipes.decoding.probabilities import processors
from lm_recipes.decoding.sampling import quick
from lm_recipes.decoding.strategies import Strategy
from lm_recipes.launch import UserError
from lm_recipes.serving.batching import RunningBatch, can_join, read
from lm_recipes.serving.errors import Refused
from lm_recipes.serving.increments import Increments
from lm_recipes.serving.metrics import Metrics
from lm_recipes.serving.served import Served
from lm_recipes.serving.worker import Ticket, Worker, failed

logger = logging.getLogger("lm_recipes.serving")

UNLIKELY = -9999.0  # OpenAI's word for a log-probability that JSON cannot write


@dataclass(frozen=True)
class Token:
    """A token, its log-probability in nats, the model's own before temperature and cuts, and the likeliest there."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What came next of choice `index`; `finish` with its last piece: "stop" or "length"."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    made: int  # tokens of this choice so far, the end token included
    finish: str | None


@dataclass(eq=False)
class Job:
    """A prompt to be continued `n` times, as choices `first`, `first` + 1, ..."""

    ticket: Ticket
    model: str
    prompt: list[int]
    strategy: Strategy  # greedy or sampling
    max_tokens: int
    seed: int  # choice i draws from seed + i
    n: int = 1
    first: int = 0
    stops: tuple[str, ...] = ()
    top: int | None = None  # so many likeliest tokens beside each; None: no log-probabilities at all
    cache: DynamicCache | None = field(default=None, init=False)  # of what the decoder has read of the prompt
    seen: int = field(default=0, init=False)  # tokens of the prompt in it


class Row:
    """One choice of a job while it is being made."""

    def __init__(self, job: Job, number: int, tokenizer, ends: set[int], logits: torch.Tensor) -> None:
        self.job, self.index, self.ends = job, job.first + number, ends
        self.generator = torch.Generator(device=logits.device).manual_seed(job.seed + number)
        more = arguments(job.strategy, tokenizer, ends, len(job.prompt)).get("logits_processor")
        self.processors = quick(processors(job.strategy, len(logits), logits.device, more))
        self.text = Increments(tokenizer, job.stops)
        self.ids, self.made = list(job.prompt), 0
        self.tokens: list[tuple[int, Token]] = []  # not given out yet, with the character each begins at
        self.likeliest = not self.processors and not job.strategy.settings.do_sample

    def choose(self, logits: torch.Tensor) -> int:
        """A token by the job's strategy; logits float32 `[V]`."""
        scores, so_far = logits[None], torch.tensor([self.ids], device=logits.device)
        for process in self.processors:
            scores = process(so_far, scores)
        if not self.job.strategy.settings.do_sample:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.generator))

    def take(self, id: int, logits: torch.Tensor) -> bool:
        """Append a token, give out what is certain, and say whether the text goes on."""
        self.ids.append(id)
        self.made += 1
        ended, full = id in self.ends, self.made >= self.job.max_tokens
        if not ended and self.job.top is not None:
            self.tokens.append((self.text.seen, self._token(id, logits)))
        text = "" if ended else self.text.push(id)
        if ended or (full and not self.text.stopped):
            text += self.text.end()
        finish = "stop" if ended or self.text.stopped else "length" if full else None
        whole = finish is not None and not self.text.stopped
        ready = tuple(token for start, token in self.tokens if whole or start < self.text.emitted)
        self.tokens = self.tokens[len(ready) :]
        if text or ready or finish:
            self.job.ticket.put(Piece(self.index, text, ready, self.made, finish))
        return finish is None

    def _token(self, id: int, logits: torch.Tensor) -> Token:
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(min(self.job.top, len(logprobs)))
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        name = self.text.tokenizer.decode
        likeliest = tuple((name([other]), max(value, UNLIKELY)) for other, value in top)
        return Token(name([id]), max(logprobs[id].item(), UNLIKELY), likeliest)


@dataclass(eq=False)
class Group:
    """The running texts of one adapter (or of the only model)."""

    batch: RunningBatch
    rows: list[Row] = field(default_factory=list)

    def keep(self, goes_on: list[bool]) -> None:
        self.batch.keep([place for place, stays in enumerate(goes_on) if stays])
        self.rows = [row for row, stays in zip(self.rows, goes_on, strict=True) if stays]


class Decoder(Worker):
    """Continues the prompts of jobs.

    Args:
        max_rows: texts that run side by side; a job has `n` of them.
        max_waiting: jobs in the queue.
    """

    def __init__(self, served: Served, metrics: Metrics, max_rows: int, max_waiting: int) -> None:
        super().__init__(max_waiting)
        self.served, self.metrics, self.max_rows = served, metrics, max_rows
        # read in one piece, and about as many between two steps: so long do running texts stand still
        self.prompt_tokens = 128 if served.model.device.type == "cpu" else 2048
        self.joins = can_join(served.model, served.names[0])
        self.reading: Job | None = None  # a prompt of which a part is read
        self.groups = {name: Group(RunningBatch(served.model)) for name in served.names}

    @property
    def running(self) -> int:
        return sum(len(group.rows) for group in self.groups.values()) + (self.reading.n if self.reading else 0)

    def busy(self) -> bool:
        return bool(self.waiting) or self.running > 0

    def jobs(self) -> list[Job]:
        rows = [row for group in self.groups.values() for row in group.rows]
        half_read = [self.reading] if self.reading else []
        return [*self.waiting, *half_read, *(job for job, _ in groupby(rows, key=lambda row: row.job))]

    def fail(self) -> None:
        for group in self.groups.values():
            for row in group.rows:
                row.job.ticket.put(failed())
            group.keep([False] * len(group.rows))

    def round(self) -> None:
        read_now = 0
        while read_now < self.prompt_tokens and (job := self.reading or self._next()):
            self.reading = None
            if not job.ticket.cancelled:
                read_now += self._read(job)
        for name, group in self.groups.items():
            group.keep([not row.job.ticket.cancelled for row in group.rows])
            if group.rows:
                self._advance(name, group)

    def _next(self) -> Job | None:
        """What waits first, if there is room for it."""
        with self.changed:
            if not self.waiting or (self.running and not self.joins):
                return None
            return self.waiting.popleft() if self.running + self.waiting[0].n <= self.max_rows else None

    def _read(self, job: Job) -> int:
        """Read a piece of a prompt; how many tokens. A prompt that fails does not harm others."""
        piece = job.prompt[job.seen : job.seen + self.prompt_tokens]
        try:
            self.served.activate(job.model)
            prefix = None if job.cache else self.served.prefixes.get(job.model)
            logits, job.cache = read(self.served.model, piece, job.cache, prefix)
            job.seen += len(piece)
            if job.seen < len(job.prompt):
                self.reading = job
            else:
                self._begin(job, logits)
        except UserError as error:
            job.ticket.put(Refused(400, str(error)))
        except Exception:
            logger.exception("a prompt of %d tokens could not be read", len(job.prompt))
            job.ticket.put(failed())
        self.metrics.tokens.labels("prompt").inc(len(piece))
        return len(piece)

    def _begin(self, job: Job, logits: torch.Tensor) -> None:
        """Give the choices of a prompt that is read their first tokens, from logits `[V]`."""
        group = self.groups[job.model]
        about = self.served.tokenizers[job.model], self.served.ends[job.model], logits
        rows = [Row(job, number, *about) for number in range(job.n)]
        goes_on = self._extend(rows, logits.expand(job.n, -1))
        self.metrics.first_token.observe(time.monotonic() - job.ticket.arrived)
        if any(goes_on):
            group.batch.join(job.cache, sum(goes_on))
            group.rows += [row for row, more in zip(rows, goes_on, strict=True) if more]
        job.cache = None  # the batch has it now

    def _advance(self, name: str, group: Group) -> None:
        """One more token for every row of a group."""
        began = time.monotonic()
        self.served.activate(name)
        logits = group.batch.step([row.ids[-1] for row in group.rows])
        group.keep(self._extend(group.rows, logits))
        self.metrics.step.observe(time.monotonic() - began)

    @torch.inference_mode()
    def _extend(self, rows: list[Row], logits: torch.Tensor) -> list[bool]:
        """Choose a token for each row from logits `[R, V]`; which rows go on."""
        self.metrics.tokens.labels("completion").inc(len(rows))
        goes_on = []
        for row, own, best in zip(rows, logits, logits.argmax(-1).tolist(), strict=True):
            try:
                goes_on.append(row.take(best if row.likeliest else row.choose(own), own))
            except UserError as error:  # a structure that turns out to be too much
                row.job.ticket.put(Refused(400, str(error)))
                goes_on.append(False)
        return goes_on
