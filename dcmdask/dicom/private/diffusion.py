"""Diffusion weightings in the private elements of the makers, in the terms of the standard.

Directions become those of the patient's axes, as dcm2niix converts them. Those of GE and Canon
were validated for Patient Position (0018,5100) HFS only; dcm2niix warns where it is another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from math import floor, hypot, inf, isfinite, isnan, nan
from struct import pack
from typing import Final, Literal, NamedTuple, TypeAlias

from dcmdask.dicom.conversion import first_read, numbers
from dcmdask.dicom.elements import Encoding, RawValue
from dcmdask.dicom.frame_facts import B_VALUE, DIRECTION
from dcmdask.dicom.private.elements import (
    Blocks,
    private_blocks,
    private_numbers,
    private_tags,
    private_value,
)

__all__ = ["PRIVATE_ELEMENTS", "private_diffusion"]

_Axes: TypeAlias = Literal["patient", "image", "scanner"]
_Raws: TypeAlias = tuple[RawValue, ...]
_Gradient: TypeAlias = tuple[float, tuple[float, ...]]
"""b-value and direction: infinity where they cannot be read, NaN where they are absent."""


class _Elements(NamedTuple):
    """Group and creator, the usual VR, and elements within the block that the creator reserved."""

    place: tuple[int, bytes]
    vr: str
    numbers: tuple[int, ...]


class _Maker(NamedTuple):
    """The b-value of a maker, the direction, their reader, and the axes of the direction."""

    b_value: _Elements
    direction: _Elements
    read: Callable[[_Maker, _Raws, _Raws, Encoding], _Gradient]
    axes: _Axes


_NONE: Final = (nan, nan, nan)
_UNREADABLE: Final = (inf, inf, inf)
# GE adds this to the b-values of some sequences.
_GE_SURPLUS: Final = 10**9
# As Canon writes it into Image Comments: b=2000(0.445,0.000,0.895)
_COMMENT: Final = re.compile(rb"b=([\d.]+)(?:\(([-\d.]+),([-\d.]+),([-\d.]+)\))?")
# Lengths of gradients of GE and Canon that scale the b-value; shorter ones are no direction, and
# longer ones are unit vectors but for rounding. The digits of the gradients would make many
# b-values of one: they are multiples of 5.
_SCALED: Final = (0.03, 0.97)
_SCALED_STEP: Final = 5
# Longer ones are numbers of a user's own, which these elements hold where nothing is weighted.
_LONGEST: Final = 1.03

_ORIENTATION, _PHASE_ENCODING, _MANUFACTURER = 0x00200037, 0x00181312, 0x00080070
_COMMENTS: Final = 0x00204000
_OTHERS: Final = (_ORIENTATION, _PHASE_ENCODING, B_VALUE, DIRECTION)

# Signs of the gradients along a row, along a column and along the normal, by the axis of the
# patient (x, y, z) that is nearest to the normal, and by the direction of phase encoding (GE
# counts from the frequency's). These are the signs of dcm2niix, which were measured on scanners.
_SIGNS: Final = {
    b"COL": ((1, 1, -1), (-1, 1, 1), (-1, -1, 1)),
    b"ROW": ((1, -1, -1), (1, 1, 1), (-1, 1, 1)),
}


def _of_numbers(maker: _Maker, b_value: _Raws, direction: _Raws, encoding: Encoding) -> _Gradient:
    """Read the elements as numbers."""
    return (
        _first(_all_numbers(b_value, maker.b_value.vr, encoding)),
        _vector(_all_numbers(direction, maker.direction.vr, encoding)),
    )


def _of_ge(maker: _Maker, b_value: _Raws, direction: _Raws, encoding: Encoding) -> _Gradient:
    """Read the elements as numbers, and take the surplus from the b-value."""
    number, gradient = _of_numbers(maker, b_value, direction, encoding)
    return inf if number < 0 or number == inf else number % _GE_SURPLUS, gradient


def _in_comment(maker: _Maker, comments: _Raws, _: _Raws, encoding: Encoding) -> _Gradient:
    """Read b-value and direction as Canon writes them."""
    match = _COMMENT.fullmatch(comments[0].value.strip(b"\0 "))
    if match is None:
        return nan, _NONE
    said = numbers(b"\\".join(match.groups(b"")), "DS", encoding.little_endian)
    # Along phase encoding first, where GE has the frequency.
    return said[0], _vector((said[2], said[1], said[3]))


def _all_numbers(raws: Sequence[RawValue], usual: str, encoding: Encoding) -> tuple[float, ...]:
    return tuple(chain.from_iterable(private_numbers(raw, usual, encoding) for raw in raws))


def _first(found: Sequence[float]) -> float:
    return found[0] if found else nan


def _vector(found: Sequence[float]) -> tuple[float, ...]:
    """Return three numbers; infinity where they cannot be read, NaN where they are absent."""
    if len(found) == 3 and all(map(isfinite, found)):
        return tuple(found)
    return _NONE if all(map(isnan, found)) else _UNREADABLE


_SIEMENS, _PHILIPS, _UIH = b"SIEMENS MR HEADER", b"Philips Imaging DD 001", b"Image Private Header"
# Image Comments, as if Canon had reserved a block there.
_CANON: Final = (0x0020, b"CANON")
_MAKERS: Final = (
    _Maker(
        _Elements((0x0019, _SIEMENS), "IS", (0x0C,)),
        _Elements((0x0019, _SIEMENS), "FD", (0x0E,)),
        _of_numbers,
        "patient",
    ),
    _Maker(
        _Elements((0x0043, b"GEMS_PARM_01"), "IS", (0x39,)),
        _Elements((0x0019, b"GEMS_ACQU_01"), "DS", (0xBB, 0xBC, 0xBD)),
        _of_ge,
        "scanner",
    ),
    _Maker(
        _Elements((0x2001, _PHILIPS), "FL", (0x03,)),
        _Elements((0x2005, b"Philips MR Imaging DD 001"), "FL", (0xB0, 0xB1, 0xB2)),
        _of_numbers,
        "patient",
    ),
    _Maker(
        _Elements((0x0065, _UIH), "FD", (0x09,)),
        _Elements((0x0065, _UIH), "FD", (0x37,)),
        _of_numbers,
        "image",
    ),
    _Maker(
        _Elements(_CANON, "LT", (0,)),
        _Elements(_CANON, "LT", ()),
        _in_comment,
        "scanner",
    ),
)

PRIVATE_ELEMENTS: Final = frozenset({_PHASE_ENCODING, _MANUFACTURER, _COMMENTS}).union(
    *(
        private_tags(found.place[0], *found.numbers)
        for maker in _MAKERS
        for found in (maker.b_value, maker.direction)
        if found.place != _CANON
    )
)
"""Private creators, the elements in whichever block they reserve (PS3.5 7.8.1), and others that
tell what those mean."""


def private_diffusion(values: Mapping[int, RawValue], encoding: Encoding) -> dict[int, bytes]:
    """Return diffusion b-value and direction of an MR instance from private elements.

    Parameters
    ----------
    values : mapping of int to RawValue
        Top-level elements, with those of `PRIVATE_ELEMENTS` that are there.
    encoding : Encoding

    Returns
    -------
    dict of int to bytes
        By the standard's tags, as FD. Nothing that the standard's own elements say, but for
        the b-value of a gradient of GE or Canon that is shorter than a unit vector: it is that
        of the header, scaled by the square of the length and rounded to a multiple of 5.
    """
    blocks = private_blocks(values)
    if _value(values, _MANUFACTURER).upper().startswith(b"CANON"):
        blocks = {**blocks, _CANON: [_COMMENTS]}
    for maker in _MAKERS if blocks else ():
        b_value = _raw(maker.b_value, blocks, values)
        direction = _raw(maker.direction, blocks, values)
        if b_value or direction:
            others = tuple((tag, values[tag]) for tag in _OTHERS if tag in values)
            return _converted(maker, b_value, direction, others, encoding)
    return {}


# Frames of one volume have the same.
@lru_cache(maxsize=1 << 10)
def _converted(
    maker: _Maker,
    raw_b_value: _Raws,
    raw_direction: _Raws,
    others: tuple[tuple[int, RawValue], ...],
    encoding: Encoding,
) -> dict[int, bytes]:
    values = dict(others)
    order = "<" if encoding.little_endian else ">"
    b_value, direction = maker.read(maker, raw_b_value, raw_direction, encoding)
    own = _first(private_numbers(values.get(B_VALUE), "FD", encoding))
    b_value = first_read(own, b_value)
    if maker.axes == "scanner":
        b_value, direction = _of_gradient(b_value, direction)
    length = hypot(*direction)
    found = {}
    if not isnan(b_value) and b_value != own:
        found[B_VALUE] = pack(order + "d", b_value)
    # Zeros are no direction: nothing is weighted, or all directions are.
    if length > 0 and not (DIRECTION in values and values[DIRECTION].value):
        vector = _in_patient(direction, maker.axes, values, encoding)
        found[DIRECTION] = pack(order + "3d", *vector)
    return found


def _of_gradient(b_value: float, gradient: tuple[float, ...]) -> _Gradient:
    """Return b-value and direction of a gradient of which the length may scale the b-value.

    A gradient of which the length is none is a direction that cannot be read. The b-value of
    one without a length stays: it may be of a mean over directions, not of an image without
    weighting, which dcm2niix takes it for.
    """
    length = hypot(*gradient)
    if not b_value > 0 or length <= _SCALED[0]:
        return b_value, _NONE
    if length > _LONGEST:
        return b_value, _UNREADABLE
    if _SCALED[0] < length < _SCALED[1]:
        gradient = tuple(part / length for part in gradient)
        if isfinite(b_value):
            b_value = _SCALED_STEP * max(1, floor(b_value * length**2 / _SCALED_STEP + 0.5))
    return b_value, gradient


def _in_patient(
    direction: Sequence[float], axes: _Axes, values: Mapping[int, RawValue], encoding: Encoding
) -> Sequence[float]:
    """Return a direction on the patient's axes (LPS); infinity where the header does not tell."""
    if axes == "patient" or not all(map(isfinite, direction)):
        return direction
    orientation = private_numbers(values.get(_ORIENTATION), "DS", encoding)
    if len(orientation) != 6 or not all(map(isfinite, orientation)):
        return _UNREADABLE
    # Plain numbers: NumPy takes several times as long for three of them.
    a, b, c, d, e, f = orientation
    normal = b * f - c * e, c * d - a * f, a * e - b * d
    x, y, z = direction
    if axes == "scanner":
        phase_encoding = _value(values, _PHASE_ENCODING)
        if phase_encoding not in _SIGNS:
            return _UNREADABLE
        if phase_encoding == b"ROW":
            x, y = y, x
        nearest = max(range(3), key=lambda axis: abs(normal[axis]))
        sign_x, sign_y, sign_z = _SIGNS[phase_encoding][nearest]
        x, y, z = sign_x * x, sign_y * y, sign_z * z
    return (
        x * a + y * d + z * normal[0],
        x * b + y * e + z * normal[1],
        x * c + y * f + z * normal[2],
    )


def _raw(elements: _Elements, blocks: Blocks, values: Mapping[int, RawValue]) -> _Raws:
    """Return the elements that are there and not empty."""
    place = elements.place
    found = (private_value(values, blocks, place, number) for number in elements.numbers)
    return tuple(raw for raw in found if raw is not None)


def _value(values: Mapping[int, RawValue], tag: int) -> bytes:
    return values[tag].value.strip(b"\0 ") if tag in values else b""
