"""Places of tiles in a TIFF file that is the same file as a DICOM one (PS3.10 7.1).

The preamble of such a file holds a TIFF header, and a page of the TIFF file points at the tiles
that the items of the pixel data hold.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

import numpy as np

from dcmdask.dicom.offsets import Offsets

_TILE_OFFSETS, _TILE_BYTE_COUNTS = 324, 325
# Unsigned types of TIFF 6.0 and BigTIFF: SHORT, LONG, LONG8.
_TYPES = {3: "u2", 4: "u4", 16: "u8"}
# A page for each level, label, and plane; more are those of a loop.
_MOST_PAGES = 1000
_MOST_ENTRIES = 65535


class _Form(NamedTuple):
    """Numbers of a TIFF file: byte order, types of counts and of offsets, place of the first."""

    order: str
    number: str
    offset: str
    at: int


_FORMS = {
    b"II*\0": _Form("<", "u2", "u4", 4),
    b"MM\0*": _Form(">", "u2", "u4", 4),
    b"II+\0": _Form("<", "u8", "u8", 8),
    b"MM\0+": _Form(">", "u8", "u8", 8),
}


class Tiles(NamedTuple):
    """Offsets of tiles from the start of the file, and their numbers of bytes."""

    offsets: Offsets
    lengths: Offsets


def is_tiff(start: bytes) -> bool:
    """Return whether a file with these first bytes is a TIFF file, at the same time."""
    return start[:4] in _FORMS


def find_tiles(file: BinaryIO, first: int, count: int) -> Tiles | None:
    """Return the tiles of the page that has `count` of them, the first at offset `first`.

    None where the file is no TIFF file or has no such page. Nothing else is checked.
    """
    file.seek(0)
    head = file.read(16)
    form = _FORMS.get(head[:4])
    if form is None or len(head) < 16:
        return None
    page = int(np.frombuffer(head, form.order + form.offset, 1, form.at)[0])
    for _ in range(_MOST_PAGES):
        entries, page = _read_page(file, page, form)
        offsets, lengths = (
            _read_values(file, entries[entries["tag"] == tag], count, form)
            for tag in (_TILE_OFFSETS, _TILE_BYTE_COUNTS)
        )
        if offsets is not None and lengths is not None and offsets[0] == first:
            return Tiles(offsets, lengths)
        if not page:
            return None
    return None


def _read_page(file: BinaryIO, page: int, form: _Form) -> tuple[np.ndarray, int]:
    """Return the entries of a page, and the offset of the next one or 0."""
    order, offset = form.order, np.dtype(form.order + form.offset)
    entry = np.dtype(
        [("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", offset), ("value", offset)]
    )
    number = np.frombuffer(_read(file, page, int(form.number[1])), order + form.number)
    if not number.size or number[0] > _MOST_ENTRIES:
        return np.empty(0, entry), 0
    size = int(number[0]) * entry.itemsize
    data = _read(file, page + int(form.number[1]), size + offset.itemsize)
    if not data:
        return np.empty(0, entry), 0
    return np.frombuffer(data[:size], entry), int(np.frombuffer(data[size:], offset)[0])


def _read_values(file: BinaryIO, entries: np.ndarray, count: int, form: _Form) -> Offsets | None:
    """Return the values of an entry that has `count` of them."""
    if len(entries) != 1 or entries["count"][0] != count or entries["type"][0] not in _TYPES:
        return None
    dtype = np.dtype(form.order + _TYPES[int(entries["type"][0])])
    size = count * dtype.itemsize
    # Values that fit stand in the place of their offset.
    value = entries["value"].tobytes()
    data = value[:size] if size <= len(value) else _read(file, int(entries["value"][0]), size)
    return np.frombuffer(data, dtype).astype(np.int64) if data else None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return `size` bytes, or none where there are not as many."""
    try:
        file.seek(offset)
    except (OverflowError, OSError, ValueError):
        return b""
    data = file.read(size)
    return data if len(data) == size else b""
