"""How far Dask has come, for somebody who waits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import Progress

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
