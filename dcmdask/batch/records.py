"""Records: one JSON object for each series, written whole once all else is there."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from dcmdask.archive.discovery import Skipped
from dcmdask.archive.grouping import by_series
from dcmdask.archive.series import Series
from dcmdask.batch.folder import Folder
from dcmdask.batch.identity import digest
from dcmdask.batch.source import source_of_files

RECORDS = "records"
# The stage of what the scan left out.
SCAN = "scan"
# Records that are read at a time.
_TOGETHER = 1000
# The fields of a record that describe its results.
_OF_RESULTS = ("numbers", "outputs", "made_by", "made_from", "pending", "times", "checksum")
# At most so much of a traceback and of a message is kept.
_LONGEST = 10_000
# A UID as PS3.5 section 9 has it; ".." is none.
_UID = re.compile(r"(?=.{1,64}\Z)\d+(\.\d+)*")
# What else a record is called: a hash, with a number where several series have it.
_HASHED = re.compile(r"(series|file)-[0-9a-f]+(-\d+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one series, or of a file that the scan could not read.

    Attributes
    ----------
    name : str
        Of its output: the Series Instance UID, or a hash where that is no UID or not unique;
        ``"file-..."`` of a file.
    done : bool
    job, source : str
        Hashes: of the function with its options, and of the files (SOP Instance UID and size).
    script : str
        What the job is called.
    stage : str
        Where it failed: ``"scan"``, ``"assemble"``, ``"decode"``, ``"process"``, ``"write"``,
        ``"poison"`` (the worker died) or ``"timeout"``; empty where it did not.
    error, message, traceback : str
        Of the exception; the error is ``"left out"`` and the message says why, of a file.
    file : str
        The file that it was about, if one is known. Paths are relative to the source, or to the
        folder that all its files share.
    frame : int or None
    attempts : int
    seconds : float
        Of the last attempt.
    frames, bytes : int
        Of the series, decoded.
    notes : list of str
        What was odd about the data, as warnings say it.
    numbers : dict
        What the function returned for the table.
    outputs : dict
        Name to path below the target of what it returned otherwise.
    made_by, made_from : str
        The job and the source that `numbers` and `outputs` are of: its own where it is done;
        those of an earlier run where this one has failed; empty where there are none.
    pending : bool
        Whether the outputs are whole and not all of them in place yet.
    times, checksum : str
        Of the files: hashes of the modification times and of the contents.
    files : list of str
        The first and the last of the files.
    """

    name: str
    done: bool
    job: str
    source: str
    stage: str = ""
    error: str = ""
    message: str = ""
    traceback: str = ""
    file: str = ""
    frame: int | None = None
    attempts: int = 1
    seconds: float = 0.0
    frames: int = 0
    bytes: int = 0
    numbers: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    script: str = ""
    made_by: str = ""
    made_from: str = ""
    pending: bool = False
    times: str = ""
    checksum: str = ""

    @property
    def has_results(self) -> bool:
        """Whether there are results, its own or those of an earlier run."""
        return bool(self.made_by)

    def with_results_of(self, earlier: Record | None) -> Record:
        """Return the record of a failure with the results that an earlier run has left."""
        if earlier is None:
            return self
        return replace(self, **{name: getattr(earlier, name) for name in _OF_RESULTS})

    def restored(self, folder: Folder) -> Record:
        """Return the record of a series that is done with these results after all; write it."""
        record = replace(
            self,
            done=True,
            job=self.made_by,
            source=self.made_from,
            stage="",
            error="",
            message="",
            traceback="",
            file="",
            frame=None,
        )
        record.write(folder)
        return record

    def write(self, folder: Folder) -> None:
        """Write it whole."""
        text = json.dumps(asdict(self), indent=1)
        folder.write(key_of(self.name), text.encode())


def key_of(name: str) -> str:
    """Return where the record of a series is, below the target."""
    return f"{RECORDS}/{name}.json"


def records(folder: Folder, names: Iterable[str] | None = None) -> dict[str, Record]:
    """Return the records that are there, by name; parameters are those of `read_records`."""
    return {one.name: one for one in read_records(folder, names)}


def read_records(folder: Folder, names: Iterable[str] | None = None) -> Iterator[Record]:
    """Yield the records that are there, by name, some at a time.

    What is no record of this version is left out, as if it were not there.

    Parameters
    ----------
    folder : Folder
    names : iterable of str, optional
        Of series; by default of all.
    """
    if names is None:
        listed = folder.names(RECORDS)
        names = sorted(name.removesuffix(".json") for name in listed if name.endswith(".json"))
    wanted = list(names)
    known = {one.name for one in fields(Record)}
    for start in range(0, len(wanted), _TOGETHER):
        some = wanted[start : start + _TOGETHER]
        for key, data in folder.read(map(key_of, some)).items():
            try:
                told = json.loads(data)
                record = Record(**{key: value for key, value in told.items() if key in known})
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
            # One that names another series was put there by hand.
            if _is_valid(record) and key == key_of(record.name):
                yield record


def _is_valid(record: Record) -> bool:
    """Return whether the values are of the types, and in the range, that they are to be."""
    texts: list[Any] = [
        record.name,
        record.job,
        record.source,
        record.stage,
        record.error,
        record.script,
        record.made_by,
        record.made_from,
        record.times,
        record.checksum,
    ]
    texts += [record.message, record.traceback, record.file]
    lists: list[Any] = [record.files, record.notes]
    counts: list[Any] = [record.attempts, record.frames, record.bytes]
    return (
        all(isinstance(one, str) for one in texts)
        # A name leads to the folder of the outputs, and to no other.
        and bool(_UID.fullmatch(record.name) or _HASHED.fullmatch(record.name))
        and all(isinstance(one, list) and all(isinstance(x, str) for x in one) for one in lists)
        and all(type(one) is int and 0 <= one < 2**63 for one in counts)
        and {type(record.done), type(record.pending)} == {bool}
        and (record.frame is None or type(record.frame) is int)
        and type(record.seconds) in (int, float)
        # Also not NaN.
        and 0 <= record.seconds < 2**63
        and _is_table(record.outputs, str)
        and _is_table(record.numbers, str | int | float | None)
    )


def _is_table(value: Any, kind: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(one, kind) and one == one for key, one in value.items()
    )


def failed(name: str, stage: str, error: BaseException, traceback: str, **more: Any) -> Record:
    """Return the record of a failure."""
    frame = getattr(error, "frame", None)
    return Record(
        name=name,
        done=False,
        stage=stage,
        error=type(error).__name__,
        message=_message(error)[:_LONGEST],
        traceback=traceback[-_LONGEST:],
        file=str(getattr(error, "source", None) or getattr(error, "filename", None) or ""),
        frame=frame if isinstance(frame, int) else None,
        **more,
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # Somebody's own exception, and no less a failure.
        return "its message cannot be told"


def relative(record: Record, root: str) -> Record:
    """Return a record whose paths begin below the folder that the source is."""

    def cut(text: str) -> str:
        return told_from(root, text)

    return replace(
        record,
        message=cut(record.message),
        traceback=cut(record.traceback),
        file=cut(record.file),
        files=[cut(name) for name in record.files],
        notes=[cut(note) for note in record.notes],
    )


def told_from(root: str, text: str) -> str:
    """Return text with the paths in it as they are from a folder."""
    if not root.strip("/"):
        return text
    return re.sub(rf"(?<![\w./\\-]){re.escape(root.rstrip('/'))}/", "", text)


def left_out(one: Skipped, root: str, job: str, script: str) -> Record:
    """Return the record of a file that may be part of a series and could not be looked into."""
    record = Record(
        name=f"file-{digest(os.fsencode(one.path))}",
        done=False,
        job=job,
        script=script,
        source=source_of_files(root),
        stage=SCAN,
        error="left out",
        message=one.reason,
        file=one.path,
        files=[one.path],
    )
    return relative(record, root)


# Names and identities


def names_of(series: Iterable[Series], root: str = "") -> list[str]:
    """Return a name for each series, that is unique and safe in a path.

    The Series Instance UID; of series that share one, or have none, a hash of it, their study and
    folder, so that none gets the name of another that has gone. Folders are told from `root`,
    since the archive may be moved.
    """
    series = list(series)
    uids = Counter(one.uid for one in series)
    taken: dict[str, int] = {}
    found = []
    for one in series:
        name = one.uid
        if not _UID.fullmatch(name) or uids[name] > 1:
            told = [one.uid]
            for instance in one.instances[:1]:
                *same, folder = by_series(instance)
                told += [*same, told_from(root, f"{folder}/")]
            name = f"series-{digest(repr(told).encode())}"
        if name in taken:
            taken[name] += 1
            name = f"{name}-{taken[name]}"
        taken[name] = 1
        found.append(name)
    return found


class _Current(Protocol):
    """The results of a record: properties, since none is changed."""

    @property
    def made_by(self) -> str: ...
    @property
    def made_from(self) -> str: ...
    @property
    def pending(self) -> bool: ...
    @property
    def times(self) -> str: ...


def is_current(record: _Current, job: str, source: str, times: str) -> bool:
    """Return whether the results of a series are those of this job and of these files."""
    told = (record.made_by, record.made_from, record.times, record.pending)
    return told == (job, source, times, False)
