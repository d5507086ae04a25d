"""Choice of workers: threads of this process, processes of this machine, or a cluster."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, Worker

# For a scheduler to answer.
PATIENCE = "10s"
# Dask has workers give each freed block back to the system at once, and each frame then takes
# new pages: a quarter of the time of small JPEG frames. These let a process keep some.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 32 * 2**20, "MALLOC_TRIM_THRESHOLD_": 128 * 2**20}
# What schedulers and workers tell any browser that asks, and the dashboard asks them for.
_PAGES = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")
# A cluster of this process looks for a worker that was gone once more behind this time, and
# dismisses its nanny where it does not see it: by default after 15 s, and then a worker that
# came back and has died a second time in that moment stays away for good.
_DISMISSED = {"distributed.deploy.lost-worker-timeout": "1000 days"}


@contextmanager
def all_kept(client: Client) -> Iterator[None]:
    """Have a `LocalCluster` of this process keep each of its workers, however often it dies."""
    import dask
    from distributed import LocalCluster

    # Others start something else instead of what they give up: another job of a queue.
    with dask.config.set(_DISMISSED if isinstance(client.cluster, LocalCluster) else {}):
        yield


def half_of_this_machine() -> tuple[int, int]:
    """Return the workers and their threads where nobody says how many."""
    from dask.system import CPU_COUNT

    return max(1, CPU_COUNT // 2), min(2, CPU_COUNT)


def dashboard_of(client: Client) -> str:
    """Return the address of the dashboard of a cluster; empty where it has none."""
    from distributed import LocalCluster

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
    """Let Dask compute on the workers that are asked for; by threads if none are.

    Processes of this machine listen on its loopback address only, and let in who has the key of
    a certificate that is made for them, which distributed keeps in memory and, while it opens
    connections, in temporary files that only this user can read: a worker does what it is told,
    by whoever reaches it.

    Parameters
    ----------
    scheduler : str or None
        The address of a Dask scheduler that runs already.
    workers : int or None
        Number of processes of this machine to start instead.
    threads : int, optional
        Of each such process; by default all cores are used once.
    dashboard : bool
        Whether these processes serve Dask's dashboard, which anybody on this machine can read.

    Raises
    ------
    ValueError
        Both are given, or threads of no processes.
    OSError
        Nobody answers at the address, or not without certificates.
    """
    if scheduler is not None and workers is not None:
        raise ValueError("--scheduler is for a cluster that runs, --workers starts one: not both")
    if threads is not None and workers is None:
        raise ValueError("--threads-per-worker goes with --workers")
    if dashboard and scheduler is not None:
        raise ValueError("--dashboard is for a cluster that is started, and this one runs")
    if scheduler is None and workers is None:
        yield None
        return
    if scheduler is None:
        assert workers is not None
        with _processes(workers, threads, dashboard) as client:
            yield client
        return
    from distributed import Client

    try:
        reached = Client(scheduler, timeout=PATIENCE)
    except TypeError as error:
        # What Dask raises where its configuration names no certificates.
        raise OSError(f"{scheduler} cannot be reached: {error}") from error
    with reached as client:
        yield client


@contextmanager
def _processes(workers: int, threads: int | None, dashboard: bool) -> Iterator[Client]:
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster, WorkerPlugin

    class _Uninterrupted(WorkerPlugin):
        """Leave Ctrl-C, which a terminal sends to all, to this process: it ends its workers."""

        def setup(self, worker: Worker) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # It warns of each task that still runs when the worker is closed.
            logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)

    # Read where a cluster starts, and where it loses a worker.
    settings = {
        "distributed.nanny.pre-spawn-environ": _MEMORY,
        # Messages that are kept for debugging, of each worker: with all that was sent.
        "distributed.admin.low-level-log-length": 100,
        **_DISMISSED,
        **({} if dashboard else dict.fromkeys(_PAGES, ())),
    }
    with dask.config.set(settings), ExitStack() as stack:
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
            client = stack.enter_context(Client(local))
            client.register_plugin(_Uninterrupted())
        yield client


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Let Ctrl-C wait until the body is through; processes that it starts do not hear it."""
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
