"""Private header of Siemens mosaics: tiles of a volume in one frame, and when each was made.

Their CSA header is a list of named elements, in either of two forms: one begins with SV10, the
other has none of it. Lengths count bytes; items are padded to 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from dcmdask.dicom.conversion import numbers
from dcmdask.dicom.elements import Encoding, RawValue
from dcmdask.dicom.private_elements import (
    private_blocks,
    private_numbers,
    private_tags,
    private_value,
)

__all__ = ["MOSAIC_ELEMENTS", "NO_MOSAIC", "Mosaic", "mosaic_of"]

_CSA, _MR = (0x0029, b"SIEMENS CSA HEADER"), (0x0019, b"SIEMENS MR HEADER")
_IMAGE_HEADER, _NUMBER, _TIMES = 0x10, 0x0A, 0x29
MOSAIC_ELEMENTS: Final = private_tags(0x0029, _IMAGE_HEADER) | private_tags(0x0019, _NUMBER, _TIMES)
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
    """

    tiles: int = 0
    normal: tuple[float, ...] = ()
    times: tuple[float, ...] = ()


NO_MOSAIC: Final = Mosaic()


def mosaic_of(values: Mapping[int, RawValue], encoding: Encoding) -> Mosaic:
    """Return what the private elements of a mosaic say of its tiles.

    Parameters
    ----------
    values : mapping of int to RawValue
        Top-level elements, with those of `MOSAIC_ELEMENTS` that are there.
    encoding : Encoding
    """
    blocks = private_blocks(values)
    header = private_value(values, blocks, _CSA, _IMAGE_HEADER)

    def found(name: bytes, number: int | None, vr: str) -> tuple[float, ...]:
        if told := _values(header.value, name) if header else []:
            return numbers(b"\\".join(told), "DS", True)
        raw = None if number is None else private_value(values, blocks, _MR, number)
        return private_numbers(raw, vr, encoding)

    tiles = found(b"NumberOfImagesInMosaic", _NUMBER, "US")[:1]
    normal = found(b"SliceNormalVector", None, "FD")
    times = found(b"MosaicRefAcqTimes", _TIMES, "FD")
    is_number = bool(tiles) and tiles[0].is_integer() and tiles[0] >= 1
    return Mosaic(
        int(tiles[0]) if is_number else 0,
        normal if len(normal) == 3 and all(map(isfinite, normal)) else (),
        times if all(map(isfinite, times)) else (),
    )


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
