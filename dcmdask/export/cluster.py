"""Where the work is done: threads of this process, processes of this machine, or a cluster."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, Worker

# For a scheduler to answer.
PATIENCE = "10s"
# Dask has workers give each freed block back to the system at once, and each frame then takes
# new pages: a quarter of the time of small JPEG frames. These let a process keep some.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 32 * 2**20, "MALLOC_TRIM_THRESHOLD_": 128 * 2**20}
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


@contextmanager
def cluster(
    scheduler: str | None, workers: int | None, threads: int | None = None
) -> Iterator[Client | None]:
    """Let Dask compute on the workers that are asked for; by threads if none are.

    Parameters
    ----------
    scheduler : str or None
        The address of a Dask scheduler that runs already.
    workers : int or None
        How many processes of this machine to start instead.
    threads : int, optional
        Of each such process; by default all cores are used once.

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
    if scheduler is None and workers is None:
        yield None
        return
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster, WorkerPlugin

    class _Uninterrupted(WorkerPlugin):
        """Leave Ctrl-C, which a terminal sends to all, to this process: it ends its workers."""

        def setup(self, worker: Worker) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # It warns of each task that still runs when the worker is closed.
            logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)

    if scheduler is not None:
        try:
            reached = Client(scheduler, timeout=PATIENCE)
        except TypeError as error:
            # What Dask raises where its configuration names no certificates.
            raise OSError(f"{scheduler} cannot be reached: {error}") from error
        with reached as client:
            yield client
        return
    assert workers is not None
    with (
        # Read where a cluster starts, and where it loses a worker.
        dask.config.set(
            {
                "distributed.nanny.pre-spawn-environ": _MEMORY,
                # Messages that are kept for debugging, of each worker: with all that was sent.
                "distributed.admin.low-level-log-length": 100,
                **_DISMISSED,
            }
        ),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads or max(1, CPU_COUNT // workers),
            host="127.0.0.1",
            # Otherwise it would be open to everybody.
            dashboard_address="127.0.0.1:0",
        ) as local,
        Client(local) as client,
    ):
        client.register_plugin(_Uninterrupted())
        yield client
