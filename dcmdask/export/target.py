"""A folder that is replaced whole or not at all. Knows no zarr."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dcmdask.errors import StoreExistsError

# The file that a Zarr 3 group or array begins with. While a store is being written, that
# of the root is also the sign for tasks that somebody still wants what they write.
NODE = "zarr.json"
# Where zarr writes a local object before it renames it.
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial$")
# The name of a folder that is to take the place of another.
PARTIAL = re.compile(r"^\..*\.partial-[0-9a-f]{12}$")
# Of a name beside a target: a file system takes 255 bytes, of which this leaves room for more.
_LONGEST = 200
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
        Replace a Zarr 3 store. Anything else that is there, an empty folder excepted, is
        never replaced.

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
    its place, it comes back.
    """
    if len(os.fsencode(target.name)) > _LONGEST or not target.parent.is_dir():
        # Another target may have the same beginning.
        return
    for purpose in ("old-", "partial-"):
        beginning = hidden(target, purpose).name
        for left in target.parent.iterdir():
            if not re.fullmatch(re.escape(beginning) + "[0-9a-f]{12}", left.name):
                continue
            if purpose == "old-" and not os.path.lexists(target):
                os.rename(left, target)
            else:
                shutil.rmtree(left, ignore_errors=True)


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
        (partial / NODE).unlink()
    shutil.rmtree(partial, ignore_errors=True)
    # A write that zarr's own thread had under way makes its folders anew.
    for _ in range(_LATE_WRITES):
        time.sleep(0.01)
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


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
        if stranger := _stranger(target):
            raise StoreExistsError(
                f"{target} exists, and overwrite replaces nothing but Zarr 3 stores: "
                f"{'it' if stranger == target else stranger} is no part of one"
            )


def _state(target: Path) -> str:
    """Say in words whether an export left `target` unfinished."""
    try:
        told = json.loads((target / NODE).read_bytes())["attributes"]["dcmdask"]
        return ", an export that was not finished (resume goes on with it)" * (
            told["complete"] is False
        )
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _stranger(folder: Path) -> Path | None:
    """Return something in `folder` that does not belong to a Zarr 3 store, if there is any."""
    try:
        kind = json.loads((folder / NODE).read_bytes())["node_type"]
    except (OSError, ValueError, TypeError, KeyError):
        return folder
    for entry in folder.iterdir():
        if entry.name == NODE or TEMPORARY.search(entry.name):
            continue
        if kind == "array" and entry.name == "c":
            if stranger := _no_chunk(entry):
                return stranger
            continue
        if kind != "group" or not entry.is_dir():
            return entry
        if stranger := _stranger(entry):
            return stranger
    return None


def _no_chunk(folder: Path) -> Path | None:
    """Return something below `folder` that is no chunk: those have numbers for names."""
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if not name.isdecimal() and not TEMPORARY.search(name):
                return Path(above, name)
    return None


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
    # The new store is in place, whatever becomes of the old one.
    shutil.rmtree(aside, ignore_errors=True)
