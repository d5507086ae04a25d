"""The loop that hands out series, one to each free worker, and writes down what became of them."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker

from dcmdask.batch.checks import check_workers, unfit
from dcmdask.batch.folder import Folder
from dcmdask.batch.outcome import (
    BatchReport,
    Progress,
    frame_of,
    need_pandas,
    results,
    write_table,
)
from dcmdask.batch.records import Record, failed, is_current, key_of, records, relative
from dcmdask.batch.selection import Selection, selected
from dcmdask.batch.work import Done, Job, Work, described, may_pass, process_series
from dcmdask.batch.workers import Workers
from dcmdask.errors import ClusterError
from dcmdask.export.cluster import all_kept, cluster

if TYPE_CHECKING:
    import pandas as pd

# Seconds between looks at the workers and the clock while nothing is done.
_LOOK = 0.25
# Seconds for a worker that is done to hand over what it has to say.
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
    thumbnails: bool = True,
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
        Only what has a record of a failure. The table then keeps what another version of the
        function, or other options, have done.
    thumbnails : bool
        Whether the page of the report gets a small picture of each series that returns no
        `Picture`: its middle frame, which is decoded once more.
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
    StoreExistsError
        The target holds what another job made.
    FileNotFoundError
        The source is not there.
    ImportError
        `finish` or `select` needs pandas, which is not installed.
    OSError
        The target cannot be read or written here.
    ValueError
        There is no series, `select` is no query, or an option is no value that JSON has.
    """
    _check(client, limit, retries, timeout)
    if finish is not None:
        # Not once all is done.
        need_pandas()
    started = time.perf_counter()
    folder = Folder.of(target)
    chosen = selected(
        process,
        source,
        folder,
        options=options,
        select=select,
        limit=limit,
        only_failed=only_failed,
        thumbnails=thumbnails,
        progress=None if progress is None else lambda files, _: progress(Progress(files)),
    )
    now = Progress(chosen.found.files)
    failures: list[Record] = []
    if chosen.numbers:
        with _workers(client) as running:
            check_workers(running, chosen, timeout)
            now, failures = _loop(running, chosen, retries, timeout, progress)
    for record in chosen.left_out.values():
        record.write(folder)
    for name in chosen.gone:
        folder.remove(key_of(name))
    failures += chosen.left_out.values()
    found = results(folder, chosen.job.identity, with_others=only_failed)
    report = BatchReport(
        folder.url,
        chosen.job.identity,
        chosen.before["done"] + now.done - now.failed,
        now.done,
        chosen.before,
        tuple(sorted(failures, key=lambda one: one.name)),
        found.other,
        found.noted,
        time.perf_counter() - started,
    )
    write_table(found.columns, folder)
    if finish is not None:
        finish(frame_of(found.columns), folder.url)
    return report


def _check(client: Client | None, limit: int | None, retries: int, timeout: float | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: a run has at least one series")
    if retries < 0:
        raise ValueError(f"retries is {retries}: 0 or more")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout}: more than 0 seconds")
    if client is not None and client.asynchronous:
        raise ValueError("the client is asynchronous; run waits, and needs one that waits")
    if client is not None and client.status != "running":
        raise ClusterError(f"the client is {client.status}: it has no scheduler")


@contextmanager
def _workers(client: Client | None) -> Iterator[Client]:
    if client is not None:
        with all_kept(client):
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
    chosen: Selection,
    retries: int,
    timeout: float | None,
    progress: Callable[[Progress], object] | None,
) -> tuple[Progress, list[Record]]:
    """Hand out series, one to each free worker, until all have a record.

    Returns
    -------
    Progress
    list of Record
        Of what failed; the others are not held.
    """
    job, fresh = chosen.job, chosen.works()
    tally = Progress(chosen.found.files, len(chosen.numbers))
    tally = tally._replace(dashboard=client.dashboard_link or "")
    failures: list[Record] = []
    # Those to be tried again: by the time before which they are not to be.
    later: list[tuple[float, int, Work]] = []
    tickets = itertools.count()
    workers = Workers(client, partial(unfit, client, chosen, timeout))
    late: set[str] = set()
    busy: dict[str, _Busy] = {}
    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Dask's client sends a message in 10 ms: one that says that a future is no longer needed
    # would keep the next series from its worker.
    spent: list[Future[Any]] = []

    def keep(record: Record | None) -> None:
        nonlocal tally
        if record is not None:
            tally = tally.plus(record)
            if not record.done:
                failures.append(record)

    def again(work: Work, tried: bool = True) -> None:
        pause = _BACK_OFF * 2**work.attempts if tried else _BACK_OFF
        work = work._replace(attempts=work.attempts + tried)
        heapq.heappush(later, (time.monotonic() + pause, next(tickets), work))

    def following() -> Work | None:
        work = next(fresh, None)
        if work is None and later and later[0][0] <= time.monotonic():
            _, _, work = heapq.heappop(later)
        return work

    try:
        while tally.done < tally.total:
            for address in [one for one in workers.ready if one not in busy]:
                if (work := following()) is None:
                    break
                busy[address] = _handed_out(client, job, work, address, retries, finished)
            if progress is not None:
                progress(tally._replace(running=len(busy)))
            ended = [busy.pop(address) for address in _ended(finished, busy)]
            for one in ended:
                keep(_outcome(one, job, retries, again))
                spent.append(one.future)
            if not ended or workers.seconds > _LOOK:
                spent.clear()
                workers.look()
                for address in [one for one in busy if one not in workers.there]:
                    one = busy.pop(address)
                    if address in late:
                        keep(_too_late(one, job, timeout))
                    else:
                        keep(_lost(one, job, retries, again))
                late &= busy.keys()
                for address, one in busy.items():
                    if timeout and address not in late and time.monotonic() - one.since > timeout:
                        # It is told of once its process is gone, and can write nothing more.
                        late.add(address)
                        workers.end(address)
    finally:
        # Where the scheduler is gone there is nothing to cancel.
        with suppress(OSError, RuntimeError):
            client.cancel([one.future for one in busy.values()])
    if progress is not None:
        progress(tally)
    return tally, failures


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


def _ended(finished: queue.SimpleQueue[str], busy: dict[str, _Busy]) -> list[str]:
    """Return the workers that are done with what they have, if there is one within a moment."""
    found = set()
    try:
        found.add(finished.get(timeout=_LOOK))
        while True:
            found.add(finished.get_nowait())
    except queue.Empty:
        # They may be told of what was given up since.
        return [one for one in found if one in busy and busy[one].future.done()]


def _outcome(one: _Busy, job: Job, retries: int, again: Callable[..., None]) -> Record | None:
    """Return the record of a series that a worker is done with; None if it is tried again."""
    if one.future.cancelled():
        # Somebody has restarted the cluster, or its scheduler is gone.
        again(one.work, tried=False)
        return None
    if one.future.status == "error":
        error = one.future.exception(timeout=_GRACE)
        if isinstance(error, KilledWorker):
            return _lost(one, job, retries, again)
        # Not of the function: it could not be sent, or its record could not be written.
        if may_pass(error) and one.work.attempts < retries:
            again(one.work)
            return None
        stage = "write" if isinstance(error, OSError) else "process"
        return _recorded(one, job, stage, error or RuntimeError("no error was told"))
    try:
        done: Done = one.future.result(timeout=_GRACE)
    except TimeoutError:
        # A worker that dies takes along what it has not handed over.
        return _lost(one, job, retries, again)
    if done.record is None:
        again(one.work, tried=False)
        return None
    if done.may_pass and one.work.attempts < retries:
        again(one.work)
        return None
    return done.record


def _lost(one: _Busy, job: Job, retries: int, again: Callable[..., None]) -> Record | None:
    """Deal with a series whose worker died."""
    one.future.cancel()
    if (record := _done_by_now(one, job)) is not None:
        return record
    if one.work.attempts < retries:
        again(one.work)
        return None
    error = ClusterError(
        f"the worker died, {one.work.attempts + 1} times: killed for its memory, by a crash of a "
        "codec, or by os._exit"
    )
    return _recorded(one, job, "poison", error)


def _too_late(one: _Busy, job: Job, timeout: float | None) -> Record:
    one.future.cancel()
    if (record := _done_by_now(one, job)) is not None:
        return record
    error = ClusterError(f"it took longer than {timeout or 0:g} s, and the worker was restarted")
    return _recorded(one, job, "timeout", error)


def _done_by_now(one: _Busy, job: Job) -> Record | None:
    """Return the record of a series that was done before its worker could say so."""
    there = records(job.folder, [one.work.name]).get(one.work.name)
    if there is None or not there.done:
        return None
    return there if is_current(there, job.identity, one.work.source) else None


def _recorded(one: _Busy, job: Job, stage: str, error: Exception) -> Record:
    record = failed(one.work.name, stage, error, "", **described(one.work, job))
    record = replace(record, seconds=round(time.monotonic() - one.since, 4))
    record = relative(record, job.root)
    record.write(job.folder)
    return record
