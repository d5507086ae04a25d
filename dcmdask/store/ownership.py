"""Whether a file was written by dcmdask: the one rule for all that removes or replaces.

Nothing is removed that a mark or a record of the target does not list by name, and no target
is, holds or is found in the source that it is made from.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any

import fsspec

from dcmdask.archive.discovery import MARKS, STORE, is_mark
from dcmdask.dicom.access import TARGET, reaching
from dcmdask.errors import StoreExistsError

# How zarr names a local object before it is renamed into place.
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial\Z")


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of each file below a local folder, relative to it, with ``/`` between.

    Symbolic links are files here, whatever they lead to: none is followed.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(os.path.join(folder, above)) as entries:
            for entry in entries:
                path = f"{above}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                else:
                    yield path


def check_ours(where: str, there: Iterable[str], written: Container[str]) -> None:
    """Refuse to replace or remove files that were not written by dcmdask.

    Parameters
    ----------
    where : str
        The path or URL of the folder that they lie in.
    there : iterable of str
        Their paths relative to the folder.
    written : container of str
        Those that a mark or a record lists as written by dcmdask.

    Raises
    ------
    StoreExistsError
        One of them is not listed.
    """
    for path in there:
        if path not in written:
            raise StoreExistsError(
                f"{where.rstrip('/')}/{path} stands in the way: dcmdask did not write it, and "
                "replaces and removes only what it wrote; move it, or take another target"
            )


class StoreKeys(Container[str]):
    """Keys of the objects that dcmdask wrote to a Zarr store.

    Parameters
    ----------
    document : bytes
        Metadata of the group. The ``"arrays"`` of its attribute ``dcmdask`` give, by the name
        of each array, the number of its objects along each axis. Without them dcmdask did not
        write the store, and there are no keys but the temporary one that a process leaves
        which is killed at its first write.
    """

    def __init__(self, document: bytes) -> None:
        arrays = None
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            arrays = json.loads(document)["attributes"]["dcmdask"]["arrays"]
        self._is_ours = isinstance(arrays, dict)
        self._arrays: Mapping[str, Any] = arrays if isinstance(arrays, dict) else {}

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        final = TEMPORARY.sub("", key)
        if final != key and final.rpartition("/")[2] == "zarr":
            # Of a temporary object zarr leaves the suffix out.
            final += ".json"
        if final == STORE:
            return self._is_ours or final != key
        name, _, rest = final.partition("/")
        grid = self._arrays.get(name)
        if not isinstance(grid, list):
            return False
        kind, *index = rest.split("/")
        return rest == STORE or (
            kind == "c" and len(index) == len(grid) and all(map(_is_below, index, grid))
        )


def _is_below(number: str, count: Any) -> bool:
    """Return whether a part of a key is a number from 0 to below `count`, as zarr writes it."""
    written = re.fullmatch("0|[1-9][0-9]{0,18}", number)
    return written is not None and isinstance(count, int) and int(number) < count


def check_apart(
    sources: Iterable[str], target: str, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Refuse a target that is or holds a source, or that a later look at the source would find.

    A target in a folder of the source may be one that is not there yet, an empty folder, or
    one with a mark, which a scan leaves out. Links are followed.

    Parameters
    ----------
    sources : iterable of str
        Local paths, glob patterns and URLs for fsspec. Of a pattern the folder before the
        first wildcard counts, of a chained URL the last part.
    target : str
        A local path or a URL.
    storage_options : mapping, optional
        For the file system of `target`.

    Raises
    ------
    ValueError
        Naming both.
    UnreachableError
        The server of the target cannot be reached.

    Examples
    --------
    >>> check_apart(["s3://bucket/series/1.dcm"], "s3://bucket/series.zarr")
    >>> check_apart(["zip://**::s3://bucket/in/study.zip"], "s3://bucket/in")
    Traceback (most recent call last):
    ...
    ValueError: the target s3://bucket/in holds the source zip://**::s3://bucket/in/study.zip: ...
    """
    where = _place(target, is_pattern=False)
    for source in sources:
        place = _place(source, is_pattern=True)
        if where == place:
            how = "is"
        elif where == place[: len(where)]:
            how = "holds"
        elif place == where[: len(place)]:
            with reaching(target, TARGET):
                if _is_left_out(target, storage_options or {}):
                    continue
            how = "lies in"
        else:
            continue
        raise ValueError(f"the target {target} {how} the source {source}: take another target")


def _place(source: str, is_pattern: bool) -> tuple[str, ...]:
    """Return a path or URL as what it is reached by and the parts of its real path.

    Of a pattern, those before the first wildcard.
    """
    last = source.rpartition("::")[2]
    protocol, path = fsspec.core.split_protocol(last)
    if protocol in (None, "file", "local"):
        if is_pattern and glob.has_magic(path) and not os.path.lexists(path):
            path = os.sep.join(takewhile(lambda part: not glob.has_magic(part), path.split(os.sep)))
        real = os.path.normcase(os.path.realpath(os.path.expanduser(path or os.sep)))
        return ("", *filter(None, real.split(os.sep)))
    parts = [part for part in path.split("/") if part]
    # Protocols may have several names.
    kind = fsspec.get_filesystem_class(protocol)
    if is_pattern:
        parts = list(takewhile(lambda part: not glob.has_magic(part), parts))
    return (kind.__qualname__, *parts)


def _is_left_out(target: str, storage_options: Mapping[str, Any]) -> bool:
    """Return whether a scan of the folder that `target` lies in finds nothing in it."""
    fs, root = fsspec.core.url_to_fs(os.path.expanduser(target), **storage_options)
    fs.invalidate_cache()
    try:
        paths = fs.ls(root, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return True
    named = {path.rstrip("/").rpartition("/")[2]: path for path in paths}
    marks = named.keys() & MARKS
    if all(name in StoreKeys(b"") for name in named):
        # Empty, or what a process leaves that was killed at its first write.
        return True
    return any(is_mark(name, fs.cat_file(named[name])) for name in marks)
