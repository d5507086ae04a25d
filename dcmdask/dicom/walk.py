"""One walk over the elements of a data set, filtered by tag paths; it converts nothing.

The native encodings of PS3.5 section 7.1 are understood; a deflated data set is walked
after inflation. What is damaged, ambiguous or only tolerated by pydicom raises
`NotUnderstood`, and the caller turns to `pydicom.dcmread`. A source of *n* bytes is walked
in O(n): every step moves on by at least a header of 8 bytes, and nesting is followed on an
explicit, bounded stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, Literal, TypeAlias

from dcmdask.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    Found,
    NotUnderstood,
    RawValue,
    Truncated,
    Wanted,
    Window,
)

DEEPEST: Final = 64  # sequences that may be inside one another

_LARGEST: Final = 1 << 26  # bytes of a value; the longest are offset tables, with 8 a frame
# These bound the memory that hostile input can take: headers and sequences that are
# remembered of one level of a filter, and the length of such a sequence.
_HEADERS, _SEQUENCES, _REPEATED = 1 << 13, 1 << 8, 1 << 12

# PS3.5 section 7.1.2: VRs with a 2-byte and with a 4-byte length.
_SHORT_VRS = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_SHORT: Final = {vr.encode(): vr for vr in _SHORT_VRS.split()}
_LONG_VRS = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
_LONG: Final = {vr.encode(): vr for vr in _LONG_VRS.split()}


class _Level:
    """Elements wanted of a data set or of the items of a sequence, and the headers met there.

    Headers repeat from item to item and from file to file, and looking one up takes a quarter
    of the time of parsing it. By a header's first 8 bytes, `jumps` has the length of header and
    value of elements to jump over. `met` has that of all others, or 0 where a length of 4 bytes
    follows; the key, or None where the value is not wanted; the VR; for a sequence to look
    into, the level of its items. `seen` has all bytes of such a sequence, and the values found
    in it: most functional groups of a frame are those of the frame before.
    """

    def __init__(self, wanted: Iterable[Wanted], encoding: Encoding, every: bool = False) -> None:
        self.implicit, self.every = encoding.implicit, every
        self.jumps: dict[bytes, int] = {}
        self.met: dict[bytes, tuple[int, int | None, str | None, _Level | None]] = {}
        self.seen: dict[bytes, tuple[bytes, dict[int, RawValue]]] = {}
        self.leaves: dict[int, Wanted] = {}
        deeper: dict[int, list[Wanted]] = {}
        for one in wanted:
            tag, *rest = one.path
            if rest:
                deeper.setdefault(tag, []).append(one._replace(path=tuple(rest)))
            else:
                self.leaves[tag] = one
        self.inner = {tag: _Level(found, encoding) for tag, found in deeper.items()}
        self.nothing = not (self.leaves or self.inner or every)
        self.places: bool = every or any(
            [one.vr == "SQ" for one in self.leaves.values()]
            + [level.places for level in self.inner.values()]
        )


# An open data set, sequence or item: whether it is a sequence; its level; values found; its
# end; whether that is known; for a sequence its place, and where and with which header it began.
_Place: TypeAlias = tuple[int, Element] | None
_Open: TypeAlias = tuple[
    bool, _Level, dict[int, RawValue], int, bool, _Place, tuple[int, bytes] | None
]
_ENCODINGS: Final = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
_NOTHING: Final = {encoding: _Level((), encoding) for encoding in _ENCODINGS}
_FRAGMENTS: Final = _Level((), EXPLICIT_LITTLE)


class Filter:
    """Elements to find in a walk.

    Parameters
    ----------
    wanted : iterable of Wanted
    every : bool, optional
        Find the places of all other elements, too, by their tags; not inside sequences.
    """

    def __init__(self, wanted: Iterable[Wanted] = (), *, every: bool = False) -> None:
        self.wanted = tuple(wanted)
        self.levels = {one: _Level(self.wanted, one, every) for one in _ENCODINGS}


EVERYTHING: Final = Filter(every=True)


def read_elements(
    window: Window,
    begin: int,
    end: int,
    encoding: Encoding,
    wanted: Filter = EVERYTHING,
    *,
    group: int | None = None,
    resumed: bool = False,
) -> Found:
    """Return the elements between `begin` and `end` that `wanted` asks for.

    The walk ends with pixel data, at which it does not look in any way. Values that are not
    wanted are jumped over unread.

    Parameters
    ----------
    wanted : Filter, optional
        By default the places of all elements.
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
    first = -1 if resumed else begin
    return next(_walk(window, begin, end, encoding, wanted, False, True, group, first))


def read_items(
    window: Window, sequence: Element, encoding: Encoding, wanted: Filter = EVERYTHING
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
    begin, end = sequence.offset, sequence.offset + sequence.length
    return _walk(window, begin, end, encoding, wanted, True, not sequence.undefined)


def _order(sign: str) -> tuple[Struct, Struct, Struct, bytes, bytes, bytes]:
    """Implicit (or item) and explicit header, length; item, item end, sequence end."""
    plain = Struct(sign + "HHL")
    ends = plain.pack(0xFFFE, 0xE00D, 0), plain.pack(0xFFFE, 0xE0DD, 0)
    item = plain.pack(0xFFFE, 0xE000, UNDEFINED)
    return plain, Struct(sign + "HH2sH"), Struct(sign + "L"), item, *ends


_ORDERS: Final = {True: _order("<"), False: _order(">")}


def _walk(
    window: Window,
    begin: int,
    end: int,
    encoding: Encoding,
    wanted: Filter,
    in_items: bool,
    closed: bool,
    group: int | None = None,
    first: int = -1,
) -> Iterator[Found]:
    """Yield what is found in a data set, or in each item of a sequence (`in_items`).

    The one place that knows the grammar of PS3.5 section 7. `first` is the offset of the first
    element of a data set or item, which shows whether the encoding is implicit.
    """
    plain, explicit, number, item, item_end, sequence_end = _ORDERS[encoding.little_endian]
    order: Literal["little", "big"] = "little" if encoding.little_endian else "big"
    level, nothing, new = wanted.levels[encoding], _NOTHING[encoding], tuple.__new__
    jumps, met = level.jumps, level.met
    values: dict[int, RawValue] = {}
    places: dict[int, Element] = {}
    # The end of the innermost open data set, sequence or item, or the latest possible one if it
    # is not `closed`; for a sequence its place, if wanted, or its offset and header, if it is to
    # be remembered. `outer` has the same of those around it.
    stop = end
    place: _Place = None
    repeated: tuple[int, bytes] | None = None
    outer = list[_Open]()
    data, start, at, limit, head, step, size = b"", begin, 0, 0, b"", 0, 8
    while True:
        if at + 12 > limit:
            position = start + at
            if position > stop:
                high, low, _ = plain.unpack(head)
                long = not (level.implicit or high == 0xFFFE or head[4:6] in _SHORT)
                size = 12 if long else 8
                raise _overrun(high << 16 | low, position - step + size, step - size, stop, end)
            if position == stop and closed:
                if not outer:
                    if not in_items:
                        yield Found(values, places, position)
                    elif position != end:
                        raise NotUnderstood(position, f"the sequence should end at byte {end}")
                    return
                inside, was_place, was_repeated = values, place, repeated
                in_items, level, values, stop, closed, place, repeated = outer.pop()
                jumps, met = level.jumps, level.met
                limit = min(len(data), stop - start)
                if was_place is not None:
                    key, there = was_place
                    places[key] = there._replace(length=position - there.offset)
                elif was_repeated is not None:
                    since, header = was_repeated
                    values.update(inside)
                    if since >= start and at <= min(len(data), since - start + _REPEATED):
                        if len(level.seen) >= _SEQUENCES:
                            level.seen.clear()
                        level.seen[header] = data[since - start : at], inside
                elif in_items and not outer:
                    yield Found(inside, places, position)
                    places = {}
                continue
            data, at, limit = window.header_at(position, stop)
            start = position - at
        head = data[at : at + 8]
        if in_items:
            if head == sequence_end and not closed:
                at += 8
                stop, closed, limit = start + at, True, at
                continue
            (length,) = number.unpack_from(head, 4)
            if head[:4] != item[:4] or (length == UNDEFINED and level is _FRAGMENTS):
                raise NotUnderstood(start + at, "not an item of a sequence")
            if length != UNDEFINED and level.nothing and outer:
                step = 8 + length
                at += step
                continue
            at += 8
            first = start + at
            # Only the first item of an inner sequence counts.
            after = level if level.nothing or not outer else nothing
            outer.append((True, after, values, stop, closed, place, repeated))
            if len(outer) == 1:
                values = {}
            in_items, closed, place, repeated = False, length != UNDEFINED, None, None
            if closed:
                if first + length > stop:
                    raise _overrun(0xFFFEE000, first, length, stop, end)
                stop = first + length
                limit = min(len(data), stop - start)
            continue
        if jump := jumps.get(head):
            step = jump
            at += step
            continue
        below: _Level | None = None
        if known := met.get(head):
            step, wanted_key, vr, below = known
            size = 8
            if below is not None:
                same = None if below.nothing else level.seen.get(head)
                if same and data.startswith(same[0], at) and at + len(same[0]) <= limit:
                    values.update(same[1])
                    at += len(same[0])
                    continue
            else:
                if not step:
                    # Cut short by the end, the length may be anything: the value ends behind it.
                    step, size = 12 + int.from_bytes(data[at + 8 : at + 12], order), 12
                if wanted_key is None:
                    if step < UNDEFINED:
                        at += step
                        continue
                elif at + step <= limit:
                    values[wanted_key] = new(RawValue, (vr, data[at + size : at + step]))
                    at += step
                    continue
        if head == item_end and not closed:
            at += 8
            stop, closed, limit = start + at, True, at
            continue
        position, key, is_place, remembered = start + at, 0, False, True
        if below is not None:
            tag, size = -1, 8 if level.implicit else 12
            if at + size > limit:
                raise Truncated(None, position, size, stop)
            length = int.from_bytes(data[at + size - 4 : at + size], order)
            offset, undefined = position + size, length == UNDEFINED
        else:
            high, low, raw, length = explicit.unpack(head)
            if high != group and group is not None and not outer:
                yield Found(values, places, position)
                return
            if level.implicit:
                (length,) = number.unpack_from(head, 4)
                vr, size = None, 8
                if position == first and _looks_explicit(head):
                    raise NotUnderstood(position, "expected implicit VR, found explicit VR")
            else:
                vr, size = _SHORT.get(raw), 8
                if vr is None:
                    vr, size = _LONG.get(raw), 12
                    if vr is None:
                        raise NotUnderstood(position, f"{raw!r} is not a known VR")
                    if at + 12 > limit:
                        raise Truncated(high << 16 | low, position, 12, stop)
                    (length,) = number.unpack_from(data, at + 8)
            tag, offset, undefined = high << 16 | low, position + size, length == UNDEFINED
            if high != group and not 4 <= high < 0xFFFE:  # below are commands and file meta
                raise NotUnderstood(position, f"({high:04X},{low:04X}) does not belong")
            if tag in PIXEL_DATA and not outer:
                places[tag] = Element(tag, vr, offset, length, undefined)
                yield Found(values, places, position)
                return
            leaf, below = level.leaves.get(tag), level.inner.get(tag)
            understood = leaf is None or vr in (None, "UN", leaf.vr or vr)
            if below is not None:
                understood = vr in (None, "SQ")
            elif undefined:
                below = _unwanted(level, vr, encoding)
                understood &= below is not None and (leaf is None or leaf.vr == "SQ")
            if not understood:
                raise NotUnderstood(position, f"({high:04X},{low:04X}) with VR {vr}")
            key, is_place = (tag, level.every) if leaf is None else (leaf.key, leaf.vr == "SQ")
            # A header that looks like explicit VR may be the first one elsewhere.
            remembered = not (is_place or (level.implicit and _looks_explicit(head)))
            if remembered and len(met) + len(jumps) >= _HEADERS:
                met.clear()
                jumps.clear()
        if not undefined and offset + length > stop:
            high, low, _ = plain.unpack(head)
            raise _overrun(high << 16 | low, offset, length, stop, end)
        if below is not None:
            if len(outer) > 2 * DEEPEST:
                raise NotUnderstood(position, f"sequences are {len(outer) // 2} deep")
            outer.append((False, level, values, stop, closed, place, repeated))
            place = repeated = None
            if is_place:
                place = key, Element(tag, vr, offset, 0, undefined)
            elif remembered and vr in (None, "SQ") and not below.places:
                met[head] = 0, None, vr, below
                if not below.nothing:
                    values, repeated = {}, (position, head)
            in_items, level, closed = True, below, not undefined
            jumps, met = level.jumps, level.met
            at += size
            if closed:
                stop = offset + length
                limit = min(len(data), stop - start)
            continue
        step = size + length
        if is_place:
            places[key] = Element(tag, vr, offset, length, False)
        elif leaf is not None:
            if length > _LARGEST:
                raise NotUnderstood(
                    position, f"({high:04X},{low:04X}) has {length} bytes, more than any valid one"
                )
            value = data[at + size : at + step]
            if len(value) < length:
                value = window.bytes_at(offset, length)
            values[key] = RawValue(vr, value)
        if remembered and leaf is None and size == 8:
            jumps[head] = step
        elif remembered:
            met[head] = step if size == 8 else 0, None if leaf is None else key, vr, None
        at += step


def _looks_explicit(head: bytes) -> bool:
    """Return whether pydicom takes a header for one of explicit VR, known or not."""
    return head[4:6].isalpha() and head[4:6].isupper()


def _unwanted(level: _Level, vr: str | None, encoding: Encoding) -> _Level | None:
    """Return the level of what an undefined length holds; None where there can be none."""
    if level.implicit or (vr == "UN" and encoding.little_endian):
        return _NOTHING[IMPLICIT_LITTLE]  # PS3.5 section 6.2.2, note 2
    if vr == "SQ":
        return _NOTHING[encoding]
    return _FRAGMENTS if vr in ("OB", "OW") else None


def _overrun(tag: int, offset: int, length: int, stop: int, end: int) -> NotUnderstood:
    if stop == end:
        return Truncated(tag, offset, length, end)
    return NotUnderstood(
        offset, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) runs past the end of its item"
    )
