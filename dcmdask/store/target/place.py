"""Place of a store: on a disk, behind a URL, or in a store of zarr's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fsspec
from zarr.abc.store import Store
from zarr.buffer.cpu import buffer_prototype
from zarr.storage import FsspecStore, LocalStore

from dcmdask.archive.discovery import ATTRIBUTES, GROUP
from dcmdask.errors import DcmdaskError
from dcmdask.sources import files
from dcmdask.sources.access import TARGET_OPTION, is_of_network, refuse_password
from dcmdask.sources.folder import NO_OBJECT
from dcmdask.store.target.ownership import StoreKeys, check_ours, check_store

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
        check_ours(self.url, keys, StoreKeys(self.read(GROUP) or self.read(ATTRIBUTES) or b""))

    def path_of(self, key: str) -> str:
        """Return the path of an object on the file system."""
        return f"{self.root.rstrip('/')}/{key}"

    def read(self, key: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
        if self.fs is None:
            with ThreadPoolExecutor(1) as thread:
                found = thread.submit(asyncio.run, self.store.get(key, buffer_prototype)).result()
            return None if found is None else found.to_bytes()
        try:
            data: bytes = self.fs.cat_file(self.path_of(key))
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in NO_OBJECT:
                return None
            raise
        return data

    def put(self, key: str, data: bytes) -> None:
        """Put a small object on the file system."""
        path = self.path_of(key)
        if self.is_local:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(path, data)

    def remove(self, keys: list[str]) -> None:
        """Remove objects."""
        for key in keys:
            self.fs.rm_file(self.path_of(key))


async def _keys(store: Store) -> list[str]:
    return [key async for key in store.list()]


def check_reached(error: Exception) -> None:
    """Raise an error of a disk or a server on: it says nothing about what is stored there."""
    if isinstance(error, DcmdaskError | PermissionError | TimeoutError | ConnectionError):
        raise error
    # Codecs raise an OSError without a number where bytes are damaged.
    is_of_disk = isinstance(error, OSError) and error.errno not in (None, *NO_OBJECT)
    if is_of_disk or is_of_network(error):
        raise error


def with_options(store: Target, target_options: Mapping[str, Any] | None) -> Target:
    """Return a store, on a file system with these options if it is a URL and there are any."""
    if not target_options:
        return store
    if not isinstance(store, str) or "://" not in store:
        raise ValueError(f"target_options are for URLs, and {store} is none")
    refuse_password(store, TARGET_OPTION)
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
        refuse_password(path, TARGET_OPTION)
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
