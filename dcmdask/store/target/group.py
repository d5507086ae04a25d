"""The group of a store: made new, resumed or replaced, and complete only at the end.

``"complete"`` in the attribute ``dcmdask`` of the group is false until everything else is
written. A later export with the same ``"plan"`` can go on with the store.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from dcmdask.archive.discovery import ATTRIBUTES, GROUP, MARK_KEY, is_mark
from dcmdask.errors import StoreExistsError
from dcmdask.sources.folder import locked
from dcmdask.store.provenance import without_defaults
from dcmdask.store.target.ownership import (
    TEMPORARY,
    StoreKeys,
    check_ours,
    check_replaceable,
    hidden,
    recover,
    replacing,
    sync,
    sync_below,
)
from dcmdask.store.target.place import Place, Target, check_reached, located
from dcmdask.store.zarr_format import (
    CONSOLIDATED_2,
    EMPTY_GROUP_2,
    GROUP_2,
    METADATA,
    ZarrFormat,
)

# Blank chunks are written, too, so that an object that does not exist was not written.
CONFIG: Any = {"write_empty_chunks": True}
# Protocols of file systems that put an object whole or not at all.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"})
_FILTERS = threading.Lock()


@contextmanager
def opened(
    store: Target,
    attributes: Mapping[str, Any],
    *,
    overwrite: bool,
    resume: bool,
    zarr_format: ZarrFormat,
) -> Iterator[tuple[zarr.Group, Place, Mapping[str, int | None]]]:
    """Give a group to write to, and the objects that were there before with their sizes.

    A local store is locked until the body has ended; where one is overwritten, the new one is
    built beside it, takes its place at the end, and is discarded if the body fails. Only a store
    that dcmdask wrote is replaced, and only one of the same plan is resumed.
    """
    place = located(store)
    if not place.is_local:
        _mend(place)
        if resume and _is_complete(place.store) is not None:
            check_resumable(place)
            group, sizes = _gone_on_with(place, attributes)
            yield group, place, sizes
        else:
            yield _in_place(place, attributes, overwrite, zarr_format), place, {}
        return
    path = Path(place.root)
    with _locked(path):
        _mend(place)
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
                yield _begun(beside, attributes, zarr_format), beside, {}
            return
        check_replaceable(path, overwrite)
        yield _begun(place, attributes, zarr_format), place, {}


@contextmanager
def replaced(
    store: Target, attributes: Mapping[str, Any], *, overwrite: bool
) -> Iterator[zarr.Group]:
    """Give a group to write to; at a local path it appears only once the body has ended."""
    place = located(store)
    if not place.is_local or isinstance(store, Store):
        yield _in_place(place, attributes, overwrite, 3)
        return
    path = Path(place.root)
    with _locked(path), replacing(path, overwrite=overwrite) as folder:
        yield zarr.create_group(LocalStore(folder), attributes=dict(attributes))


def overlaid(store: Target, made: Mapping[str, bytes]) -> zarr.Group:
    """Return a group to write to, which others may be writing with the same content.

    Nothing is removed, and objects are put whole, so it does not matter who puts one. `made` are
    metadata and small arrays by key; the group is not complete.
    """
    place = located(store)
    group = json.loads(made[GROUP])
    for key, data in made.items():
        if key == GROUP:
            with suppress(ValueError, KeyError, TypeError):
                there = json.loads(place.read(key) or b"")["attributes"]
                there[MARK_KEY]["complete"] = False
                if there == group["attributes"]:
                    # Another process may have completed it.
                    continue
        place.put(key, data)
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
        group = zarr.open_group(place.store, mode="r+", use_consolidated=False)
    except Exception as error:
        check_reached(error)
        raise StoreExistsError(
            f"{place.url} is not a Zarr store that could be resumed",
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
    # A copy, by which readers of Zarr 2 take the store for complete.
    copied = [key for key in (CONSOLIDATED_2,) if key in sizes]
    place.remove(copied)
    for key in (*temporary, *copied):
        del sizes[key]
    return group, sizes


def _as_recorded(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan without the options that version 0.2 recorded though they were defaults."""
    options = plan.get("options")
    return {**plan, "options": without_defaults(options)} if isinstance(options, dict) else {**plan}


def _begun(place: Place, attributes: Mapping[str, Any], zarr_format: ZarrFormat) -> zarr.Group:
    """Return a new group; FileExistsError where something is there."""
    kept = dict(attributes)
    if zarr_format == 2 and place.fs is not None:
        # Zarr puts the two files of a group in any order; this one says who wrote it.
        place.fs.invalidate_cache()
        if place.fs.exists(place.root) and place.fs.ls(place.root):
            raise FileExistsError(place.root)
        place.put(ATTRIBUTES, json.dumps(kept).encode())
        return zarr.create_group(place.store, zarr_format=2, attributes=kept)
    return zarr.open_group(place.store, mode="w-", zarr_format=zarr_format, attributes=kept)


def _mend(place: Place) -> None:
    """Complete a Zarr 2 group of a process that was killed between its two files."""
    if place.fs is None:
        return
    there = place.read(ATTRIBUTES)
    if there is not None and is_mark(ATTRIBUTES, there) and place.read(GROUP_2) is None:
        place.put(GROUP_2, EMPTY_GROUP_2)


def _in_place(
    place: Place, attributes: Mapping[str, Any], overwrite: bool, zarr_format: ZarrFormat
) -> zarr.Group:
    if place.fs is not None and not place.is_local:
        _check_begins_as_store(place)
    try:
        return _begun(place, attributes, zarr_format)
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
    if zarr_format == 2 and place.fs is not None:
        place.fs.rm(place.root, recursive=True)
        return _begun(place, attributes, zarr_format)
    kept = dict(attributes)
    return zarr.open_group(place.store, mode="w", zarr_format=zarr_format, attributes=kept)


def _check_begins_as_store(place: Place) -> None:
    """Refuse a folder without the metadata of a group, by a short listing."""
    place.fs.invalidate_cache()
    with suppress(FileNotFoundError):
        names = [path.rpartition("/")[2] for path in place.fs.ls(place.root, detail=False)]
        if GROUP not in names and ATTRIBUTES not in names:
            check_ours(place.url, names, ())


def _is_complete(store: Store) -> bool | None:
    """Return whether a group is complete; None for one that dcmdask did not write."""
    try:
        mark = zarr.open_group(store, mode="r").attrs[MARK_KEY]
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
        for name in METADATA[group.metadata.zarr_format]:
            if (local / name).exists():
                sync(local / name)
        sync(local)
