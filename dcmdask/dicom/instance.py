"""One SOP Instance, opened: source, description of the frames, and a span for each."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dcmdask.dicom import offsets
from dcmdask.dicom.conversion import code_string, uid
from dcmdask.dicom.elements import PIXEL_KEYWORDS, Element, NotUnderstood
from dcmdask.dicom.frame_count import has_table, only_item
from dcmdask.dicom.frame_index import (
    FrameIndex,
    Indexed,
    PixelDataElement,
    index_encapsulated,
    index_native,
    place_of,
)
from dcmdask.dicom.header import (
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    Header,
    read_header,
)
from dcmdask.dicom.image_pixel import (
    ELEMENTS,
    NOT_FOR_DECODERS,
    ImagePixel,
    image_pixel,
    inflate_limit,
)
from dcmdask.dicom.served import briefly
from dcmdask.dicom.tiles.tiff import is_tiff
from dcmdask.dicom.without_pixels import without_pixels
from dcmdask.errors import (
    DcmdaskWarning,
    HeaderError,
    MissingElementError,
    NoPixelDataError,
    Note,
    PixelDataError,
    SourceChangedError,
    UnsupportedSyntaxError,
    how_to_pass,
)
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
# The elements that an instance is opened by.
WANTED = frozenset(ELEMENTS) | {
    _SOP_CLASS_UID,
    _SOP_INSTANCE_UID,
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
}
# Newer than pydicom's dictionary.
_NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
_VIDEO = ("MPEG", "HEVC", "H.264", "SMPTE")
# Frame indices that are made when files are described.
Indexing: TypeAlias = Literal["no", "at hand", "walk"]
_LOG = logging.getLogger("dcmdask")


@dataclass(frozen=True)
class Instance:
    """The frame index of one SOP Instance; immutable, picklable, without open files.

    Attributes
    ----------
    source : Source
        Source that the spans count from.
    pixels : ImagePixel
    spans : Spans
        One per frame, as many as there are.
    indexed_by : str
        Origin of the spans, in words.
    notes : tuple of Note
        Oddities of the data, as warned of when it was opened.
    warned : set of str
        Codes of the notes that were warned of; instances of one array share it.
    """

    source: files.Source
    pixels: ImagePixel
    spans: offsets.Spans
    indexed_by: str
    notes: tuple[Note, ...]
    warned: set[str] = field(default_factory=set, compare=False)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.source.name

    def warn(self, note: Note) -> None:
        """Issue a note as a warning, one of each kind."""
        issue(note, self.name, self.warned)

    def read(self, frames: list[int]) -> list[bytes]:
        """Return the spans of `frames`, read in one go."""
        return files.read(self.source, *self.spans.locate(np.asarray(frames, np.int64)))


def open_instance(
    src: Any,
    options: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
    *,
    warned: set[str] | None = None,
    sop_instance_uid: str = "",
) -> Instance:
    """Read the header of `src` once, make the frame index once, and check both.

    Parameters
    ----------
    src : Dataset, Header, or what :func:`dcmdask.sources.files.locate` takes
        A header with the elements of :data:`WANTED`.
    options : mapping
        Overrides of group 0028 and pydicom's decoding options.
    storage_options : mapping, optional
    warned : set of str, optional
        Codes of notes on other instances, which are not repeated; those of this one are added.
    sop_instance_uid : str, optional
        Expected SOP Instance UID; another one raises.

    Warns
    -----
    DcmdaskWarning
        For each kind of note that is not in `warned`.
    """
    if isinstance(src, Dataset):
        place, dataset, syntax, found = _from_dataset(src, options)
        _check_syntax(syntax, place.source.name)
        pixels, notes = image_pixel(dataset, syntax, {**found, **options}, place.source.name)
    else:
        place, pixels, notes = _from_file(src, options, storage_options, sop_instance_uid)
    excess = bool(options.get("allow_excess_frames", True))
    make = index_encapsulated if pixels.transfer_syntax.is_encapsulated else index_native
    if isinstance(place.source, ServedInstance):
        make = _index_served
    spans, indexed_by, more = make(place, pixels, excess)
    notes = [*notes, *more]
    index = FrameIndex(pixels, spans, indexed_by, tuple(notes))
    return instance_of(files.to_keep(place.source), index, warned)


def instance_of(
    source: files.Source, index: FrameIndex, warned: set[str] | None = None
) -> Instance:
    """Return the instance of an index, and warn of its notes as :func:`open_instance` does."""
    instance = Instance(source, *index, set() if warned is None else warned)
    for note in index.notes:
        instance.warn(note)
    return instance


def index_of(
    header: Header, element: Element, excess: bool, indexing: Indexing
) -> FrameIndex | None:
    """Return the frame index of a header, to be kept.

    None of a deflated data set, and where frames are missing: opening the instance says so.

    Parameters
    ----------
    header : Header
        With the elements of :data:`WANTED`.
    element : Element
        Pixel data element.
    excess : bool
        Whether frames beyond the declared ones count.
    indexing : {"no", "at hand", "walk"}
        None; what can be had by reading little more than the header; or also by a walk over the
        items of remote files that have no offset table, for which they are moved whole.
    """
    source = header.source
    if indexing == "no" or isinstance(source, files.Inflated | ServedInstance):
        return None
    pixels, notes = pixels_of(header, element, {})
    place = place_of(header, element, {})
    try:
        if not pixels.transfer_syntax.is_encapsulated:
            spans, called, more = index_native(place, pixels, excess)
        elif (only := only_item(place, header.head, pixels.number_of_frames)) is not None:
            spans, called, more = only
        elif indexing == "at hand" and _takes_a_walk(place, header.head, pixels):
            return None
        else:
            spans, called, more = index_encapsulated(place, pixels, excess)
    except (PixelDataError, HeaderError):
        return None
    return FrameIndex(pixels, spans, called, (*header.notes, *notes, *more))


def _takes_a_walk(place: PixelDataElement, head: bytes, pixels: ImagePixel) -> bool:
    """Return whether items of a remote file are to be walked over."""
    if not isinstance(place.source, files.RemoteFile):
        return False
    return not (has_table(place, head, pixels.number_of_frames) or is_tiff(place.source.start))


def _index_served(place: PixelDataElement, pixels: ImagePixel, allow_excess: bool) -> Indexed:
    """Index the frames of an instance on a DICOMweb server, which gives them by number."""
    told = getattr(place.source, "syntax", "")
    if pixels.transfer_syntax != told:
        raise HeaderError(
            f"the server gives frames in {told}, and transfer_syntax_uid is "
            f"{pixels.transfer_syntax}",
            source=place.source.name,
            code="transfer-syntax",
        )
    bits, count = pixels.frame_bits, pixels.number_of_frames
    spans: offsets.Spans = offsets.NumberedNative(0, bits, count)
    if pixels.transfer_syntax.is_encapsulated:
        spans = offsets.NumberedItems(count, -(-bits // 8))
    return spans, "numbers of frames on a DICOMweb server", []


def issue(note: Note, name: str, warned: set[str] | None = None) -> None:
    """Issue a note on what is called `name` as a warning to the caller of this package.

    Not if its code is in `warned`, where it is added. The logger ``dcmdask`` gets every note.
    """
    _LOG.info("%s: %s", name, note)
    if warned is not None:
        if note.code in warned:
            return
        warned.add(note.code)
    warnings.warn(DcmdaskWarning(f"{name}: {note}", note.code), stacklevel=_outside())


def _outside() -> int:
    """Return the stack level of the caller of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("dcmdask."):
        level, frame = level + 1, frame.f_back
    return level


def _from_file(
    src: Any,
    options: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None,
    expected: str,
) -> tuple[PixelDataElement, ImagePixel, list[Note]]:
    limit = inflate_limit(options)
    if isinstance(src, Header):
        header = src
    else:
        source = files.locate(src, storage_options, limit)
        syntax = options.get("transfer_syntax_uid")
        header = read_header(briefly(source), WANTED, syntax, inflate_limit=limit)
    name = header.source.name
    found = header.values.get(_SOP_INSTANCE_UID)
    if expected and found and code_string(found.value) != expected:
        raise SourceChangedError(
            "there is another instance than when the headers were read",
            source=name,
            code="sop-instance-uid",
        )
    element = header.pixel_data
    if element is None:
        raise no_pixel_data(header)
    pixels, notes = pixels_of(header, element, options)
    return place_of(header, element, options), pixels, [*header.notes, *notes]


# Descriptions by raw values: pydicom takes 0.1 ms to convert these few elements, more than
# all else in opening a file, and they mostly are those of the file before. Bounded in number
# and in length of values.
_KNOWN: dict[Hashable, tuple[ImagePixel, list[Note]]] = {}
_MOST_KNOWN = 256
_LONGEST_KNOWN = 64


def pixels_of(
    header: Header, element: Element, options: Mapping[str, Any]
) -> tuple[ImagePixel, list[Note]]:
    """Return the checked description of the frames, and its oddities.

    Parameters
    ----------
    header : Header
        With the elements of :data:`dcmdask.dicom.image_pixel.ELEMENTS`.
    element : Element
        Pixel data element.
    options : mapping
        As for :func:`open_instance`.

    Raises
    ------
    UnsupportedSyntaxError, HeaderError, MissingElementError
    """
    raw = tuple(map(header.values.get, ELEMENTS))
    # Equal numbers of other types are not always valid.
    given = tuple(
        (name, type(value), value)
        for name, value in sorted(options.items())
        if name not in NOT_FOR_DECODERS
    )
    key = (header.transfer_syntax, header.encoding, element.tag, element.vr, raw, given)
    short = all(one is None or len(one.value) <= _LONGEST_KNOWN for one in raw)
    try:
        known = _KNOWN.get(key)
    except TypeError:
        # An invalid value may not be hashable.
        short, known = False, None
    if known is not None:
        return known
    _check_syntax(header.transfer_syntax, header.source.name)
    found: dict[str, Any] = {"pixel_keyword": PIXEL_KEYWORDS[element.tag]}
    if element.vr is not None:
        found["pixel_vr"] = element.vr
    known = image_pixel(
        header.dataset(), header.transfer_syntax, {**found, **options}, header.source.name
    )
    if short:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = known
    return known


def _from_dataset(
    dataset: Dataset, options: Mapping[str, Any]
) -> tuple[PixelDataElement, Dataset, UID, dict[str, Any]]:
    name = "<Dataset>"
    meta = getattr(dataset, "file_meta", None) or {}
    syntax = options.get("transfer_syntax_uid") or meta.get("TransferSyntaxUID")
    if not syntax:
        raise MissingElementError(
            "the data set's file_meta has no (0002,0010) 'Transfer Syntax UID'; "
            f"{how_to_pass('transfer_syntax_uid')}",
            source=name,
            code="transfer-syntax-uid",
        )
    tags = [tag for tag in PIXEL_KEYWORDS if tag in dataset]
    sop_class = str(dataset.get("SOPClassUID", ""))
    if not tags:
        raise _no_pixel_data(name, sop_class)
    if len(tags) > 1:
        both = " and ".join(PIXEL_KEYWORDS[tag] for tag in tags)
        raise HeaderError(
            f"the data set has {both}, and only one may be there", source=name, code="pixel-data"
        )
    element = dataset[tags[0]]
    value = element.value
    if hasattr(value, "read"):
        reader = value
        position = reader.tell()
        reader.seek(0)
        value = reader.read()
        reader.seek(position)
    if not value:
        raise _no_pixel_data(name, sop_class)
    # Bytes are not copied: a view of them is a view of the caller's.
    source = files.Memory(value if isinstance(value, bytes) else bytes(value), name)
    tables = options.get("extended_offsets")
    if tables is None and EXTENDED_OFFSET_TABLE in dataset:
        tables = (
            dataset[EXTENDED_OFFSET_TABLE].value or b"",
            dataset.get("ExtendedOffsetTableLengths") or b"",
        )
    place = PixelDataElement(source, 0, source.size, tables)
    found = {"pixel_keyword": PIXEL_KEYWORDS[tags[0]], "pixel_vr": element.VR}
    return place, dataset, UID(syntax), found


def no_pixel_data(header: Header) -> NoPixelDataError:
    """Return the error for a header without pixel data, read with its SOP Class UID."""
    sop_class = header.values.get(_SOP_CLASS_UID)
    text = code_string(sop_class.value) if sop_class else ""
    return _no_pixel_data(header.source.name, text, header.stopped)


def _no_pixel_data(
    name: str, sop_class_uid: str, stopped: NotUnderstood | None = None
) -> NoPixelDataError:
    """Return the error; `stopped` is why the elements were not understood, if they were not."""
    why = without_pixels(sop_class_uid) or (
        "there is no pixel data: none of (7FE0,0010) 'Pixel Data', (7FE0,0008) 'Float Pixel "
        "Data' and (7FE0,0009) 'Double Float Pixel Data' is in the data set"
    )
    doubt = ""
    if stopped is not None:
        doubt = (
            f"; its elements are not understood from byte {stopped.offset} on "
            f"({stopped.reason}), and it may be behind that"
        )
    return NoPixelDataError(f"{why}{doubt}", source=name)


def _check_syntax(syntax: UID, name: str) -> None:
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        if not uid(syntax):
            raise UnsupportedSyntaxError(
                "the transfer syntax is no UID",
                source=name,
                detail=f"its value is {str(syntax)!r}",
                code="no-uid",
            ) from error
        known = _NEWER.get(syntax, syntax.name)
        called = f"the transfer syntax {known!r} ({syntax})"
        code = "transfer-syntax"
        if any(word in known for word in _VIDEO):
            code = "video"
            advice = (
                "is a video, not frames: a video tool such as ffmpeg reads the codestream that "
                "the pixel data holds"
            )
        elif "JPEG XL" in known:
            advice = "is not decoded by pydicom yet: convert the file, to HTJ2K for example"
        else:
            advice = "is not decoded by pydicom: convert the file to another one"
        raise UnsupportedSyntaxError(f"{called} {advice}", source=name, code=code) from error
