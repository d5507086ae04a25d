"""Jobs that go wrong, for tests: each says by the number of its series what happens to it."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def number_of(series: Any) -> int:
    return int(series.uid.rpartition(".")[2])


def counted(series: Any, log: str) -> int:
    """Write down that a series is processed, in a way that a SIGKILL does not undo."""
    number = number_of(series)
    with Path(log).open("ab") as file:
        file.write(f"{number}\n".encode())
    return number


def good(series: Any, log: str) -> dict[str, Any]:
    counted(series, log)
    v = series.to_dask()
    return {"peak": v.max(), "sum": v.sum(dtype="u8"), "mip": v.max(axis=0)}


def hostile(series: Any, log: str) -> dict[str, Any]:
    number = counted(series, log)
    if number % 10 == 1:
        raise KeyError("the job's own mistake")
    if number % 10 == 2:
        os._exit(3)
    if number == 3:
        time.sleep(600)
    if number % 10 == 4:
        raise OSError(5, "Input/output error")
    if number % 10 == 5 and Path(log).read_text().split().count(str(number)) < 2:
        raise TimeoutError("it passes the second time")
    if number % 10 == 6:
        return {"peak": object()}
    return good(series, os.devnull)


def greedy(series: Any, log: str) -> dict[str, Any]:
    if counted(series, log) == 1:
        kept = []
        while True:
            kept.append(np.ones(2**24, "u1"))
            time.sleep(0.01)
    return {"peak": series.to_dask().max()}


def slow(series: Any, log: str) -> dict[str, Any]:
    counted(series, log)
    time.sleep(0.2)
    return {"peak": series.to_dask().max(), "mip": series.to_dask().max(axis=0)}


def nothing(series: Any) -> None:
    """Decode nothing."""


def pictured(series: Any) -> dict[str, Any]:
    from dcmdask import batch

    return {"own": batch.Picture(np.eye(4))}
