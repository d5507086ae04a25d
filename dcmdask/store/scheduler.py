"""Tasks by the scheduler that Dask is set to, the memory of one, and clusters that are started."""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing import resource_tracker
from typing import Any

import dask.config
from dask.base import compute, get_scheduler
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.system import CPU_COUNT
from dask.utils import format_bytes
from distributed import (
    Client,
    LocalCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    rejoin,
    secede,
)
from distributed.system import MEMORY_LIMIT

# Part of a worker's memory for regions: one takes up to four times its decoded size while it is
# compressed and its shard put together (measured), and there is the rest of the process.
SHARE = 6
# Number of tasks in one graph.
TOGETHER = 500
# Seconds that a cluster without workers has for starting one.
_PATIENCE = 30
# Seconds between looks at tasks that end.
_MOMENT = 0.05


def run_levels(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Any, Mapping[int, Sequence[int]]]],
    progress: Callable[[int, int | None], object] | None,
) -> list[list[Any]]:
    """Call ``function(job, number, level=level)`` in tasks, one level after the other.

    `jobs` have the numbers of the regions of each level; the results of each are returned.
    """
    done, total = 0, sum(len(some) for _, levels in jobs for some in levels.values())

    def advance() -> None:
        nonlocal done
        # A task whose worker died is done twice.
        done = min(total, done + 1)
        if progress is not None:
            progress(done, total)

    results: list[list[Any]] = []
    for job, levels in jobs:
        tasks = (run(partial(function, level=n), job, levels[n], advance) for n in levels)
        results.append(list(chain.from_iterable(tasks)))
    return results


def run(
    function: Callable[[Any, int], Any],
    job: Any,
    numbers: Iterable[int],
    advance: Callable[[], object],
) -> list[Any]:
    """Call ``function(job, number)`` in a task for each number, and return the results.

    `job` is shipped to each worker once (with the multiprocessing scheduler, with each task);
    `advance` is called whenever a task is done.
    """
    awaited = Awaited(function)
    client = _client()
    if client is not None:
        return _on_cluster(client, awaited, job, numbers, advance)
    callback = Callback(posttask=lambda *_: advance())
    results: list[Any] = []
    with callback, closing(awaited):
        left = iter(numbers)
        # Dask's graphs cost more than they have tasks, so that several small ones are faster.
        while some := list(islice(left, TOGETHER)):
            results += compute(*_tasks(awaited, job, some))
    return results


def _tasks(function: Awaited, job: Any, numbers: Sequence[int]) -> list[Any]:
    shipped = delayed(job, traverse=False)
    task = delayed(function, pure=False)
    # Dask begins with the last names among equal tasks, so these have files read from front to
    # back. Two exports at once must not share a name.
    name = f"region-{uuid.uuid4().hex}"
    return [
        task(shipped, number, dask_key_name=f"{name}-{2**40 - place}")
        for place, number in enumerate(numbers)
    ]


def _on_cluster(
    client: Client,
    function: Awaited,
    job: Any,
    numbers: Iterable[int],
    advance: Callable[[], object],
) -> list[Any]:
    """Keep `TOGETHER` tasks on the scheduler, and wait for all."""
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
                advance()
        finally:
            if running:
                client.cancel(list(running))
                # A task that has begun goes on, and must not write to a store that comes later;
                # one whose worker has died does not.
                while any(client.run(_close_here, function.token, on_error="ignore").values()):
                    time.sleep(_MOMENT)
    return [results[place] for place in sorted(results)]


@contextmanager
def _seceded() -> Iterator[None]:
    """Inside a task, leave the worker's threads to the tasks that are waited for."""
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


# By token: number of threads of this process in a function, and functions that are closed.
_entered: Counter[str] = Counter()
_closed: set[str] = set()
_changed = threading.Condition()


def _close_here(token: str) -> int:
    """Let no thread of this process begin any more, and return the number that have."""
    with _changed:
        _closed.add(token)
        return _entered[token]


class Awaited:
    """A function that can be closed: threads in it are waited for, and no others begin.

    Where a task fails, Dask lets those that run go on; they would write to a store that another
    export may be about to write.
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


def room() -> tuple[int, str]:
    """Return the bytes that a task may take, a sixth of a worker's memory, and the reason."""
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

    The client's own `scheduler_info` is renewed every two seconds only.
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


# Clusters

# Time that a scheduler has to answer.
PATIENCE = "10s"
# Dask has workers give each freed block back to the system at once, which takes a quarter of
# the time of small JPEG frames. These settings let a process keep some.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 32 * 2**20, "MALLOC_TRIM_THRESHOLD_": 128 * 2**20}
# Pages of schedulers and workers, which any browser could read; the dashboard needs them.
_PAGES = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")
# A cluster of this process gives up a worker that is still gone after this time, by default
# 15 s: one that came back and has died again in that moment would stay away for good.
_DISMISSED = {"distributed.deploy.lost-worker-timeout": "1000 days"}


@contextmanager
def all_kept(client: Client) -> Iterator[None]:
    """Let a `LocalCluster` of this process restart its workers, however often they die."""
    # Clusters of other kinds start another job instead.
    with dask.config.set(_DISMISSED if isinstance(client.cluster, LocalCluster) else {}):
        yield


def half_of_this_machine() -> tuple[int, int]:
    """Return the default numbers of workers and of their threads."""
    return max(1, CPU_COUNT // 2), min(2, CPU_COUNT)


def dashboard_of(client: Client) -> str:
    """Return the address of the dashboard of a cluster; empty where it has none."""
    local = client.cluster
    if isinstance(local, LocalCluster) and not local.scheduler_spec["options"]["dashboard"]:
        # Dask gives an address all the same.
        return ""
    return client.dashboard_link or ""


@contextmanager
def cluster(
    scheduler: str | None,
    workers: int | None,
    threads: int | None = None,
    *,
    dashboard: bool = False,
) -> Iterator[Client | None]:
    """Let Dask compute on a cluster, or by threads where neither kind is asked for.

    Processes of this machine listen on its loopback address, and take orders with a certificate
    only that distributed makes for them and no other user can read.

    Parameters
    ----------
    scheduler : str or None
        Address of a Dask scheduler that runs already.
    workers : int or None
        Number of processes of this machine to start instead.
    threads : int, optional
        Number of threads of each process; by default all cores are used once.
    dashboard : bool
        Whether these processes serve Dask's dashboard, which any user of this machine can read.

    Raises
    ------
    ValueError
        Options that exclude each other.
    OSError
        The scheduler does not answer, or not without certificates.
    """
    if scheduler is not None and workers is not None:
        raise ValueError("--scheduler is for a cluster that runs, --workers starts one: not both")
    if threads is not None and workers is None:
        raise ValueError("--threads-per-worker goes with --workers")
    if dashboard and scheduler is not None:
        raise ValueError("--dashboard is for a cluster that is started, and this one runs")
    if workers is not None:
        with _processes(workers, threads, dashboard) as client:
            yield client
        return
    if scheduler is None:
        yield None
        return

    try:
        reached = Client(scheduler, timeout=PATIENCE)
    except TypeError as error:
        # Dask's configuration names no certificates.
        raise OSError(f"{scheduler} cannot be reached: {error}") from error
    with reached as client:
        yield client


@contextmanager
def _processes(workers: int, threads: int | None, dashboard: bool) -> Iterator[Client]:

    class _Uninterrupted(WorkerPlugin):
        """Leave Ctrl-C, which a terminal sends to all processes, to the one with the client."""

        def setup(self, worker: Worker) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # It warns of each task that runs when the worker is closed.
            logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)

    # Read where a cluster starts, and where it loses a worker.
    settings = {
        "distributed.nanny.pre-spawn-environ": _MEMORY,
        # Messages that each worker keeps for debugging, with their content.
        "distributed.admin.low-level-log-length": 100,
        **_DISMISSED,
        **({} if dashboard else dict.fromkeys(_PAGES, ())),
    }
    nanny = logging.getLogger("distributed.nanny")
    with dask.config.set(settings), ExitStack() as stack:
        stack.callback(nanny.setLevel, nanny.level)
        with _interrupted_later():
            local = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=threads or max(1, CPU_COUNT // workers),
                    host="127.0.0.1",
                    security=True,
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": dashboard},
                )
            )
            # It warns of each worker that takes long to end on a busy machine.
            stack.callback(nanny.setLevel, logging.ERROR)
            client = stack.enter_context(Client(local))
            client.register_plugin(_Uninterrupted())
        yield client


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Let Ctrl-C wait until the body has ended; processes that it starts ignore it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    # Threads and processes inherit what is blocked; starting this one later would unblock it.
    resource_tracker.ensure_running()
    mask = getattr(signal, "pthread_sigmask", None)
    blocked = mask and mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)
    if pressed and callable(before):
        before(signal.SIGINT, None)
