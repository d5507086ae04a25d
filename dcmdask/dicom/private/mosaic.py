"""Private headers of mosaics: tiles of a volume in one frame, where and when each was made.

The CSA header of Siemens is a list of named elements, in either of two forms: one begins with SV10,
the other has none of it. Lengths count bytes; items are padded to 4. UIH has a sequence with an
item for each tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from dcmdask.dicom.conversion import days, milliseconds, numbers, since_midnight
from dcmdask.dicom.elements import IMPLICIT_LITTLE, Encoding, Filter, RawValue, Wanted
from dcmdask.dicom.own_elements import OwnElements
from dcmdask.dicom.private.elements import (
    Blocks,
    private_blocks,
    private_numbers,
    private_tags,
    private_value,
)

__all__ = ["MOSAIC_ELEMENTS", "NO_MOSAIC", "Mosaic", "is_mosaic", "mosaic_of"]

_CSA, _MR = (0x0029, b"SIEMENS CSA HEADER"), (0x0019, b"SIEMENS MR HEADER")
_IMAGE_HEADER, _NUMBER, _TIMES = 0x10, 0x0A, 0x29
_UIH, _SLICES, _FRAMES = (0x0065, b"Image Private Header"), 0x50, 0x51
MOSAIC_ELEMENTS: Final = (
    private_tags(0x0029, _IMAGE_HEADER)
    | private_tags(0x0019, _NUMBER, _TIMES)
    | private_tags(0x0065, _SLICES, _FRAMES)
)
# Image Position (Patient), Acquisition Date, Acquisition Time.
_POSITION, _DATE, _TIME = 0x00200032, 0x00080022, 0x00080032
_TILE: Final = Filter(Wanted((tag,), tag) for tag in (_POSITION, _DATE, _TIME))
_SIGNATURE: Final = b"SV10"
# Name, multiplicity, VR, a type, the number of items, and a mark.
_ELEMENT, _LENGTHS = Struct("<64si4s3i"), Struct("<4i")
_ITEMS: Final = 4
# The first element of the first form, behind the number of elements and a mark.
_FIRST: Final = 8


class Mosaic(NamedTuple):
    """Tiles of a volume that one frame holds, row by row.

    Attributes
    ----------
    tiles : int
        0 where the header does not tell.
    normal : tuple of float
        Direction from each tile to the next, in the patient's axes; empty where the header does
        not tell.
    times : tuple of float
        Start of each tile in ms; empty where the header does not tell.
    positions : tuple of tuple of float, or None
        Position of each tile in the patient's axes; empty where the header has none, None where
        it has some that cannot be read.
    is_square : bool
        Whether rows of the grid without a tile are kept.
    """

    tiles: int = 0
    normal: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    positions: tuple[tuple[float, ...], ...] | None = ()
    is_square: bool = True


NO_MOSAIC: Final = Mosaic()


def is_mosaic(image_type: bytes) -> bool:
    """Return whether Image Type (0008,0008) is that of a mosaic: of Siemens, or of UIH."""
    words = {word.strip(b"\0 ") for word in image_type.split(b"\\")}
    return not words.isdisjoint((b"MOSAIC", b"VFRAME"))


def mosaic_of(values: Mapping[int, RawValue], encoding: Encoding) -> Mosaic:
    """Return what the private elements of a mosaic say of its tiles.

    Parameters
    ----------
    values : mapping of int to RawValue
        Top-level elements, with those of `MOSAIC_ELEMENTS` that are there.
    encoding : Encoding
    """
    blocks = private_blocks(values)
    if _UIH in blocks:
        return _of_uih(values, blocks, encoding)
    header = private_value(values, blocks, _CSA, _IMAGE_HEADER)

    def found(name: bytes, number: int | None, vr: str) -> tuple[float, ...]:
        if told := _values(header.value, name) if header else []:
            return numbers(b"\\".join(told), "DS", True)
        raw = None if number is None else private_value(values, blocks, _MR, number)
        return private_numbers(raw, vr, encoding)

    tiles = _count(found(b"NumberOfImagesInMosaic", _NUMBER, "US"))
    normal = found(b"SliceNormalVector", None, "FD")
    times = found(b"MosaicRefAcqTimes", _TIMES, "FD")
    return Mosaic(
        tiles,
        normal if len(normal) == 3 and all(map(isfinite, normal)) else (),
        times if all(map(isfinite, times)) else (),
    )


def _of_uih(values: Mapping[int, RawValue], blocks: Blocks, encoding: Encoding) -> Mosaic:
    """Return what (0065,1050) and (0065,1051) of UIH say: number, positions and times of tiles."""
    number = private_value(values, blocks, _UIH, _SLICES)
    tiles = _count(private_numbers(number, "DS", encoding))
    raw = private_value(values, blocks, _UIH, _FRAMES)
    if raw is None:
        return Mosaic(tiles, is_square=False)
    if raw.vr == "UN":
        raw, encoding = RawValue(None, raw.value), IMPLICIT_LITTLE
    items = OwnElements(((_FRAMES, raw),), encoding).items(_FRAMES, _TILE)
    texts = [{tag: one.value for tag, one in item.items()} for item in items]
    positions = tuple(numbers(item.get(_POSITION, b""), "DS", True) for item in texts)
    times = tuple(
        milliseconds(days(item.get(_DATE, b"")), since_midnight(item.get(_TIME, b"")), 0)
        for item in texts
    )
    are_read = bool(positions) and all(len(p) == 3 and all(map(isfinite, p)) for p in positions)
    return Mosaic(
        tiles or len(positions),
        times=tuple(time - min(times) for time in times) if all(map(isfinite, times)) else (),
        positions=positions if are_read else None,
        is_square=False,
    )


def _count(found: tuple[float, ...]) -> int:
    """Return the first number as that of tiles; 0 where it is none."""
    return int(found[0]) if found and found[0].is_integer() and found[0] >= 1 else 0


def _values(data: bytes, name: bytes) -> list[bytes]:
    """Return the values of an element of a CSA header, as far as they are whole.

    It is looked for by its name, since a walk over all elements takes longer than the rest of
    a description.
    """
    is_second = data.startswith(_SIGNATURE)
    found: list[bytes] = []
    at = data.find(name + b"\0")
    if at < 0:
        return found
    try:
        # The first form adds the number of items of the first element to each length.
        added = 0 if is_second else _ELEMENT.unpack_from(data, _FIRST)[_ITEMS]
        items = _ELEMENT.unpack_from(data, at)[_ITEMS]
        at += _ELEMENT.size
        for _ in range(items):
            lengths = _LENGTHS.unpack_from(data, at)
            at += _LENGTHS.size
            length = lengths[1] if is_second else lengths[0] - added
            if not 0 <= length <= len(data) - at:
                break
            value = data[at : at + length].split(b"\0")[0].strip()
            found += [value] if value else []
            at += length + -length % 4
    except StructError:
        # It is cut.
        return found
    return found
