"""Comparison of a lossless JPEG frame with the samples that were decoded from it.

libjpeg replaces a Huffman code that does not exist, and data that ends early, by zeros and
only warns, which imagecodecs does not pass on; GDCM and pylibjpeg raise. Lossless coding
makes good for it: the samples give every difference, so the number of bits that coded them
(ITU-T T.81 H.1.2), and that number has to be the scan's. A code that is replaced at the
very end may fit all the same, so the last samples are coded again and compared.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import islice
from struct import unpack_from
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dcmdask.pixels.codestream import Buffer, Codestream, Damaged, Unsuited

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["coding", "verify"]

# Number of last samples of each component that are compared bit by bit.
_LAST = 16
# More bits than a code of 16 and a magnitude of 15 can have.
_NO_CODE = 255


class Coding(NamedTuple):
    """Coding of the samples, as the header of a frame has it."""

    codes: tuple[dict[int, str], ...]
    """For each component the code of each category."""
    bits: tuple[NDArray[np.uint8], ...]
    """For each component the number of bits of each difference; `_NO_CODE` if it has no code."""
    predictor: int
    every: int
    """Rows from one restart to the next."""


def verify(data: Buffer, codestream: Codestream, samples: NDArray[Any]) -> None:
    """Raise unless a lossless JPEG scan is as long as its samples need.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
        The frame.
    codestream : Codestream
        Its parameters; `kind` is ``"jpeg-lossless"``.
    samples : numpy.ndarray
        Decoded frame: (rows, columns) or (rows, columns, samples), 8 or 16 bits.

    Raises
    ------
    Damaged
        If the lengths differ.
    """
    how = coding(data, codestream)
    count = codestream.components
    bits = 0
    last: list[list[str]] = []
    for component in range(count):
        plane = samples[..., component] if count > 1 else samples
        differences = _differences(plane, how.predictor, how.every, codestream.precision)
        # `wrap` costs no pass over the indices, and none of them is out of range.
        taken = np.take(how.bits[component], differences, mode="wrap")
        if taken.max() == _NO_CODE:
            raise Damaged("the samples need a Huffman code that the frame does not define")
        # In two steps: along the columns of 8-bit numbers the processor adds many at once.
        bits += int(taken.sum(axis=0, dtype=np.uint32).sum(dtype=np.uint64))
        ending = differences[-1, -_LAST:].tolist()
        last.append([_code(how.codes[component], value) for value in ending])

    intervals = -(-codestream.rows // how.every)
    # Fill bytes may stand in front of a marker (T.81 B.1.1.2); data ending in FF is stuffed.
    scan = bytes(data[codestream.scan : codestream.end]).rstrip(b"\xff")
    coded = np.frombuffer(scan, np.uint8)
    stuffed = np.count_nonzero((coded[:-1] == 0xFF) & (coded[1:] == 0))
    length = len(scan) - stuffed - 2 * (intervals - 1)
    needed = -(-bits // 8)
    # Each interval but the last may end with up to seven bits of padding of its own.
    if not needed <= length <= needed + intervals - 1:
        raise Damaged(
            f"the lossless JPEG scan has {length} bytes, its samples need {needed}: "
            "the frame is damaged"
        )
    expected = "".join("".join(codes) for codes in zip(*last, strict=True))
    # Stuffing doubles it at worst, and one byte more may have begun before.
    tail = scan[-2 * (len(expected) // 8 + 3) :].replace(b"\xff\x00", b"\xff")
    end = "".join(f"{byte:08b}" for byte in tail)
    paddings = range(8) if intervals > 1 else (8 * length - bits,)
    if not any(end[: len(end) - padding].endswith(expected) for padding in paddings):
        raise Damaged(
            "the lossless JPEG scan does not end with its last samples: the frame is damaged"
        )


def coding(data: Buffer, codestream: Codestream) -> Coding:
    """Read from the header of a frame what counting needs.

    Raises
    ------
    Unsuited
        The scan is of a form that is not counted here: several scans, a point transform,
        sub-sampling, restarts inside a row.
    """
    # Most frames of a file share the header, and differ in where they end.
    return _coding(bytes(data[: codestream.scan]), codestream._replace(end=0))


@lru_cache(maxsize=16)
def _coding(header: bytes, codestream: Codestream) -> Coding:
    tables, restart = _tables(header)
    count = codestream.components
    # FF DA, length, count, two bytes a component, predictor, 0, point transform
    scan_header = header[-(8 + 2 * count) :]
    predictor, point = scan_header[-3], scan_header[-1]
    if (
        scan_header[:2] != b"\xff\xda"
        or point
        or not 1 <= predictor <= 7
        or any(factors != codestream.sampling[0] for factors in codestream.sampling)
        or restart % codestream.columns
    ):
        raise Unsuited(
            "the lossless JPEG frame has several scans, a point transform, sub-sampled "
            "components or restarts inside a row"
        )
    codes = []
    bits = []
    for component in range(count):
        table = tables.get(scan_header[6 + 2 * component] >> 4)
        if table is None:
            raise Unsuited("a lossless JPEG scan names a Huffman table that is not there")
        # Category 16 is coded without the magnitude's bits (T.81 H.1.2.2).
        needs = [
            len(table[category]) + category % 16 if category in table else _NO_CODE
            for category in range(17)
        ]
        codes.append(table)
        bits.append(np.array(needs, np.uint8)[_categories()])
    every = restart // codestream.columns or codestream.rows
    return Coding(tuple(codes), tuple(bits), predictor, every)


def _code(table: dict[int, str], difference: int) -> str:
    """Return the bits of one difference modulo 2**16 (T.81 H.1.2.2)."""
    category = int(_categories()[difference])
    if category in (0, 16):
        return table[category]
    # Negative values are coded as their one's complement, which 2**16 - 1 more gives.
    extra = difference if difference < 1 << 15 else difference - 1
    return table[category] + f"{extra & ((1 << category) - 1):0{category}b}"


def _tables(header: bytes) -> tuple[dict[int, dict[int, str]], int]:
    """Return the code of each category for each Huffman table, and the restart interval."""
    tables: dict[int, dict[int, str]] = {}
    restart = 0
    position = 2
    while position < len(header):
        marker = header[position + 1]
        if marker in (0xFF, 0x01):
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = unpack_from(">H", header, position + 2)
        stop = position + 2 + length
        at = position + 4
        if marker == 0xDD:
            (restart,) = unpack_from(">H", header, at)
        while marker == 0xC4 and at + 17 <= stop:
            counts = header[at + 1 : at + 17]
            values = iter(header[at + 17 : at + 17 + sum(counts)])
            code, codes = 0, {}
            for bits, number in enumerate(counts, start=1):  # T.81 C.2
                for category in islice(values, number):
                    codes[category] = f"{code:0{bits}b}"
                    code += 1
                code <<= 1
            tables[header[at]] = codes
            at += 17 + sum(counts)
        position = stop
    return tables, restart


def _differences(
    plane: NDArray[Any], predictor: int, every: int, precision: int
) -> NDArray[np.uint16]:
    """Return samples minus predictions, modulo 2**16 (T.81 H.1.2.1).

    `every` rows the prediction starts anew, as in the first row: from the left, and from
    the middle of the range in the first column.
    """
    x = plane.view(f"u{plane.itemsize}").astype(np.uint16, copy=False)
    result = np.empty(x.shape, np.uint16)
    inner = result[1:, 1:]
    neighbours = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    if predictor <= 3:
        np.subtract(x[1:, 1:], neighbours[predictor - 1], out=inner)
    else:
        # Halving needs the sign and the carry that 16 bits do not hold.
        left, above, corner = (part.astype(np.int32) for part in neighbours)
        if predictor == 4:
            guess = left + above - corner
        elif predictor == 5:
            guess = left + ((above - corner) >> 1)
        elif predictor == 6:
            guess = above + ((left - corner) >> 1)
        else:
            guess = (left + above) >> 1
        np.subtract(x[1:, 1:], guess.astype(np.uint16), out=inner)
    np.subtract(x[1:, 0], x[:-1, 0], out=result[1:, 0])
    np.subtract(x[::every, 1:], x[::every, :-1], out=result[::every, 1:])
    np.subtract(x[::every, 0], np.uint16(1 << (precision - 1)), out=result[::every, 0])
    return result


@cache
def _categories() -> NDArray[np.uint8]:
    """Return the category of each difference: the bits of its magnitude (T.81 Table H.2)."""
    magnitudes = np.abs(np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int32))
    return np.frexp(magnitudes)[1].astype(np.uint8)
