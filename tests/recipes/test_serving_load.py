"""64 clients that stream at once, for some seconds here and for five minutes under `make test-all`."""

import asyncio

import httpx
import pytest
from serving_tools import metric, running, save_chat_model, wait_until

from lm_recipes.serving.app import create_app
from lm_recipes.serving.limits import Settings
from lm_recipes.serving.load import load

CLIENTS = 64


def request(client: int, turn: int) -> dict:
    return {"prompt": f"the dog {client} " * (1 + client % 5), "max_tokens": 4 + (client + turn) % 29, "seed": client}


@pytest.mark.parametrize("seconds", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_64_clients_stream_without_an_error_and_leave_nothing_behind(tmp_path, seconds):
    with running(create_app(save_chat_model(tmp_path / "chat"), Settings(max_new_tokens=64))) as address:
        found = asyncio.run(load(address, CLIENTS, seconds, request))
        wait_until(lambda: metric(address, "lm_recipes_running") == metric(address, "lm_recipes_waiting") == 0)
        assert 'status="5' not in httpx.get(f"{address}/metrics").text
    assert found.errors == []
    assert found.answers >= CLIENTS
    assert all(value > 0 for value in found.percentiles().values())
