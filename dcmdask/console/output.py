"""Wording and printing of results, and exit codes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import typer

from dcmdask.dicom.conversion import plain
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan

# Exit codes: done with failures or differences; not done; and as a shell counts signals.
FAILURES, NOT_DONE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
# Least width of a column that is cut.
_SHORT = 18
# Number of skipped files that are named where people read; --json names all.
NAMED = 10


def show(text: str) -> None:
    """Print a result; end quietly where nobody reads it any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _close(sys.stdout)
        raise typer.Exit(BROKEN_PIPE) from None


def say(text: str, end: str = "\n") -> None:
    """Print a message to the standard error, if there is one and somebody reads it."""
    # If it is closed, print would take the standard output.
    if sys.stderr is not None:
        try:
            print(text, end=end, file=sys.stderr, flush=True)
        except OSError:
            _close(sys.stderr)


def _close(stream: TextIO) -> None:
    """Let what is left of a stream go nowhere: the interpreter flushes it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a standard stream is there, and is a terminal."""
    return stream is not None and stream.isatty()


def listing(lines: Sequence[tuple[str, str]]) -> str:
    """Return labels and values in two columns, in colour for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [(label, plain(value)) for label, value in lines]
    console = Console(highlight=False)
    if not console.is_terminal:
        width = max(len(label) for label, _ in lines)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in lines)
    table = Table.grid(padding=(0, 2))
    for label, value in lines:
        table.add_row(Text(label, "bold"), Text(value))
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    shortened: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> str:
    """Return rows in columns under their heads, for a terminal as wide as that is.

    Where it is too narrow, columns with `dropped` heads are left out, in this order, before others
    become too short; the `shortened` are cut, one line a row; with none of these, cells are
    wrapped.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = {head: [plain(row[place]) for row in rows] for place, head in enumerate(heads)}
    console = Console(highlight=False)
    widths = {head: max(map(len, (head, *cells))) for head, cells in columns.items()}
    if not console.is_terminal:
        lines = zip(*((head, *cells) for head, cells in columns.items()), strict=True)
        return "\n".join(
            "  ".join(
                f"{cell:<{width}}" for cell, width in zip(line, widths.values(), strict=True)
            ).rstrip()
            for line in lines
        )
    for head in dropped:
        least = [min(n, _SHORT) if name in shortened else n for name, n in widths.items()]
        if sum(least) + 2 * len(least) > console.width:
            del widths[head], columns[head]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    cut = [head in shortened for head in columns]
    for head, may_be_cut in zip(columns, cut, strict=True):
        shown.add_column(head, no_wrap=bool(shortened) and not may_be_cut)
    for cells in zip(*columns.values(), strict=True):
        # A cell that is cut has one line, though its column may become narrower.
        shown.add_row(
            *(
                Text(cell, no_wrap=True, overflow="ellipsis") if may_be_cut else Text(cell)
                for cell, may_be_cut in zip(cells, cut, strict=True)
            )
        )
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip("\n")


def skipped_files(found: Scan) -> str:
    """Return how many files of a scan were left out and why, and name some, doubtful ones first."""
    # Objects without pixels have a reason for each SOP class.
    codes = [one.reason if one.kind == "no pixel data" else one.code for one in found.skipped]
    counts = Counter(codes)
    firsts = zip(reversed(codes), reversed(found.skipped), strict=True)
    reasons = {code: one.reason for code, one in firsts} | {"copy": "copy"}
    listed = ", ".join(f"{count} × {reasons[code]}" for code, count in counts.most_common(NAMED))
    named = sorted(found.skipped, key=lambda one: one.kind != "doubtful")
    lines = [f"skipped {counted(len(found.skipped), 'file')}: {listed}"]
    lines += [plain(f"  {one.path}: {one.reason}") for one in named[:NAMED]]
    if len(named) > NAMED:
        lines.append(f"  and {len(named) - NAMED} more; --json names all")
    return "\n".join(lines)
