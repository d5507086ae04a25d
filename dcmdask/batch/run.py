"""The loop that hands out series, one to each free worker, and writes down what became of them."""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker
from distributed.protocol import pickle

from dcmdask.arrays.scan import Scan, scan
from dcmdask.arrays.series import Series
from dcmdask.batch.checks import check_workers
from dcmdask.batch.cluster import cluster
from dcmdask.batch.folder import Folder
from dcmdask.batch.outcome import BatchReport, Progress, write_table
from dcmdask.batch.records import Record, failed, identity, names_of, records, relative, source_of
from dcmdask.batch.work import Done, Job, Work, described, is_current, process_series
from dcmdask.errors import ClusterError

if TYPE_CHECKING:
    import pandas as pd

# Seconds between looks at the workers and the clock while nothing is done.
_LOOK = 0.25
# Seconds for a worker to end by itself.
_GRACE = 10.0
# Seconds before a second try, doubled for each more.
_BACK_OFF = 1.0


def run(
    process: Callable[..., Any],
    source: Any,
    target: str | os.PathLike[str],
    *,
    client: Client | None = None,
    options: Mapping[str, Any] | None = None,
    select: str | None = None,
    limit: int | None = None,
    retries: int = 2,
    timeout: float | None = None,
    only_failed: bool = False,
    finish: Callable[[pd.DataFrame, str], object] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> BatchReport:
    """Call `process` with each series of `source`, and keep what it returns below `target`.

    A series is processed by one worker process, and a worker has one series at a time. What
    `process` returns is computed there, with the worker's threads. A failure is written down
    and stops nothing. What is done is not done again, unless the files, the function or its
    options have changed.

    Parameters
    ----------
    process : callable
        Takes a `Series` and `options`; returns a dict of names and arrays (they become Zarr),
        `Picture` (PNG), or numbers, texts and truths (a row of the table), or None.
    source : str, path-like, iterable of these, or Scan
        As for :func:`dcmdask.scan`.
    target : str or path-like
        A folder, or a URL for fsspec.
    client : distributed.Client, optional
        By default processes of this machine, one for two cores.
    options : mapping, optional
        Keyword arguments for `process`, JSON values.
    select : str, optional
        A query of pandas on the columns of ``scan(source).to_frame()``, such as
        ``'Modality == "CT" and frames > 20'``.
    limit : int, optional
        At most so many series, in the order of the scan.
    retries : int
        How often a series is tried again after an error of input or output, or a worker that
        died, which is then recorded as ``"poison"``.
    timeout : float, optional
        Seconds for one series; then the worker process is restarted by its nanny, and
        ``"timeout"`` recorded.
    only_failed : bool
        Only what has a record of a failure.
    finish : callable, optional
        Called once in the end with the table of results, a pandas DataFrame, and `target`.
    progress : callable, optional
        Called with a `Progress` now and then.

    Returns
    -------
    BatchReport

    Raises
    ------
    ClusterError
        Workers have no dcmdask, another version of it, do not see source or target, or have
        no nanny where `timeout` needs one.
    ValueError
        `select` is no query.
    """
    started = time.perf_counter()
    folder = Folder.of(target)
    job, kept, works = to_do(
        process,
        source,
        folder,
        options=options,
        select=select,
        limit=limit,
        only_failed=only_failed,
    )
    made: list[Record] = []
    if works:
        with _workers(client) as running:
            check_workers(running, folder, works, timeout)
            made += _loop(running, job, works, retries, timeout, progress)
    all_records = {**kept, **{one.name: one for one in made}}
    report = BatchReport(
        folder.url,
        tuple(all_records[name] for name in sorted(all_records)),
        len(made),
        time.perf_counter() - started,
    )
    # Also of what was not asked for this time.
    every = [one for one in records(folder).values() if one.job == job.identity]
    table = replace(report, records=tuple(sorted(every, key=lambda one: one.name)))
    write_table(table, folder)
    if finish is not None:
        finish(table.to_frame(), folder.url)
    return report


def to_do(
    process: Callable[..., Any],
    source: Any,
    folder: Folder,
    *,
    options: Mapping[str, Any] | None = None,
    select: str | None = None,
    limit: int | None = None,
    only_failed: bool = False,
) -> tuple[Job, dict[str, Record], list[Work]]:
    """Return the job, the records of what is done already, and the series to be processed.

    Parameters are those of :func:`run`.
    """
    found = source if isinstance(source, Scan) else scan(source)
    series: list[Series] = list(found[:])
    names = names_of(series)
    chosen = _chosen(found, select)
    given = dict(options or {})
    root = str(source) if isinstance(source, str | os.PathLike) else ""
    root = os.path.abspath(root) if root and os.path.isdir(root) else ""
    job = Job(pickle.dumps(process), given, folder, identity(process, given), root)
    there = records(folder)
    kept: dict[str, Record] = {}
    works = []
    for number in chosen[:limit]:
        name, files = names[number], source_of(series[number])
        record = there.get(name)
        if only_failed and (record is None or record.done):
            continue
        if record is not None and record.done and is_current(record, job.identity, files):
            kept[name] = record
        else:
            works.append(Work(name, series[number], files))
    return job, kept, works


def _chosen(found: Scan, select: str | None) -> list[int]:
    """Return the numbers of the series that a query selects."""
    if select is None:
        return list(range(len(found)))
    frame = found.to_frame().reset_index(drop=True)
    # By the names that DICOM has for them, too.
    for column, keyword in _KEYWORDS.items():
        frame[keyword] = frame[column]
    try:
        return [int(number) for number in frame.query(select).index]
    except Exception as error:
        # pandas raises whatever the expression led to.
        raise ValueError(
            f"select {select!r}: {error}; columns are {', '.join(map(str, frame.columns))}"
        ) from error


_KEYWORDS = {
    "modality": "Modality",
    "series_uid": "SeriesInstanceUID",
    "study_uid": "StudyInstanceUID",
    "rows": "Rows",
    "columns": "Columns",
}


@contextmanager
def _workers(client: Client | None) -> Iterator[Client]:
    if client is not None:
        yield client
        return
    with cluster(None, max(1, CPU_COUNT // 2), min(2, CPU_COUNT)) as started:
        assert started is not None
        yield started


class _Busy(NamedTuple):
    """A series that a worker has."""

    work: Work
    future: Future[Any]
    since: float


def _loop(
    client: Client,
    job: Job,
    works: list[Work],
    retries: int,
    timeout: float | None,
    progress: Callable[[Progress], object] | None,
) -> list[Record]:
    """Hand out series, one to each free worker, until all have a record."""
    # By the time before which they are not to be tried, and their place.
    waiting = [(0.0, number, work) for number, work in enumerate(works)]
    works.clear()
    total = len(waiting)
    busy: dict[str, _Busy] = {}
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    made: list[Record] = []
    tally = Progress(total)
    alive, looked = _alive(client), time.monotonic()
    # Workers that are to be restarted, and since when.
    dying: dict[str, float] = {}

    def keep(record: Record | None) -> None:
        nonlocal tally
        if record is not None:
            made.append(record)
            tally = tally.plus(record)

    def again(work: Work) -> None:
        pause = _BACK_OFF * 2**work.attempts
        tried = work._replace(attempts=work.attempts + 1)
        heapq.heappush(waiting, (time.monotonic() + pause, total + len(made), tried))

    try:
        while waiting or busy:
            now = time.monotonic()
            for address in [one for one in alive if one not in busy]:
                if not waiting or waiting[0][0] > now:
                    break
                _, _, work = heapq.heappop(waiting)
                busy[address] = _handed_out(client, job, work, address, retries, finished)
            if progress is not None:
                progress(tally._replace(running=len(busy)))
            ended = _next(finished, busy)
            if ended is not None:
                one = busy.pop(ended)
                keep(_outcome(one, job, retries, again))
            if ended is None or time.monotonic() - looked > _LOOK:
                there, looked = _alive(client), time.monotonic()
                for address in [one for one in busy if one not in there]:
                    keep(_lost(busy.pop(address), job, retries, again))
                late = [a for a, one in busy.items() if timeout and looked - one.since > timeout]
                for address in late:
                    keep(_too_late(busy.pop(address), job, timeout or 0.0))
                    dying[address] = looked
                    # Its own nanny starts another process.
                    client.run(_end, workers=[address], wait=False)
                dying = _still_there(client, dying, there)
                alive = [one for one in there if one not in dying]
    finally:
        client.cancel([one.future for one in busy.values()])
    if progress is not None:
        progress(tally)
    return made


def _alive(client: Client) -> list[str]:
    return list(client.scheduler_info(n_workers=-1)["workers"])


def _handed_out(
    client: Client,
    job: Job,
    work: Work,
    address: str,
    retries: int,
    finished: queue.SimpleQueue[str],
) -> _Busy:
    future = client.submit(
        process_series,
        job,
        work,
        work.attempts >= retries,
        workers=[address],
        allow_other_workers=False,
        pure=False,
        retries=0,
    )
    future.add_done_callback(lambda _: finished.put(address))
    return _Busy(work, future, time.monotonic())


def _next(finished: queue.SimpleQueue[str], busy: dict[str, _Busy]) -> str | None:
    """Return a worker that is done with what it has, if there is one within a moment."""
    try:
        address = finished.get(timeout=_LOOK)
    except queue.Empty:
        return None
    # It may be told of what was given up since.
    return address if address in busy and busy[address].future.done() else None


def _outcome(one: _Busy, job: Job, retries: int, again: Callable[[Work], None]) -> Record | None:
    """Return the record of a series that a worker is done with; None if it is tried again."""
    try:
        done: Done = one.future.result()
    except KilledWorker:
        return _lost(one, job, retries, again)
    except Exception as error:
        # Not of the function: it could not be sent, or its result could not be sent back.
        return _recorded(one, job, "process", error)
    if done.may_pass and one.work.attempts < retries:
        again(one.work)
        return None
    return done.record


def _lost(one: _Busy, job: Job, retries: int, again: Callable[[Work], None]) -> Record | None:
    """Deal with a series whose worker died."""
    one.future.cancel()
    if one.work.attempts < retries:
        again(one.work)
        return None
    error = ClusterError(
        f"the worker died, {one.work.attempts + 1} times: killed for its memory, by a crash of a "
        "codec, or by os._exit"
    )
    return _recorded(one, job, "poison", error)


async def _end() -> None:
    """End the process of a worker whose thread does not."""
    os._exit(1)


def _still_there(client: Client, dying: dict[str, float], there: list[str]) -> dict[str, float]:
    """Return the workers that have yet to go; one that hears nothing is left to its nanny."""
    left = {address: since for address, since in dying.items() if address in there}
    for address, since in left.items():
        if time.monotonic() - since > _GRACE:
            left[address] = time.monotonic()
            threading.Thread(
                target=client.restart_workers,
                args=([address],),
                kwargs={"timeout": _GRACE, "raise_for_error": False},
                daemon=True,
            ).start()
    return left


def _too_late(one: _Busy, job: Job, timeout: float) -> Record:
    one.future.cancel()
    error = ClusterError(f"it took longer than {timeout:g} s, and the worker was restarted")
    return _recorded(one, job, "timeout", error)


def _recorded(one: _Busy, job: Job, stage: str, error: Exception) -> Record:
    record = failed(one.work.name, stage, error, "", **described(one.work, job.identity))
    record = replace(record, seconds=round(time.monotonic() - one.since, 4))
    record = relative(record, job.root)
    record.write(job.folder)
    return record
