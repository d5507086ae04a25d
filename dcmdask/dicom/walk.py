"""One walk over the elements of a data set, filtered by tag paths; it converts nothing.

The native encodings of PS3.5 section 7.1 are understood; a deflated data set is walked
after inflation. What is damaged, ambiguous or only tolerated by pydicom raises
`NotUnderstood`, and the caller turns to `pydicom.dcmread`. A source of *n* bytes is walked
in O(n): every step moves on by at least a header of 8 bytes, and nesting is followed on an
explicit, bounded stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from dcmdask.dicom.elements import (
    FRAGMENTS,
    LONG_VRS,
    NOTHING,
    ORDERS,
    PIXEL_DATA,
    REPEATED,
    SHORT_VRS,
    UNDEFINED,
    Element,
    Encoding,
    Filter,
    Found,
    KnownHeader,
    Level,
    NotUnderstood,
    RawValue,
    Truncated,
    Window,
)

DEEPEST: Final = 64  # sequences that may be inside one another
_LARGEST: Final = 1 << 26  # bytes of a value; the longest are offset tables, with 8 a frame


def read_elements(
    window: Window,
    begin: int,
    end: int,
    encoding: Encoding,
    wanted: Filter,
    *,
    group: int | None = None,
    resumed: bool = False,
) -> Found:
    """Return the elements between `begin` and `end` that `wanted` asks for.

    The walk ends with pixel data, at which it does not look in any way. Values that are not
    wanted are jumped over unread.

    Parameters
    ----------
    wanted : Filter
    group : int, optional
        The walk ends before an element of another group.
    resumed : bool, optional
        Whether other elements of the data set come before `begin`.

    Raises
    ------
    Truncated
        An element runs past `end`.
    NotUnderstood
        The bytes are not understood, and pydicom may still read them.
    """
    walk, values = _Walk(window, end, encoding, group), dict[int, RawValue]()
    window.fill(begin, 0)
    level, first = wanted.levels[encoding], -1 if resumed else begin
    after = walk.elements(begin, end, True, level, values, first, top=True)
    return Found(values, walk.places, after)


def read_items(
    window: Window, sequence: Element, encoding: Encoding, wanted: Filter
) -> Iterator[Found]:
    """Yield for each item of `sequence` the elements that `wanted` asks for.

    The window may be used for something else between two items.

    Raises
    ------
    NotUnderstood
        The bytes are not understood, and pydicom may still read them; perhaps after some items.
    """
    if sequence.vr not in (None, "SQ"):
        raise NotUnderstood(sequence.offset, f"a sequence with VR {sequence.vr}")
    position, end = sequence.offset, sequence.offset + sequence.length
    level, closed = wanted.levels[encoding], not sequence.undefined
    walk = _Walk(window, end, encoding)
    window.fill(position, 0)
    while (item := walk.open_item(position, end, closed)) is not None:
        values, walk.places = dict[int, RawValue](), {}
        position = walk.elements(*item, level, values, item[0])
        yield Found(values, walk.places, position)
        window.fill(position, 0)
    position += 0 if closed else 8
    if position != end:
        raise NotUnderstood(position, f"the sequence should end at byte {end}")


def closed_items(data: bytes, encoding: Encoding, most: int) -> list[int]:
    """Return where the first items of a sequence begin in `data`, and where the last one ends.

    They are up to `most` items that `data` holds whole, before any of undefined length.
    """
    plain, _, _, item, *_ = ORDERS[encoding.little_endian]
    item_high, item_low, _ = plain.unpack(item)
    edges, at, last = [0], 0, len(data) - 8
    while at <= last and len(edges) <= most:
        high, low, length = plain.unpack_from(data, at)
        at += 8 + length
        if low != item_low or high != item_high or length == UNDEFINED or at > last + 8:
            break
        edges.append(at)
    return edges


class _Walk:
    """A walk over the bytes of a window, the one place that knows the grammar of PS3.5 section 7.

    Positions count from the first byte of the source, `at` and `limit` from the first byte that
    the window holds. A data set, item or sequence that is `closed` ends at `stop`; any other
    ends with a delimitation item, before `stop`. Each method returns where it ended.
    """

    def __init__(
        self, window: Window, end: int, encoding: Encoding, group: int | None = None
    ) -> None:
        self.window, self.end, self.group = window, end, group
        self.nothing = NOTHING[encoding]
        self.places: dict[int, Element] = {}
        self.plain, self.explicit, self.number, *delimiters = ORDERS[encoding.little_endian]
        self.item, self.item_end, self.sequence_end = delimiters
        self.order: Literal["little", "big"] = "little" if encoding.little_endian else "big"

    def elements(
        self,
        position: int,
        stop: int,
        closed: bool,
        level: Level,
        values: dict[int, RawValue],
        first: int,
        top: bool = False,
    ) -> int:
        """Find the wanted elements of a data set or item.

        The header at `first` shows whether the encoding is implicit. The data set itself (`top`)
        ends with pixel data, or before an element of another group than the wanted one.
        """
        window, jumps, met, seen = self.window, level.jumps, level.met, level.seen
        size_of_long = 8 if level.encoding.implicit else 12
        data, start = window.data, window.start
        at, limit = position - start, min(len(data), stop - start)
        head, step, size = b"", 0, 8
        while True:
            if at + 12 > limit:
                position = start + at
                if position > stop:
                    raise self.overrun(head, position - step + size, step - size, stop)
                if position == stop and closed:
                    return position
                data, at, limit = window.header_at(position, stop)
                start = position - at
            head = data[at : at + 8]
            if jump := jumps.get(head):
                step, size = jump, 8
                at += jump
                continue
            known = met.get(head)
            if known is None:
                position = start + at
                if head == self.item_end and not closed:
                    return position + 8
                known = self.meet(head, position, level, position == first, top)
                if known is None:
                    return position
            step, vr, key, place, below = known
            size = 8
            if not step:
                same = seen.get(head)
                if same and data.startswith(same[0], at) and at + len(same[0]) <= limit:
                    values.update(same[1])
                    at += len(same[0])
                    continue
                size = size_of_long
                if at + size > limit:
                    raise Truncated(self.tag(head), start + at, size, stop)
                step = size + int.from_bytes(data[at + size - 4 : at + size], self.order)
            offset, length = start + at + size, step - size
            if below is not None or (not known.step and length == UNDEFINED):
                position = self.nested(head, offset, length, stop, level, known, values)
                if window.data is not data:
                    data, start = window.data, window.start
                    limit = min(len(data), stop - start)
                at = position - start
                continue
            if key is None:
                at += step
                continue
            if at + step > limit and offset + length > stop:
                raise self.overrun(head, offset, length, stop)
            if place is not None:
                self.places[key] = Element(place, vr, offset, length, False)
            elif length > _LARGEST:
                raise self.too_long(head, offset, length)
            elif at + step <= limit:
                values[key] = RawValue(vr, data[at + size : at + step])
            else:
                values[key] = RawValue(vr, window.bytes_at(offset, length))
            at += step

    def nested(
        self,
        head: bytes,
        offset: int,
        length: int,
        stop: int,
        level: Level,
        known: KnownHeader,
        values: dict[int, RawValue],
    ) -> int:
        """Find the wanted elements of the first item of a sequence, or skip an unwanted one."""
        closed, window = length != UNDEFINED, self.window
        if closed:
            if offset + length > stop:
                raise self.overrun(head, offset, length, stop)
            stop = offset + length
        _, vr, key, place, below = known
        found: dict[int, RawValue] = {}
        if below is None:
            inside = level.unwanted.get(vr)
            if inside is None or (key is not None and place is None and vr not in (None, "SQ")):
                raise NotUnderstood(offset, f"an element of undefined length with VR {vr}")
            after = self.skip(offset, stop, closed, inside)
            if key is not None and place is not None:
                self.places[key] = Element(place, vr, offset, after - offset, True)
                return after
            if key is not None:
                # All of its items, without the delimitation item.
                if after - offset > _LARGEST:
                    raise self.too_long(head, offset, after - offset)
                found[key] = RawValue(vr, window.bytes_at(offset, after - 8 - offset))
                values.update(found)
        elif (item := self.open_item(offset, stop, closed)) is None:
            after = offset if closed else offset + 8
        else:
            # Only the first item of an inner sequence counts.
            after = self.elements(*item, below, found, item[0])
            if not closed or after != stop:
                after = self.skip(after, stop, closed, self.nothing)
            values.update(found)
        begin = offset - (8 if level.encoding.implicit else 12) - window.start
        finish = after - window.start
        if begin >= 0 and finish <= min(len(window.data), begin + REPEATED):
            level.remember_values(head, window.data[begin:finish], found)
        return after

    def open_item(self, position: int, stop: int, closed: bool) -> tuple[int, int, bool] | None:
        """Return where an item begins and stops, and whether it is closed; None behind the last."""
        if closed and position == stop:
            return None
        at = position - self.window.start
        head = self.window.data[at : at + 8]
        if len(head) < 8 or position + 8 > stop:
            data, at, _ = self.window.header_at(position, stop)
            head = data[at : at + 8]
        if head == self.item:
            return position + 8, stop, False
        if head == self.sequence_end and not closed:
            return None
        if head[:4] != self.item[:4]:
            raise NotUnderstood(position, "not an item of a sequence")
        (length,) = self.number.unpack_from(head, 4)
        if position + 8 + length > stop:
            raise self.overrun(head, position + 8, length, stop)
        return position + 8, position + 8 + length, True

    def skip(self, position: int, stop: int, closed: bool, level: Level) -> int:
        """Jump over the items of a sequence, or those that are left of it.

        Where there is a length it is believed; so only undefined ones are followed, on a
        stack of bounded height.
        """
        window, item = self.window, self.item
        item_end, sequence_end = self.item_end, self.sequence_end
        jumps, met = level.jumps, level.met
        outer = list[Level]()
        data, start = window.data, window.start
        at, limit = position - start, min(len(data), stop - start)
        if not closed and data[at : at + 8] == sequence_end and at + 8 <= limit:
            return position + 8
        in_item, first, head, step, size = False, -1, b"", 0, 8
        while True:
            if at + 12 > limit:
                position = start + at
                if position > stop:
                    raise self.overrun(head, position - step + size, step - size, stop)
                if position == stop and closed and not (outer or in_item):
                    return position
                data, at, limit = window.header_at(position, stop)
                start = position - at
            head = data[at : at + 8]
            if in_item:
                if jump := jumps.get(head):
                    step, size = jump, 8
                    at += jump
                    continue
                if head == item_end:
                    at += 8
                    if not outer or data[at : at + 8] != sequence_end or at + 8 > limit:
                        in_item = False
                        continue
                    at += 8
                    level = outer.pop()
                    jumps, met = level.jumps, level.met
                    continue
                known = met.get(head)
                if known is None:
                    position = start + at
                    known = self.meet(head, position, level, position == first)
                    assert known is not None
                step, size = known.step, 8
                if not step:
                    size = 8 if level.encoding.implicit else 12
                    if at + size > limit:
                        raise Truncated(self.tag(head), start + at, size, stop)
                    length = int.from_bytes(data[at + size - 4 : at + size], self.order)
                    step = size + length
                    if length == UNDEFINED:
                        if len(outer) >= DEEPEST:
                            raise NotUnderstood(start + at, f"sequences are {len(outer)} deep")
                        outer.append(level)
                        inside = level.unwanted.get(known.vr)
                        if inside is None:
                            raise NotUnderstood(start + at, f"{known.vr} of undefined length")
                        level, in_item = inside, False
                        jumps, met = level.jumps, level.met
                        step = size
                at += step
            elif head == sequence_end:
                at += 8
                if outer:
                    level, in_item = outer.pop(), True
                    jumps, met = level.jumps, level.met
                elif closed:
                    raise NotUnderstood(start + at - 8, "not an item of a sequence")
                else:
                    return start + at
            elif head == item and level is not FRAGMENTS:
                at += 8
                in_item, first = True, start + at
            elif head[:4] == item[:4] and head != item:
                (length,) = self.number.unpack_from(head, 4)
                step, size = 8 + length, 8
                at += step
            else:
                raise NotUnderstood(start + at, "not an item of a sequence")

    def meet(
        self, head: bytes, position: int, level: Level, is_first: bool, top: bool = False
    ) -> KnownHeader | None:
        """Parse a header and remember it; None where the data set ends."""
        high, low, raw, length = self.explicit.unpack(head)
        tag, implicit, looks_explicit = high << 16 | low, level.encoding.implicit, False
        if top and self.group not in (None, high):
            return None
        if implicit:
            (length,) = self.number.unpack_from(head, 4)
            vr, long = None, length == UNDEFINED
            # pydicom takes it for one of explicit VR, known or not.
            looks_explicit = head[4:6].isalpha() and head[4:6].isupper()
            if is_first and looks_explicit:
                raise NotUnderstood(position, "expected implicit VR, found explicit VR")
        else:
            vr = SHORT_VRS.get(raw) or LONG_VRS.get(raw)
            long = raw not in SHORT_VRS
            if vr is None:
                raise NotUnderstood(position, f"({high:04X},{low:04X}) has no known VR")
        if high != self.group and not 4 <= high < 0xFFFE:  # below are commands and file meta
            raise NotUnderstood(position, f"({high:04X},{low:04X}) does not belong")
        if top and tag in PIXEL_DATA:
            size = 12 if long and not implicit else 8
            if size == 12:
                (length,) = self.number.unpack_from(self.window.bytes_at(position, 12), 8)
            self.places[tag] = Element(tag, vr, position + size, length, length == UNDEFINED)
            return None
        leaf, below = level.leaves.get(tag), level.inner.get(tag)
        if below is not None:
            understood, long = vr in (None, "SQ"), True
        else:
            understood = leaf is None or vr in (None, "UN", leaf.vr or vr)
        if not understood:
            raise NotUnderstood(position, f"({high:04X},{low:04X}) with VR {vr}")
        if leaf is None:
            key, place = (tag, tag) if level.every else (None, None)
        else:
            key, place = leaf.key, tag if leaf.vr == "SQ" else None
        known = KnownHeader(0 if long else 8 + length, vr, key, place, below)
        # A header that looks like explicit VR may be the first one elsewhere.
        if place is None and not looks_explicit:
            level.remember(head, known)
        return known

    def tag(self, head: bytes) -> int:
        high, low, _ = self.plain.unpack(head)
        return int(high) << 16 | int(low)

    def name(self, head: bytes) -> str:
        high, low, _ = self.plain.unpack(head)
        return f"({high:04X},{low:04X})"

    def too_long(self, head: bytes, offset: int, length: int) -> NotUnderstood:
        name = self.name(head)
        return NotUnderstood(offset, f"{name} has {length} bytes, more than any valid one")

    def overrun(self, head: bytes, offset: int, length: int, stop: int) -> NotUnderstood:
        if stop == self.end:
            return Truncated(self.tag(head), offset, length, self.end)
        return NotUnderstood(offset, f"{self.name(head)} runs past the end of its item")
