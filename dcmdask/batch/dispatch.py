"""One series that a worker has: how it is handed out, and what becomes of it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, NamedTuple

from distributed import Client, Future, KilledWorker

from dcmdask.batch.records import Record, failed, is_current, records, relative
from dcmdask.batch.staging import settled
from dcmdask.batch.work import Done, Job, Work, alone_with, described, may_pass, process_series
from dcmdask.errors import ClusterError, StoreExistsError, StoreLostError

# Seconds for a worker that is done to hand over what it has to say, and before a look whether it
# is still there.
_GRACE, _MOMENT = 10.0, 0.5


class HandedOut(NamedTuple):
    """A series that a worker has, and since when."""

    work: Work
    future: Future[Any]
    since: float


def hand_out(
    client: Client,
    job: Job,
    work: Work,
    address: str,
    retries: int,
    finished: queue.SimpleQueue[str],
) -> HandedOut:
    """Give a series to one worker; its address is in `finished` once it is done."""
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
    return HandedOut(work, future, time.monotonic())


def outcome(
    one: HandedOut,
    job: Job,
    retries: int,
    again: Callable[..., None],
    is_there: Callable[[], bool],
) -> Record | None:
    """Return the record of a series that a worker is done with; None if it is tried again."""
    if one.future.cancelled():
        # Somebody has restarted the cluster, or its scheduler is gone.
        again(one.work, tried=False)
        return None
    if one.future.status == "error":
        error = one.future.exception(timeout=_GRACE)
        if isinstance(error, KilledWorker):
            return lost(one, job, retries, again)
        # Not of the function: it could not be sent, or its record could not be written.
        if may_pass(error) and one.work.attempts < retries:
            again(one.work)
            return None
        stage = "write" if isinstance(error, OSError) else "process"
        return _recorded(one, job, stage, error or RuntimeError("no error was told"))
    if (done := _handed_over(one.future, is_there)) is None:
        return lost(one, job, retries, again)
    if done.record is None:
        again(one.work, tried=False)
        return None
    if done.may_pass and one.work.attempts < retries:
        again(one.work)
        return None
    return done.record


def _handed_over(future: Future[Any], is_there: Callable[[], bool]) -> Done | None:
    """Return what a worker says of its series; None if it has died and taken that along."""
    until = time.monotonic() + _GRACE
    while True:
        try:
            done: Done = future.result(timeout=_MOMENT)
        except TimeoutError:
            if time.monotonic() > until or not is_there():
                return None
        except (CancelledError, KilledWorker):
            # The cluster has been restarted meanwhile, or it was that worker's last task.
            return None
        else:
            return done


def lost(one: HandedOut, job: Job, retries: int, again: Callable[..., None]) -> Record | None:
    """Return the record of a series whose worker died; None if it is tried again."""
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


def too_late(one: HandedOut, job: Job, timeout: float | None) -> Record:
    """Return the record of a series whose worker was ended, since it took longer than that."""
    one.future.cancel()
    if (record := _done_by_now(one, job)) is not None:
        return record
    error = ClusterError(f"it took longer than {timeout or 0:g} s, and the worker was restarted")
    return _recorded(one, job, "timeout", error)


def _done_by_now(one: HandedOut, job: Job) -> Record | None:
    """Return the record of a series that was done before its worker could say so."""
    there = records(job.folder, [one.work.name]).get(one.work.name)
    if there is not None and there.pending:
        try:
            with alone_with(job.folder, one.work.name) as alone:
                there = settled(job.folder, there) if alone else None
        except (StoreExistsError, StoreLostError):
            # The next try says so.
            return None
    if there is None or not there.done:
        return None
    current = is_current(there, job.identity, one.work.source, one.work.times)
    return there if current else None


def _recorded(one: HandedOut, job: Job, stage: str, error: Exception) -> Record:
    record = failed(one.work.name, stage, error, "", **described(one.work, job))
    record = replace(record, seconds=round(time.monotonic() - one.since, 4))
    record = relative(record, job.root)
    with alone_with(job.folder, one.work.name) as alone:
        there = records(job.folder, [one.work.name]).get(one.work.name)
        record = record.with_results_of(there)
        if alone:
            # Otherwise another driver's worker has it, and writes down what becomes of it.
            record.write(job.folder)
    return record
