"""Sources of bytes, and reading from them; independent of DICOM.

A source is a small immutable value that pickles and holds no handle: every
:func:`read` opens, reads and closes. A handle that is shared by threads or
survives a fork silently returns bytes of another reader's position.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, BinaryIO, TypeAlias, cast

from dcmdask.errors import SourceChangedError
from dcmdask.sources import dicomweb, dicomweb_requests
from dcmdask.sources.access import content_key, file_system, reaching
from dcmdask.sources.dicomweb import ServedFile, ServedInstance
from dcmdask.sources.held import held
from dcmdask.sources.inflation import EXPANSION, InflatedFile, read_whole
from dcmdask.sources.ranges import RangeFile, fetch_ranges, first_bytes, information, is_http

# Bytes that a source may take in memory if it can only be read as a whole.
INFLATE_LIMIT = 2**30


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of this machine's file systems."""

    path: str
    size: int
    modified: int
    """Modification time in nanoseconds since the epoch."""

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.path

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("file", self.path, self.size, self.modified)


@dataclass(frozen=True)
class RemoteFile:
    """File on a file system of fsspec.

    The file system is made anew in each process: asynchronous ones do not
    survive a fork. Its key (an entity tag, a checksum or a modification time, where the
    server gives one) is part of the token; reads do not ask for it again, which would be
    one more request for each.

    Attributes
    ----------
    etag : str
        Strong entity tag of a web server's, on which each read is conditional (RFC 9110 13.1.1).
    start : bytes
        First bytes of the file, where they have been read: for opening it, not to be kept.
    """

    name: str
    options: Mapping[str, Any] = field(compare=False, repr=False)
    size: int
    key: str
    etag: str = ""
    start: bytes = field(default=b"", compare=False, repr=False)

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("url", self.name, self.size, self.key)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "start"}


@dataclass(frozen=True)
class Memory:
    """Bytes in memory."""

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)

    @cached_property
    def digest(self) -> str:
        """Hash of the content."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("bytes", self.digest)


@dataclass(frozen=True)
class Member:
    """Member of an open archive; for one reader, and not to be kept."""

    name: str
    size: int
    file: BinaryIO = field(compare=False, repr=False)

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("member", self.name, self.size)


def to_keep(source: Any) -> Any:
    """Return a source without the bytes that were only for opening it."""
    is_started = isinstance(source, RemoteFile | ServedInstance)
    return replace(source, start=b"") if is_started else source


Stored: TypeAlias = LocalFile | RemoteFile | Memory | Member | ServedInstance | ServedFile


@dataclass(frozen=True)
class Inflated:
    """The data set that is deflated (PS3.5 A.5) from `start` to the end of a source.

    Offsets count from its first byte. To :func:`read` from it, each process inflates the
    whole data set once; :func:`opened`, it is inflated as far as it is read.
    """

    deflated: Stored
    start: int
    limit: int = field(default=INFLATE_LIMIT, compare=False)
    """Bytes that the data set may have."""
    length: int | None = field(default=None, compare=False)
    """Bytes of the data set; None if they have not been counted."""

    @property
    def size(self) -> int:
        """Number of bytes; an upper bound as long as they have not been counted."""
        if self.length is None:
            return EXPANSION * (self.deflated.size - self.start)
        return self.length

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.deflated.name

    @property
    def token(self) -> tuple[object, ...]:
        """Identity of the content."""
        return ("inflated", self.start, *self.deflated.token)


Source: TypeAlias = Stored | Inflated


def locate(
    src: Any, storage_options: Mapping[str, Any] | None = None, limit: int = INFLATE_LIMIT
) -> Stored:
    """Return the source of the bytes of `src`.

    Parameters
    ----------
    src : str, path-like, file-like, bytes-like, or a source that is no Member
        A local path, an fsspec URL, the URL of an instance on a DICOMweb server, a binary
        file-like (reopened by its name where it is a plain file, otherwise read once into
        memory; its position is restored), the bytes themselves, or what this function returned
        before: reading then notices that a local file has changed in between.
    storage_options : mapping, optional
        Keyword arguments for the fsspec file system of a URL.
    limit : int, optional
        Bytes that may be read into memory of a file-like, or of a URL that is not given in
        parts.

    Raises
    ------
    PixelDataError
        There are more.
    ValueError
        There are `storage_options`, and `src` is no URL.
    """
    if isinstance(src, LocalFile | RemoteFile | Memory | ServedInstance | ServedFile):
        return src
    if dicomweb.is_dicomweb(src):
        return dicomweb.locate(src, storage_options or {})
    if isinstance(src, str) and "://" in src:
        return _locate_url(src, storage_options or {}, limit)
    if storage_options:
        given = f"{os.fspath(src)!r} is" if isinstance(src, str | os.PathLike) else "bytes are"
        raise ValueError(f"storage_options are for URLs, and {given} none")
    if isinstance(src, bytes | bytearray | memoryview):
        return Memory(bytes(src))
    if hasattr(src, "read"):
        return _locate_file_like(src, limit)
    return _locate_path(os.fsdecode(src))


def changed(source: LocalFile | RemoteFile, size: int | None) -> SourceChangedError:
    """Return the error for a file that is not the one that was located."""
    return SourceChangedError(
        f"the file has changed since it was opened ({size} bytes now, {source.size} then); open "
        "it again, or scan again where it is of a catalog",
        source=source.name,
        code="changed",
    )


def _locate_path(path: str) -> LocalFile:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory, and one DICOM file is meant")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file; read it first and pass the bytes")
    return LocalFile(os.path.abspath(path), status.st_size, status.st_mtime_ns)


def is_local(fs: Any) -> bool:
    """Return whether a file system of fsspec's is that of this machine."""
    # By name, so that its module is not imported for this.
    return type(fs).__name__ == "LocalFileSystem"


def _locate_url(url: str, options: Mapping[str, Any], limit: int) -> Stored:
    with reaching(url):
        fs, path = file_system(url, options)
        # A listing that the file system remembers may be of an object that was replaced.
        fs.invalidate_cache(path)
        info = None if is_local(fs) else information(fs, path)
        if info is None:
            return _locate_path(path)
        if info.get("type") == "directory":
            raise IsADirectoryError(f"{url} is a directory, and one DICOM file is meant")
        size = info.get("size")
        if size is None:
            # No block size stands for one stream over HTTP.
            with fs.open(path, "rb", block_size=0 if is_http(fs) else None) as file:
                return Memory(read_whole(file, url, limit), name=url)
        start, is_whole = first_bytes(fs, path, url, size, limit) if size else (b"", False)
    if is_whole:
        return Memory(start, name=url)
    return replace(remote_file(url, options, fs, path, info), start=start)


def remote_file(
    url: str, options: Mapping[str, Any], fs: Any, path: str, info: Mapping[str, Any]
) -> RemoteFile:
    """Return a file that fsspec describes by `info`."""
    tag = str(info.get("ETag", "")) if is_http(fs) else ""
    strong = tag if tag.startswith('"') else ""
    return RemoteFile(url, dict(options), int(info["size"]), content_key(fs, path, info), strong)


def _locate_file_like(src: Any, limit: int) -> Stored:
    if (path := _own_path(src)) is not None:
        return _locate_path(path)
    name = getattr(src, "name", None)
    name = name if isinstance(name, str) else "<file-like>"
    if isinstance(src, io.BytesIO):
        return Memory(src.getvalue(), name)
    position = src.tell()
    src.seek(0)
    try:
        return Memory(read_whole(src, name, limit), name)
    finally:
        src.seek(position)


def _own_path(src: Any) -> str | None:
    """Return the path that gives the same bytes as `src`, if there is one.

    A `name` is not enough: that of a ``gzip.GzipFile`` names the compressed file, and a
    file may have been replaced since it was opened.
    """
    raw = getattr(src, "raw", src)
    if not isinstance(raw, io.FileIO) or not isinstance(raw.name, str):
        return None
    if src.writable():
        src.flush()
    try:
        same = os.path.samestat(os.fstat(raw.fileno()), os.stat(raw.name))
    except OSError:
        return None
    return raw.name if same else None


def read(source: Source, offsets: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """Return the ranges of `source` that start at `offsets` and have `lengths`.

    Of an instance on a DICOMweb server, `offsets` are the numbers of frames, which are returned
    as :func:`dcmdask.sources.dicomweb_requests.fetch_frames` does.

    Raises
    ------
    SourceChangedError
        The source is not, or no longer, the one that was located.
    """
    if isinstance(source, ServedInstance):
        return dicomweb_requests.fetch_frames(source, offsets, lengths)
    if isinstance(source, Memory | Inflated | ServedFile):
        data = source.data if isinstance(source, Memory) else _held(source)
        parts = [bytes(data[o : o + n]) for o, n in zip(offsets, lengths, strict=True)]
    elif isinstance(source, RemoteFile):
        parts = fetch_ranges(source.name, source.options, offsets, lengths, source.etag)
    else:
        with opened(source) as file:
            parts = [_read_at(file, o, n) for o, n in zip(offsets, lengths, strict=True)]
    for part, offset, length in zip(parts, offsets, lengths, strict=True):
        if len(part) != length:
            raise _shorter(len(part), length, offset, source.name)
    return parts


def look_at(source: Stored) -> None:
    """Raise where a source is not there, or not for this process.

    Raises
    ------
    OSError
        As reading from it does.
    """
    if isinstance(source, ServedInstance | ServedFile):
        dicomweb_requests.metadata_of(dicomweb.resource_of(source.name), source.options)
    else:
        read(source, [0], [1])


def _fetch(source: RemoteFile, offset: int, length: int) -> bytes:
    (part,) = fetch_ranges(source.name, source.options, [offset], [length], source.etag)
    if len(part) != length:
        raise _shorter(len(part), length, offset, source.name)
    return part


def _shorter(found: int, wanted: int, offset: int, name: str) -> SourceChangedError:
    return SourceChangedError(
        f"{found} of {wanted} bytes at offset {offset}: the source is shorter than when it was "
        "opened",
        source=name,
        code="shorter",
    )


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """Open `source` for one reader that goes through it in order.

    Of an instance on a DICOMweb server that is its header, which has to be there.

    Raises
    ------
    SourceChangedError
        The local file differs in size or modification time from the one located.
    """
    if isinstance(source, RemoteFile):
        yield cast(
            BinaryIO, RangeFile(partial(_fetch, source), source.size, source.name, source.start)
        )
    elif isinstance(source, LocalFile):
        with open(source.path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (source.size, source.modified):
                raise changed(source, status.st_size)
            yield cast(BinaryIO, file)
    elif isinstance(source, Member):
        yield source.file
    elif isinstance(source, Inflated):
        with opened(source.deflated) as file:
            yield cast(BinaryIO, InflatedFile(file, source.start, source.limit, source.name))
    elif isinstance(source, ServedFile):
        yield io.BytesIO(_held(source))
    else:
        yield io.BytesIO(source.start if isinstance(source, ServedInstance) else source.data)


def read_into(file: BinaryIO, offset: int, room: memoryview, source: Source) -> None:
    """Fill `room` with the bytes at `offset` of a local file that is :func:`opened`.

    Raises
    ------
    SourceChangedError
        The file ends before.
    """
    file.seek(offset)
    filled = 0
    # A call returns at most 2 GiB.
    while filled < len(room):
        count = cast(io.RawIOBase, file).readinto(room[filled:])
        if not count:
            raise _shorter(filled, len(room), offset, source.name)
        filled += count


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    # A call on an unbuffered file returns at most 2 GiB.
    while len(data) < length and (more := file.read(length - len(data))):
        data += more
    return data


def measured(source: Inflated) -> Inflated:
    """Return a deflated data set with its size, which is counted in constant memory.

    Raises
    ------
    PixelDataError
        The deflated stream is damaged, ends early, or is longer than its limit.
    """
    if source.length is not None:
        return source
    with opened(source) as file:
        return replace(source, length=file.seek(0, io.SEEK_END))


def _held(source: Inflated | ServedFile) -> memoryview:
    if isinstance(source, Inflated):
        return held(source.token, partial(_inflated, source), source.limit)
    return dicomweb_requests.file_content(source)


def _inflated(source: Inflated) -> bytearray:
    data = bytearray(measured(source).size)
    with opened(source) as file:
        read_into(file, 0, memoryview(data), source)
    return data
