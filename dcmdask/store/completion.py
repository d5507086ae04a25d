"""Objects that a store is made of, and regions that have yet to be written.

A local file is renamed into place, an object store takes an object whole or not at all. So the
objects of a region are the record of what was done, once their lengths show that none was cut
by a power failure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import zarr

from dcmdask.store.plan import Plan


class Layout(NamedTuple):
    """The arrays of a store.

    Attributes
    ----------
    plan : Plan
    names : tuple of str
        One for each level.
    mask : str
        The array that takes which frames are missing; empty where there is none. One of its
        objects belongs to each region of level 0.
    """

    plan: Plan
    names: tuple[str, ...]
    mask: str = ""

    def keys(self, level: int, number: int) -> Iterator[str]:
        """Yield the keys of what the task of a region writes; level 0 goes with level 1."""
        plan = self.plan
        region = plan.region(level, number)
        yield from (key_of(self.names[level], index) for index in plan.objects(level, region))
        if level == 0 and len(plan.levels) > 1:
            above = plan.objects(1, plan.above(region))
            yield from (key_of(self.names[1], index) for index in above)
        if level == 0 and self.mask:
            unit = plan.unit(0)
            at = [region[axis].start // max(1, unit[axis]) for axis in plan.frame_axes]
            yield key_of(self.mask, at)

    def all_keys(self) -> Iterator[str]:
        """Yield the keys of all objects."""
        for level in self.tasks:
            for number in range(self.plan.count(level)):
                yield from self.keys(level, number)

    @property
    def tasks(self) -> list[int]:
        """The levels that tasks are for: 0, which makes level 1, too, and those from 2 on."""
        return [level for level in range(len(self.plan.levels)) if level != 1]

    @property
    def regions(self) -> int:
        """Number of tasks that write all levels."""
        return sum(self.plan.count(level) for level in self.tasks)


class Left(NamedTuple):
    """Regions that have yet to be written.

    Attributes
    ----------
    regions : dict
        Level to the numbers of its regions.
    stale : list of str
        Keys of objects of these regions that exist.
    """

    regions: dict[int, list[int]]
    stale: list[str]


def left(layout: Layout, there: Collection[str], lacking: Container[str]) -> Left:
    """Return the regions of which an object is `lacking`, although it may be `there`."""
    regions: dict[int, list[int]] = {}
    stale: list[str] = []
    for level in layout.tasks:
        regions[level] = []
        for number in range(layout.plan.count(level)):
            keys = list(layout.keys(level, number)) if there else []
            if not there or any(key in lacking for key in keys):
                regions[level].append(number)
                stale += [key for key in keys if key in there]
    return Left(regions, stale)


def lacking(
    layout: Layout, arrays: Sequence[zarr.Array[Any]], sizes: Mapping[str, int | None]
) -> Iterator[tuple[str, str]]:
    """Yield the key of each object that is not there or not whole, and what is wrong with it.

    By its length: an object has at least one byte, a shard those of its index, and a chunk
    that is not compressed those of its values. What tells more has to be read, a request for
    each object, and is left to :func:`dcmdask.verify`: the length that Blosc notes, checksums.

    Parameters
    ----------
    layout : Layout
    arrays : sequence of zarr.Array
        One for each level.
    sizes : mapping
        Bytes of each object of the store by key; None where that is not known.
    """
    lengths = {name: _length(array) for name, array in zip(layout.names, arrays, strict=True)}
    for key in layout.all_keys():
        size = sizes.get(key, 0)
        if key not in sizes:
            yield key, "it is missing"
        elif size == 0:
            yield key, "it is empty"
        elif size is not None:
            least, most = lengths.get(key.partition("/")[0], (1, math.inf))
            if not least <= size <= most:
                much = f"{least}" if least == most else f"at least {least}"
                yield key, f"it is damaged: it has {size} bytes, and should have {much}"


def _length(array: zarr.Array[Any]) -> tuple[int, float]:
    """Return the least and the most bytes of an object of an array."""
    if array.shards:
        inner = zip(array.shards, array.chunks, strict=True)
        # The offset and the length of each chunk.
        return 16 * math.prod(shard // chunk for shard, chunk in inner), math.inf
    if array.compressors or array.filters:
        return 1, math.inf
    whole = math.prod(array.chunks) * array.dtype.itemsize
    return whole, whole


def key_of(name: str, index: Sequence[int]) -> str:
    """Return the key of an object of an array: a shard, or a chunk where there are none."""
    # Zarr's default chunk key encoding.
    return "/".join([name, "c", *map(str, index)])


def grid_of(shape: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the number of objects of an array along each axis, by the lengths of one."""
    return [-(-n // max(1, length)) for n, length in zip(shape, lengths, strict=True)]
