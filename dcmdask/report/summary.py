"""Summary of the records of a job: numbers, times, and failures by cause."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from dcmdask.batch.folder import Folder
from dcmdask.batch.records import RECORDS, SCAN, Record
from dcmdask.batch.staging import OUTPUTS

# Causes that differ only behind this are one.
_LONGEST = 300
# So much of a message is looked at.
_READ = 10_000
_SEPARATOR = re.compile(r"[/\\]")
# What begins at the root, of a disk or of a URL, up to its last folder; in quotes it may
# hold spaces.
_ROOT = r"(?:\b[a-z][a-z0-9+]{1,20}://|(?<![\w.~<])(?:[A-Za-z]:)?[/\\]{1,2})"
_QUOTED_FOLDERS = re.compile(rf"(?<=['\"]){_ROOT}[^'\"\n]*[/\\](?=[^'\"\n/\\]*['\"])")
_FOLDERS = re.compile(rf"{_ROOT}(?:[^\s/\\'\"<>:]+(?::\d+)?[/\\])+")
_BEFORE = r"(?<![\w./\\-])"
_NAME = r"[^\s/\\'\"<>:,;()]*"
# An address of the internet has fewer parts.
_UID = re.compile(r"(?<![\w.])\d+(?:\.\d+){4,}")
_TAG = re.compile(r"(\([0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\))")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")
# Not the 16 of int16, which tells one cause from another.
_NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?<![A-Za-z_\d])\d+(?:\.\d+)*(?:[eE][-+]?\d+)?(?:x\d+)*")
# However many there are, and with a unit.
_NUMBERS = re.compile(r"\bN((?: [a-z]{1,3})?)(?:(?:, ?| and |, and )N\1\b)+")


class Cause(NamedTuple):
    """Why one series or more failed, or what was odd about them.

    Attributes
    ----------
    stage, error : str
        As the records have them; empty of what was odd.
    message : str
        Theirs, of one line, with ``FILE``, ``SERIES``, ``UID`` and ``N`` for what differs.
    records : tuple of Record
        Of what it is about, by name; at least one.
    """

    stage: str
    error: str
    message: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Summary:
    """Summary of the series of a target.

    Attributes
    ----------
    records : tuple of Record
        By name; at least one. Those of files that the scan left out are among them.
    causes : tuple of Cause
        Each failed record is in one of them; the most frequent first.
    odd : tuple of Cause
        Notes of series that are done, alike.
    seconds, median : float
        Of all last attempts together, and of one.
    longest : Record
        That took longest.
    """

    records: tuple[Record, ...]
    causes: tuple[Cause, ...]
    odd: tuple[Cause, ...]
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
        """Number of jobs that the records are of; options and versions of a function count."""
        return len({one.job for one in self.records})


def summarise(records: Iterable[Record]) -> Summary:
    """Add up records; at least one.

    Raises
    ------
    ValueError
        There is none.
    """
    told = tuple(sorted(records, key=lambda one: one.name))
    if not told:
        raise ValueError("there is no record to add up")
    causes: dict[tuple[str, str, str], list[Record]] = {}
    odd: dict[tuple[str, str, str], list[Record]] = {}
    for one in told:
        if not one.done:
            causes.setdefault((one.stage, one.error, generalised(one.message, one)), []).append(one)
            continue
        for note in dict.fromkeys(generalised(note, one) for note in one.notes):
            odd.setdefault(("", "", note), []).append(one)
    seconds = [one.seconds for one in told if one.stage != SCAN] or [0.0]
    return Summary(
        records=told,
        causes=_by_frequency(causes),
        odd=_by_frequency(odd),
        seconds=sum(seconds),
        median=statistics.median(seconds),
        longest=max(told, key=lambda one: one.seconds),
    )


def _by_frequency(groups: dict[tuple[str, str, str], list[Record]]) -> tuple[Cause, ...]:
    causes = [Cause(*key, tuple(members)) for key, members in groups.items()]
    # Stable, so that equally frequent ones are by name of their first series.
    return tuple(sorted(causes, key=lambda cause: -len(cause.records)))


def generalised(message: str, record: Record) -> str:
    """Return a message of a record without what differs from series to series.

    Examples
    --------
    >>> one = Record("1.2.3.4", False, "", "")
    >>> generalised("/a/b.dcm: frame 3: 10 bytes, not 2.5e3", one)
    'FILE: frame N: N bytes, not N'
    """
    text = " ".join(message[:_READ].split())
    for name in _known(record):
        text = _whole(name).sub("FILE", text)
        if folder := _folder(name):
            text = re.sub(f"{_BEFORE}{re.escape(folder)}{_NAME}", "FILE", text)
    text = re.sub(f"{_QUOTED_FOLDERS.pattern}[^'\"]*", "FILE", text)
    text = re.sub(f"{_FOLDERS.pattern}{_NAME}", "FILE", text)
    text = _whole(record.name).sub("SERIES", text)
    # Between tags, which tell one cause from another.
    parts = _TAG.split(text)
    parts[::2] = [_without_numbers(part) for part in parts[::2]]
    return "".join(parts)[:_LONGEST]


def _without_numbers(text: str) -> str:
    for pattern, word in ((_UID, "UID"), (_ADDRESS, "N"), (_NUMBER, "N"), (_NUMBERS, r"N\1, ...")):
        text = pattern.sub(word, text)
    return text


def without_folders(text: str, record: Record, target: Folder) -> str:
    """Return text of a record with paths cut down to names: folders may be named after persons.

    Outputs and records keep their path below the target.

    Examples
    --------
    >>> one = Record("1.2.3.4", False, "", "", file="/a/Doe John/b.dcm")
    >>> without_folders("/a/Doe John/b.dcm is cut, see '/x y/z.py'", one, Folder.of("/t"))
    "b.dcm is cut, see 'z.py'"
    """
    for name in _known(record):
        text = _whole(name).sub(last_part(name), text)
        if folder := _folder(name):
            text = re.sub(f"{_BEFORE}{re.escape(folder)}", "", text)
    for ours in (OUTPUTS, RECORDS):
        text = text.replace(f"{target.url}/{ours}/", f"{ours}/")
    return _FOLDERS.sub("", _QUOTED_FOLDERS.sub("", text))


def last_part(path: str) -> str:
    """Return the last part of a path or URL, of whatever system it is."""
    return _SEPARATOR.split(path.rstrip("/\\"))[-1]


def _known(record: Record) -> list[str]:
    """Return the files that a record names, longest first; a number says nothing of a file."""
    names = {name for name in (record.file, *record.files) if re.search(r"[^\d.]", name)}
    return sorted(names, key=len, reverse=True)


def _whole(name: str) -> re.Pattern[str]:
    """Return what finds a name, and not a part of a longer one."""
    return re.compile(rf"{_BEFORE}{re.escape(name)}(?![\w-]|\.\w)")


def _folder(path: str) -> str:
    """Return what is before the last part, with the separator; nothing if that is the root."""
    folder = path.rstrip("/\\").removesuffix(last_part(path))
    return folder if len(folder) > 1 else ""


def duration(seconds: float) -> str:
    """Return a time in words: ``0.254 s``, ``12 min 5 s``, ``3 h 20 min``.

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
