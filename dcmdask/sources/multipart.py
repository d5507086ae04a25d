"""Multipart messages (RFC 2046 5.1), read block by block: part after part, in linear time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from typing import NamedTuple

# Bytes that the headers of a part, and a boundary (RFC 2046 allows 70), may have.
_MOST_HEADERS = 2**14
_MOST_BOUNDARY = 200
_END = b"\r\n\r\n"


class MultipartError(ValueError):
    """Message that is not made as RFC 2046 says, ends early, or is longer than it may be."""


class Part(NamedTuple):
    """One part of a message.

    Attributes
    ----------
    headers : dict of str to str
        By names in lower case.
    body : bytes
    """

    headers: Mapping[str, str]
    body: bytes


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Return a media type in lower case, and its parameters by names in lower case.

    Examples
    --------
    >>> media_type('Multipart/Related; type="image/jls"; Boundary=a')
    ('multipart/related', {'type': 'image/jls', 'boundary': 'a'})
    """
    message = Message()
    message["Content-Type"] = " ".join(content_type.split())
    kind, *parameters = message.get_params(failobj=[("", "")])
    return kind[0].lower(), {name.lower(): str(value) for name, value in parameters}


def parts(blocks: Iterable[bytes], boundary: str, longest: int) -> Iterator[Part]:
    """Yield the parts of a message.

    Parameters
    ----------
    blocks : iterable of bytes
        The message, in blocks of any length.
    boundary : str
        As its media type gives it.
    longest : int
        Bytes that the body of a part may have.

    Raises
    ------
    MultipartError
        There is no boundary, or none at the end; headers are damaged or too long; a body is
        longer than `longest`, or not as long as its Content-Length says.
    """
    if not boundary or len(boundary) > _MOST_BOUNDARY:
        raise MultipartError(f"the boundary has {len(boundary)} characters")
    mark = b"--" + boundary.encode("latin-1", "replace")
    reader = _Blocks(blocks)
    # Bytes before the first boundary are ignored.
    reader.until(b"\r\n" + mark, _MOST_HEADERS, "the first boundary")
    while True:
        # The line's end stays: a part without headers begins with an empty line.
        tail = reader.until(b"\r\n", _MOST_BOUNDARY, "the end of a boundary", is_last=True)
        if tail.startswith(b"--"):
            return
        if tail.strip(b" \t"):
            raise MultipartError("bytes follow a boundary in its line")
        headers = _headers(reader.until(_END, _MOST_HEADERS, "the end of the headers of a part"))
        body = reader.until(b"\r\n" + mark, longest, "the boundary behind a part")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) != len(body):
            raise MultipartError(f"a part has {len(body)} bytes, and its header says {length}")
        yield Part(headers, body)


def _headers(lines: bytes) -> dict[str, str]:
    found = {}
    for line in lines.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if line and not colon:
            raise MultipartError("a line of the headers of a part has no colon")
        if line:
            found[name.strip().lower()] = value.strip()
    return found


class _Blocks:
    """Bytes that come in blocks; each is looked at once, but for a few at its ends."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        # A boundary may begin the message, and has a line's end in front of it elsewhere.
        self._held = bytearray(b"\r\n")
        self._begin = 0

    def until(self, mark: bytes, longest: int, what: str, *, is_last: bool = False) -> bytes:
        """Return the bytes up to a mark, behind which the next ones are taken.

        Parameters
        ----------
        mark : bytes
        longest : int
        what : str
            What the mark is, for a message.
        is_last : bool, optional
            Whether the end of the message stands for the mark, and the mark is left.

        Raises
        ------
        MultipartError
            The message ends before it, or there are more than `longest` bytes.
        """
        looked = self._begin
        while (found := self._held.find(mark, looked)) < 0:
            if len(self._held) - self._begin > longest + len(mark):
                raise MultipartError(f"{what} does not come within {longest} bytes")
            looked = max(self._begin, len(self._held) - len(mark) + 1)
            block = next(self._blocks, None)
            if block is None and is_last:
                found = len(self._held)
                break
            if block is None:
                raise MultipartError(f"the answer ends before {what}")
            # Once a block: once a part would move the rest of the block for each of many parts.
            looked -= self._begin
            del self._held[: self._begin]
            self._begin = 0
            self._held += block
        if found - self._begin > longest:
            raise MultipartError(f"{what} does not come within {longest} bytes")
        data = bytes(memoryview(self._held)[self._begin : found])
        self._begin = found if is_last else found + len(mark)
        return data
