"""Plan of an export: chunks, shards and regions, by pure functions.

A *region* is the smallest union of whole objects (shards, or chunks where there are none)
that is made of whole frames, or of whole tiles where frames are cut. One task writes a region,
so no object is written by two. The regions of a level are numbered from 0, the last axis fastest.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from dcmdask.errors import AlignmentError
from dcmdask.store.pyramid import Grown, Level, Shape, double, level_count, stacked

Wanted: TypeAlias = "str | int | Sequence[int] | None"

# Default sizes of a chunk and a shard, decoded. A chunk is the least that a reader decodes; a
# region, about a shard, is held in memory by a task.
CHUNK_BYTES = 2**19
SHARD_BYTES = 2**26
# Tile size of a volume's frames, so that chunks span several frames; other frames stay whole
# unless they are large.
VOLUME_TILE = 256
LARGE_FRAME_BYTES = 2**22
LARGE_FRAME_TILE = 1024
# Number of objects that need no shards, and of regions that keep a cluster busy.
FEW_OBJECTS = 64
LEAST_REGIONS = 8


@dataclass(frozen=True)
class Axes:
    """Axes of the stored arrays.

    Attributes
    ----------
    dims : tuple of str
        Names of the axes.
    frame_axes : tuple of int
        Axes that number frames, in the order of the leading axes of the frames; the others are
        rows, columns and samples. Rows and columns are the last two of them where frames are cut.
    samples_axis : int or None
        Index of the samples' axis.
    halved : tuple of int
        Axes along which a level has half the length of the one below.
    tile : (int, int) or None
        Rows and columns of the tiles that frames are cut into: those that are decoded together.
    """

    dims: tuple[str, ...]
    frame_axes: tuple[int, ...]
    samples_axis: int | None = None
    halved: tuple[int, ...] = ()
    tile: tuple[int, int] | None = None

    @property
    def pieces(self) -> Shape:
        """Lengths along `frame_axes` of what is decoded as a whole: a frame, or a tile."""
        frames = len(self.frame_axes)
        return (1,) * frames if self.tile is None else (*(1,) * (frames - 2), *self.tile)

    @property
    def grown(self) -> Grown:
        """Axes to grow along: those of frames, the last first; or rows and columns together."""
        if self.tile is None:
            return tuple((axis,) for axis in reversed(self.frame_axes))
        return (self.frame_axes[-2:],)


@dataclass(frozen=True, kw_only=True)
class Plan(Axes):
    """Plan of an export: levels and regions."""

    dtype: np.dtype[Any]
    levels: tuple[Level, ...]

    def unit(self, level: int) -> Shape:
        """Return the lengths of a region of `level`, the last along an axis may be shorter.

        The regions of level 0 hold whole objects of level 1, too.
        """
        unit = list(self.levels[level].shape)
        for axis, piece in zip(self.frame_axes, self.pieces, strict=True):
            unit[axis] = self.levels[level].objects[axis]
            if level == 0 and unit[axis] < self.levels[0].shape[axis]:
                unit[axis] = math.lcm(unit[axis], piece)
            if level == 0 and len(self.levels) > 1:
                above = self.levels[1].objects[axis] * (2 if axis in self.halved else 1)
                unit[axis] = math.lcm(unit[axis], above)
        return tuple(map(min, unit, self.levels[level].shape))

    def grid(self, level: int) -> Shape:
        """Return the number of regions of `level` along each axis."""
        lengths = zip(self.levels[level].shape, self.unit(level), strict=True)
        return tuple(-(-length // max(1, unit)) for length, unit in lengths)

    def count(self, level: int) -> int:
        """Return the number of regions of `level`."""
        return math.prod(self.grid(level))

    def region(self, level: int, number: int) -> tuple[slice, ...]:
        """Return where region `number` lies in the array of `level`."""
        at = np.unravel_index(number, self.grid(level))
        unit, shape = self.unit(level), self.levels[level].shape
        starts = [int(i) * length for i, length in zip(at, unit, strict=True)]
        return tuple(
            slice(start, min(start + length, end))
            for start, length, end in zip(starts, unit, shape, strict=True)
        )

    def above(self, region: Sequence[slice]) -> tuple[slice, ...]:
        """Return the region of the level above that is made from a region."""
        return tuple(
            slice(one.start // 2, -(-one.stop // 2)) if axis in self.halved else one
            for axis, one in enumerate(region)
        )

    def below(self, level: int, region: Sequence[slice]) -> tuple[slice, ...]:
        """Return the region of the level below that a region of `level` is made from."""
        lengths = self.levels[level - 1].shape
        return tuple(
            slice(one.start * 2, min(one.stop * 2, length)) if axis in self.halved else one
            for axis, (one, length) in enumerate(zip(region, lengths, strict=True))
        )

    def objects(self, level: int, region: Sequence[slice]) -> Iterator[Shape]:
        """Yield the grid indices of the objects of `level` that a region of it holds."""
        lengths = self.levels[level].objects
        yield from product(
            *(
                range(one.start // length, -(-one.stop // length))
                for one, length in zip(region, lengths, strict=True)
            )
        )

    @property
    def region_bytes(self) -> int:
        """Decoded bytes of the largest region."""
        return math.prod(self.unit(0)) * self.dtype.itemsize


def planned(
    shape: Shape,
    dtype: np.dtype[Any],
    axes: Axes,
    *,
    chunks: Wanted = "auto",
    shards: Wanted = "auto",
    levels: int | str = 1,
    kept: int = 0,
) -> Plan:
    """Choose chunks, shards and levels, or take those that are wanted.

    Parameters
    ----------
    shape, dtype, axes
        Those of the stored array.
    chunks, shards : "auto", int or sequence of int
        One number for each axis but that of the samples; or, for one axis of frames, the
        number of whole frames, and where frames are cut that of rows and of columns. Shards may
        be None.
    levels : int or "auto"
    kept : int
        Number of finer levels among them that are of other plans.
    """
    sizes = _Sizes(**vars(axes), shape=shape, itemsize=dtype.itemsize)
    chunk = None if chunks == "auto" else sizes.given(chunks, "chunks")
    shard = None if shards in (None, "auto") else sizes.given(shards, "shards")
    if chunk is None:
        chunk = sizes.chunks()
        if shard is None:
            chunk = sizes.evened(chunk)
        else:
            # As large as fits into the shards that are wanted.
            chunk = tuple(_divisor(one, most) for one, most in zip(shard, chunk, strict=True))
    if shards == "auto":
        shard = sizes.shards(chunk)
    if shard is not None and any(s % c for s, c in zip(shard, chunk, strict=True)):
        text = f"shards {shard} are not made of whole chunks {chunk}"
        raise AlignmentError(text, code="shards")
    count = level_count(shape, axes.halved, levels, kept)
    all_levels = stacked(Level(shape, chunk, shard), axes.halved, axes.grown, count)
    return Plan(**vars(axes), dtype=dtype, levels=all_levels)


def check_fits(plan: Plan, limit: int, why: str) -> None:
    """Refuse regions of more bytes than a worker has room for, and name shards that fit.

    `why` is the limit in words.
    """
    if plan.region_bytes <= limit:
        return
    level = plan.levels[0]
    kind = "chunks" if level.shards is None else "shards"
    what = "frame" if plan.tile is None else "tile"
    words = (
        f"a region of whole {kind} and whole {what}s is {plan.unit(0)}, {plan.region_bytes} bytes "
        f"decoded, and a task may take {limit} ({why})"
    )
    fitting = _smaller(plan, limit)
    if fitting is None:
        pieces = zip(plan.frame_axes, plan.pieces, strict=True)
        single = level.shards is None or all(level.chunks[axis] <= n for axis, n in pieces)
        advice = f"one {what} needs more memory" if single else f"use chunks of fewer {what}s"
        raise AlignmentError(f"{words}; {advice}", code="memory")
    shown = ",".join(str(n) for axis, n in enumerate(fitting) if axis != plan.samples_axis)
    raise AlignmentError(f"{words}; {kind} of {shown} would fit", code="memory")


def _smaller(plan: Plan, limit: int) -> Shape | None:
    """Return shards, or chunks, of fewer frames whose regions fit; None if there are none."""
    level = plan.levels[0]
    objects = list(level.objects)
    for axis, piece in zip(plan.frame_axes, plan.pieces, strict=True):
        step = piece if level.shards is None else level.chunks[axis]
        objects[axis] = min(objects[axis], -(-level.shape[axis] // step) * step)
        # Not monotonous: a level above may need several objects in one region.
        for length in range(objects[axis], 0, -step):
            objects[axis] = length
            shape = tuple(objects)
            chunks, shards = (shape, None) if level.shards is None else (level.chunks, shape)
            first = Level(level.shape, chunks, shards)
            levels = stacked(first, plan.halved, plan.grown, len(plan.levels))
            if replace(plan, levels=levels).region_bytes <= limit:
                return shape
    return None


@dataclass(frozen=True, kw_only=True)
class _Sizes(Axes):
    """Chunks and shards that suit the axes of an array."""

    shape: Shape
    itemsize: int

    @property
    def samples_chunk(self) -> int:
        """Length of a chunk along the samples."""
        # Beside one another where they come last; otherwise each is a channel.
        return self.shape[-1] if self.samples_axis == len(self.shape) - 1 else 1

    def given(self, wanted: Wanted, what: str) -> Shape:
        """Return what is wanted, with a number for each axis."""
        plane = [axis for axis in range(len(self.shape)) if axis != self.samples_axis]
        if isinstance(wanted, int | np.integer) and len(self.frame_axes) == 1:
            wanted = [wanted if axis in self.frame_axes else self.shape[axis] for axis in plane]
        elif isinstance(wanted, int | np.integer) and self.tile is not None:
            wanted = [wanted if axis in self.frame_axes[-2:] else 1 for axis in plane]
        if not isinstance(wanted, Sequence) or isinstance(wanted, str):
            raise ValueError(f"{what} {wanted!r}: 'auto', or a number for each axis")
        whole = [one for one in wanted if operator.index(one) >= 1]
        if len(wanted) != len(plane) or len(whole) < len(wanted):
            raise ValueError(
                f"{what} {tuple(wanted)!r} are not one positive number for each of the "
                f"{len(plane)} axes (without samples) of {self.shape}"
            )
        lengths = iter(wanted)
        samples = self.samples_chunk if what == "chunks" else self.shape[self.samples_axis or 0]
        return tuple(
            samples if axis == self.samples_axis else int(next(lengths))
            for axis in range(len(self.shape))
        )

    def _bytes(self, lengths: Sequence[int]) -> int:
        return math.prod(lengths) * self.itemsize

    def chunks(self) -> Shape:
        """Return chunks of about `CHUNK_BYTES`."""
        if self.tile is not None:
            pieces = dict(zip(self.frame_axes, self.pieces, strict=True))
            start = [pieces.get(axis, self.samples_chunk) for axis in range(len(self.shape))]
            # Parts of a tile that is the whole matrix, say.
            while self._bytes(start) > LARGE_FRAME_BYTES and max(start) % 2 == 0:
                start[start.index(max(start))] //= 2
            return self._squares(start, CHUNK_BYTES)
        frame = [1 if axis in self.frame_axes else n for axis, n in enumerate(self.shape)]
        is_volume = "z" in self.dims
        tile = VOLUME_TILE if is_volume else max(self.shape)
        if not is_volume and self._bytes(frame) > LARGE_FRAME_BYTES:
            tile = LARGE_FRAME_TILE
        chunk = [max(1, min(length, tile)) for length in frame]
        if self.samples_axis is not None:
            chunk[self.samples_axis] = self.samples_chunk
        self._grow(chunk, CHUNK_BYTES)
        return tuple(chunk)

    def evened(self, chunk: Shape) -> Shape:
        """Return the shape of as many chunks of nearly equal lengths: 18 for 35, not 32 and 3.

        Chunks of tiles stay as they are.
        """
        if self.tile is not None:
            return chunk
        lengths = []
        for axis, (n, length) in enumerate(zip(self.shape, chunk, strict=True)):
            even = -(-n // max(1, -(-n // length)))
            if axis in self.halved and axis in self.frame_axes and even < n:
                # Half of a chunk is one of the level above.
                even += even % 2
            lengths.append(length if axis == self.samples_axis else max(1, even))
        return tuple(lengths)

    def shards(self, chunk: Shape) -> Shape | None:
        """Return shards of whole frames, or squares of whole tiles, of about `SHARD_BYTES`.

        None where there is no need.
        """
        if math.prod(-(-n // c) for n, c in zip(self.shape, chunk, strict=True)) <= FEW_OBJECTS:
            return None
        if self.tile is not None:
            together = [self.shape[i] if i == self.samples_axis else c for i, c in enumerate(chunk)]
            most = min(SHARD_BYTES, self._bytes(self.shape) // LEAST_REGIONS)
            return self._squares(together, most)
        shard = [
            c if axis in self.frame_axes else max(1, -(-n // c)) * c
            for axis, (n, c) in enumerate(zip(self.shape, chunk, strict=True))
        ]
        frames = math.prod(self.shape[axis] for axis in self.frame_axes)
        in_plane = math.prod(n for axis, n in enumerate(shard) if axis not in self.frame_axes)
        by_count = frames // LEAST_REGIONS * in_plane * self.itemsize
        self._grow(shard, min(SHARD_BYTES, by_count))
        return tuple(shard)

    def _squares(self, lengths: list[int], most: int) -> Shape:
        """Double rows and columns up to so many bytes, but not beyond the end of the matrix."""
        start = list(lengths)
        double(
            lengths,
            self.shape,
            self.grown,
            lambda some: 2 ** len(some) * self._bytes(lengths) <= most,
        )
        for axis in self.frame_axes[-2:]:
            whole = max(1, -(-self.shape[axis] // start[axis])) * start[axis]
            lengths[axis] = min(lengths[axis], whole)
        return tuple(lengths)

    def _grow(self, lengths: list[int], most: int) -> None:
        """Double lengths along the axes of frames, the last first, up to so many bytes."""
        for axis in reversed(self.frame_axes):
            start = lengths[axis]
            while lengths[axis] < self.shape[axis] and 2 * self._bytes(lengths) <= most:
                lengths[axis] *= 2
            if lengths[axis] < self.shape[axis]:
                return
            # Not beyond the end, but whole multiples of what it was.
            lengths[axis] = max(1, -(-self.shape[axis] // start)) * start


def _divisor(length: int, most: int) -> int:
    """Return the largest divisor of `length` that is at most `most`."""
    return next(n for n in range(min(length, most), 0, -1) if length % n == 0)
