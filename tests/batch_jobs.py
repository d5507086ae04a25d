"""Jobs that go wrong, for tests: each says by the number of its series what happens to it."""

import io
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def without_job(table: bytes) -> bytes:
    """The table of results without the column that says which job made a row."""
    return pd.read_csv(io.BytesIO(table)).drop(columns="job").to_csv().encode()


def found_from(folder: str) -> None:
    """Have this process find the modules of a folder."""
    sys.path.insert(0, folder)


def number_of(series: Any) -> int:
    return int(series.uid.rpartition(".")[2])


def counted(series: Any, log: str) -> int:
    """Write down that a series is processed, in a way that a SIGKILL does not undo."""
    number = number_of(series)
    with Path(log).open("ab") as file:
        file.write(f"{number}\n".encode())
    return number


def processed(log: str | Path) -> Counter[int]:
    """How often each series has been processed, as `counted` wrote it down."""
    return Counter(map(int, Path(log).read_text().split()))


def good(series: Any, log: str) -> dict[str, Any]:
    counted(series, log)
    v = series.to_dask()
    return {"peak": v.max(), "sum": v.sum(dtype="u8"), "mip": v.max(axis=0)}


def hostile(series: Any, log: str) -> dict[str, Any]:
    number = counted(series, log)
    if number == 1:
        raise KeyError("the job's own mistake")
    if number == 2:
        os._exit(3)
    if number == 3:
        time.sleep(600)
    if number == 4:
        raise OSError(5, "Input/output error")
    if number == 5 and Path(log).read_text().split().count(str(number)) < 2:
        raise TimeoutError("it passes the second time")
    if number == 6:
        return {"peak": object()}
    return good(series, os.devnull)


def greedy(series: Any, log: str) -> dict[str, Any]:
    if counted(series, log) == 1:
        kept = []
        while True:
            kept.append(np.ones(2**24, "u1"))
            time.sleep(0.01)
    return {"peak": series.to_dask().max()}


# Series whose worker is killed at the first try.
KILLED = (2, 5, 8)


def killed_once(series: Any, log: str) -> dict[str, Any]:
    """Kill this process at some series, when each is processed for the first time."""
    number = counted(series, log)
    if number in KILLED and processed(log)[number] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return good(series, os.devnull)


def all_killed_once(series: Any, log: str) -> dict[str, Any]:
    """Kill the driver and all of its workers at a series, when it is processed first."""
    number = counted(series, log)
    if number == KILLED[-1] and processed(log)[number] == 1:
        os.killpg(0, signal.SIGKILL)
    return good(series, os.devnull)


def nothing(series: Any) -> None:
    """Decode nothing."""


def pictured(series: Any) -> dict[str, Any]:
    from dcmdask import batch

    return {"own": batch.Picture(np.eye(4))}


class Unusual(BaseException):
    """What is caught by nobody who catches exceptions."""


class Mute(Exception):
    """One that cannot be told."""

    def __str__(self) -> str:
        raise self


def ending(series: Any) -> dict[str, Any]:
    number = number_of(series)
    if number == 0:
        sys.exit("the job's own words")
    kinds = {1: KeyboardInterrupt, 2: Unusual, 3: GeneratorExit, 4: Mute}
    if number in kinds:
        raise kinds[number]
    return {"n": number}


def dying(series: Any) -> dict[str, Any]:
    """End the process a moment later."""
    number = number_of(series)
    threading.Timer(number * 0.003, os._exit, [1]).start()
    return {"n": number}


def dying_once(series: Any, mark: str) -> dict[str, Any]:
    """End the process at the first series that is processed."""
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(3)
    return {"n": number_of(series)}


LEFT: list[Any] = []


def leaking(series: Any) -> dict[str, Any]:
    """Leave more behind than a worker may have, and less than it is killed for."""
    if number_of(series) == 0:
        import psutil

        # Dask pauses it at 80 % and kills it at 95 %.
        while psutil.Process().memory_info().rss < 0.86 * 400 * 2**20:
            LEFT.append(np.ones(2**21, "u1"))
        time.sleep(3)
    return {"n": number_of(series)}


def napping(series: Any) -> dict[str, Any]:
    time.sleep(0.05)
    return {"n": number_of(series)}


def breaking(series: Any, broken: bool) -> dict[str, Any]:
    if broken and number_of(series) == 3:
        raise KeyError("a mistake")
    return {"n": number_of(series)}


def met(series: Any, log: str) -> dict[str, Any]:
    """Do as `good` once the workers of two drivers are at it."""
    met_here = Path(f"{log}.drivers")
    (met_here / os.environ["DRIVER"]).touch()
    deadline = time.monotonic() + 100
    while len(list(met_here.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise RuntimeError("the other driver has not come")
        time.sleep(0.01)
    return good(series, log)


def spoiled(series: Any, log: str, ways: str) -> dict[str, Any]:
    """Go wrong with some series, as a file says: a JSON object of numbers and ways."""
    number = counted(series, log)
    told = json.loads(Path(ways).read_text())
    way = told.get(str(number))
    if way == "raise":
        raise KeyError("the job's own mistake")
    if way == "end":
        os._exit(3)
    if way == "leave":
        sys.exit("the job has left")
    if way == "hang":
        time.sleep(600)
    while way == "wait" and not Path(told["until"]).exists():
        time.sleep(0.05)
    if way == "hoard":
        kept = []
        while True:
            kept.append(np.ones(2**24, "u1"))
            time.sleep(0.01)
    return good(series, os.devnull)
