"""A folder that is replaced whole or not at all. Knows no zarr."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dcmdask.archive.discovery import STORE
from dcmdask.errors import StoreExistsError
from dcmdask.store.ownership import StoreKeys, check_ours, files_below

# The file that a Zarr 3 group or array begins with. While a store is being written, that
# of the root is also the sign for tasks that somebody still wants what they write.
NODE = STORE
# The name of that file, as that of one that is being written, in a store that is discarded.
_DISCARDED = f"zarr.{'0' * 32}.partial"
# The name of a folder that is to take the place of another.
PARTIAL = re.compile(r"^\..*\.partial-[0-9a-f]{12}\Z")
# Of a name beside a target: a file system takes 255 bytes, of which this leaves room for more.
_LONGEST = 200
_SYNCED_AT_ONCE = 16
# Files and folders. Of 10 000 files syncing each takes ten times as long as the system's way.
_SYNCED_ONE_BY_ONE = 256
# Looks at what is discarded, a hundredth of a second apart.
_LATE_WRITES = 8


@contextmanager
def replacing(target: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a new folder that takes the place of `target` once the body is through.

    Until then it is a hidden folder on the same file system, so that to rename it is one
    step. Where the body fails, `target` is what it was before, and the new folder is gone.

    Parameters
    ----------
    target : path
        Missing folders above it are made.
    overwrite : bool
        Replace a Zarr store that dcmdask wrote. Anything else that is there, an empty folder
        excepted, is never replaced.

    Raises
    ------
    StoreExistsError
        Something is there that must not be replaced; nothing was done.
    NotADirectoryError
        `target` lies in a file.
    """
    # A link is followed: the store that it leads to is replaced, and not the link.
    target = Path(os.path.realpath(target))
    check_replaceable(target, overwrite)
    mark = uuid.uuid4().hex[:12]
    # Not below folders that have yet to be made: a task that runs on would make them anew.
    partial = _above(target) / hidden(target, f"partial-{mark}").name
    try:
        partial.mkdir()
        yield partial
        check_replaceable(target, overwrite)
        _put_in_place(partial, target, hidden(target, f"old-{mark}"))
    except BaseException:
        discard(partial)
        raise


def recover(target: Path) -> None:
    """Clear up what a process left that was killed while it replaced `target`.

    Nobody else may be about to replace it. If the old store was put aside and nothing put in
    its place, it comes back. A folder that holds what dcmdask did not write stays as it is.
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
    """Return a name beside `target` that is not listed, short enough for a file system."""
    beginning = os.fsencode(target.name)[:_LONGEST].decode(errors="ignore")
    return target.with_name(f".{beginning}.{purpose}")


def discard(partial: Path) -> None:
    """Remove a store that is not wanted any more while tasks may still write to it.

    The sign goes first: a task that finds it gone behind its last write, and so may have
    made folders anew, calls this itself.
    """
    with suppress(OSError):
        os.replace(partial / NODE, partial / _DISCARDED)
    _remove(partial)
    # A write that zarr's own thread had under way makes its folders anew.
    for _ in range(_LATE_WRITES):
        time.sleep(0.01)
        if partial.exists():
            _remove(partial)


def _remove(folder: Path) -> None:
    """Remove a store: last what says that dcmdask wrote it, so that others can go on here."""
    with suppress(OSError):
        for entry in folder.iterdir():
            # Fails for a file.
            shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def check_store(folder: Path) -> None:
    """Refuse a folder that holds anything but a Zarr store that dcmdask wrote, or a part of one.

    Raises
    ------
    StoreExistsError
        It names the first file that dcmdask did not write, or the first link.
    """
    if folder.is_symlink() or not folder.is_dir():
        check_ours(os.fspath(folder.parent), [folder.name], ())
    document = b""
    for name in (_DISCARDED, NODE):
        if (folder / name).is_file():
            document = (folder / name).read_bytes()
    there = (
        f"{path} (a link)" if os.path.islink(folder / path) else path
        for path in files_below(folder)
    )
    check_ours(os.fspath(folder), there, StoreKeys(document))


def sync_below(folder: str | os.PathLike[str]) -> None:
    """Have the disk hold all files and folders below a local folder, and the folder itself.

    A file that was written and renamed may be empty otherwise, once the power has failed.
    """
    paths = [
        os.path.join(above, name) for above, _, names in os.walk(folder) for name in ("", *names)
    ]
    if len(paths) > _SYNCED_ONE_BY_ONE and hasattr(os, "sync"):
        # All of them in one go: what follows finds little left to do, and tells of errors.
        os.sync()
    # The disk does many at once in less time than one by one.
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        for _ in threads.map(sync, paths):
            pass


def sync(path: str | os.PathLike[str]) -> None:
    """Have the disk hold a file, or the names in a folder, where the file system can do that."""
    is_folder = os.path.isdir(path)
    try:
        # Windows syncs only what may be written to.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not is_folder:
            raise


def _above(target: Path) -> Path:
    return next(folder for folder in target.parents if os.path.lexists(folder))


def check_replaceable(target: Path, overwrite: bool) -> None:
    """Refuse a target at which there is something that is not to be replaced.

    Raises
    ------
    StoreExistsError, NotADirectoryError
    """
    if not os.path.lexists(target):
        if not (above := _above(target)).is_dir():
            raise NotADirectoryError(f"{target} cannot be written: {above} is a file")
    elif not (target.is_dir() and not any(target.iterdir())):
        if not overwrite:
            raise StoreExistsError(
                f"{target} exists{_state(target)}, and nothing is replaced without overwrite"
            )
        check_store(target)


def _state(target: Path) -> str:
    """Say in words whether an export left `target` unfinished."""
    try:
        told = json.loads((target / NODE).read_bytes())["attributes"]["dcmdask"]
        return ", an export that was not finished (resume goes on with it)" * (
            told["complete"] is False
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _put_in_place(partial: Path, target: Path, aside: Path) -> None:
    if not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial, target)
        return
    os.rename(target, aside)
    try:
        os.rename(partial, target)
    except BaseException:
        os.rename(aside, target)
        raise
    sync(target.parent)
    # The new store is in place, whatever becomes of the old one: half removed it must not
    # come back.
    os.rename(aside, partial)
    _remove(partial)
