"""Summary of the records of a job: numbers, times, and failures by cause."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from dcmdask.batch.records import RECORDS, SCAN, Record
from dcmdask.batch.staging import OUTPUTS
from dcmdask.sources.folder import Folder

_SEPARATOR = re.compile(r"[/\\]")
# The root of a path, of whatever system, or of a URL.
_ROOT = r"(?:\b[a-z][a-z0-9+]{1,20}://|(?<![\w.~<])(?:[A-Za-z]:)?[/\\]{1,2})"
# Folders of a path that begins at the root; in quotes they may hold spaces.
_FOLDERS = re.compile(
    rf"(?<=['\"]){_ROOT}[^'\"\n]*[/\\](?=[^'\"\n/\\]*['\"])"
    rf"|{_ROOT}(?:[^\s/\\'\"<>:]+(?::\d+)?[/\\])+"
)


class Cause(NamedTuple):
    """Cause of failures, or kind of note, with the series that have it.

    Attributes
    ----------
    stage, error, code : str
        As in the records; stage and error of notes are empty.
    text : str
        Message of the first failure, or the first note, as an example.
    records : tuple of Record
        By name; at least one.
    """

    stage: str
    error: str
    code: str
    text: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Summary:
    """Summary of the series of a target.

    Attributes
    ----------
    records : tuple of Record
        By name; at least one. Those of files that the scan left out are among them.
    causes : tuple of Cause
        Failures by stage, error and code; the most frequent first.
    notes : tuple of Cause
        Notes, by code, of series that are done.
    seconds, median : float
        Total and median duration of the last attempts.
    longest : Record
        Record with the longest duration.
    """

    records: tuple[Record, ...]
    causes: tuple[Cause, ...]
    notes: tuple[Cause, ...]
    seconds: float
    median: float
    longest: Record

    @property
    def left_out(self) -> int:
        """Number of files left out by the scan that may be part of a series."""
        return sum(one.stage == SCAN for one in self.records)

    @property
    def series(self) -> int:
        """Number of series."""
        return len(self.records) - self.left_out

    @property
    def done(self) -> int:
        """Number of series that are done."""
        return sum(one.done for one in self.records)

    @property
    def failed(self) -> int:
        """Number of series that failed."""
        return self.series - self.done

    @property
    def frames(self) -> int:
        """Number of frames."""
        return sum(one.frames for one in self.records)

    @property
    def bytes(self) -> int:
        """Number of bytes of the decoded frames."""
        return sum(one.bytes for one in self.records)

    @property
    def retried(self) -> int:
        """Number of series that were tried more than once."""
        return sum(one.attempts > 1 for one in self.records)

    @property
    def jobs(self) -> int:
        """Number of jobs of the records; options and versions of a function count."""
        return len({one.job for one in self.records})


def summarise(records: Iterable[Record]) -> Summary:
    """Add up records; at least one."""
    found = tuple(sorted(records, key=lambda one: one.name))
    failures = [
        (Cause(one.stage, one.error, one.code, one.message, ()), one)
        for one in found
        if not one.done
    ]
    notes = [
        (Cause("", "", note.code, note.text, ()), one)
        for one in found
        if one.done
        for note in one.notes
    ]
    seconds = [one.seconds for one in found if one.stage != SCAN] or [0.0]
    return Summary(
        records=found,
        causes=_grouped(failures),
        notes=_grouped(notes),
        seconds=sum(seconds),
        median=statistics.median(seconds),
        longest=max(found, key=lambda one: one.seconds),
    )


def _grouped(each: Iterable[tuple[Cause, Record]]) -> tuple[Cause, ...]:
    """Return causes with all their records, the most frequent first."""
    groups: dict[tuple[str, str, str], tuple[Cause, dict[str, Record]]] = {}
    for cause, record in each:
        _, members = groups.setdefault(cause[:3], (cause, {}))
        members[record.name] = record
    causes = [cause._replace(records=tuple(some.values())) for cause, some in groups.values()]
    # Stable, so that equally frequent ones are by name of their first series.
    return tuple(sorted(causes, key=lambda cause: -len(cause.records)))


def without_folders(text: str, record: Record, target: Folder) -> str:
    """Return text of a record with paths cut down to names: folders may be named after persons.

    Outputs and records keep their path below the target.

    Examples
    --------
    >>> one = Record("1.2.3.4", False, "", "", file="/a/Doe John/b.dcm")
    >>> without_folders("/a/Doe John/b.dcm is cut, see '/x y/z.py'", one, Folder.of("/t"))
    "b.dcm is cut, see 'z.py'"
    """
    # Known ones first: outside of quotes, only they may hold spaces.
    known = {name.removesuffix(last_part(name)) for name in (record.file, *record.files)}
    for folder in sorted(known, key=len, reverse=True):
        if len(folder) > 1:
            text = re.sub(rf"(?<![\w./\\-]){re.escape(folder)}", "", text)
    for ours in (OUTPUTS, RECORDS):
        text = text.replace(f"{target.url}/{ours}/", f"{ours}/")
    return _FOLDERS.sub("", text)


def last_part(path: str) -> str:
    """Return the last part of a path or URL, of whatever system."""
    return _SEPARATOR.split(path.rstrip("/\\"))[-1]


def duration(seconds: float) -> str:
    """Return a duration as text.

    Examples
    --------
    >>> duration(0.254), duration(725), duration(12000)
    ('0.254 s', '12 min 5 s', '3 h 20 min')
    """
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
