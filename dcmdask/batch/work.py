"""The work on one series in a worker process, from its headers to its record."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask
from distributed import get_worker
from distributed.protocol import pickle

from dcmdask.archive.series import Series
from dcmdask.batch.identity import checksum_of, file_of
from dcmdask.batch.outputs import in_use
from dcmdask.batch.records import Record, cause_of, failed, key_of, record_of, thumbnail_key
from dcmdask.batch.results import keep, thumbnail
from dcmdask.batch.staging import Staging, settled
from dcmdask.errors import (
    AlignmentError,
    AmbiguousSourceError,
    DcmdaskError,
    DcmdaskWarning,
    IrregularSeriesError,
    LayoutError,
    Note,
    SourceChangedError,
    StoreExistsError,
    StoreLostError,
)
from dcmdask.sources.access import is_of_network
from dcmdask.sources.folder import Folder

# Stage of an error of dcmdask; the first class that fits.
_STAGES: Mapping[type[DcmdaskError], str] = {
    AmbiguousSourceError: "assemble",
    IrregularSeriesError: "assemble",
    StoreExistsError: "write",
    StoreLostError: "write",
    # The function asked for chunks or a layout that cannot be written.
    AlignmentError: "process",
    LayoutError: "process",
    DcmdaskError: "decode",
}
# Errors of input or output that the next try would meet again.
_LASTING = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    SourceChangedError,
    StoreLostError,
)
# A process has one series at a time, whoever asks: warnings, settings of Dask and the watchdog
# belong to the process.
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
        The target.
    identity : str
        Hash of the function and its options.
    root : str
        Folder that paths in records are relative to.
    script : str
        Name of the job.
    thumbnails : bool
        Whether series that return no picture get one.
    retries : int
        Number of further tries after a failure that may pass.
    timeout : float or None
        Seconds for one series.
    """

    process: bytes
    options: Mapping[str, Any]
    folder: Folder
    identity: str
    root: str = ""
    script: str = ""
    thumbnails: bool = True
    retries: int = 0
    timeout: float | None = None


@dataclass(frozen=True)
class Work:
    """A series to be processed.

    Attributes
    ----------
    name : str
    series : Series
    source, times : str
        Hashes of its files, as in its record.
    attempts : int
        Number of earlier tries.
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


def process_series(job: Job, work: Work) -> Done:
    """Process a series in this process, with its threads, and write the record.

    A failure that may pass is written down at the last try only.
    """
    if not _PROCESS.acquire(blocking=False):
        # Another driver's worker, or one of a run that was broken off.
        return Done(None, True)
    try:
        with job.folder.lease(key_of(work.name)) as held, _ended_after(job.timeout):
            return _processed(job, work) if held else Done(None, True)
    finally:
        _PROCESS.release()


@contextmanager
def _ended_after(seconds: float | None) -> Iterator[None]:
    """End this process if the body takes longer, whatever its threads do.

    The watchdog of `faulthandler` is no Python thread: it also ends a codec that never returns.
    """
    if seconds is None:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _processed(job: Job, work: Work) -> Done:
    there = record_of(job.folder, work.name)
    if there is not None:
        # A run may have died while it put outputs in place.
        there = settled(job.folder, there)
        if there.done and there.is_of(job.identity, work.source, work.times):
            # Another driver was first.
            return Done(there, False)
    staging = Staging(job.folder, work.name, f"{job.identity} {work.source} {work.times}")
    started = time.perf_counter()
    stage, job_file = "process", ""
    notes: list[Note] = []

    def finished(record: Record) -> Record:
        seconds = round(time.perf_counter() - started, 4)
        return replace(record, seconds=seconds, notes=notes).relative_to(job.root)

    try:
        process = pickle.loads(job.process)
        job_file = file_of(process)
        with _noted(notes), _on_threads(), in_use(staging):
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
            **described(work, job),
        )
        record = staging.put_in_place(finished(record), there)
    except BaseException as error:
        # A function that calls sys.exit fails as well, and ends no worker.
        now = record_of(job.folder, work.name)
        if now and now.done and now.is_of(job.identity, work.source, work.times):
            # Another driver's worker puts the same in place, and has removed what was staged.
            now = settled(job.folder, now)
            staging.discard()
            return Done(now, False)
        passing, stage = may_pass(error), _stage(error, stage)
        record = failed(work.name, stage, error, job_file, _traceback(), **described(work, job))
        record = finished(record.with_results_of(now))
        # Another version of the job that has written since decides what becomes of the series.
        is_late = now is not None and now != there and now.job != job.identity
        if not is_late and (not passing or work.attempts >= job.retries):
            record.write(job.folder)
        if job.folder.is_local and not staging.given and not record.pending:
            # The next try can resume outputs that the job writes itself; and on an object store
            # another driver's worker may be writing the same.
            staging.discard()
        return Done(record, passing)
    return Done(_illustrated(record, job, work), False)


@contextmanager
def _noted(notes: list[Note]) -> Iterator[None]:
    """Collect warnings of dcmdask, which nobody would see on a worker."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DcmdaskWarning)
        try:
            yield
        finally:
            found = (_note(one) for one in caught if issubclass(one.category, DcmdaskWarning))
            notes += dict.fromkeys(found)


def _note(one: warnings.WarningMessage) -> Note:
    place = f"{one.category.__name__} at {os.path.basename(one.filename)}:{one.lineno}"
    return Note(getattr(one.message, "code", "") or place, str(one.message))


def _on_threads() -> Any:
    """Compute on the threads of this worker: on its own cluster, a task would wait for itself."""
    return dask.config.set(scheduler="threads", num_workers=threads_of_worker())


def _traceback() -> str:
    try:
        return traceback.format_exc()
    except Exception:
        # An exception may be unprintable.
        return ""


def _illustrated(record: Record, job: Job, work: Work) -> Record:
    """Write a thumbnail, or a note why there is none: no result is lost for it."""
    key = thumbnail_key(work.name)
    if not job.thumbnails or any(one.endswith(".png") for one in record.outputs.values()):
        # The thumbnail of an earlier run is outdated.
        job.folder.remove([key])
        return record
    try:
        with _on_threads():
            job.folder.write(key, thumbnail(work.series))
    except Exception as error:
        text = f"no thumbnail: {type(error).__name__}: {error}"
        note = Note(f"no-thumbnail/{cause_of(error)}", text)
        record = replace(record, notes=[*record.notes, note]).relative_to(job.root)
        record.write(job.folder)
    return record


def described(work: Work, job: Job) -> dict[str, Any]:
    """Return the fields of a record that describe the series, whatever becomes of it."""
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
    """Return the number of threads of this worker."""
    try:
        return max(1, int(get_worker().state.nthreads))
    except ValueError:
        return os.cpu_count() or 1


def _stage(error: BaseException, stage: str) -> str:
    for kind, name in _STAGES.items():
        if isinstance(error, kind):
            return name
    # Lazy results are computed while they are written.
    return "process" if stage == "write" and not isinstance(error, OSError) else stage


def may_pass(error: BaseException) -> bool:
    """Return whether another try may succeed: a disk or a network failed for a moment."""
    if is_of_network(error):
        return True
    return isinstance(error, OSError) and not isinstance(error, _LASTING)
