"""Selection of series: those of a source that are asked for and not done yet."""

from __future__ import annotations

import inspect
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from dask.system import CPU_COUNT

from dcmdask.archive.discovery import common_folder, folder_of, sources
from dcmdask.archive.scan import Scan, scan
from dcmdask.archive.series import Series
from dcmdask.archive.table import matching
from dcmdask.batch.code import pickled
from dcmdask.batch.identity import (
    checksum_of,
    identity,
    script_of,
    source_of,
    source_of_files,
    times_of,
)
from dcmdask.batch.records import SCAN, Record, left_out, names_of, read_records, relative
from dcmdask.batch.work import Job, Work
from dcmdask.dicom.image_pixel import HEADER_OPTIONS
from dcmdask.errors import StoreExistsError
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.sources.files import Stored
from dcmdask.sources.folder import Folder
from dcmdask.store.target.ownership import before_wildcard, check_apart

# Fields of a record that a selection does not need, and that take most of its memory.
_LONG: dict[str, Any] = {"numbers": {}, "outputs": {}, "files": [], "notes": [], "traceback": ""}


class Selection(NamedTuple):
    """Series to process, and those done before.

    Attributes
    ----------
    job : Job
    files : int
        Number of files that the scan has read.
    total : int
        Number of series to process.
    ends : tuple of Stored
        A file of the first of them and of the last; empty if there are none.
    waiting : deque
        Name of those that no worker has been given yet, and what returns them.
    before : mapping
        State of the series that were asked for to their number, as in `BatchReport`.
    another_job : int
        Number of those that have changed because the function or its options have.
    pending : sequence of str
        Names of series whose outputs a run that died has left whole and not all in place.
    touched : mapping
        Name to the former and the present times of series whose files have the same contents.
    left_out : dict
        Name to record of each file that may be part of a series and could not be read.
    gone : sequence of str
        Names of such records of earlier runs that no longer hold.
    """

    job: Job
    files: int
    total: int
    ends: tuple[Stored, ...]
    waiting: deque[tuple[str, Callable[[], Series]]]
    before: Mapping[str, int]
    another_job: int
    pending: Sequence[str]
    touched: Mapping[str, tuple[str, str]]
    left_out: Mapping[str, Record]
    gone: Sequence[str]

    def works(self) -> Iterator[Work]:
        """Yield the waiting series, once: one that is done takes no more memory."""
        while self.waiting:
            name, opened = self.waiting.popleft()
            one = opened()
            del opened
            # Pickling a series keeps memory with it, and it may belong to the caller.
            copied = Series(one.uid, one.instances, one.conflicts, one.left_out)
            yield Work(name, copied, source_of(copied), times_of(copied))


def selected(
    process: Callable[..., Any],
    source: Any,
    folder: Folder,
    *,
    options: Mapping[str, Any] | None = None,
    select: str | None = None,
    limit: int | None = None,
    only_failed: bool = False,
    thumbnails: bool = True,
    progress: Callable[[int, int | None], object] | None = None,
    **how: Any,
) -> Selection:
    """Scan `source`, and return the series to process.

    Parameters are those of :func:`dcmdask.batch.run`, but for `progress` and `how`, which are
    those of :func:`dcmdask.scan`.
    """
    given = dict(options or {})
    _check_call(process, given)
    found, source = _scanned(source, folder, progress, how)
    root, script = _root(source, found), script_of(process)
    names = names_of(found.keys(), root)
    every = range(len(found))
    chosen = (every if select is None else matching(found.to_frame(), select))[:limit]
    chosen = found.reading_order(chosen)
    job = Job(pickled(process), given, folder, identity(process, given), root, script, thumbnails)
    records = (left_out(one, root, job.identity, script) for one in found.doubtful)
    not_read = {one.name: one for one in records}
    before: dict[str, Record] = {}
    # Name to file, of those that are read now; other sources may have left out others.
    mended: dict[str, str] = {}
    with reaching(folder.url, TARGET_OPTION):
        for one in read_records(folder):
            if one.script != script:
                raise StoreExistsError(
                    f"{folder.url} holds results of another job, {one.script!r}, and {script!r} "
                    "would replace them: give each job a target of its own",
                    code="other-job",
                )
            if one.stage != SCAN:
                before[one.name] = replace(one, **_LONG)
            elif one.name not in not_read and one.source == source_of_files(root):
                mended[one.name] = one.file
    # A series that lacked a file has failed, too.
    lacking = set(mended.values())
    numbers, states, another_job = [], Counter[str](), 0
    touched: dict[str, tuple[str, str]] = {}
    for number in chosen:
        was = before.get(names[number])
        lacked = bool(lacking) and _has_one_of(lacking, found[number], root)
        if was is None and not lacked:
            state = "new"
        elif was is None or lacked or was.pending or not was.done:
            state = "failed"
        elif _is_current(was, job, series := found[number]):
            state = "done"
            if was.times != (times := times_of(series)):
                touched[was.name] = (was.times, times)
        else:
            state = "changed"
        if only_failed and state != "failed":
            continue
        states[state] += 1
        if state != "done":
            numbers.append(number)
        if state == "changed":
            another_job += was is not None and was.made_by != job.identity
    ends = tuple(found[numbers[end]].instances[end].source for end in (0, -1) if numbers)
    waiting = deque((names[number], found.opener(number)) for number in numbers)
    return Selection(
        job,
        found.files,
        len(waiting),
        ends,
        waiting,
        states,
        another_job,
        [name for name, one in before.items() if one.pending],
        touched,
        not_read,
        list(mended),
    )


def _scanned(
    source: Any,
    folder: Folder,
    progress: Callable[[int, int | None], object] | None,
    how: dict[str, Any],
) -> tuple[Scan, Any]:
    """Return the scan of a source that is apart from the target, and the source."""
    if isinstance(source, Scan):
        # A value of an element may be 0.
        if given := [name for name, value in how.items() if value or name in HEADER_OPTIONS]:
            raise ValueError(f"{', '.join(given)}: for the scan, and the source is a Scan already")
        found = source
    else:
        # An iterable is gone through twice.
        source = source if isinstance(source, str | os.PathLike) else list(source)
        check_apart(sources(source), folder.url, folder.options)
        found = scan(source, progress=progress, **how)
    if found.root:
        check_apart([found.root], folder.url, folder.options)
    elif found is source or how.get("follow_links"):
        # Links may lead to the target.
        files = (one.source.name for each in found for one in each.instances)
        folders = sorted(set(map(folder_of, files)))
        check_apart(folders, folder.url, folder.options)
    if not len(found) and not found.doubtful:
        raise ValueError(f"no series in the source; files looked into: {found.files}")
    return found, source


def _is_current(was: Record, job: Job, series: Series) -> bool:
    """Return whether results are of this job and of files with these contents."""
    if not was.is_of(job.identity, source_of(series), was.times):
        return False
    if was.times == times_of(series):
        return True
    try:
        return bool(was.checksum) and was.checksum == checksum_of(series, CPU_COUNT)
    except OSError:
        # They are read once more when they are processed.
        return False


def _root(source: Any, found: Scan) -> str:
    """Return the folder that paths in records are relative to: that of the source or its parts.

    It follows from the source as it was given, since the files in it change from run to run.
    """
    if found.root:
        return found.root
    files = (one.source.name for series in found for one in series.instances)
    names = chain(files, (one.path for one in found.doubtful))
    if isinstance(source, Scan):
        folders = set(map(folder_of, names))
    else:
        given = {*sources(source)}
        # A file counts by its folder, a pattern up to its first wildcard.
        single = given.intersection(names)
        folders = {folder_of(one) if one in single else before_wildcard(one) for one in given}
    return common_folder(folders)


def _has_one_of(files: set[str], series: Series, root: str) -> bool:
    """Return whether one of `files`, relative to the root, is of a series."""
    return any(relative(one.source.name, root) in files for one in series.instances)


def _check_call(process: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse a call that would fail for each series."""
    try:
        signature = inspect.signature(process)
    except (TypeError, ValueError):
        # Functions that are not written in Python may have no signature.
        return
    try:
        signature.bind(None, **options)
    except TypeError as error:
        raise ValueError(
            f"process cannot be called with a series and the options {sorted(options)}: {error}"
        ) from None
