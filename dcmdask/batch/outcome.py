"""What became of all series: so far, and in the end."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dcmdask.batch.folder import Folder
from dcmdask.batch.records import Record

if TYPE_CHECKING:
    import pandas as pd

TABLE = "results"
# The column of the table that says which series a row is of.
NAME = "series"


@dataclass(frozen=True)
class BatchReport:
    """What became of the series that were asked for.

    Attributes
    ----------
    target : str
    records : tuple of Record
        One for each series, by name.
    processed : int
        How many of them were processed now, well or not; the others had been done before.
    seconds : float
    """

    target: str
    records: tuple[Record, ...]
    processed: int
    seconds: float

    @property
    def failures(self) -> tuple[Record, ...]:
        """The records of what failed."""
        return tuple(one for one in self.records if not one.done)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def to_frame(self) -> pd.DataFrame:
        """Return the table of results: a row for each series that is done; needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("tables need pandas: pip install 'dcmdask[table]'") from error
        return pd.DataFrame(_rows(self))

    def __str__(self) -> str:
        done = len(self.records) - len(self.failures)
        stages = Counter(one.stage for one in self.failures)
        why = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
        return (
            f"{self.target}: {done} of {len(self.records)} series done; {self.processed} "
            f"processed now in {self.seconds:.1f} s" + (f"; failed: {why}" if why else "")
        )


class Progress(NamedTuple):
    """How far a run has come: for a callback.

    Attributes
    ----------
    total, done, failed, frames, bytes : int
        Series to process, those that are through, those of them that failed; decoded so far.
    running : int
    """

    total: int
    done: int = 0
    failed: int = 0
    frames: int = 0
    bytes: int = 0
    running: int = 0

    def plus(self, record: Record) -> Progress:
        """Return it with one more series that is done or failed."""
        return self._replace(
            done=self.done + 1,
            failed=self.failed + (not record.done),
            frames=self.frames + record.frames,
            bytes=self.bytes + record.bytes,
        )


def _rows(report: BatchReport) -> list[dict[str, Any]]:
    return [{NAME: one.name, **one.numbers} for one in report.records if one.done]


def write_table(report: BatchReport, folder: Folder) -> None:
    """Write the table of results as CSV, and as Parquet where the extra `table` is installed."""
    rows = _rows(report)
    columns = list(dict.fromkeys(key for row in rows for key in row)) or [NAME]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.write(f"{TABLE}.csv", text.getvalue().encode())
    with suppress(ImportError):
        folder.write(f"{TABLE}.parquet", _parquet(report.to_frame()))


def _parquet(frame: pd.DataFrame) -> bytes:
    try:
        return bytes(frame.to_parquet(index=False))
    except (ValueError, TypeError, OverflowError):
        # A column of Parquet has one type, and jobs may give a number here and a word there.
        frame = frame.copy()
        for column in frame.select_dtypes("object").columns:
            frame[column] = frame[column].map(str, na_action="ignore").astype("str")
        return bytes(frame.to_parquet(index=False))
