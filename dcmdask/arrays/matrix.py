"""`TotalPixelMatrix`: planes of total pixel matrices, of which frames are the tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.icc import check_profile, to_srgb
from dcmdask.arrays.placement import fitting
from dcmdask.arrays.reduced import ReducedFrames
from dcmdask.dicom.description import Described
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.tiles.positions import PLACE
from dcmdask.dicom.tiles.tiling import Tiling
from dcmdask.errors import LayoutError
from dcmdask.pixels.array_like import ArrayLike, frame_number, frame_numbers, inner_shape, split


class _Sheet(NamedTuple):
    """Frames of one file that are tiles of one plane."""

    tiling: Tiling
    plane: int
    start: int  # number of its first frame among those of all files


@dataclass(frozen=True)
class _Run:
    """Indices along one axis, ascending: `start`, and `count` of them `step` apart."""

    start: int
    count: int
    step: int
    backwards: bool
    single: bool

    @property
    def stop(self) -> int:
        """One behind the last index."""
        return self.start + (self.count - 1) * self.step + 1 if self.count else self.start

    def inside(self, first: int, length: int) -> tuple[slice, slice]:
        """Return which of the indices are among `length` from `first` on, and which those are."""
        low = max(0, -(-(first - self.start) // self.step))
        high = min(self.count, -(-(first + length - self.start) // self.step))
        begin = self.start + low * self.step - first
        return slice(low, max(low, high)), slice(begin, length, self.step)


class TotalPixelMatrix(ArrayLike):
    """Planes as an array (planes, rows, columns) or (planes, rows, columns, samples).

    Each access decodes the tiles that it touches once, and no other; they are cut where they
    reach beyond the matrix. Where tiles overlap, later frames lie over earlier ones.

    Parameters
    ----------
    frames : JoinedFrames or ReducedFrames
        (frames, rows, columns[, samples]): those of all files, one after the other. The planes of
        reduced ones are reduced by the same factor.
    instances : sequence of Described
        As :func:`dcmdask.images.tiled.planes_of` returns them, with planes of one size.
    fill_value : array-like
        Value of pixels without a tile: one, or one for each sample.
    profiles : sequence of bytes, optional
        ICC profile of each plane, by which its tiles become sRGB; `fill_value` is that already.

    Raises
    ------
    ValueError
        `fill_value` does not fit the type.
    LayoutError
        Reduced tiles would not lie side by side.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        That of the frames, in native byte order.
    tile : (int, int)
        Rows and columns of a tile.
    """

    def __init__(
        self,
        frames: JoinedFrames | ReducedFrames,
        instances: Sequence[Described],
        fill_value: npt.ArrayLike = 0,
        profiles: Sequence[bytes] = (),
    ) -> None:
        self.frames = frames
        self._factor = frames.factor if isinstance(frames, ReducedFrames) else 1
        tilings = [part.tiling for one in instances for part in one.stored]
        self._sheets = _sheets_of(instances)
        assert tilings[0] is not None
        rows, columns = (-(-length // self._factor) for length in tilings[0].matrix)
        self.tile = (frames.shape[1], frames.shape[2])
        self.shape = (len(self._sheets), rows, columns, *frames.shape[3:])
        self._check_grid(tilings[0].tile)
        self.dtype = frames.dtype.newbyteorder("=")
        self._profiles = tuple(profiles)
        for profile in set(profiles):
            check_profile(profile, frames.shape[1:], self.dtype, self.name)
        each = [fitting(one, self.dtype) for one in np.ravel(fill_value).tolist()]
        filled = np.array(each, self.dtype)
        # One number is stored in a sixth of the time of one for each sample.
        self.fill_value = filled[0] if len(set(each)) == 1 else filled

    def _check_grid(self, tile: tuple[int, int]) -> None:
        """Refuse tiles of which no whole number of pixels is left when they are reduced."""
        factor = self._factor
        sheets = [sheet for each in self._sheets for sheet in each]
        places = [np.frombuffer(sheet.tiling.places, PLACE) for sheet in sheets]
        corners = [one[name] for one in places for name in ("top", "left")]
        if any((one % factor).any() for one in corners) or any(n % factor for n in tile):
            raise LayoutError(
                f"tiles of {tile[0]} x {tile[1]} pixels cannot be decoded at 1/{factor} of their "
                "size: they would not lie side by side",
                source=self.name,
                code="reduced",
            )

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below, and of where they lie."""
        parts = (self.frames.token, self.shape, self.tile, self.fill_value.tolist())
        digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
        for profile in self._profiles:
            digest.update(hashlib.blake2b(profile).digest())
        for sheets in self._sheets:
            for tiling, plane, start in sheets:
                digest.update(f"{plane} {start} {tiling.first} {tiling.frames};".encode())
                digest.update(tiling.places)
        return digest.hexdigest()

    def tiles(
        self, plane: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> list[tuple[int, int, int]]:
        """Return the tiles of a plane that touch a part of it: frame, first row, first column."""
        found: list[tuple[int, int, int]] = []
        factor = self._factor
        (top, bottom), (left, right) = rows, columns
        whole = (top * factor, bottom * factor), (left * factor, right * factor)
        for tiling, number, start in self._sheets[plane]:
            frames, tops, lefts = tiling.within(number, *whole)
            places = ((one // factor).tolist() for one in (tops, lefts))
            parts = (frames + start).tolist(), *places
            found += zip(*parts, strict=True)
        return found

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the tiles that `key` touches, and return what it selects of them.

        Raises
        ------
        FrameNumberError, IndexError
            There is no such plane, row or column.
        DecodeError, SourceChangedError, FileNotFoundError
            As the frames below do.
        """
        (outer,), inner = split(key, self.ndim)
        planes = frame_numbers(outer, len(self), self.name)
        shape, _ = inner_shape(inner, self.shape[1:])
        down, across = (_run(k, n) for k, n in zip(inner[:2], self.shape[1:3], strict=True))
        whole = np.empty((len(planes), down.count, across.count, *self.shape[3:]), self.dtype)
        if whole.size:
            for out, plane in zip(whole, planes, strict=True):
                self._fill(out, plane, down, across)
        turned = tuple(
            0 if one.single else slice(None, None, -1 if one.backwards else 1)
            for one in (down, across)
        )
        selected: npt.NDArray[Any] = whole[(slice(None), *turned, *inner[2:])]
        assert selected.shape[1:] == shape
        return selected[0] if isinstance(outer, int) else selected

    def _fill(self, out: npt.NDArray[Any], plane: int, down: _Run, across: _Run) -> None:
        """Store the tiles of a plane that have pixels of these rows and columns in `out`."""
        height, width = self.tile
        wanted, covered = [], 0
        tiles = self.tiles(plane, (down.start, down.stop), (across.start, across.stop))
        by_top = {top: down.inside(top, height) for top in {top for _, top, _ in tiles}}
        by_left = {left: across.inside(left, width) for left in {left for _, _, left in tiles}}
        for frame, top, left in tiles:
            (rows, of_rows), (columns, of_columns) = by_top[top], by_left[left]
            # Between two steps of a slice there may be whole tiles.
            if rows.start < rows.stop and columns.start < columns.stop:
                wanted.append((frame, (rows, columns), (of_rows, of_columns)))
                covered += (rows.stop - rows.start) * (columns.stop - columns.start)
        # Tiles in the order of TILED_FULL do not overlap.
        overlap = any(sheet.tiling.places for sheet in self._sheets[plane])
        if overlap or covered < down.count * across.count:
            out[...] = self.fill_value
        decoded = self.frames.each([frame for frame, _, _ in wanted])
        for tile, (_, place, part) in zip(decoded, wanted, strict=True):
            target = out[place]
            if self._profiles:
                tile = to_srgb(tile, self._profiles[plane])
            target[...] = tile[part][: target.shape[0], : target.shape[1]]


def _sheets_of(instances: Sequence[Described]) -> list[list[_Sheet]]:
    """Return for each plane of all instances the files that have frames of it."""
    found: list[list[_Sheet]] = []
    start = 0
    for one in instances:
        numbers = {row: number for number, row in enumerate(rows_of(one.table))}
        sheets: list[list[_Sheet]] = [[] for _ in numbers]
        for part in one.stored:
            assert part.tiling is not None
            for plane, row in enumerate(rows_of(part.tiling.table)):
                sheets[numbers[row]].append(_Sheet(part.tiling, plane, start))
            start += part.tiling.frames
        found += sheets
    return found


def rows_of(table: bytes) -> Iterator[bytes]:
    """Yield the rows of a table of facts, as bytes."""
    size = FACTS.itemsize
    return (table[at : at + size] for at in range(0, len(table), size))


def _run(key: int | slice, length: int) -> _Run:
    """Return the indices that `key` selects of an axis."""
    if not isinstance(key, slice):
        return _Run(frame_number(key, length, ""), 1, 1, False, True)
    indices = range(*key.indices(length))
    backwards = indices.step < 0
    if backwards:
        indices = indices[::-1]
    return _Run(indices.start, len(indices), indices.step, backwards, False)
