"""Values out of the items of a sequence, in one pass over its bytes (PS3.3 C.7.6.16).

Made for the functional groups of an instance with very many frames. Nothing is converted,
and no more of the sequence is held than a window of it, or one item. Every step moves on by
at least a header of 8 bytes. What is damaged, ambiguous or only tolerated by pydicom raises
`NotUnderstood`; :func:`rows_of_dataset` gives the same from what pydicom read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct, pack
from typing import Any, Final, Literal, NamedTuple

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dcmdask.dicom.elements import (
    DEEPEST,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    NotUnderstood,
    Truncated,
    Window,
    walk,
)

__all__ = ["LONGEST", "NUMBERS", "Leaf", "rows", "rows_of_dataset", "value_bytes"]

NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
"""The VRs of binary numbers (PS3.5 6.2), with what :mod:`struct` calls them."""

LONGEST: Final = 1 << 10
"""A value of more bytes counts as none: no valid one of those wanted comes near."""

_REMEMBERED: Final = 4096  # bounds the headers that are remembered of one kind of item
_SEEN: Final = 256  # bounds the sequences inside that are kept for comparison
_REPEATED: Final = 1 << 12  # bounds the length of such a sequence
_LARGEST: Final = 1 << 26  # of what is held of one item


class Leaf(NamedTuple):
    """A wanted element.

    `path` has the tags of the sequences that lead to it from the item, and its own; of each
    of these sequences the first item counts. Leaves may share a column. Of one with an empty
    VR, which it then may have any of, only matters whether there is a value.
    """

    path: tuple[int, ...]
    column: int
    vr: str


class _Kind:
    """Elements wanted of the items of one sequence, and the headers met in such items.

    `met` has by a header's first 8 bytes: the length of header and value, or 0 where a
    length of 4 bytes follows; the column or -1; for a sequence, the kind of its items.
    `seen` has by the same, of a sequence: all of its bytes, and the values found in them.
    """

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self.leaves: dict[int, Leaf] = {}
        self.met: dict[bytes, tuple[int, int, _Kind | None]] = {}
        self.seen: dict[bytes, tuple[bytes, list[tuple[int, bytes]]]] = {}
        deeper: dict[int, list[Leaf]] = {}
        for leaf in leaves:
            tag, *rest = leaf.path
            if rest:
                deeper.setdefault(tag, []).append(leaf._replace(path=tuple(rest)))
            else:
                self.leaves[tag] = leaf
        self.inner = {tag: _Kind(found) for tag, found in deeper.items()}
        self.columns: set[int] = {leaf.column for leaf in self.leaves.values()}
        self.columns.update(*(kind.columns for kind in self.inner.values()))


# The headers of one file are mostly those of the next.
@lru_cache(maxsize=16)
def _kind(leaves: tuple[Leaf, ...], encoding: Encoding) -> _Kind:
    return _Kind(leaves)


@lru_cache(maxsize=4)
def _nothing(encoding: Encoding) -> _Kind:
    return _Kind(())


def rows(
    window: Window, sequence: Element, encoding: Encoding, leaves: tuple[Leaf, ...]
) -> Iterator[list[bytes]]:
    """Yield for each item of `sequence` the values that it has for `leaves`.

    Parameters
    ----------
    window : Window
        It may be used for something else between two rows.
    sequence : Element
        As walked with `encoding`.
    encoding : Encoding
    leaves : tuple of Leaf

    Yields
    ------
    list of bytes
        By column; unconverted, in the byte order of `encoding`, empty where there is none.

    Raises
    ------
    NotUnderstood
        For what pydicom may still read, perhaps after some rows.
    """
    if sequence.vr not in (None, "SQ"):
        raise NotUnderstood(sequence.offset, f"a sequence with VR {sequence.vr}")
    position, end = sequence.offset, sequence.offset + sequence.length
    columns = 1 + max(leaf.column for leaf in leaves)
    kind = _kind(leaves, encoding)
    reader = _Reader(window, encoding, end)
    while position < end or sequence.undefined:
        row = [b""] * columns
        at = reader.hold(position, 8)
        if sequence.undefined and reader.data[at : at + 8] == reader.sequence_end:
            position += 8
            break
        while True:
            try:
                after = reader.item(at, kind, row, 0)
                break
            except Truncated:
                held = reader.start + reader.limit
                if held == end or held - position > _LARGEST:
                    raise
                row = [b""] * columns
                at = reader.hold(position, 2 * (held - position))
        position = reader.start + after
        yield row
    if position != end:
        raise NotUnderstood(position, f"the sequence should end at byte {end}")


class _Reader:
    """Goes through what the window holds; positions count from its first byte.

    Bytes that are not held raise `Truncated`, whether or not the source has them.
    """

    def __init__(self, window: Window, encoding: Encoding, end: int) -> None:
        self.window, self.encoding, self.end = window, encoding, end
        self.order: Literal["little", "big"] = "little" if encoding.little_endian else "big"
        sign = "<" if encoding.little_endian else ">"
        self.tag = Struct(sign + "HH").unpack_from
        self.item_tag = pack(sign + "HH", 0xFFFE, 0xE000)
        self.item_end = pack(sign + "HHL", 0xFFFE, 0xE00D, 0)
        self.sequence_end = pack(sign + "HHL", 0xFFFE, 0xE0DD, 0)
        self.nothing = _nothing(encoding)
        self.data, self.start, self.limit = b"", 0, 0

    def hold(self, position: int, need: int) -> int:
        """Hold `need` bytes from `position` on, or all up to the end; return where they are."""
        self.window.fill(position, min(need, self.end - position))
        self.data, self.start = self.window.data, self.window.start
        self.limit = min(len(self.data), self.end - self.start)
        return position - self.start

    def item(self, at: int, kind: _Kind, row: list[bytes], depth: int) -> int:
        """Fill `row` from the item whose header is at `at`; return where it ends."""
        data, met, seen, order = self.data, kind.met, kind.seen, self.order
        length = self._number(at + 4)
        if data[at : at + 4] != self.item_tag:
            raise NotUnderstood(self.start + at, "not an item of a sequence")
        begin = at = at + 8
        undefined = length == UNDEFINED
        stop = self.limit if undefined else at + length
        if stop > self.limit:
            raise Truncated(None, self.start + at, length, self.start + self.limit)
        if kind is self.nothing and not undefined:
            return stop
        while at < stop:
            head = data[at : at + 8]
            if known := met.get(head):
                step, column, inner = known
                if inner is not None:
                    # Most macros of a frame are those of the frame before.
                    if (same := seen.get(head)) and data.startswith(same[0], at):
                        for column, value in same[1]:
                            row[column] = value
                        at += len(same[0])
                    else:
                        at = self._sequence(at, kind, inner, row, depth)
                    continue
                size = 8
                if not step:
                    # Cut short by the end, the length may be anything: the value ends behind it.
                    step, size = 12 + int.from_bytes(data[at + 8 : at + 12], order), 12
                if step < UNDEFINED:
                    if column >= 0 and step <= LONGEST + size:
                        row[column] = data[at + size : at + step]
                    at += step
                    continue
            if undefined and head == self.item_end:
                return at + 8
            at = self._meet(at, stop, kind, row, resumed=at > begin)
        if undefined:
            raise Truncated(None, self.start + at, 8, self.start + self.limit)
        if at > stop:
            raise NotUnderstood(self.start + stop, "an element runs past the end of its item")
        return at

    def _sequence(self, at: int, kind: _Kind, inner: _Kind, row: list[bytes], depth: int) -> int:
        """Go through the sequence whose header is at `at`; return where it ends."""
        begin, nothing = at, self.nothing
        at += 8 if self.encoding.implicit else 12
        length = self._number(at - 4)
        undefined, stop = length == UNDEFINED, at + length
        if inner is nothing and not undefined:
            return stop
        if depth == DEEPEST:
            raise NotUnderstood(self.start + at, f"sequences are {depth} deep")
        new = not any([row[column] for column in inner.columns])
        items = inner
        while undefined or at < stop:
            if undefined and self.data[at : at + 8] == self.sequence_end:
                at = stop = at + 8
                break
            at = self.item(at, items, row, depth + 1)
            items = nothing  # only the first item counts
        if at > stop:
            raise NotUnderstood(self.start + stop, "an item runs past the end of its sequence")
        if new and at - begin <= _REPEATED:
            if len(kind.seen) >= _SEEN:
                kind.seen.clear()
            found = [(column, row[column]) for column in inner.columns if row[column]]
            kind.seen[self.data[begin : begin + 8]] = self.data[begin:at], found
        return at

    def _meet(self, at: int, stop: int, kind: _Kind, row: list[bytes], *, resumed: bool) -> int:
        """Take in the element at `at`, remember its header, and return where to go on."""
        head, position, implicit = self.data[at : at + 8], self.start + at, self.encoding.implicit
        if at + 8 > stop:
            raise Truncated(None, position, 8, self.start + stop)
        group, number = self.tag(head)
        tag = group << 16 | number
        if len(kind.met) >= _REMEMBERED:
            kind.met.clear()
        is_sequence = head[4:6] == b"SQ"
        if implicit:
            is_sequence = tag in kind.inner or head[4:] == b"\xff\xff\xff\xff"
        if is_sequence and 0x0004 <= group < 0xFFFE:
            kind.met[head] = 0, -1, kind.inner.get(tag, self.nothing)
            return at
        walked = walk(self.window, position, self.start + stop, self.encoding, resumed=resumed)
        _, vr, offset, length, undefined = next(walked)
        leaf = kind.leaves.get(tag)
        if (
            tag in kind.inner
            or (leaf is not None and (undefined or vr not in (None, "UN", leaf.vr or vr)))
            or (tag in PIXEL_DATA and undefined)
        ):
            raise NotUnderstood(position, f"({group:04X},{number:04X}) with VR {vr}")
        size, begin = offset - position, offset - self.start
        if leaf is not None and length <= LONGEST:
            row[leaf.column] = self.data[begin : begin + length]
        # What looks like explicit VR is for `walk` to judge.
        if not undefined and not (implicit and head[4:6].isalpha()):
            column = -1 if leaf is None else leaf.column
            kind.met[head] = 8 + length if size == 8 else 0, column, None
        return begin + length

    def _number(self, at: int) -> int:
        """Return the length of 4 bytes at `at`."""
        if at + 4 > self.limit:
            raise Truncated(None, self.start + at, 4, self.start + self.limit)
        return int.from_bytes(self.data[at : at + 4], self.order)


def rows_of_dataset(
    items: Iterable[Dataset], encoding: Encoding, leaves: tuple[Leaf, ...]
) -> Iterator[list[bytes]]:
    """Yield what :func:`rows` does, from the items of a sequence that pydicom read."""
    columns = 1 + max(leaf.column for leaf in leaves)
    for item in items:
        row = [b""] * columns
        for leaf in leaves:
            if value := _followed(item, leaf, encoding):
                row[leaf.column] = value
        yield row


def _followed(item: Dataset, leaf: Leaf, encoding: Encoding) -> bytes:
    for tag in leaf.path[:-1]:
        inner = item[tag].value if tag in item else None
        if not inner:
            return b""
        item = inner[0]
    return value_bytes(item, leaf.path[-1], leaf.vr, encoding)


def value_bytes(dataset: Dataset, tag: int, vr: str, encoding: Encoding) -> bytes:
    """Return an element's value as `vr` has it, whatever VR it came with.

    Empty where there is none, or where it cannot be had as `vr`. Without a `vr`, any bytes
    where there is one.
    """
    try:
        value: Any = dataset[tag].value if tag in dataset else None
        parts = value if isinstance(value, MultiValue | list | tuple) else [value]
        parts = [part for part in parts if part is not None]
        if not vr:
            found = b"\1" if parts else b""
        elif vr in NUMBERS:
            sign = "<" if encoding.little_endian else ">"
            found = b"".join(pack(sign + NUMBERS[vr], part) for part in parts)
        elif vr == "AT":
            sign = "<" if encoding.little_endian else ">"
            found = b"".join(pack(sign + "HH", part >> 16, part & 0xFFFF) for part in parts)
        else:
            found = "\\".join(map(str, parts)).encode()
    except Exception:
        # Whatever pydicom or struct have against it, it is one optional element.
        return b""
    return found if len(found) <= LONGEST else b""
