"""Tasks by whatever scheduler Dask is set to, and what one of them may take."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import dask.config
from dask.base import compute, get_scheduler
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed import Client, as_completed, rejoin, secede
from distributed.system import MEMORY_LIMIT

Progress: TypeAlias = "Callable[[int, int | None], None]"

# Of a worker's memory. A region takes up to four times its decoded size while it is compressed
# and its shard put together (measured), and there is the rest of the process.
SHARE = 6
# Tasks in one graph.
TOGETHER = 500
# Seconds that a cluster without workers has for starting one.
_PATIENCE = 30
# Seconds between looks at tasks that end.
_MOMENT = 0.05


def run_levels(
    function_of: Callable[[int], Callable[[Any, int], Any]],
    job: Any,
    numbers: Mapping[int, Sequence[int]],
    progress: Callable[[int, int | None], object] | None,
) -> list[Any]:
    """Call a function for each number of each level, one level after the other.

    Parameters
    ----------
    function_of : callable
        Returns the function of a level.
    job
        As for `run`.
    numbers : mapping
        Level to the numbers of its regions.
    progress : callable or None
        Called with how many regions of all levels are done, and how many there are.
    """
    done, total = 0, sum(map(len, numbers.values()))

    def advance() -> None:
        nonlocal done
        # A task whose worker died is done twice.
        done = min(total, done + 1)
        if progress is not None:
            progress(done, total)

    results: list[Any] = []
    for level, some in numbers.items():
        results += run(function_of(level), job, some, advance)
    return results


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
    awaited = Awaited(function)
    client = _client()
    if client is not None:
        return _on_cluster(client, awaited, job, numbers, advance)
    callback = Callback(posttask=partial(_count, advance)) if advance else Callback()
    results: list[Any] = []
    with callback, closing(awaited):
        for some in batched(numbers):
            results += compute(*_tasks(awaited, job, some))
    return results


def _tasks(function: Awaited, job: Any, numbers: Sequence[int]) -> list[Any]:
    shipped = delayed(job, traverse=False)
    task = delayed(function, pure=False)
    # Of tasks that are alike Dask does those with the last names first: so files are read from
    # front to back. Two exports at once must not have a name in common.
    name = f"region-{uuid.uuid4().hex}"
    return [
        task(shipped, number, dask_key_name=f"{name}-{2**40 - place}")
        for place, number in enumerate(numbers)
    ]


def batched(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield numbers so many at once that Dask's graphs, which cost more than they have tasks,
    stay small.
    """
    left = iter(numbers)
    while some := list(islice(left, TOGETHER)):
        yield some


def _on_cluster(
    client: Client,
    function: Awaited,
    job: Any,
    numbers: Iterable[int],
    advance: Callable[[], None] | None,
) -> list[Any]:
    """Keep so many tasks on the scheduler, and wait for all."""
    client.wait_for_workers(1, timeout=_PATIENCE)
    shipped = client.scatter(job, hash=False)
    left = enumerate(numbers)
    running: dict[Any, int] = {}
    results: dict[int, Any] = {}

    def submitted(count: int) -> list[Any]:
        some = {
            client.submit(function, shipped, number, pure=False): place
            for place, number in islice(left, count)
        }
        running.update(some)
        return list(some)

    with _seceded():
        ended = as_completed(submitted(TOGETHER))
        try:
            for future in ended:
                results[running.pop(future)] = future.result()
                ended.update(submitted(1))
                if advance:
                    advance()
        finally:
            if running:
                client.cancel(list(running))
                # What a worker is at goes on, and must not write to a store that comes later.
                while any(client.run(_close_here, function.token).values()):
                    time.sleep(_MOMENT)
    return [results[place] for place in sorted(results)]


@contextmanager
def _seceded() -> Iterator[None]:
    """Inside a task, leave the worker's threads, of which the tasks waited for may need all."""
    try:
        secede()
    except (ValueError, AttributeError, KeyError):
        # Not inside a task.
        yield
        return
    try:
        yield
    finally:
        rejoin()


# By token: how many threads of this process are in a function, and whether it is closed.
_entered: Counter[str] = Counter()
_closed: set[str] = set()
_changed = threading.Condition()


def _close_here(token: str) -> int:
    """Let no thread of this process begin any more, and return how many have."""
    with _changed:
        _closed.add(token)
        return _entered[token]


class Awaited:
    """A function, and how many threads of a process are in it.

    Where a task fails Dask leaves those that run alone: they would write to a store that
    another export may be about to write. Once closed it does nothing.
    """

    def __init__(self, function: Callable[..., Any], token: str = "") -> None:
        self._function = function
        self.token = token or uuid.uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function, self.token)

    def __call__(self, *arguments: Any) -> Any:
        with _changed:
            if self.token in _closed:
                return None
            _entered[self.token] += 1
        try:
            return self._function(*arguments)
        finally:
            with _changed:
                _entered[self.token] -= 1
                if not _entered[self.token]:
                    del _entered[self.token]
                _changed.notify_all()

    def close(self) -> None:
        """Let no thread of this process begin any more, and wait for those that have."""
        with _changed:
            _closed.add(self.token)
            _changed.wait_for(lambda: not _entered[self.token])


def _count(advance: Callable[[], None], *_: Any) -> None:
    advance()


def room() -> tuple[int, str]:
    """Return the bytes that a task may take, and what that is in words.

    A sixth of a worker's memory, divided among its threads.
    """
    client = _client()
    if client is None:
        limit, threads = MEMORY_LIMIT, _local_workers()
        where = "this machine's memory"
    else:
        # One that adapts starts workers only once there is something to do.
        client.wait_for_workers(1, timeout=_PATIENCE)
        workers = known_workers(client).values()
        shares = [(one["memory_limit"] or MEMORY_LIMIT, one["nthreads"]) for one in workers]
        limit, threads = min(shares, key=lambda one: one[0] / one[1])
        where = "the memory limit of a worker"
    share = limit // SHARE // threads
    return share, f"a sixth of {where}, {format_bytes(limit)}, for each of {threads} threads"


def known_workers(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of its workers, by address.

    Asked of the scheduler itself: the client renews what its own `scheduler_info` returns
    every two seconds, and may just have done so without any worker.
    """
    scheduler: Any = client.scheduler
    return dict(client.sync(scheduler.identity, n_workers=-1)["workers"])


def _client() -> Client | None:
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if isinstance(owner, Client) else None


def _local_workers() -> int:
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return 1
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
