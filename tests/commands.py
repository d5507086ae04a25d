"""The command as a process of its own, forked from one that has imported everything.

To start Python and to import Dask and zarr takes seconds, and a fork milliseconds. What depends
on how the process starts (signals, closed streams, imports) starts one with `subprocess`.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

LATE = ("s3fs", "distributed", "dcmdask.store.writer", "dcmdask.batch")


def run(*arguments: Any, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    """Run ``dcmdask`` with these arguments, in this folder and environment."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        order = {
            "arguments": [str(one) for one in arguments],
            "out": str(out),
            "err": str(err),
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "timeout": timeout,
        }
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        assert code != -signal.SIGALRM, f"{arguments} took more than {timeout} s"
        done = [path.read_text("utf-8") for path in (out, err)]
        return subprocess.CompletedProcess(order["arguments"], code, *done)


@lru_cache(maxsize=1)
def _server() -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    server = subprocess.Popen(
        [sys.executable, "-c", "import commands; commands.serve()"],
        # Threads of a library for linear algebra would not outlive a fork.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """Fork a command for each line of the standard input, and print its exit code."""
    for name in ("dcmdask.cli", *LATE):
        import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _become(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(order: dict[str, Any]) -> None:
    """Run the command in this process, which ends as the command does."""
    from dcmdask.cli import main

    signal.alarm(order["timeout"])
    for number, path in enumerate((os.devnull, order["out"], order["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["dcmdask", *order["arguments"]]
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    # As Python ends, but for taking down all that was imported, which takes the longest.
    threading._shutdown()  # type: ignore[attr-defined]  # private to Python
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)
