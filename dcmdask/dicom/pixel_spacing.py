"""Pixel spacing of data sets without Pixel Spacing (0028,0030): of detectors and ultrasound."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Final, NamedTuple

from dcmdask.dicom.conversion import LONGEST, UNREADABLE, first_number
from dcmdask.dicom.elements import (
    Encoding,
    Filter,
    NotUnderstood,
    RawValue,
    Wanted,
)
from dcmdask.dicom.groups.functional_groups import SEQUENCES as GROUPS
from dcmdask.dicom.groups.items import items_of
from dcmdask.dicom.header import Header

__all__ = ["IMAGER", "REGIONS", "OtherSpacing", "other_spacing"]

IMAGER: Final = 0x00181164
"""Imager Pixel Spacing: at the detector, which a body in front of it is smaller than."""
REGIONS: Final = 0x00186011
"""Sequence of Ultrasound Regions (PS3.3 C.8.5.5)."""
_PIXEL_SPACING: Final = 0x00280030
_FORMAT, _UNITS_X, _UNITS_Y = 0x00186012, 0x00186024, 0x00186026
_DELTA_X, _DELTA_Y = 0x0018602C, 0x0018602E
_VRS: Final = {_FORMAT: "US", _UNITS_X: "US", _UNITS_Y: "US", _DELTA_X: "FD", _DELTA_Y: "FD"}
_REGION: Final = Filter(Wanted((tag,), tag, vr) for tag, vr in _VRS.items())
# Region Spatial Format of two dimensions in space, and Physical Units of centimetres.
_TWO_DIMENSIONS, _CENTIMETRES = 1, 3
# Digits of a spacing in mm: nanometres, without the noise of floating point.
_DIGITS: Final = 6


class OtherSpacing(NamedTuple):
    """A spacing as Pixel Spacing has it, and the keyword of its element; empty without one."""

    value: bytes = b""
    source: str = ""


def other_spacing(header: Header) -> OtherSpacing:
    """Return the spacing of a data set that has no Pixel Spacing at its top level.

    Of ultrasound it is that of the regions in two dimensions. Where these have several, there is
    a source without a value; where one cannot be read, neither can the value.

    Parameters
    ----------
    header : Header
        With `IMAGER` and `REGIONS`.
    """
    values = header.values
    if not GROUPS.isdisjoint(header.sequences):  # a macro of theirs has the spacing
        return OtherSpacing()
    if _PIXEL_SPACING in values and values[_PIXEL_SPACING].value.strip(b"\0 "):
        return OtherSpacing()
    if IMAGER in values and values[IMAGER].value.strip(b"\0 "):
        return OtherSpacing(values[IMAGER].value, "ImagerPixelSpacing")
    if REGIONS not in values:
        return OtherSpacing()
    if not values[REGIONS].value and header.stopped:  # only pydicom could read it
        return OtherSpacing(UNREADABLE, "SequenceOfUltrasoundRegions")
    return _of_regions(values[REGIONS], header.encoding)


# Images of one series have the same.
@lru_cache(maxsize=1 << 8)
def _of_regions(raw: RawValue, encoding: Encoding) -> OtherSpacing:
    try:
        regions = list(items_of(REGIONS, raw, encoding, _REGION))
    except NotUnderstood:
        return OtherSpacing(UNREADABLE, "SequenceOfUltrasoundRegions")
    spacings = {one for region in regions if (one := _spacing(region, encoding))}
    if not all(isfinite(length) and length > 0 for spacing in spacings for length in spacing):
        return OtherSpacing(UNREADABLE, "SequenceOfUltrasoundRegions")
    if len(spacings) == 1:
        return OtherSpacing(b"%r\\%r" % spacings.pop(), "SequenceOfUltrasoundRegions")
    return OtherSpacing(b"", "SequenceOfUltrasoundRegions" if spacings else "")


def _spacing(region: dict[int, RawValue], encoding: Encoding) -> tuple[float, float] | None:
    """Return the distance between rows and columns of a region in mm.

    None of a region of another kind, and of one that does not say it.
    """
    if not all(delta in region and region[delta].value for delta in (_DELTA_Y, _DELTA_X)):
        return None
    found = {tag: _first(region.get(tag), vr, encoding) for tag, vr in _VRS.items()}
    if found[_FORMAT] != _TWO_DIMENSIONS or {found[_UNITS_X], found[_UNITS_Y]} != {_CENTIMETRES}:
        return None
    down, across = (round(10 * abs(found[delta]), _DIGITS) for delta in (_DELTA_Y, _DELTA_X))
    return down, across


def _first(raw: RawValue | None, vr: str, encoding: Encoding) -> float:
    return first_number(raw.value[:LONGEST] if raw else b"", vr, encoding.little_endian)
