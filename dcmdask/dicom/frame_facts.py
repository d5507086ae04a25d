"""Facts of each frame, as a row of numbers: position, time, diffusion weighting, values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from math import inf, isfinite, isnan, nan
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from dcmdask.dicom.conversion import (
    days,
    first_number,
    first_read,
    milliseconds,
    moment,
    numbers,
    since_midnight,
)
from dcmdask.dicom.elements import Wanted

__all__ = [
    "B_VALUE",
    "DAY",
    "DIRECTION",
    "ELEMENTS",
    "FACTS",
    "FRAME_TYPE",
    "INDEX_VALUES",
    "LEAVES",
    "LUTS",
    "NUMBER_OF",
    "TAGS",
    "Common",
    "identifier",
    "packed",
    "update",
]

B_VALUE, DIRECTION, FRAME_TYPE = 0x00189087, 0x00189089, 0x00089007
DAY: Final = 24 * 60 * 60 * 1000
"""Milliseconds; acquisition times below are times of a day that is not known."""


class Common(NamedTuple):
    """Facts that all frames of an instance share.

    Attributes
    ----------
    little_endian : bool
    offset : int
        Minutes from UTC of times that do not say it (0008,0201).
    """

    little_endian: bool
    offset: int


_Element: TypeAlias = tuple[int, str, tuple[int, ...]]
"""Tag, VR, and the sequences of its functional group macro (PS3.3 C.7.6.16.2), if any."""
_Values: TypeAlias = Sequence[bytes]


class _Fact(NamedTuple):
    name: str
    format: str  # of struct, "=" before it
    read: Callable[[_Values, _Fact, Common], tuple[Any, ...]]
    elements: tuple[_Element, ...]


def _row(values: _Values, fact: _Fact, common: Common) -> tuple[float, ...]:
    """Return all numbers of the first value that is there.

    Infinity where one is not valid or there are others.
    """
    count = int(fact.format[:-1])
    number = next((number for number, value in enumerate(values) if value), 0)
    found = numbers(values[number], fact.elements[number][1], common.little_endian)
    if len(found) == count and all(map(isfinite, found)):
        return found
    return (nan if all(map(isnan, found)) else inf,) * count


def _number(values: _Values, fact: _Fact, common: Common) -> tuple[float]:
    """Return the first number of the first element that can be read."""
    return (_first(values, fact.elements, common),)


def _first(values: _Values, elements: Sequence[_Element], common: Common) -> float:
    little_endian, offset = common
    return first_read(
        *(
            moment(value, offset) if vr == "DT" else first_number(value, vr, little_endian)
            for value, (_, vr, _) in zip(values, elements, strict=True)
        )
    )


def _acquisition_time(values: _Values, fact: _Fact, common: Common) -> tuple[float]:
    own = _first(values[:2], fact.elements[:2], common)
    return (first_read(own, *_date_and_time(values[2:], fact, common)),)


def _reference_time(values: _Values, fact: _Fact, common: Common) -> tuple[float]:
    seconds = first_number(values[2], "FD", common.little_endian)
    return (first_read(_first(values[:2], fact.elements[:2], common), 1000 * seconds),)


def _date_and_time(values: _Values, fact: _Fact, common: Common) -> tuple[float]:
    """Return the milliseconds of a DA and a TM since 1970; without a valid date, since midnight.

    Dates of other events are not taken: those of contents and series made days later, or on
    both sides of midnight, would put the day where it is not.
    """
    day, since = days(values[0]), since_midnight(values[1])
    return (
        milliseconds(day, since, common.offset) if isfinite(day) else milliseconds(0, since, 0),
    )


def identifier(value: bytes) -> bytes:
    """Return a text of at most 16 bytes that stands for a value: itself, or a hash."""
    value = value.strip(b"\0 ")
    return value if len(value) <= 16 else blake2b(value, digest_size=8).hexdigest().encode()


def _identifier(values: _Values, fact: _Fact, common: Common) -> tuple[bytes]:
    return (identifier(values[0]),)


def _word(values: _Values, fact: _Fact, common: Common) -> tuple[bytes]:
    value = values[0].strip(b"\0 ")
    return (value if len(value) <= 16 else b"",)


_LETTERS: Final = {b"M": b"MAGNITUDE", b"P": b"PHASE", b"R": b"REAL", b"I": b"IMAGINARY"}
_COMPONENTS: Final = {
    **_LETTERS,
    **{word: word for word in _LETTERS.values()},
    # Terms of PS3.3 C.8.3.1.1.1 whose values are phases.
    **dict.fromkeys((b"PHASE MAP", b"PHASE SUBTRACT", b"VELOCITY MAP"), b"PHASE"),
    # Philips adds the kind of pulse sequence.
    **{
        letter + b"_" + sequence: word
        for letter, word in _LETTERS.items()
        for sequence in (b"FFE", b"SE", b"IR", b"PCA")
    },
}


def _component(values: _Values, fact: _Fact, common: Common) -> tuple[bytes]:
    component, image_type = values
    if word := component.strip(b"\0 "):
        return (_COMPONENTS.get(word, b""),)
    words = [word.strip(b"\0 ") for word in image_type.split(b"\\")[2:4]]
    # Some vendors put the letter into the fourth value.
    for word, known in zip(words, (_COMPONENTS, _LETTERS), strict=False):
        if word in known:
            return (known[word],)
    return (b"",)


_CONTENT, _MEASURES, _TRANSFORMATION = (0x00209111,), (0x00289110,), (0x00289145,)
_WINDOW, _DIFFUSION, _FRAME_TYPE = (0x00289132,), (0x00189117,), (0x00189226,)
_TIMING, _POSITIONER = (0x00189112,), (0x00189405,)


def _fact(
    name: str,
    format_: str,
    read: Callable[[_Values, _Fact, Common], tuple[Any, ...]],
    *elements: _Element,
) -> _Fact:
    return _Fact(name, format_, read, elements)


# Columns of `FACTS`, each from the first of its elements that can be read. Numbers that are absent
# are NaN, those that are there and cannot be read are infinity; absent words are empty. Positions
# and spacings are in mm and in patient axes, times in ms.
_FACTS: Final = (
    # Of the first pixel's centre; of ultrasound in the axes of the volume.
    _fact(
        "position",
        "3d",
        _row,
        (0x00200032, "DS", (0x00209113,)),
        (0x00209301, "FD", (0x0020930E,)),
    ),
    # Along a row, then along a column; between rows, then between columns.
    _fact(
        "orientation",
        "6d",
        _row,
        (0x00200037, "DS", (0x00209116,)),
        (0x00209302, "FD", (0x0020930F,)),
    ),
    _fact("spacing", "2d", _row, (0x00280030, "DS", _MEASURES)),
    _fact("thickness", "d", _number, (0x00180050, "DS", _MEASURES)),
    _fact("instance_number", "d", _number, (0x00200013, "IS", ())),
    _fact("acquisition_number", "d", _number, (0x00209156, "US", _CONTENT), (0x00200012, "IS", ())),
    _fact("stack_id", "16s", _identifier, (0x00209056, "SH", _CONTENT)),  # a hash where too long
    _fact("position_index", "d", _number, (0x00209057, "UL", _CONTENT)),  # in the stack
    _fact("temporal_position", "d", _number, (0x00209128, "UL", _CONTENT), (0x00200100, "IS", ())),
    _fact("trigger_time", "d", _number, (0x00209153, "FD", (0x00189118,)), (0x00181060, "DS", ())),
    _fact(
        "acquisition_time",
        "d",
        _acquisition_time,
        (0x00189074, "DT", _CONTENT),
        (0x0008002A, "DT", ()),
        (0x00080022, "DA", ()),
        (0x00080032, "TM", ()),
    ),
    _fact(
        "reference_time",
        "d",
        _reference_time,
        (0x00189151, "DT", _CONTENT),
        (0x00541300, "DS", ()),
        (0x0020930D, "FD", (0x00209310,)),
    ),
    _fact("content_time", "d", _date_and_time, (0x00080023, "DA", ()), (0x00080033, "TM", ())),
    _fact("echo_time", "d", _number, (0x00189082, "FD", (0x00189114,)), (0x00180081, "DS", ())),
    _fact("echo_number", "d", _number, (0x00180086, "IS", ())),
    _fact("b_value", "d", _number, (B_VALUE, "FD", _DIFFUSION)),  # s/mm2
    _fact("direction", "3d", _row, (DIRECTION, "FD", (*_DIFFUSION, 0x00189076))),  # unit vector
    # MAGNITUDE, PHASE, REAL or IMAGINARY: Complex Image Component, or from Frame Type.
    _fact(
        "component",
        "9s",
        _component,
        (0x00089208, "CS", _FRAME_TYPE),
        (FRAME_TYPE, "CS", _FRAME_TYPE),
    ),
    # Or Dose Grid Scaling, or 1 / Maximum Fractional Value.
    _fact("slope", "d", _number, (0x00281053, "DS", _TRANSFORMATION)),
    _fact("intercept", "d", _number, (0x00281052, "DS", _TRANSFORMATION)),
    _fact("rescale_type", "16s", _word, (0x00281054, "LO", _TRANSFORMATION)),  # empty where longer
    _fact("window_center", "d", _number, (0x00281050, "DS", _WINDOW)),  # the first
    _fact("window_width", "d", _number, (0x00281051, "DS", _WINDOW)),
    _fact("window_function", "16s", _word, (0x00281056, "CS", _WINDOW)),
    _fact("repetition_time", "d", _number, (0x00180080, "DS", _TIMING)),
    _fact("flip_angle", "d", _number, (0x00181314, "DS", _TIMING)),  # degrees
    _fact(
        "inversion_time", "d", _number, (0x00189079, "FD", (0x00189115,)), (0x00180082, "DS", ())
    ),
    # In degrees.
    _fact("positioner_primary_angle", "d", _number, (0x00181510, "DS", _POSITIONER)),
    _fact("positioner_secondary_angle", "d", _number, (0x00181511, "DS", _POSITIONER)),
    _fact("field_strength", "d", _number, (0x00180087, "DS", ())),  # T
    _fact("between", "d", _number, (0x00180088, "DS", _MEASURES)),  # slices, as the header has it
    # LUT Label of the first Real World Value Mapping; a hash where too long.
    _fact("mapping", "16s", _identifier, (0x00409210, "SH", (0x00409096,))),
    _fact("segment", "d", _number, (0x0062000B, "US", (0x0062000A,))),  # its number
    _fact("optical_path", "16s", _identifier, (0x00480106, "SH", (0x00480207,))),  # its identifier
)


def _type(format_: str) -> tuple[Any, ...]:
    count, kind = int(format_[:-1] or 1), format_[-1]
    if kind == "s":
        return (f"S{count}",)
    return ("f8", count) if count > 1 else ("f8",)


FACTS = np.dtype([(fact.name, *_type(fact.format)) for fact in _FACTS])
"""A row for each frame."""

TAGS: Final = {fact.name: fact.elements[0][0] for fact in _FACTS}
"""The first of the elements of each column."""

ELEMENTS: Final = tuple(element for fact in _FACTS for element in fact.elements)
"""Elements that a row is made from: tag, VR, and the sequences of a macro."""
NUMBER_OF: Final = {tag: number for number, (tag, _, _) in enumerate(ELEMENTS)}


@dataclass(frozen=True, eq=False)  # hashed by identity
class _Block:
    """Neighbouring columns that are made together, as they mostly change together."""

    facts: tuple[_Fact, ...]
    elements: slice
    start: int
    packer: Struct


def _blocks(*first: str) -> list[_Block]:
    """Return the blocks that begin with these columns."""
    found = []
    number = start = 0
    begins = [[fact.name for fact in _FACTS].index(name) for name in first]
    for begin, end in pairwise([*begins, len(_FACTS)]):
        facts = _FACTS[begin:end]
        packer = Struct("=" + "".join(fact.format for fact in facts))
        stop = number + sum(len(fact.elements) for fact in facts)
        found.append(_Block(facts, slice(number, stop), start, packer))
        number, start = stop, start + packer.size
    return found


_COLUMNS: Final = _blocks(*(fact.name for fact in _FACTS))
_BLOCKS: Final = _blocks(
    *("position", "orientation", "instance_number", "acquisition_number", "trigger_time"),
    *("echo_time", "slope", "repetition_time"),
)
_COLUMN_OF: Final = [i for i, fact in enumerate(_FACTS) for _ in fact.elements]

# A legacy converted instance keeps what it has no macro for as it was, in the Unassigned
# Shared and the Unassigned Per-Frame Converted Attributes Sequences.
_UNASSIGNED: Final = ((0x00209170,), (0x00209171,))
_MACRO_OR_NOT: Final = {B_VALUE, DIRECTION, 0x00089208}
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


def packed(values: Sequence[bytes], common: Common) -> bytes:
    """Return a row of `FACTS`, made of the raw values of `ELEMENTS` (empty if absent)."""
    return b"".join([_packed(one, tuple(values[one.elements]), common) for one in _BLOCKS])


def update(
    row: bytearray, before: Sequence[bytes], values: Sequence[bytes], common: Common
) -> None:
    """Update a row of `FACTS` made of the raw values `before` to other ones."""
    pairs = zip(_COLUMN_OF, before, values, strict=True)
    for number in {column for column, old, new in pairs if old != new}:
        column = _COLUMNS[number]
        (fact,) = column.facts
        read = fact.read(values[column.elements], fact, common)
        column.packer.pack_into(row, column.start, *read)


# Most values of a series are those of the file before.
@lru_cache(maxsize=1 << 14)
def _packed(block: _Block, values: tuple[bytes, ...], common: Common) -> bytes:
    found: list[Any] = []
    first = 0
    for fact in block.facts:
        stop = first + len(fact.elements)
        found += fact.read(values[first:stop], fact, common)
        first = stop
    return block.packer.pack(*found)
