"""Tasks by whatever scheduler Dask is set to, and what one of them may take."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from typing import Any, TypeAlias

import dask.config
from dask.base import compute, get_scheduler
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed import Client, as_completed
from distributed.system import MEMORY_LIMIT

Progress: TypeAlias = "Callable[[int, int | None], None]"

# Of a worker's memory: decoded and stored form of a region are in it at once, twice each
# while they are put together, and the rest of the process.
SHARE = 4


def run(
    function: Callable[[Any, int], Any],
    job: Any,
    numbers: Iterable[int],
    advance: Callable[[], None] | None = None,
) -> list[Any]:
    """Call ``function(job, number)`` in a task for each number, and return the results.

    `job` is shipped to each worker once (with the multiprocessing scheduler, with each task).

    Parameters
    ----------
    advance : callable, optional
        Called whenever a task is done.
    """
    shipped = delayed(job, traverse=False)
    awaited = Awaited(function)
    task = delayed(awaited, pure=False)
    # Of tasks that are alike Dask does those with the last names first: so files are read from
    # front to back. Two exports at once must not have a name in common.
    name = f"region-{uuid.uuid4().hex}"
    tasks = [
        task(shipped, number, dask_key_name=f"{name}-{2**40 - place}")
        for place, number in enumerate(numbers)
    ]
    client = _client()
    if client is None:
        callback = Callback(posttask=partial(_count, advance)) if advance else Callback()
        with callback, closing(awaited):
            results: tuple[Any, ...] = compute(*tasks)
            return list(results)
    futures = client.compute(tasks)
    try:
        for future in as_completed(futures):
            future.result()
            if advance:
                advance()
        return [future.result() for future in futures]
    finally:
        client.cancel(futures)


class Awaited:
    """A function, and how many threads of this process are in it.

    Where a task fails Dask leaves those that run alone: they would write to a store that
    another export may be about to write. Once closed it does nothing.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._state = threading.Condition()
        self._running = 0
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function,)

    def __call__(self, *arguments: Any) -> Any:
        with self._state:
            if self._closed:
                return None
            self._running += 1
        try:
            return self._function(*arguments)
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    def close(self) -> None:
        """Let no thread of this process begin any more, and wait for those that have."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._running)


def _count(advance: Callable[[], None], *_: Any) -> None:
    advance()


def room() -> tuple[int, str]:
    """Return the bytes that a task may take, and what that is in words.

    A quarter of a worker's memory, divided among its threads.
    """
    client = _client()
    if client is None:
        limit, threads = MEMORY_LIMIT, _local_workers()
        where = "this machine's memory"
    else:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not workers:
            raise ValueError("the cluster has no workers yet: client.wait_for_workers(1) first")
        shares = [(one["memory_limit"] or MEMORY_LIMIT, one["nthreads"]) for one in workers]
        limit, threads = min(shares, key=lambda one: one[0] / one[1])
        where = "the memory limit of a worker"
    share = limit // SHARE // threads
    return share, f"a quarter of {where}, {format_bytes(limit)}, for each of {threads} threads"


def _client() -> Client | None:
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if isinstance(owner, Client) else None


def _local_workers() -> int:
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return 1
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
