"""Whether the workers of a cluster can do what they are to do, said before they begin."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections import Counter
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
# Seconds that a cluster has for its first worker.
_PATIENCE = 30
# What the names of the files begin with that workers write to show that they can.
_PROBE = ".dcmdask-worker"
# Functions travel as the byte code of one version of Python.
_PYTHON = sys.version_info[:2]


def _look(folder: Folder, sources: list[Stored], probe: str) -> dict[str, Any]:
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


def _answers(client: Client, *asked: Any) -> dict[str, Any]:
    """Ask all workers; one that is just being restarted does not answer the first time."""
    for _ in range(_TRIES):
        try:
            told: dict[str, Any] = client.run(_look, *asked, on_error="return")
        except Exception as error:
            raise ClusterError(f"the workers do not answer: {error}") from error
        if not any(isinstance(one, CommClosedError) for one in told.values()):
            break
        time.sleep(1)
    return told


def check_workers(client: Client, chosen: Selection, timeout: float | None) -> None:
    """Refuse to begin where workers cannot do what they are to do."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        raise ClusterError(f"the cluster has no workers, not even after {_PATIENCE} s") from None
    known = known_workers(client)
    without = [address for address, one in known.items() if not one.get("nanny")]
    if timeout is not None and without:
        raise ClusterError(
            f"a timeout needs workers with a nanny, which restarts them, and {without[0]} has "
            "none (dask worker --no-nanny)"
        )
    folder = chosen.job.folder
    first, last = (chosen.found[chosen.numbers[end]] for end in (0, -1))
    some = [first.instances[0].source, last.instances[-1].source]
    # Of this run: another one may ask at the same time.
    probe = f"{_PROBE}-{uuid.uuid4().hex}"
    try:
        told = _answers(client, folder, some, probe)
        for address, answer in told.items():
            _check(address, answer, folder)
    finally:
        seen = [name for name in folder.names("") if name.startswith(probe)]
        for name in seen:
            folder.remove(name)
    for address, answer in told.items():
        if answer["key"] not in seen:
            raise ClusterError(
                f"worker {address} writes to {folder.url}, and that is not seen here: the target "
                "has to be the same for all"
            )
    alike = Counter(answer["process"] for answer in told.values())
    if alike and max(alike.values()) > 1:
        raise ClusterError(
            "workers share a process, where a series would get in the way of another: start them "
            "with processes=True"
        )


def _check(address: str, answer: Any, folder: Folder) -> None:
    """Refuse a worker that cannot do what it is to do."""
    if isinstance(answer, BaseException):
        raise ClusterError(
            f"worker {address} cannot import dcmdask {__version__} or reach {folder.url} "
            f"({type(answer).__name__}: {answer}): install the same version there"
        )
    if answer["version"] != __version__:
        raise ClusterError(
            f"worker {address} has dcmdask {answer['version']}, and here is {__version__}: "
            "install the same version there"
        )
    if answer["python"] != _PYTHON:
        here, there = (".".join(map(str, one)) for one in (_PYTHON, answer["python"]))
        raise ClusterError(f"worker {address} runs Python {there}, and here is {here}")
    if answer["unseen"]:
        name, why = next(iter(answer["unseen"].items()))
        raise ClusterError(
            f"worker {address} does not see {name} ({why}): the source has to be reachable under "
            "the same path from all workers"
        )
    if answer["denied"]:
        raise ClusterError(f"worker {address} cannot write to {folder.url}: {answer['denied']}")
