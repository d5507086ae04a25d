"""The loop that hands out series, one to each free worker, and writes down what became of them."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed import Client, Future

from dcmdask.batch.checks import check_workers, lacking
from dcmdask.batch.folder import Folder
from dcmdask.batch.handed_out import HandedOut, hand_out, lost, outcome, too_late
from dcmdask.batch.mark import claim
from dcmdask.batch.outcome import (
    COLUMNS,
    NAME,
    TABLE,
    BatchReport,
    Progress,
    frame_of,
    need_pandas,
    results,
    write_table,
)
from dcmdask.batch.outputs import OfAll, in_use, settled
from dcmdask.batch.records import Record, key_of, records
from dcmdask.batch.selection import Selection, selected
from dcmdask.batch.work import Work, alone_with
from dcmdask.batch.workers import Workers
from dcmdask.dicom.access import TARGET, reaching
from dcmdask.errors import ClusterError, DcmdaskWarning, StoreExistsError, StoreLostError
from dcmdask.store.scheduler import all_kept, cluster, dashboard_of, half_of_this_machine

if TYPE_CHECKING:
    import pandas as pd

# Seconds between looks at the workers and the clock while nothing is done.
_LOOK = 0.25
# Seconds before a second try, and how often they are doubled for more: to about a minute.
_BACK_OFF, _DOUBLED = 1.0, 6


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
    redo: bool | Callable[[str], bool] = False,
    thumbnails: bool = True,
    exclude: Iterable[str] | str = (),
    follow_links: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    columns: Iterable[str] = (),
    finish: Callable[[pd.DataFrame, str], object] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> BatchReport:
    """Call `process` with each series of `source`, and keep what it returns below `target`.

    A series is processed by one worker process, and a worker has one series at a time. What
    `process` returns is computed there, with the worker's threads. A failure is written down
    and stops nothing. What is done is not done again, unless the contents of the files, the code
    of the function or its options have changed. New results take the place of earlier ones once
    all of a series are whole; where it fails, the earlier ones stay. Only what the records of the
    target list as written by dcmdask is replaced or removed.

    Parameters
    ----------
    process : callable
        Takes a `Series` and `options`; returns a dict of names and arrays, data sets or tables
        (they become Zarr, those of xarray and pandas with their labels), `Picture` (PNG), or
        numbers, strings and booleans (a row of the table), or None.
    source : str, path-like, iterable of these, or Scan
        As for :func:`dcmdask.scan`.
    target : str or path-like
        A folder, or a URL for fsspec, that is new, empty or of an earlier run. It may lie in the
        source: a scan leaves it out by its mark, the file ``dcmdask.json``.
    client : distributed.Client, optional
        By default processes of this machine, one for two cores, which nobody else can reach.
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
    redo : bool or callable
        Whether to do again what is done and has changed, where that is more than a tenth of what
        is done; or what answers that when it is called with a message that says how much it is.
    thumbnails : bool
        Whether the page of the report gets a small picture of each series that returns no
        `Picture`: its middle frame, which is decoded once more.
    exclude, follow_links, storage_options
        As for :func:`dcmdask.scan`; a Scan has its own.
    target_options : mapping, optional
        Keyword arguments for the fsspec file system of `target`.
    columns : iterable of str, optional
        Names of numbers that `process` returns: the table has these columns also while no series
        is done.
    finish : callable, optional
        Called once in the end with the table of results, a pandas DataFrame, and `target`. The
        column ``job`` tells rows of an earlier version of the job from others. Not called, with a
        warning, where no series is done and no `columns` are given.
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
        The target holds what another job made, or files that dcmdask did not write in the place of
        those that it would; or more than a tenth of what is done would be done again.
    FileNotFoundError
        The source is not there.
    ImportError
        `finish` or `select` needs pandas, which is not installed.
    OSError
        The target cannot be read or written here; as `UnreachableError` where its server or that
        of the source cannot be reached.
    ValueError
        There is no series, `select` is no query or matches none, or an option is no value that
        JSON has; or the target is or holds the source, or lies in it and has no mark.
    """
    _check(client, limit, retries, timeout)
    if finish is not None:
        # Not once all is done.
        need_pandas()
    started = time.perf_counter()
    columns = list(columns)
    if taken := {*COLUMNS} & {*columns}:
        raise ValueError(f"columns names {min(taken)}, which the table has in any case")
    with reaching(target, TARGET):
        folder = Folder.of(target, target_options)
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
        exclude=exclude,
        follow_links=follow_links,
        storage_options=storage_options,
    )
    _ask(chosen, folder, redo)
    now = Progress(chosen.files)
    failures: list[Record] = []
    with reaching(target, TARGET):
        claim(folder, [f"{TABLE}.csv", f"{TABLE}.parquet"])
        _bring_up_to_date(chosen, folder)
    if chosen.total:
        with _workers(client) as running, reaching(target, TARGET):
            check_workers(running, chosen, timeout)
            now, failures = _loop(running, chosen, retries, timeout, progress)
    with reaching(target, TARGET):
        for record in chosen.left_out.values():
            record.write(folder)
        folder.remove(map(key_of, chosen.gone))
        found = results(folder, chosen.job.identity, columns)
        write_table(found.columns, folder)
    failures += chosen.left_out.values()
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
        folder.options,
    )
    if finish is not None:
        _finish(finish, found.columns, columns, folder)
    return report


def _bring_up_to_date(chosen: Selection, folder: Folder) -> None:
    """Finish what a run that died has left pending; note files that were only touched since."""
    for name in chosen.pending:
        with alone_with(folder, name) as alone, suppress(StoreLostError):
            there = records(folder, [name]).get(name)
            if alone and there is not None and there.pending:
                settled(folder, there)
    for name, (was, times) in chosen.touched.items():
        with alone_with(folder, name) as alone:
            there = records(folder, [name]).get(name)
            if alone and there is not None and there.times == was and not there.pending:
                replace(there, times=times).write(folder)


def _ask(chosen: Selection, folder: Folder, redo: bool | Callable[[str], bool]) -> None:
    """Refuse to do again more than a tenth of what is done, unless that is wanted."""
    changed = chosen.before["changed"]
    done = chosen.before["done"] + changed
    if changed * 10 <= done or redo is True:
        return
    reasons = {
        "since the job or its options have changed": chosen.another_job,
        "since their files have": changed - chosen.another_job,
    }
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    message = f"{folder.url}: {changed} of {done} series that are done would be done again: {why}"
    if redo is False:
        raise StoreExistsError(f"{message}; redo=True (--redo) does so")
    if not redo(message):
        raise StoreExistsError(f"{message}; nothing was done")


def _finish(
    finish: Callable[[pd.DataFrame, str], object],
    table: dict[str, list[Any]],
    declared: list[str],
    folder: Folder,
) -> None:
    if not table[NAME] and not declared:
        warnings.warn(
            "finish was not called: no series is done, and the columns of the table are not known; "
            "columns=[...] names them",
            DcmdaskWarning,
            stacklevel=3,
        )
        return
    with in_use(OfAll(folder)):
        finish(frame_of(table), folder.url)


def _check(client: Client | None, limit: int | None, retries: int, timeout: float | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: it must be at least 1")
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
    with cluster(None, *half_of_this_machine()) as started:
        assert started is not None
        yield started


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
    tally = Progress(chosen.files, chosen.total)
    tally = tally._replace(dashboard=dashboard_of(client))
    failures: list[Record] = []
    # Those to be tried again: by the time before which they are not to be.
    later: list[tuple[float, int, Work]] = []
    tickets = itertools.count()
    workers = Workers(client, partial(lacking, client, chosen, timeout))
    late: set[str] = set()
    busy: dict[str, HandedOut] = {}
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
        pause = _BACK_OFF * 2 ** (min(work.attempts, _DOUBLED) if tried else 0)
        work = replace(work, attempts=work.attempts + tried)
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
                busy[address] = hand_out(client, job, work, address, retries, finished)
            if progress is not None:
                progress(tally._replace(running=len(busy), waiting=len(later)))
            ended = {address: busy.pop(address) for address in _ended(finished, busy)}
            for address, one in ended.items():
                keep(outcome(one, job, retries, again, partial(workers.has, address)))
                spent.append(one.future)
            if not ended or workers.seconds > _LOOK:
                spent.clear()
                workers.look()
                for address in [one for one in busy if one not in workers.there]:
                    one = busy.pop(address)
                    if address in late:
                        keep(too_late(one, job, timeout))
                    else:
                        keep(lost(one, job, retries, again))
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


def _ended(finished: queue.SimpleQueue[str], busy: dict[str, HandedOut]) -> list[str]:
    """Return the workers that are done with what they have, if there is one within a moment."""
    found = set()
    try:
        found.add(finished.get(timeout=_LOOK))
        while True:
            found.add(finished.get_nowait())
    except queue.Empty:
        # They may be told of what was given up since.
        return [one for one in found if one in busy and busy[one].future.done()]
