"""Positions of frames in a total pixel matrix, by frame (PS3.3 C.8.12.6.1)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.elements import Filter, Wanted
from dcmdask.dicom.groups.functional_groups import PER_FRAME, Read

__all__ = ["PLACE", "Z_OFFSET", "distinct", "grid_of", "in_order", "read_positions"]

PLACE: Final = np.dtype([("plane", "<u4"), ("top", "<i4"), ("left", "<i4")])
# (0040,074A) Z Offset in Slide Coordinate System
Z_OFFSET: Final = 0x0040074A
_POSITION = 0x0048021A
_ROW, _COLUMN, *_PLANE = range(6)
_FRAME: Final = Filter(
    (
        Wanted((_POSITION, 0x0048021F), _ROW, "SL"),
        Wanted((_POSITION, 0x0048021E), _COLUMN, "SL"),
        # These tell planes apart: focal plane, optical path, segment, mapping to real-world values.
        Wanted((_POSITION, Z_OFFSET), 2, "DS"),
        Wanted((0x00480207, 0x00480106), 3, "SH"),
        Wanted((0x0062000A, 0x0062000B), 4, "US"),
        Wanted((0x00409096, 0x00409210), 5, "SH"),
    )
)


def read_positions(
    read: Read, frames: int, little_endian: bool
) -> tuple[npt.NDArray[Any], list[tuple[bytes, ...]]]:
    """Return the places of the frames that have a position, in the order of the file, and planes.

    Parameters
    ----------
    read : Read
    frames : int
        Number of frames that the header declares.
    little_endian : bool

    Returns
    -------
    places : ndarray of PLACE
    planes : list of tuple of bytes
        Z offset, identifier of the optical path, number of the segment and label of the mapping to
        real-world values, as they stand in the file; in the order of their first frames.
    """
    order = "<i4" if little_endian else ">i4"
    planes: dict[tuple[bytes, ...], int] = {}
    numbers, parts = [np.empty(0, np.int64)], [np.empty(0, PLACE)]
    for items, values in read.batches(PER_FRAME, _FRAME, frames):
        row, column = values.get(_ROW), values.get(_COLUMN)
        if row is None or column is None or not row.shape[1] == column.shape[1] == 4:
            continue
        some = np.empty(len(items), PLACE)
        some["plane"] = _numbered(planes, values, len(items))
        # Counted from 1.
        some["top"], some["left"] = _each(row, order) - 1, _each(column, order) - 1
        numbers.append(items)
        parts.append(some)
    places = np.concatenate(parts)[np.argsort(np.concatenate(numbers))]
    met, firsts = np.unique(places["plane"], return_index=True)
    by_first = np.argsort(firsts)
    places["plane"] = np.argsort(by_first)[places["plane"]]
    found = list(planes)
    return places, [found[met[number]] for number in by_first]


def distinct(places: npt.NDArray[Any]) -> int:
    """Return the number of places that are different."""
    ordered = places[np.lexsort((places["left"], places["top"], places["plane"]))]
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def grid_of(tile: tuple[int, int], matrix: tuple[int, int]) -> tuple[int, int]:
    """Return the number of tiles, down and across, that cover a matrix."""
    return -(-matrix[0] // tile[0]), -(-matrix[1] // tile[1])


def in_order(
    tile: tuple[int, int], matrix: tuple[int, int], planes: int, first: int, frames: int
) -> npt.NDArray[Any]:
    """Return the places of frames that are in the order of TILED_FULL."""
    down, across = grid_of(tile, matrix)
    numbers = np.arange(first, min(first + frames, down * across * planes))
    places = np.empty(len(numbers), PLACE)
    rows, columns = np.divmod(numbers, across)
    places["plane"], rows = np.divmod(rows, down)
    places["top"], places["left"] = rows * tile[0], columns * tile[1]
    return places


def _numbered(
    planes: dict[tuple[bytes, ...], int], values: dict[int, npt.NDArray[np.uint8]], items: int
) -> npt.NDArray[Any]:
    """Return the number of the plane of each item; planes not met before are added."""
    told = [values.get(key, np.empty((items, 0), np.uint8)) for key in _PLANE]
    whole = np.concatenate(told, axis=1)
    if (whole == whole[0]).all():
        firsts, which = np.zeros(1, np.int64), np.zeros(items, np.int64)
    else:
        # All of one length, so that zeros at their ends make no difference.
        strings = _each(whole, f"S{whole.shape[1]}")
        _, firsts, which = np.unique(strings, return_index=True, return_inverse=True)
    keys = [tuple(one[first].tobytes() for one in told) for first in firsts]
    return np.array([planes.setdefault(key, len(planes)) for key in keys])[which]


def _each(rows: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """Return the bytes of each row as one number or string."""
    return np.ascontiguousarray(rows).view(dtype).reshape(-1)
