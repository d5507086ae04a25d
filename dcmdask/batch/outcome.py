"""Outcome of a run: its report, its progress and how that is shown, its table of results."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dcmdask.batch.records import SCAN, Record, read_records
from dcmdask.console.output import say
from dcmdask.console.progress import Display
from dcmdask.dicom.conversion import plain
from dcmdask.sources.folder import Folder

if TYPE_CHECKING:
    import pandas as pd

TABLE = "results"
# Columns of the table for the name of the series, and for the job that has made the row.
NAME, JOB = COLUMNS = ("series", "job")
# Beginnings of a formula, and control characters.
_FORMULA = ("=", "+", "-", "@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class BatchReport:
    """Outcome of the series that were asked for.

    Attributes
    ----------
    target : str
    job : str
        Hash of the function and its options, as in records.
    done : int
        Number of series that are done, now or before.
    processed : int
        Number of series that were processed now, also those that failed.
    before : mapping
        Number of series that had been ``"done"`` before, had ``"failed"``, have ``"changed"``
        since (the files, the function or its options), or are ``"new"``.
    failures : tuple of Record
        Records of the series that failed, and of the files that the scan left out though they may
        be part of one; by name.
    other : int
        Number of series of the target with results of another version or other options of the job.
    noted : int
        Number of series of the target that are done and have notes: warnings about their data.
    seconds : float
    target_options : dict or None
        Keyword arguments for the file system of the target.
    """

    target: str
    job: str
    done: int
    processed: int
    before: Mapping[str, int]
    failures: tuple[Record, ...]
    other: int
    noted: int
    seconds: float
    target_options: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was left out."""
        return not self.failures

    @property
    def records(self) -> tuple[Record, ...]:
        """Records of this job, read from the target: also of series not asked for now."""
        found = (
            one
            for one in read_records(Folder(self.target, self.target_options))
            if one.job == self.job
        )
        return tuple(sorted(found, key=lambda one: one.name))

    def to_frame(self) -> pd.DataFrame:
        """Return the table of results, a row for each series that has some; needs pandas."""
        return frame_of(results(Folder(self.target, self.target_options), self.job).columns)

    def __str__(self) -> str:
        stages = Counter(one.stage for one in self.failures)
        left_out = stages.pop(SCAN, 0)
        why = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
        was = {"new": "new", "changed": "changed", "failed": "failed before"}
        states = ", ".join(f"{self.before[k]} {v}" for k, v in was.items() if self.before.get(k))
        return (
            f"{self.target}: {self.done} of {self.done + stages.total()} series done; "
            f"{self.processed} processed now in {self.seconds:.1f} s"
            + (f" ({states})" if states else "")
            + (f"; failed: {why}" if why else "")
            + (f"; files left out: {left_out}" if left_out else "")
            + (f"; with warnings: {self.noted} (dcmdask report says why)" if self.noted else "")
            + (f"; of another version or other options: {self.other}" if self.other else "")
        )


class Progress(NamedTuple):
    """Progress of a run, for a callback.

    Attributes
    ----------
    files : int
        Number of files that the scan has read; it comes first.
    total, done, failed : int
        Number of series to process, of those that have a record, and of those that failed.
    frames, bytes : int
        Decoded, of series that did not fail.
    running, waiting : int
        Number of series that a worker has, and of those that are to be tried again: after an error
        that may pass, after a lost worker, or since a worker of another run has them.
    dashboard : str
        Address of Dask's dashboard, once there is one.
    """

    files: int = 0
    total: int = 0
    done: int = 0
    failed: int = 0
    frames: int = 0
    bytes: int = 0
    running: int = 0
    waiting: int = 0
    dashboard: str = ""

    def plus(self, record: Record) -> Progress:
        """Return the progress with one more series that is done or failed.

        Parameters
        ----------
        record : Record
        """
        return self._replace(
            done=self.done + 1,
            failed=self.failed + (not record.done),
            # The frames that were decoded before a failure are unknown.
            frames=self.frames + record.frames * record.done,
            bytes=self.bytes + record.bytes * record.done,
        )


@contextmanager
def display() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], bool]]]:
    """Show the progress of a run: a bar at a terminal, now and then a line in a log.

    Gives a function that takes each `Progress`, and one that asks at the terminal whether series
    are to be done again.
    """
    shown = Display()
    dashboard = ""
    # Time when the first series began, after the scan.
    started = 0.0

    def show(now: Progress) -> None:
        nonlocal dashboard, started
        if now.total and not started:
            started = time.monotonic()
        if now.dashboard != dashboard:
            dashboard = now.dashboard
            say(f"dashboard: {dashboard}")
        shown.show(_text(now, time.monotonic() - started), now.done, now.total or None)

    def confirmed(message: str) -> bool:
        # The bar would write over the question.
        shown.stop()
        say(plain(f"{message}. Do them again? [y/N]: "), end="")
        # Not by typer, which does not tell Ctrl-C from the end of the input.
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    try:
        yield show, confirmed
    finally:
        shown.stop()


def _text(now: Progress, seconds: float) -> str:
    if not now.total:
        return f"{now.files} files looked into"
    speed = now.bytes / max(1e-9, seconds) / 1e6
    text = f"{now.done} of {now.total} series, {now.frames} frames, {speed:.1f} MB/s"
    text += f", {now.failed} failed"
    if now.waiting:
        text += f", {now.waiting} to be tried again"
    if now.done:
        text += f", about {seconds / now.done * (now.total - now.done):.0f} s left"
    return text


# Table


class Results(NamedTuple):
    """Results of a target, from its records.

    Attributes
    ----------
    columns : dict
        Columns of the table of results: name to cells, in the order of the names of the series.
    other, noted : int
        As in `BatchReport`.
    """

    columns: dict[str, list[Any]]
    other: int
    noted: int


def results(folder: Folder, job: str, columns: Iterable[str] = ()) -> Results:
    """Read the results of all series that have some, from their records.

    The table has `columns` even if no series is done.
    """
    names: list[str] = []
    jobs: list[str] = []
    cells: dict[str, list[Any]] = {one: [] for one in columns}
    other, noted = 0, 0
    for one in read_records(folder):
        if not one.has_results:
            continue
        other += one.made_by != job
        noted += one.done and bool(one.notes)
        # Columns at once: many small mappings take several times the memory.
        for key in one.numbers:
            if key not in cells and key not in COLUMNS:
                cells[key] = [None] * len(names)
        for key, column in cells.items():
            column.append(one.numbers.get(key))
        names.append(one.name)
        jobs.append(sys.intern(one.made_by))
    return Results({NAME: names, **cells, JOB: jobs}, other, noted)


def frame_of(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Return a table as a data frame; needs pandas."""
    need_pandas()
    import pandas as pd

    frame = pd.DataFrame(columns)
    for name, cells in columns.items():
        kinds = {type(one) for one in cells}
        if None in cells and kinds == {int, type(None)}:
            # With an absent value they would become floating point.
            frame[name] = pd.array(cells, dtype=_integers(cells))
    return frame


def need_pandas() -> None:
    """Raise ImportError, with the command that installs pandas, if it is absent."""
    if importlib.util.find_spec("pandas") is None:
        raise ImportError("tables need pandas: pip install 'dcmdask[table]'")


def _integers(cells: list[Any]) -> str:
    known = [one for one in cells if one is not None]
    if max(known) < 2**63 and min(known) >= -(2**63):
        return "Int64"
    return "UInt64" if max(known) < 2**64 and min(known) >= 0 else "object"


def write_table(columns: dict[str, list[Any]], folder: Folder) -> None:
    """Write a table as CSV, and as Parquet where the extra `table` is installed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_harmless, row) for row in zip(*columns.values(), strict=True))
    folder.write(f"{TABLE}.csv", text.getvalue().encode())
    with suppress(ImportError):
        folder.write(f"{TABLE}.parquet", _parquet(frame_of(columns)))


def _harmless(cell: Any) -> Any:
    """Return a cell that is no formula to a spreadsheet, and no command to a terminal."""
    if not isinstance(cell, str):
        return cell
    cell = _CONTROL.sub(" ", cell)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _parquet(frame: pd.DataFrame) -> bytes:
    try:
        return bytes(frame.to_parquet(index=False))
    except (ValueError, TypeError, OverflowError):
        # A column of Parquet has one type, and jobs may return numbers and strings.
        frame = frame.copy()
        for column in [one for one in frame.columns if frame[one].dtype.kind == "O"]:
            frame[column] = frame[column].map(str, na_action="ignore").astype("str")
        return bytes(frame.to_parquet(index=False))
