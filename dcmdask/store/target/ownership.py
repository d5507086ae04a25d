"""Files that dcmdask wrote, and local stores that are replaced whole or not at all.

Nothing is removed that a mark or a record of the target does not list by name, and no target
is, holds or is found in the source that it is made from.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

import fsspec

from dcmdask.archive.discovery import ATTRIBUTES, GROUP, MARK_KEY, MARKS, is_mark
from dcmdask.errors import StoreExistsError
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.sources.dicomweb import is_dicomweb
from dcmdask.sources.folder import Folder, files_below
from dcmdask.store.zarr_format import METADATA, attributes_in, key_of

# Suffix of zarr's local objects before they are renamed into place.
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial\Z")


def check_ours(where: str, there: Iterable[str], written: Container[str]) -> None:
    """Refuse to replace or remove files in the folder `where` that dcmdask has not `written`.

    Paths are relative to the folder; a mark or a record lists those that were written.
    """
    for path in there:
        if path not in written:
            raise StoreExistsError(
                f"{where.rstrip('/')}/{path} stands in the way: dcmdask did not write it, and "
                "replaces and removes only what it wrote; move it, or take another target",
                code="not-written-by-dcmdask",
            )


def check_links(folder: Folder, keys: Iterable[str]) -> None:
    """Refuse symbolic links in a folder, and paths behind one: others may own the files there."""
    for key in keys:
        for path in (*reversed(PurePath(key).parents), PurePath(key)):
            if path.parts and folder.is_link(path.as_posix()):
                check_ours(folder.url, [f"{path.as_posix()} (a link)"], ())


class StoreKeys(Container[str]):
    """Keys of the objects that dcmdask wrote to a Zarr store.

    Parameters
    ----------
    document : bytes
        Metadata of the group, or in Zarr 2 its attributes. ``"arrays"`` of the attribute
        ``dcmdask`` has, by the path of each array, the number of objects along each axis, and of
        each group none. Without it dcmdask did not write the store, and the only key is the
        temporary one of a process that was killed at its first write.
    """

    def __init__(self, document: bytes) -> None:
        attributes, self._format = attributes_in(document)
        mark = attributes.get(MARK_KEY)
        arrays = mark.get("arrays") if isinstance(mark, dict) else None
        self._is_ours = isinstance(arrays, dict)
        self._arrays: Mapping[str, Any] = arrays if isinstance(arrays, dict) else {}

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        final = TEMPORARY.sub("", key)
        if final != key and final.rpartition("/")[2] == "zarr":
            # The names of zarr's temporary objects lack the suffix.
            final += ".json"
        above, _, file = final.rpartition("/")
        if not above and any(file in names for names in METADATA.values()):
            return final != key or (self._is_ours and file in METADATA[self._format])
        if file in METADATA[self._format]:
            return isinstance(self._arrays.get(above), list)
        if self._format == 2:
            # Numbers are separated by dots as well.
            final = f"{above}/{file.replace('.', '/')}"
        parts = final.split("/")
        names = ["/".join(parts[:count]) for count in range(1, len(parts))]
        return any(self._is_object(final, name, parts) for name in names)

    def _is_object(self, key: str, name: str, parts: list[str]) -> bool:
        """Return whether a key is of an object of this array; its last parts are its numbers."""
        grid = self._arrays.get(name)
        if not isinstance(grid, list) or len(grid) > len(parts):
            return False
        index = parts[len(parts) - len(grid) :]
        return key == key_of(name, index, self._format) and all(map(_is_below, index, grid))


def _is_below(number: str, count: Any) -> bool:
    """Return whether a part of a key is a number from 0 to below `count`, as zarr writes it."""
    written = re.fullmatch("0|[1-9][0-9]{0,18}", number)
    return written is not None and isinstance(count, int) and int(number) < count


def check_apart(
    sources: Iterable[str], target: str, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Refuse a target that is or holds a source, or that a scan of the source would find.

    A target in a folder of the source may be absent, an empty folder, or one with a mark, which
    a scan leaves out. Links are followed. The folder before the first wildcard of a pattern
    counts, and the last part of a chained URL. `storage_options` are those of the target.

    Examples
    --------
    >>> check_apart(["s3://bucket/series/1.dcm"], "s3://bucket/series.zarr")
    >>> check_apart(["zip://**::s3://bucket/in/study.zip"], "s3://bucket/in")
    Traceback (most recent call last):
    ...
    ValueError: the target s3://bucket/in holds the source zip://**::s3://bucket/in/study.zip: ...
    """
    where = _path_parts(target, is_pattern=False)
    for source in sources:
        parts = _path_parts(source, is_pattern=True)
        if where == parts:
            how = "is"
        elif where == parts[: len(where)]:
            how = "holds"
        elif parts == where[: len(parts)]:
            with reaching(target, TARGET_OPTION):
                if _is_left_out(target, storage_options or {}):
                    continue
            how = "lies in"
        else:
            continue
        raise ValueError(f"the target {target} {how} the source {source}: take another target")


def _path_parts(source: str, is_pattern: bool) -> tuple[str, ...]:
    """Return the kind of file system, and the parts of the real path before any wildcard."""
    last = source.rpartition("::")[2]
    protocol, path = fsspec.core.split_protocol(last)
    if is_dicomweb(last):
        return (protocol, *filter(None, path.split("/")))
    if protocol in (None, "file", "local"):
        if is_pattern:
            path = before_wildcard(path)
        real = os.path.normcase(os.path.realpath(os.path.expanduser(path or os.sep)))
        return ("", *filter(None, real.split(os.sep)))
    parts = [part for part in path.split("/") if part]
    # A protocol may have several names.
    kind = fsspec.get_filesystem_class(protocol)
    if is_pattern:
        parts = list(takewhile(lambda part: not glob.has_magic(part), parts))
    return (kind.__qualname__, *parts)


def before_wildcard(path: str) -> str:
    """Return a path or URL up to its first wildcard; a file may be called ``a[1].dcm``."""
    if not glob.has_magic(path) or os.path.lexists(path):
        return path
    parts = path.replace(os.sep, "/").split("/")
    return "/".join(takewhile(lambda part: not glob.has_magic(part), parts))


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
        # Empty, or left by a process that was killed at its first write.
        return True
    return any(is_mark(name, fs.cat_file(named[name])) for name in marks)


# A folder that is replaced whole or not at all

# While a store is being written, the file with its attributes also tells tasks that it is still
# wanted.
# Name of that file in a store that is discarded, as if it were being written.
_DISCARDED = f"zarr.{'0' * 32}.partial"
# Name of a folder that is to take the place of another.
PARTIAL = re.compile(r"^\..*\.partial-[0-9a-f]{12}\Z")
# Bytes of a name beside a target; a file system takes 255, with what is added to the name.
_LONGEST = 200
_SYNCED_AT_ONCE = 16
# Files and folders: syncing 10 000 of them one by one takes ten times as long as os.sync.
_SYNCED_ONE_BY_ONE = 256
# Number of looks at a discarded store, a hundredth of a second apart.
_LATE_WRITES = 8


@contextmanager
def replacing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a new folder that takes the place of `target` once the body is through.

    Until then it is a hidden folder on the same file system, so that renaming it is one step.
    Where the body fails, `target`, which is a real path, is unchanged, and the new folder is gone.
    """
    check_replaceable(target, overwrite)
    mark = uuid.uuid4().hex[:12]
    partial = hidden(target, f"partial-{mark}")
    try:
        partial.mkdir()
        yield partial
        check_replaceable(target, overwrite)
        _put_in_place(partial, target, hidden(target, f"old-{mark}"))
    except BaseException:
        discard(partial)
        raise


def recover(target: Path) -> None:
    """Clear up after a process that was killed while it replaced `target`.

    No other process may be about to replace it. An old store that was put aside comes back if
    nothing is in its place. A folder with files that dcmdask did not write stays as it is.
    """
    if len(os.fsencode(target.name)) > _LONGEST or not target.parent.is_dir():
        # Another target may have the same beginning.
        return
    for purpose in ("old-", "partial-"):
        beginning = hidden(target, purpose).name
        for left in target.parent.iterdir():
            if not re.fullmatch(re.escape(beginning) + "[0-9a-f]{12}", left.name):
                continue
            with suppress(StoreExistsError):
                check_store(left)
                if purpose == "old-" and not os.path.lexists(target):
                    os.rename(left, target)
                else:
                    _remove(left)


def hidden(target: Path, purpose: str) -> Path:
    """Return a hidden name beside `target`, short enough for a file system."""
    beginning = os.fsencode(target.name)[:_LONGEST].decode(errors="ignore")
    return target.with_name(f".{beginning}.{purpose}")


def discard(partial: Path) -> None:
    """Remove a store that is no longer wanted while tasks may still write to it.

    Its attributes go first: a task that finds it gone after its last write, which may have made
    folders anew, calls this itself.
    """
    for name in (GROUP, ATTRIBUTES):
        with suppress(OSError):
            os.replace(partial / name, partial / _DISCARDED)
    _remove(partial)
    # A write that zarr's thread has begun makes its folders anew.
    for _ in range(_LATE_WRITES):
        time.sleep(0.01)
        if partial.exists():
            _remove(partial)


def _remove(folder: Path) -> None:
    """Remove a store, its metadata last: others recognize a part of it as written by dcmdask."""
    with suppress(OSError):
        for entry in folder.iterdir():
            # Fails for a file.
            shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def check_store(folder: Path) -> None:
    """Refuse a folder that holds anything but a Zarr store that dcmdask wrote, or a part of one.

    Links are refused, too.
    """
    if folder.is_symlink() or not folder.is_dir():
        check_ours(os.fspath(folder.parent), [folder.name], ())
    document = b""
    for name in (_DISCARDED, ATTRIBUTES, GROUP):
        if (folder / name).is_file():
            document = (folder / name).read_bytes()
    there = (
        f"{path} (a link)" if os.path.islink(folder / path) else path
        for path in files_below(folder)
    )
    check_ours(os.fspath(folder), there, StoreKeys(document))


def sync_below(folder: str | os.PathLike[str]) -> None:
    """Write all files and folders below a local folder, and the folder itself, to the disk.

    A file that was renamed into place may otherwise be empty after a power failure.
    """
    paths = [
        os.path.join(above, name) for above, _, names in os.walk(folder) for name in ("", *names)
    ]
    if len(paths) > _SYNCED_ONE_BY_ONE and hasattr(os, "sync"):
        # All of them at once; syncing each after this is fast, and raises errors.
        os.sync()
    # Handing a path to a thread takes longer than most of them do.
    parts = [paths[i::_SYNCED_AT_ONCE] for i in range(_SYNCED_AT_ONCE)]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        for _ in threads.map(_sync_all, parts):
            pass


def _sync_all(paths: Iterable[str]) -> None:
    for path in paths:
        sync(path)


def sync(path: str | os.PathLike[str]) -> None:
    """Write a file, or the names in a folder, to the disk, where the file system can do that."""
    is_folder = os.path.isdir(path)
    try:
        # Windows syncs writable files only.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not is_folder:
            raise


def check_replaceable(target: Path, overwrite: bool) -> None:
    """Refuse anything at the target but an empty folder, or with `overwrite` a store of ours."""
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    if overwrite:
        check_store(target)
        return
    unfinished = False
    for name in (GROUP, ATTRIBUTES):
        with suppress(OSError):
            mark = attributes_in((target / name).read_bytes())[0].get(MARK_KEY)
            unfinished |= isinstance(mark, dict) and mark.get("complete") is False
    state = ", an export that was not finished (resume goes on with it)" if unfinished else ""
    raise StoreExistsError(
        f"{target} exists{state}, and nothing is replaced without overwrite",
        code="incomplete" if unfinished else "exists",
    )


def _put_in_place(partial: Path, target: Path, aside: Path) -> None:
    if not os.path.lexists(target):
        os.rename(partial, target)
        return
    os.rename(target, aside)
    try:
        os.rename(partial, target)
    except BaseException:
        os.rename(aside, target)
        raise
    sync(target.parent)
    # The old store is renamed once more: half removed, it must not come back.
    os.rename(aside, partial)
    _remove(partial)
