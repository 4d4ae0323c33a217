"""What can a GPT be asked over HTTP? OpenAI's chat and plain completions, whole or streamed."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from transformers import GenerationConfig

from lm_recipes.decoding.strategies import Strategy
from lm_recipes.decoding.structured import structure
from lm_recipes.launch import UserError
from lm_recipes.serving.completions import ChatForm, Form, event
from lm_recipes.serving.decoder import Decoder, Job, Piece
from lm_recipes.serving.errors import Json, Refused
from lm_recipes.serving.limits import Settings
from lm_recipes.serving.prompts import encode_chat, encode_text
from lm_recipes.serving.schemas import SEEDS, Chat, Completion, Decoding
from lm_recipes.serving.served import Served
from lm_recipes.serving.worker import Ticket, Worker

USUAL_TOKENS = 16  # of a plain completion
NO_TEMPERATURE = 0.01  # below it the likeliest token is as good as certain, and dividing by it may overflow


def strategy_of(asked: Decoding) -> Strategy:
    """What a request says about how its next tokens are chosen: any mix of cuts, where strategies by name have one.

    Raises:
        UserError: a schema that text cannot be held to.
    """
    schema, extra = asked.json_schema(), {}
    if schema is not None:
        try:
            extra["structure"] = structure(json_schema=json.dumps(schema))
        except UserError as error:  # it speaks to somebody who types flags
            raise UserError(str(error).replace("--json_schema", "response_format", 1)) from error
    shared = {"repetition_penalty": asked.repetition_penalty}
    if asked.temperature < NO_TEMPERATURE:
        return Strategy("greedy", GenerationConfig(do_sample=False, **shared), extra=extra)
    cuts = {"top_k": asked.top_k, "top_p": asked.top_p, "min_p": asked.min_p or None, "typical_p": 1.0}
    drawn = GenerationConfig(do_sample=True, temperature=asked.temperature, **cuts, **shared)
    return Strategy("sample", drawn, extra=extra)


def room_for(prompt: Sequence[int], wanted: int | None, most: int, context: int) -> int:
    """How many tokens may follow a prompt: as many as `wanted`, else as many as fit.

    Args:
        most: the server's limit. context: tokens of prompt and continuation together.

    Raises:
        UserError: more are wanted than are allowed.
        Refused: more are wanted than fit, or none fit; with OpenAI's code for it.
    """
    free = context - len(prompt)
    if free < 1:
        raise _too_long(f"the prompt has {len(prompt)} tokens, the model's context {context}; shorten it")
    if wanted is None:
        return min(most, free)
    if wanted > most:
        raise UserError(f"max_tokens {wanted}: this server makes at most {most}")
    if wanted > free:
        raise _too_long(
            f"max_tokens {wanted}: the prompt has {len(prompt)} tokens, the context {context}; at most {free} fit"
        )
    return wanted


def _too_long(message: str) -> Refused:
    return Refused(400, message, code="context_length_exceeded")


def add_generation(app: FastAPI, served: Served, worker: Decoder, settings: Settings, called: Callable) -> None:
    """Add the routes; `called` finds the model that a request names."""
    vocabulary = served.model.get_input_embeddings().num_embeddings
    # one thread encodes: it keeps long prompts from holding up the event loop, and a tokenizer is not for two at a time
    encoding = ThreadPoolExecutor(1, "encoding")

    async def answer(
        asked: Decoding, wanted: int | None, usual: int, form: type[Form], encode: list[Callable], request: Request
    ) -> Response:
        name = called(asked.model)
        if asked.n > settings.max_rows:
            raise UserError(f"n {asked.n}: this server continues at most {settings.max_rows} texts at a time")
        ticket, loop = Ticket(), asyncio.get_running_loop()
        prompts = [await loop.run_in_executor(encoding, one, served.encoders[name]) for one in encode]
        seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
        how, jobs = await loop.run_in_executor(encoding, strategy_of, asked), []
        for number, prompt in enumerate(prompts):
            room = room_for(prompt, wanted, settings.max_new_tokens, served.context(name))
            room = min(room, usual) if wanted is None else room
            first = number * asked.n
            rest = {"n": asked.n, "first": first, "stops": asked.stops(), "top": asked.top()}
            jobs.append(Job(ticket, name, prompt, how, room, seed + first, **rest))
        made = form(name, asked.n * len(prompts), asked.top() is not None, sum(map(len, prompts)))
        worker.submit(jobs)
        pieces = pieces_of(ticket, made, settings.request_timeout)
        if asked.stream:
            return Stream(events(pieces, made, asked.stream_options.include_usage), partial(worker.cancel, ticket))
        found = await unless_gone(_all(pieces), request, ticket, worker)
        return Json(made.whole(found)) if found is not None else Response(status_code=499)

    @app.post("/v1/chat/completions")
    async def chat(asked: Chat, request: Request) -> Response:
        """The assistant's next turn. As OpenAI's, with `top_k`, `min_p` and `repetition_penalty` beside it."""
        turns = [message.turn() for message in asked.messages]
        wanted = asked.max_completion_tokens or asked.max_tokens
        encode = [partial(encode_chat, turns=turns)]
        return await answer(asked, wanted, settings.max_new_tokens, ChatForm, encode, request)

    @app.post("/v1/completions")
    async def completion(asked: Completion, request: Request) -> Response:
        """What follows a text: 16 tokens, as OpenAI's, unless `max_tokens` says otherwise."""
        encode = [partial(encode_text, prompt=prompt, vocabulary=vocabulary) for prompt in asked.prompts()]
        return await answer(asked, asked.max_tokens, USUAL_TOKENS, Form, encode, request)


async def pieces_of(ticket: Ticket, form: Form, seconds: float) -> AsyncIterator[list[Piece]]:
    """What comes for a ticket until all choices are finished; the form keeps count."""
    async with aclosing(ticket.results(seconds)) as results:
        async for found in results:
            for piece in found:
                form.take(piece)
            yield found
            if not form.unfinished:
                return


async def _all(pieces: AsyncIterator[list[Piece]]) -> list[Piece]:
    return [piece async for found in pieces for piece in found]


async def events(pieces: AsyncIterator[list[Piece]], form: Form, usage: bool) -> AsyncIterator[str]:
    """A stream's events; what came together is sent together. An error ends it, as an event."""
    try:
        for chunk in form.opening():
            yield event(chunk)
        async for found in pieces:
            yield "".join(event(form.chunk(piece)) for piece in found)
        if usage:
            yield event(form.closing())
        yield "data: [DONE]\n\n"
    except Refused as refused:
        yield event(refused.body)


class Stream(StreamingResponse):
    """A stream of events that says `cancel` when it ends, however it ends, and also if it never began."""

    def __init__(self, content: AsyncIterator[str], cancel: Callable[[], None]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.cancel()


async def unless_gone(work, request: Request, ticket: Ticket, worker: Worker):
    """The result of a coroutine; None, and the ticket cancelled, if the client hangs up before."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        leaving.cancel()
        worker.cancel(ticket)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
