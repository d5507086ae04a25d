"""Collections that are opened as one array: folders, lists, patterns and archives."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from dcmdask.archive.containers.media import medium_of, unzipped
from dcmdask.archive.copies import OnDuplicate
from dcmdask.archive.discovery import local_path
from dcmdask.archive.scan import Scan
from dcmdask.archive.series import Series
from dcmdask.errors import Advice, AmbiguousSourceError
from dcmdask.images.volume import Stack
from dcmdask.sources import files
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.dicomweb import LEVELS, is_dicomweb, resource_of
from dcmdask.sources.ranges import is_http

# Number of series or files that a message lists.
_LISTED = 3


def one_file(
    src: Any,
    storage_options: Mapping[str, Any] | None = None,
    limit: int = files.INFLATE_LIMIT,
) -> Any:
    """Return the one file that `src` stands for, as it is opened; None where it stands for several.

    Parameters
    ----------
    src : str, path-like, file-like, bytes, Dataset, Source or iterable
        ``~`` is a home folder.
    storage_options : mapping, optional
    limit : int, optional
        Bytes that may be in a gzipped file, of which those that are in it are returned, and in
        one of a server that gives no parts.

    Raises
    ------
    FileNotFoundError
        There is no such file on a server.
    """
    if not isinstance(src, str | os.PathLike):
        one = isinstance(src, bytes | bytearray | memoryview | Dataset) or hasattr(src, "read")
        return src if one or not isinstance(src, Iterable) else None
    name = os.fsdecode(src)
    if "://" not in name:
        path = os.path.expanduser(name)
        local = local_path(name)
        is_pattern = glob.has_magic(local) and not os.path.lexists(local)
        medium = medium_of(local)
        if is_pattern or os.path.isdir(local) or medium in ("zip", "tar", "directory"):
            return None
        return unzipped(path, limit) if medium == "gzip" else path
    if is_dicomweb(name):
        is_instance = len(resource_of(name).uids) == len(LEVELS)
        return files.locate(name, storage_options, limit) if is_instance else None
    with reaching(name):
        fs, path = file_system(name, storage_options or {})
        if glob.has_magic(path) and not fs.exists(path):
            return None
        if is_http(fs) and path.endswith("/"):
            # A page of links, which cannot be told from a file in another way.
            return None
    try:
        return files.locate(name, storage_options, limit)
    except IsADirectoryError:
        return None


def only_stack(found: Scan, on_duplicate: OnDuplicate = "error") -> Stack:
    """Return the one stack of the one series, and warn of files that may belong to it."""
    series = only_series(found)
    series.warn_left_out()
    return series.only_stack(on_duplicate)


def check_found(found: Scan) -> None:
    """Raise where a scan has found no series, with the first files that were left out."""
    if not len(found):
        head = f"there are no DICOM images; files looked at: {found.files}"
        skipped = [f"- {one.path}: {one.reason}" for one in found.skipped[:_LISTED]]
        raise AmbiguousSourceError("\n".join([head, *skipped]), source=found.name, code="no-image")


def only_series(found: Scan) -> Series:
    """Return the one series of a scan."""
    check_found(found)
    if len(found) != 1:
        series = [f"- {one.name}, {len(one)} instances" for one in found[:_LISTED]]
        series += [f"- and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        listed = "\n".join(series)
        raise AmbiguousSourceError(
            f"{len(found)} series where one is meant, in {found.files} files:\n{listed}",
            source=found.name,
            code="series",
            advice=[Advice("", "", "scan(...) gives all: each has to_dask() and to_xarray()")],
        )
    return found[0]
