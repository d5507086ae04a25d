"""DICOM JSON (PS3.18 F) as the bytes of a data set."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from dcmdask.dicom.elements import LONG_VRS, SHORT_VRS, UNDEFINED

JsonDataset: TypeAlias = Mapping[str, Any]
"""Elements by tags of eight hexadecimal digits."""
FetchBulk: TypeAlias = Callable[[int, str], bytes | None]
"""Takes the tag at the top level and a BulkDataURI; returns the value, or None to leave it out."""

_NUMBERS = {
    "FD": "d",
    "FL": "f",
    "OD": "d",
    "OF": "f",
    "OL": "L",
    "OV": "Q",
    "OW": "H",
    "SL": "l",
    "SS": "h",
    "SV": "q",
    "UL": "L",
    "US": "H",
    "UV": "Q",
}
_FLOATS = frozenset({"FD", "FL", "OD", "OF"})
_TAG = re.compile("[0-9A-Fa-f]{8}")
_VRS = frozenset({*SHORT_VRS.values(), *LONG_VRS.values()})
_PEOPLE = ("Alphabetic", "Ideographic", "Phonetic")
_CHARACTER_SET, _UTF_8 = 0x00080005, "ISO_IR 192"
_MOST_SHORT = 0xFFFF
# Sequences within sequences; the standard's own are nested less than ten times.
_DEEPEST = 50


class JsonError(ValueError):
    """JSON that is not as PS3.18 F says."""


def tag_of(key: str) -> int:
    """Return the tag of a key.

    Raises
    ------
    JsonError
        It is none.
    """
    if not _TAG.fullmatch(key):
        raise JsonError(f"{key[:20]!r} is no tag")
    return int(key, 16)


def encode(dataset: JsonDataset, implicit: bool, fetch_bulk: FetchBulk) -> bytes:
    """Return the elements of a data set in little endian (PS3.5 7.1), in ascending order.

    Values keep the digits that the JSON has. Text is in UTF-8, as the JSON is, and Specific
    Character Set says so, for all items too; group lengths are left out.

    Parameters
    ----------
    dataset : mapping
    implicit : bool
        Whether VRs are left out.
    fetch_bulk : callable
        Called for each BulkDataURI.

    Raises
    ------
    JsonError
    """
    in_utf_8 = {f"{_CHARACTER_SET:08X}": {"vr": "CS", "Value": [_UTF_8]}}
    return b"".join(_elements({**dataset, **in_utf_8}, implicit, fetch_bulk, None, 0))


def element_header(tag: int, vr: str, length: int, implicit: bool) -> bytes:
    """Return the header of an element in little endian.

    Examples
    --------
    >>> element_header(0x00280010, "US", 2, implicit=False).hex(" ")
    '28 00 10 00 55 53 02 00'
    """
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<L", length)
    if vr in SHORT_VRS.values():
        return head + vr.encode() + struct.pack("<H", length)
    return head + vr.encode() + struct.pack("<HL", 0, length)


def _elements(
    dataset: Any, implicit: bool, fetch: FetchBulk, top: int | None, depth: int
) -> Iterator[bytes]:
    if not isinstance(dataset, Mapping):
        raise JsonError(f"a data set is a {type(dataset).__name__} and no object")
    if depth > _DEEPEST:
        raise JsonError(f"sequences are nested more than {_DEEPEST} times")
    for tag, key in sorted((tag_of(key), key) for key in dataset):
        if not tag & 0xFFFF or (tag == _CHARACTER_SET and depth):
            # An item's own would be that of the file, which the JSON is no more in.
            continue
        element = dataset[key]
        vr = element.get("vr") if isinstance(element, Mapping) else None
        if not isinstance(vr, str) or vr not in _VRS:
            raise JsonError(f"{key} has no VR")
        try:
            value = _value(element, vr, tag, implicit, fetch, tag if top is None else top, depth)
        except (TypeError, ValueError, struct.error, AttributeError, OverflowError) as error:
            if isinstance(error, JsonError):
                raise
            raise JsonError(f"{key} is no {vr}: {type(error).__name__}") from error
        if value is None:
            continue
        if len(value) % 2:
            value += b"\0" if vr in ("UI", "UN") or vr.startswith("O") else b" "
        if vr in SHORT_VRS.values() and len(value) > _MOST_SHORT:
            # PS3.5 6.2.2, note 1: an explicit length of two bytes is too short for it.
            vr = "UN"
        if len(value) >= UNDEFINED:
            raise JsonError(f"{key} has {len(value)} bytes")
        yield element_header(tag, vr, len(value), implicit)
        yield value


def _value(
    element: Mapping[str, Any],
    vr: str,
    tag: int,
    implicit: bool,
    fetch: FetchBulk,
    top: int,
    depth: int,
) -> bytes | None:
    """Return the encoded value, without padding; None where it is left out."""
    if "BulkDataURI" in element:
        return fetch(top, str(element["BulkDataURI"]))
    if "InlineBinary" in element:
        return base64.b64decode(element["InlineBinary"], validate=True)
    values = element.get("Value", [])
    if not isinstance(values, list):
        raise JsonError(f"the value of {tag:08X} is no array")
    if vr == "SQ":
        items = (b"".join(_elements(one, implicit, fetch, top, depth + 1)) for one in values)
        return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in items)
    if vr == "AT":
        tags = [tag_of(one) for one in values]
        return b"".join(struct.pack("<HH", one >> 16, one & 0xFFFF) for one in tags)
    if vr in _NUMBERS:
        kind = float if vr in _FLOATS else _whole_number
        return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *map(kind, values))
    if vr in ("OB", "UN"):
        if values:
            raise JsonError(f"{tag:08X} is binary, and has values")
        return b""
    return "\\".join(_text(one, vr) for one in values).encode()


def _whole_number(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError("no whole number")
    return number


def _text(value: Any, vr: str) -> str:
    if value is None:
        return ""
    if vr == "PN" and isinstance(value, Mapping):
        return "=".join(str(value.get(one) or "") for one in _PEOPLE).rstrip("=")
    if isinstance(value, bool | list | Mapping):
        raise TypeError("no text and no number")
    return str(value)
