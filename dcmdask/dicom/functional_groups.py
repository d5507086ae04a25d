"""Values out of the items of a sequence, in one pass over its bytes (PS3.3 C.7.6.16).

Made for the functional groups of an instance with very many frames. Nothing is converted,
and no more of the sequence is held than a window of it. What the walk does not understand
raises `NotUnderstood`; :func:`rows_of_dataset` gives the same from what pydicom read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import pack
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dcmdask.dicom.elements import Element, Encoding, Filter, Wanted, Window, read_items

__all__ = ["LONGEST", "NUMBERS", "rows", "rows_of_dataset", "value_bytes"]

NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
"""The VRs of binary numbers (PS3.5 6.2), with their format characters of :mod:`struct`."""

LONGEST: Final = 1 << 10
"""A value of more bytes counts as none: no valid one of those wanted comes near."""


def rows(
    window: Window, sequence: Element, encoding: Encoding, wanted: Filter
) -> Iterator[dict[int, bytes]]:
    """Yield for each item of `sequence` the values that it has of `wanted`.

    Parameters
    ----------
    window : Window
        It may be used for something else between two rows.
    sequence : Element
    encoding : Encoding
    wanted : Filter

    Yields
    ------
    dict of int to bytes
        By key; unconverted, in the byte order of `encoding`.

    Raises
    ------
    NotUnderstood
        For what pydicom may still read, perhaps after some rows.
    """
    for found in read_items(window, sequence, encoding, wanted):
        yield {key: raw.value for key, raw in found.values.items() if 0 < len(raw.value) <= LONGEST}


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

    Empty where there is none, or where it cannot be had as `vr`. Without a `vr`, any bytes
    where there is one.
    """
    sign = "<" if encoding.little_endian else ">"
    try:
        value: Any = dataset[tag].value if tag in dataset else None
        parts = value if isinstance(value, MultiValue | list | tuple) else [value]
        parts = [part for part in parts if part is not None]
        if not vr:
            found = b"\1" if parts else b""
        elif vr in NUMBERS:
            found = b"".join(pack(sign + NUMBERS[vr], part) for part in parts)
        elif vr == "AT":
            found = b"".join(pack(sign + "HH", part >> 16, part & 0xFFFF) for part in parts)
        else:
            found = "\\".join(map(str, parts)).encode()
    except Exception:
        # Whatever pydicom or struct have against it, it is one optional element.
        return b""
    return found if len(found) <= LONGEST else b""
