"""Selection of series: those of a source that are asked for and not done yet."""

from __future__ import annotations

import glob
import inspect
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.system import CPU_COUNT

from dcmdask.archive.discovery import sources
from dcmdask.archive.scan import Scan, scan
from dcmdask.archive.series import Series
from dcmdask.batch.folder import Folder
from dcmdask.batch.identity import identity, script_of
from dcmdask.batch.pickling import pickled
from dcmdask.batch.records import (
    SCAN,
    Record,
    is_current,
    left_out,
    names_of,
    read_records,
    told_from,
)
from dcmdask.batch.source import checksum_of, source_of, source_of_files, times_of
from dcmdask.batch.work import Job, Work
from dcmdask.dicom.access import TARGET, reaching
from dcmdask.dicom.files import Stored
from dcmdask.errors import StoreExistsError
from dcmdask.store.ownership import check_apart

if TYPE_CHECKING:
    import pandas as pd

# Values of a column that a query which matches nothing is told of.
_SHOWN = 10
_TRUTHS = ("bool", "boolean", "bool[pyarrow]")
# By the names that DICOM has for them, too.
_KEYWORDS = {
    "modality": "Modality",
    "series_uid": "SeriesInstanceUID",
    "study_uid": "StudyInstanceUID",
    "rows": "Rows",
    "columns": "Columns",
}


class Selection(NamedTuple):
    """Series to process, and those done before.

    Attributes
    ----------
    job : Job
    files : int
        That the scan has looked into.
    total : int
        How many series are to be processed.
    ends : tuple of Stored
        A file of the first of them and of the last; none if there are none.
    waiting : deque
        Name of the output, and series, of those that nobody has been given yet.
    before : mapping
        How many of those that were asked for are what: as `BatchReport` has it.
    another_job : int
        How many have changed since the function or its options have.
    pending : sequence of str
        Names of series whose outputs a run that died has left whole and not all in place.
    touched : mapping
        Name to the former and the present times of series whose files have the same contents.
    left_out : dict
        Name to record of each file that may be part of a series and could not be looked into.
    gone : sequence of str
        Names of such records that are there and no longer hold.
    """

    job: Job
    files: int
    total: int
    ends: tuple[Stored, ...]
    waiting: deque[tuple[str, Series]]
    before: Mapping[str, int]
    another_job: int
    pending: Sequence[str]
    touched: Mapping[str, tuple[str, str]]
    left_out: Mapping[str, Record]
    gone: Sequence[str]

    def works(self) -> Iterator[Work]:
        """Yield what waits, once: a series that is through takes no more memory."""
        while self.waiting:
            name, one = self.waiting.popleft()
            # To pickle an object adds to it what is not given back, and it may be somebody else's.
            copied = Series(one.uid, one.instances, one.conflicts, one.left_out)
            yield Work(name, copied, source_of(copied), times_of(copied))


class _Before(NamedTuple):
    """Of a record that is there, what tells whether its series is to be processed."""

    done: bool
    made_by: str
    made_from: str
    pending: bool
    times: str
    checksum: str

    @classmethod
    def of(cls, record: Record) -> _Before:
        return cls(*(getattr(record, name) for name in cls._fields))

    def is_of(self, series: Series) -> bool:
        """Return whether the files have the contents that the results were made of."""
        try:
            return bool(self.checksum) and self.checksum == checksum_of(series, CPU_COUNT)
        except OSError:
            # They are looked at once more when they are processed.
            return False


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
    """Scan `source`, and return what is to be done.

    Parameters are those of :func:`dcmdask.batch.run`, but for `progress` and `how`, which are
    those of :func:`dcmdask.scan`.
    """
    given = dict(options or {})
    _check_call(process, given)
    if isinstance(source, Scan):
        if any(how.values()):
            raise ValueError(f"{', '.join(how)} are for the scan, and the source is a Scan already")
        found = source
    else:
        # It is looked at twice.
        source = source if isinstance(source, str | os.PathLike) else list(source)
        check_apart(sources(source), folder.url, folder.options)
        found = scan(source, progress=progress, **how)
    if found is source or how.get("follow_links"):
        # Links may lead to the target.
        check_apart(_folders(found), folder.url, folder.options)
    if not len(found) and not found.doubtful:
        raise ValueError(f"no series in the source; files looked into: {found.files}")
    root, script = _root(source, found), script_of(process)
    names = names_of(found, root)
    chosen = _chosen(found, select)[:limit]
    job = Job(pickled(process), given, folder, identity(process, given), root, script, thumbnails)
    told = (left_out(one, root, job.identity, script) for one in found.doubtful)
    not_read = {one.name: one for one in told}
    before: dict[str, _Before] = {}
    # Name to file; what another source left out is not ours.
    mended: dict[str, str] = {}
    with reaching(folder.url, TARGET):
        for one in read_records(folder):
            if one.script != script:
                raise StoreExistsError(
                    f"{folder.url} holds what another job, {one.script!r}, made, and {script!r} "
                    "would replace it: give each job a target of its own"
                )
            if one.stage != SCAN:
                before[one.name] = _Before.of(one)
            elif one.name not in not_read and one.source == source_of_files(root):
                mended[one.name] = one.file
    # What a file was left out of has failed, too.
    held_back = set(mended.values())
    numbers, states, another_job = [], Counter[str](), 0
    touched: dict[str, tuple[str, str]] = {}
    for number in chosen:
        series, was = found[number], before.get(names[number])
        held = _holds(series, held_back, root)
        if only_failed and not held and (was is None or (was.done and not was.pending)):
            continue
        if was is None or not was.done or was.pending or held:
            states["failed" if was or held else "new"] += 1
        elif _is_done(was, job, series, touched, names[number]):
            states["done"] += 1
            continue
        else:
            states["changed"] += 1
            another_job += was.made_by != job.identity
        numbers.append(number)
    ends = tuple(found[numbers[end]].instances[end].source for end in (0, -1) if numbers)
    waiting = deque((names[number], found[number]) for number in numbers)
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


def _folders(found: Scan) -> list[str]:
    """Return the folders that the files of a scan lie in."""
    return sorted({one.source.name.rpartition("/")[0] for each in found for one in each.instances})


def _is_done(
    was: _Before, job: Job, series: Series, touched: dict[str, tuple[str, str]], name: str
) -> bool:
    """Return whether the results are of this job and these files; note files only touched since."""
    times = times_of(series)
    if not is_current(was, job.identity, source_of(series), was.times):
        return False
    if was.times != times:
        if not was.is_of(series):
            return False
        touched[name] = (was.times, times)
    return True


def _root(source: Any, found: Scan) -> str:
    """Return the folder that records tell paths from: the source, or what all its parts share.

    Of a source as it was given, since what is found in it changes from run to run.
    """
    files = (one.source.name for series in found for one in series.instances)
    names = chain(files, (one.path for one in found.doubtful))
    if isinstance(source, Scan):
        folders = {os.path.dirname(name) for name in names}
    else:
        given = {*sources(source)}
        # A file counts by its folder, a pattern up to its first wildcard.
        single = given.intersection(names)
        folders = {os.path.dirname(one) if one in single else _plain_part(one) for one in given}
    parts = sorted(name.split("/") for name in folders) or [[]]
    both = zip(parts[0], parts[-1], strict=False)
    return "/".join(one for one, other in takewhile(lambda pair: pair[0] == pair[1], both))


def _plain_part(source: str) -> str:
    """Return a path or URL up to its first wildcard."""
    if not glob.has_magic(source) or os.path.lexists(source):
        return source
    return "/".join(takewhile(lambda part: not glob.has_magic(part), source.split("/")))


def _holds(series: Series, files: set[str], root: str) -> bool:
    """Return whether one of `files`, told from the root, is of a series."""
    return any(told_from(root, one.source.name) in files for one in series.instances if files)


def _chosen(found: Scan, select: str | None) -> Sequence[int]:
    """Return the numbers of the series that a query selects."""
    if select is None:
        return range(len(found))
    frame = found.to_frame().reset_index(drop=True)
    for column, keyword in _KEYWORDS.items():
        frame[keyword] = frame[column]
    try:
        # No names but those of columns.
        truths = frame.eval(select, local_dict={}, global_dict={})
    except Exception as error:
        # pandas raises whatever the expression led to.
        raise ValueError(
            f"select {select!r}: {error}; columns are {', '.join(map(str, frame.columns))}"
        ) from error
    if getattr(truths, "shape", None) != (len(frame),) or str(truths.dtype).lower() not in _TRUTHS:
        raise ValueError(f"select {select!r} does not say yes or no of each series")
    chosen = [number for number, yes in enumerate(truths.fillna(False)) if yes]
    if not chosen:
        there = "; ".join(_values(frame, name) for name in frame.columns if name in select)
        raise ValueError(f"select {select!r} matches none of {len(frame)} series: {there}")
    return chosen


def _values(frame: pd.DataFrame, column: str) -> str:
    """Return the values of a column, the most frequent first, in words."""
    counts = frame[column].map(str).value_counts()
    told = ", ".join(f"{value} ({count})" for value, count in counts.head(_SHOWN).items())
    return f"{column} is {told}" + (", ..." if len(counts) > _SHOWN else "")


def _check_call(process: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse what would fail for each series alike."""
    try:
        signature = inspect.signature(process)
    except (TypeError, ValueError):
        # Of what is not written in Python nothing is known.
        return
    try:
        signature.bind(None, **options)
    except TypeError as error:
        raise ValueError(
            f"process cannot be called with a series and the options {sorted(options)}: {error}"
        ) from None
