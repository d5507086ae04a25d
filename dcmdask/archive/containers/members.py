"""The members of an archive, which is opened once for a scan and read in its order."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO, cast

from dcmdask.archive.containers.media import is_gzipped
from dcmdask.archive.descriptions import Outcome, describe_located
from dcmdask.archive.discovery import Choice, Skipped, matches
from dcmdask.archive.remote import members, url_of
from dcmdask.dicom.description import Described
from dcmdask.errors import HeaderError
from dcmdask.sources import files
from dcmdask.sources.access import file_system, reaching
from dcmdask.sources.inflation import ReadForward

# Bytes of the beginning of a member that can be read twice without going back in the archive.
_KEPT = 2**25
# Bit of the flags of a member of a ZIP file.
_ENCRYPTED = 1


def archive_of(url: str) -> str | None:
    """Return the archive that a URL leads into, if it does: without the path of the member.

    Examples
    --------
    >>> archive_of("zip://**::s3://bucket/a.zip")
    'zip://::s3://bucket/a.zip'
    >>> archive_of("s3://bucket/a.zip")
    """
    import fsspec
    from fsspec.archive import AbstractArchiveFileSystem

    protocol, _, path = url.partition("://")
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError):
        return None
    if not issubclass(kind, AbstractArchiveFileSystem):
        return None
    _, chained, rest = path.partition("::")
    return f"{protocol}://{chained}{rest}"


class Archive:
    """An archive that is open, for one thread.

    Parameters
    ----------
    archive : str
        As :func:`archive_of` returns it.
    storage_options : mapping

    Raises
    ------
    HeaderError
        It cannot be read.
    """

    def __init__(self, archive: str, storage_options: Mapping[str, Any]) -> None:
        self._options = {**_compression(archive), **storage_options}
        try:
            self._fs, _ = file_system(archive, self._options)
            self._open = _opener(self._fs)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise HeaderError(
                "the archive is damaged, or ends early", source=archive, code="archive"
            ) from error
        self._paths: dict[str, str] = {}

    def discover(self, urls: Sequence[str], chosen: Choice) -> Iterator[str | Skipped]:
        """Yield the URLs of members in the order of the archive, each once.

        Parameters
        ----------
        urls : sequence of str
            Members, folders and patterns of this archive.
        chosen : Choice

        Raises
        ------
        FileNotFoundError
            One of them is not there, or matches nothing.
        """
        found: dict[str, str] = {}
        for url in urls:
            path = url.partition("::")[0].partition("://")[2].strip("/")
            with reaching(url):
                for one in members(self._fs, url, path, chosen, _find):
                    if isinstance(one, Skipped):
                        yield one
                    else:
                        found.setdefault(one, url_of(url, path, one))
        for path in _listed(self._fs):
            if path in found:
                self._paths[found[path]] = path
                yield found[path]

    def describe(self, url: str, known: dict[Any, Any], options: Mapping[str, Any]) -> Outcome:
        """Return what a member is, as :func:`describe_files` does of files."""
        path = self._paths[url]
        info = _listed(self._fs)[path]
        if info.get("flag_bits", 0) & _ENCRYPTED:
            return Skipped(url, "an encrypted member of an archive", "doubtful", "encrypted")
        remote = files.remote_file(url, self._options, self._fs, path, info)
        with _Kept(partial(self._open, path), url) as file:
            member = files.Member(url, remote.size, cast(BinaryIO, file))
            outcome = describe_located(url, lambda: member, known, options)
        return replace(outcome, source=remote) if isinstance(outcome, Described) else outcome


def _compression(archive: str) -> dict[str, Any]:
    """Return options for a local TAR file that is gzipped, whatever its name is."""
    protocol, _, path = archive.partition("://::")
    if protocol == "tar" and os.path.isfile(path) and is_gzipped(path):
        return {"tar": {"compression": "gzip"}}
    return {}


def _listed(fs: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return what is in an archive by path, in its order; folders come first."""
    fs.exists("")  # lists them
    listed: Mapping[str, Mapping[str, Any]] = fs.dir_cache
    return listed


def _find(fs: Any, path: str, is_pattern: bool) -> Iterator[str]:
    """Find in one pass: fsspec looks at all members of a tar file for each folder in it."""
    if path and not is_pattern and fs.info(path)["type"] != "directory":
        yield path
        return
    for name, info in _listed(fs).items():
        if info["type"] == "directory":
            continue
        if matches(path, name) if is_pattern else not path or f"{name}/".startswith(f"{path}/"):
            yield name


def _opener(fs: Any) -> Callable[[str], BinaryIO]:
    """Return a function that opens a member by its path, as fast among many as among few."""
    tar = getattr(fs, "tar", None)
    if tar is None:
        return cast("Callable[[str], BinaryIO]", partial(fs.open, mode="rb"))
    by_path = {re.sub("/+", "/", one.name.rstrip("/")): one for one in tar}
    return lambda path: tar.extractfile(by_path[path])


class _Kept(ReadForward):
    """A member of which the beginning is kept once it was read.

    To go back in a tar.gz file is to begin again at its first byte, and some headers are
    looked at twice.
    """

    def __init__(self, open_member: Callable[[], BinaryIO], name: str) -> None:
        self._open, self._name = open_member, name
        self._file: BinaryIO | None = None
        self._kept = bytearray()

    def _length(self) -> int:
        return self._member().seek(0, io.SEEK_END)

    def readinto(self, room: Any, /) -> int:
        at, end = self._at, self._at + len(room)
        if end > files.INFLATE_LIMIT:
            raise HeaderError(
                f"the header is longer than {files.INFLATE_LIMIT} bytes", source=self._name
            )
        if len(self._kept) < end <= _KEPT:
            self._kept += self._read(len(self._kept), end)
        data = bytes(self._kept[at:end])
        if end > _KEPT:
            data += self._read(at + len(data), end)
        room[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, begin: int, end: int) -> bytes:
        file = self._member()
        file.seek(begin)
        return file.read(end - begin)

    def _member(self) -> BinaryIO:
        if self._file is None:
            self._file = self._open()
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
