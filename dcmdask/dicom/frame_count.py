"""Number of frames of an instance, as far as it shows without a frame index."""

from __future__ import annotations

from dcmdask.dicom import files
from dcmdask.dicom.elements import UNDEFINED, Element
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.frame_index import index_encapsulated, may_hold_more, native_frames
from dcmdask.dicom.header import Header
from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.dicom.instance import place_of
from dcmdask.errors import PixelDataError

__all__ = ["count_frames"]


def count_frames(
    header: Header, element: Element, pixels: ImagePixel, allow_excess: bool = True
) -> int:
    """Return the number of frames that opening the instance finds.

    Those that the header declares, or more where the length of native pixel data, an offset
    table, or items behind those of the declared frames show it (PS3.5 A.4). Without a table,
    items beyond those of several declared frames are not looked for in remote files, in members
    of archives, and behind more than :data:`MOST_COUNTED <.frame_index.MOST_COUNTED>` frames.

    Raises
    ------
    PixelDataError
        The pixel data is too short for them, or they are more than facts can be kept of.
    """
    declared, actual = pixels.number_of_frames, header.source.size - element.offset
    name = header.source.name
    _check_room(declared, name)
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
        if may_hold_more(place, header.head, declared):
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
