"""Wording and printing of results."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from dcmdask.dicom.conversion import plain

if TYPE_CHECKING:
    from dcmdask.archive.scan import Scan

# As a shell counts the signal.
BROKEN_PIPE = 141
# Number of skipped files that are named where people read; --json names all.
NAMED = 10


def show(text: str) -> None:
    """Print a result; end quietly where nobody reads it any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


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


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns under their heads, for a terminal as wide as that is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[plain(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (heads, *rows)
        )
    shown = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip("\n")


def counted(number: int, noun: str) -> str:
    """Return, say, ``1 frame`` or ``30 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def skipped_files(found: Scan) -> str:
    """Return how many files of a scan were left out and why, and name some, doubtful ones first."""
    counts = Counter(one.code for one in found.skipped)
    reasons = {one.code: one.reason for one in reversed(found.skipped)} | {"copy": "copy"}
    told = ", ".join(f"{count} × {reasons[code]}" for code, count in counts.most_common(NAMED))
    named = sorted(found.skipped, key=lambda one: one.kind != "doubtful")
    lines = [f"skipped {counted(len(found.skipped), 'file')}: {told}"]
    lines += [plain(f"  {one.path}: {one.reason}") for one in named[:NAMED]]
    if len(named) > NAMED:
        lines.append(f"  and {len(named) - NAMED} more; --json names all")
    return "\n".join(lines)
