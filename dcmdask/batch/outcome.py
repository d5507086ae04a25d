"""Outcome of a run: so far, and in the end."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from dcmdask.batch.folder import Folder
from dcmdask.batch.records import SCAN, Record, read_records

if TYPE_CHECKING:
    import pandas as pd

TABLE = "results"
# The columns of the table that say which series a row is of, and which job has made it.
NAME, JOB = COLUMNS = ("series", "job")
# What a cell of a formula begins with, and characters that are none of a text.
_FORMULA = ("=", "+", "-", "@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class BatchReport:
    """Outcome of the series that were asked for.

    Attributes
    ----------
    target : str
    job : str
        A hash of the function and its options, which records have too.
    done : int
        How many series are done, now or before.
    processed : int
        How many were processed now, well or not.
    before : mapping
        How many of all had been ``"done"`` before, had ``"failed"``, have ``"changed"`` since (the
        files, the function or its options), or are ``"new"``.
    failures : tuple of Record
        Of the series that failed, and of the files that the scan left out though they may be
        part of one; by name.
    other : int
        How many series of the target have results of another version or other options of the job.
    noted : int
        How many of those that are done have notes: what was odd about their data.
    seconds : float
    target_options : dict or None
        For the file system of the target.
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
        """The records of this job, read from the target: also of what was not asked for now."""
        found = (
            one
            for one in read_records(Folder(self.target, self.target_options))
            if one.job == self.job
        )
        return tuple(sorted(found, key=lambda one: one.name))

    def to_frame(self) -> pd.DataFrame:
        """Return the table of results: a row for each series that has some; needs pandas."""
        return frame_of(results(Folder(self.target, self.target_options), self.job).columns)

    def __str__(self) -> str:
        stages = Counter(one.stage for one in self.failures)
        left_out = stages.pop(SCAN, 0)
        why = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
        was = {"new": "new", "changed": "changed", "failed": "failed before"}
        told = ", ".join(f"{self.before[k]} {v}" for k, v in was.items() if self.before.get(k))
        return (
            f"{self.target}: {self.done} of {self.done + stages.total()} series done; "
            f"{self.processed} processed now in {self.seconds:.1f} s"
            + (f" ({told})" if told else "")
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
        That the scan has looked into, which comes first.
    total, done, failed, frames, bytes : int
        Series to process, those that are through, those of them that failed; of the others,
        decoded.
    running, waiting : int
        Series that a worker has, and those that are to be tried again: behind an error that may
        pass, a lost worker, or because the worker of another run has them.
    dashboard : str
        The address of Dask's dashboard, once there is one.
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
        """Return it with one more series that is done or failed."""
        return self._replace(
            done=self.done + 1,
            failed=self.failed + (not record.done),
            # How much of what failed was decoded nobody knows.
            frames=self.frames + record.frames * record.done,
            bytes=self.bytes + record.bytes * record.done,
        )


class Results(NamedTuple):
    """Results of a target, from its records.

    Attributes
    ----------
    columns : dict
        Of the table of results: name to cells, in the order of the names of the series.
    other, noted : int
        As `BatchReport` has them.
    """

    columns: dict[str, list[Any]]
    other: int
    noted: int


def results(folder: Folder, job: str, columns: Iterable[str] = ()) -> Results:
    """Read what the records say of the series that have results.

    Parameters
    ----------
    folder : Folder
    job : str
    columns : iterable of str, optional
        Names of columns that the table has in any case.
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
        # As columns at once: many small mappings take several times the memory.
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
            # Where one is absent, floating point would change the others.
            frame[name] = pd.array(cells, dtype=_integers(cells))
    return frame


def need_pandas() -> None:
    """Raise ImportError with what to do where pandas is not installed."""
    if importlib.util.find_spec("pandas") is None:
        raise ImportError("tables need pandas: pip install 'dcmdask[table]'")


def _integers(cells: list[Any]) -> str:
    told = [one for one in cells if one is not None]
    if max(told) < 2**63 and min(told) >= -(2**63):
        return "Int64"
    return "UInt64" if max(told) < 2**64 and min(told) >= 0 else "object"


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
    """Return a cell that no spreadsheet takes for a formula, and no terminal for a command."""
    if not isinstance(cell, str):
        return cell
    cell = _CONTROL.sub(" ", cell)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _parquet(frame: pd.DataFrame) -> bytes:
    try:
        return bytes(frame.to_parquet(index=False))
    except (ValueError, TypeError, OverflowError):
        # A column of Parquet has one type, and jobs may give a number here and a word there.
        frame = frame.copy()
        for column in [one for one in frame.columns if frame[one].dtype.kind == "O"]:
            frame[column] = frame[column].map(str, na_action="ignore").astype("str")
        return bytes(frame.to_parquet(index=False))
