"""Exports in processes of their own, which may be killed at any moment.

One process imports everything; each export is a fork of it with a process group of its own,
so that killing one costs nothing. What is counted is counted in files, which a SIGKILL leaves.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import batch_worker
import dask
import pytest
from counting import count_decodings

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# A folder that is made is no change: it holds nothing.
CHANGES = {"os.rename", "os.link", "os.remove", "os.rmdir", "shutil.rmtree"}


class Exporter:
    """A process that forks others, one at a time.

    Parameters
    ----------
    folder : Path
        For what is counted.
    env : mapping
        In addition to the environment.
    """

    def __init__(self, folder: Path, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.decodings, self.answer = folder / "decodings", folder / "answer"
        # Threads of a library for linear algebra would not outlive a fork.
        fixed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": _path(), **env}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import export_worker; export_worker.serve()"],
            env={**os.environ, **fixed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def start(self, src: Any, store: Any, **order: Any) -> int:
        """Fork a process, and return the number of its group; it waits for :meth:`go`."""
        self.answer.unlink(missing_ok=True)
        self.decodings.write_bytes(b"")
        told = {"src": str(src), "store": str(store), "decodings": str(self.decodings), **order}
        self._tell(json.dumps({**told, "answer": str(self.answer)}))
        return int(self._heard())

    def go(self) -> None:
        self._tell("go")

    def ended(self) -> dict[str, Any] | None:
        """Wait for the end, and return what was done; None where the process was killed."""
        status = int(self._heard())
        assert status in (0, -signal.SIGKILL), f"the export ended with {status}"
        return None if status else json.loads(self.answer.read_text())

    def export(self, src: Any, store: Any, **order: Any) -> dict[str, Any] | None:
        self.start(src, store, **order)
        self.go()
        return self.ended()

    @property
    def decoded(self) -> int:
        """How many frames the last export decoded."""
        return self.decodings.stat().st_size

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _path() -> str:
    here = Path(__file__).parent
    return os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])


def serve() -> None:
    """Fork an export for each line of the standard input."""
    # Once, and not in each fork.
    late = ("s3fs", "imagecodecs", "yaozarrs.v05", "xarray", "pandas")
    for name in (*late, "dcmdask.batch", "dcmdask.report.page", "dcmdask.store.writer"):
        import_module(name)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _exported(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _exported(order: dict[str, Any]) -> None:
    """Do one export, tell how it ended, and end this process."""
    os.setsid()
    print(os.getpid(), flush=True)
    assert os.read(0, 3) == b"go\n"
    answer: dict[str, Any] = {}
    try:
        answer = _done(order)
    except Exception as error:
        answer["error"] = [type(error).__name__, str(error)]
    Path(order["answer"]).write_text(json.dumps(answer))
    os._exit(0)


def _done(order: dict[str, Any]) -> dict[str, Any]:
    from dcmdask import to_zarr

    count_decodings(pytest.MonkeyPatch(), into(order["decodings"]))
    watched, number = order.get("watched"), order.get("signal", signal.SIGKILL)
    before = None
    if "copies" in order:
        before = partial(_copied, Path(watched), Path(order["copies"]), Path(order["decodings"]))
    changes = changes_in(watched, order.get("kill_at"), number, before) if watched else None
    if "file_size" in order:
        _limit_files(order["file_size"])
    if "command" in order:
        with dask.config.set(scheduler="threads", num_workers=1):
            return {**batch_worker.done(order), "changes": next(changes) if changes else None}
    with _cluster(order["decodings"]) if order.get("cluster") else _scheduler(order):
        report = to_zarr(order["src"], order["store"], **order["options"])
    return {
        "written": report.written,
        "regions": report.regions,
        "failures": [[list(frame), reason] for frame, reason in report.failures],
        "changes": next(changes) if changes else None,
    }


def into(path: str) -> Callable[[int], None]:
    """A function that counts its calls in a file."""

    def told(frame: int) -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, b".")
        os.close(file)

    return told


def count_here(path: str) -> None:
    """Count what this worker of a cluster decodes."""
    count_decodings(pytest.MonkeyPatch(), into(path))


def changes_in(
    folder: str,
    kill_at: int | None,
    number: int = signal.SIGKILL,
    before: Callable[[int], None] | None = None,
) -> Any:
    """Count what changes files in `folder`; signal the process group just before one of them.

    `before` is called with the number of each, while other threads change nothing.
    """
    counted = itertools.count()
    one_by_one, here = threading.Lock(), threading.local()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if getattr(here, "is_before", False):
            return
        if event == "open":
            changes = isinstance(args[2], int) and args[2] & WRITING
        else:
            changes = event in CHANGES
        if not changes:
            return
        # Below a folder that is removed names are relative to it.
        relative = event in ("os.remove", "os.rmdir") and args[1] != -1
        if not relative and not str(args[0]).startswith(folder):
            return
        with one_by_one:
            change = next(counted)
            if change == kill_at:
                os.killpg(0, number)
            if before is not None:
                here.is_before = True
                before(change)
                here.is_before = False

    sys.addaudithook(watch)
    return counted


def _copied(folder: Path, copies: Path, decodings: Path, change: int) -> None:
    """Copy what a kill before a change would leave, and the count of decodings so far."""
    (copies / str(change)).mkdir(parents=True)
    for path in folder.rglob("*"):
        into = copies / str(change) / path.relative_to(folder)
        # Another thread may be about to rename it.
        with suppress(FileNotFoundError):
            if path.is_dir():
                into.mkdir(parents=True, exist_ok=True)
            else:
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, into)
    (copies / f"{change}.decoded").write_text(str(decodings.stat().st_size))


def _limit_files(size: int) -> None:
    """Let writes fail beyond a size, as they do on a full disk."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _scheduler(order: dict[str, Any]) -> Any:
    scheduler = order.get("scheduler", "threads")
    return dask.config.set(scheduler=scheduler, num_workers=2) if scheduler else nullcontext()


@contextmanager
def _cluster(decodings: str) -> Any:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.run(count_here, decodings)
        yield
