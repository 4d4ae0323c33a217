"""What can a BERT be asked over HTTP? What its head answers: classes, tags, answers, choices, words or embeddings."""

import base64
from collections.abc import Callable

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from lm_recipes.serving.errors import Json
from lm_recipes.serving.generation import unless_gone
from lm_recipes.serving.limits import Settings
from lm_recipes.serving.reader import Questions, Reader
from lm_recipes.serving.schemas import AnswerAsked, ChooseAsked, ClassifyAsked, Embeddings, FillMaskAsked, Texts
from lm_recipes.serving.served import Served
from lm_recipes.serving.worker import Ticket


def add_reading(app: FastAPI, served: Served, worker: Reader, settings: Settings, called: Callable) -> None:
    """Add the routes of the model's head; `called` finds the model that a request names."""

    async def answers_to(questions: list, model: str, request: Request) -> list[dict] | None:
        ticket = Ticket()
        worker.submit([Questions(ticket, model, questions)])
        return await unless_gone(_first(ticket, settings.request_timeout), request, ticket, worker)

    async def answer(questions: list, asked, request: Request) -> Response:
        model = called(asked.model)
        found = await answers_to(questions, model, request)
        return Response(status_code=499) if found is None else Json({"model": model, "answers": found})

    async def classify(asked: ClassifyAsked, request: Request) -> Response:
        """For each text its class with all probabilities; with `evidence`, how much each word moves each of them."""
        return await answer([(text, asked.evidence) for text in asked.texts], asked, request)

    async def tag(asked: Texts, request: Request) -> Response:
        """For each text the tag of each word, and the entities if the tags mark any."""
        return await answer(asked.texts, asked, request)

    async def answer_question(asked: AnswerAsked, request: Request) -> Response:
        """The words of a context that answer a question, with probabilities; "" for no answer."""
        return await answer([(asked.question, asked.context, asked.n_best)], asked, request)

    async def choose(asked: ChooseAsked, request: Request) -> Response:
        """The likeliest of several answers."""
        return await answer([(asked.question, asked.choices, asked.context)], asked, request)

    async def fill_mask(asked: FillMaskAsked, request: Request) -> Response:
        """For each [MASK] of each text the likeliest words."""
        return await answer([(text, asked.top_k) for text in asked.texts], asked, request)

    async def embed(asked: Texts, request: Request) -> Response:
        """For each text its sentence vector, at length 1."""
        return await answer(asked.texts, asked, request)

    async def embeddings(asked: Embeddings, request: Request) -> Response:
        """The same in OpenAI's form."""
        model, texts = called(asked.model), [asked.input] if isinstance(asked.input, str) else asked.input
        found = await answers_to(texts, model, request)
        if found is None:
            return Response(status_code=499)
        as_text = asked.encoding_format == "base64"
        vectors = [_base64(one["embedding"]) if as_text else one["embedding"] for one in found]
        data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(vectors)]
        tokens = sum(one["tokens"] for one in found)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Json({"object": "list", "model": model, "data": data, "usage": usage})

    routes = {
        "classify": classify, "tag": tag, "answer": answer_question, "choose": choose, "fill-mask": fill_mask,
        "embed": embed,
    }  # fmt: skip
    app.post(f"/{served.asked}")(routes[served.asked])
    if served.asked == "embed":
        app.post("/v1/embeddings")(embeddings)


async def _first(ticket: Ticket, seconds: float) -> list[dict]:
    async for found in ticket.results(seconds):
        return found[0]
    raise AssertionError("a ticket's results do not end by themselves")


def _base64(vector: list[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
