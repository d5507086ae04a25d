"""Number of frames, and what the first bytes of encapsulated pixel data tell of them."""

from __future__ import annotations

import numpy as np

from dcmdask.dicom import offsets
from dcmdask.dicom.elements import UNDEFINED, Element
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.frame_index import (
    PixelDataElement,
    index_encapsulated,
    native_frames,
    place_of,
)
from dcmdask.dicom.header import Header
from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.errors import Note, PixelDataError
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

# Declared frames up to which a scan counts the items of a file without an offset table: a small
# read each, 0.3 ms together. Slides have 10^5.
MOST_COUNTED = 100


def count_frames(
    header: Header, element: Element, pixels: ImagePixel, allow_excess: bool = True
) -> int:
    """Return the number of frames that opening the instance finds.

    Those that the header declares, or more where the length of native pixel data, an offset
    table, or items behind those of the declared frames show it (PS3.5 A.4); but not more of an
    instance whose frames are fetched by number from a server. Without a table,
    items beyond those of several declared frames are not looked for in remote files, in members
    of archives, and behind more than :data:`MOST_COUNTED` frames.

    Raises
    ------
    PixelDataError
        The pixel data is too short for them, or they are more than facts can be kept of.
    """
    declared, actual = pixels.number_of_frames, header.source.size - element.offset
    name = header.source.name
    _check_room(declared, name)
    if isinstance(header.source, ServedInstance):
        return declared
    least = 8 if pixels.transfer_syntax.is_encapsulated else pixels.frame_bits
    if declared * least > 8 * actual:
        raise PixelDataError(
            f"{actual} bytes of pixel data do not hold the frames that (0028,0008) 'Number of "
            f"Frames' declares, {declared} of at least {least / 8:g} bytes: the file is "
            "truncated, or Rows, Columns, Bits Allocated or Number of Frames is wrong",
            source=name,
            code="pixel-data-short",
        )
    found = declared
    if not allow_excess:
        return found
    if not pixels.transfer_syntax.is_encapsulated:
        if element.length != UNDEFINED:
            found = native_frames(pixels, min(element.length, actual))
    else:
        place = place_of(header, element, {})
        if _may_hold_more(place, header.head, declared):
            found = len(index_encapsulated(place, pixels, True)[0])
    _check_room(found, name)
    return found


def _check_room(frames: int, name: str) -> None:
    if frames * FACTS.itemsize > files.INFLATE_LIMIT:
        raise PixelDataError(
            f"(0028,0008) 'Number of Frames', or what the length of the pixel data makes of it, is "
            f"{frames}, and the facts of so many frames take more than {files.INFLATE_LIMIT} bytes",
            source=name,
            code="number-of-frames",
        )


def _may_hold_more(place: PixelDataElement, head: bytes, declared: int) -> bool:
    """Return whether encapsulated pixel data may hold more frames than are declared.

    Where no offset table has an entry for each of several declared frames, the items are counted;
    but not those of remote files, of which all would be moved for it, nor of many frames.

    Parameters
    ----------
    place : PixelDataElement
    head : bytes
        The first `header.HEAD` bytes of its value.
    declared : int
    """
    entries = _entries(place, head)
    if entries > declared:
        return True
    first = 8 + int.from_bytes(head[4:8], "little")
    if declared == 1:
        # Behind the item of one frame is no more than a Sequence Delimitation Item.
        length = int.from_bytes(head[first + 4 : first + 8], "little")
        return place.offset + first + 8 + length + 8 < place.end
    is_near = isinstance(place.source, files.LocalFile | files.Memory)
    if entries == declared or declared > MOST_COUNTED or not is_near:
        return False
    with files.opened(place.source) as file:
        items = offsets.walk_fragments(file, place.offset + first, place.end)
    return len(items.offsets) > declared


def _entries(place: PixelDataElement, head: bytes) -> int:
    """Return the number of entries of the offset table."""
    if place.extended_offset_table is not None:
        return len(place.extended_offset_table[0]) // 8
    return int.from_bytes(head[4:8], "little") // 4


def has_table(place: PixelDataElement, head: bytes, declared: int) -> bool:
    """Return whether an offset table has an entry for each declared frame."""
    return _entries(place, head) >= declared


def only_item(
    place: PixelDataElement, head: bytes, declared: int
) -> tuple[offsets.ItemSpans, str, list[Note]] | None:
    """Return the index of the only frame where it is one item up to the end, otherwise None.

    Parameters
    ----------
    place : PixelDataElement
    head : bytes
        The first `header.HEAD` bytes of its value.
    declared : int
        Number of frames.
    """
    table = head[8 : 8 + int.from_bytes(head[4:8], "little")]
    first = 8 + len(table)
    item = head[first : first + 8]
    if declared != 1 or place.extended_offset_table is not None or any(table):
        return None
    if len(item) < 8 or (head[:4], item[:4]) != (offsets.ITEM, offsets.ITEM):
        return None
    length = int.from_bytes(item[4:], "little")
    # A Sequence Delimitation Item follows where the length of the element is not defined.
    left = place.end - (place.offset + first + 8 + length)
    if length == UNDEFINED or left != (8 if place.length == UNDEFINED else 0):
        return None
    spans = offsets.ItemSpans(np.array([place.offset + first]), np.array([8 + length]))
    return spans, "Basic Offset Table" if table else "item headers", []
