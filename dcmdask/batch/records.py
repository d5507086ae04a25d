"""Records: one JSON object for each series, written whole once its outputs are there."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from traceback import walk_tb
from typing import Any

from dcmdask.archive.discovery import Skipped
from dcmdask.batch.identity import digest, source_of_files
from dcmdask.errors import DcmdaskError, Note
from dcmdask.sources.folder import Folder

RECORDS = "records"
# The stage of a file that the scan left out.
SCAN = "scan"
# Number of records that are read at once.
_BATCH = 1000
# Fields that describe the results.
_OF_RESULTS = ("numbers", "outputs", "made_by", "made_from", "pending", "times", "checksum")
# Characters of a message and of a traceback that are kept.
_LONGEST = 10_000
# A UID (PS3.5 section 9); ".." is none.
_UID = re.compile(r"(?=.{1,64}\Z)\d+(\.\d+)*")
# Other names of records: a hash, with a number where several series have it.
_HASHED = re.compile(r"(series|file)-[0-9a-f]+(-\d+)?")


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one series, or of a file that the scan could not read.

    Attributes
    ----------
    name : str
        Name of its folder of outputs: the Series Instance UID, or a hash where that is no UID or
        not unique; ``"file-..."`` of a file.
    done : bool
    job, source : str
        Hashes: of the function with its options, and of the files (SOP Instance UID and size).
    script : str
        Name of the job.
    stage : str
        Stage of the failure: ``"scan"``, ``"assemble"``, ``"decode"``, ``"process"``, ``"write"``,
        ``"poison"`` (the worker died) or ``"timeout"``; empty where there is none.
    code : str
        Cause of the failure, by which reports group: the code of an error of dcmdask, of another
        one its type and place, of a file the code of what is wrong with it.
    error, message, traceback : str
        Class, message and traceback of the exception; ``"left out"`` for a file.
    file : str
        The file that caused the failure, if one is known. Paths are relative to the source, or to
        the folder that all its files share.
    frame : int or None
    attempts : int
    seconds : float
        Duration of the last attempt.
    frames, bytes : int
        Number of frames of the series, and of their bytes when decoded.
    notes : list of Note
        Warnings about the data.
    numbers : dict
        Values that the function returned for the table.
    outputs : dict
        Name to path below the target of each other result.
    made_by, made_from : str
        The job and the source that `numbers` and `outputs` are of: its own where it is done;
        those of an earlier run where this one has failed; empty where there are none.
    pending : bool
        Whether the outputs are whole and not all of them in place yet.
    times, checksum : str
        Hashes of the modification times and of the contents of the files.
    files : list of str
        The first and the last of the files.
    """

    name: str
    done: bool
    job: str
    source: str
    stage: str = ""
    code: str = ""
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
    notes: list[Note] = field(default_factory=list)
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

    def is_of(self, job: str, source: str, times: str) -> bool:
        """Return whether the results are of this job and these files, in place or pending.

        Parameters
        ----------
        job, source, times : str
            Hashes of the function with its options, of the files, and of their times.
        """
        return (self.made_by, self.made_from, self.times) == (job, source, times)

    def with_results_of(self, earlier: Record | None) -> Record:
        """Return the record of a failure with the results that an earlier run has left.

        Parameters
        ----------
        earlier : Record or None
        """
        if earlier is None:
            return self
        return replace(self, **{name: getattr(earlier, name) for name in _OF_RESULTS})

    def relative_to(self, root: str) -> Record:
        """Return the record with the paths in its texts relative to a folder.

        Parameters
        ----------
        root : str
        """
        return replace(
            self,
            message=relative(self.message, root),
            traceback=relative(self.traceback, root),
            file=relative(self.file, root),
            files=[relative(name, root) for name in self.files],
            notes=[Note(one.code, relative(one.text, root)) for one in self.notes],
        )

    def write(self, folder: Folder) -> None:
        """Write the record, whole.

        Parameters
        ----------
        folder : Folder
            The target of the job.
        """
        told = {**asdict(self), "notes": [note._asdict() for note in self.notes]}
        folder.write(key_of(self.name), json.dumps(told, indent=1).encode())


def key_of(name: str) -> str:
    """Return the path of the record of a series, below the target."""
    return f"{RECORDS}/{name}.json"


def thumbnail_key(name: str) -> str:
    """Return the path of the thumbnail of a series, below the target: records are private."""
    return f"{RECORDS}/{name}.png"


# Reading


def record_of(folder: Folder, name: str) -> Record | None:
    """Return the record of a series, if there is one."""
    return next(read_records(folder, [name]), None)


def records(folder: Folder) -> dict[str, Record]:
    """Return all records of a target, by name."""
    return {one.name: one for one in read_records(folder)}


def read_records(folder: Folder, names: Iterable[str] | None = None) -> Iterator[Record]:
    """Yield the records of these series, or of all, by name, reading some at a time.

    A file that is no record of this version counts as absent.
    """
    if names is None:
        listed = folder.names(RECORDS)
        names = sorted(name.removesuffix(".json") for name in listed if name.endswith(".json"))
    wanted = list(names)
    for start in range(0, len(wanted), _BATCH):
        keys = map(key_of, wanted[start : start + _BATCH])
        for key, data in folder.read(keys).items():
            record = _parsed(data)
            # One that names another series was put there by hand.
            if record is not None and key == key_of(record.name):
                yield record


def _is_table(value: Any, kind: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(one, kind) and one == one for key, one in value.items()
    )


# Checks of the value of a field, by its annotation.
_VALID: Mapping[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and 0 <= value < 2**63,
    "int | None": lambda value: value is None or type(value) is int,
    # Neither NaN nor infinity.
    "float": lambda value: type(value) in (int, float) and 0 <= value < 2**63,
    "list[str]": lambda value: (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
    ),
    "list[Note]": lambda value: all(isinstance(text, str) for note in value for text in note),
    "dict[str, str]": lambda value: _is_table(value, str),
    "dict[str, Any]": lambda value: _is_table(value, str | int | float | None),
}
_CHECKS = {one.name: _VALID[str(one.type)] for one in fields(Record)}


def _parsed(data: bytes) -> Record | None:
    """Return a record, if its values are of the types, and in the range, that they must be."""
    try:
        told = {name: value for name, value in json.loads(data).items() if name in _CHECKS}
        told["notes"] = [Note(**note) for note in told.get("notes", [])]
        record = Record(**told)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not all(_CHECKS[name](value) for name, value in told.items()):
        return None
    # The name leads to the folder of the outputs, and to no other.
    return record if _UID.fullmatch(record.name) or _HASHED.fullmatch(record.name) else None


# Failures


def failed(
    name: str, stage: str, error: BaseException, job_file: str = "", text: str = "", **more: Any
) -> Record:
    """Return the record of a failure, with `text` as its traceback and `more` fields."""
    frame = getattr(error, "frame", None)
    return Record(
        name=name,
        done=False,
        stage=stage,
        code=cause_of(error, job_file),
        error=type(error).__name__,
        message=_message(error)[:_LONGEST],
        traceback=text[-_LONGEST:],
        file=str(getattr(error, "source", None) or getattr(error, "filename", None) or ""),
        frame=frame if isinstance(frame, int) else None,
        **more,
    )


def cause_of(error: BaseException, job_file: str = "") -> str:
    """Return the code of an exception: its own, or its type and place.

    The place is the innermost one in the script of the job, or else that of the traceback: messages
    differ from series to series.
    """
    if isinstance(error, DcmdaskError):
        return error.code
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [place for place in places if place[0] == job_file]
    where = [f" at {os.path.basename(file)}:{line}" for file, line in (own or places)[-1:]]
    return type(error).__name__ + "".join(where)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # A job's own exception may be unprintable, and is no less a failure.
        return "unprintable message"


def left_out(one: Skipped, root: str, job: str, script: str) -> Record:
    """Return the record of a file that may be part of a series and could not be read."""
    record = Record(
        name=f"file-{digest(os.fsencode(one.path))}",
        done=False,
        job=job,
        script=script,
        source=source_of_files(root),
        stage=SCAN,
        code=one.code,
        error="left out",
        message=one.reason,
        file=one.path,
        files=[one.path],
    )
    return record.relative_to(root)


def relative(text: str, root: str) -> str:
    """Return text with the paths in it relative to a folder."""
    if not root.strip("/"):
        return text
    return re.sub(rf"(?<![\w./\\-]){re.escape(root.rstrip('/'))}/", "", text)


# Names


def names_of(keys: Sequence[tuple[str, ...]], root: str = "") -> list[str]:
    """Return a name for each series, unique and safe in a path.

    The Series Instance UID; where several series share one, or where there is none, a hash of it,
    their study and folder, so that no series gets the name of another that is gone. Folders are
    relative to `root`, since the archive may be moved.

    Parameters
    ----------
    keys : sequence of tuple
        As :meth:`dcmdask.Scan.keys` returns them.
    root : str, optional
    """
    uids = Counter(uid for _, uid, _, _ in keys)
    taken: Counter[str] = Counter()
    found = []
    for *same, folder in keys:
        name = uid = same[1]
        if not _UID.fullmatch(name) or uids[name] > 1:
            told = [uid, *same, relative(f"{folder}/", root)]
            name = f"series-{digest(repr(told).encode())}"
        taken[name] += 1
        found.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return found
