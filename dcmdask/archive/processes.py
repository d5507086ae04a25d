"""Describing files in threads, in child processes, and on clusters.

Describing is Python code, so it takes a process for each core to be quick. The processes are
plain children with pipes: multiprocessing would run the caller's script again or copy a
process that has threads, Dask's worker processes may have no children of its kind, and loky
is slower by a fifth, since here the caller describes files while its children start.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from dcmdask.archive.descriptions import Outcome, describe_files
from dcmdask.archive.discovery import Skipped
from dcmdask.dicom.instance import Indexing

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

# The path of the modules comes first, so that the child finds what its parent has; -P keeps
# whatever lies in the working directory from being imported.
PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from dcmdask.archive.processes import serve; serve()"
)
# Modules may print while they are imported; answers come behind this line.
_READY = b"the describing of files begins here\n"
# Errors at the ends of the pipes of a process that has gone.
_GONE = (OSError, EOFError, pickle.UnpicklingError)
# Seconds for a process that closed its pipes to end by itself and leave its exit code.
_PARTING = 1.0
# Batches for each worker that are under way or wait for it.
_AHEAD = 2
# With no more processes than this, the caller's has the time to describe files as well.
_FEW = 4


def _in_flight(
    pool: ThreadPoolExecutor,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    limit: int,
    here: Callable[[Task], Result] | None = None,
) -> Iterator[Result]:
    """Yield results as they come; at most `limit` tasks are taken before one is done.

    Instead of waiting for it, `here` does a task in this thread.
    """
    running: set[Future[Result]] = set()
    for task in tasks:
        if len(running) >= limit:
            done, running = wait(running, 0 if here else None, FIRST_COMPLETED)
            yield from (future.result() for future in done)
            if here and not done:
                yield here(task)
                continue
        running.add(pool.submit(function, task))
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def in_threads(
    function: Callable[[Task], Result], tasks: Iterable[Task], threads: int
) -> Iterator[Result]:
    """Yield results as they come, from threads that end with the iterator."""
    pool = ThreadPoolExecutor(threads, "dcmdask-scan")
    try:
        yield from _in_flight(pool, function, tasks, threads * _AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def on_cluster(
    client: Client, function: Callable[[Task], Result], tasks: Iterable[Task]
) -> Iterator[Result]:
    """Yield results as they come, from the workers of a cluster; few tasks wait there."""
    from distributed import as_completed

    ahead = _AHEAD * max(1, sum(client.nthreads().values()))
    waiting = iter(tasks)
    running = as_completed(with_results=True)
    for count, task in enumerate(waiting, 1):
        running.add(client.submit(function, task, pure=False))
        if count >= ahead:
            break
    for future, result in running:
        future.release()
        for task in islice(waiting, 1):
            running.add(client.submit(function, task, pure=False))
        yield result


# The parent's end


def describe_in_processes(
    batches: Iterable[list[str]],
    processes: int,
    options: Mapping[str, Any] | None = None,
    indexing: Indexing = "no",
    identifiers: bool = False,
) -> Iterator[list[Outcome]]:
    """Describe batches of local files in child processes, which end with the iterator.

    Every file has one outcome, in any order. Where a process ends on its own, the files of
    its batch are described again one by one, and one that ends a process again is skipped.

    Parameters
    ----------
    batches : iterable of list of str
    processes : int
        Number of processes. Where they are few, this one is among them and describes files while
        it waits: a child process takes longer to start than to describe a thousand files.
    options : mapping, optional
        Decoding options, as for :func:`describe_files`.
    indexing : {"no", "at hand", "walk"}, optional
        Which frame indices are made.
    identifiers : bool, optional
        Whether elements that name a person are kept.
    """
    how: Mapping[str, Any] = {
        "options": options,
        "indexing": indexing,
        "identifiers": identifiers,
    }
    describe = partial(describe_files, **how)
    here = describe if processes <= _FEW else None
    workers = processes - (here is not None)
    if not workers:
        yield from map(describe, batches)
        return
    crew = _Crew(how)
    pool = ThreadPoolExecutor(workers, "dcmdask-scan")
    try:
        yield from _in_flight(pool, crew.describe, batches, workers * _AHEAD, here)
    finally:
        crew.give_up()
        pool.shutdown(cancel_futures=True)
        crew.end()


class _Crew:
    """Worker processes: a thread that describes takes an idle one, or starts one."""

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._how = how
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._given_up = False
        self._lock = threading.Lock()

    def describe(self, paths: list[str]) -> list[Outcome]:
        try:
            outcomes = self._ask(paths)
        except _NotStartedError:
            # This process can do it as well, if slower.
            return [] if self._given_up else describe_files(paths, **self._how)
        if isinstance(outcomes, list):
            return outcomes
        return [self._describe_alone(path) for path in paths]

    def _describe_alone(self, path: str) -> Outcome:
        """Describe a file that may have ended a process."""
        try:
            outcomes = self._ask([path])
        except _NotStartedError:
            reason = "a process that read it ended, and no other could be started"
            return Skipped(path, reason, "doubtful", "process")
        if isinstance(outcomes, list):
            return outcomes[0]
        return Skipped(path, f"reading it ended the process ({outcomes})", "doubtful", "process")

    def _ask(self, paths: list[str]) -> list[Outcome] | str:
        """Return what a worker says of the files, or how it ended."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = self._start()
        try:
            outcomes = worker.ask(paths, self._how)
        except _GONE:
            return worker.end()
        self._idle.put(worker)
        return outcomes

    def _start(self) -> _Worker:
        with self._lock:
            if self._given_up:
                raise _NotStartedError
            try:
                worker = _Worker()
            except OSError as error:
                raise _NotStartedError from error
            self._workers.append(worker)
        try:
            worker.wait()
        except _GONE as error:
            worker.end()
            raise _NotStartedError from error
        return worker

    def give_up(self) -> None:
        """Kill all workers, so that nobody waits for them, and start no more."""
        with self._lock:
            self._given_up = True
            for worker in self._workers:
                worker.kill()

    def end(self) -> None:
        """Close what the workers leave behind."""
        for worker in self._workers:
            worker.end()


class _NotStartedError(Exception):
    """There is no worker process to ask."""


class _Worker:
    """A child process that runs :func:`serve`; for one thread at a time."""

    def __init__(self) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise OSError("this program brings no Python interpreter along")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # There is a process for each core, so threads for each would be in the way.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def wait(self) -> None:
        """Wait until it can be asked."""
        self._send(sys.path)
        for line in self._from:
            if line == _READY:
                return
        raise EOFError("the process ended while it started")

    def ask(self, paths: list[str], how: Mapping[str, Any]) -> list[Outcome]:
        self._send((paths, how))
        return cast("list[Outcome]", pickle.load(self._from))

    def _send(self, value: object) -> None:
        to = cast("IO[bytes]", self._process.stdin)
        pickle.dump(value, to, pickle.HIGHEST_PROTOCOL)
        to.flush()

    @property
    def _from(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdout)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> str:
        """Take leave of a process that has gone; return how it ended."""
        try:
            code = self._process.wait(_PARTING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # Bytes that were not sent yet cannot be.
            with suppress(OSError):
                cast("IO[bytes]", pipe).close()
        return f"exit code {code}" if code >= 0 else f"{signal.strsignal(-code)}"


# The child's end


def serve() -> None:
    """Describe the files of each batch that comes in, until there are no more."""
    # Control-C goes to the parent as well, which knows what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    # Nothing but answers may go where the parent reads them.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(b"\n" + _READY)
        out.flush()
        while True:
            try:
                paths, how = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(describe_files(paths, **how), out, pickle.HIGHEST_PROTOCOL)
            out.flush()
