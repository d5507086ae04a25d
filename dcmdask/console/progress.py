"""Progress of the work: a bar at a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dcmdask.console.output import is_terminal, say

# Seconds of work that need no bar.
PATIENCE = 2.0
# Seconds between two lines of a log.
EVERY = 10.0
# Characters of the bar itself: a terminal may be 80 wide.
_WIDTH = 20


class Display:
    """Progress on the standard error: a bar at a terminal, otherwise now and then a line.

    `columns` are to the right of the bar, and a line begins with `prefix`.
    """

    def __init__(self, *columns: ProgressColumn, prefix: str = "") -> None:
        self._prefix = prefix
        self._started = self._last = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(_WIDTH),
            TimeElapsedColumn(),
            *columns,
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def show(self, text: str, done: int, total: int | None) -> None:
        """Show a text, and the part of the work that is done if the total is known."""
        now = time.monotonic()
        if is_terminal(sys.stderr):
            self._bar.update(self._task, description=text, completed=done, total=total)
            if now - self._started > PATIENCE:
                self._bar.start()
        elif now - self._last >= EVERY:
            self._last = now
            say(f"{self._prefix}{text}")

    def stop(self) -> None:
        """Remove the bar, until something is shown again."""
        # In a log, releases of rich before 14 would print an empty line.
        if is_terminal(sys.stderr):
            self._bar.stop()


@contextmanager
def counting(noun: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the number of things that are done, and the total or None, while the body runs."""
    display = Display(TextColumn("left:"), TimeRemainingColumn(), prefix="dcmdask: ")

    def advance(done: int, total: int | None) -> None:
        of = "" if total is None else f" of {total}"
        display.show(f"{done}{of} {noun}", done, total)

    try:
        yield advance
    finally:
        display.stop()
