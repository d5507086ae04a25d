"""Facts of each frame, as a row of numbers: position, time, diffusion weighting, values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import nan
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from dcmdask.dicom.conversion import (
    NUMBERS,
    days,
    decimals,
    first_decimal,
    first_integer,
    first_number,
    milliseconds,
    moment,
    numbers,
    since_midnight,
)
from dcmdask.dicom.elements import Encoding, RawValue, Wanted

__all__ = [
    "DAY",
    "ELEMENTS",
    "FACTS",
    "INDEX_VALUES",
    "LEAVES",
    "LUTS",
    "PRIVATE_ELEMENTS",
    "Common",
    "Diffusion",
    "packed",
    "private_diffusion",
]

DAY: Final = 24 * 60 * 60 * 1000
"""Milliseconds; acquisition times below are times of a day that is not known."""

# One row for each frame. Numbers that a header does not give are NaN, words are empty.
FACTS = np.dtype(
    [
        ("position", "f8", 3),  # (0020,0032) of the first pixel's centre, patient axes, mm
        ("orientation", "f8", 6),  # (0020,0037) along a row, then along a column
        ("spacing", "f8", 2),  # (0028,0030) between rows, then between columns, mm
        ("thickness", "f8"),  # (0018,0050) mm
        ("instance_number", "f8"),  # (0020,0013)
        ("acquisition_number", "f8"),  # (0020,9156), (0020,0012)
        ("stack_id", "S16"),  # (0020,9056), a hash of it where it is too long to be valid
        ("position_index", "f8"),  # (0020,9057)
        ("temporal_position", "f8"),  # (0020,9128), (0020,0100)
        ("trigger_time", "f8"),  # (0020,9153), (0018,1060) ms
        ("acquisition_time", "f8"),  # (0018,9074), (0008,002A), (0008,0022) + (0008,0032) ms
        ("reference_time", "f8"),  # (0018,9151), (0054,1300), (0020,930D) ms
        ("content_time", "f8"),  # (0008,0023) + (0008,0033) ms
        ("echo_time", "f8"),  # (0018,9082), (0018,0081) ms
        ("echo_number", "f8"),  # (0018,0086)
        ("b_value", "f8"),  # (0018,9087) or a vendor's, s/mm2
        ("direction", "f8", 3),  # (0018,9089) or a vendor's, unit vector in patient axes
        ("component", "S9"),  # (0008,9208), or from Image Type: MAGNITUDE, PHASE, REAL, IMAGINARY
        ("slope", "f8"),  # (0028,1053)
        ("intercept", "f8"),  # (0028,1052)
        ("rescale_type", "S16"),  # (0028,1054); empty where it is longer
        ("window_center", "f8"),  # (0028,1050), the first
        ("window_width", "f8"),  # (0028,1051), the first
        ("window_function", "S16"),  # (0028,1056) VOI LUT Function
    ]
)
_ROW: Final = Struct("=3d6d2d3d16s9d3d9s2d16s2d16s")
assert _ROW.size == FACTS.itemsize

# What a row is made from, in the order in which `packed` takes it: tag, VR, and the sequences
# of the functional group macro that it belongs to (PS3.3 C.7.6.16.2), if any.
ELEMENTS: Final[tuple[tuple[int, str, tuple[int, ...]], ...]] = (
    (0x00200032, "DS", (0x00209113,)),  # Image Position (Patient)
    (0x00200037, "DS", (0x00209116,)),  # Image Orientation (Patient)
    (0x00280030, "DS", (0x00289110,)),  # Pixel Spacing
    (0x00180050, "DS", (0x00289110,)),  # Slice Thickness
    (0x00200013, "IS", ()),  # Instance Number
    (0x00209156, "US", (0x00209111,)),  # Frame Acquisition Number
    (0x00200012, "IS", ()),  # Acquisition Number
    (0x00209056, "SH", (0x00209111,)),  # Stack ID
    (0x00209057, "UL", (0x00209111,)),  # In-Stack Position Number
    (0x00209128, "UL", (0x00209111,)),  # Temporal Position Index
    (0x00200100, "IS", ()),  # Temporal Position Identifier
    (0x00209153, "FD", (0x00189118,)),  # Nominal Cardiac Trigger Delay Time
    (0x00181060, "DS", ()),  # Trigger Time
    (0x00189074, "DT", (0x00209111,)),  # Frame Acquisition DateTime
    (0x0008002A, "DT", ()),  # Acquisition DateTime
    (0x00080022, "DA", ()),  # Acquisition Date
    (0x00080032, "TM", ()),  # Acquisition Time
    (0x00189151, "DT", (0x00209111,)),  # Frame Reference DateTime
    (0x00541300, "DS", ()),  # Frame Reference Time
    (0x0020930D, "FD", (0x00209310,)),  # Temporal Position Time Offset
    (0x00080023, "DA", ()),  # Content Date
    (0x00080033, "TM", ()),  # Content Time
    (0x00189082, "FD", (0x00189114,)),  # Effective Echo Time
    (0x00180081, "DS", ()),  # Echo Time
    (0x00180086, "IS", ()),  # Echo Numbers
    (0x00189087, "FD", (0x00189117,)),  # Diffusion b-value
    (0x00189089, "FD", (0x00189117, 0x00189076)),  # Diffusion Gradient Orientation
    (0x00089208, "CS", (0x00189226,)),  # Complex Image Component
    (0x00089007, "CS", (0x00189226,)),  # Frame Type
    (0x00281053, "DS", (0x00289145,)),  # Rescale Slope
    (0x00281052, "DS", (0x00289145,)),  # Rescale Intercept
    (0x00281054, "LO", (0x00289145,)),  # Rescale Type
    (0x00281050, "DS", (0x00289132,)),  # Window Center
    (0x00281051, "DS", (0x00289132,)),  # Window Width
    (0x00281056, "CS", (0x00289132,)),  # VOI LUT Function
)
# A legacy converted instance keeps what it has no macro for as it was, in the Unassigned
# Shared and the Unassigned Per-Frame Converted Attributes Sequences.
_UNASSIGNED: Final = ((0x00209170,), (0x00209171,))
_MACRO_OR_NOT: Final = {0x00189087, 0x00189089, 0x00089208}
LEAVES: Final = tuple(
    Wanted((*sequences, tag), number, vr)
    for number, (tag, vr, macro) in enumerate(ELEMENTS)
    for sequences in (
        *([macro] if macro else ()),
        *(_UNASSIGNED if not macro or tag in _MACRO_OR_NOT else ()),
    )
)
"""Their paths in the functional groups, by their numbers in `ELEMENTS`."""

LUTS: Final = Wanted((0x00289132, 0x00283010, 0x00283002), len(ELEMENTS), "")
"""LUT Descriptor in the Frame VOI LUT macro (PS3.3 C.7.6.16.2.10)."""

INDEX_VALUES: Final = Wanted((0x00209111, 0x00209157), len(ELEMENTS) + 1, "UL")
"""Dimension Index Values."""

_CODES: Final = {True: ("<H", "<L", "<d"), False: (">H", ">L", ">d")}
_LETTERS: Final = {b"M": b"MAGNITUDE", b"P": b"PHASE", b"R": b"REAL", b"I": b"IMAGINARY"}
_COMPONENTS: Final = {
    **_LETTERS,
    **{word: word for word in _LETTERS.values()},
    # PS3.3 C.8.3.1.1.1; of its terms, those of which the values are phases.
    **dict.fromkeys((b"PHASE MAP", b"PHASE SUBTRACT", b"VELOCITY MAP"), b"PHASE"),
    # Of Philips, with what kind of sequence it was.
    **{
        letter + b"_" + sequence: word
        for letter, word in _LETTERS.items()
        for sequence in (b"FFE", b"SE", b"IR", b"PCA")
    },
}


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
PRIVATE_ELEMENTS: Final = frozenset(
    place.group << 16 | element
    for place in _PLACES.values()
    for block in range(0x10, 0x100)
    for element in (
        block,
        *(block << 8 | low for low in (place.b_value, place.direction) if low is not None),
    )
)
"""Private creators, and the elements in whichever block they reserve (PS3.5 7.8.1)."""


class Common(NamedTuple):
    """Facts that all frames of an instance share.

    Attributes
    ----------
    little_endian : bool
    is_mr : bool
    image_type : bytes
        (0008,0008), as it is.
    offset : int
        Minutes from UTC of times that do not say it (0008,0201).
    diffusion : Diffusion
        For frames without b-value or direction of their own.
    """

    little_endian: bool
    is_mr: bool
    image_type: bytes
    offset: int
    diffusion: Diffusion


def packed(values: Sequence[bytes], common: Common) -> bytes:
    """Return a row of `FACTS` made of the raw values of `ELEMENTS`, empty where absent."""
    (
        position,
        orientation,
        spacing,
        thickness,
        instance_number,
        frame_acquisition_number,
        acquisition_number,
        stack_id,
        in_stack_position,
        temporal_index,
        temporal_identifier,
        trigger_delay,
        trigger_time,
        frame_acquired,
        acquired,
        acquisition_date,
        acquisition_time,
        frame_referenced,
        reference_time,
        temporal_offset,
        content_date,
        content_time,
        effective_echo_time,
        echo_time,
        echo_number,
        b_value,
        direction,
        complex_component,
        frame_type,
        slope,
        intercept,
        rescale_type,
        window_center,
        window_width,
        window_function,
    ) = values
    short, long, double = _CODES[common.little_endian]
    offset, diffusion = common.offset, common.diffusion
    way = numbers(direction, double, 3)
    return _ROW.pack(
        *decimals(position, 3),
        *decimals(orientation, 6),
        *decimals(spacing, 2),
        first_decimal(thickness),
        first_integer(instance_number),
        _given(first_number(frame_acquisition_number, short), first_integer(acquisition_number)),
        _identifier(stack_id),
        first_number(in_stack_position, long),
        _given(first_number(temporal_index, long), first_integer(temporal_identifier)),
        _given(first_number(trigger_delay, double), first_decimal(trigger_time)),
        _given(
            moment(frame_acquired, offset),
            moment(acquired, offset),
            _moment_of_two(acquisition_date, acquisition_time, offset),
        ),
        _given(
            moment(frame_referenced, offset),
            first_decimal(reference_time),
            1000 * first_number(temporal_offset, double),
        ),
        _moment_of_two(content_date, content_time, offset),
        _given(first_number(effective_echo_time, double), first_decimal(echo_time)),
        first_integer(echo_number),
        _given(first_number(b_value, double), diffusion.b_value),
        *(way if way[0] == way[0] else diffusion.direction),
        _component(complex_component, frame_type or common.image_type) if common.is_mr else b"",
        first_decimal(slope),
        first_decimal(intercept),
        _word(rescale_type),
        first_decimal(window_center),
        first_decimal(window_width),
        _word(window_function),
    )


def _given(*numbers: float) -> float:
    """Return the first that is there."""
    for number in numbers:
        if number == number:
            return number
    return nan


def _moment_of_two(date: bytes, time: bytes, offset: int) -> float:
    """Return the milliseconds of a DA and a TM since 1970; without a date, since midnight.

    Dates of other events are not taken: those of contents and series made days later, or on
    both sides of midnight, would put the day where it is not.
    """
    since, day = since_midnight(time), days(date)
    if since is None:
        return nan
    return milliseconds(0, since, 0) if day is None else milliseconds(day, since, offset)


@lru_cache(maxsize=1 << 10)
def _identifier(value: bytes) -> bytes:
    value = value.strip(b"\0 ")
    return value if len(value) <= 16 else blake2b(value, digest_size=8).hexdigest().encode()


@lru_cache(maxsize=1 << 10)
def _word(value: bytes) -> bytes:
    value = value.strip(b"\0 ")
    return value if len(value) <= 16 else b""


@lru_cache(maxsize=1 << 10)
def _component(component: bytes, image_type: bytes) -> bytes:
    if word := component.strip(b"\0 "):
        return _COMPONENTS.get(word, b"")
    words = [word.strip(b"\0 ") for word in image_type.split(b"\\")[2:4]]
    # Behind the third value some vendors have the letter, whatever that value says.
    return next(
        (
            known[word]
            for word, known in zip(words, (_COMPONENTS, _LETTERS), strict=False)
            if word in known
        ),
        b"",
    )


def private_diffusion(values: Mapping[int, RawValue], encoding: Encoding) -> Diffusion:
    """Return the diffusion weighting of an MR instance in a vendor's private elements.

    Parameters
    ----------
    values : mapping of int to RawValue
        Top-level elements, with those of `PRIVATE_ELEMENTS` that are there.
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
