"""Tilings: where frames lie in a total pixel matrix (PS3.3 C.8.12.4 and C.7.6.17.3).

A matrix has a plane for each optical path and focal plane of a slide, or for each segment. Its
tiles are frames, in the order that TILED_FULL prescribes or at the positions that they have. Their
Z offsets number the focal planes, unless (0048,0303) Total Pixel Matrix Focal Planes is 1: then
they are heights of the focus, and the plane lies where one of TILED_FULL does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, isnan
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.dicom import frame_facts
from dcmdask.dicom.conversion import LONGEST, code_string, first_number, numbers, text
from dcmdask.dicom.elements import Filter, Wanted
from dcmdask.dicom.frame_facts import FACTS, Common
from dcmdask.dicom.groups.functional_groups import SEQUENCES, Read, shared_values, with_items
from dcmdask.dicom.groups.items import items_of
from dcmdask.dicom.header import Header
from dcmdask.dicom.tiles.positions import (
    PLACE,
    Z_OFFSET,
    distinct,
    grid_of,
    in_order,
    read_positions,
)
from dcmdask.errors import Note

__all__ = ["TILED", "TILED_SEQUENCES", "OpticalPath", "Tiling", "is_tiled", "tiling_of"]

_COLUMNS, _ROWS, _FOCAL_PLANES = 0x00480006, 0x00480007, 0x00480303
_ORIENTATION, _ORGANIZATION = 0x00480102, 0x00209311
_CONCATENATION, _FIRST_FRAME = 0x00209161, 0x00209228
_PYRAMID, _ABSENT_PIXEL = 0x00080019, 0x00480015
_ORIGIN, _PATHS = 0x00480008, 0x00480105
_SEGMENTS, _SEGMENTATION_TYPE, _CHARACTER_SET = 0x00620002, 0x00620001, 0x00080005
TILED: Final = frozenset(
    {
        *(_COLUMNS, _ROWS, _FOCAL_PLANES, _ORIENTATION, _ORGANIZATION),
        *(_CONCATENATION, _FIRST_FRAME, _PYRAMID, _ABSENT_PIXEL),
    }
)
"""Elements of a tiled instance, besides those of its sequences."""
TILED_SEQUENCES: Final = frozenset({_ORIGIN, _PATHS})

_X, _Y = 0x0040072A, 0x0040073A
_CORNER: Final = Filter(
    (Wanted((_X,), 0, "DS"), Wanted((_Y,), 1, "DS"), Wanted((Z_OFFSET,), 2, "DS"))
)
# Identifier, description, illumination wave length in nm.
_PATH: Final = Filter(
    (
        Wanted((0x00480106,), 0, "SH"),
        Wanted((0x00480107,), 1, "ST"),
        Wanted((0x00220055,), 2, "FL"),
    )
)
_SEGMENT_NUMBER: Final = Filter([Wanted((0x00620004,), 0, "US")])
# Tiles of a plane: of 64 x 64 pixels they would be a glass of 26 x 76 mm, 0.09 um from one to the
# next. Beyond that coordinates and chunks of a few frames would take all memory.
MOST_PLACES: Final = 1 << 26
# Planes of a concatenation of which a part is there; no slide has nearly as many.
_MOST_PLANES: Final = 1 << 16
# Z offsets are micrometres, unlike all other lengths (PS3.3 C.8.12.2.1.1).
_MM_OF_Z: Final = 1e-3


class OpticalPath(NamedTuple):
    """One item of (0048,0105) Optical Path Sequence.

    Attributes
    ----------
    identifier, description : str
    wavelength : float
        (0022,0055), in nm; NaN where it is not known.
    """

    identifier: str
    description: str = ""
    wavelength: float = np.nan


@dataclass(frozen=True)
class Tiling:
    """Places of the frames of one instance in its total pixel matrix.

    Attributes
    ----------
    frames : int
        Number of frames that are stored.
    tile, matrix : (int, int)
        Rows and columns of a frame, and of the matrix.
    table : bytes
        A row of `FACTS` for each plane.
    places : bytes
        Of each frame in the order of the file, of `PLACE`; none where frames are in the order of
        TILED_FULL: along rows, then down, then by focal planes, then by optical paths or segments.
    first : int
        Number of frames in the earlier parts of a concatenation (PS3.3 C.7.6.16.2.2.4).
    concatenation, pyramid : str
        UIDs; empty where there is none.
    paths : tuple of OpticalPath
    absent : tuple of float
        (0048,0015) Recommended Absent Pixel CIELab Value, as it is stored.
    fault : str
        Reason why the frames cannot be put into the matrix; empty where they can be.
    notes : tuple of Note
    """

    frames: int
    tile: tuple[int, int]
    matrix: tuple[int, int]
    table: bytes
    places: bytes = field(default=b"", repr=False)
    first: int = 0
    concatenation: str = ""
    pyramid: str = ""
    paths: tuple[OpticalPath, ...] = ()
    absent: tuple[float, ...] = ()
    fault: str = ""
    notes: tuple[Note, ...] = ()

    @property
    def planes(self) -> int:
        """Number of planes."""
        return len(self.table) // FACTS.itemsize

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles, down and across, that cover the matrix."""
        return grid_of(self.tile, self.matrix)

    @cached_property
    def _by_row(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Frames with a position, and their places, by plane and then from top to bottom."""
        places = np.frombuffer(self.places, PLACE)
        order = np.lexsort((places["top"], places["plane"]))
        return order, places[order]

    def within(
        self, plane: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the frames of a plane that touch a part of it, ascending, and where they begin.

        Parameters
        ----------
        plane : int
        rows, columns : (int, int)
            First and one behind the last.

        Returns
        -------
        frames, tops, lefts : ndarray of int64
        """
        (top, bottom), (left, right) = rows, columns
        height, width = self.tile
        if not self.places:
            down, across = self.grid
            tall = np.arange(top // height, min(down, -(-bottom // height)))
            wide = np.arange(left // width, min(across, -(-right // width)))
            frames = ((plane * down + tall[:, np.newaxis]) * across + wide).ravel() - self.first
            tops, lefts = np.repeat(tall * height, len(wide)), np.tile(wide * width, len(tall))
            there = (frames >= 0) & (frames < self.frames)
            return frames[there], tops[there], lefts[there]
        order, places = self._by_row
        start, stop = np.searchsorted(places["plane"], [plane, plane + 1])
        ends = np.searchsorted(places["top"][start:stop], [top - height, bottom], "left")
        # One that begins a whole tile above does not reach here.
        first, last = start + ends
        near = places[first:last]
        found = (near["left"] > left - width) & (near["left"] < right)
        found &= near["top"] > top - height
        frames, near = order[first:last][found], near[found]
        ascending = np.argsort(frames)
        near = near[ascending]
        return frames[ascending], near["top"].astype(np.int64), near["left"].astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_by_row"}


def is_tiled(header: Header) -> bool:
    """Return whether a header has the size of a total pixel matrix."""
    return _COLUMNS in header.values and _ROWS in header.values


def tiling_of(
    header: Header, frames: int, tile: tuple[int, int], top: list[bytes], common: Common
) -> tuple[bytes, Tiling]:
    """Return the facts that all frames share, as a row, and where frames lie.

    Parameters
    ----------
    header : Header
        With the elements of `TILED`, and the sequences of `TILED_SEQUENCES` and of functional
        groups.
    frames : int
        Number of frames.
    tile : (int, int)
        Rows and columns of a frame.
    top : list of bytes
        Values of the data set itself, as `frame_facts.ELEMENTS` lists them.
    common : Common

    Raises
    ------
    HeaderError
        The functional groups are damaged.
    """
    made = _Maker(header, frames, tile, common)
    return with_items(header, SEQUENCES | TILED_SEQUENCES, lambda read: made.make(read, top))


class _Maker:
    """Elements of a header that several parts of its tiling are made of."""

    def __init__(self, header: Header, frames: int, tile: tuple[int, int], common: Common) -> None:
        self.header, self.frames, self.tile, self.common = header, frames, tile, common
        self.matrix = self._count(_ROWS), self._count(_COLUMNS)
        self.first = self._count(_FIRST_FRAME)
        self.paths: dict[str, int] = {}

    def make(self, read: Read, top: list[bytes]) -> tuple[bytes, Tiling]:
        """Return the facts that all frames share, as a row, and where frames lie."""
        shared = shared_values(read, top)
        paths = [self._path(item) for item in read.rows(_PATHS, _PATH)]
        self.paths = {path.identifier: number for number, path in enumerate(paths)}
        planes, places, fault, notes = self._arranged(read, paths)
        row = frame_facts.packed(shared, self.common)
        return row, Tiling(
            frames=self.frames,
            tile=self.tile,
            matrix=self.matrix,
            table=row if fault else self._facts(row, planes, next(read.rows(_ORIGIN, _CORNER), {})),
            places=places,
            first=self.first,
            concatenation=self._word(_CONCATENATION),
            pyramid=self._word(_PYRAMID),
            paths=tuple(paths),
            absent=self._numbers(_ABSENT_PIXEL, "US"),
            fault=fault,
            notes=tuple(notes),
        )

    def _numbers(self, tag: int, vr: str) -> tuple[float, ...]:
        raw = self.header.values.get(tag)
        return numbers(raw.value, vr, self.common.little_endian) if raw and raw.value else ()

    def _count(self, tag: int, absent: int = 0) -> int:
        found = self._numbers(tag, "UL")
        return int(found[0]) if found and isfinite(found[0]) else absent

    def _word(self, tag: int) -> str:
        raw = self.header.values.get(tag)
        return code_string(raw.value[:LONGEST]) if raw else ""

    def _path(self, item: dict[int, bytes]) -> OpticalPath:
        charset = self.header.values.get(_CHARACTER_SET)
        identifier, description = (
            text(item.get(key, b""), charset.value if charset else b"") for key in (0, 1)
        )
        wavelength = first_number(item.get(2, b""), "FL", self.common.little_endian)
        return OpticalPath(identifier, description, wavelength)

    def _arranged(
        self, read: Read, paths: list[OpticalPath]
    ) -> tuple[list[_Plane], bytes, str, list[Note]]:
        """Return the planes, the places of frames, a fault, and oddities."""
        if min(self.matrix) < 1:
            return [], b"", f"the total pixel matrix has {self._shape} rows and columns", []
        down, across = grid_of(self.tile, self.matrix)
        if down * across > MOST_PLACES:
            fault = (
                f"the total pixel matrix of {self._shape} has room for {down * across} tiles, and "
                f"there are {self.frames} frames"
            )
            return [], b"", fault, []
        organization = self._word(_ORGANIZATION)
        placed = self._placed(read)
        if placed is not None:
            return placed
        if organization == "TILED_SPARSE":
            fault = (
                "(0020,9311) 'Dimension Organization Type' is TILED_SPARSE, and no frame has a "
                "position in the total pixel matrix (0048,021E)"
            )
            return [], b"", fault, []
        planes, fault = self._in_order(paths)
        notes = []
        if organization != "TILED_FULL" and not fault and self.frames > 1:
            notes.append(
                Note(
                    "tiles",
                    "neither (0020,9311) 'Dimension Organization Type' nor the frames say where "
                    f"tiles lie: {self.frames} tiles are taken in the order of TILED_FULL, row by "
                    "row, as many as the total pixel matrix has",
                )
            )
        return planes, b"", fault, notes

    @property
    def _shape(self) -> str:
        return f"{self.matrix[0]} x {self.matrix[1]}"

    def _in_order(self, paths: list[OpticalPath]) -> tuple[list[_Plane], str]:
        """Return the planes of frames in the order of TILED_FULL, and a fault."""
        focal = max(1, self._count(_FOCAL_PLANES, 1))
        planes = [_Plane(path.identifier, np.nan) for path in paths] or [_Plane("", np.nan)]
        if segments := self._segments():
            planes = [_Plane("", number) for number in segments]
        down, across = grid_of(self.tile, self.matrix)
        count = len(planes) * focal
        needed, there = down * across * count, self.first + self.frames
        is_part = bool(self._word(_CONCATENATION))
        if there == needed or (is_part and there < needed and count < _MOST_PLANES):
            return [one._replace(focal=n) for one in planes for n in range(focal)], ""
        return [], (
            f"the total pixel matrix of {self._shape} has {down * across} tiles of "
            f"{self.tile[0]} x {self.tile[1]} in each of {count} planes, {needed} together, "
            f"and there are {there} frames: Total Pixel Matrix Rows or Columns (0048,0007), "
            "(0048,0006), the number of focal planes or of optical paths, or Number of Frames is "
            "wrong"
        )

    def _segments(self) -> list[float]:
        """Return the numbers of the segments of a segmentation; none of a label map."""
        raw = self.header.values.get(_SEGMENTS)
        if raw is None or self._word(_SEGMENTATION_TYPE) == "LABELMAP":
            return []
        items = items_of(_SEGMENTS, raw, self.header.encoding, _SEGMENT_NUMBER)
        little = self.common.little_endian
        found = [item.get(0) for item in items]
        return [first_number(one.value, "US", little) for one in found if one is not None]

    def _placed(self, read: Read) -> tuple[list[_Plane], bytes, str, list[Note]] | None:
        """Return planes, places, a fault and oddities; None where no frame has a position."""
        places, told = read_positions(read, self.frames, self.common.little_endian)
        if not len(places):
            return None
        if lacking := self.frames - len(places):
            return [], b"", f"{lacking} of {self.frames} frames have no position in the matrix", []
        outside = [
            (places[name] < 0) | (places[name] >= length)
            for name, length in zip(("top", "left"), self.matrix, strict=True)
        ]
        if (wrong := np.flatnonzero(outside[0] | outside[1])).size:
            frame = int(wrong[0])
            row, column = places["top"][frame] + 1, places["left"][frame] + 1
            fault = (
                f"{len(wrong)} of {self.frames} frames begin outside of the total pixel matrix of "
                f"{self._shape}: frame {frame} at row {row} and column {column}, which count from 1"
            )
            return [], b"", fault, []
        notes = []
        planes = [self._plane(*one) for one in told]
        found, placed = self._in_planes(planes, places)
        if self._count(_FOCAL_PLANES) == 1 and len({self._rank(one)[-1] for one in planes}) > 1:
            # Heights of an autofocus, unless two of them are of one place.
            single = self._in_planes([one._replace(z=np.nan) for one in planes], places)
            if distinct(single[1]) == distinct(placed):
                found, placed = single
        places = placed
        if double := self.frames - distinct(places):
            text_ = f"{double} frames have the place of others: later ones lie over earlier ones"
            notes.append(Note("tiles", text_))
        full = in_order(self.tile, self.matrix, len(found), self.first, self.frames)
        is_full = np.array_equal(places, full)
        if not is_full and self._word(_ORGANIZATION) == "TILED_FULL":
            text_ = "(0020,9311) says TILED_FULL, and frames have other positions: these are taken"
            notes.append(Note("tiles", text_))
        return found, b"" if is_full else places.tobytes(), "", notes

    def _in_planes(
        self, planes: list[_Plane], places: npt.NDArray[Any]
    ) -> tuple[list[_Plane], npt.NDArray[Any]]:
        """Return planes in the order of TILED_FULL, and places with their numbers.

        Planes of one rank are one, such as those at "0" and "0.0".
        """
        by_rank = {self._rank(one): one for one in planes}
        order = {rank: number for number, rank in enumerate(sorted(by_rank))}
        placed = places.copy()
        placed["plane"] = np.array([order[self._rank(one)] for one in planes])[places["plane"]]
        return [by_rank[rank] for rank in order], placed

    def _plane(self, z: bytes, path: bytes, segment: bytes, mapping: bytes) -> _Plane:
        little = self.common.little_endian
        return _Plane(
            frame_facts.identifier(path).decode("ascii", "replace"),
            first_number(segment, "US", little),
            z=first_number(z, "DS", little) * _MM_OF_Z,
            mapping=frame_facts.identifier(mapping),
        )

    def _rank(self, plane: _Plane) -> tuple[Any, ...]:
        path = self.paths.get(plane.path, len(self.paths))
        known = (0.0 if isnan(one) else one for one in (plane.segment, plane.z))
        return path, plane.path, plane.mapping, *known

    def _facts(self, row: bytes, planes: list[_Plane], corner: dict[int, bytes]) -> bytes:
        """Return a row of facts for each plane: those of all, and what tells planes apart."""
        facts = np.frombuffer(bytearray(row * len(planes)), FACTS)
        x, y, z = (
            first_number(corner.get(key, b""), "DS", self.common.little_endian) for key in range(3)
        )
        z = 0.0 if isnan(z) else z * _MM_OF_Z
        orientation = self._numbers(_ORIENTATION, "DS")
        if len(orientation) == 6:
            facts["orientation"] = orientation
        step = float(facts["between"][0])
        for fact, plane in zip(facts, planes, strict=True):
            own = z + plane.focal * (step if isfinite(step) else 0.0)
            fact["position"] = x, y, own if isnan(plane.z) else plane.z
            # Others are shared by all planes.
            if plane.path:
                fact["optical_path"] = plane.path
            if isfinite(plane.segment):
                fact["segment"] = plane.segment
            if plane.mapping:
                fact["mapping"] = plane.mapping
        return facts.tobytes()


class _Plane(NamedTuple):
    """One plane: what tells it from others. `z` is in mm, NaN where focal planes are numbered."""

    path: str
    segment: float
    focal: int = 0
    z: float = np.nan
    mapping: bytes = b""
