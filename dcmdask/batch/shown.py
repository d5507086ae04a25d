"""How far a run has come: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from dcmdask.batch.outcome import Progress

# Seconds between the lines of a log.
_LINE = 10.0


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """Give what is to be called with each `Progress`."""
    show = _bar if sys.stderr.isatty() else _lines
    dashboard = ""
    # Of the first series, not of the scan.
    started = 0.0

    def tell(now: Progress) -> None:
        nonlocal dashboard, started
        if now.total and not started:
            started = time.monotonic()
        if now.dashboard != dashboard:
            dashboard = now.dashboard
            print(f"dashboard: {dashboard}", file=sys.stderr, flush=True)
        further(now, time.monotonic() - started)

    with show() as further:
        yield tell


@contextmanager
def _bar() -> Iterator[Callable[[Progress, float], None]]:
    bar = RichProgress(
        TextColumn("series"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None)
    with bar:
        yield lambda now, seconds: bar.update(
            task, completed=now.done, total=now.total or None, description=_text(now, seconds)
        )


@contextmanager
def _lines() -> Iterator[Callable[[Progress, float], None]]:
    last = time.monotonic()

    def line(now: Progress, seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last < _LINE:
            return
        last = time.monotonic()
        text = _text(now, seconds)
        if now.total:
            text = f"{now.done} of {now.total} series, {text}"
        if now.done:
            text += f", about {seconds / now.done * (now.total - now.done):.0f} s left"
        print(text, file=sys.stderr, flush=True)

    yield line


def _text(now: Progress, seconds: float) -> str:
    if not now.total:
        return f"{now.files} files looked into"
    speed = now.bytes / max(1e-9, seconds) / 1e6
    text = f"{now.frames} frames, {speed:.1f} MB/s, {now.failed} failed"
    return text + (f", {now.waiting} to be tried again" if now.waiting else "")
