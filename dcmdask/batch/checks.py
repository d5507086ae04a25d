"""Whether the workers of a cluster can do what they are to do, said before they begin."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client
from distributed.comm.core import CommClosedError

from dcmdask import __version__
from dcmdask.batch.folder import Folder
from dcmdask.batch.selection import Selection
from dcmdask.errors import ClusterError, DcmdaskError
from dcmdask.export.running import known_workers
from dcmdask.frames.files import Stored, read

# Looks at workers that go away meanwhile.
_TRIES = 5
# Seconds that a cluster has for its first worker, and workers have for an answer.
_PATIENCE = 30
_ANSWERED = 60
# What the names of the files begin with that workers write to show that they can.
_PROBE = ".dcmdask-worker"
# Functions travel as the byte code of one version of Python.
_PYTHON = sys.version_info[:2]


def _look(folder: Folder, sources: Sequence[Stored], probe: str) -> dict[str, Any]:
    """Return what a worker knows of us, and what it sees of the files; it writes one itself."""
    from dcmdask import __version__ as version

    unseen = {}
    for source in sources:
        try:
            read(source, [0], [1])
        except (OSError, DcmdaskError) as error:
            unseen[source.name] = str(error)
    me = f"{socket.gethostname()} {os.getpid()}"
    key = f"{probe}-{uuid.uuid4().hex}"
    denied = ""
    try:
        folder.write(key, me.encode())
    except OSError as error:
        denied = str(error)
    python = tuple(sys.version_info[:2])
    told = {"version": version, "python": python, "unseen": unseen, "denied": denied}
    return {**told, "process": me, "key": key}


def check_workers(client: Client, chosen: Selection, timeout: float | None) -> None:
    """Refuse to begin where workers cannot do what they are to do.

    Raises
    ------
    ClusterError
        There are none, they do not answer, or one of them lacks something.
    """
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        raise ClusterError(f"the cluster has no workers, not even after {_PATIENCE} s") from None
    for what in unfit(client, chosen, timeout, list(known_workers(client))).values():
        raise ClusterError(what)


def unfit(
    client: Client, chosen: Selection, timeout: float | None, addresses: list[str]
) -> dict[str, str]:
    """Return what workers lack, in words, by address; nothing of those that lack nothing."""
    folder = chosen.job.folder
    # Of this run: another one may ask at the same time.
    probe = f"{_PROBE}-{uuid.uuid4().hex}"
    try:
        told = _answers(client, addresses, folder, chosen.ends, probe)
        seen = [name for name in folder.names("") if name.startswith(probe)]
    finally:
        for name in [name for name in folder.names("") if name.startswith(probe)]:
            folder.remove(name)
    known = known_workers(client)
    found = {}
    processes: set[str] = set()
    for address, answer in told.items():
        what = _lacking(answer, folder)
        if not what and timeout is not None and not known.get(address, {}).get("nanny", True):
            what = (
                "has no nanny (dask worker --no-nanny), and a timeout needs workers with a nanny, "
                "which restarts them"
            )
        if not what and answer["key"] not in seen:
            what = (
                f"writes to {folder.url}, and that is not seen here: the target has to be the "
                "same for all"
            )
        if not what and answer["process"] in processes:
            what = (
                "is in one process with another, where one series would get in the way of the "
                "other: start them with processes=True"
            )
        if what:
            found[address] = f"worker {address} {what}"
        else:
            processes.add(answer["process"])
    return found


def _answers(client: Client, addresses: list[str], *asked: Any) -> dict[str, Any]:
    """Ask workers; one that is just being restarted does not answer the first time."""
    for _ in range(_TRIES):
        told = _within(lambda: client.run(_look, *asked, workers=addresses, on_error="return"))
        if not any(isinstance(one, CommClosedError) for one in told.values()):
            break
        time.sleep(1)
    return told


def _within(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what asking gives, unless that takes too long: one worker may hang."""
    came: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer() -> None:
        try:
            came.put(ask())
        except Exception as error:
            came.put(error)

    threading.Thread(target=answer, daemon=True).start()
    try:
        told = came.get(timeout=_ANSWERED)
    except queue.Empty:
        raise ClusterError(f"a worker does not answer within {_ANSWERED} s") from None
    if isinstance(told, Exception):
        raise ClusterError(f"the workers do not answer: {told}") from told
    return dict(told)


def _lacking(answer: Any, folder: Folder) -> str:
    """Return what a worker lacks by its own answer; empty if nothing."""
    if isinstance(answer, BaseException):
        return (
            f"cannot import dcmdask {__version__} or reach {folder.url} "
            f"({type(answer).__name__}: {answer}): install the same version there"
        )
    if answer["version"] != __version__:
        return (
            f"has dcmdask {answer['version']}, and here is {__version__}: "
            "install the same version there"
        )
    if answer["python"] != _PYTHON:
        here, there = (".".join(map(str, one)) for one in (_PYTHON, answer["python"]))
        return f"runs Python {there}, and here is {here}"
    for name, why in answer["unseen"].items():
        return (
            f"does not see {name} ({why}): the source has to be reachable under the same path "
            "from all workers"
        )
    if answer["denied"]:
        return f"cannot write to {folder.url}: {answer['denied']}"
    return ""
