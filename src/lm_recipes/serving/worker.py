"""Who is served next? One thread owns the model; what waits for it waits in a queue that has an end."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from lm_recipes.serving.errors import Refused

logger = logging.getLogger("lm_recipes.serving")

BUSY_SECONDS = 1  # what a client is told to wait before it tries a full queue again


class Ticket:
    """What a client waits at: the worker puts results in, the event loop takes them out.

    Made in the event loop's thread. `cancelled` is the client's word that it no longer waits, in any thread.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.arrived = time.monotonic()
        self._loop, self._results = asyncio.get_running_loop(), asyncio.Queue()

    def put(self, result: object) -> None:
        """Give the client something; an exception is raised where it waits. Never blocks; of any thread."""
        try:
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self.cancelled = True

    async def results(self, seconds: float) -> AsyncIterator[list]:
        """All that has come since the last look, at least one result; for ever, so the caller knows when to stop.

        Args:
            seconds: from the ticket's beginning to its end.

        Raises:
            Refused: time is up. And whatever the worker put in as an exception.
        """
        deadline = self._loop.time() + seconds - (time.monotonic() - self.arrived)
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    found = [await self._results.get()]
                if self._loop.time() > deadline:  # a queue that is never empty never gives the timeout a chance
                    raise TimeoutError
            except TimeoutError:
                message = f"not finished after {seconds:g} s; ask for fewer tokens, or try when there is less to do"
                raise Refused(503, message, code="timeout", retry_after=BUSY_SECONDS) from None
            while not self._results.empty():
                found.append(self._results.get_nowait())
            for result in found:
                if isinstance(result, BaseException):
                    raise result
            yield found


class Worker:
    """A thread that does `round` while there is work.

    Subclasses say what a round is and take from `waiting` (jobs that have a `ticket`) under `changed`.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.waiting: deque = deque()
        self.changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is running; whoever still waits is told."""
        with self.changed:
            self._stopping = True
            self.changed.notify()
        self._thread.join()
        for job in self.jobs():
            job.ticket.put(Refused(503, "the server is stopping", retry_after=BUSY_SECONDS))

    @property
    def running(self) -> int:
        """How many texts are being worked on."""
        raise NotImplementedError

    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, jobs: list) -> None:
        """Queue all of `jobs` or none.

        Raises:
            Refused: the queue has no room for them (429), or the server is stopping (503).
        """
        with self.changed:
            if self._stopping:
                raise Refused(503, "the server is stopping", retry_after=BUSY_SECONDS)
            if len(self.waiting) + len(jobs) > self.max_waiting:
                message = f"{len(self.waiting)} requests are waiting already; try again in a moment"
                raise Refused(429, message, code="queue_full", retry_after=BUSY_SECONDS)
            self.waiting.extend(jobs)
            self.changed.notify()

    def cancel(self, ticket: Ticket) -> None:
        """Forget a ticket's jobs: those that wait at once, those that run before their next step."""
        ticket.cancelled = True
        with self.changed:
            self.waiting = deque(job for job in self.waiting if job.ticket is not ticket)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._stopping or self.busy())
                if self._stopping:
                    return
            try:
                self.round()
            except Exception:
                logger.exception("a round failed; its requests are told so")
                self.fail()

    def busy(self) -> bool:
        """Whether there is something to do; called under `changed`."""
        return bool(self.waiting)

    def jobs(self) -> list:
        """All jobs that wait or run."""
        return list(self.waiting)

    def round(self) -> None:
        raise NotImplementedError

    def fail(self) -> None:
        """Give up what `round` was doing when it failed, and tell its clients."""
        raise NotImplementedError


def failed() -> Refused:
    return Refused(500, "the server made a mistake; its log says which")
