"""How far the work has come, for somebody who waits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Who waits no longer than this needs no bar.
PATIENCE = 2.0


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
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
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
