"""Data elements as they stand in a source, filters of them, and a window on the bytes.

Offsets count from the first byte of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

UNDEFINED: Final = 0xFFFFFFFF  # a length that a delimitation item ends (PS3.5 section 7.1)
PIXEL_KEYWORDS: Final = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
PIXEL_DATA: Final = frozenset(PIXEL_KEYWORDS)
# These bound the memory that hostile input can take: headers and sequences that are
# remembered of one level of a filter, and the length of such a sequence.
_HEADERS, _SEQUENCES, REPEATED = 1 << 13, 1 << 8, 1 << 12
# PS3.5 section 7.1.2: VRs with a 2-byte and with a 4-byte length.
_SHORT_NAMES = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
SHORT_VRS: Final = {vr.encode(): vr for vr in _SHORT_NAMES.split()}
_LONG_NAMES = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
LONG_VRS: Final = {vr.encode(): vr for vr in _LONG_NAMES.split()}
_ReadAt = Callable[[int, int], bytes]


def _order(sign: str) -> tuple[Struct, Struct, Struct, bytes, bytes, bytes]:
    """Implicit (or item) and explicit header, length; item, item end, sequence end."""
    plain = Struct(sign + "HHL")
    ends = plain.pack(0xFFFE, 0xE00D, 0), plain.pack(0xFFFE, 0xE0DD, 0)
    item = plain.pack(0xFFFE, 0xE000, UNDEFINED)
    return plain, Struct(sign + "HH2sH"), Struct(sign + "L"), item, *ends


ORDERS: Final = {True: _order("<"), False: _order(">")}


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


class Wanted(NamedTuple):
    """Tag path of a filter.

    Attributes
    ----------
    path : tuple of int
        Tags of the sequences that lead to the element, and its own. Of each of these
        sequences the first item counts.
    key : int
        Key of what is found. Several paths may share one, and the last that is there counts.
    vr : str
        VR that the element must have where it is explicit and not UN; empty for any. Of an
        ``"SQ"``, which the path has at the top level only, the place is found, of all others
        the value.
    """

    path: tuple[int, ...]
    key: int
    vr: str = ""


class KnownHeader(NamedTuple):
    """An element as its header tells it.

    Attributes
    ----------
    step : int
        Length of header and value; 0 where a length of 4 bytes ends the header.
    vr : str or None
    key : int or None
        None if the element is not wanted.
    place : int or None
        Its tag, if its place is wanted and not its value.
    below : Level or None
        Level of the items of a sequence to look into.
    """

    step: int
    vr: str | None
    key: int | None
    place: int | None
    below: Level | None


class Level:
    """Elements wanted of a data set or of the items of a sequence, and the headers met there.

    Headers repeat from item to item and from file to file, and looking one up takes a quarter
    of the time of parsing it. By a header's first 8 bytes, `jumps` has the length of header and
    value of elements to jump over, and `met` has the others. `seen` has all bytes of a sequence
    and the values found in it: most functional groups of a frame are those of the frame before.
    `unwanted` has by VR the levels of elements of undefined length that nothing is wanted of.
    """

    def __init__(self, wanted: Iterable[Wanted], encoding: Encoding, every: bool = False) -> None:
        self.encoding, self.every = encoding, every
        self.unwanted = _UNWANTED[encoding]
        self.jumps: dict[bytes, int] = {}
        self.met: dict[bytes, KnownHeader] = {}
        self.seen: dict[bytes, tuple[bytes, dict[int, RawValue]]] = {}
        self.leaves: dict[int, Wanted] = {}
        deeper: dict[int, list[Wanted]] = {}
        for one in wanted:
            tag, *rest = one.path
            if rest:
                deeper.setdefault(tag, []).append(one._replace(path=tuple(rest)))
            else:
                self.leaves[tag] = one
        self.inner = {tag: Level(found, encoding) for tag, found in deeper.items()}

    def remember(self, head: bytes, known: KnownHeader) -> None:
        """Remember a header."""
        if len(self.met) + len(self.jumps) >= _HEADERS:
            self.met.clear()
            self.jumps.clear()
        if known.key is None and known.step:
            self.jumps[head] = known.step
        else:
            self.met[head] = known

    def remember_values(self, head: bytes, data: bytes, found: dict[int, RawValue]) -> None:
        """Remember the values found in the bytes of a sequence, which begin with its header."""
        if len(self.seen) >= _SEQUENCES:
            self.seen.clear()
        self.seen[head] = data, found


_ENCODINGS: Final = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
_UNWANTED: Final[dict[Encoding, dict[str | None, Level]]] = {one: {} for one in _ENCODINGS}
NOTHING: Final = {encoding: Level((), encoding) for encoding in _ENCODINGS}
FRAGMENTS: Final = Level((), EXPLICIT_LITTLE)
_UNWANTED[IMPLICIT_LITTLE][None] = NOTHING[IMPLICIT_LITTLE]
for _one in (EXPLICIT_LITTLE, EXPLICIT_BIG):
    _UNWANTED[_one].update({"SQ": NOTHING[_one], "OB": FRAGMENTS, "OW": FRAGMENTS})
_UNWANTED[EXPLICIT_LITTLE]["UN"] = NOTHING[IMPLICIT_LITTLE]  # PS3.5 section 6.2.2, note 2


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
        self.levels = {one: Level(self.wanted, one, every) for one in _ENCODINGS}


class Found(NamedTuple):
    """Elements of a data set or sequence item that a filter asks for, by its keys.

    The place of pixel data, with which a data set ends, is always there, by its tag. `end` is
    where the walk ended.
    """

    values: dict[int, RawValue]
    places: dict[int, Element]
    end: int


class NotUnderstood(ValueError):
    """Bytes at `offset` that the walk does not understand; `pydicom.dcmread` may."""

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
    and read no byte twice; a jump starts again at `step`.
    """

    def __init__(self, read_at: _ReadAt, size: int, *, step: int = 1 << 14) -> None:
        self.data, self.start, self.size = b"", 0, size
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

    def peek(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, from the window if they are there."""
        self.fill(offset, length)
        into = offset - self.start
        return self.data[into : into + length]

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`, from the window if they are there."""
        found = self.peek(offset, length)
        if len(found) < length:
            raise Truncated(None, offset, length, self.size)
        return found

    def header_at(self, offset: int, end: int) -> tuple[bytes, int, int]:
        """Return the bytes held, and where `offset` is and ends in them; at least 8 bytes."""
        self.fill(offset, min(12, end - offset))
        at, limit = offset - self.start, min(len(self.data), end - self.start)
        if limit - at < 8:
            raise Truncated(None, offset, 8, end)
        return self.data, at, limit


def window_over(file: BinaryIO, size: int) -> Window:
    """Return a window over the `size` bytes of an open file."""

    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return Window(read_at, size)
