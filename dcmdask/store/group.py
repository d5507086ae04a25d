"""The group of a store: made new, resumed or replaced, and complete only at the end.

``"complete"`` in the attribute ``dcmdask`` of the group is false until everything else is
written. A later export with the same ``"plan"`` can go on with the store.
"""

from __future__ import annotations

import asyncio
import errno
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
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from dcmdask.archive.discovery import GROUP, MARK_KEY
from dcmdask.errors import DcmdaskError, StoreExistsError
from dcmdask.sources import files
from dcmdask.sources.access import is_of_network
from dcmdask.store.ownership import (
    TEMPORARY,
    StoreKeys,
    check_ours,
    check_replaceable,
    check_store,
    hidden,
    locked,
    recover,
    replacing,
    sync,
    sync_below,
)
from dcmdask.store.provenance import without_defaults

# Blank chunks are written, too, so that an object that does not exist was not written.
CONFIG: Any = {"write_empty_chunks": True}
# Protocols of file systems that put an object whole or not at all.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
# Errors of a path at which no file can be.
_NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FILTERS = threading.Lock()
Target: TypeAlias = "str | os.PathLike[str] | Store"


class Place(NamedTuple):
    """A store and its place on a file system, where objects are listed and removed.

    Attributes
    ----------
    store : zarr.abc.store.Store
    fs : fsspec.AbstractFileSystem or None
        None for a store of zarr's without a file system.
    root : str
        Path on `fs`.
    """

    store: Store
    fs: Any
    root: str

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder."""
        return isinstance(self.store, LocalStore)

    @property
    def url(self) -> str:
        """Display name."""
        return (
            self.root if self.fs is None or self.is_local else self.fs.unstrip_protocol(self.root)
        )

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of each object, by key; None where a store does not know them."""
        if self.fs is None:
            # In another thread: in a notebook, this one has a loop that runs.
            with ThreadPoolExecutor(1) as thread:
                return dict.fromkeys(thread.submit(asyncio.run, _keys(self.store)).result())
        self.fs.invalidate_cache()
        found = self.fs.find(self.root, detail=True)
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(entry["size"]) for path, entry in found.items()}

    def check_ours(self, keys: Iterable[str]) -> None:
        """Refuse a store if one of its keys is of an object that dcmdask did not write."""
        if self.is_local:
            check_store(Path(self.root))
            return
        if self.fs is None:
            group = zarr.open_group(self.store, mode="r", zarr_format=3, use_consolidated=False)
            document = json.dumps({"attributes": group.attrs.asdict()}).encode()
        else:
            document = self.fs.cat_file(f"{self.root.rstrip('/')}/{GROUP}")
        check_ours(self.url, keys, StoreKeys(document))

    def remove(self, keys: list[str]) -> None:
        """Remove objects."""
        for key in keys:
            self.fs.rm_file(f"{self.root.rstrip('/')}/{key}")


async def _keys(store: Store) -> list[str]:
    return [key async for key in store.list()]


def check_reached(error: Exception) -> None:
    """Raise an error of a disk or a server on: it says nothing about what is stored there."""
    if isinstance(error, DcmdaskError | PermissionError | TimeoutError | ConnectionError):
        raise error
    # Codecs raise an OSError without a number where bytes are damaged.
    is_of_disk = isinstance(error, OSError) and error.errno not in (None, *_NO_OBJECT)
    if is_of_disk or is_of_network(error):
        raise error


def with_options(store: Target, target_options: Mapping[str, Any] | None) -> Target:
    """Return a store, on a file system with these options if it is a URL and there are any."""
    if not target_options:
        return store
    if not isinstance(store, str) or "://" not in store:
        raise ValueError(f"target_options are for URLs, and {store} is none")
    return FsspecStore.from_url(store, storage_options=dict(target_options))


def located(store: Target) -> Place:
    """Return the place of a local path, a URL for fsspec, or a store of zarr's."""
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
    """Return a synchronous file system for the asynchronous one of a store of zarr's."""
    wrapped = getattr(fs, "sync_fs", None)
    if wrapped is not None:
        return wrapped
    options = {key: fs.storage_options[key] for key in fs.storage_options if key != "asynchronous"}
    return type(fs)(*fs.storage_args, **options)


@contextmanager
def opened(
    store: Target, attributes: Mapping[str, Any], *, overwrite: bool, resume: bool
) -> Iterator[tuple[zarr.Group, Place, Mapping[str, int | None]]]:
    """Give a group to write to, and the objects that were there before with their sizes.

    A local store is locked until the body has ended; where one is overwritten, the new one is
    built beside it, takes its place at the end, and is discarded if the body fails.

    Parameters
    ----------
    store : str, path-like or zarr.abc.store.Store
    attributes : mapping
        Attributes of the group.
    overwrite : bool
        Replace an existing Zarr store, if dcmdask wrote everything in it.
    resume : bool
        Go on with an existing store of the same plan.

    Raises
    ------
    StoreExistsError
        Something exists that is not to be replaced, or of another plan, or being written.
    """
    place = located(store)
    if not place.is_local:
        if resume and _is_complete(place.store) is not None:
            check_resumable(place)
            group, sizes = _gone_on_with(place, attributes)
            yield group, place, sizes
        else:
            yield _in_place(place, attributes, overwrite), place, {}
        return
    path = Path(place.root)
    with _locked(path):
        begun = StoreKeys(b"")
        if path.is_dir() and all(entry.name in begun for entry in path.iterdir()):
            # Empty, or left by a process that was killed at its first write.
            for entry in path.iterdir():
                entry.unlink()
        elif resume and path.is_dir():
            group, sizes = _gone_on_with(place, attributes)
            yield group, place, sizes
            return
        elif overwrite and path.is_dir() and any(path.iterdir()):
            with replacing(path, overwrite=True) as folder:
                beside = Place(LocalStore(folder), place.fs, os.fspath(folder))
                yield zarr.create_group(beside.store, attributes=dict(attributes)), beside, {}
            return
        check_replaceable(path, overwrite)
        yield zarr.create_group(place.store, attributes=dict(attributes)), place, {}


@contextmanager
def replaced(
    store: Target, attributes: Mapping[str, Any], *, overwrite: bool
) -> Iterator[zarr.Group]:
    """Give a group to write to; at a local path it appears only once the body has ended."""
    place = located(store)
    if not place.is_local or isinstance(store, Store):
        yield _in_place(place, attributes, overwrite)
        return
    path = Path(place.root)
    with _locked(path), replacing(path, overwrite=overwrite) as folder:
        yield zarr.create_group(LocalStore(folder), attributes=dict(attributes))


def overlaid(store: Target, made: Mapping[str, bytes]) -> zarr.Group:
    """Return a group to write to, which others may be writing with the same content.

    Nothing is removed, and objects are put whole, so it does not matter who puts one.

    Parameters
    ----------
    store : str or zarr.abc.store.Store
    made : mapping
        Key to content, of metadata and small arrays; the group is not complete.
    """
    place = located(store)
    group = json.loads(made[GROUP])
    for key, data in made.items():
        path = f"{place.root.rstrip('/')}/{key}"
        if key == GROUP:
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                there = json.loads(place.fs.cat_file(path))["attributes"]
                there[MARK_KEY]["complete"] = False
                if there == group["attributes"]:
                    # Another process may have completed it.
                    continue
        if place.is_local:
            place.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        place.fs.pipe_file(path, data)
    return zarr.open_group(place.store, mode="r+", zarr_format=3, use_consolidated=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a target, and clear up after a process that was killed."""
    above = next(folder for folder in path.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {above} is a file")
    beside = hidden(path, "lock")
    if os.path.lexists(beside) and (not beside.is_file() or beside.lstat().st_size):
        # Opening the lock would empty another file of this name.
        check_ours(os.fspath(beside.parent), [beside.name], ())
    with locked(beside) as held:
        if not held:
            raise StoreExistsError(f"{path} is being written by another export", code="locked")
        recover(path)
        yield


def check_resumable(place: Place) -> None:
    """Refuse a file system that does not promise that objects are whole."""
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
    place: Place, attributes: Mapping[str, Any]
) -> tuple[zarr.Group, dict[str, int | None]]:
    """Return an existing group with the plan in `attributes`, and the sizes of its objects."""
    try:
        # Arrays may have been removed since the metadata was consolidated.
        group = zarr.open_group(place.store, mode="r+", zarr_format=3, use_consolidated=False)
    except Exception as error:
        check_reached(error)
        raise StoreExistsError(
            f"{place.url} is not a Zarr 3 store that could be resumed",
            detail=str(error),
            code="no-zarr",
        ) from None
    there: Any = group.attrs.asdict().get(MARK_KEY)
    if not isinstance(there, dict) or not isinstance(there.get("plan"), dict):
        raise StoreExistsError(
            f"{place.root} is not a store of dcmdask's that could be resumed", code="no-plan"
        )
    wanted, begun = (
        {**_as_recorded(one["plan"]), "arrays": one.get("arrays")}
        for one in (json.loads(json.dumps(attributes[MARK_KEY])), there)
    )
    # The source last: options change its token, and their names say more.
    for name in sorted(wanted | begun, key=lambda name: name == "source"):
        was, now = begun.get(name), wanted.get(name)
        if was != now:
            raise StoreExistsError(
                f"{place.root} was begun with another {name}: {was} there, {now} now; resume needs "
                "the same source and options",
                code="other-source" if name == "source" else "other-plan",
            )
    sizes = place.sizes()
    place.check_ours(sizes)
    # Left by a process that was killed before it renamed them into place.
    temporary = sorted(filter(TEMPORARY.search, sizes))
    place.remove(temporary)
    group.update_attributes(dict(attributes))
    for key in temporary:
        del sizes[key]
    return group, sizes


def _as_recorded(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan without the options that version 0.2 recorded though they were defaults."""
    options = plan.get("options")
    return {**plan, "options": without_defaults(options)} if isinstance(options, dict) else {**plan}


def _in_place(place: Place, attributes: Mapping[str, Any], overwrite: bool) -> zarr.Group:
    if place.fs is not None and not place.is_local:
        _check_begins_as_store(place)
    try:
        return zarr.open_group(place.store, mode="w-", zarr_format=3, attributes=dict(attributes))
    except FileExistsError as error:
        if not overwrite:
            code, state = {
                None: (
                    "no-plan",
                    "something that dcmdask did not write, which is never replaced",
                ),
                True: ("exists", "a store already, and nothing is replaced without overwrite"),
                False: (
                    "incomplete",
                    "a store that is not complete, and nothing is replaced without overwrite",
                ),
            }[_is_complete(place.store)]
            raise StoreExistsError(f"{place.url} holds {state}", code=code) from error
    place.check_ours(place.sizes())
    return zarr.open_group(place.store, mode="w", zarr_format=3, attributes=dict(attributes))


def _check_begins_as_store(place: Place) -> None:
    """Refuse a folder without the metadata of a group, by a short listing."""
    place.fs.invalidate_cache()
    with suppress(FileNotFoundError):
        names = [path.rpartition("/")[2] for path in place.fs.ls(place.root, detail=False)]
        if GROUP not in names:
            check_ours(place.url, names, ())


def _is_complete(store: Store) -> bool | None:
    """Return whether a group is complete; None for one that dcmdask did not write."""
    try:
        mark = zarr.open_group(store, mode="r", zarr_format=3).attrs[MARK_KEY]
    except Exception as error:
        # For damaged metadata zarr raises anything.
        check_reached(error)
        return None
    return bool(mark.get("complete")) if isinstance(mark, dict) else None


def complete(group: zarr.Group) -> None:
    """Mark a group as complete, after everything else is on the disk."""
    # Filters are common to all threads: two exports at once would restore each other's.
    with _FILTERS, warnings.catch_warnings():
        # Zarr 3 does not specify it yet and allows readers to ignore it; xarray warns
        # about stores without it.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        group = zarr.consolidate_metadata(group.store)
    mark: Any = group.attrs.asdict()[MARK_KEY]
    local = Path(group.store.root) if isinstance(group.store, LocalStore) else None
    if local is not None:
        sync_below(local)
    group.update_attributes({MARK_KEY: {**mark, "complete": True}})
    if local is not None:
        sync(local / GROUP)
        sync(local)
