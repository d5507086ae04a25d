"""Dispatch of series to workers, one to each that is free, until all have a record."""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from distributed import Client, Future, KilledWorker

from dcmdask.batch.outcome import Progress
from dcmdask.batch.records import Record, failed, key_of, record_of
from dcmdask.batch.staging import settled
from dcmdask.batch.work import Done, Job, Work, described, may_pass, process_series
from dcmdask.batch.workers import Workers
from dcmdask.errors import ClusterError, StoreExistsError, StoreLostError

# Seconds between looks at the workers while no series ends.
_LOOK = 0.25
# Seconds before a second try, and how often they are doubled for more: to about a minute.
_BACK_OFF, _DOUBLED = 1.0, 6
# Seconds that a result may take from a worker that has ended its series, and between looks whether
# the worker is still there.
_GRACE, _MOMENT = 10.0, 0.5


class Queue:
    """Series that wait for a worker: first new ones, then those that are to be tried again."""

    def __init__(self, new: Iterable[Work]) -> None:
        self._new = iter(new)
        # By the time before which they are not to be tried.
        self._later: list[tuple[float, int, Work]] = []
        self._tickets = itertools.count()

    def __len__(self) -> int:
        """Number of series that are to be tried again."""
        return len(self._later)

    def next(self) -> Work | None:
        """Return the next series, if one may be tried now."""
        work = next(self._new, None)
        if work is None and self._later and self._later[0][0] <= time.monotonic():
            _, _, work = heapq.heappop(self._later)
        return work

    def put_back(self, work: Work, tried: bool) -> None:
        """Have a series tried again, later; `tried` where that counts as an attempt."""
        pause = _BACK_OFF * 2 ** (min(work.attempts, _DOUBLED) if tried else 0)
        work = replace(work, attempts=work.attempts + tried)
        heapq.heappush(self._later, (time.monotonic() + pause, next(self._tickets), work))


class Given(NamedTuple):
    """A series that a worker has, and since when."""

    work: Work
    future: Future[Any]
    since: float


def process_all(
    client: Client,
    job: Job,
    works: Iterator[Work],
    workers: Workers,
    tally: Progress,
    progress: Callable[[Progress], object] | None,
) -> tuple[Progress, list[Record]]:
    """Give each free worker a series, until all have a record; return those of failures."""
    waiting, failures = Queue(works), list[Record]()
    busy: dict[str, Given] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    # A future that is dropped is a message to the scheduler, which would delay the next series.
    spent: list[Future[Any]] = []
    try:
        while tally.done < tally.total:
            for address in [one for one in workers.ready if one not in busy]:
                if (work := waiting.next()) is None:
                    break
                busy[address] = _give(client, job, work, address, ended)
            if progress is not None:
                progress(tally._replace(running=len(busy), waiting=len(waiting)))
            through = _ended(ended, busy)
            if not through or workers.seconds > _LOOK:
                spent.clear()
                workers.look()
            for address in [one for one in busy if one in through or one not in workers.present]:
                given = busy.pop(address)
                record = outcome(given, job, waiting, partial(workers.has, address))
                spent.append(given.future)
                if record is None:
                    continue
                tally = tally.plus(record)
                if not record.done:
                    failures.append(record)
    finally:
        # Without a scheduler there is nothing to cancel.
        with suppress(OSError, RuntimeError):
            client.cancel([one.future for one in busy.values()])
    if progress is not None:
        progress(tally)
    return tally, failures


def _give(
    client: Client, job: Job, work: Work, address: str, ended: queue.SimpleQueue[str]
) -> Given:
    """Give a series to one worker; its address is in `ended` once it has finished."""
    future = client.submit(
        process_series,
        job,
        work,
        workers=[address],
        allow_other_workers=False,
        pure=False,
        retries=0,
    )
    future.add_done_callback(lambda _: ended.put(address))
    return Given(work, future, time.monotonic())


def _ended(ended: queue.SimpleQueue[str], busy: dict[str, Given]) -> set[str]:
    """Return the workers that have finished, as soon as there is one, or else after a moment."""
    found = set()
    with suppress(queue.Empty):
        found.add(ended.get(timeout=_LOOK))
        while True:
            found.add(ended.get_nowait())
    # Some belong to series that were given up since.
    return {one for one in found if one in busy and busy[one].future.done()}


def outcome(
    given: Given, job: Job, waiting: Queue, is_present: Callable[[], bool]
) -> Record | None:
    """Return the record of a series that a worker has finished or left; None to try it again."""
    if given.future.cancelled():
        # Somebody has restarted the cluster, or its scheduler is gone.
        waiting.put_back(given.work, tried=False)
        return None
    answer = _result(given.future, is_present)
    done = answer or _failure(given, job)
    if done.record is None or (done.may_pass and given.work.attempts < job.retries):
        # Without a record another driver's worker has the series, and no attempt was made.
        waiting.put_back(given.work, tried=done.record is not None)
        return None
    # A worker writes the record itself.
    return done.record if answer or done.record.done else _written(done.record, job)


def _result(future: Future[Any], is_present: Callable[[], bool]) -> Done | None:
    """Return the result of a worker; None if it has died before it was fetched."""
    until = time.monotonic() + _GRACE
    while future.status == "finished" and time.monotonic() < until:
        try:
            done: Done = future.result(timeout=_MOMENT)
        except TimeoutError:
            if not is_present():
                return None
        except (CancelledError, KilledWorker):
            # The cluster has been restarted meanwhile, or it was the last task of that worker.
            return None
        else:
            return done
    return None


def _failure(given: Given, job: Job) -> Done:
    """Return the failure of a series whose worker gave no result, unless it was done by then."""
    error = given.future.exception(timeout=_GRACE) if given.future.status == "error" else None
    if error is not None and not isinstance(error, KilledWorker):
        # The function did not raise it: it could not be sent, or its record could not be written.
        stage = "write" if isinstance(error, OSError) else "process"
        return Done(_failed(given, job, stage, error), may_pass(error))
    given.future.cancel()
    if (record := _finished(given.work, job)) is not None:
        return Done(record, False)
    if job.timeout is not None and time.monotonic() - given.since >= job.timeout:
        error = ClusterError(
            f"it took longer than {job.timeout:g} s, and its worker ended", code="timeout"
        )
        return Done(_failed(given, job, "timeout", error), False)
    error = ClusterError(
        f"the worker died, {given.work.attempts + 1} times: killed for its memory, by a crash of a "
        "codec, or by os._exit",
        code="worker-died",
    )
    return Done(_failed(given, job, "poison", error), True)


def _finished(work: Work, job: Job) -> Record | None:
    """Return the record of a series that was done before its worker died."""
    there = record_of(job.folder, work.name)
    if there is None or not there.done:
        return None
    if not there.is_of(job.identity, work.source, work.times):
        return None
    with job.folder.lease(key_of(work.name)) as held:
        try:
            return settled(job.folder, there) if held or not there.pending else None
        except (StoreExistsError, StoreLostError):
            # The next try raises the same.
            return None


def _failed(given: Given, job: Job, stage: str, error: BaseException) -> Record:
    record = failed(given.work.name, stage, error, **described(given.work, job))
    seconds = round(time.monotonic() - given.since, 4)
    return replace(record, seconds=seconds).relative_to(job.root)


def _written(record: Record, job: Job) -> Record:
    """Write the record of a failure that its worker could not write."""
    with job.folder.lease(key_of(record.name)) as held:
        record = record.with_results_of(record_of(job.folder, record.name))
        if held:
            # Otherwise another driver's worker has the series, and writes its record.
            record.write(job.folder)
    return record
