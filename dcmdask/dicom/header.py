"""The header of a data set: wanted elements, and the place of the pixel data."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dcmdask import errors
from dcmdask.dicom.conversion import code_string
from dcmdask.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PIXEL_DATA,
    Element,
    Encoding,
    Filter,
    Found,
    NotUnderstood,
    RawValue,
    Truncated,
    Wanted,
    Window,
    window_over,
)
from dcmdask.dicom.served import opened
from dcmdask.dicom.walk import read_elements
from dcmdask.errors import DcmdaskError, HeaderError, MissingElementError, NotDicomError, Note
from dcmdask.sources import files

TRANSFER_SYNTAX_UID = 0x00020010
EXTENDED_OFFSET_TABLE = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002
PREAMBLE = 128
HEAD = 20  # bytes of a Basic Offset Table of one entry, and of the header of the item behind it
# Bytes that pydicom reads where only it understands a header; items take it 80 times as much.
_BY_PYDICOM = 1 << 24
_NATIVE = {
    EXPLICIT_LITTLE: ExplicitVRLittleEndian,
    IMPLICIT_LITTLE: ImplicitVRLittleEndian,
    EXPLICIT_BIG: ExplicitVRBigEndian,
}
_GIVE_IT = errors.how_to_pass("transfer_syntax_uid")
_FILE_META = Filter([Wanted((TRANSFER_SYNTAX_UID,), TRANSFER_SYNTAX_UID)])


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
    head : bytes
        The first bytes of the value of encapsulated pixel data, if the walk came to it.
    stopped : NotUnderstood or None
        Reason why the walk stopped and pydicom read the header instead.
    notes : tuple of Note
        Oddities of the header.
    """

    source: files.Source
    transfer_syntax: UID
    encoding: Encoding
    values: dict[int, RawValue]
    pixel_data: Element | None
    sequences: dict[int, Element | None] = field(default_factory=dict)
    head: bytes = b""
    stopped: NotUnderstood | None = None
    notes: tuple[Note, ...] = ()

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
        Instead of that of the File Meta Information (PS3.10 7.1); needed where there is none.
    sequences : iterable of int
        Tags of top-level sequences to find, without looking into them.
    inflate_limit : int, optional
        Bytes that a deflated data set may have up to the pixel data.

    Raises
    ------
    NotDicomError
        There is neither a DICM prefix nor a File Meta Information nor a syntax given, and the
        first elements are not of group 0008.
    MissingElementError
        There is a File Meta Information without Transfer Syntax UID, or none at all and the
        pixel data is encapsulated.
    HeaderError
        The header ends early, or neither the walk nor pydicom can read it.
    PixelDataError
        A deflated data set is damaged, or too long.
    """
    keep, find = frozenset(wanted), frozenset(sequences)
    with opened(source, keep | find) as (file, source):
        window = window_over(file, source.size)
        syntax, start, notes = _file_meta(file, window, source.name, transfer_syntax_uid)
        if syntax != DeflatedExplicitVRLittleEndian:
            header = _read_elements(file, window, source, start, syntax, keep, find)
            return _noted(header, notes) if notes else header
    return _read_inflated(files.Inflated(source, start, inflate_limit), syntax, keep, find)


def _noted(header: Header, notes: tuple[Note, ...]) -> Header:
    """Return a header whose transfer syntax is a guess."""
    if header.pixel_data is not None and header.pixel_data.undefined:
        raise MissingElementError(
            "there is no file meta information with (0002,0010) 'Transfer Syntax UID', and the "
            f"pixel data is encapsulated; {_GIVE_IT}",
            source=header.source.name,
            code="transfer-syntax-uid",
        )
    return replace(header, notes=notes)


def _read_inflated(
    source: files.Inflated, syntax: UID, keep: frozenset[int], find: frozenset[int]
) -> Header:
    with files.opened(source) as file:
        window = window_over(file, source.size)
        return _read_elements(file, window, source, 0, syntax, keep, find)


def read_whole_header(
    source: files.Source, syntax: UID, tags: Iterable[int] | None = None
) -> Dataset:
    """Return the data set of `source` without its pixel data, as pydicom reads it.

    Parameters
    ----------
    source : Source
    syntax : UID
        Transfer syntax of the data set, which may differ from the file meta information.
    tags : iterable of int, optional
        Elements to read; others are not read into memory.

    Raises
    ------
    HeaderError
        pydicom cannot read it; elements that were not looked at before may be damaged.
    """
    wanted = None if tags is None else list(tags)
    if isinstance(source, files.Inflated):
        return _read_deflated(source, wanted)
    with opened(source, wanted) as (file, source):
        _, start, _ = _file_meta(file, window_over(file, source.size), source.name, syntax)
        if syntax == DeflatedExplicitVRLittleEndian:
            return _read_deflated(files.Inflated(source, start), wanted)
        with _for_pydicom(file, source.name) as reader:
            reader.seek(0)
            dataset: Dataset = dcmread(
                reader, stop_before_pixels=True, force=True, specific_tags=wanted
            )
            if dataset.file_meta.get("TransferSyntaxUID") != syntax:
                # The caller gave another one than the file has.
                meta = dataset.file_meta
                dataset = _read_to_pixels(reader, start, _encoding(syntax), wanted)
                dataset.file_meta = meta
        return dataset


def _read_deflated(source: files.Inflated, tags: list[int] | None) -> Dataset:
    """Read a deflated data set; pydicom would inflate its pixel data, too."""
    with files.opened(source.deflated) as file:
        head = file.read(source.start)
    meta = head[PREAMBLE + 4 :] if head[PREAMBLE : PREAMBLE + 4] == b"DICM" else head
    with files.opened(source) as file, _for_pydicom(file, source.name) as reader:
        dataset = _read_to_pixels(reader, 0, EXPLICIT_LITTLE, tags)
        dataset.file_meta = FileMetaDataset(read_dataset(io.BytesIO(meta), *EXPLICIT_LITTLE))
    return dataset


def _file_meta(
    file: BinaryIO, window: Window, name: str, given: str | None
) -> tuple[UID, int, tuple[Note, ...]]:
    """Return the transfer syntax, where the data set starts, and oddities."""
    window.fill(0, PREAMBLE + 4)
    prefixed = window.data[PREAMBLE : PREAMBLE + 4] == b"DICM"
    start = PREAMBLE + 4 if prefixed else 0
    raw = b""
    try:
        found = read_elements(window, start, window.size, EXPLICIT_LITTLE, _FILE_META, group=2)
        after = found.end
        if TRANSFER_SYNTAX_UID in found.values:
            raw = found.values[TRANSFER_SYNTAX_UID].value
    except NotUnderstood as error:
        # Without a prefix there may be no file meta information at all.
        after = start
        if prefixed:
            meta, after = _read_with_pydicom(file, name, start, EXPLICIT_LITTLE, _not_group2, error)
            raw = _raw_value(meta, TRANSFER_SYNTAX_UID).value
    if given:
        return UID(given), after, ()
    if syntax := code_string(raw):
        return UID(syntax), after, ()
    if prefixed or after > start:
        raise MissingElementError(
            f"the file meta information has no (0002,0010) 'Transfer Syntax UID'; {_GIVE_IT}",
            source=name,
            code="transfer-syntax-uid",
        )
    if guessed := _guessed(window):
        text = (
            "there is no file meta information: the first elements show that the data set is in "
            f"{guessed.name}, and the pixel data is taken for native; transfer_syntax_uid tells "
            "otherwise"
        )
        return guessed, 0, (Note("no-file-meta", text),)
    raise NotDicomError(
        f"not a DICOM file: in {window.size} bytes there is no DICM prefix at byte {PREAMBLE} and "
        f"no file meta information; if it is a data set without them, {_GIVE_IT}",
        source=name,
    )


def _guessed(window: Window) -> UID | None:
    """Return the transfer syntax in which a data set begins with group 0008, or None."""
    for encoding, syntax in _NATIVE.items():
        try:
            if read_elements(window, 0, window.size, encoding, Filter(), group=8).end:
                return syntax
        except NotUnderstood:
            continue
    return None


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
        found = read_elements(window, start, window.size, encoding, _filter(keep, find))
        # A sequence without items has at most a delimitation item.
        sequences = {
            tag: one for tag, one in found.places.items() if tag in find and one.length > 8
        }
        pixel_data, head = _pixel_data(found), b""
        if pixel_data is not None and syntax.is_transfer_syntax and syntax.is_encapsulated:
            head = window.peek(pixel_data.offset, HEAD)
        return Header(source, syntax, encoding, found.values, pixel_data, {**sequences}, head)
    except Truncated as error:
        if isinstance(source, files.Inflated) and source.length is None:
            # A short one, or one without pixel data: its size has to be known.
            return _read_inflated(files.measured(source), syntax, keep, find)
        raise HeaderError(
            f"the header ends early: {error}; the file is probably truncated",
            source=source.name,
            code="header-short",
        ) from error
    except NotUnderstood as error:
        dataset, stop = _read_with_pydicom(
            file, source.name, start, encoding, _at_pixels, error, keep | find
        )
        encoding, stopped = Encoding(*dataset.original_encoding), error
        tags = list(map(int, dataset.keys()))
        values = {tag: _raw_value(dataset, tag) for tag in tags if tag in keep}
        unplaced = {tag: None for tag in tags if tag in find and not _is_empty(dataset, tag)}
        pixel_data = _pixel_element(file, source, stop, encoding)
    return Header(source, syntax, encoding, values, pixel_data, {**unplaced}, b"", stopped)


@lru_cache(maxsize=16)
def _filter(keep: frozenset[int], find: frozenset[int]) -> Filter:
    places = (Wanted((tag,), tag, "SQ") for tag in find)
    return Filter((*(Wanted((tag,), tag) for tag in keep), *places))


def _encoding(syntax: UID) -> Encoding:
    # A syntax that pydicom does not know is encapsulated, so explicit (PS3.5 A.4).
    if not syntax.is_transfer_syntax:
        return EXPLICIT_LITTLE
    return Encoding(syntax.is_implicit_VR, syntax.is_little_endian)


def _pixel_data(found: Found) -> Element | None:
    return next((found.places[tag] for tag in PIXEL_DATA if tag in found.places), None)


def _pixel_element(
    file: BinaryIO, source: files.Source, offset: int, encoding: Encoding
) -> Element | None:
    """Return the pixel data element whose header is at `offset`, if there is one."""
    file.seek(offset)
    if not file.read(1):
        return None
    window = window_over(file, source.size)
    try:
        found = read_elements(
            window, offset, window.size, encoding, Filter(), group=0x7FE0, resumed=True
        )
    except NotUnderstood as error:
        raise HeaderError(
            f"the header is damaged at byte {offset}: {error}",
            source=source.name,
            code="header-damaged",
        ) from error
    return _pixel_data(found)


def _read_to_pixels(
    file: BinaryIO, start: int, encoding: Encoding, tags: list[int] | None
) -> Dataset:
    file.seek(start)
    wanted = cast("list[Any] | None", tags)
    return read_dataset(file, *encoding, stop_when=_at_pixels, specific_tags=wanted)


@contextmanager
def _for_pydicom(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Buffer a file for pydicom, and raise a HeaderError for any exception in the body."""
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
        # A member of a tar file is buffered already.
        if isinstance(reader, io.BufferedReader) and reader is not file:
            reader.detach()


def _not_group2(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in PIXEL_DATA


def _read_with_pydicom(
    file: BinaryIO,
    name: str,
    start: int,
    encoding: Encoding,
    stop_when: Callable[[BaseTag, str | None, int], bool],
    reason: NotUnderstood,
    tags: Iterable[int] = (),
) -> tuple[Dataset, int]:
    """Read a header that the walk does not understand; return also where reading stopped.

    If `tags` are given, values of other elements are skipped if they have a length.
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
    """File that limits the number of bytes that are read; seeking is free."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self._left = _BY_PYDICOM

    def read(self, length: int) -> bytes:
        # Reading allocates the requested length even if the file is shorter.
        if length > self._left:
            raise OverflowError(f"more than {_BY_PYDICOM} bytes of it would be read into memory")
        self._left -= length
        return self._read(length)


def _raw_value(found: Dataset, tag: int) -> RawValue:
    item: Any = found.get_item(tag, keep_deferred=True) if tag in found else None
    if not isinstance(item, RawDataElement):
        return RawValue(None, b"")
    return RawValue(item.VR, item.value or b"")


def _is_empty(found: Dataset, tag: int) -> bool:
    item: Any = found.get_item(tag, keep_deferred=True)
    return not (item.value or getattr(item, "length", 0))
