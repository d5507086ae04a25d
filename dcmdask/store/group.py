"""Opening of stores: made new, resumed or replaced, and complete only at the end.

The group's attribute ``dcmdask`` says ``"complete": false`` from the first to the last but
one write. Its ``"plan"`` is what a later export has to have in common to go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fsspec
import zarr
from filelock import FileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from dcmdask.dicom import files
from dcmdask.errors import StoreExistsError
from dcmdask.store.ownership import TEMPORARY, StoreKeys, check_ours
from dcmdask.store.target import (
    NODE,
    check_replaceable,
    check_store,
    hidden,
    recover,
    replacing,
    sync,
    sync_below,
)

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

    @property
    def url(self) -> str:
        """Display name."""
        return (
            self.root if self.fs is None or self.is_local else self.fs.unstrip_protocol(self.root)
        )

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of each object, by key; None where a store does not list them."""
        if self.fs is None:
            # In a thread of its own: this one may have a loop that runs, as notebooks do.
            with ThreadPoolExecutor(1) as thread:
                return dict.fromkeys(thread.submit(asyncio.run, _keys(self.store)).result())
        self.fs.invalidate_cache()
        found = self.fs.find(self.root, detail=True)
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(entry["size"]) for path, entry in found.items()}

    def check_ours(self, keys: Iterable[str]) -> None:
        """Refuse a store that holds anything that dcmdask did not write to it.

        Parameters
        ----------
        keys : iterable of str
            Of :meth:`sizes`.

        Raises
        ------
        StoreExistsError
        """
        if self.is_local:
            check_store(Path(self.root))
            return
        if self.fs is None:
            group = zarr.open_group(self.store, mode="r", zarr_format=3, use_consolidated=False)
            document = json.dumps({"attributes": group.attrs.asdict()}).encode()
        else:
            document = self.fs.cat_file(f"{self.root.rstrip('/')}/{NODE}")
        check_ours(self.url, keys, StoreKeys(document))

    def remove(self, keys: list[str]) -> None:
        """Remove objects."""
        for key in keys:
            self.fs.rm_file(f"{self.root.rstrip('/')}/{key}")


async def _keys(store: Store) -> list[str]:
    return [key async for key in store.list()]


def with_options(store: Target, target_options: Mapping[str, Any] | None) -> Target:
    """Return a store on the file system that options for its URL lead to.

    Raises
    ------
    ValueError
        There are options, and it is no URL.
    """
    if not target_options:
        return store
    if not isinstance(store, str) or "://" not in store:
        raise ValueError(f"target_options are for URLs, and {store} is none")
    return FsspecStore.from_url(store, storage_options=dict(target_options))


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
) -> Iterator[tuple[zarr.Group, Place, Mapping[str, int | None]]]:
    """Give a group to write to, and the objects that were there before with their sizes.

    A local store is locked until the body is through; one that is overwritten is built
    beside the old one, takes its place in the end, and is discarded where the body fails.

    Parameters
    ----------
    store : str, path-like or zarr.abc.store.Store
    told : mapping
        Attributes of the group.
    overwrite : bool
        Replace the Zarr store that is there: only one that dcmdask wrote, and that holds
        nothing else.
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
            group, sizes = _gone_on_with(place, told)
            yield group, place, sizes
        else:
            yield _in_place(place, told, overwrite), place, {}
        return
    path = Path(place.root)
    with _locked(path):
        begun = StoreKeys(b"")
        if path.is_dir() and all(entry.name in begun for entry in path.iterdir()):
            # A process that was killed at its first write left nothing else.
            for entry in path.iterdir():
                entry.unlink()
        elif resume and path.is_dir():
            group, sizes = _gone_on_with(place, told)
            yield group, place, sizes
            return
        elif overwrite and path.is_dir() and any(path.iterdir()):
            with replacing(path, overwrite=True) as folder:
                beside = Place(LocalStore(folder), place.fs, os.fspath(folder))
                yield zarr.create_group(beside.store, attributes=dict(told)), beside, {}
            return
        check_replaceable(path, overwrite)
        yield zarr.create_group(place.store, attributes=dict(told)), place, {}


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
    if os.path.lexists(beside) and (not beside.is_file() or beside.lstat().st_size):
        # What is locked is emptied when it is opened.
        check_ours(os.fspath(beside.parent), [beside.name], ())
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


def _gone_on_with(
    place: Place, told: Mapping[str, Any]
) -> tuple[zarr.Group, dict[str, int | None]]:
    """Return the group that is there, once its plan is that of `told`, and its objects."""
    try:
        # What is there counts, and not what was there when the metadata was put together.
        group = zarr.open_group(place.store, mode="r+", zarr_format=3, use_consolidated=False)
    except PermissionError:
        raise
    except Exception as error:
        raise StoreExistsError(
            f"{place.url} is not a Zarr 3 store that could be resumed: {error}"
        ) from None
    there: Any = group.attrs.asdict().get(KEY)
    if not isinstance(there, dict) or not isinstance(there.get("plan"), dict):
        raise StoreExistsError(f"{place.root} is not a store of dcmdask's that could be resumed")
    wanted, begun = (
        {**one["plan"], "arrays": one.get("arrays")}
        for one in (json.loads(json.dumps(told[KEY])), there)
    )
    # The source last: what its token depends on is more telling.
    for name in sorted(wanted | begun, key=lambda name: name == "source"):
        was, now = begun.get(name), wanted.get(name)
        if was != now:
            raise StoreExistsError(
                f"{place.root} was begun with another {name}: {was} there, {now} now; resume needs "
                "the same source and options"
            )
    sizes = place.sizes()
    place.check_ours(sizes)
    # What a process that was killed had not renamed into place.
    temporary = sorted(filter(TEMPORARY.search, sizes))
    place.remove(temporary)
    group.update_attributes(dict(told))
    for key in temporary:
        del sizes[key]
    return group, sizes


def _in_place(place: Place, told: Mapping[str, Any], overwrite: bool) -> zarr.Group:
    if place.fs is not None and not place.is_local:
        _check_begins_as_store(place)
    try:
        return zarr.open_group(place.store, mode="w-", zarr_format=3, attributes=dict(told))
    except FileExistsError as error:
        if not overwrite:
            state = {
                None: "something else than a store of dcmdask's, which is never replaced",
                True: "a store already, and nothing is replaced without overwrite",
                False: "a store that is not complete, and nothing is replaced without overwrite",
            }[_found(place.store)]
            raise StoreExistsError(f"{place.url} holds {state}") from error
    place.check_ours(place.sizes())
    return zarr.open_group(place.store, mode="w", zarr_format=3, attributes=dict(told))


def _check_begins_as_store(place: Place) -> None:
    """Refuse what does not begin with the metadata of a group, by a short listing."""
    place.fs.invalidate_cache()
    with suppress(FileNotFoundError):
        names = [path.rpartition("/")[2] for path in place.fs.ls(place.root, detail=False)]
        if NODE not in names:
            check_ours(place.url, names, ())


def _found(store: Store) -> bool | None:
    """Return whether the group that is there is complete; None if it is not one of ours."""
    try:
        told = zarr.open_group(store, mode="r", zarr_format=3).attrs[KEY]
    except PermissionError:
        raise
    except Exception:
        # Of damaged metadata zarr raises anything.
        return None
    return bool(told.get("complete")) if isinstance(told, dict) else None


def complete(group: zarr.Group) -> None:
    """Say that all is there, last of all, so that a reader can trust it."""
    # Filters are those of all threads: two exports at once would restore each other's.
    with _FILTERS, warnings.catch_warnings():
        # Zarr 3 does not specify it yet and allows readers to ignore it; xarray warns
        # about stores without it.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        group = zarr.consolidate_metadata(group.store)
    told: Any = group.attrs.asdict()[KEY]
    local = Path(group.store.root) if isinstance(group.store, LocalStore) else None
    if local is not None:
        sync_below(local)
    group.update_attributes({KEY: {**told, "complete": True}})
    if local is not None:
        sync(local / NODE)
        sync(local)
