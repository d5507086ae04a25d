"""Whether the workers of a cluster can do what they are to do, said before they begin."""

from __future__ import annotations

import os
import queue
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from distributed import Client

from dcmdask import __version__
from dcmdask.batch.folder import Folder
from dcmdask.batch.records import RECORDS
from dcmdask.batch.selection import Selection
from dcmdask.dicom.files import Stored, read
from dcmdask.errors import ClusterError, DcmdaskError
from dcmdask.store.scheduler import known_workers

# Seconds that a cluster has for its first worker, and workers have for an answer.
_PATIENCE = 30
_ANSWERED = 60.0
# What the names of the files begin with that workers write to show that they can; then comes
# the time, since those of a driver that was killed stay.
_PROBE = ".worker"
_PROBES = re.compile(rf"{re.escape(_PROBE)}-(\d{{1,12}})-[0-9a-f]{{32}}-[0-9a-f]{{32}}")
# Seconds after which nobody waits for one any more, whatever the clocks say.
_LEFT_BEHIND = 3600
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
        folder.write(f"{RECORDS}/{key}", me.encode())
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
    deadline = time.monotonic() + _ANSWERED
    while time.monotonic() < deadline:
        asked = list(known_workers(client))
        told = lacking(client, chosen, timeout, asked, deadline - time.monotonic())
        for what in filter(None, told.values()):
            raise ClusterError(what)
        # One that is just being restarted does not answer, and has another address then.
        if asked and set(known_workers(client)) <= told.keys():
            return
        time.sleep(1)
    raise ClusterError(f"not all workers of the cluster have answered within {_ANSWERED:g} s")


def lacking(
    client: Client,
    chosen: Selection,
    timeout: float | None,
    addresses: list[str],
    patience: float,
) -> dict[str, str]:
    """Return what workers lack by address, empty where nothing; only of those that answer.

    Parameters
    ----------
    patience : float
        Seconds to wait for answers.
    """
    folder = chosen.job.folder
    # Of this run: another one may ask at the same time.
    probe = f"{_PROBE}-{time.time():.0f}-{uuid.uuid4().hex}"
    try:
        told = _answers(client, addresses, patience, folder, chosen.ends, probe)
        seen = [name for name in folder.names(RECORDS) if name.startswith(probe)]
    finally:
        _remove_probes(folder, probe)
    known = known_workers(client)
    found = {}
    processes: set[str] = set()
    for address, answer in told.items():
        what = _told(answer, folder)
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
        found[address] = f"worker {address} {what}" if what else ""
        if not what:
            processes.add(answer["process"])
    return found


def _remove_probes(folder: Folder, probe: str) -> None:
    """Remove the probes of a run, and those that runs which were killed have left."""
    old = time.time() - _LEFT_BEHIND
    for name in folder.names(RECORDS):
        found = _PROBES.fullmatch(name)
        if found and (name.startswith(probe) or int(found[1]) < old):
            folder.remove([f"{RECORDS}/{name}"])


def _answers(client: Client, addresses: list[str], patience: float, *asked: Any) -> dict[str, Any]:
    """Return the answers of those workers that give one in time: each is asked for itself."""
    came: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def ask(address: str) -> None:
        try:
            told = client.run(_look, *asked, workers=[address], on_error="return")
        except Exception as error:
            told = {address: error}
        came.put((address, told.get(address)))

    for address in addresses:
        threading.Thread(target=ask, args=(address,), daemon=True).start()
    found: dict[str, Any] = {}
    deadline = time.monotonic() + patience
    with suppress(queue.Empty):
        for _ in addresses:
            address, answer = came.get(timeout=max(0.0, deadline - time.monotonic()))
            found[address] = answer
    # To one that went away there was no connection.
    return {one: told for one, told in found.items() if not isinstance(told, OSError | None)}


def _told(answer: Any, folder: Folder) -> str:
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
