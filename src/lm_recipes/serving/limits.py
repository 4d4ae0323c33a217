"""Who may ask, and how much? What stands before the app: host, key, size and time of a body, a count of answers."""

import asyncio
import hmac
import logging
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lm_recipes.serving.errors import Refused
from lm_recipes.serving.metrics import Metrics

logger = logging.getLogger("lm_recipes.serving")

LOCAL = ("127.0.0.1", "localhost", "[::1]")
OPEN = ("/", "/health", "/docs", "/openapi.json")  # no secrets there, and the page is what asks for the key
BODY_SECONDS = 20  # for a body to arrive
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class Settings:
    """What a server allows."""

    max_new_tokens: int = 512  # a choice may have; more is refused
    max_rows: int = 64  # texts continued side by side
    max_waiting: int = 128  # requests in the queue; the next one is answered 429
    max_body_bytes: int = 1_000_000
    request_timeout: float = 120.0  # seconds from a request to the end of its answer
    api_key: str | None = None  # None: nobody is asked for one
    hosts: tuple[str, ...] | None = LOCAL  # names the server may be called by; None: any


class Gate:
    """ASGI middleware.

    A name in `Host` that is not the server's is refused: a web page of somebody else can point its own name at
    127.0.0.1 and have a browser talk to this server (DNS rebinding). The key is compared in constant time.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.settings, self.metrics, self.paths = app, settings, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500  # what the server sends if the app sends nothing

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            try:
                receive = await self._admit(scope, receive)
            except Refused as refused:
                await refused.response()(scope, receive, answer)
                return
            await self.app(scope, receive, answer)
        finally:
            self._count(scope, status, time.monotonic() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"  # or anybody could make new series
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        logger.info("%s %s %d %.3f s", scope["method"], path, status, seconds)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        headers = dict(scope["headers"])
        self._check_host(headers.get(b"host", b""))
        if scope["path"] not in OPEN and not scope["path"].startswith("/page/"):
            self._check_key(headers.get(b"authorization", b""))
        body = {"type": "http.request", "body": await self._body(receive), "more_body": False}
        unread = [body]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        return again

    def _check_host(self, host: bytes) -> None:
        name = (
            host.decode("latin-1").rpartition(":")[0] if host.rpartition(b":")[2].isdigit() else host.decode("latin-1")
        )
        if self.settings.hosts is not None and name.lower() not in self.settings.hosts:
            raise Refused(400, f"this server is not called that; use one of {', '.join(self.settings.hosts)}")

    def _check_key(self, given: bytes) -> None:
        key = self.settings.api_key
        if key is not None and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            raise Refused(401, "send the server's key as `Authorization: Bearer KEY`", code="invalid_api_key")

    async def _body(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(499, "the client hung up before all of its request had come")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.settings.max_body_bytes:
                        raise Refused(413, f"the body has more than {self.settings.max_body_bytes} bytes")
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {BODY_SECONDS} s") from None
        return bytes(body)
