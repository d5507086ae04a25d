"""Progress of the work: a bar at a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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

# Seconds of work that need no bar.
PATIENCE = 2.0
# Seconds between two lines of a log.
EVERY = 10.0


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a count of things that are gone through: where there is no terminal, by lines.

    Yields
    ------
    callable or None
        To be called with how many are done, and how many there are if that is known. None
        where there is no standard error.
    """
    if sys.stderr is None:
        yield None
        return
    if not sys.stderr.isatty():
        yield _logged(what)
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


def _logged(what: str) -> Callable[[int, int | None], None]:
    """Return what prints a line to the standard error, if the last one was some time ago."""
    last = time.monotonic()

    def advance(done: int, known: int | None) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= EVERY:
            last = now
            of = "" if known is None else f" of {known}"
            # The reader may have gone.
            with suppress(OSError):
                print(f"dcmdask: {done}{of} {what}", file=sys.stderr, flush=True)

    return advance
