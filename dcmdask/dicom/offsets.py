"""Spans of frames, from offset tables and item headers.

A *span* is the contiguous range of bytes that one frame's encoded pixel data
takes in the source. For encapsulated data it starts at the first item tag of
the frame and ends where the last item of the frame ends (PS3.5 A.4), so that
an empty Basic Offset Table item in front of it makes it valid encapsulated
pixel data of one frame. For native data it is the smallest range of bytes (or,
for 8-bit samples in big endian OW words, of words) that covers the frame.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.elements import UNDEFINED

Offsets: TypeAlias = npt.NDArray[np.int64]

ITEM = b"\xfe\xff\x00\xe0"
SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"
END_MARKER = b"\xff\xd9"
# Bytes that are read at once behind an item of less than a quarter of them, as the next ones
# are mostly as short; of longer ones a read of the header alone is faster.
_RUN = 1 << 14
# Bytes at the end of a frame that may hold the end marker; real padding is mostly shorter.
FRAME_TAIL = 1024
# First bytes of a codestream: SOI of JPEG and JPEG-LS, SOC and SIZ of JPEG 2000, the signature
# of JP2, the RLE header (PS3.5 G.5). None of them can begin a later fragment of a frame:
# entropy-coded data has no markers, and an RLE header is followed by 64 bytes of offsets.
_START = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP  |[\x01-\x0f]\0\0\0\x40\0\0\0")


class BrokenTable(ValueError):
    """Offset table that contradicts the items."""


@dataclass(frozen=True)
class NativeSpans:
    """Spans of frames that lie one behind the other without headers (PS3.5 8.1.1).

    Frame `i` starts at bit ``i * frame_bits`` behind `start`. Neighbouring
    spans overlap only where frames of 1-bit pixels share a byte or, with
    ``unit=2``, where frames with an odd number of bytes share a word.
    """

    start: int
    frame_bits: int
    count: int
    unit: int = 1

    def __len__(self) -> int:
        return self.count

    @property
    def token(self) -> tuple[int, ...]:
        """Identity of the spans."""
        return self.start, self.frame_bits, self.count, self.unit

    def locate(self, frames: Offsets) -> tuple[list[int], list[int]]:
        """Return offsets and lengths of the spans of `frames`."""
        unit_bits = 8 * self.unit
        first = frames * self.frame_bits // unit_bits
        last = -(-((frames + 1) * self.frame_bits) // unit_bits)
        return (self.start + first * self.unit).tolist(), ((last - first) * self.unit).tolist()

    def skip_bits(self, frame: int) -> int:
        """Return the number of bits of the span of `frame` before the frame."""
        return frame * self.frame_bits % (8 * self.unit)


@dataclass(frozen=True, eq=False)
class ItemSpans:
    """Spans of encapsulated frames: ascending, disjoint, each one or more whole items."""

    offsets: Offsets
    lengths: Offsets

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def token(self) -> str:
        """Identity of the spans."""
        digest = hashlib.blake2b(self.offsets.tobytes(), digest_size=16)
        digest.update(self.lengths.tobytes())
        return digest.hexdigest()

    def locate(self, frames: Offsets) -> tuple[list[int], list[int]]:
        """Return offsets and lengths of the spans of `frames`."""
        return self.offsets[frames].tolist(), self.lengths[frames].tolist()

    def first(self, count: int) -> ItemSpans:
        """Return the spans of the first `count` frames."""
        return ItemSpans(self.offsets[:count], self.lengths[:count])

    @property
    def packed(self) -> tuple[int, Offsets, Offsets]:
        """Offset of the first span, the lengths, and the gaps between spans; mostly there are none.

        :func:`spans_from_lengths` takes them.
        """
        gaps = self.offsets[1:] - self.offsets[:-1] - self.lengths[:-1]
        first = int(self.offsets[0]) if len(self.offsets) else 0
        return first, self.lengths, gaps if gaps.any() else gaps[:0]

    def __reduce__(self) -> tuple[Any, ...]:
        # Frames mostly follow each other: lengths of four bytes are enough.
        first, lengths, gaps = self.packed
        if len(lengths) and int(lengths.max()) <= UNDEFINED:
            lengths = lengths.astype(np.uint32)
        return (spans_from_lengths, (first, lengths, gaps if len(gaps) else None))


def spans_from_lengths(first: int, lengths: npt.NDArray[Any], gaps: Offsets | None) -> ItemSpans:
    """Return spans that follow each other, with these gaps between them."""
    lengths = lengths.astype(np.int64)
    steps = lengths[:-1] if gaps is None else lengths[:-1] + gaps
    offsets = np.full(len(lengths), first, dtype=np.int64)
    np.cumsum(steps, out=offsets[1:])
    offsets[1:] += first
    return ItemSpans(offsets, lengths)


@dataclass(frozen=True)
class NumberedNative(NativeSpans):
    """Native frames that a server gives by number; each begins with a whole byte."""

    def locate(self, frames: Offsets) -> tuple[list[int], list[int]]:
        """Return the numbers of `frames`, and the bytes of each."""
        return frames.tolist(), [-(-self.frame_bits // 8)] * len(frames)

    def skip_bits(self, frame: int) -> int:
        """Return 0."""
        return 0


@dataclass(frozen=True)
class NumberedItems:
    """Encapsulated frames that a server gives by number, whose lengths are not known before.

    Attributes
    ----------
    count : int
    decoded : int
        Bytes that a frame takes decoded.
    """

    count: int
    decoded: int

    def __len__(self) -> int:
        return self.count

    @property
    def token(self) -> tuple[int, ...]:
        """Identity of the spans."""
        return self.count, self.decoded

    def locate(self, frames: Offsets) -> tuple[list[int], list[int]]:
        """Return the numbers of `frames`, and the bytes that each takes decoded."""
        return frames.tolist(), [self.decoded] * len(frames)


Spans: TypeAlias = NativeSpans | ItemSpans | NumberedItems


class Fragments(NamedTuple):
    """The items of encapsulated pixel data behind the Basic Offset Table item."""

    offsets: Offsets
    """Of each item tag."""
    ends: Offsets
    """End of each item."""
    fault: str | None
    """Reason why the walk stopped before the Sequence Delimitation Item, if it did."""
    cut: bool
    """Whether an incomplete item or other bytes follow."""

    def select(self, first: int, stop: int) -> Fragments:
        """Return the fragments from `first` up to `stop`."""
        return self._replace(offsets=self.offsets[first:stop], ends=self.ends[first:stop])


def read_basic_offset_table(file: BinaryIO, offset: int, end: int) -> tuple[Offsets, int]:
    """Return the entries of the Basic Offset Table and the offset of the first fragment.

    Entries count from the first fragment's item tag (PS3.5 A.4).

    Raises
    ------
    ValueError
        There is no item at `offset`: this is not encapsulated pixel data.
    """
    file.seek(offset)
    header = file.read(8)
    if len(header) < 8 or header[:4] != ITEM:
        raise ValueError(
            f"the pixel data at offset {offset} starts with {header[:4].hex(' ') or 'nothing'} "
            "instead of an item tag (FFFE,E000); the transfer syntax may be wrong"
        )
    length = int.from_bytes(header[4:], "little")
    if length % 4 or offset + 8 + length > end:
        raise ValueError(
            f"the Basic Offset Table at offset {offset} has a length of {length} bytes, "
            f"and {end - offset - 8} bytes are left; the file may be truncated"
        )
    table = np.frombuffer(file.read(length), dtype="<u4").astype(np.int64)
    return table, offset + 8 + length


def walk_fragments(file: BinaryIO, start: int, end: int) -> Fragments:
    """Return the items from `start` on; only their headers are read, of short ones by the run.

    Parameters
    ----------
    file : binary file
    start : int
        Offset of the first fragment's item tag.
    end : int
        Latest possible end of the pixel data.
    """
    offsets: list[int] = []
    ends: list[int] = []
    seek, read, add, close = file.seek, file.read, offsets.append, ends.append
    unpack = struct.Struct("<4sL").unpack_from
    position = begin = start
    data, is_short = b"", False
    fault, cut = None, False
    while position + 8 <= end:
        if position - begin + 8 > len(data):
            seek(position)
            data, begin = read(_RUN if is_short else 8), position
        tag, length = unpack(data, position - begin)
        if tag != ITEM:
            if tag != SEQUENCE_DELIMITER:
                cut = True
                fault = f"no item tag but {tag.hex(' ')} at offset {position}"
            break
        stop = position + 8 + length
        if stop > end:
            cut = True
            what = "an undefined length" if length == UNDEFINED else f"a length of {length} bytes"
            fault = (
                f"the item at offset {position} has {what}, and {end - position - 8} bytes are left"
            )
            break
        is_short = 4 * length < _RUN
        add(position)
        close(stop)
        position = stop
    else:
        cut = position < end
        fault = f"no Sequence Delimitation Item: the pixel data ends at offset {end}"
    return Fragments(np.array(offsets, np.int64), np.array(ends, np.int64), fault, cut)


def group_by_table(fragments: Fragments, table: Offsets) -> ItemSpans:
    """Group fragments into frames by an offset table.

    Parameters
    ----------
    fragments : Fragments
    table : array of int
        Offsets of the first fragment of each frame from the first fragment of all.

    Raises
    ------
    BrokenTable
        The table does not start at the first fragment, does not ascend, or
        points between items.
    """
    offsets, ends = fragments.offsets, fragments.ends
    if not len(offsets):
        raise BrokenTable("there are no items")
    starts = table + offsets[0]
    if starts[0] != offsets[0]:
        raise BrokenTable(f"its first entry is {table[0]} and not 0")
    if (descending := np.flatnonzero(np.diff(starts) <= 0)).size:
        frame = int(descending[0]) + 1
        raise BrokenTable(f"entry {frame} ({table[frame]}) is not above entry {frame - 1}")
    first = np.searchsorted(offsets, starts)
    found = first < len(offsets)
    found[found] = offsets[first[found]] == starts[found]
    known = len(starts) if found.all() else int(np.argmin(found))
    missed = known < len(starts)
    if missed and (fragments.fault is None or starts[known] < ends[-1]):
        raise BrokenTable(f"entry {known} ({table[known]}) does not point at an item")
    # The last frame before a fault of the walk may lack items.
    lacking = starts[known] > ends[-1] if missed else fragments.cut
    return _join(offsets, ends, first[:known]).first(known - 1 if lacking else known)


def group_by_starts(fragments: Fragments, starts: Sequence[bool]) -> ItemSpans:
    """Group fragments into frames: a frame starts with the first fragment, and with each start."""
    first = np.flatnonzero(np.concatenate([[True], np.asarray(starts[1:], bool)]))
    return _join(fragments.offsets, fragments.ends, first)


def one_fragment_each(fragments: Fragments) -> ItemSpans:
    """Return a span for each fragment."""
    return ItemSpans(fragments.offsets, fragments.ends - fragments.offsets)


def _join(offsets: Offsets, ends: Offsets, first: Offsets) -> ItemSpans:
    """Return a span from each fragment of `first` up to the next."""
    starts = offsets[first]
    stops = np.concatenate([offsets[first[1:]], ends[-1:]])
    return ItemSpans(starts, stops - starts)


def find_starts(file: BinaryIO, fragments: Fragments) -> list[bool]:
    """Return for each fragment whether it begins like a codestream."""
    found = []
    for offset, end in zip(fragments.offsets.tolist(), fragments.ends.tolist(), strict=True):
        file.seek(offset + 8)
        found.append(_START.match(file.read(min(8, end - offset - 8))) is not None)
    return found


def has_end(file: BinaryIO, frame: Fragments) -> bool:
    """Return whether the last bytes of a frame's fragments, joined, hold an end marker."""
    tail = b""
    for offset, end in zip(frame.offsets[::-1].tolist(), frame.ends[::-1].tolist(), strict=True):
        begin = max(offset + 8, end - FRAME_TAIL + len(tail))
        file.seek(begin)
        tail = file.read(end - begin) + tail
        if len(tail) == FRAME_TAIL:
            break
    return END_MARKER in tail


def payload(span: bytes | memoryview) -> bytes | memoryview:
    """Return the encoded frame that the items of `span` hold, fragments joined.

    One fragment is not copied.

    Raises
    ------
    ValueError
        The items do not fill the span exactly, or hold more than one frame: the offset table
        it came from was wrong, or the file is damaged.
    """
    view = memoryview(span)
    fragments: list[memoryview] = []
    position = 0
    while position < len(span):
        length = int.from_bytes(view[position + 4 : position + 8], "little")
        stop = position + 8 + length
        if view[position : position + 4] != ITEM or stop > len(span):
            raise ValueError(
                f"byte {position} of the {len(span)} that the frame takes is not the start of an "
                "item that ends within them; the offset table is wrong or the data is damaged"
            )
        fragment = view[position + 8 : stop]
        if fragments and _START.match(fragment):
            raise ValueError(
                f"another frame begins at byte {position} of the {len(span)} that the frame "
                "takes; the offset table is wrong or the data is damaged"
            )
        fragments.append(fragment)
        position = stop
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)
