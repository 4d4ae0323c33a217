"""Where do the steps run? In this process, in processes of this machine, or on a Ray cluster: the result is the same.

Ray, because it is the engine that runs unchanged on a laptop, under Slurm and on Kubernetes, and its tasks are plain
functions: the steps need no rewriting as they would for an engine with pipelines of its own.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Literal

from lm_recipes.launch import UserError

Executor = Literal["processes", "ray"]
_shared: Any = None  # in a worker process: what `in_order` was given, received once


def in_order(
    function: Callable[[Any, Any], Any],
    shared: Any,
    tasks: Iterable[Any],
    executor: Executor = "processes",
    workers: int = 1,
) -> Iterator[Any]:
    """`function(shared, task)` for every task: results in the order of the tasks, few of which are in memory at a time.

    Args:
        function: a function of a module that workers can import.
        shared: sent to each worker once.
        executor: "processes" of this machine (1 worker: this very process), or "ray": the cluster that RAY_ADDRESS
            names, or else one of `workers` started here for the time being.
    """
    if executor == "ray":
        return _on_ray(function, shared, tasks, workers)
    if workers == 1:
        return (function(shared, task) for task in tasks)
    return _on_processes(function, shared, tasks, workers)


def _window(submit: Callable[[Any], Any], result: Callable[[Any], Any], tasks: Iterable[Any], most: int) -> Iterator:
    pending: deque = deque()
    for task in tasks:
        pending.append(submit(task))
        if len(pending) > most:
            yield result(pending.popleft())
    while pending:
        yield result(pending.popleft())


def _on_processes(function: Callable, shared: Any, tasks: Iterable, workers: int) -> Iterator:
    # A fork server that has imported everything starts workers at once, and safely beside our own threads.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__, "pandas"])  # pyarrow imports it for its first array
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_receive, initargs=(shared,))
    try:
        yield from _window(lambda task: pool.submit(_call, function, task), lambda f: f.result(), tasks, 2 * workers)
    except BrokenProcessPool as error:
        raise UserError(
            "a cleaning process was killed, most likely for want of memory; run the same command again with a "
            "smaller --num_processes: what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _receive(shared: Any) -> None:
    global _shared
    _shared = shared


def _call(function: Callable, task: Any) -> Any:
    return function(_shared, task)


def _on_ray(function: Callable, shared: Any, tasks: Iterable, workers: int) -> Iterator:
    try:
        import ray
    except ImportError as error:
        raise UserError("executor: ray is not installed; pip install -e '.[ray]'") from error
    started_here = not ray.is_initialized()
    if started_here:
        here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **here)
    try:
        workers = max(workers, int(ray.cluster_resources().get("CPU", 1)))
        remote, shared = ray.remote(function), ray.put(shared)
        yield from _window(lambda task: remote.remote(shared, task), ray.get, tasks, 2 * workers)
    finally:
        if started_here:
            ray.shutdown()
