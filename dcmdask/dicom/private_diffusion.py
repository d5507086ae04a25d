"""Diffusion weighting in private elements, from before Diffusion b-value (0018,9087) was usual."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Final, NamedTuple

from dcmdask.dicom.conversion import decimals, first_decimal, first_number, numbers
from dcmdask.dicom.elements import Encoding, RawValue
from dcmdask.dicom.functional_groups import NUMBERS

__all__ = ["ELEMENTS", "Diffusion", "private_diffusion"]


class Diffusion(NamedTuple):
    """A b-value in s/mm2 and a direction in patient axes; NaN where there is none."""

    b_value: float = nan
    direction: tuple[float, ...] = (nan, nan, nan)


class _Place(NamedTuple):
    """The group, the elements within the block that the creator reserved, the b-value's VR."""

    group: int
    b_value: int
    vr: str
    direction: int | None = None


# Only directions that are in patient axes; those of GE, for one, are in image axes.
_PLACES: Final = {
    b"SIEMENS MR HEADER": _Place(0x0019, 0x0C, "IS", 0x0E),
    b"GEMS_PARM_01": _Place(0x0043, 0x39, "IS"),
    b"Philips Imaging DD 001": _Place(0x2001, 0x03, "FL"),
    b"Image Private Header": _Place(0x0065, 0x09, "FD"),
}
# GE adds this to the b-values of some sequences.
_GE_SURPLUS: Final = 10**9

ELEMENTS: Final = frozenset(
    place.group << 16 | element
    for place in _PLACES.values()
    for block in range(0x10, 0x100)
    for element in (
        block,
        *(block << 8 | low for low in (place.b_value, place.direction) if low is not None),
    )
)
"""The private creators, and the elements in whichever block they reserve (PS3.5 7.8.1)."""


def private_diffusion(values: Mapping[int, RawValue], encoding: Encoding) -> Diffusion:
    """Return the diffusion weighting of an MR instance in a vendor's private elements.

    Parameters
    ----------
    values : mapping of int to RawValue
        Top-level elements, with those of `ELEMENTS` that are there.
    encoding : Encoding
    """
    for tag, creator in values.items():
        # Odd groups are private, and their creators have the numbers up to FF.
        if not tag & 0x10000 or tag & 0xFF00:
            continue
        place = _PLACES.get(creator.value.strip(b"\0 "))
        if place is None or place.group != tag >> 16:
            continue
        block = place.group << 16 | (tag & 0xFF) << 8
        b_value = _b_value(values.get(block | place.b_value), place.vr, encoding)
        if place.group == 0x0043:
            b_value = b_value % _GE_SURPLUS if b_value >= 0 else nan
        if b_value == b_value:
            direction = place.direction and values.get(block | place.direction)
            return Diffusion(b_value, _direction(direction or None, encoding))
    return Diffusion()


def _b_value(raw: RawValue | None, usual: str, encoding: Encoding) -> float:
    if raw is None or len(raw.value) > 256:
        return nan
    vr = usual if raw.vr in (None, "UN") else raw.vr
    if vr in NUMBERS:
        return first_number(raw.value, ("<" if encoding.little_endian else ">") + NUMBERS[vr])
    return first_decimal(raw.value)


def _direction(raw: RawValue | None, encoding: Encoding) -> tuple[float, ...]:
    if raw is None or len(raw.value) > 256:
        return (nan, nan, nan)
    if raw.vr in (None, "UN", "FD"):
        return numbers(raw.value, "<d" if encoding.little_endian else ">d", 3)
    return decimals(raw.value, 3)
