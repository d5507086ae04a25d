"""Progress of a run: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TypeAlias

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
from dcmdask.dicom.conversion import plain

# Seconds between the lines of a log.
_LINE = 10.0


@contextmanager
def shown() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], bool]]]:
    """Give what is to be called with each `Progress`, and what asks whether to go on."""
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

    with show() as (further, paused):
        yield tell, partial(_confirmed, paused)


def _confirmed(paused: Callable[[], AbstractContextManager[None]], message: str) -> bool:
    with paused():
        print(plain(f"{message}. Do them again? [y/N]: "), end="", file=sys.stderr, flush=True)
        # Not with typer's function, to which Ctrl-C and the end of the input are one thing.
        return sys.stdin.readline().strip().lower() in ("y", "yes")


_Shown: TypeAlias = tuple[
    Callable[[Progress, float], None], Callable[[], AbstractContextManager[None]]
]


@contextmanager
def _bar() -> Iterator[_Shown]:
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

    def further(now: Progress, seconds: float) -> None:
        bar.update(
            task, completed=now.done, total=now.total or None, description=_text(now, seconds)
        )

    @contextmanager
    def paused() -> Iterator[None]:
        # It holds back what has no end of line, and writes over it.
        bar.stop()
        yield
        bar.start()

    with bar:
        yield further, paused


@contextmanager
def _lines() -> Iterator[_Shown]:
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

    yield line, nullcontext


def _text(now: Progress, seconds: float) -> str:
    if not now.total:
        return f"{now.files} files looked into"
    speed = now.bytes / max(1e-9, seconds) / 1e6
    text = f"{now.frames} frames, {speed:.1f} MB/s, {now.failed} failed"
    return text + (f", {now.waiting} to be tried again" if now.waiting else "")
