"""One fast walk over the data elements of a data set; it converts nothing.

The native encodings of PS3.5 section 7.1 are understood; a deflated data set is walked
after inflation. What is damaged, ambiguous or only tolerated by pydicom raises
`NotUnderstood`, and the caller turns to `pydicom.dcmread`. Offsets count from the first
byte of the source. A source of *n* bytes is walked in O(n): every step moves on by at
least a header of 8 bytes, and nesting is followed on an explicit, bounded stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final, NamedTuple

UNDEFINED: Final = 0xFFFFFFFF  # the length of what a delimitation item ends (PS3.5 section 7.1)
PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double, integer
DEEPEST: Final = 64  # sequences of undefined length that may be open inside one another

# Below are the groups of commands and file meta, above pixel data, padding and items.
_FIRST_PLAIN, _END_PLAIN = 0x00040000, 0x7FE00008
_REMEMBERED: Final = 4096  # bounds the memory that hostile input can make `_skip` take

# PS3.5 section 7.1.2: VRs with a 2-byte and with a 4-byte length.
_SHORT_VRS = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_SHORT: Final = {vr.encode(): vr for vr in _SHORT_VRS.split()}
_LONG_VRS = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
_LONG: Final = {vr.encode(): vr for vr in _LONG_VRS.split()}
ReadAt = Callable[[int, int], bytes]


class Encoding(NamedTuple):
    """Encoding of a native data set (PS3.5 section 7.1); no big endian implicit VR."""

    implicit: bool
    little_endian: bool


IMPLICIT_LITTLE: Final = Encoding(True, True)
EXPLICIT_LITTLE: Final = Encoding(False, True)
EXPLICIT_BIG: Final = Encoding(False, False)


class Element(NamedTuple):
    """Place of one data element: `offset` is that of its value's first byte.

    An `undefined` length counts up to and including the sequence delimitation item; for
    pixel data, which is not skipped, it stays `UNDEFINED`.
    """

    tag: int  # 0xGGGGEEEE
    vr: str | None  # None where the encoding is implicit
    offset: int
    length: int
    undefined: bool


class RawValue(NamedTuple):
    """An element's value as it stands in the file; the VR is None where it is implicit."""

    vr: str | None
    value: bytes


class Item(NamedTuple):
    """The content of one sequence item, without its header and delimitation item."""

    offset: int
    length: int
    encoding: Encoding


class NotUnderstood(ValueError):
    """The walk does not vouch for what is at `offset`; `pydicom.dcmread` may read it."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason

    def __str__(self) -> str:
        return f"at byte {self.offset}: {self.reason}"


class Truncated(NotUnderstood):
    """`length` bytes from `offset` run past `size`: a cut file (or item), or a damaged length."""

    def __init__(self, tag: int | None, offset: int, length: int, size: int) -> None:
        what = "a header" if tag is None else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        super().__init__(offset, f"{what} needs {length} bytes, the data end at byte {size}")
        self.args = (tag, offset, length, size)  # what pickle makes it from
        self.tag, self.length, self.size = tag, length, size


class Window:
    """The bytes of a source of `size` bytes, read as a walk moves on.

    ``read_at(offset, length)`` may return less only at the end. The first read is of `step`
    bytes. Reads that continue one another double, up to 1 MiB (or `step`, if that is more),
    and read no byte twice; a jump starts again at `step`. `data` are the first bytes, if they
    are at hand; with all of them nothing is read.
    """

    def __init__(
        self, read_at: ReadAt, size: int, *, step: int = 1 << 14, data: bytes = b""
    ) -> None:
        self.data, self.start, self.size = data, 0, size
        self._read_at, self._first, self._step = read_at, step, step

    def fill(self, offset: int, need: int) -> None:
        """Hold `need` bytes from `offset` on, or all there are."""
        into = offset - self.start
        have = len(self.data) - into
        if into >= 0 and have >= need:
            return
        if into < 0 or have < 0:
            self._step = self._first
            into, have = len(self.data), 0
        wanted = min(max(self._step, need - have), self.size - offset - have)
        more = self._read_at(offset + have, wanted) if wanted > 0 else b""
        self.data, self.start = self.data[into:] + more, offset
        self._step = min(2 * self._step, max(1 << 20, self._first))

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, from the window if they are there."""
        self.fill(offset, length)
        into = offset - self.start
        if into + length > len(self.data):
            raise Truncated(None, offset, length, self.size)
        return self.data[into : into + length]

    def header_at(self, offset: int, end: int) -> tuple[bytes, int, int]:
        """Return the bytes held, and where `offset` is and ends in them; at least 8 bytes."""
        self.fill(offset, min(12, end - offset))
        at, limit = offset - self.start, min(len(self.data), end - self.start)
        if limit - at < 8:
            raise Truncated(None, offset, 8, end)
        return self.data, at, limit


def _order(sign: str) -> tuple[Struct, Struct, Struct, bytes, bytes, bytes]:
    """Implicit (or item) and explicit header, length; item, item end, sequence end."""
    plain = Struct(sign + "HHL")
    ends = plain.pack(0xFFFE, 0xE00D, 0), plain.pack(0xFFFE, 0xE0DD, 0)
    item = plain.pack(0xFFFE, 0xE000, UNDEFINED)
    return plain, Struct(sign + "HH2sH"), Struct(sign + "L"), item, *ends


_ORDERS: Final = {True: _order("<"), False: _order(">")}


def walk(
    window: Window,
    offset: int,
    end: int,
    encoding: Encoding,
    *,
    stop_before: frozenset[int] = frozenset(),
    while_group: int | None = None,
    resumed: bool = False,
) -> Iterator[Element]:
    """Yield the elements between `offset` and `end` in file order, ending with pixel data.

    Values are jumped over unread; that of pixel data is not looked at in any way. The walk
    also ends before an element in `stop_before`, or of another group than `while_group`.
    Other uses of the window between two elements do no harm.
    An element that runs past `end` raises `Truncated`. `resumed`: others come before `offset`.
    """
    implicit = encoding.implicit
    plain, explicit, number, *_ = _ORDERS[encoding.little_endian]
    unpack, unpack_length = (plain if implicit else explicit).unpack_from, number.unpack_from
    new, short, vr = tuple.__new__, _SHORT, None
    first = window.bytes_at(offset, min(end - offset, 6))[4:] if implicit and not resumed else b""
    if first.isalpha() and first.isupper():  # which pydicom takes for a VR, known or not
        raise NotUnderstood(offset, "expected implicit VR, found explicit VR")
    data, start, at, limit = b"", offset, 0, 0
    while True:
        if at + 12 > limit:
            position = start + at
            if position == end:
                return
            data, at, limit = window.header_at(position, end)
            start = position - at
        if implicit:
            group, element, length = unpack(data, at)
        else:
            group, element, raw, length = unpack(data, at)
            vr = short.get(raw)
        if while_group is not None and group != while_group:
            return
        tag, size = group << 16 | element, 8
        if vr is None and not implicit:
            vr, size = _LONG.get(raw), 12
            if vr is None:
                raise NotUnderstood(start + at, f"{raw!r} is not a known VR")
            if at + size > limit:
                raise Truncated(tag, start + at, size, end)
            (length,) = unpack_length(data, at + 8)
        if tag in stop_before:
            return
        value = start + at + size
        if not _FIRST_PLAIN <= tag < _END_PLAIN:
            if tag in PIXEL_DATA:
                yield Element(tag, vr, value, length, length == UNDEFINED)
                return
            if group == 0xFFFE or (tag < _FIRST_PLAIN and group != while_group):
                raise NotUnderstood(start + at, f"({group:04X},{element:04X}) does not belong")
        if length == UNDEFINED:
            whole = Element(tag, vr, value, length, True)
            at = _skip(window, whole, end, encoding) - start
            yield whole._replace(length=start + at - value)
        else:
            at += size + length
            if start + at > end:
                raise Truncated(tag, value, length, end)
            yield new(Element, (tag, vr, value, length, False))


def walk_group2(window: Window, offset: int, end: int) -> tuple[list[Element], int]:
    """The File Meta Information (PS3.10 section 7.1), and where the data set begins."""
    found = list(walk(window, offset, end, EXPLICIT_LITTLE, while_group=2))
    return found, found[-1].offset + found[-1].length if found else offset


def items(window: Window, element: Element, encoding: Encoding) -> list[Item]:
    """The items (PS3.5 section 7.5) of an element that was walked with `encoding`.

    Those in UN are implicit VR little endian (PS3.5 section 6.2.2, note 2).
    """
    if element.vr == "UN" and encoding.little_endian:
        encoding = IMPLICIT_LITTLE
    end = element.offset + element.length
    found: list[Item] = []
    after = _skip(window, element, end, encoding, found.append)
    if after != end:
        raise NotUnderstood(after, f"the sequence should end at byte {end}")
    return found


def _skip(
    window: Window,
    element: Element,
    end: int,
    encoding: Encoding,
    told: Callable[[Item], object] = bool,
) -> int:
    """Return the end of a sequence; `told` is called with its own items, not with inner ones.

    Headers repeat in functional groups, so their 8 bytes are looked up in `jumps`, which has
    how far to move on: one table for the encoding, one for what is in UN.
    """
    _, vr, offset, _, undefined = element
    _, explicit, u32, item, item_end, sequence_end = _ORDERS[encoding.little_endian]
    own, fragments = dict[bytes, int](), dict[bytes, int]()
    unknown = own if encoding.implicit else dict[bytes, int]()
    inside = {None: unknown, "SQ": own, "OB": fragments, "OW": fragments}
    if encoding.little_endian:
        inside["UN"] = unknown
    if vr not in inside:
        raise NotUnderstood(offset, f"{vr} of undefined length")
    stack = list[dict[bytes, int]]()
    jumps, in_item, begin = inside[vr], False, offset
    data, start, at, limit = b"", offset, 0, 0
    while True:
        if at + 12 > limit:
            position = start + at
            if position == end and not (undefined or stack or in_item):
                return position
            data, at, limit = window.header_at(position, end)
            start = position - at
        head = data[at : at + 8]
        if in_item and (jump := jumps.get(head)):
            at += jump
            continue
        at += 8
        if not in_item:
            if head == sequence_end:
                if not stack:
                    return start + at
                jumps, in_item = stack.pop(), True
            elif head == item and jumps is not fragments:
                in_item = True
                begin = begin if stack else start + at
            elif head[:4] == item[:4] and head != item:
                (length,) = u32.unpack_from(head, 4)
                if not stack:
                    told(Item(start + at, length, encoding))
                at += length
            else:
                raise NotUnderstood(start + at - 8, "not an item of a sequence")
        elif head == item_end:
            in_item = False
            if not stack:
                told(Item(begin, start + at - 8 - begin, encoding))
        else:
            group, number, raw, length = explicit.unpack(head)
            known, vr = raw in _SHORT, None
            if jumps is unknown:
                known = not (raw.isalpha() and raw.isupper())
                (length,) = u32.unpack_from(head, 4)
            elif raw in _LONG and at + 4 <= limit:
                known, vr = True, _LONG[raw]
                (length,) = u32.unpack_from(data, at)
                at += 4
            if not known or not _FIRST_PLAIN >> 16 <= group < 0xFFFE:
                raise NotUnderstood(start + at, f"({group:04X},{number:04X}) with VR {raw!r}")
            if length != UNDEFINED:
                at += length
                if vr is None and len(jumps) < _REMEMBERED:
                    jumps[head] = 8 + length
            elif vr in inside and len(stack) < DEEPEST:
                stack.append(jumps)
                jumps, in_item = inside[vr], False
            else:
                raise NotUnderstood(start + at, f"{vr} of undefined length, {len(stack)} deep")
