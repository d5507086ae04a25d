"""Whether the files of a series are those of an earlier run."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from dcmdask.archive.series import Series
from dcmdask.batch.identity import digest
from dcmdask.dicom.description import Described
from dcmdask.dicom.files import LocalFile, opened

_BLOCK = 2**20


def source_of(series: Series) -> str:
    """Return a hash of the files of a series: SOP Instance UID and size of each.

    Paths do not count, so that an archive can be moved.
    """
    return _hashed(f"{_instance(one)} {one.source.size}" for one in series.instances)


def times_of(series: Series) -> str:
    """Return a hash of the modification times, for URLs of what the server says of a change."""
    return _hashed(f"{_instance(one)} {_changed(one)}" for one in series.instances)


def checksum_of(series: Series, threads: int) -> str:
    """Return a hash of the contents of local files; empty where a file is not local.

    Raises
    ------
    OSError
        A file cannot be read, or has changed since it was scanned.
    """
    if not all(isinstance(one.source, LocalFile) for one in series.instances):
        # To read them again costs as much as to process them again.
        return ""
    with ThreadPoolExecutor(threads) as pool:
        return _hashed(pool.map(_content, series.instances))


def source_of_files(root: str) -> str:
    """Return what stands for the files that a scan of this folder left out."""
    return digest(os.fsencode(root))


def _instance(one: Described) -> str:
    return one.sop_instance_uid or os.path.basename(one.source.name)


def _changed(one: Described) -> object:
    source = one.source
    return source.modified if isinstance(source, LocalFile) else getattr(source, "key", "")


def _content(one: Described) -> str:
    checksum = 0
    with opened(one.source) as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return f"{_instance(one)} {checksum}"


def _hashed(each: Iterator[str]) -> str:
    return digest("\n".join(sorted(each)).encode())
