"""How far the work has come, for somebody who waits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# Who waits no longer than this needs no bar.
PATIENCE = 2.0


@contextmanager
def progress() -> Iterator[None]:
    """Show a bar for what Dask computes inside, if there is a terminal for it."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("writing")
    started = time.monotonic()

    def count(dsk: Any, state: Mapping[str, Any]) -> None:
        bar.update(task, total=sum(len(state[kind]) for kind in ("ready", "waiting", "running")))

    def advance(*_: Any) -> None:
        bar.advance(task)
        if time.monotonic() - started > PATIENCE:
            bar.start()

    try:
        with Callback(start_state=count, posttask=advance):
            yield
    finally:
        bar.stop()


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a count of things that are gone through, if there is a terminal for it.

    Yields
    ------
    callable or None
        To be called with how many are done, and how many there are if that is known.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None)
    started = time.monotonic()

    def advance(done: int, known: int | None) -> None:
        bar.update(task, completed=done, total=known)
        if time.monotonic() - started > PATIENCE:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
