"""Ultrasound regions (PS3.3 C.8.5.5): parts of a picture, and what is measured along their axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NamedTuple

from dcmdask.dicom.conversion import LONGEST, first_number
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import Encoding, Filter, RawValue, Wanted
from dcmdask.dicom.own_elements import OwnElements
from dcmdask.dicom.pixel_spacing import REGIONS
from dcmdask.errors import Note

# By their codes. Units are in the notation of UCUM.
_FORMATS: Final = ("none", "2D", "M-mode", "spectral", "wave form", "graphics")
_DATA_TYPES: Final = (
    *("none", "tissue", "colour flow", "PW spectral Doppler", "CW spectral Doppler"),
    *("Doppler mean trace", "Doppler mode trace", "Doppler max trace", "volume trace"),
    *("d(volume)/dt trace", "ECG trace", "pulse trace", "phonocardiogram trace", "grey bar"),
    *("colour bar", "integrated backscatter", "area trace", "d(area)/dt", "other physiological"),
)
_UNITS: Final = (
    *("none", "%", "dB", "cm", "s", "Hz", "dB/s", "cm/s", "cm2", "cm2/s", "cm3", "cm3/s", "deg"),
)
_UNKNOWN: Final = "unknown"


class Region(NamedTuple):
    """One region; bounds are numbers of pixels, deltas are units for each pixel."""

    format: str
    data_type: str
    x0: int
    y0: int
    x1: int
    y1: int
    x_units: str
    y_units: str
    x_delta: float
    y_delta: float


# Tag, VR, and the words for the codes, of each field.
_ELEMENTS: Final = (
    (0x00186012, "US", _FORMATS),
    (0x00186014, "US", _DATA_TYPES),
    *((tag, "UL", None) for tag in (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)),
    (0x00186024, "US", _UNITS),
    (0x00186026, "US", _UNITS),
    (0x0018602C, "FD", None),
    (0x0018602E, "FD", None),
)
_REGION: Final = Filter(Wanted((tag,), tag, vr) for tag, vr, _ in _ELEMENTS)


def regions_of(one: Described) -> tuple[Region, ...]:
    """Return the regions of an instance that can be read, in their order."""
    return tuple(region for region in _regions(one) if region is not None)


def region_attributes(instances: Sequence[Described]) -> dict[str, Any]:
    """Return a list for each field of a region, such as ``region_x_units``.

    Nothing where instances have other regions.
    """
    found = {regions_of(one) for one in instances}
    if len(found) != 1 or not (regions := found.pop()):
        return {}
    columns = zip(Region._fields, zip(*regions, strict=True), strict=True)
    return {f"region_{name}": list(values) for name, values in columns}


def region_notes(instances: Sequence[Described]) -> Iterator[Note]:
    """Say which regions cannot be read, lie outside of the picture, or are those of some only."""
    one, found = instances[0], _regions(instances[0])
    called = "ultrasound regions (0018,6011)"
    if unread := found.count(None):
        yield Note(
            "regions", f"{unread} of {len(found)} {called} cannot be read: they are left out"
        )
    # Makers also write the first pixel behind a region.
    outside = sum(
        not (region.x0 <= region.x1 <= one.columns and region.y0 <= region.y1 <= one.rows)
        for region in regions_of(one)
    )
    if outside:
        text = f"{outside} of {len(found)} {called} do not lie inside of"
        yield Note("regions", f"{text} {one.rows} x {one.columns} pixels")
    if len({regions_of(other) for other in instances}) > 1:
        yield Note("regions", f"{called} differ between instances: they are no attributes")


def _regions(one: Described) -> tuple[Region | None, ...]:
    """Return the regions of an instance; None for one that cannot be read."""
    raw = dict(one.own.values).get(REGIONS)
    return _read(raw, one.own.encoding) if raw and raw.value else ()


# Images of one series have the same.
@lru_cache(maxsize=1 << 8)
def _read(raw: RawValue, encoding: Encoding) -> tuple[Region | None, ...]:
    items = OwnElements(((REGIONS, raw),), encoding).items(REGIONS, _REGION)
    return tuple(_region(item, encoding.little_endian) for item in items) or (None,)


def _region(item: dict[int, RawValue], little_endian: bool) -> Region | None:
    found: list[Any] = []
    for tag, vr, words in _ELEMENTS:
        raw = item.get(tag)
        number = first_number(raw.value[:LONGEST] if raw else b"", vr, little_endian)
        if not isfinite(number):
            return None
        if words is not None:
            found.append(words[int(number)] if number < len(words) else _UNKNOWN)
        else:
            found.append(int(number) if vr == "UL" else number)
    return Region(*found)
