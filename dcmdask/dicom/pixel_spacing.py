"""Pixel spacing of data sets without Pixel Spacing (0028,0030): of detectors and ultrasound."""

from __future__ import annotations

from typing import Final, NamedTuple

from dcmdask.dicom import files
from dcmdask.dicom.conversion import first_number
from dcmdask.dicom.elements import Encoding, Filter, NotUnderstood, Wanted, window_over
from dcmdask.dicom.functional_groups import SEQUENCES as GROUPS
from dcmdask.dicom.functional_groups import rows
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
# Digits of a spacing in mm, without the noise of floating point.
_DIGITS: Final = 9


class OtherSpacing(NamedTuple):
    """A spacing as Pixel Spacing has it, empty where there is none, and its keyword."""

    value: bytes = b""
    source: str = ""


def other_spacing(header: Header) -> OtherSpacing:
    """Return the spacing of a data set that has no Pixel Spacing at its top level.

    Of ultrasound it is that of the regions in two dimensions, where all have the same; otherwise
    there is a source without a value.
    """
    values = header.values
    if not GROUPS.isdisjoint(header.sequences):  # a macro of theirs has the spacing
        return OtherSpacing()
    if _PIXEL_SPACING in values and values[_PIXEL_SPACING].value.strip(b"\0 "):
        return OtherSpacing()
    if IMAGER in values and values[IMAGER].value.strip(b"\0 "):
        return OtherSpacing(values[IMAGER].value, "ImagerPixelSpacing")
    if REGIONS not in header.sequences:
        return OtherSpacing()
    each = (_spacing(region, header.encoding) for region in _regions(header))
    spacings = {spacing for spacing in each if spacing is not None}
    value = b"%r\\%r" % spacings.pop() if len(spacings) == 1 else b""
    return OtherSpacing(value, "SequenceOfUltrasoundRegions")


def _regions(header: Header) -> list[dict[int, bytes]]:
    """Return the elements of each region; none of a sequence that is damaged."""
    place = header.sequences[REGIONS]
    if place is None:
        return []
    with files.opened(header.source) as file:
        window = window_over(file, header.source.size)
        try:
            return list(rows(window, place, header.encoding, _REGION))
        except NotUnderstood:
            return []


def _spacing(region: dict[int, bytes], encoding: Encoding) -> tuple[float, float] | None:
    """Return the distance between rows and columns of a region in mm, None where it has none."""
    found = {
        tag: first_number(region.get(tag, b""), vr, encoding.little_endian)
        for tag, vr in _VRS.items()
    }
    if found[_FORMAT] != _TWO_DIMENSIONS or {found[_UNITS_X], found[_UNITS_Y]} != {_CENTIMETRES}:
        return None
    down, across = (round(10 * abs(found[delta]), _DIGITS) for delta in (_DELTA_Y, _DELTA_X))
    return (down, across) if down > 0 and across > 0 else None
