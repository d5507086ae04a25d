"""`scan`: a tree of files becomes a sequence of series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from itertools import starmap
from typing import Any

from dcmdask.archive.discovery import Skipped, choice, is_catalog, is_url, may_be_lost, sources
from dcmdask.archive.grouping import copy_of, series_of
from dcmdask.archive.listing import Listing, outcomes
from dcmdask.archive.scanned import Scan
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import HEADER_OPTIONS, check_options

__all__ = ["Scan", "Skipped", "scan"]


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
        source, for the files that it lists; ``~`` is the home folder. A folder with a catalog, or
        a URL that ends in ``.catalog``, is opened as by :func:`dcmdask.open_catalog`. Or
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
    if len(listed) == 1 and is_catalog(listed[0]):
        from dcmdask.archive.catalog.catalog import opened_with

        if exclude or follow_links:
            raise ValueError("exclude and follow_links: the files of a catalog are chosen already")
        return opened_with(listed[0], storage_options, decoding_options)
    if storage_options and not all(map(is_url, listed)):
        raise ValueError("storage_options are for URLs, and a source is a local path")
    chosen = choice(exclude, follow_links)
    listing = Listing(listed, storage_options or {}, chosen, decoding_options)
    described: list[Described] = []
    skipped: list[Skipped] = []
    done = 0
    with closing(outcomes(listing)) as found:
        for some in found:
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
    skipped += starmap(copy_of, copies.items())
    name = listed[0] if len(listed) == 1 else f"{len(listed)} sources"
    return Scan(series, sorted(skipped), done, name)
