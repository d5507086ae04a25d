"""Values of the items of a sequence: of one item after the other, or of many that are alike.

Items that have the same bytes outside of values have the same elements at the same places. So the
walk learns from one of them where values are, and those of the others are taken as columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from dcmdask.dicom.conversion import LONGEST
from dcmdask.dicom.elements import Element, Encoding, Filter, RawValue, Wanted, Window
from dcmdask.dicom.walk import closed_items, read_items

__all__ = ["Batch", "batches", "batches_of_rows", "items_of", "rows"]

# Bytes of a sequence that are held at a time.
PIECE_BYTES: Final = 1 << 22
# To learn from an item takes as long as to walk over so many.
_WORTH: Final = 16
# Comparing items with so many others takes as long as to walk over them.
_MOST_TEMPLATES: Final = 1 << 8
_EVERYTHING: Final = Filter(every=True)


class Batch(NamedTuple):
    """Items of a sequence whose values have the same lengths.

    Attributes
    ----------
    items : ndarray of int64
        Their numbers, from 0.
    values : dict of int to ndarray of uint8
        (items, bytes) by key; those that no item has are left out.
    """

    items: npt.NDArray[np.int64]
    values: dict[int, npt.NDArray[np.uint8]]


def rows(
    window: Window, sequence: Element, encoding: Encoding, wanted: Filter
) -> Iterator[dict[int, bytes]]:
    """Yield for each item of `sequence` the values that it has of `wanted`.

    Parameters
    ----------
    window : Window
        It may be used for something else between two rows.
    sequence : Element
    encoding : Encoding
    wanted : Filter

    Yields
    ------
    dict of int to bytes
        By key; unconverted, in the byte order of `encoding`.

    Raises
    ------
    NotUnderstood
        For what pydicom may still read, perhaps after some rows.
    """
    for found in read_items(window, sequence, encoding, wanted):
        yield {key: raw.value[:LONGEST] for key, raw in found.values.items() if raw.value}


def items_of(
    tag: int, raw: RawValue, encoding: Encoding, wanted: Filter
) -> Iterator[dict[int, RawValue]]:
    """Yield what is wanted of each item of a sequence whose value was read.

    Raises
    ------
    NotUnderstood
        The value is damaged, perhaps after some items.
    """
    value = raw.value
    window = Window(lambda offset, count: value[offset : offset + count], len(value))
    sequence = Element(tag, raw.vr, 0, len(value), False)
    return (found.values for found in read_items(window, sequence, encoding, wanted))


def batches(
    window: Window, sequence: Element, encoding: Encoding, wanted: Filter, most: int
) -> Iterator[Batch]:
    """Yield the values of the first `most` items that :func:`rows` yields, in any order.

    Items of undefined length, and all behind them, are walked over one by one.

    Raises
    ------
    NotUnderstood
        As :func:`rows` does.
    """
    learned = _Learned(window, sequence, encoding, wanted)
    number, position, end = 0, sequence.offset, sequence.offset + sequence.length
    while number < most and sequence.vr in (None, "SQ"):
        data = window.peek(position, min(PIECE_BYTES, end - position))
        edges = closed_items(data, encoding, most - number)
        if len(edges) == 1:
            break
        yield from learned.batches(data, np.array(edges, np.int64), number, position)
        number += len(edges) - 1
        position += edges[-1]
    rest = sequence._replace(offset=position, length=end - position)
    others = islice(rows(window, rest, encoding, wanted), most - number)
    yield from batches_of_rows(enumerate(others, number))


def batches_of_rows(numbered: Iterable[tuple[int, dict[int, bytes]]]) -> Iterator[Batch]:
    """Yield items together whose values have the same lengths."""
    numbered = iter(numbered)
    while some := list(islice(numbered, 1 << 12)):
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for at, (_, row) in enumerate(some):
            lengths = tuple((key, len(value)) for key, value in sorted(row.items()))
            alike.setdefault(lengths, []).append(at)
        for lengths, places in alike.items():
            values = {}
            for key, length in lengths:
                joined = b"".join(some[at][1][key] for at in places)
                values[key] = np.frombuffer(joined, np.uint8).reshape(-1, length)
            yield Batch(np.array([some[at][0] for at in places], np.int64), values)


class _Template(NamedTuple):
    """Bytes of an item outside of values, a mask of these, and the places of wanted values."""

    fixed: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    places: dict[int, slice]


class _Learned:
    """Templates of the items of one sequence, by the length of an item."""

    def __init__(
        self, window: Window, sequence: Element, encoding: Encoding, wanted: Filter
    ) -> None:
        self.window, self.sequence, self.encoding = window, sequence, encoding
        self.wanted = wanted
        self.templates: dict[int, list[_Template]] = {}
        self.count = 0

    def batches(
        self, data: bytes, edges: npt.NDArray[np.int64], number: int, position: int
    ) -> Iterator[Batch]:
        """Yield the values of the items between `edges` of `data`, which are those at `position`.

        The first of them is item `number` of the sequence.
        """
        starts, sizes = edges[:-1], np.diff(edges)
        single = list[int]()
        for size in np.unique(sizes).tolist():
            at_each = sliding_window_view(np.frombuffer(data, np.uint8), size)
            left = np.flatnonzero(sizes == size)
            templates = self.templates.setdefault(size, [])
            tried = 0
            while left.size:
                if tried == len(templates):
                    item = self._item(position + int(starts[left[0]]), size)
                    template = self._learn(item) if left.size >= _WORTH else None
                    if template is None:
                        break
                    templates.append(template)
                fixed, mask, places = templates[tried]
                tried += 1
                items = at_each[starts[left]]
                alike = ((items & mask) == fixed).all(axis=1)
                if alike.any():
                    taken = items[alike]
                    values = {key: taken[:, place] for key, place in places.items()}
                    yield Batch(number + left[alike], values)
                    left = left[~alike]
            single += left.tolist()
        yield from batches_of_rows(
            (number + at, self._row(self._item(position + int(starts[at]), int(sizes[at]))))
            for at in single
        )

    def _item(self, offset: int, size: int) -> Element:
        """Return one item as a sequence by itself."""
        return Element(self.sequence.tag, self.sequence.vr, offset, size, False)

    def _row(self, item: Element) -> dict[int, bytes]:
        return next(rows(self.window, item, self.encoding, self.wanted))

    def _learn(self, item: Element) -> _Template | None:
        """Return a template of items like this one; None if it is not understood well enough."""
        if self.count == _MOST_TEMPLATES:
            return None
        row, places = self._row(item), dict[int, slice]()
        whole = np.frombuffer(self.window.bytes_at(item.offset, item.length), np.uint8)
        mask = np.full(item.length, 0xFF, np.uint8)
        # Of several elements for one key the last counts.
        for element, key in sorted(self._values(item, self.wanted.wanted)):
            start = element.offset - item.offset
            mask[start : start + element.length] = 0
            if key is not None:
                places[key] = slice(start, start + min(element.length, LONGEST))
        there = {key: whole[place].tobytes() for key, place in places.items()}
        if {key: value for key, value in there.items() if value} != row:
            return None
        self.count += 1
        return _Template(whole & mask, mask, {key: places[key] for key in row})

    def _values(
        self, sequence: Element, wanted: Sequence[Wanted]
    ) -> Iterator[tuple[Element, int | None]]:
        """Yield the elements of the first item whose values the walk takes or jumps over.

        With each comes the key that it has in `wanted`, of which paths begin in the item.
        """
        for found in islice(read_items(self.window, sequence, self.encoding, _EVERYTHING), 1):
            for tag, element in found.places.items():
                here = [one for one in wanted if one.path[0] == tag]
                below = [one._replace(path=one.path[1:]) for one in here if one.path[1:]]
                if below:
                    yield from self._values(element, below)
                elif not element.undefined:
                    yield element, here[0].key if here else None
