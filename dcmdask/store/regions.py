"""Regions of an export: the objects of each, and the task that decodes and writes one.

A local file is renamed into place, and an object store takes an object whole or not at all. So
the objects that exist are the record of the regions that were written; their lengths show
whether one was cut by a power failure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import fsspec
import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from dcmdask.errors import AlignmentError, DcmdaskError, StoreLostError
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.store.plan import Plan
from dcmdask.store.pyramid import halve
from dcmdask.store.target.ownership import PARTIAL, discard
from dcmdask.store.zarr_format import (
    ZarrFormat,
    check_length,
    document_of,
    key_of,
    prefix_of,
    reads_beyond,
)

Key: TypeAlias = tuple[slice, ...]


class Failure(NamedTuple):
    """A frame, or a tile of a whole slide, that could not be decoded.

    Attributes
    ----------
    frame : tuple of int
        Its index along the axes that number frames; of a tile the number of the level, that
        index, and its row and its column among tiles.
    reason : str
    """

    frame: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Job:
    """Parameters of all regions of an export; picklable.

    Attributes
    ----------
    frames : array-like
        (..., rows, columns[, samples]).
    plan : Plan
    arrays : tuple of zarr.Array
        One for each level.
    missing : zarr.Array or None
        Marks of frames that are missing; None where a frame that cannot be decoded ends the
        export.
    absent : ndarray of bool or None
        Places without a frame, in the shape of `missing`.
    fill_value : float, list of float or None
        Value of missing frames, or one for each sample, if there is `missing`.
    is_label_map : bool
        Whether values are labels, of which no mean can be taken.
    """

    frames: ArrayLike
    plan: Plan
    arrays: tuple[zarr.Array[Any], ...]
    missing: zarr.Array[Any] | None
    absent: npt.NDArray[np.bool_] | None
    fill_value: float | list[float] | None
    is_label_map: bool


def write_region(job: Job, number: int, *, level: int = 0) -> list[Failure]:
    """Write region `number` of `level`: level 0 from its frames, with level 1; others from below.

    Frames that were filled are returned. Where a frame cannot be decoded and is not to be filled,
    nothing is written.
    """
    plan = job.plan
    _check_there(job.arrays[level])
    region = plan.region(level, number)
    if level:
        below = np.asarray(job.arrays[level - 1][plan.below(level, region)])
        write(job.arrays[level], region, halve(below, plan.halved, labels=job.is_label_map))
        return []
    along = frames_of(plan, region)
    failures: list[Failure] = []
    if job.missing is None:
        block = job.frames[along]
    else:
        block, failures = decoded_or_filled(plan, job.frames, region, job.fill_value)
    block = stored_as(plan, block)
    if job.missing is not None:
        # Before the pixels, so that no frame is filled and not marked.
        places = places_of(plan, region)
        mask = np.zeros([one.stop - one.start for one in places], bool)
        if job.absent is not None:
            mask |= job.absent[places]
        for failure in failures:
            mask[within(places, failure.frame)] = True
        job.missing[places] = mask
    write(job.arrays[0], region, block)
    if len(job.arrays) > 1:
        write(job.arrays[1], plan.above(region), halve(block, plan.halved, labels=job.is_label_map))
    return failures


def frames_of(plan: Plan, region: Sequence[slice]) -> Key:
    """Return the index of a region of level 0 along the leading axes of the frames."""
    return tuple(region[axis] for axis in plan.frame_axes)


def places_of(plan: Plan, region: Sequence[slice]) -> Key:
    """Return where the frames of a region of level 0, or its tiles, lie among all of them."""
    pairs = zip(frames_of(plan, region), plan.pieces, strict=True)
    return tuple(slice(one.start // n, -(-one.stop // n)) for one, n in pairs)


def within(key: Key, index: Sequence[int]) -> tuple[int, ...]:
    """Return an index counted from the start of a region."""
    return tuple(i - one.start for i, one in zip(index, key, strict=True))


def stored_as(plan: Plan, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return decoded frames (..., rows, columns[, samples]) with the axes as they are stored."""
    if block.dtype.newbyteorder("=") == plan.dtype:
        # In native byte order; any other difference is refused by `write`.
        block = block.astype(plan.dtype, copy=False)
    if plan.samples_axis not in (None, block.ndim - 1):
        block = np.moveaxis(block, -1, plan.samples_axis)
    return np.ascontiguousarray(block)


def decoded_or_filled(
    plan: Plan, frames: ArrayLike, region: Sequence[slice], fill_value: float | list[float] | None
) -> tuple[npt.NDArray[Any], list[Failure]]:
    """Decode the frames or tiles of a region of level 0, and fill those that cannot be decoded.

    An error of a disk or a network is raised: it says nothing about a frame.
    """
    along = frames_of(plan, region)
    try:
        return frames[along], []
    except DcmdaskError as error:
        if isinstance(error, OSError):
            raise
    shape = [one.stop - one.start for one in along]
    block = np.full((*shape, *frames.shape[len(along) :]), fill_value, frames.dtype)
    failures = []
    for index in product(*(range(one.start, one.stop) for one in places_of(plan, region))):
        lengths = zip(index, plan.pieces, along, strict=True)
        part = tuple(slice(i * n, min(i * n + n, one.stop)) for i, n, one in lengths)
        try:
            block[moved(part, along)] = frames[part]
        except DcmdaskError as error:
            if isinstance(error, OSError):
                raise
            failures.append(Failure(index, str(error)))
    return block, failures


def moved(part: Key, along: Key) -> Key:
    """Return a part of a region, counted from the start of that."""
    pairs = zip(part, along, strict=True)
    return tuple(slice(a.start - r.start, a.stop - r.start) for a, r in pairs)


def write(array: zarr.Array[Any], region: Key, block: npt.NDArray[Any]) -> None:
    """Write a block that fills a region, in shape and type."""
    # Zarr would broadcast and convert it silently.
    room = tuple(one.stop - one.start for one in region)
    if block.shape != room or block.dtype != array.dtype:
        raise AlignmentError(
            f"a task gave {block.shape} {block.dtype} where the store has {room} {array.dtype}",
            code="block",
        )
    try:
        array[region] = block
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # Errors of a full disk do not name a file.
        raise OSError(error.errno, error.strerror, str(array.store_path)) from error
    _check_there(array)


def _check_there(array: zarr.Array[Any]) -> None:
    """Refuse to write to a local store that was discarded, and clear up after such a write.

    On another machine the folder may never have existed.
    """
    store, document = array.store, document_of(array.metadata.zarr_format)
    if isinstance(store, LocalStore) and not (store.root / document).exists():
        if PARTIAL.search(store.root.name):
            # A folder of another name may have been made by somebody else.
            discard(store.root)
        raise StoreLostError(
            "the store is gone: the export has ended, or this worker does not share the file "
            "system",
            source=str(store),
            code="store-gone",
        )


# Objects


class Layout(NamedTuple):
    """The arrays of a store.

    Attributes
    ----------
    plan : Plan
    names : tuple of str
        One for each level.
    mask : str
        Name of the array that marks missing frames; empty without one. One of its objects
        belongs to each region of level 0.
    zarr_format : {2, 3}
    """

    plan: Plan
    names: tuple[str, ...]
    mask: str = ""
    zarr_format: ZarrFormat = 3

    def keys(self, level: int, number: int) -> Iterator[str]:
        """Yield the keys of the objects of a region; one of level 0 also writes level 1."""
        plan = self.plan
        region = plan.region(level, number)
        yield from (self.key(level, index) for index in plan.objects(level, region))
        if level == 0 and len(plan.levels) > 1:
            above = plan.objects(1, plan.above(region))
            yield from (self.key(1, index) for index in above)
        if level == 0 and self.mask:
            yield self.mask_key(region)

    def key(self, level: int, index: Sequence[int]) -> str:
        """Return the key of an object of `level`."""
        return key_of(self.names[level], index, self.zarr_format)

    def mask_key(self, region: Sequence[slice]) -> str:
        """Return the key of the object that marks the missing frames of a region of level 0."""
        unit, axes = self.plan.unit(0), self.plan.frame_axes
        index = [region[axis].start // max(1, unit[axis]) for axis in axes]
        return key_of(self.mask, index, self.zarr_format)

    def all_keys(self) -> Iterator[str]:
        """Yield the keys of all objects."""
        for level in self.tasks:
            for number in range(self.plan.count(level)):
                yield from self.keys(level, number)

    @property
    def tasks(self) -> list[int]:
        """The levels with tasks of their own: all but level 1, which is written with level 0."""
        return [level for level in range(len(self.plan.levels)) if level != 1]

    @property
    def regions(self) -> int:
        """Number of tasks that write all levels."""
        return sum(self.plan.count(level) for level in self.tasks)


def left(
    layout: Layout, there: Collection[str], lacking: Container[str]
) -> tuple[dict[int, list[int]], list[str]]:
    """Return the regions of each level of which an object is `lacking`, and their stale objects.

    One that is lacking may be `there`, and damaged.
    """
    regions: dict[int, list[int]] = {}
    stale: list[str] = []
    for level in layout.tasks:
        regions[level] = []
        for number in range(layout.plan.count(level)):
            # In an empty store none is there, and naming them takes a tenth of a millisecond each.
            keys = list(layout.keys(level, number)) if there else []
            if not there or any(key in lacking for key in keys):
                regions[level].append(number)
                stale += [key for key in keys if key in there]
    return regions, stale


def lacking(
    layout: Layout, arrays: Sequence[zarr.Array[Any]], sizes: Mapping[str, int | None]
) -> Iterator[tuple[str, str]]:
    """Yield the key of each object that is missing or not whole, and the fault.

    Lengths are compared: an object has at least one byte, a shard at least its index, and a chunk
    that is not compressed exactly its values. Checksums, and the length in Blosc's header, need
    a request for each object: see `cut_short`, and :func:`dcmdask.verify`. A size of None is not
    known.
    """
    lengths = {
        prefix_of(name, layout.zarr_format): _length(array)
        for name, array in zip(layout.names, arrays, strict=True)
    }
    for key in layout.all_keys():
        size = sizes.get(key, 0)
        if key not in sizes:
            yield key, "it is missing"
        elif size == 0:
            yield key, "it is empty"
        elif size is not None:
            least, most = lengths.get(key.rsplit("/", len(layout.plan.dims))[0], (1, math.inf))
            if not least <= size <= most:
                much = f"{least}" if least == most else f"at least {least}"
                yield key, f"it is damaged: it has {size} bytes, and should have {much}"


def cut_short(
    layout: Layout, arrays: Sequence[zarr.Array[Any]], there: Container[str]
) -> dict[str, str]:
    """Return the keys of objects on a local disk that a power failure cut, and the fault.

    Only those that must not be decoded to make another level: without a checksum behind it,
    Blosc reads memory beyond what there is.
    """
    found = {}
    for name, array in zip(layout.names, arrays, strict=True):
        if not (isinstance(array.store, LocalStore) and reads_beyond(array)):
            continue
        fs, root = fsspec.filesystem("file"), os.fspath(array.store.root)
        for index in np.ndindex(*grid_of(array.shape, array.chunks)):
            key = key_of(name, index, layout.zarr_format)
            if key in there:
                try:
                    check_length(fs, os.path.join(root, key))
                except ValueError as error:
                    found[key] = str(error)
    return found


def _length(array: zarr.Array[Any]) -> tuple[int, float]:
    """Return the least and the most bytes of an object of an array."""
    if array.shards:
        inner = zip(array.shards, array.chunks, strict=True)
        # Offset and length of each chunk.
        return 16 * math.prod(shard // chunk for shard, chunk in inner), math.inf
    if array.compressors or array.filters:
        return 1, math.inf
    whole = math.prod(array.chunks) * array.dtype.itemsize
    return whole, whole


def grid_of(shape: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the number of objects of an array along each axis, by the lengths of one."""
    return [-(-n // max(1, length)) for n, length in zip(shape, lengths, strict=True)]
