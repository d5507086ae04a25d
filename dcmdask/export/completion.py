"""Which objects a store is made of, and which regions have yet to be written.

An object that exists is whole: a local file is renamed into place, an object store takes
an object whole or not at all. So the objects of a region are the record of what was done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from dcmdask.export.plan import Plan


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

    def all_keys(self) -> set[str]:
        """Return the keys of all objects."""
        return {
            key
            for level in self.tasks
            for number in range(self.plan.count(level))
            for key in self.keys(level, number)
        }

    @property
    def tasks(self) -> list[int]:
        """The levels that tasks are for: 0, which makes level 1, too, and those from 2 on."""
        return [level for level in range(len(self.plan.levels)) if level != 1]

    @property
    def regions(self) -> int:
        """How many tasks it takes to write all levels."""
        return sum(self.plan.count(level) for level in self.tasks)


class Left(NamedTuple):
    """What has yet to be done.

    Attributes
    ----------
    regions : dict
        Level to the numbers of its regions.
    stale : list of str
        Keys of objects of these regions that exist.
    """

    regions: dict[int, list[int]]
    stale: list[str]


def left(layout: Layout, there: Collection[str]) -> Left:
    """Return the regions of which an object is not `there`."""
    regions: dict[int, list[int]] = {}
    stale: list[str] = []
    for level in layout.tasks:
        regions[level] = []
        for number in range(layout.plan.count(level)):
            keys = list(layout.keys(level, number))
            found = [key for key in keys if key in there] if there else []
            if len(found) < len(keys):
                regions[level].append(number)
                stale += found
    return Left(regions, stale)


def key_of(name: str, index: Sequence[int]) -> str:
    """Return the key of an object of an array: a shard, or a chunk where there are none."""
    # Zarr's default chunk key encoding.
    return "/".join([name, "c", *map(str, index)])
