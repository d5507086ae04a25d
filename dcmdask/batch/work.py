"""The work on one series, from its headers to its record."""

from __future__ import annotations

import os
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import dask
from distributed.protocol import pickle
from filelock import FileLock, Timeout

from dcmdask.archive.series import Series
from dcmdask.batch.folder import Folder
from dcmdask.batch.records import Record, failed, is_current, key_of, records, relative
from dcmdask.batch.results import keep
from dcmdask.batch.source import checksum_of
from dcmdask.batch.staging import Staging, in_use, settled
from dcmdask.batch.thumbnail import thumbnail, thumbnail_key
from dcmdask.dicom.access import is_of_network
from dcmdask.errors import (
    AlignmentError,
    AmbiguousSourceError,
    DcmdaskError,
    DcmdaskWarning,
    IrregularSeriesError,
    LayoutError,
    SourceChangedError,
    StoreExistsError,
    StoreLostError,
)

# Where an error belongs that was raised by us; the first that fits.
_STAGES: Mapping[type[DcmdaskError], str] = {
    AmbiguousSourceError: "assemble",
    IrregularSeriesError: "assemble",
    StoreExistsError: "write",
    StoreLostError: "write",
    # What a function asked for that cannot be written so.
    AlignmentError: "process",
    LayoutError: "process",
    DcmdaskError: "decode",
}
# What is so the next time as well.
_LASTING = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    SourceChangedError,
)
# A process has one series at a time, whoever asks: warnings and Dask's settings are those of all
# its threads.
_PROCESS = threading.Lock()


@dataclass(frozen=True)
class Job:
    """Parameters of all series of a run; picklable.

    Attributes
    ----------
    process : bytes
        The function, pickled: functions of a script reach workers by value.
    options : mapping
        Keyword arguments for it.
    folder : Folder
    identity : str
        Of the function and its options.
    root : str
        The folder that paths are told from.
    script : str
        What it is called.
    thumbnails : bool
        Whether series that return no picture get one.
    """

    process: bytes
    options: Mapping[str, Any]
    folder: Folder
    identity: str
    root: str = ""
    script: str = ""
    thumbnails: bool = True


@dataclass(frozen=True)
class Work:
    """A series to be processed.

    Attributes
    ----------
    name : str
    series : Series
    source, times : str
        Hashes of its files, as records have them.
    attempts : int
        How often it was tried before.
    """

    name: str
    series: Series
    source: str
    times: str
    attempts: int = 0


class Done(NamedTuple):
    """Result of the work on one series.

    Attributes
    ----------
    record : Record or None
        None where another driver's worker has the series.
    may_pass : bool
        Whether it failed for a reason that may be gone next time.
    """

    record: Record | None
    may_pass: bool


def process_series(job: Job, work: Work, last: bool) -> Done:
    """Process a series in this process, with its threads, and write the record.

    Parameters
    ----------
    last : bool
        Whether a failure is final: then it is written down, whatever it is.
    """
    if not _PROCESS.acquire(blocking=False):
        # Another driver's, or one of a run that was broken off.
        return Done(None, True)
    try:
        with alone_with(job.folder, work.name) as alone:
            return _processed(job, work, last) if alone else Done(None, True)
    finally:
        _PROCESS.release()


def _processed(job: Job, work: Work, last: bool) -> Done:
    there = records(job.folder, [work.name]).get(work.name)
    if there is not None and there.pending:
        # A run died while it put them in place.
        there = settled(job.folder, there)
    staging = Staging(job.folder, work.name, f"{job.identity} {work.source} {work.times}")
    if there is not None and is_current(there, job.identity, work.source, work.times):
        if there.done:
            # Another driver was here first.
            return Done(there, False)
        # Another version of the job has failed since, and these are still there.
        staging.clear()
        return Done(there.restored(job.folder), False)
    started = time.perf_counter()
    common = described(work, job)
    passing, stage = False, "process"
    notes: list[str] = []
    try:
        process = pickle.loads(job.process)
        # Inside a task Dask would take the cluster, and wait for itself.
        with (
            _noted(notes),
            dask.config.set(scheduler="threads", num_workers=threads_of_worker()),
            in_use(staging),
        ):
            staging.clear()
            returned = process(work.series, **job.options)
            stage = "write"
            numbers, outputs = keep(returned, staging)
        record = Record(
            name=work.name,
            done=True,
            numbers=numbers,
            outputs=outputs,
            made_by=job.identity,
            made_from=work.source,
            times=work.times,
            checksum=checksum_of(work.series, threads_of_worker()),
            **common,
        )
        record = _told(record, job, started, notes)
        record = staging.put_in_place(record, there)
    except BaseException as error:
        # Also what would end this process: sys.exit in a function is a failure of its series.
        now = records(job.folder, [work.name]).get(work.name)
        if now is not None and not job.folder.is_local and now.done:
            settling = replace(now, pending=False)
            if is_current(settling, job.identity, work.source, work.times):
                # Another driver's worker puts the same in place, and has removed what was staged.
                now = settled(job.folder, now) if now.pending else now
                staging.discard()
                return Done(now, False)
        passing = may_pass(error)
        record = failed(work.name, _stage(error, stage), error, _traceback(), **common)
        record = _told(record.with_results_of(now), job, started, notes)
        # Another version of the job, which has written since, says what becomes of the series.
        is_late = now is not None and now != there and now.job != job.identity
        if (last or not passing) and not is_late:
            record.write(job.folder)
        if job.folder.is_local and not staging.given and not record.pending:
            # What the job writes itself the next try may go on with; and on an object store
            # another driver's worker may be writing the same.
            staging.discard()
        return Done(record, passing)
    return Done(_illustrated(record, job, work), False)


def _told(record: Record, job: Job, started: float, notes: list[str]) -> Record:
    seconds = round(time.perf_counter() - started, 4)
    return relative(replace(record, seconds=seconds, notes=notes), job.root)


def _traceback() -> str:
    """Return the traceback of what is being handled."""
    try:
        return traceback.format_exc()
    except Exception:
        # An exception may refuse to be told.
        return ""


def _illustrated(record: Record, job: Job, work: Work) -> Record:
    """Write a thumbnail, or into the record why there is none: no result is lost for it."""
    key = thumbnail_key(work.name)
    if not job.thumbnails or any(one.endswith(".png") for one in record.outputs.values()):
        # That of an earlier run shows something else.
        job.folder.remove([key])
        return record
    try:
        with dask.config.set(scheduler="threads", num_workers=threads_of_worker()):
            job.folder.write(key, thumbnail(work.series))
    except Exception as error:
        note = f"no thumbnail: {type(error).__name__}: {error}"
        record = relative(replace(record, notes=[*record.notes, note]), job.root)
        record.write(job.folder)
    return record


@contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    """Keep what is warned of, which nobody would see on a worker."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DcmdaskWarning)
        try:
            yield
        finally:
            told = (str(one.message) for one in caught if issubclass(one.category, DcmdaskWarning))
            notes += dict.fromkeys(told)


def described(work: Work, job: Job) -> dict[str, Any]:
    """Return what a record says of a series, whatever becomes of it."""
    series = work.series
    names = [one.source.name for one in series.instances]
    each = (len(i) * i.rows * i.columns * i.samples * i.bits_allocated for i in series.instances)
    return {
        "job": job.identity,
        "script": job.script,
        "source": work.source,
        "attempts": work.attempts + 1,
        "frames": sum(map(len, series.instances)),
        "bytes": sum(each) // 8,
        "files": names[:1] + names[1:][-1:],
    }


def threads_of_worker() -> int:
    """Return how many threads this worker has for a task."""
    try:
        from distributed import get_worker

        return max(1, int(get_worker().state.nthreads))
    except ValueError:
        return os.cpu_count() or 1


@contextmanager
def alone_with(folder: Folder, name: str) -> Iterator[bool]:
    """Let no other driver's worker process this series meanwhile, where that can be told.

    Yields
    ------
    bool
        Whether none does.
    """
    if not folder.is_local:
        # On an object store both write the same.
        yield True
        return
    path = Path(folder.path(key_of(name))).with_name(f".{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(blocking=False)
    except Timeout:
        yield False
        return
    with held:
        yield True
        # Windows removes no open file.
        with suppress(OSError):
            path.unlink()


def _stage(error: BaseException, stage: str) -> str:
    for kind, name in _STAGES.items():
        if isinstance(error, kind):
            return name
    # What is computed is computed while it is written.
    return "process" if stage == "write" and not isinstance(error, OSError) else stage


def may_pass(error: BaseException) -> bool:
    """Return whether trying again may help: a disk or a network that failed for a moment."""
    if is_of_network(error):
        return True
    return isinstance(error, OSError) and not isinstance(error, _LASTING)
