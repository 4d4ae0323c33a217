"""How is a request refused? In OpenAI's form, with a status that says whose mistake it was."""

import json
from itertools import takewhile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lm_recipes.launch import UserError

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}


class Json(JSONResponse):
    """ASCII only: what a client sent may come back, half of a surrogate pair too, which UTF-8 cannot write."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Refused(Exception):
    """An answer that is an error: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        param: the field of the request that is wrong.
        retry_after: seconds after which it is worth another try.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> Json:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Json(self.body, self.status, headers)


def add_handlers(app: FastAPI) -> None:
    """Give every error that an app can meet the form of `Refused`."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Json:
        return error.response()

    @app.exception_handler(UserError)
    async def cannot(_: Request, error: UserError) -> Json:
        return Refused(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Json:
        found = error.errors()
        first, place = found[0], _place(found[0])
        if first["type"] == "json_invalid":
            return Refused(400, "the body is not valid JSON").response()
        if first["type"] == "extra_forbidden":
            message = "this server does not support it; leave it out"
        else:  # of a field that takes several kinds of values there is an error for each
            message = " or ".join(list(dict.fromkeys(one["msg"] for one in found if _place(one) == place))[:3])
        return Refused(
            400, f"{place or 'body'}: {message.removeprefix('Value error, ')}", param=place or None
        ).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Json:
        response = Refused(error.status_code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def ours(_: Request, error: Exception) -> Json:
        return Refused(500, "the server made a mistake; its log says which").response()


def _place(error: dict) -> str:
    """Where in a body an error is, without pydantic's names for the kinds of values a field takes (`list[int]`)."""
    parts = map(str, error["loc"][1:])
    known = parts if error["type"] == "extra_forbidden" else takewhile(lambda part: "[" not in part, parts)
    return ".".join(known)[:100]
