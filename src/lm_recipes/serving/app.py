"""How does a model become a web server? One app for any model that the recipes make."""

import gc
import logging
import socket
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from lm_recipes.launch import UserError
from lm_recipes.serving.decoder import Decoder
from lm_recipes.serving.errors import Json, Refused, add_handlers
from lm_recipes.serving.generation import add_generation
from lm_recipes.serving.limits import Gate, Settings
from lm_recipes.serving.metrics import Metrics
from lm_recipes.serving.reader import Reader
from lm_recipes.serving.reading import add_reading
from lm_recipes.serving.served import Served, load_served
from lm_recipes.serving.worker import Worker

logger = logging.getLogger("lm_recipes.serving")

PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ERRORS = {"4XX": {"description": 'Refused: `{"error": {"message", "type", "param", "code"}}`.'}}
CONNECTIONS = 1000  # above, uvicorn itself answers 503
KEEP_ALIVE_SECONDS = 60  # longer than clients keep an idle connection, or one may close what the other just uses
SHUTDOWN_SECONDS = 20  # for answers that are under way when the server is told to stop


def create_app(model_name: str | list[str], settings: Settings | None = None) -> FastAPI:
    """The app that serves a model; `app.state.served` is what it loaded, `app.state.worker` the thread that has it.

    Args:
        model_name: model or adapter directory, demo:smollm2, or Hub id; or several adapters of one base, which requests
            choose between by their `model`.

    Raises:
        UserError: as `load_served`.
    """
    settings = settings or Settings()
    served = load_served([model_name] if isinstance(model_name, str) else model_name)
    metrics = Metrics()
    worker: Worker
    if served.asked == "generate":
        worker = Decoder(served, metrics, settings.max_rows, settings.max_waiting)
    else:
        worker = Reader(served, metrics, settings.max_waiting)
    metrics.watch(worker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await to_thread(worker.stop)

    # FastAPI's own pages of documentation load their scripts from elsewhere
    app = FastAPI(title="lm-recipes", lifespan=lifespan, docs_url=None, redoc_url=None, responses=ERRORS)
    app.state.served, app.state.worker, app.state.settings = served, worker, settings
    add_handlers(app)

    def called(name: str | None) -> str:
        if name is not None and name not in served.names:
            known = ", ".join(served.names)
            raise Refused(404, f"no model of that name here; there is: {known}", param="model", code="model_not_found")
        return name or served.names[0]

    if isinstance(worker, Decoder):
        add_generation(app, served, worker, settings, called)
    else:
        add_reading(app, served, worker, settings, called)
    _add_common(app, served, worker, metrics, settings)
    paths = frozenset(path for route in app.routes if "{" not in (path := getattr(route, "path", "{")))
    app.add_middleware(Gate, settings=settings, metrics=metrics, paths=paths)
    return app


def _add_common(app: FastAPI, served: Served, worker: Worker, metrics: Metrics, settings: Settings) -> None:
    def described(name: str) -> dict:
        about = {"asked": served.asked, "context": served.context(name)}
        if served.asked == "generate":
            chat = bool(served.tokenizers[name].chat_template)
            about |= {"chat": chat, "max_tokens": settings.max_new_tokens}
        return {"id": name, "object": "model", "created": 0, "owned_by": "lm-recipes"} | about

    @app.get("/v1/models")
    async def models() -> Response:
        """The names that `model` takes, and what they can be asked."""
        return Json({"object": "list", "data": [described(name) for name in served.names]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name not in served.names:
            raise Refused(404, "no model of that name here; see /v1/models", code="model_not_found")
        return Json(described(name))

    @app.get("/health")
    async def health() -> Response:
        """200 while there is a thread that answers."""
        if not worker.alive():
            raise Refused(503, "the thread that runs the model has ended; start the server again")
        return Json({"status": "ok", "waiting": len(worker.waiting), "running": worker.running})

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Counts and times in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in KINDS}
    start = "chat.html" if served.asked == "generate" else "read.html"

    def page(name: str) -> Response:
        if name not in files:
            raise Refused(404, "there is no such page")
        return Response(files[name], media_type=KINDS[Path(name).suffix])

    app.get("/", include_in_schema=False)(lambda: page(start))
    app.get("/docs", include_in_schema=False)(lambda: page("docs.html"))
    app.get("/page/{name}", include_in_schema=False)(page)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, and refuses connections until a server listens on it.

    Raises:
        UserError: the port is taken, or the host is not this machine's.
    """
    if not 0 <= port < 2**16:  # getaddrinfo takes the remainder
        raise UserError(f"--port {port}: ports end at 65535; choose another")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot be listened to ({error}); choose another") from error
    return bound


def server_of(app: FastAPI, shutdown_seconds: int = SHUTDOWN_SECONDS) -> uvicorn.Server:
    """uvicorn with this project's limits."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=shutdown_seconds,
    )
    return uvicorn.Server(config)


def run(app: FastAPI, bound: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way."""
    host, port = bound.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    served: Served = app.state.served
    bound.listen()  # who reads the next line and asks at once waits for the server
    logger.info("%s: %s on %s (web page; API at %s/docs)", ", ".join(served.names), served.asked, where, where)
    gc.collect()
    gc.freeze()  # what is there now stays: looking through all of it again now and then would hold up every answer
    server_of(app).run(sockets=[bound])
