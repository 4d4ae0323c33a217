"""Servers for tests: real ones, on a port of 127.0.0.1, with tiny models of the kinds the recipes make."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI
from tiny_adapters import NAMES
from tiny_models import CHAT_TEMPLATE, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import PreTrainedTokenizerFast, set_seed

from lm_recipes.serving.app import listen, server_of

NAMED = {"id2label": dict(enumerate(NAMES)), "label2id": {name: place for place, name in enumerate(NAMES)}}


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_chat_model(directory: Path, kind: str = "llama", context: int = 256) -> str:
    return save(directory, gpt(kind, context=context), chat_tokenizer())


def save_encoder(directory: Path, auto_class: type, **config) -> str:
    """A tiny BERT with the head of `auto_class`."""
    set_seed(3)
    tokenizer = bert_tokenizer()
    return save(directory, auto_class.from_config(bert_config("bert", len(tokenizer), **config)).eval(), tokenizer)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app's address while it is served from another thread."""
    bound = listen("127.0.0.1", 0)
    server = server_of(app, shutdown_seconds=2)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def metric(address: str, name: str) -> float:
    """The value of a metric; of one that was never counted 0."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next((line for line in lines if line.startswith(f"{name} ")), "0").split()[-1])


def wait_until(holds, seconds: float = 10) -> None:
    """Return when `holds()`; AssertionError if it does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
