"""What became of all series: so far, and in the end."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dcmdask.batch.folder import Folder
from dcmdask.batch.records import Record

if TYPE_CHECKING:
    import pandas as pd

TABLE = "results"


@dataclass(frozen=True)
class BatchReport:
    """What became of the series of a source.

    Attributes
    ----------
    target : str
    records : tuple of Record
        One for each series of the source, by name.
    processed : int
        How many of them were processed now; the others had been before, or were left out.
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
        rows = [{"series": one.name, **one.numbers} for one in self.records if one.done]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        done = len(self.records) - len(self.failures)
        stages = Counter(one.stage for one in self.failures)
        why = ", ".join(f"{count} {stage}" for stage, count in stages.most_common())
        return (
            f"{self.target}: {done} of {len(self.records)} series done, {self.processed} of them "
            f"processed now in {self.seconds:.1f} s" + (f"; failed: {why}" if why else "")
        )


class Progress(NamedTuple):
    """How far a run has come: for a callback.

    Attributes
    ----------
    total, done, failed, frames, bytes : int
        Series to process, those that are done, those that failed; decoded so far.
    running : int
    """

    total: int
    done: int
    failed: int
    frames: int
    bytes: int
    running: int


@dataclass
class Tally:
    """What is done so far, added up."""

    total: int
    done: int = 0
    failed: int = 0
    frames: int = 0
    bytes: int = 0

    def add(self, record: Record) -> None:
        """Count a series that is done or failed."""
        self.done += 1
        self.failed += not record.done
        self.frames += record.frames
        self.bytes += record.bytes

    def now(self, running: int) -> Progress:
        """Return how far it has come, with so many series under way."""
        return Progress(self.total, self.done, self.failed, self.frames, self.bytes, running)


def write_table(report: BatchReport, folder: Folder) -> None:
    """Write the table of results as CSV, and as Parquet where the extra `table` is installed."""
    rows = [{"series": one.name, **one.numbers} for one in report.records if one.done]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["series"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.write(f"{TABLE}.csv", text.getvalue().encode())
    with suppress(ImportError):
        folder.write(f"{TABLE}.parquet", report.to_frame().to_parquet(index=False))
