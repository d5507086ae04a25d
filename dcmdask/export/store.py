"""Where a store is: made new, gone on with or replaced, and complete only at the end.

The group's attribute ``dcmdask`` says ``"complete": false`` from the first to the last but
one write. Its ``"plan"`` is what a later export has to have in common to go on.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fsspec
import zarr
from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from dcmdask.errors import StoreExistsError
from dcmdask.export.target import (
    NODE,
    TEMPORARY,
    check_replaceable,
    hidden,
    recover,
    replacing,
)
from dcmdask.frames import files

# The one attribute of a group that this package writes.
KEY = "dcmdask"
# Blank chunks are written, too: an object that does not exist has not been written.
CONFIG: Any = {"write_empty_chunks": True}
# File systems that put an object whole or not at all.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
_FILTERS = threading.Lock()
Target: TypeAlias = "str | os.PathLike[str] | Store"


class Place(NamedTuple):
    """A store, and how its objects are listed and removed.

    Attributes
    ----------
    store : zarr.abc.store.Store
    fs : fsspec.AbstractFileSystem or None
        None for a store of zarr's that is neither local nor on one.
    root : str
        On `fs`.
    """

    store: Store
    fs: Any
    root: str

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.store, LocalStore)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each object, by key."""
        self.fs.invalidate_cache()
        found = self.fs.find(self.root, detail=True)
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(entry["size"]) for path, entry in found.items()}

    def remove(self, keys: list[str]) -> None:
        """Remove objects."""
        for key in keys:
            self.fs.rm_file(f"{self.root.rstrip('/')}/{key}")


def located(store: Target) -> Place:
    """Return where `store` is.

    Parameters
    ----------
    store : str, path-like or zarr.abc.store.Store
        A local path, a URL for fsspec or a store of zarr's.
    """
    if isinstance(store, LocalStore):
        return Place(store, fsspec.filesystem("file"), os.path.realpath(store.root))
    if isinstance(store, FsspecStore):
        return Place(store, _synchronous(store.fs), store.path)
    if isinstance(store, Store):
        return Place(store, None, str(store))
    path = os.fspath(store)
    if not path:
        raise ValueError("the store has no name")
    if isinstance(store, str) and "://" in path:
        fs, root = fsspec.core.url_to_fs(path)
        if not files.is_local(fs):
            return Place(FsspecStore.from_url(path), fs, root)
        path = root
    path = os.path.expanduser(path)
    # A link is followed: the store that it leads to is written, and not the link.
    path = os.path.realpath(path)
    if not os.path.basename(path):
        raise ValueError(f"{path} cannot be a store: it has no name")
    return Place(LocalStore(path), fsspec.filesystem("file"), path)


def _synchronous(fs: Any) -> Any:
    """Return the file system of a store of zarr's, which is asynchronous, as one that is not."""
    wrapped = getattr(fs, "sync_fs", None)
    if wrapped is not None:
        return wrapped
    options = {key: fs.storage_options[key] for key in fs.storage_options if key != "asynchronous"}
    return type(fs)(*fs.storage_args, **options)


@contextmanager
def opened(
    store: Target, told: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> Iterator[tuple[zarr.Group, Place, Collection[str]]]:
    """Give a group to write to, and the keys of the objects that were there before.

    A local store is locked until the body is through; one that is overwritten is built
    beside the old one, takes its place in the end, and is discarded where the body fails.

    Parameters
    ----------
    store : str, path-like or zarr.abc.store.Store
    told : mapping
        Attributes of the group.
    overwrite : bool
        Replace the Zarr 3 store that is there, never anything else; in place (not on a local
        path) only one that this package wrote.
    resume : bool
        Go on with the store that is there, if it has the same plan.

    Raises
    ------
    StoreExistsError
        Something is there that is not to be replaced, or of another plan, or being written.
    """
    place = located(store)
    if not place.is_local:
        if resume and _found(place.store) is not None:
            check_resumable(place)
            yield _gone_on_with(place, told), place, place.sizes()
        else:
            yield _in_place(place, told, overwrite), place, ()
        return
    path = Path(place.root)
    with _locked(path):
        if path.is_dir() and all(TEMPORARY.search(entry.name) for entry in path.iterdir()):
            # A process that was killed at its first write left nothing else.
            _remove_temporaries(place)
        elif resume and path.is_dir():
            group = _gone_on_with(place, told)
            yield group, place, _remove_temporaries(place)
            return
        elif overwrite and path.is_dir() and any(path.iterdir()):
            with replacing(path, overwrite=True) as folder:
                beside = Place(LocalStore(folder), place.fs, os.fspath(folder))
                yield zarr.create_group(beside.store, attributes=dict(told)), beside, ()
            return
        check_replaceable(path, overwrite)
        yield zarr.create_group(place.store, attributes=dict(told)), place, ()


@contextmanager
def replaced(store: Target, told: Mapping[str, Any], *, overwrite: bool) -> Iterator[zarr.Group]:
    """Give a group to write to that is not there before it is whole, if the path is local."""
    place = located(store)
    if not place.is_local or isinstance(store, Store):
        yield _in_place(place, told, overwrite)
        return
    with _locked(Path(place.root)), replacing(place.root, overwrite=overwrite) as folder:
        yield zarr.create_group(LocalStore(folder), attributes=dict(told))


def overlaid(store: Target, made: Mapping[str, bytes]) -> zarr.Group:
    """Return a group to write to, whatever there is of it, and whoever else writes the same.

    Two that write the same may do so at once where objects are put whole: nothing is removed, and
    each object is what either of them has put.

    Parameters
    ----------
    store : str or zarr.abc.store.Store
    made : mapping
        Key to content, of metadata and small arrays; the group is not complete.
    """
    place = located(store)
    group = json.loads(made[NODE])
    for key, data in made.items():
        path = f"{place.root.rstrip('/')}/{key}"
        if key == NODE:
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                there = json.loads(place.fs.cat_file(path))["attributes"]
                there[KEY]["complete"] = False
                if there == group["attributes"]:
                    # The other one may be through with it.
                    continue
        if place.is_local:
            place.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        place.fs.pipe_file(path, data)
    return zarr.open_group(place.store, mode="r+", zarr_format=3, use_consolidated=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel drops with this process."""
    above = next(folder for folder in path.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {above} is a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = hidden(path, "lock")
    lock = FileLock(beside)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StoreExistsError(f"{path} is being written by another export") from None
    try:
        recover(path)
        yield
    finally:
        # While it is held: nobody else can be behind it. Windows removes no open file.
        with suppress(OSError):
            beside.unlink()
        lock.release()


def _remove_temporaries(place: Place) -> set[str]:
    """Remove what a process that was killed had not renamed into place; return the rest."""
    keys = place.sizes().keys()
    temporary = {key for key in keys if TEMPORARY.search(key)}
    place.remove(sorted(temporary))
    return keys - temporary


def check_resumable(place: Place) -> None:
    """Refuse to trust that what exists is whole where nothing promises that."""
    if place.fs is None:
        raise ValueError("resume needs a path or URL, of which the objects can be listed")
    protocols = place.fs.protocol
    known = {protocols} if isinstance(protocols, str) else set(protocols)
    if not known & _WHOLE:
        raise ValueError(
            f"resume trusts that an object that exists is whole, which {'/'.join(sorted(known))} "
            "does not promise: export to a local path or an object store"
        )


def _gone_on_with(place: Place, told: Mapping[str, Any]) -> zarr.Group:
    """Return the group that is there, once its plan is that of `told`."""
    try:
        # What is there counts, and not what was there when the metadata was put together.
        group = zarr.open_group(place.store, mode="r+", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, KeyError, ValueError):
        raise StoreExistsError(
            f"{place.root} is not a Zarr 3 store that could be resumed"
        ) from None
    there: Any = group.attrs.asdict().get(KEY)
    if not isinstance(there, dict) or not isinstance(there.get("plan"), dict):
        raise StoreExistsError(f"{place.root} is not a store of dcmdask's that could be resumed")
    wanted = json.loads(json.dumps(told[KEY]["plan"]))
    # The source last: what its token depends on is more telling.
    for name in sorted(wanted | there["plan"], key=lambda name: name == "source"):
        was, now = there["plan"].get(name), wanted.get(name)
        if was != now:
            raise StoreExistsError(
                f"{place.root} was begun with another {name}: {was} there, {now} now; resume needs "
                "the same source and options"
            )
    group.update_attributes({KEY: {**there, "complete": False}})
    return group


def _in_place(place: Place, told: Mapping[str, Any], overwrite: bool) -> zarr.Group:
    store = place.store
    if place.fs is not None and not place.is_local and _holds_others(place):
        raise StoreExistsError(f"{store} holds something else than a Zarr 3 store")
    try:
        return zarr.open_group(store, mode="w-", zarr_format=3, attributes=dict(told))
    except FileExistsError as error:
        found = _found(store)
        if not overwrite or found is None:
            state = (
                "holds something else than a store of dcmdask's, which is never replaced"
                if found is None
                else f"holds a store {'already' if found else 'that is not complete'}, and "
                "nothing is replaced without overwrite"
            )
            raise StoreExistsError(f"{store} {state}") from error
        if place.fs is not None and (stranger := _stranger(place)):
            raise StoreExistsError(
                f"{store} holds {stranger}, which is no part of a store of dcmdask's, and "
                "overwrite would remove it"
            ) from error
    return zarr.open_group(store, mode="w", zarr_format=3, attributes=dict(told))


def _holds_others(place: Place) -> bool:
    """Return whether there is something that does not begin with a group's metadata."""
    place.fs.invalidate_cache()
    try:
        names = [path.rpartition("/")[2] for path in place.fs.ls(place.root, detail=False)]
    except FileNotFoundError:
        return False
    return bool(names) and NODE not in names


def _stranger(place: Place) -> str:
    """Return the key of something that is not of a group of arrays, if there is any."""
    part = re.compile(rf"(?:[^/]+/)?{re.escape(NODE)}|[^/]+/c(?:/\d+)*")
    return next((key for key in sorted(place.sizes()) if not part.fullmatch(key)), "")


def _found(store: Store) -> bool | None:
    """Return whether the group that is there is complete; None if it is not one of ours."""
    try:
        told = zarr.open_group(store, mode="r", zarr_format=3).attrs[KEY]
    except (KeyError, ValueError, FileNotFoundError):
        return None
    return bool(told.get("complete")) if isinstance(told, dict) else None


def counted(array: zarr.Array[Any]) -> tuple[int, int]:
    """Return how many of an array's objects are missing, and how many there should be."""
    objects = array.shards or array.chunks
    many = math.prod(-(-n // length) for n, length in zip(array.shape, objects, strict=True))
    # Of shards zarr counts the chunks, also those beyond the edge.
    each = math.prod(length // chunk for length, chunk in zip(objects, array.chunks, strict=True))
    return many - array.nchunks_initialized // each, many


def complete(group: zarr.Group) -> None:
    """Say that all is there, last of all, so that a reader can trust it."""
    # Filters are those of all threads: two exports at once would restore each other's.
    with _FILTERS, warnings.catch_warnings():
        # Zarr 3 does not specify it yet and allows readers to ignore it; xarray warns
        # about stores without it.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        group = zarr.consolidate_metadata(group.store)
    told: Any = group.attrs.asdict()[KEY]
    group.update_attributes({KEY: {**told, "complete": True}})
