"""What does a server tell about itself? Counters and histograms in Prometheus' text format, of one app each."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lm_recipes.serving.worker import Worker

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """A registry of its own, so that several apps in one process do not meet."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        name = "lm_recipes_"
        self.requests = Counter(f"{name}requests", "Answers sent.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            f"{name}request_seconds",
            "From a request to the end of its answer.",
            ["path"],
            registry=own,
            buckets=SECONDS,
        )
        self.tokens = Counter(f"{name}tokens", "Tokens read and made.", ["kind"], registry=own)
        self.first_token = Histogram(
            f"{name}first_token_seconds", "From a request to its first token.", registry=own, buckets=SECONDS
        )
        self.step = Histogram(
            f"{name}step_seconds", "A token for every running text.", registry=own, buckets=STEP_SECONDS
        )
        self.texts = Counter(f"{name}texts", "Texts an encoder has read.", registry=own)

    def watch(self, worker: Worker) -> None:
        """Report how much waits and runs at a worker."""
        waiting = Gauge("lm_recipes_waiting", "Requests in the queue.", registry=self.registry)
        waiting.set_function(lambda: len(worker.waiting))
        running = Gauge("lm_recipes_running", "Texts being worked on.", registry=self.registry)
        running.set_function(lambda: worker.running)

    def text(self) -> bytes:
        return generate_latest(self.registry)
