"""How do many clients get answers from one encoder? What waits together is read together."""

import logging
from dataclasses import dataclass

from lm_recipes.launch import UserError
from lm_recipes.serving.heads import BATCH, HEADS
from lm_recipes.serving.metrics import Metrics
from lm_recipes.serving.served import Served
from lm_recipes.serving.worker import Ticket, Worker, failed

logger = logging.getLogger("lm_recipes.serving")


@dataclass(eq=False)
class Questions:
    """What one request asks; the ticket gets the list of answers."""

    ticket: Ticket
    model: str
    questions: list  # of the form that the head takes


class Reader(Worker):
    """Answers the questions of requests, as many at a time as fit a batch."""

    def __init__(self, served: Served, metrics: Metrics, max_waiting: int) -> None:
        super().__init__(max_waiting)
        self.served, self.metrics = served, metrics
        self.heads = {name: HEADS[served.asked](served, name) for name in served.names}
        self.taken: list[Questions] = []

    @property
    def running(self) -> int:
        return sum(len(job.questions) for job in self.taken)

    def jobs(self) -> list[Questions]:
        return [*self.waiting, *self.taken]

    def fail(self) -> None:
        for job in self.taken:
            job.ticket.put(failed())
        self.taken = []

    def round(self) -> None:
        self.taken = self._take()
        self._answer(self.taken)
        self.taken = []

    def _take(self) -> list[Questions]:
        """The first request and those behind it that ask the same model, up to a batch of questions."""
        taken, size = [], 0
        with self.changed:
            while self.waiting and (not taken or self.waiting[0].model == taken[0].model):
                size += len(self.waiting[0].questions)
                if taken and size > BATCH:
                    break
                taken.append(self.waiting.popleft())
        return taken

    def _answer(self, jobs: list[Questions]) -> None:
        """Answer together; where something is wrong with one of several requests, each by itself."""
        if not jobs:  # cancelled before they were taken
            return
        self.served.activate(jobs[0].model)
        questions = [question for job in jobs for question in job.questions]
        try:
            answers = iter(self.heads[jobs[0].model](questions))
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._answer([job])
                return
            if not isinstance(error, UserError):
                logger.exception("%d questions could not be answered", len(questions))
            jobs[0].ticket.put(error if isinstance(error, UserError) else failed())
            return
        self.metrics.texts.inc(len(questions))
        for job in jobs:
            job.ticket.put([next(answers) for _ in job.questions])
