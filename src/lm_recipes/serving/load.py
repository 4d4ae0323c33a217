"""How does a GPT's server bear many clients? They ask again and again, and what each waited for is written down."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import numpy as np

from lm_recipes.launch import UserError


@contextmanager
def server_process(command: Sequence[object], log: Path) -> Iterator[str]:
    """The address of a server in a process of its own, on a free port.

    Args:
        command: a script that serves, and its flags but `--port`. log: file that it writes to.

    Raises:
        UserError: it did not start.
    """
    with log.open("w") as stderr:
        server = subprocess.Popen([sys.executable, *map(str, command), "--port", "0"], stderr=stderr)
    try:
        while (address := re.search(r"http://[\d.:]+", said := log.read_text())) is None:
            if server.poll() is not None:
                raise UserError(said.strip().rpartition("\n")[2].removeprefix("error: "))
            time.sleep(0.1)
        yield address[0]
    finally:
        server.terminate()
        server.wait()


@dataclass
class Load:
    """What clients met.

    Attributes:
        first: seconds from a request to its first token; of a request that had none when time was up, what it had
            waited until then. between: seconds from one piece of a text to the next.
    """

    answers: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    def percentiles(self) -> dict[str, float]:
        """The 50th and 95th of both, in milliseconds."""
        lists = {"first_token": self.first, "between_tokens": self.between}
        return {
            f"{name}_p{percent}_milliseconds": 1000 * float(np.percentile(seconds, percent))
            if seconds
            else float("nan")
            for name, seconds in lists.items()
            for percent in (50, 95)
        }


async def load(address: str, clients: int, seconds: float, request: Callable[[int, int], dict]) -> Load:
    """Let clients stream completions at once, each one after another, and hang up when time is up.

    Args:
        address: http://host:port. request: (client, turn) -> the body of its request, without `stream`.
    """
    found = Load()
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=httpx.Limits()) as http:
        asking = [asyncio.create_task(_client(number, http, request, found)) for number in range(clients)]
        ended, _ = await asyncio.wait(asking, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    for task in ended:  # a client never ends by itself: this one has found a mistake of ours
        task.result()
    return found


async def _client(number: int, http: httpx.AsyncClient, request: Callable[[int, int], dict], found: Load) -> None:
    for turn in count():
        try:
            await _ask(http, request(number, turn), found)
        except (httpx.HTTPError, ValueError) as error:
            found.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(1)


async def _ask(http: httpx.AsyncClient, asked: dict, found: Load) -> None:
    """One request, streamed; ValueError if it is refused or its answer breaks off."""
    last, heard, finished = time.monotonic(), False, False
    try:
        async with http.stream("POST", "/v1/completions", json=asked | {"stream": True}) as response:
            if response.status_code != 200:
                raise ValueError(f"{response.status_code} {(await response.aread()).decode()[:200]}")
            async for line in response.aiter_lines():
                if not line or line == "data: [DONE]":
                    continue
                event, now = json.loads(line.removeprefix("data: ")), time.monotonic()
                if "error" in event:
                    raise ValueError(event["error"]["message"])
                (found.between if heard else found.first).append(now - last)
                last, heard, finished = now, True, event["choices"][0]["finish_reason"] is not None
        if not finished:
            raise ValueError("the answer broke off")
        found.answers += 1
    except asyncio.CancelledError:
        if not heard:
            found.first.append(time.monotonic() - last)
        raise
