"""Files that stand for others: archives, gzipped files and directories of media (DICOMDIR)."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

from pydicom import dcmread
from pydicom.multival import MultiValue

from dcmdask.dicom.header import read_header
from dcmdask.errors import HeaderError, PixelDataError
from dcmdask.sources import files
from dcmdask.sources.inflation import read_whole

Medium: TypeAlias = Literal["zip", "tar", "gzip", "directory"]

_NAMES = re.compile(r"\.(zip|tar|tgz|gz)$|^dicomdir", re.IGNORECASE)
# Bytes at the beginning of a file that tell what it is, and where they are.
_HEAD = 512
_ZIP, _GZIP = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b"
_TAR, _DICOM = slice(257, 262), slice(128, 132)
# Media Storage Directory Storage in the File Meta Information, and the next tag.
_RECORDS = 0x00041220
_DIRECTORY = b"1.2.840.10008.1.3.10\x02\x00\x03\x00"


def medium_of(path: str) -> Medium | None:
    """Return what a local file stands for, by its name and its first bytes; None if for itself.

    A gzipped tar file is a tar file.
    """
    # A list may have 10^5 files, which are not all opened for this.
    if not _NAMES.search(os.path.basename(path)) or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        # Reading it as a file says why.
        return None
    if head[_DICOM] == b"DICM":
        return "directory" if _DIRECTORY in head else None
    if head.startswith(_ZIP):
        return "zip"
    packed = head.startswith(_GZIP)
    if packed:
        head = _unzipped_head(head)
    if head[_TAR] == b"ustar":
        return "tar"
    return "gzip" if packed else None


def _unzipped_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEAD)
    except zlib.error:
        # Reading all of it says so.
        return b""


def is_gzipped(path: str) -> bool:
    """Return whether a local file begins as those of gzip do."""
    with open(path, "rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def unzipped(path: str, limit: int = files.INFLATE_LIMIT) -> files.Memory:
    """Return what is in a gzipped file, read into memory.

    Raises
    ------
    PixelDataError
        There are more than `limit` bytes, or the file is damaged.
    """
    try:
        with gzip.open(path) as file:
            return files.Memory(read_whole(file, path, limit), path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PixelDataError(
            "the gzipped file is damaged, or ends early", source=path, code="gzip"
        ) from error


def listed_in(path: str) -> Iterator[str]:
    """Yield the files that a DICOMDIR lists (PS3.3 F), also those that are not there.

    Raises
    ------
    DcmdaskError
        It cannot be read, ends early, or names a file outside its own folder.
    """
    # pydicom does not say where a file ends early.
    read_header(files.locate(path), (), None, (_RECORDS,))
    try:
        records = dcmread(path).get("DirectoryRecordSequence") or ()
        names = [record.get("ReferencedFileID") for record in records]
    except Exception as error:
        # pydicom raises errors of many classes where a file is damaged.
        raise HeaderError("the DICOMDIR cannot be read", source=path, code="directory") from error
    folder = os.path.dirname(path)
    for name in dict.fromkeys(tuple(_parts(one)) for one in names if one):
        if not all(map(_is_inside, name)):
            raise HeaderError(
                "the DICOMDIR names a file outside its folder", source=path, code="directory"
            )
        yield _found(folder, name)


def _parts(name: str | MultiValue[str]) -> list[str]:
    return [name] if isinstance(name, str) else list(name)


def _is_inside(part: str) -> bool:
    return part not in ("", os.curdir, os.pardir) and not set(part) & {"/", "\\", "\0"}


def _found(folder: str, name: tuple[str, ...]) -> str:
    """Return the path of a file; of media that are copied, names may be in lower case."""
    path = os.path.join(folder, *name)
    small = os.path.join(folder, *(part.lower() for part in name))
    return small if not os.path.lexists(path) and os.path.lexists(small) else path
