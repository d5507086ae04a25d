"""Headers as pydicom reads them: whole ones, and those that the walk does not vouch for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dcmdask.dicom.elements import PIXEL_DATA, Encoding, NotUnderstood, RawValue
from dcmdask.errors import DcmdaskError, HeaderError

# Bytes that pydicom reads where only it understands a header; items take it 80 times as much.
_BY_PYDICOM = 1 << 24


def read_to_pixels(
    file: BinaryIO, start: int, encoding: Encoding, tags: list[int] | None
) -> Dataset:
    file.seek(start)
    wanted = cast("list[Any] | None", tags)
    return read_dataset(file, *encoding, stop_when=at_pixels, specific_tags=wanted)


@contextmanager
def for_pydicom(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Give a file to pydicom, and raise a HeaderError for whatever that raises."""
    # Unbuffered, the thousands of small reads of pydicom would each be a system call.
    reader = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
    try:
        yield reader
    except DcmdaskError:
        raise
    except Exception as error:
        raise HeaderError(
            "pydicom cannot read the whole header",
            source=name,
            detail=str(error),
            code="header-damaged",
        ) from error
    finally:
        # A member of a tar file is buffered itself, and stays as it is.
        if isinstance(reader, io.BufferedReader) and reader is not file:
            reader.detach()


def not_group2(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in PIXEL_DATA


def read_with_pydicom(
    file: BinaryIO,
    name: str,
    start: int,
    encoding: Encoding,
    stop_when: Callable[[BaseTag, str | None, int], bool],
    reason: NotUnderstood,
    tags: Iterable[int] = (),
) -> tuple[Dataset, int]:
    """Read what the walk does not vouch for; return it and where reading stopped.

    Values of other elements than `tags`, if there are some, are skipped where they have a length.
    """
    file.seek(start)
    reader = cast("BinaryIO", _Sparing(file))
    wanted: list[Any] = list(tags)
    try:
        found = read_dataset(reader, *encoding, stop_when=stop_when, specific_tags=wanted)
    except Exception as error:
        raise HeaderError(
            f"the header is damaged: {reason}",
            source=name,
            detail=f"pydicom says: {error}",
            code="header-damaged",
        ) from error
    return found, file.tell()


class _Sparing:
    """A file of which only so much is read; to seek costs nothing."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self._left = _BY_PYDICOM

    def read(self, length: int) -> bytes:
        # A file takes memory for all that it is asked for, whether it is there or not.
        if length > self._left:
            raise OverflowError(f"more than {_BY_PYDICOM} bytes of it would be read into memory")
        self._left -= length
        return self._read(length)


def raw_value(found: Dataset, tag: int) -> RawValue:
    item: Any = found.get_item(tag, keep_deferred=True) if tag in found else None
    if not isinstance(item, RawDataElement):
        return RawValue(None, b"")
    return RawValue(item.VR, item.value or b"")


def is_empty(found: Dataset, tag: int) -> bool:
    item: Any = found.get_item(tag, keep_deferred=True)
    return not (item.value or getattr(item, "length", 0))
