"""The header of a data set: wanted elements, and the place of the pixel data."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, Literal, TypeAlias

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dcmdask.dicom import files
from dcmdask.dicom.elements import (
    EXPLICIT_LITTLE,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    NotUnderstood,
    RawValue,
    Truncated,
    Window,
    walk,
    walk_group2,
)
from dcmdask.dicom.pydicom_reader import (
    at_pixels,
    for_pydicom,
    is_empty,
    not_group2,
    raw_value,
    read_to_pixels,
    read_with_pydicom,
)
from dcmdask.errors import HeaderError, MissingElementError, NotDicomError

TRANSFER_SYNTAX_UID = 0x00020010
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
PREAMBLE = 128
# Bounds what `_pick` remembers of each encoding and choice of elements.
_REMEMBERED = 1 << 13
# Bytes of an element that is wanted: the longest are offset tables, with 8 bytes a frame.
_LONGEST = 1 << 26


@dataclass(frozen=True)
class Header:
    """The wanted elements of a data set, unconverted, and the place of its pixel data.

    Attributes
    ----------
    source : Source
        Source that offsets count from: the file, or the inflated data set of a deflated one.
    transfer_syntax : UID
    encoding : Encoding
    values : dict of int to RawValue
        The elements that were asked for and are there.
    pixel_data : Element or None
        Its length is as the file says, whether or not the bytes are there.
    sequences : dict of int to Element or None
        The sequences that were asked for, are there and not empty; None instead of each
        one's place where only pydicom could read the header.
    """

    source: files.Source
    transfer_syntax: UID
    encoding: Encoding
    values: dict[int, RawValue]
    pixel_data: Element | None
    sequences: dict[int, Element | None] = field(default_factory=dict)

    def dataset(self) -> Dataset:
        """Return the values as a data set; pydicom converts each when it is asked for."""
        return Dataset(
            {
                BaseTag(tag): RawDataElement(
                    BaseTag(tag), raw.vr, len(raw.value), raw.value, 0, *self.encoding
                )
                for tag, raw in self.values.items()
            }
        )


def read_header(
    source: files.Stored,
    wanted: Iterable[int],
    transfer_syntax_uid: str | None = None,
    sequences: Iterable[int] = (),
    inflate_limit: int = files.INFLATE_LIMIT,
) -> Header:
    """Walk the elements of `source` once, up to the pixel data.

    A deflated data set is inflated as far as that, in constant memory but for the wanted
    elements.

    Parameters
    ----------
    source : Source
    wanted : iterable of int
        Tags of top-level elements to keep.
    transfer_syntax_uid : str, optional
        Used instead of the one in the File Meta Information (PS3.10 7.1); needed
        where there is none.
    sequences : iterable of int
        Tags of top-level sequences to find, without looking into them.
    inflate_limit : int, optional
        Bytes that a deflated data set may have up to the pixel data.

    Raises
    ------
    NotDicomError
        There is neither a DICM prefix nor a File Meta Information nor a syntax given.
    MissingElementError
        There is a File Meta Information without Transfer Syntax UID.
    HeaderError
        The header ends early, or neither the walk nor pydicom can read it.
    PixelDataError
        A deflated data set is damaged, or too long.
    """
    keep, find = frozenset(wanted), frozenset(sequences)
    with files.opened(source) as file:
        window = window_over(file, source.size)
        syntax, start = _file_meta(file, window, source.name, transfer_syntax_uid)
        if syntax != DeflatedExplicitVRLittleEndian:
            return _read_elements(file, window, source, start, syntax, keep, find)
    inflated = files.Inflated(source, start, inflate_limit)
    try:
        return _read_inflated(inflated, syntax, keep, find)
    except _EndsBeforeError:
        # It is short, or has no pixel data, so that its end has to be known.
        return _read_inflated(files.measured(inflated), syntax, keep, find)


class _EndsBeforeError(Exception):
    """A deflated data set of a size that is not known has ended."""


def _read_inflated(
    source: files.Inflated, syntax: UID, keep: frozenset[int], find: frozenset[int]
) -> Header:
    with files.opened(source) as file:

        def read_at(offset: int, length: int) -> bytes:
            file.seek(offset)
            data = file.read(length)
            if len(data) < length:
                raise _EndsBeforeError
            return data

        window = Window(read_at, source.size)
        return _read_elements(file, window, source, 0, syntax, keep, find)


def read_whole_header(
    source: files.Source, syntax: UID, tags: Iterable[int] | None = None
) -> Dataset:
    """Return the data set of `source` without its pixel data, as pydicom reads it.

    Parameters
    ----------
    source : Source
    syntax : UID
        That the data set was found to be in, whatever the file meta information says.
    tags : iterable of int, optional
        The elements to read; others do not come into memory.

    Raises
    ------
    HeaderError
        pydicom cannot read it; elements that were not looked at before may be damaged.
    """
    wanted = None if tags is None else list(tags)
    if isinstance(source, files.Inflated):
        return _read_deflated(source, wanted)
    with files.opened(source) as file:
        _, start = _file_meta(file, window_over(file, source.size), source.name, syntax)
        if syntax == DeflatedExplicitVRLittleEndian:
            return _read_deflated(files.Inflated(source, start), wanted)
        with for_pydicom(file, source.name) as reader:
            reader.seek(0)
            dataset: Dataset = dcmread(
                reader, stop_before_pixels=True, force=True, specific_tags=wanted
            )
            if dataset.file_meta.get("TransferSyntaxUID") != syntax:
                # The caller gave another one than the file says.
                meta = dataset.file_meta
                dataset = read_to_pixels(reader, start, _encoding(syntax), wanted)
                dataset.file_meta = meta
        return dataset


def _read_deflated(source: files.Inflated, tags: list[int] | None) -> Dataset:
    """Read a deflated data set; pydicom would inflate its pixel data, too."""
    with files.opened(source.deflated) as file:
        head = file.read(source.start)
    meta = head[PREAMBLE + 4 :] if head[PREAMBLE : PREAMBLE + 4] == b"DICM" else head
    with files.opened(source) as file, for_pydicom(file, source.name) as reader:
        dataset = read_to_pixels(reader, 0, EXPLICIT_LITTLE, tags)
        dataset.file_meta = FileMetaDataset(read_dataset(io.BytesIO(meta), *EXPLICIT_LITTLE))
    return dataset


def window_over(file: BinaryIO, size: int) -> Window:
    """Return a window over the `size` bytes of an open file."""

    def read_at(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return Window(read_at, size)


def _file_meta(file: BinaryIO, window: Window, name: str, given: str | None) -> tuple[UID, int]:
    """Return the transfer syntax and where the data set starts."""
    window.fill(0, PREAMBLE + 4)
    prefixed = window.data[PREAMBLE : PREAMBLE + 4] == b"DICM"
    start = PREAMBLE + 4 if prefixed else 0
    raw = b""
    try:
        elements, after = walk_group2(window, start, window.size)
        for element in elements:
            if element.tag == TRANSFER_SYNTAX_UID:
                raw = window.bytes_at(element.offset, element.length)
    except NotUnderstood as error:
        # Without a prefix this may be no file meta information at all.
        after = start
        if prefixed:
            found, after = read_with_pydicom(file, name, start, EXPLICIT_LITTLE, not_group2, error)
            raw = raw_value(found, TRANSFER_SYNTAX_UID).value
    if given:
        return UID(given), after
    if syntax := raw.rstrip(b"\0 ").decode("ascii", "replace"):
        return UID(syntax), after
    if prefixed or after > start:
        raise MissingElementError(
            "the file meta information has no (0002,0010) 'Transfer Syntax UID'; pass "
            "transfer_syntax_uid",
            source=name,
        )
    raise NotDicomError(
        f"not a DICOM file: in {window.size} bytes there is no DICM prefix at byte {PREAMBLE} and "
        "no file meta information; if it is a data set without them, pass transfer_syntax_uid",
        source=name,
    )


def _read_elements(
    file: BinaryIO,
    window: Window,
    source: files.Source,
    start: int,
    syntax: UID,
    keep: frozenset[int],
    find: frozenset[int],
) -> Header:
    encoding = _encoding(syntax)
    try:
        return Header(source, syntax, encoding, *_pick(window, start, encoding, keep, find))
    except Truncated as error:
        raise HeaderError(
            f"the header ends early: {error}; the file is probably truncated", source=source.name
        ) from error
    except OverflowError as error:
        raise HeaderError(str(error), source=source.name) from error
    except NotUnderstood as error:
        found, stop = read_with_pydicom(
            file, source.name, start, encoding, at_pixels, error, keep | find
        )
        encoding = Encoding(*found.original_encoding)
        tags = list(map(int, found.keys()))
        values = {tag: raw_value(found, tag) for tag in tags if tag in keep}
        sequences = {tag: None for tag in tags if tag in find and not is_empty(found, tag)}
        pixel_data = _pixel_element(file, source, stop, encoding)
    return Header(source, syntax, encoding, values, pixel_data, {**sequences})


_Picked: TypeAlias = tuple[dict[int, RawValue], Element | None, dict[int, Element | None]]
# By the first 8 bytes of a header: the length of header and value, or 0 where a length of 4
# bytes follows; the tag, or 0 where it is not wanted; the VR.
_Met: TypeAlias = dict[bytes, tuple[int, int, str | None]]


@lru_cache(maxsize=16)
def _met(encoding: Encoding, keep: frozenset[int], find: frozenset[int]) -> _Met:
    return {}


def _pick(
    window: Window, begin: int, encoding: Encoding, keep: frozenset[int], find: frozenset[int]
) -> _Picked:
    """Return the wanted values, the pixel data and the sequences to find.

    Headers repeat from file to file: one that was met before is looked up, which takes a
    quarter of the time of walking on to the next.
    """
    values: dict[int, RawValue] = {}
    sequences: dict[int, Element | None] = {}
    met, end, new = _met(encoding, keep, find), window.size, tuple.__new__
    order: Literal["little", "big"] = "little" if encoding.little_endian else "big"
    data, start, at, limit, step = b"", begin, 0, 0, 0
    while True:
        if at + 12 > limit:
            position = start + at
            if position > end:
                next(walk(window, position - step, end, encoding, resumed=True))  # raises
            if position == end:
                return values, None, sequences
            data, at, limit = window.header_at(position, end)
            start = position - at
        head = data[at : at + 8]
        if known := met.get(head):
            step, tag, vr = known
            size = 8
            if not step:
                # Cut short by the end, the length may be anything: the value ends behind it.
                step, size = 12 + int.from_bytes(data[at + 8 : at + 12], order), 12
            if not tag:
                if step < UNDEFINED:
                    at += step
                    continue
            elif at + step <= limit:
                values[tag] = new(RawValue, (vr, data[at + size : at + step]))
                at += step
                continue
        position = start + at
        element = next(walk(window, position, end, encoding, resumed=position > begin))
        tag, vr, offset, length, undefined = element
        if tag in PIXEL_DATA:
            return values, element, sequences
        if tag in find:
            if length > 8:  # of more than an empty item, or a delimitation item
                sequences[tag] = element
        else:
            if tag in keep:
                if length > _LONGEST:
                    raise OverflowError(
                        f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has {length} bytes, more than any "
                        "valid one"
                    )
                values[tag] = RawValue(vr, window.bytes_at(offset, length))
            # What looks like explicit VR is for `walk` to judge.
            if not undefined and not (encoding.implicit and head[4:6].isalpha()):
                if len(met) >= _REMEMBERED:
                    met.clear()
                size = offset - position
                met[head] = (8 + length if size == 8 else 0, tag if tag in keep else 0, vr)
        data, start, at, limit = b"", offset + length, 0, 0


def _encoding(syntax: UID) -> Encoding:
    # A syntax that pydicom does not know is encapsulated, so explicit (PS3.5 A.4).
    if not syntax.is_transfer_syntax:
        return EXPLICIT_LITTLE
    return Encoding(syntax.is_implicit_VR, syntax.is_little_endian)


def _pixel_element(
    file: BinaryIO, source: files.Source, offset: int, encoding: Encoding
) -> Element | None:
    """Return the pixel data element whose header is at `offset`, if there is one."""
    file.seek(offset)
    if not file.read(1):
        return None
    window = window_over(file, source.size)
    try:
        element = next(walk(window, offset, window.size, encoding, resumed=True), None)
    except NotUnderstood as error:
        raise HeaderError(
            f"the header is damaged at byte {offset}: {error}", source=source.name
        ) from error
    # Where pydicom came to something else that it takes for an end, there is none.
    return element if element is not None and element.tag in PIXEL_DATA else None
