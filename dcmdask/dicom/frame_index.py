"""Frame index, and the number of frames: from offset tables, item headers or arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from pydicom.uid import UID, RLELossless

from dcmdask.dicom import offsets
from dcmdask.dicom.elements import UNDEFINED, Element
from dcmdask.dicom.frame_facts import FACTS
from dcmdask.dicom.header import EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS, Header
from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.dicom.tiles import tiff
from dcmdask.errors import HeaderError, Note, PixelDataError, how_to_pass
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

# Frames from which on the items of a local file are not walked over where it has an offset table:
# 3 us each, 0.6 s for a slide of 200 000 tiles.
MANY = 10_000
# Number of items that are compared of an offset table of a local file that is believed; every
# item is checked again when its frame is decoded.
LOOKS = 64
# Declared frames up to which a scan counts the items of a file without an offset table: a small
# read each, 0.3 ms together. Slides have 10^5.
MOST_COUNTED = 100


@dataclass(frozen=True)
class PixelDataElement:
    """Place of the value of the pixel data.

    Attributes
    ----------
    source : Source
    offset, length : int
        Offset and length of the value; the length as in the file, possibly `UNDEFINED`.
    extended_offset_table : pair, optional
        Offsets and lengths (PS3.3 C.7.6.3.1.8), as bytes or integers.
    """

    source: files.Source
    offset: int
    length: int
    extended_offset_table: tuple[bytes | Sequence[int], bytes | Sequence[int]] | None = None

    @property
    def end(self) -> int:
        """Latest possible end of the value."""
        if self.length == UNDEFINED:
            return self.source.size
        return min(self.offset + self.length, self.source.size)


def place_of(header: Header, element: Element, options: Mapping[str, Any]) -> PixelDataElement:
    """Return the place of the pixel data, with its offset tables."""
    tables = options.get("extended_offsets")
    if tables is None and EXTENDED_OFFSET_TABLE in header.values:
        lengths = header.values.get(EXTENDED_OFFSET_TABLE_LENGTHS)
        tables = (header.values[EXTENDED_OFFSET_TABLE].value, lengths.value if lengths else b"")
    held = header.source
    if isinstance(held, files.Inflated):
        held = files.measured(held)
    return PixelDataElement(held, element.offset, element.length, tables)


Indexed: TypeAlias = tuple[offsets.Spans, str, list[Note]]
"""Spans, their origin in words, and oddities."""


def index_native(place: PixelDataElement, pixels: ImagePixel, allow_excess: bool) -> Indexed:
    """Index native frames by arithmetic (PS3.5 8.1.1), checked against the length of the data."""
    name, declared, bits = place.source.name, pixels.number_of_frames, pixels.frame_bits
    if place.length == UNDEFINED:
        raise PixelDataError(
            f"the pixel data has an undefined length, as if it were encapsulated, and the transfer "
            f"syntax {pixels.transfer_syntax.name!r} says that it is not",
            source=name,
            code="undefined-length",
        )
    actual = place.end - place.offset
    expected, unit = _native_bytes(pixels), _unit(pixels)
    whole = 8 * actual // bits
    if actual < expected:
        raise PixelDataError(
            f"{actual} bytes of pixel data hold {whole} whole frames of {bits / 8:g} bytes, and "
            f"(0028,0008) 'Number of Frames' says {declared} ({expected} bytes): "
            + _cause(place)
            + _remedy(whole),
            source=name,
            code="pixel-data-short",
        )
    notes: list[Note] = []
    found = native_frames(pixels, actual) if allow_excess else declared
    surplus = actual - expected - expected % 2
    if found > declared:
        notes.append(_excess(found, declared))
    elif surplus > 0 and _is_subsampled(pixels) and actual >= expected // 2 * 3:
        raise HeaderError(
            f"{actual} bytes of pixel data are half as much again as the {expected} that "
            "(0028,0004) 'Photometric Interpretation' YBR_FULL_422 needs; it is probably "
            f"'RGB' or 'YBR_FULL'; {how_to_pass('photometric_interpretation')}",
            source=name,
            code="photometric-interpretation",
        )
    elif surplus > 0:
        text = (
            f"{surplus} bytes of pixel data are left over behind {declared} frames: padding, or "
            "wrong Rows, Columns or Bits Allocated"
        )
        notes.append(Note("surplus-bytes", text))
    spans = offsets.NativeSpans(place.offset, bits, found, unit)
    return spans, "arithmetic over native pixel data", notes


def native_frames(pixels: ImagePixel, actual: int) -> int:
    """Return the number of frames in `actual` bytes of native pixel data.

    More than are declared where there are bytes for more, but for YBR_FULL_422: those are
    rather of another Photometric Interpretation.
    """
    expected = _native_bytes(pixels)
    surplus = actual - expected - expected % 2
    if surplus <= 0 or _is_subsampled(pixels):
        return pixels.number_of_frames
    return max(pixels.number_of_frames, 8 * actual // pixels.frame_bits)


def _native_bytes(pixels: ImagePixel) -> int:
    """Return the number of bytes that the declared frames take."""
    unit = _unit(pixels)
    return -(-pixels.number_of_frames * pixels.frame_bits // (8 * unit)) * unit


def _unit(pixels: ImagePixel) -> int:
    return 2 if pixels.swaps_words else 1


def _is_subsampled(pixels: ImagePixel) -> bool:
    return pixels.photometric_interpretation == "YBR_FULL_422"


def _cause(place: PixelDataElement) -> str:
    missing = place.offset + place.length - place.source.size
    if missing > 0:
        return f"the file is truncated, {missing} bytes are missing"
    return "Rows, Columns, Bits Allocated or Number of Frames is wrong, or the data is damaged"


def _remedy(whole: int) -> str:
    # Not all that an open slide or series needs.
    call = f"from_dicom(path, number_of_frames={whole})"
    return f"; {call} gives the frames that are whole" if whole else ""


def _excess(found: int, declared: int) -> Note:
    return Note(
        "excess-frames",
        f"there are {found} frames, and (0028,0008) 'Number of Frames' says {declared}: "
        f"number_of_frames={found} reads all of them, also in a scan, and "
        f"allow_excess_frames=False reads the first{f' {declared}' if declared > 1 else ''} only "
        "(--set on the command line)",
    )


def index_encapsulated(place: PixelDataElement, pixels: ImagePixel, allow_excess: bool) -> Indexed:
    """Index encapsulated frames by offset tables and item headers (PS3.5 A.4).

    Where a table and the walk over the item headers disagree, the walk decides. Where the walk
    takes long, a table that agrees with some items is believed: one of DICOM, or else that of
    the tiles of a TIFF file that is the same file.
    """
    name, declared = place.source.name, pixels.number_of_frames
    notes: list[Note] = []
    with files.opened(place.source) as file:
        try:
            basic, start = offsets.read_basic_offset_table(file, place.offset, place.end)
        except ValueError as error:
            raise PixelDataError(str(error), source=name, code="basic-offset-table") from error
        table, lengths, called = _offset_table(place, basic)
        takes_long = _takes_long(place.source, declared)
        if takes_long and declared > 1 and not len(table):
            tiles = tiff.find_tiles(file, start + 8, declared)
            if tiles is not None:
                table, lengths = tiles.offsets - 8 - start, tiles.lengths
                called = "TIFF tag TileOffsets"
        if takes_long and len(table) >= declared:
            believed = _look_up(file, place.source, start, place.end, table, lengths)
            if believed is not None:
                return _keep(believed, called, notes, declared, allow_excess)
        fragments = offsets.walk_fragments(file, start, place.end)
        if not len(fragments.offsets):
            raise PixelDataError(
                f"there are no frames: {fragments.fault or 'the pixel data holds no items'}",
                source=name,
                code="no-items",
            )
        spans: offsets.ItemSpans | None = None
        if len(table):
            try:
                grouped = _group(fragments, table, lengths, declared)
                _check_frames(file, fragments, grouped)
                spans = grouped
            except offsets.BrokenTable as error:
                text = f"the {called} is wrong ({error}): the items decide"
                notes.append(Note("offset-table", text))
        if spans is None:
            spans, more = _by_items(file, fragments, declared, pixels.transfer_syntax)
            called, notes = "item headers", notes + more
    if len(spans) < declared:
        raise PixelDataError(
            f"{len(fragments.offsets)} items hold {len(spans)} whole frames, and (0028,0008) "
            f"'Number of Frames' says {declared}: "
            + (fragments.fault or "the number is wrong, or frames are missing")
            + _remedy(len(spans)),
            source=name,
            code="items-short",
        )
    # The value of an element of a pydicom data set has no delimiter.
    if fragments.fault and (fragments.cut or place.length == UNDEFINED):
        notes.append(Note("items-end", fragments.fault))
    return _keep(spans, called, notes, declared, allow_excess)


def _takes_long(source: files.Source, frames: int) -> bool:
    """Return whether a walk over the items takes long."""
    is_local = isinstance(source, files.LocalFile)
    return isinstance(source, files.RemoteFile) or (is_local and frames >= MANY)


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
    table, extended = int.from_bytes(head[4:8], "little"), place.extended_offset_table
    entries = table // 4 if extended is None else len(extended[0]) // 8
    first = 8 + table
    if entries > declared:
        return True
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


def _keep(
    spans: offsets.ItemSpans, called: str, notes: list[Note], declared: int, allow_excess: bool
) -> Indexed:
    found = len(spans)
    if found > declared and allow_excess:
        notes.append(_excess(found, declared))
    elif found > declared:
        spans = spans.first(declared)
    return spans, called, notes


def _offset_table(
    place: PixelDataElement, basic: offsets.Offsets
) -> tuple[offsets.Offsets, offsets.Offsets | None, str]:
    """Return the table to use, the lengths that go with it, and its name.

    Both kinds count from the first fragment's item tag.
    """
    if place.extended_offset_table is None:
        return basic, None, "Basic Offset Table"
    try:
        table, lengths = map(_integers, place.extended_offset_table)
    except (TypeError, ValueError, OverflowError) as error:
        raise HeaderError(
            "an Extended Offset Table is offsets and lengths, both of integers",
            source=place.source.name,
            detail=str(error),
            code="extended-offset-table",
        ) from error
    return table, lengths, "Extended Offset Table"


def _integers(column: bytes | Sequence[int]) -> offsets.Offsets:
    if isinstance(column, bytes):
        whole = column[: len(column) // 8 * 8]
        return np.frombuffer(whole, dtype="<u8").astype(np.int64)
    return np.asarray(column, dtype=np.int64)


def _group(
    fragments: offsets.Fragments,
    table: offsets.Offsets,
    lengths: offsets.Offsets | None,
    declared: int,
) -> offsets.ItemSpans:
    if len(table) < declared:
        raise offsets.BrokenTable(f"it has {len(table)} entries for {declared} frames")
    spans = offsets.group_by_table(fragments, table)
    if lengths is not None:
        if len(lengths) != len(table):
            raise offsets.BrokenTable(f"{len(lengths)} lengths go with its {len(table)} entries")
        if (odd := _unlike(spans, lengths)).size:
            frame = int(odd[0])
            raise offsets.BrokenTable(
                f"entry {frame} says {lengths[frame]} bytes, and its item has "
                f"{spans.lengths[frame] - 8}"
            )
    return spans


def _unlike(spans: offsets.ItemSpans, lengths: offsets.Offsets) -> offsets.Offsets:
    """Return the frames whose spans are not of one item of these lengths."""
    # One item per frame (PS3.3 table C.7-11a); the length may leave out the padding.
    padding = spans.lengths - 8 - lengths[: len(spans)]
    return np.flatnonzero((padding < 0) | (padding > 1))


def _check_frames(file: BinaryIO, fragments: offsets.Fragments, spans: offsets.ItemSpans) -> None:
    """Check that no frame of a table holds several frames, as one with too few entries does."""
    first = np.searchsorted(fragments.offsets, spans.offsets)
    last = np.searchsorted(fragments.offsets, spans.offsets + spans.lengths) - 1
    several = np.flatnonzero(last > first)
    for frame in several.tolist():
        later = fragments.select(int(first[frame]) + 1, int(last[frame]) + 1)
        if any(offsets.find_starts(file, later)):
            raise offsets.BrokenTable(
                f"the {last[frame] - first[frame] + 1} items of its frame {frame} hold more than "
                "one frame"
            )


def _by_items(
    file: BinaryIO, fragments: offsets.Fragments, declared: int, syntax: UID
) -> tuple[offsets.ItemSpans, list[Note]]:
    """Group items into frames without a table: where there are more, by what they begin with."""
    if len(fragments.offsets) <= declared:
        return offsets.one_fragment_each(fragments), []
    spans = offsets.group_by_starts(fragments, offsets.find_starts(file, fragments))
    first = int(np.searchsorted(fragments.offsets, spans.offsets[-1]))
    last = fragments.select(first, len(fragments.offsets))
    # RLE has no end marker.
    if syntax == RLELossless or offsets.has_end(file, last):
        return spans, []
    if fragments.cut or len(spans) > declared:
        return spans.first(len(spans) - 1), []
    text = f"frame {len(spans) - 1} has no end marker and may be damaged"
    return spans, [Note("end-marker", text)]


def _look_up(
    file: BinaryIO,
    source: files.Source,
    start: int,
    end: int,
    table: offsets.Offsets,
    lengths: offsets.Offsets | None,
) -> offsets.ItemSpans | None:
    """Return spans from a table without a walk, or None if the table cannot be right."""
    starts = table + start
    if starts[0] != start or starts[-1] >= end or (np.diff(starts) <= 0).any():
        return None
    last = offsets.walk_fragments(file, int(starts[-1]), end)
    if last.cut or not len(last.ends):
        return None
    spans = offsets.ItemSpans(starts, np.diff(starts, append=last.ends[-1]))
    if lengths is not None and (len(lengths) != len(table) or _unlike(spans, lengths).size):
        return None
    if isinstance(source, files.RemoteFile):
        # Those that are there already, since each of the others would be a request.
        looks = np.flatnonzero(starts + 8 <= len(source.start))
    else:
        looks = np.unique(np.linspace(0, len(starts) - 1, LOOKS).astype(int))
    for at, span in zip(*spans.locate(looks), strict=True):
        file.seek(at)
        header = file.read(8)
        length = 8 + int.from_bytes(header[4:], "little")
        whole = length <= span if lengths is None else length == span
        if header[:4] != offsets.ITEM or not whole:
            return None
    return spans
