"""Levels of a pyramid: their shapes, and each made from the one below; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Shape: TypeAlias = tuple[int, ...]
# Axes along which objects hold more than one frame or tile, first those to grow along first;
# those of one tuple grow together.
Grown: TypeAlias = tuple[tuple[int, ...], ...]

# Number of regions of levels from 2 on, which are small.
LEAST_REGIONS_ABOVE = 4
# The smallest level of a pyramid fits in a square of this size.
SMALLEST_LEVEL = 256


@dataclass(frozen=True)
class Level:
    """One array of a store.

    Attributes
    ----------
    shape, chunks : tuple of int
    shards : tuple of int or None
    """

    shape: Shape
    chunks: Shape
    shards: Shape | None = None

    @property
    def objects(self) -> Shape:
        """The shape of what is stored as one object."""
        return self.shards or self.chunks


def halve(
    array: npt.NDArray[Any], axes: Sequence[int], *, labels: bool = False
) -> npt.NDArray[Any]:
    """Return an array of half the length along `axes`.

    A value is the mean of 2 x 2 (or, for three axes, 2 x 2 x 2) values, or of those that exist
    at the end of an odd axis. The mean of integers is rounded, half upwards; that of floating
    point is NaN where one value is.

    Parameters
    ----------
    array : ndarray
        Integers of at most 32 bits, or floating point.
    axes : sequence of int
    labels : bool
        Take the first value instead of the mean, which could be another label.

    Returns
    -------
    ndarray
        Of the same type, (n + 1) // 2 long along `axes`.

    Examples
    --------
    >>> halve(np.array([[1, 2, 9], [3, 4, 10]], np.uint8), (0, 1))
    array([[ 3, 10]], dtype=uint8)
    >>> halve(np.array([[1, 2, 9], [3, 4, 10]], np.uint8), (0, 1), labels=True)
    array([[1, 9]], dtype=uint8)
    """
    if labels:
        return array[_every_second(array.ndim, axes, 0)]
    shape = [-(-n // 2) if axis in axes else n for axis, n in enumerate(array.shape)]
    halved = np.empty(shape, array.dtype)
    step = 2 if 0 in axes else 1
    # In parts that fit into the processor's cache.
    for place in range(shape[0]):
        halved[place : place + 1] = _mean(array[place * step : (place + 1) * step], axes)
    return halved


def _mean(array: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
    """Return the mean of neighbours, in a wider type."""
    kind = array.dtype.kind
    # Wide enough for the sum of eight values.
    wide = np.dtype(
        np.float64 if kind == "f" else np.int32 if array.dtype.itemsize <= 2 else np.int64
    )
    total = array
    # The first axes first, whose neighbours are contiguous.
    for axis in sorted(axes):
        if total.shape[axis] % 2:
            # The last value is counted twice.
            total = np.concatenate([total, np.take(total, [-1], axis)], axis)
        first, second = (total[_every_second(array.ndim, [axis], start)] for start in (0, 1))
        total = np.add(first, second, dtype=wide)
    if kind == "f":
        total /= 2 ** len(axes)
    else:
        total += 2 ** len(axes) // 2
        # Shifting rounds down, also for negative values.
        total >>= len(axes)
    return total


def _every_second(ndim: int, axes: Sequence[int], start: int) -> tuple[slice, ...]:
    return tuple(slice(start, None, 2) if axis in axes else slice(None) for axis in range(ndim))


# Shapes


def level_count(shape: Shape, halved: tuple[int, ...], wanted: int | str, kept: int = 0) -> int:
    """Return the number of levels, or refuse the one that is wanted.

    `kept` are finer ones that there are besides, which are among those that are wanted.
    """
    longest = max((shape[axis] for axis in halved), default=1)
    if wanted == "auto":
        in_plane = max((shape[axis] for axis in halved[-2:]), default=1)
        return 1 + max(0, math.ceil(math.log2(max(1, in_plane) / SMALLEST_LEVEL)))
    most = kept + 1 + max(0, math.ceil(math.log2(max(1, longest))))
    if not isinstance(wanted, int | np.integer) or not kept < wanted <= most:
        raise ValueError(f"levels {wanted!r}: 'auto', or from 1 to {most} for {shape}")
    return int(wanted) - kept


def stacked(first: Level, halved: tuple[int, ...], grown: Grown, count: int) -> tuple[Level, ...]:
    """Return `count` levels, each made from the one before it."""
    levels = [first]
    for number in range(1, count):
        above = _halved(levels[-1], halved, grown)
        # Level 1 is written with the regions of level 0, those above by regions of their own.
        levels.append(above if number == 1 else _grown(above, first, grown))
    return tuple(levels)


def double(
    lengths: list[int], ends: Sequence[int], grown: Grown, fits: Callable[[Sequence[int]], bool]
) -> None:
    """Double lengths that are not at their ends, as long as doubling along some axes fits."""
    for axes in grown:
        while (some := [axis for axis in axes if lengths[axis] < ends[axis]]) and fits(some):
            for axis in some:
                lengths[axis] *= 2


def _grown(level: Level, first: Level, grown: Grown) -> Level:
    """Return a level with shards of up to as many values as those of the first one have.

    As long as there are enough of them to be written by several tasks at once.
    """
    if level.shards is None or first.shards is None:
        return level
    shape, most, shards = level.shape, math.prod(first.shards), list(level.shards)

    def fits(axes: Sequence[int]) -> bool:
        regions = math.prod(-(-shape[axis] // shards[axis]) for axis in chain(*grown))
        times: int = 2 ** len(axes)
        return times * math.prod(shards) <= most and regions >= times * LEAST_REGIONS_ABOVE

    double(shards, shape, grown, fits)
    return replace(level, shards=tuple(shards))


def _halved(level: Level, halved: tuple[int, ...], grown: Grown) -> Level:
    """Return the level above; its regions are, if possible, those of the one below.

    Its chunks hold about as many values as those below, so that there are fewer of them.
    """
    shape, chunks = list(level.shape), list(level.chunks)
    shards = None if level.shards is None else list(level.shards)
    for axis in halved:
        shape[axis] = -(-shape[axis] // 2)
        if axis not in chain(*grown):
            chunks[axis] = min(chunks[axis], max(1, shape[axis]))
            if shards is not None:
                whole = max(1, -(-shape[axis] // chunks[axis])) * chunks[axis]
                shards[axis] = min(shards[axis] // chunks[axis] * chunks[axis], whole)
        elif shards is None:
            chunks[axis] = -(-chunks[axis] // 2) if chunks[axis] % 2 == 0 else chunks[axis]
        elif shards[axis] % 2 == 0:
            shards[axis] //= 2
            chunks[axis] = math.gcd(chunks[axis], shards[axis])
    ends = shape if shards is None else shards

    def fits(axes: Sequence[int]) -> bool:
        if 2 ** len(axes) * math.prod(chunks) > math.prod(level.chunks):
            return False
        return all(
            2 * chunks[axis] <= ends[axis]
            and (shards is None or shards[axis] % (2 * chunks[axis]) == 0)
            for axis in axes
        )

    double(chunks, ends, grown, fits)
    return Level(tuple(shape), tuple(chunks), None if shards is None else tuple(shards))
