"""Inflation of compressed sources within a limit."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

from dcmdask.errors import PixelDataError

# Deflate cannot expand more: a pair of 2 bits gives at most 258 bytes.
EXPANSION = 1032
# Bytes that are inflated at a time, and deflated bytes that are read for them.
_PIECE = 2**16
_PACKED = 2**14
# Bytes of a file that are read at a time.
_READ = 2**20


class ReadForward(io.RawIOBase):
    """Binary file whose subclass reads at `_at` and knows the length.

    Seeking only sets the offset; nothing is read except to find the end.
    """

    _at = 0

    def _length(self) -> int:
        """Return the number of bytes; each subclass knows it in its own way."""
        raise NotImplementedError

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            offset += self._length()
        elif whence == io.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset


class InflatedFile(ReadForward):
    """The data set that is deflated (PS3.5 A.5) from `start` to the end of an open file.

    For one reader, in constant memory: seeking forwards inflates and drops the bytes between,
    seeking backwards begins again.

    Parameters
    ----------
    file : binary file
    start : int
    limit : int
        Bytes that the data set may have.
    name : str
        Display name of the source.

    Raises
    ------
    PixelDataError
        On reading: the stream is damaged, ends early, or has more than `limit` bytes.
    """

    def __init__(self, file: BinaryIO, start: int, limit: int, name: str) -> None:
        self._file, self._start, self._limit, self._name = file, start, limit, name
        self._begin()

    def _begin(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._packed = self._start
        # Last inflated bytes, and the offset behind them.
        self._held, self._end = b"", 0

    def _length(self) -> int:
        while self._next():
            pass
        return self._end

    def readinto(self, room: Any, /) -> int:
        """Fill `room`; less only at the end."""
        view = memoryview(room).cast("B")
        filled = 0
        if self._at < self._end - len(self._held):
            self._begin()
        while filled < len(view):
            if self._at >= self._end:
                if not self._next():
                    break
                continue
            into = self._at - self._end + len(self._held)
            part = self._held[into : into + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._at += len(part)
        return filled

    def _next(self) -> bool:
        """Inflate the next piece; False at the end of the data set."""
        inflater = self._inflater
        while not inflater.eof:
            packed = inflater.unconsumed_tail
            if not packed:
                self._file.seek(self._packed)
                packed = self._file.read(_PACKED)
                self._packed += len(packed)
            try:
                data = inflater.decompress(packed, _PIECE)
            except zlib.error as error:
                raise PixelDataError(
                    f"the deflated data set is damaged ({error}), at or before byte "
                    f"{self._packed} of the file",
                    source=self._name,
                    code="deflated-damaged",
                ) from error
            if data:
                self._held, self._end = data, self._end + len(data)
                if self._end > self._limit:
                    raise PixelDataError(
                        f"the deflated data set inflates to more than {self._limit} bytes; a "
                        "larger inflate_limit allows for more",
                        source=self._name,
                        code="inflate-limit",
                    )
                return True
            if not packed:
                raise PixelDataError(
                    f"the deflated data set ends early: {self._packed - self._start} bytes give "
                    f"{self._end} and no end; the file is truncated",
                    source=self._name,
                    code="deflated-short",
                )
        return False


def read_whole(file: Any, name: str, limit: int, start: bytes = b"") -> bytes:
    """Read the rest of a file behind its `start`, of at most `limit` bytes together."""
    data = bytearray(start)
    while len(data) <= limit and (more := file.read(min(_READ, limit + 1 - len(data)))):
        if not isinstance(more, bytes | bytearray | memoryview):
            raise TypeError(f"{file!r} gives {type(more).__name__}; open it in binary mode")
        data += more
    if len(data) > limit:
        raise PixelDataError(
            f"more than {limit} bytes would be read into memory; a larger inflate_limit "
            "allows for more",
            source=name,
            code="inflate-limit",
        )
    return bytes(data)
