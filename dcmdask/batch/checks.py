"""Whether the workers of a cluster can do what they are to do, said before they begin."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from distributed import Client
from distributed.comm.core import CommClosedError

from dcmdask import __version__
from dcmdask.batch.selection import Selection
from dcmdask.errors import ClusterError

# Looks at workers that go away meanwhile.
_TRIES = 5
# Seconds that a cluster has for its first worker.
_PATIENCE = 30
# Functions travel as the byte code of one version of Python.
_PYTHON = sys.version_info[:2]


def _look(path: str, files: list[str]) -> dict[str, Any]:
    """Return what a worker knows of us and sees of the files."""
    from dcmdask import __version__ as version

    seen = [name for name in files if "://" not in name and not os.path.exists(name)]
    writable = True
    if "://" not in path:
        os.makedirs(path, exist_ok=True)
        writable = os.access(path, os.W_OK)
    python = tuple(sys.version_info[:2])
    return {"version": version, "python": python, "unseen": seen, "writable": writable}


def _answers(client: Client, path: str, files: list[str]) -> dict[str, Any]:
    """Ask all workers; one that is just being restarted does not answer the first time."""
    for _ in range(_TRIES):
        try:
            told: dict[str, Any] = client.run(_look, path, files, on_error="return")
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
    known = client.scheduler_info(n_workers=-1)["workers"]
    without = [address for address, one in known.items() if not one.get("nanny")]
    if timeout is not None and without:
        raise ClusterError(
            f"a timeout needs workers with a nanny, which restarts them, and {without[0]} has "
            "none (dask worker --no-nanny)"
        )
    folder = chosen.job.folder
    first, last = (chosen.found[chosen.numbers[end]] for end in (0, -1))
    some = [first.instances[0].source.name, last.instances[-1].source.name]
    told = _answers(client, folder.url, some)
    for address, answer in told.items():
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
            raise ClusterError(
                f"worker {address} does not see {answer['unseen'][0]}: the source has to be "
                "reachable under the same path from all workers"
            )
        if not answer["writable"]:
            raise ClusterError(f"worker {address} cannot write to {folder.url}")
