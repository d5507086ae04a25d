"""Worker processes of a cluster: which of them can be given a series."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from distributed import Client

from dcmdask import __version__
from dcmdask.batch.records import RECORDS
from dcmdask.errors import ClusterError, DcmdaskError, DcmdaskWarning
from dcmdask.sources.files import Stored, look_at
from dcmdask.sources.folder import Folder
from dcmdask.store.scheduler import known_workers

# Seconds that a cluster has for its first worker, and the workers have for their answers.
_FIRST = 30.0
_ANSWERS = 60.0
# Seconds that a paused worker has to find memory again.
_GRACE = 10.0
# Seconds without a worker before a run gives up.
PATIENCE = 300.0

Answer = TypeVar("Answer")


class Requirements(NamedTuple):
    """Requirements of a run on its workers.

    Attributes
    ----------
    folder : Folder
        The target, which workers write to.
    sources : sequence of Stored
        Files that they have to read.
    needs_nanny : bool
        Whether a nanny has to restart a worker that ends at its timeout.
    """

    folder: Folder
    sources: Sequence[Stored]
    needs_nanny: bool


def _look(folder: Folder, sources: Sequence[Stored], probe: str) -> tuple[Any, ...]:
    """Return, on a worker, its versions, its process, and the reason why it cannot work."""
    # Imported late: that of the worker, also where it shares this process with the driver.
    from dcmdask import __version__ as version

    python, process = tuple(sys.version_info[:2]), f"{socket.gethostname()} {os.getpid()}"
    return (version, python, process, _lacks(folder, sources, probe))


def _lacks(folder: Folder, sources: Sequence[Stored], probe: str) -> str:
    for source in sources:
        try:
            look_at(source)
        except (OSError, DcmdaskError) as error:
            return (
                f"does not see {source.name} ({error}): the source has to be reachable under the "
                "same path from all workers"
            )
    own = f"{RECORDS}/.worker-{uuid.uuid4().hex}"
    try:
        if not folder.read([probe]):
            return f"does not see the target {folder.url}: it has to be the same for all"
        folder.write(own, b"")
        folder.remove([own])
    except OSError as error:
        return f"cannot write to {folder.url}: {error}"
    return ""


def lacking(
    client: Client, needed: Requirements, addresses: Iterable[str], patience: float
) -> dict[str, str]:
    """Return, by address, the reason why a worker cannot work; empty if it can.

    Workers that do not answer within `patience` seconds are left out.
    """
    # Two drivers may ask at the same time.
    probe = f"{RECORDS}/.driver-{uuid.uuid4().hex}"
    needed.folder.write(probe, b"seen")
    try:
        asked = {
            address: _in_background(_ask, client, address, needed, probe) for address in addresses
        }
        answers, _ = concurrent.futures.wait(asked.values(), timeout=patience)
    finally:
        needed.folder.remove([probe])
    nannies = {one: facts["nanny"] for one, facts in known_workers(client).items()}
    found: dict[str, str] = {}
    processes: set[str] = set()
    for address, future in asked.items():
        answer = future.result() if future in answers else None
        if answer is None or isinstance(answer, OSError):
            # It is slow, or went away and has no connection.
            continue
        lacks = _lacking(answer, needed, nannies.get(address, True), processes)
        found[address] = f"worker {address} {lacks}" if lacks else ""
    return found


def _ask(client: Client, address: str, needed: Requirements, probe: str) -> Any:
    """Return the answer of one worker, or the error that kept it from answering."""
    try:
        answer = client.run(
            _look, needed.folder, needed.sources, probe, workers=[address], on_error="return"
        )
    except Exception as error:
        return error
    return answer.get(address)


def _lacking(answer: Any, needed: Requirements, has_nanny: bool, processes: set[str]) -> str:
    """Return the reason why a worker cannot work; `processes` are those of the others."""
    if isinstance(answer, BaseException):
        return (
            f"cannot import dcmdask {__version__} or reach {needed.folder.url} "
            f"({type(answer).__name__}: {answer}): install the same version there"
        )
    version, python, process, lacks = answer
    if version != __version__:
        return f"has dcmdask {version}, and here is {__version__}: install the same version there"
    # Functions travel as the byte code of one version of Python.
    if python != sys.version_info[:2]:
        here, there = (".".join(map(str, one)) for one in (sys.version_info[:2], python))
        return f"runs Python {there}, and here is {here}"
    if lacks:
        return str(lacks)
    if needed.needs_nanny and not has_nanny:
        return (
            "has no nanny (dask worker --no-nanny), and a timeout needs workers with a nanny, "
            "which restarts them"
        )
    if process in processes:
        return (
            "is in one process with another, where one series would get in the way of the "
            "other: start them with processes=True"
        )
    processes.add(process)
    return ""


def check_workers(client: Client, needed: Requirements) -> list[str]:
    """Return the addresses of all workers; refuse to begin where one cannot do its work."""
    try:
        client.wait_for_workers(1, timeout=_FIRST)
    except TimeoutError:
        raise ClusterError(
            f"the cluster has no workers, not even after {_FIRST:g} s", code="no-workers"
        ) from None
    deadline = time.monotonic() + _ANSWERS
    while time.monotonic() < deadline:
        asked = list(known_workers(client))
        answers = lacking(client, needed, asked, deadline - time.monotonic())
        for lacks in filter(None, answers.values()):
            raise ClusterError(lacks, code="unfit-worker")
        # A worker that is just being restarted does not answer, and has another address then.
        if asked and set(known_workers(client)) <= answers.keys():
            return list(answers)
        time.sleep(1)
    raise ClusterError(
        f"not all workers of the cluster have answered within {_ANSWERS:g} s", code="no-answer"
    )


class Workers:
    """The workers of a cluster, as they were when last looked at.

    `present` are the addresses of all, and `ready` those that can be given a series: they have
    what is needed, and Dask has not paused them for their memory. `checked` have been found fit.
    """

    def __init__(self, client: Client, needed: Requirements, checked: Sequence[str]) -> None:
        self._client, self._needed = client, needed
        # Answers of new workers; the others do not wait for them.
        self._asked: Future[dict[str, str]] | None = None
        # Answers by address, empty of fit workers.
        self._lacking = dict.fromkeys(checked, "")
        # When workers were paused, or last restarted.
        self._paused: dict[str, float] = {}
        self._looked = self._seen = time.monotonic()
        self.present: set[str] = set()
        self.ready: list[str] = []
        self.look()

    @property
    def seconds(self) -> float:
        """Seconds since the last look."""
        return time.monotonic() - self._looked

    def has(self, address: str) -> bool:
        """Look, and return whether a worker is present."""
        self.look()
        return address in self.present

    def look(self) -> None:
        """Update the workers: check new ones, and restart those that stay paused."""
        info = _known(self._client)
        self._looked = time.monotonic()
        self.present = set(info)
        self._restart_paused(info)
        running = [one for one, facts in info.items() if facts["status"] == "running"]
        self._ask_new(running)
        fit = {one for one, lacks in self._lacking.items() if not lacks}
        self.ready = [one for one in running if one in fit]
        if self.present & fit:
            self._seen = self._looked
        elif self._looked - self._seen > PATIENCE:
            raise ClusterError(
                f"the cluster has had no workers for {PATIENCE:g} s; what is done is kept, and the "
                "same call does the rest",
                code="no-workers",
            )

    def _ask_new(self, running: list[str]) -> None:
        if self._asked is not None and self._asked.done():
            found, self._asked = self._asked.result(), None
            self._lacking |= found
            for lacks in filter(None, found.values()):
                warnings.warn(DcmdaskWarning(f"left out: {lacks}", "unfit-worker"), stacklevel=3)
        new = [one for one in running if one not in self._lacking]
        if new and self._asked is None:
            self._asked = _in_background(lacking, self._client, self._needed, new, _ANSWERS)

    def _restart_paused(self, info: dict[str, Any]) -> None:
        """Restart workers that stay paused while nothing runs there: a series left too much."""
        idle = {
            one
            for one, facts in info.items()
            if facts["status"] == "paused"
            and not facts["metrics"].get("task_counts", {}).get("executing", 0)
        }
        self._paused = {one: self._paused.get(one, self._looked) for one in idle}
        for address, since in self._paused.items():
            if info[address]["nanny"] and self._looked - since > _GRACE:
                self._paused[address] = self._looked
                _in_background(self._restart, address)

    def _restart(self, address: str) -> None:
        self._client.restart_workers([address], timeout=_GRACE, raise_for_error=False)


def _in_background(function: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
    """Call a function in a thread that keeps no process from ending."""
    future: Future[Answer] = Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _known(client: Client) -> dict[str, Any]:
    try:
        return known_workers(client)
    except (AttributeError, OSError, RuntimeError) as error:
        # Without a connection the client has no scheduler.
        raise ClusterError(
            "the scheduler is gone, or its client was closed; what is done is kept, and the same "
            "call does the rest on another cluster",
            code="no-scheduler",
        ) from error
