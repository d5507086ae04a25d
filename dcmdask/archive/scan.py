"""`scan`: a tree of files becomes a sequence of series."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, overload

from pydicom.datadict import tag_for_keyword

from dcmdask.archive.containers.media import medium_of, unzipped
from dcmdask.archive.containers.members import Archive, archive_of
from dcmdask.archive.descriptions import Outcome, describe_files, describe_located
from dcmdask.archive.discovery import (
    Choice,
    Skipped,
    choice,
    common_folder,
    discover,
    discover_listed,
    is_url,
    may_be_lost,
    sources,
)
from dcmdask.archive.grouping import series_of
from dcmdask.archive.processes import describe_in_processes, in_threads
from dcmdask.archive.remote import discover as discover_url
from dcmdask.archive.series import Series
from dcmdask.archive.served import describe_series, served_outcomes
from dcmdask.archive.served import discover as discover_served
from dcmdask.archive.table import COLUMNS, HEADS, cells, frame_of, has_value, matching, row
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import HEADER_OPTIONS, check_options, inflate_limit
from dcmdask.errors import HeaderError
from dcmdask.pixels.notebook import html_table
from dcmdask.sources.access import reaching
from dcmdask.sources.dicomweb import Resource, is_dicomweb

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Scan", "Skipped", "scan"]

# Files that are described together: the answer of a worker process is worth its trip.
BATCH = 64
# Seconds after which it pays to start processes, which takes about as long: some thousand
# files on a disk that is quick, a hundred on one that is not.
PATIENCE = 0.25
# Series that a table in a notebook shows.
_SHOWN = 100
# Requests to a server that are under way at once.
REMOTE_THREADS = 64


def scan(
    src: Any,
    *,
    exclude: Iterable[str] | str = (),
    follow_links: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> Scan:
    """Find the series under a folder, or among files; only headers are read.

    Names, suffixes and nesting do not matter. Where it takes longer than a moment, a process
    for each core reads the local files. Files and folders that are no part of a series are
    named in `skipped` and stop nothing: files that are not DICOM, have no pixel data, are damaged
    or vanish meanwhile, folders that cannot be read, links to folders, and folders below `src`
    that dcmdask wrote.

    Of files with the same SOP Instance UID in one series, those with the same pixel data,
    lookup tables and facts are one instance: the first by name is kept. Where they differ all
    are kept, and the series says so among its irregularities. A series is its Series Instance
    UID, whatever its Study Instance UIDs are; instances without one are grouped by study,
    modality and folder.

    Parameters
    ----------
    src : str, path-like, or iterable of these
        A folder, a file, a glob pattern (``**`` for any number of folders), or a URL of
        fsspec that is one of these, also inside an archive: ``"zip://a/**::archive.zip"``.
        Folders that a pattern names are scanned whole. A ZIP or TAR file stands for its members,
        also a gzipped one, a gzipped file for what is in it, and a DICOMDIR, if it is the only
        source, for the files that it lists; ``~`` is the home folder. Or
        ``"dicomweb+https://host/root"``, a DICOMweb server, also with ``/studies/UID``,
        ``/series/UID`` and ``/instances/UID`` behind it: metadata is read, of a series at a time.
    exclude : str or iterable of str, optional
        Patterns such as ``"*.png"`` or ``"thumbnails"`` for the names of files and folders
        to leave out, at any depth; one with a slash, such as ``"old/*.dcm"``, is for the
        path below `src`. Folders that are left out are not entered. `src` itself is never left
        out.
    follow_links : bool, optional
        Follow links to folders. Each folder is scanned once, also where links lead round in
        a circle.
    progress : callable, optional
        Called now and then with the number of files that are done, and how many there are,
        which is None until all are found.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of URLs; for a DICOMweb server
        ``{"headers": {...}}``.
    **decoding_options
        For all files, which are opened with them as well: overrides of group 0028 by pydicom's
        keywords (`rows`, `bits_stored`, `photometric_interpretation`, ...) and
        `transfer_syntax_uid`, where headers lack an element or are wrong; `inflate_limit` and
        `allow_excess_frames`.

    Returns
    -------
    Scan
        Of series, sorted by Study and Series Instance UID; empty where nothing was found.

    Raises
    ------
    FileNotFoundError
        A path is not there, or a pattern matches nothing.
    TypeError
        There is no such option.
    HeaderError
        The only source is an archive that is damaged.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pydicom.data import get_testdata_file
    >>> found = scan(Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests" / "98892003")
    >>> found
    <Scan: 7 series, 17 instances of 17 files>
    >>> len(found[0])
    7
    """
    check_options(decoding_options, scan, HEADER_OPTIONS)
    listed = sources(src)
    if storage_options and not all(map(is_url, listed)):
        raise ValueError("storage_options are for URLs, and a source is a local path")
    chosen = choice(exclude, follow_links)
    listing = _Listing(listed, storage_options or {}, chosen, decoding_options)
    described: list[Described] = []
    skipped: list[Skipped] = []
    done = 0
    with closing(_outcomes(listing)) as outcomes:
        for some in outcomes:
            for one in some:
                if isinstance(one, Skipped):
                    skipped.append(one)
                else:
                    described.append(one)
            done += len(some)
            if progress is not None:
                progress(done, listing.files if listing.complete else None)
    skipped += listing.skipped
    series, copies = series_of(described, sorted(filter(may_be_lost, skipped)))
    skipped += copies
    name = listed[0] if len(listed) == 1 else f"{len(listed)} sources"
    return Scan(series, sorted(skipped), done, name)


class Scan(Sequence[Series]):
    """The series that :func:`scan` found.

    A sequence: ``scan[0]`` is a `Series`, ``scan[2:5]`` a tuple of them, and
    ``scan["1.2.3"]`` the one with this Series Instance UID, or whose UID ends like this. In a
    notebook it is a table.

    Attributes
    ----------
    skipped : tuple of Skipped
        ``(path, reason, kind, code)`` of each file or folder that is no part of a series, sorted
        by path.
    doubtful : tuple of Skipped
        Those of `skipped` that may be part of a series: damaged, unreadable, gone.
    files : int
        Number of files that were looked into.
    name : str
        Display name of the source.
    """

    def __init__(
        self, series: Iterable[Series], skipped: Iterable[Skipped], files: int, name: str
    ) -> None:
        self._series = tuple(series)
        self.skipped = tuple(skipped)
        self.doubtful = tuple(one for one in self.skipped if one.kind == "doubtful")
        self.files = files
        self.name = name

    def __len__(self) -> int:
        return len(self._series)

    @overload
    def __getitem__(self, key: int | str) -> Series: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Series, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Series | tuple[Series, ...]:
        if not isinstance(key, str):
            return self._series[key]
        same = [one for one in self if one.uid == key]
        found = same or [one for one in self if key and one.uid.endswith(key)]
        if len(found) != 1:
            raise KeyError(
                f"the Series Instance UIDs of {len(found)} of {len(self)} series are {key!r} or "
                "end like this"
            )
        return found[0]

    def __repr__(self) -> str:
        instances = sum(map(len, self))
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<Scan: {len(self)} series, {instances} instances of {self.files} files{skipped}>"

    def _repr_html_(self) -> str:
        rows = self.rows()[:_SHOWN]
        root = common_folder(row["folder"] for row in rows)
        shown = [cells(row, root) for row in rows]
        more = f"; {len(self) - _SHOWN} more are not shown" if len(self) > _SHOWN else ""
        return html_table(f"{len(self)} series of {self.files} files in {root}{more}", HEADS, shown)

    def select(self, query: str | None = None, **elements: Any) -> Scan:
        """Return the series that match, as a scan.

        Parameters
        ----------
        query : str, optional
            Expression of pandas over the columns of :meth:`to_frame`, such as
            ``"Modality == 'MR' and frames > 20"``.
        **elements
            Values by DICOM keyword. Text may have wildcards, such as
            ``SeriesDescription="*bold*"``, and does not tell cases apart. What a scan does not keep
            is read from the header of the first instance of each series.

        Returns
        -------
        Scan
            Empty if no value matches.

        Raises
        ------
        ValueError
            `query` cannot be evaluated, or matches nothing; the message says what there is.
        ImportError
            There is a `query`, and pandas is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892003"
        >>> scan(folder).select(Modality="MR", SeriesDescription="angio*")
        <Scan: 1 series, 7 instances of 17 files>
        """
        for keyword in elements:
            if tag_for_keyword(keyword) is None:
                raise ValueError(f"{keyword!r} is not a DICOM keyword")
        places = range(len(self)) if query is None else matching(self.rows(), query)
        chosen = [self[place] for place in places]
        chosen = [one for one in chosen if all(has_value(one, *pair) for pair in elements.items())]
        return Scan(chosen, self.skipped, self.files, self.name)

    def rows(self) -> list[dict[str, Any]]:
        """Return facts of each series, as JSON has types for them.

        Nothing in it but ``description`` and ``folder`` can be personal; UIDs are there, so that
        the source can be found again.

        Returns
        -------
        list of dict
            ``number`` is the place in this scan. ``kinds`` are those of the stacks. ``rows``,
            ``columns``, ``samples`` and ``dtype`` are None where instances differ, ``summary``
            (a line that says what it is), ``dims``, ``shape`` and ``spacing`` (z, y, x in mm,
            None where it is not known) where there is not exactly one stack.
            ``irregularities`` are in words.
        """
        return [row(number, series) for number, series in enumerate(self)]

    def to_frame(self) -> pd.DataFrame:
        """Return :meth:`rows` as a pandas data frame, one row for each series.

        Raises
        ------
        ImportError
            pandas is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/77654033"
        >>> table = scan(folder).to_frame()
        >>> table[["modality", "frames", "dims", "regular"]]
          modality  frames           dims  regular
        0       CR       1  [frame, y, x]     True
        1       CR       1  [frame, y, x]     True
        2       CR       1  [frame, y, x]     True
        3       CT       4      [z, y, x]    False
        >>> table[~table.regular].irregularities.item()
        ['gaps are uneven, from 1.25 to 202.5 mm (median 1.25): 202.5 mm behind the frame that \
is 0 mm from the first']
        """
        return frame_of(self.rows())


# Files


@dataclass
class _Listing:
    """Sources, and the state of listing them."""

    sources: Sequence[str]
    storage_options: Mapping[str, Any]
    chosen: Choice
    decoding_options: Mapping[str, Any]
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0
    listed: int = 0

    @property
    def complete(self) -> bool:
        return self.listed == len(self.sources)

    def batches(self, remote: bool, size: int) -> Iterator[list[Any]]:
        """Yield the files of local or remote sources, `size` at a time, while listing them.

        Local ones are paths, remote ones what :func:`dcmdask.archive.remote.discover` yields.
        """
        found = self._paths(remote)
        # Folders and patterns that overlap lead to the same file.
        paths = found if len(self.sources) == 1 else _once(found)
        while batch := list(islice(paths, size)):
            self.files += len(batch)
            yield batch

    def archives(self) -> dict[str, list[str]]:
        """Return the archives among the sources, and what of each is to be scanned."""
        found: dict[str, list[str]] = {}
        for source in self.sources:
            if is_url(source) and not is_dicomweb(source) and (archive := archive_of(source)):
                found.setdefault(archive, []).append(source)
        return found

    @cached_property
    def gzipped(self) -> frozenset[str]:
        """Gzipped files among the sources, which are not those of an archive."""
        local = (one for one in self.sources if not is_url(one))
        return frozenset(one for one in local if medium_of(one) == "gzip")

    def served(self) -> Iterator[Resource]:
        """Yield what sources on DICOMweb servers are: series, and single instances."""

        def found() -> Iterator[Resource]:
            for source in filter(is_dicomweb, self.sources):
                yield from self._kept(discover_served(source, self.storage_options, self.chosen))
                self.listed += 1

        return _once(found())

    def opened(self, found: Iterable[str | Skipped], sources: int) -> list[str]:
        """Return the members of an archive that so many of the sources lead to."""
        members = list(self._kept(found))
        self.files += len(members)
        self.listed += sources
        return members

    def _paths(self, remote: bool) -> Iterator[Any]:
        for source in self.sources:
            if is_url(source) is not remote or is_dicomweb(source):
                continue
            if remote and archive_of(source):
                continue
            if source in self.gzipped:
                continue
            if remote:
                found = discover_url(source, self.storage_options, self.chosen)
            elif len(self.sources) == 1 and medium_of(source) == "directory":
                # Among other files it is one of them, as where all files of a disc are listed.
                found = discover_listed(source)
            else:
                found = discover(source, self.chosen)
            yield from self._kept(found)
            self.listed += 1

    def _kept(self, found: Iterable[Any]) -> Iterator[Any]:
        for one in found:
            if isinstance(one, Skipped):
                self.skipped.append(one)
            else:
                yield one


def _once(paths: Iterable[Any]) -> Iterator[Any]:
    seen: set[Any] = set()
    for path in paths:
        if path not in seen:
            seen.add(path)
            yield path


def _outcomes(listing: _Listing) -> Generator[list[Outcome]]:
    """Yield what each file is, some at a time, in any order."""
    known: dict[Any, Any] = {}
    options = listing.decoding_options
    batches = listing.batches(remote=False, size=BATCH)
    started = time.monotonic()
    for batch in batches:
        if time.monotonic() - started > PATIENCE:
            # A scan that ends before need not wait for dask to be imported.
            from dask.system import CPU_COUNT

            yield from describe_in_processes(chain([batch], batches), CPU_COUNT, options)
        else:
            yield describe_files(batch, known=known, options=options)
    for path in listing.opened(sorted(listing.gzipped), len(listing.gzipped)):
        limit = inflate_limit(options)
        yield [describe_located(path, partial(unzipped, path, limit), known, options)]
    for name, urls in listing.archives().items():
        try:
            with reaching(urls[0]):
                archive = Archive(name, listing.storage_options)
        except HeaderError as error:
            if len(urls) == len(listing.sources):
                raise
            listing.skipped.append(Skipped(urls[0], error.message, "doubtful", error.code))
            continue
        for url in listing.opened(archive.discover(urls, listing.chosen), len(urls)):
            yield [archive.describe(url, known, options)]
    describe = partial(
        describe_files,
        storage_options=listing.storage_options,
        known=known,
        options=options,
    )
    yield from in_threads(describe, listing.batches(remote=True, size=1), REMOTE_THREADS)
    describe = partial(
        describe_series,
        storage_options=listing.storage_options,
        known=known,
        options=options,
        chosen=listing.chosen,
    )
    for outcomes in served_outcomes(listing.sources, listing.served(), describe, REMOTE_THREADS):
        listing.files += len(outcomes)
        yield outcomes
