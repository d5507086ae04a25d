"""Functional groups of multi-frame objects (PS3.3 C.7.6.16): facts of each frame.

No more of a sequence is held in memory than a window of it. pydicom reads sequences that the
walk does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from itertools import islice
from struct import pack
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dcmdask.dicom import frame_facts
from dcmdask.dicom.conversion import LONGEST, NUMBERS, UNREADABLE, numbers
from dcmdask.dicom.elements import (
    Encoding,
    Filter,
    NotUnderstood,
    Wanted,
    window_over,
)
from dcmdask.dicom.frame_facts import FACTS, Common
from dcmdask.dicom.groups.items import Batch, batches, batches_of_rows, rows
from dcmdask.dicom.header import Header, read_whole_header
from dcmdask.errors import HeaderError
from dcmdask.sources import files

__all__ = [
    "PER_FRAME",
    "SEQUENCES",
    "SHARED",
    "Frames",
    "Read",
    "frame_table",
    "rows_of_dataset",
    "shared_values",
    "value_bytes",
    "with_items",
]

SHARED, PER_FRAME, _DIMENSION_INDEX = 0x52009229, 0x52009230, 0x00209222
SEQUENCES: Final = frozenset({SHARED, PER_FRAME, _DIMENSION_INDEX})
# Dimension Index Pointer, Dimension Description Label.
_POINTER, _LABEL = Wanted((0x00209165,), 0, "AT"), Wanted((0x00209421,), 1, "LO")
_DIMENSION: Final = Filter((_POINTER, _LABEL))
# Dimensions of an object that are looked at; none that makes sense has nearly as many.
_MOST_DIMENSIONS: Final = 1 << 10
_TEXTS: Final = frozenset({"", "AT", "CS", "LO", "SH"})
# Names of dimensions, by Dimension Index Pointer.
_DIMENSIONS: Final = {
    0x00209056: "stack",  # Stack ID
    0x00209057: "z",  # In-Stack Position Number
    0x00200032: "z",  # Image Position (Patient)
    0x00209301: "z",  # Image Position (Volume)
    0x00209128: "t",  # Temporal Position Index
    0x0020930D: "t",  # Temporal Position Time Offset
    0x00189153: "t",  # Nominal Cardiac Trigger Delay Time
    0x00189082: "echo",  # Effective Echo Time
    0x00189087: "diffusion",  # Diffusion b-value
    0x00189089: "diffusion",  # Diffusion Gradient Orientation
    0x00089208: "component",  # Complex Image Component
    0x0062000B: "segment",  # Referenced Segment Number
    0x00189808: "data_type",  # Data Type
}
# Names with a meaning of their own, which labels must not take.
_TAKEN: Final = {*_DIMENSIONS.values(), "x", "y", "sample", "frame", "patient", "missing"}


class Frames(NamedTuple):
    """Facts of all frames, whether one has a VOI LUT, and their Dimension Index Values."""

    table: bytes
    has_lut: bool = False
    dimensions: tuple[str, ...] = ()
    index_values: bytes = b""


class Read(NamedTuple):
    """Two ways to read the items of the sequence with a tag; none if it is absent.

    Attributes
    ----------
    rows : callable
        As :func:`dcmdask.dicom.groups.items.rows`, of a tag and a filter.
    batches : callable
        As :func:`dcmdask.dicom.groups.items.batches`, of a tag, a filter and the number of items.
    """

    rows: Callable[[int, Filter], Iterator[dict[int, bytes]]]
    batches: Callable[[int, Filter, int], Iterator[Batch]]


_Made = TypeVar("_Made")
_Found = TypeVar("_Found")


def frame_table(header: Header, frames: int, top: list[bytes], common: Common) -> Frames:
    """Return the facts of the frames of an instance with functional groups.

    Parameters
    ----------
    header : Header
    frames : int
        Number of frames that the header declares.
    top : list of bytes
        Values of the data set itself, as `frame_facts.ELEMENTS` lists them.
    common : Common

    Raises
    ------
    HeaderError
        They are damaged.
    """
    return with_items(header, SEQUENCES, lambda read: _rows(read, frames, top, common))


def with_items(header: Header, tags: Set[int], make: Callable[[Read], _Made]) -> _Made:
    """Return what `make` makes of the items of sequences, as the walk or else pydicom reads them.

    Parameters
    ----------
    header : Header
    tags : set of int
        Tags of the sequences, whose places the header has.
    make : callable
        It may be called twice.

    Raises
    ------
    HeaderError
        They are damaged.
    """
    groups = header.sequences.keys() & tags
    try:
        places = {tag: header.sequences[tag] for tag in groups}
        with files.opened(header.source) as file:
            window = window_over(file, header.source.size)

            def walked(
                walk: Callable[..., Iterator[_Found]], tag: int, *how: Any
            ) -> Iterator[_Found]:
                if tag not in places:
                    return iter(())
                place = places[tag]
                if place is None:
                    raise NotUnderstood(0, "only pydicom could read the header")
                return walk(window, place, header.encoding, *how)

            return make(Read(partial(walked, rows), partial(walked, batches)))
    except NotUnderstood as error:
        reason = error
    dataset = read_whole_header(header.source, header.transfer_syntax, groups)

    def read_dataset(tag: int, wanted: Filter) -> Iterator[dict[int, bytes]]:
        items = dataset[tag].value if tag in groups else Sequence()
        if not isinstance(items, Sequence):
            raise TypeError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is no sequence")
        return rows_of_dataset(items, header.encoding, wanted)

    def batches_of_dataset(tag: int, wanted: Filter, most: int) -> Iterator[Batch]:
        return batches_of_rows(enumerate(islice(read_dataset(tag, wanted), most)))

    try:
        return make(Read(read_dataset, batches_of_dataset))
    except Exception as error:
        raise HeaderError(
            f"the functional groups are damaged: {reason}",
            source=header.source.name,
            detail=f"pydicom says: {error}",
            code="functional-groups",
        ) from error


_GROUPS: Final = Filter((*frame_facts.LEAVES, frame_facts.LUTS, frame_facts.INDEX_VALUES))


def _rows(read: Read, frames: int, top: list[bytes], common: Common) -> Frames:
    """Return the facts: values of a frame come before shared ones, and these before `top`."""
    shared = _shared(read)
    has_lut = frame_facts.LUTS.key in shared
    base = _laid_over(shared, top)
    dimensions = _dimensions(read, common.little_endian)
    order: Literal["<", ">"] = "<" if common.little_endian else ">"
    width = 4 * len(dimensions)
    indices = bytearray()
    packed = bytearray(frame_facts.packed(base, common))
    table = packed * frames
    # A frame without an item keeps the shared row. Most facts are those of the frame before.
    starts, before = range(0, len(table), FACTS.itemsize), base
    for start, row in zip(starts, read.rows(PER_FRAME, _GROUPS), strict=False):
        values = _laid_over(row, base)
        if values != before:
            frame_facts.update(packed, before, values, common)
            before = values
        table[start : start + FACTS.itemsize] = packed
        has_lut = has_lut or frame_facts.LUTS.key in row
        own = row.get(frame_facts.INDEX_VALUES.key, b"")
        if len(own) == width:
            indices += own
    if not dimensions or len(indices) != frames * width:
        return Frames(bytes(table), has_lut)
    native = np.frombuffer(indices, np.dtype("u4").newbyteorder(order)).astype("u4")
    return Frames(bytes(table), has_lut, dimensions, native.tobytes())


def _shared(read: Read) -> dict[int, bytes]:
    return next(read.rows(SHARED, _GROUPS), {})  # one item holds all (PS3.3 C.7.6.16)


def shared_values(read: Read, top: list[bytes]) -> list[bytes]:
    """Return the values that all frames share, which come before those of the data set itself."""
    return _laid_over(_shared(read), top)


def _dimensions(read: Read, little_endian: bool) -> tuple[str, ...]:
    """Return the names of the dimensions of an object, in the order of its indices."""
    found: list[str] = []
    items = islice(read.rows(_DIMENSION_INDEX, _DIMENSION), _MOST_DIMENSIONS)
    for number, row in enumerate(items):
        pointer, text = row.get(_POINTER.key, b""), row.get(_LABEL.key, b"")
        pair = numbers(pointer, "US", little_endian)
        tag = int(pair[0]) << 16 | int(pair[1]) if len(pair) == 2 else -1
        label = "_".join(re.findall("[a-z0-9]+", text.decode("ascii", "replace").lower()))
        taken = {*_TAKEN, *found}
        other = label if label and label not in taken else f"dimension_{number}"
        found.append(_DIMENSIONS.get(tag, other))
    return tuple(found)


def _laid_over(row: dict[int, bytes], base: list[bytes]) -> list[bytes]:
    laid = base.copy()
    for number, value in row.items():
        if number < len(laid):
            laid[number] = value
    return laid


def rows_of_dataset(
    items: Iterable[Dataset], encoding: Encoding, wanted: Filter
) -> Iterator[dict[int, bytes]]:
    """Yield what :func:`rows` does, from the items of a sequence that pydicom read."""
    for item in items:
        values = [(one.key, _followed(item, one, encoding)) for one in wanted.wanted]
        yield {key: value for key, value in values if value}


def _followed(item: Dataset, wanted: Wanted, encoding: Encoding) -> bytes:
    for tag in wanted.path[:-1]:
        inner = item[tag].value if tag in item else None
        if not inner:
            return b""
        item = inner[0]
    return value_bytes(item, wanted.path[-1], wanted.vr, encoding)


def value_bytes(dataset: Dataset, tag: int, vr: str, encoding: Encoding) -> bytes:
    """Return an element's value as `vr` has it, whatever VR it came with.

    Empty where there is none, `UNREADABLE` where a number or a time cannot be had as `vr`.
    Without a `vr`, any bytes where there is one.
    """
    sign = "<" if encoding.little_endian else ">"
    try:
        value: Any = dataset[tag].value if tag in dataset else None
        parts = value if isinstance(value, MultiValue | list | tuple) else [value]
        parts = [part for part in parts if part is not None]
        if not vr:
            return b"\1" if parts else b""
        if vr in NUMBERS:
            return b"".join(pack(sign + NUMBERS[vr], part) for part in parts)[:LONGEST]
        if vr == "AT":
            return b"".join(pack(sign + "HH", part >> 16, part & 0xFFFF) for part in parts)
        return "\\".join(map(str, parts)).encode()[:LONGEST]
    except Exception:
        # pydicom and struct raise various exceptions, and the element is optional.
        return b"" if vr in _TEXTS else UNREADABLE
