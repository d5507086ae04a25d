"""Run a job over all series of an archive."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distributed import Client

from dcmdask.batch.dispatch import process_all
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
from dcmdask.batch.outputs import Shared, claim, in_use
from dcmdask.batch.records import Record, key_of, record_of
from dcmdask.batch.selection import Selection, selected
from dcmdask.batch.staging import settled
from dcmdask.batch.workers import Requirements, Workers, check_workers
from dcmdask.dicom.image_pixel import HEADER_OPTIONS, check_options
from dcmdask.errors import ClusterError, DcmdaskWarning, StoreExistsError, StoreLostError
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.sources.folder import Folder
from dcmdask.store.scheduler import all_kept, cluster, dashboard_of, half_of_this_machine

if TYPE_CHECKING:
    import pandas as pd


def run(
    process: Callable[..., Any],
    src: Any,
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
    **decoding_options: Any,
) -> BatchReport:
    """Call `process` with each series of `src`, and store its results below `target`.

    A series is processed by one worker process, and a worker has one series at a time. The results
    are computed there, with the worker's threads. A failure is recorded and stops nothing. Series
    that are done are not done again, unless the contents of the files, the code of the function
    or its options have changed. New results replace earlier ones once all of a series are whole;
    where it fails, the earlier ones stay. Only files that the target lists as written by dcmdask
    are replaced or removed.

    Parameters
    ----------
    process : callable
        Takes a `Series` and `options`; returns a dict of names and arrays, data sets or tables
        (they become Zarr, those of xarray and pandas with their labels), `Picture` (PNG), or
        numbers, strings and booleans (a row of the table), or None.
    src : str, path-like, iterable of these, Scan or Catalog
        A folder, a file, a glob pattern (``**`` for any number of folders), or a URL of fsspec
        that is one of these, also inside an archive: ``"zip://**::archive.zip"``. Series of a
        catalog are read one after the other, and not all held in memory.
    target : str or path-like
        A folder, or a URL for fsspec, that is new, empty or of an earlier run. It may lie in the
        source: a scan leaves it out by its mark, the file ``dcmdask.json``.
    client : distributed.Client, optional
        By default, processes of this machine, one for two cores, which nobody else can reach.
    options : mapping, optional
        Keyword arguments for `process`, JSON values.
    select : str, optional
        A query of pandas on the columns of ``scan(src).to_frame()``, such as
        ``'Modality == "CT" and frames > 20'``.
    limit : int, optional
        Maximum number of series, in the order of the scan.
    retries : int
        Number of further tries after an error of input or output, or after a worker died, which is
        then recorded as ``"poison"``.
    timeout : float, optional
        Seconds for one series; then the worker process ends, its nanny starts another, and
        ``"timeout"`` is recorded.
    only_failed : bool
        Only series with a record of a failure.
    redo : bool or callable
        Whether to do series again that are done and have changed, where these are more than a
        tenth of those that are done; or a function that is called with a message which says how
        many there are, and answers that.
    thumbnails : bool
        Whether the page of the report gets a small picture of each series that returns no
        `Picture`: its middle frame, which is decoded once more.
    exclude : str or iterable of str, optional
        Patterns such as ``"*.png"`` for the names of files and folders of `src` to leave out, at
        any depth; one with a slash, such as ``"old/*.dcm"``, is for the path below `src`.
    follow_links : bool, optional
        Follow links to folders. A Scan has its own choice, and its own `exclude`.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of `src`; a Scan has its own.
    target_options : mapping, optional
        Keyword arguments for the fsspec file system of `target`.
    columns : iterable of str, optional
        Names of numbers that `process` returns: columns of the table also while no series is done.
    finish : callable, optional
        Called once at the end with the table of results, a pandas DataFrame, and `target`. The
        column ``job`` tells rows of an earlier version of the job from others. Not called, with a
        warning, where no series is done and no `columns` are given.
    progress : callable, optional
        Called with a `Progress` several times a second.
    **decoding_options
        For all files, which workers open with them as well: overrides of group 0028 by pydicom's
        keywords (`rows`, `bits_stored`, `photometric_interpretation`, ...) and
        `transfer_syntax_uid`, where headers lack an element or are wrong; `inflate_limit` and
        `allow_excess_frames`. A Scan has its own.

    Returns
    -------
    BatchReport

    Raises
    ------
    ClusterError
        Workers have no dcmdask, another version of it, do not see source or target, or have
        no nanny where `timeout` needs one.
    StoreExistsError
        The target holds results of another job, or files that dcmdask did not write in the place of
        those that it would; or more than a tenth of what is done would be done again.
    FileNotFoundError
        The source does not exist.
    TypeError
        There is no such option.
    ImportError
        `finish` or `select` needs pandas, which is not installed.
    OSError
        The target cannot be read or written here; as `UnreachableError` where its server or that
        of the source cannot be reached.
    ValueError
        There is no series, `select` is not valid or matches none, or an option is no value that
        JSON has; or the target is or holds the source, or lies in it and has no mark.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pydicom.data import get_testdata_file
    >>> def process(series):
    ...     return {"peak": series.to_dask("modality").max()}
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
    >>> with tempfile.TemporaryDirectory() as target:  # doctest: +SKIP
    ...     print(run(process, folder, target))
    """
    check_options(decoding_options, run, HEADER_OPTIONS)
    _check(client, limit, retries, timeout)
    if finish is not None:
        # Rather now than once all is done.
        need_pandas()
    started = time.perf_counter()
    columns = list(columns)
    if taken := {*COLUMNS} & {*columns}:
        raise ValueError(f"columns names {min(taken)}, which the table has in any case")
    with reaching(target, TARGET_OPTION):
        folder = Folder.of(target, target_options)
    chosen = selected(
        process,
        src,
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
        **decoding_options,
    )
    _ask(chosen, folder, redo)
    now = Progress(chosen.files)
    failures: list[Record] = []
    with reaching(target, TARGET_OPTION):
        claim(folder, [f"{TABLE}.csv", f"{TABLE}.parquet"])
        _bring_up_to_date(chosen, folder)
    if chosen.total:
        needed = Requirements(folder, chosen.ends, timeout is not None)
        job = replace(chosen.job, retries=retries, timeout=timeout)
        with _cluster(client) as running, reaching(target, TARGET_OPTION):
            checked = check_workers(running, needed)
            now = now._replace(total=chosen.total, dashboard=dashboard_of(running))
            workers = Workers(running, needed, checked)
            now, failures = process_all(running, job, chosen.works(), workers, now, progress)
    with reaching(target, TARGET_OPTION):
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
    """Put in place what a run that died has left pending; record new times of unchanged files."""
    for name in {*chosen.pending, *chosen.touched}:
        with folder.lease(key_of(name)) as held, suppress(StoreLostError):
            there = record_of(folder, name)
            if not held or there is None:
                continue
            there = settled(folder, there)
            former, times = chosen.touched.get(name, ("", ""))
            if former and there.times == former:
                replace(there, times=times).write(folder)


def _ask(chosen: Selection, folder: Folder, redo: bool | Callable[[str], bool]) -> None:
    """Refuse to do again more than a tenth of what is done, unless that is wanted."""
    changed = chosen.before["changed"]
    done = chosen.before["done"] + changed
    if changed * 10 <= done or redo is True:
        return
    reasons = {
        "since the job or its options have changed": chosen.another_job,
        "since their files, or the decoding options, have": changed - chosen.another_job,
    }
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    message = f"{folder.url}: {changed} of {done} series that are done would be done again: {why}"
    if redo is False:
        raise StoreExistsError(f"{message}; redo=True (--redo) does so", code="not-asked-to-redo")
    if not redo(message):
        raise StoreExistsError(f"{message}; nothing was done", code="not-asked-to-redo")


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
    with in_use(Shared(folder)):
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
def _cluster(client: Client | None) -> Iterator[Client]:
    if client is not None:
        with all_kept(client):
            yield client
        return
    with cluster(None, *half_of_this_machine()) as started:
        assert started is not None
        yield started
