"""Ranges of the bytes of remote files: few requests, repeated where what failed passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from dcmdask.errors import SourceChangedError
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.inflation import ReadForward, read_whole

Found = TypeVar("Found")

# Bytes of a first look, which hold most headers whole.
FIRST = 64 * 1024
# Bytes that are read ahead by one who goes on.
MOST_AHEAD = 4 * 2**20
# Neighbouring ranges are fetched together: a request costs about as much as a few hundred
# kilobytes.
COALESCE_GAP = 256 * 1024
COALESCE_LENGTH = 32 * 1024 * 1024
# Seconds before a request is repeated. Clients of object stores repeat theirs; fsspec's of web
# servers does not.
_PAUSES = (0.2, 1.0, 5.0)
# Exceptions of aiohttp about a connection that broke; those of requests, and of urllib3 in them.
_BROKEN = frozenset(
    {
        "ClientOSError",
        "ClientPayloadError",
        "ServerDisconnectedError",
        "ChunkedEncodingError",
        "ProtocolError",
        "ReadTimeout",
        "ConnectTimeout",
    }
)
# Status of an answer that may be another one soon: throttled, or a fault of the server's.
_CHANGED = 412  # a precondition failed (RFC 9110 15.5.13)
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


def is_http(fs: Any) -> bool:
    """Return whether a file system of fsspec's is a web server."""
    return type(fs).__name__ == "HTTPFileSystem"


class RangeFile(ReadForward):
    """Remote file for one reader that mostly goes forwards.

    A request brings :data:`FIRST` bytes, or what is asked for. One that goes on where the last
    one ended, or near behind it, brings twice as many, up to :data:`MOST_AHEAD`. No byte is
    fetched twice on the way forwards.

    Parameters
    ----------
    fetch : callable
        Takes offset and length; returns as many bytes.
    size : int
    name : str
        Display name of the source.
    start : bytes, optional
        First bytes of the file, which are there already.
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes], size: int, name: str, start: bytes = b""
    ) -> None:
        self._fetch, self._size, self.name, self._start = fetch, size, name, start
        self._block, self._begin, self._step = start, 0, FIRST

    def _length(self) -> int:
        return self._size

    def readinto(self, room: Any, /) -> int:
        """Fill `room`; less only at the end."""
        view = memoryview(room).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        if wanted:
            view[:wanted] = self._bytes(self._at, wanted)
            self._at += wanted
        return wanted

    def _bytes(self, at: int, wanted: int) -> bytes:
        if at + wanted <= len(self._start):
            return self._start[at : at + wanted]
        into, end = at - self._begin, self._begin + len(self._block)
        if into < 0 or at + wanted > end:
            goes_on = bool(self._block) and 0 <= into <= len(self._block) + COALESCE_GAP
            self._step = min(2 * self._step, MOST_AHEAD) if goes_on else FIRST
            held = self._block[into:] if into >= 0 else b""
            behind = at + len(held)
            more = min(max(self._step, wanted - len(held)), self._size - behind)
            self._block, self._begin, into = held + self._fetch(behind, more), at, 0
        return self._block[into : into + wanted]


def information(fs: Any, path: str) -> Mapping[str, Any]:
    """Return what a file system knows of a file; a web server that fails for now is asked again."""
    ask: Callable[[], Mapping[str, Any]] = partial(fs.info, path)
    return patiently(ask) if is_http(fs) else ask()


def first_bytes(fs: Any, path: str, url: str, size: int, limit: int) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether these are all, as ranges are not given.

    A web server may answer a request for a range with everything, which is then read.

    Raises
    ------
    PixelDataError
        These are more than `limit`.
    """
    if not is_http(fs):
        return bytes(fs.cat_file(path, start=0, end=min(FIRST, size))), False
    # One byte less than there are shows of the shortest file whether ranges are given; a range
    # has one at least.
    wanted = min(FIRST, max(1, size - 1))
    return patiently(partial(_first_of_http, fs, path, url, size, wanted, limit))


def _first_of_http(
    fs: Any, path: str, url: str, size: int, wanted: int, limit: int
) -> tuple[bytes, bool]:
    headers = {**_headers(fs), "Range": f"bytes=0-{wanted - 1}"}
    # With a size it is not asked for again; no block size stands for one stream.
    with fs.open(path, "rb", block_size=0, size=size, headers=headers) as file:
        start = b""
        while len(start) <= wanted and (more := file.read(wanted + 1 - len(start))):
            start += more
        if len(start) <= wanted:
            return start, False
        return read_whole(file, url, limit, start), True


def fetch_ranges(
    url: str,
    options: Mapping[str, Any],
    offsets: Sequence[int],
    lengths: Sequence[int],
    etag: str = "",
) -> list[bytes]:
    """Return ranges of the bytes of a remote file, with few requests, several at a time.

    Parameters
    ----------
    url : str
    options : mapping
        Of its file system.
    offsets, lengths : sequence of int
    etag : str, optional
        Entity tag that the file must have, for web servers only.

    Raises
    ------
    SourceChangedError
        The file is another one, or the server gives more than was asked for.
    """
    requests = coalesce(offsets, lengths)
    with reaching(url):
        fs, path = file_system(url, options)
        blocks = _fetch(fs, path, [(start, end) for start, end, _ in requests], url, etag)
    parts = [b""] * len(offsets)
    for (start, end, members), block in zip(requests, blocks, strict=True):
        if len(block) > end - start:
            raise SourceChangedError(
                f"{len(block)} bytes came for {end - start} at offset {start}: the server does "
                "not give ranges",
                source=url,
                code="no-ranges",
            )
        for member in members:
            begin = offsets[member] - start
            parts[member] = bytes(block[begin : begin + lengths[member]])
    return parts


def _fetch(fs: Any, path: str, ranges: list[tuple[int, int]], url: str, etag: str) -> list[bytes]:
    """Return ranges; those of a web server that fail for now are asked for again."""
    condition = {"If-Match": etag} if etag else {}
    more = {"headers": {**_headers(fs), **condition}} if is_http(fs) else {}
    found: dict[tuple[int, int], Any] = {}
    left = list(ranges)
    for pause in (*(_PAUSES if is_http(fs) else ()), None):
        starts, ends = [start for start, _ in left], [end for _, end in left]
        found |= zip(left, fs.cat_ranges([path] * len(left), starts, ends, **more), strict=True)
        left = [one for one in left if isinstance(found[one], Exception)]
        if not left:
            break
        errors = [found[one] for one in left]
        # One that stays says more than others that pass.
        error = next((one for one in errors if not _passes(one)), errors[0])
        if getattr(error, "status", None) == _CHANGED:
            raise SourceChangedError(
                "the object has changed since it was opened (another entity tag); open it again",
                source=url,
                code="changed",
            ) from error
        if pause is None or not _passes(error):
            raise error
        time.sleep(pause)
    return [found[one] for one in ranges]


def _headers(fs: Any) -> dict[str, str]:
    """Return headers of requests for ranges, which count encoded bytes (RFC 9110 14.1.2)."""
    return {**fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}


def patiently(ask: Callable[[], Found]) -> Found:
    """Ask a web server, and again with growing pauses where it fails for now."""
    for pause in _PAUSES:
        try:
            return ask()
        except Exception as error:
            if not _passes(error):
                raise
        time.sleep(pause)
    return ask()


def _passes(error: BaseException) -> bool:
    """Return whether a request that failed may succeed soon."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        # fsspec raises it whatever a web server answers when it is asked for a size.
        error = error.__cause__
    answer = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(answer, "status_code", None)
    if status is not None:
        return status in _PASSING
    names = {type(one).__name__ for one in (error, *error.args[:1])}
    return isinstance(error, ConnectionError | TimeoutError) or not names.isdisjoint(_BROKEN)


def coalesce(offsets: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """Join neighbouring ranges into requests.

    Returns
    -------
    list of (start, end, members)
        `members` are positions in `offsets`; each is in exactly one request,
        which covers its range whole.

    Examples
    --------
    >>> coalesce([0, 10, 9_000_000], [10, 10, 5])
    [(0, 20, [0, 1]), (9000000, 9000005, [2])]
    """
    requests: list[tuple[int, int, list[int]]] = []
    for member in sorted(range(len(offsets)), key=lambda i: offsets[i]):
        start, end = offsets[member], offsets[member] + lengths[member]
        if requests:
            first, last, members = requests[-1]
            if start - last <= COALESCE_GAP and end - first <= COALESCE_LENGTH:
                members.append(member)
                requests[-1] = (first, max(last, end), members)
                continue
        requests.append((start, end, [member]))
    return requests
