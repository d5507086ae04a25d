"""Description of an instance: look of its frames, position and time of each.

Nothing here names a person; see PS3.15 Annex E for what does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.sequence import Sequence

from dcmdask.dicom import files, frame_facts
from dcmdask.dicom.conversion import first_decimal, first_number, minutes, numbers
from dcmdask.dicom.elements import Element, Filter, NotUnderstood, Wanted
from dcmdask.dicom.frame_facts import DAY, FACTS, Common
from dcmdask.dicom.functional_groups import (
    LONGEST,
    rows,
    rows_of_dataset,
    value_bytes,
)
from dcmdask.dicom.header import Header, read_header, read_whole_header, window_over
from dcmdask.dicom.image_pixel import ELEMENTS, ImagePixel
from dcmdask.dicom.instance import no_pixel_data, pixels_of
from dcmdask.dicom.private_diffusion import ELEMENTS as PRIVATE_ELEMENTS
from dcmdask.dicom.private_diffusion import Diffusion, private_diffusion
from dcmdask.errors import HeaderError, PixelDataError

__all__ = ["FACTS", "Described", "describe", "facts_of"]

_SHARED, _PER_FRAME, _DIMENSION_INDEX = 0x52009229, 0x52009230, 0x00209222
_MODALITY_LUT, _VOI_LUT = 0x00283000, 0x00283010
_LUTS: Final = frozenset({_MODALITY_LUT, _VOI_LUT})
SEQUENCES: Final = _LUTS | {_SHARED, _PER_FRAME, _DIMENSION_INDEX}
_IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080008, 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
_TIMEZONE_OFFSET, _PIXEL_PADDING, _UNITS = 0x00080201, 0x00280120, 0x00541001
_LOSSY = 0x00282110
_WORDS: Final = frozenset(
    {_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, _FRAME_OF_REFERENCE, _MODALITY, _UNITS, _LOSSY}
)
# The elements that an instance is described by.
WANTED: Final = frozenset(
    {
        *ELEMENTS,
        *(tag for tag, _, _ in frame_facts.ELEMENTS),
        *PRIVATE_ELEMENTS,
        *_WORDS,
        *(_IMAGE_TYPE, _TIMEZONE_OFFSET, _PIXEL_PADDING),
    }
)
# Dimension Index Pointer, Dimension Description Label.
_POINTER, _LABEL = Wanted((0x00209165,), 0, "AT"), Wanted((0x00209421,), 1, "LO")
_DIMENSION: Final = Filter((_POINTER, _LABEL))
# Dimensions by the attribute that a Dimension Index Pointer is of.
_DIMENSIONS: Final = {
    0x00209056: "stack",  # Stack ID
    0x00209057: "z",  # In-Stack Position Number
    0x00200032: "z",  # Image Position (Patient)
    0x00209128: "t",  # Temporal Position Index
    0x0020930D: "t",  # Temporal Position Time Offset
    0x00189153: "t",  # Nominal Cardiac Trigger Delay Time
    0x00189082: "echo",  # Effective Echo Time
    0x00189087: "diffusion",  # Diffusion b-value
    0x00189089: "diffusion",  # Diffusion Gradient Orientation
    0x00089208: "component",  # Complex Image Component
}
# Names that stand for something else than what a label may mean.
_TAKEN: Final = {*_DIMENSIONS.values(), "x", "y", "sample", "frame", "patient", "missing"}


@dataclass(frozen=True, slots=True)
class Described:
    """Description of one instance; picklable, about a kilobyte for a single frame.

    Attributes
    ----------
    source : Source
        Source of its bytes; of a deflated file, as it is stored.
    sop_class_uid, sop_instance_uid, study_uid, series_uid, frame_of_reference_uid : str
        Empty where the header has none.
    modality, photometric_interpretation, pixel_keyword : str
    image_type : tuple of str
        (0008,0008).
    transfer_syntax : str
        The UID.
    rows, columns, samples, bits_allocated, bits_stored : int
        As the header has them.
    signed : bool
        Pixel Representation.
    units : str
        (0054,1001) Units of PET, such as ``"BQML"``.
    padding : float or None
        (0028,0120) Pixel Padding Value, with the sign that Pixel Representation gives it.
    has_lut : bool
        Whether the data set has a Modality LUT or a VOI LUT Sequence with items; they are
        read when they are needed.
    has_modality_lut : bool
        Whether it has a Modality LUT Sequence with items.
    has_frame_lut : bool
        Whether a Frame VOI LUT macro of the functional groups has a VOI LUT Sequence.
    lossy : bool
        Whether (0028,2110) says that something was lost by compression.
    table : bytes
        The bytes of `facts`: in millions of instances, an array of each would count.
    dimensions : tuple of str
        Of the Dimension Index Sequence (0020,9222), by its pointers: ``"stack"``, ``"z"``,
        ``"t"``, ``"echo"``, ``"diffusion"``, ``"component"``; of others the Dimension
        Description Label, in lower case, or ``"dimension_N"``. Empty unless all frames have
        Dimension Index Values.
    index_values : bytes
        (frames, dimensions) unsigned 32-bit integers.
    """

    source: files.Stored
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    modality: str
    image_type: tuple[str, ...]
    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str
    pixel_keyword: str
    units: str
    padding: float | None
    has_lut: bool
    has_modality_lut: bool
    has_frame_lut: bool
    lossy: bool
    table: bytes
    dimensions: tuple[str, ...] = ()
    index_values: bytes = b""

    @property
    def facts(self) -> npt.NDArray[Any]:
        """Of dtype `FACTS`, read-only; one row for each frame that the header declares.

        There may be more frames than that.
        """
        return np.frombuffer(self.table, FACTS)

    def __len__(self) -> int:
        return len(self.table) // FACTS.itemsize


_LEAP: Final = 1000
# Frames that are said to be made within so many milliseconds of a day, were.
_LONG: Final = DAY / 2
# The least time of the day in which nothing was made, where a run goes over midnight.
_PAUSE: Final = 3 * DAY / 4


def facts_of(instances: Iterable[Described]) -> npt.NDArray[Any]:
    """Return the facts of all frames of some instances, one after the other.

    Acquisition and content times of which the day is not known are made comparable: where all
    are, and they lie within six hours around midnight, those behind it are of the next day. NaN
    where nobody can tell: the day is known of some frames only, or times are spread over more
    than half a day.

    Returns
    -------
    ndarray
        Of dtype `FACTS`; it may be written to.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> one = describe(files.locate(get_testdata_file("CT_small.dcm")))
    >>> facts_of([one, one]).shape
    (2,)
    """
    # numpy.concatenate compares the fields of each with those of all before.
    facts = np.frombuffer(bytearray().join([one.table for one in instances]), FACTS)
    for times in (facts["acquisition_time"], facts["content_time"]):
        undated = (times >= 0) & (times < DAY + _LEAP)
        if undated.any():
            all_are = undated[np.isfinite(times)].all()
            times[undated] = _compared(times[undated]) if all_are else np.nan
    return facts


def _compared(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | float:
    """Return times of one day, or of it and the next, for milliseconds since midnight."""
    ordered = np.unique(times)
    if ordered[-1] - ordered[0] <= _LONG:
        return times
    pauses = np.diff(ordered)
    widest = int(np.argmax(pauses))
    if pauses[widest] < _PAUSE:
        return np.nan
    return np.where(times <= ordered[widest], times + DAY, times)


def describe(
    source: files.Stored, transfer_syntax_uid: str | None = None, *, header: Header | None = None
) -> Described:
    """Read what a scan keeps of one instance, in one walk over its header.

    A fact that is absent or not valid is NaN or empty. What a functional group macro has
    counts only inside that macro (PS3.3 C.7.6.16.2); a frame's own comes before the shared
    and that before the top level of the data set. A position at the top level counts only
    where there is one frame: it is at most that of the first. Frames without an item in the
    Per-Frame Functional Groups Sequence have what is shared, and surplus items are ignored.

    Parameters
    ----------
    source : Stored
        As :func:`dcmdask.dicom.files.locate` returns it.
    transfer_syntax_uid : str, optional
        Used instead of the one in the File Meta Information.
    header : Header, optional
        Header of this source with :data:`WANTED` and :data:`SEQUENCES`, if it was read already.

    Raises
    ------
    NotDicomError, MissingElementError, HeaderError
        As when it is opened; `HeaderError` also for functional groups that cannot be read.
    NoPixelDataError
        There is no pixel data.
    UnsupportedSyntaxError
        Nothing can decode the transfer syntax, such as that of a video.
    PixelDataError
        The pixel data is too short for the frames that the header declares.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> found = describe(files.locate(get_testdata_file("CT_small.dcm")))
    >>> found.modality, found.rows, found.columns, found.image_type
    ('CT', 128, 128, ('ORIGINAL', 'PRIMARY', 'AXIAL'))
    >>> len(found), found.facts["position"][0].tolist()
    (1, [-158.135803, -179.035797, -75.699997])
    """
    if header is None:
        header = read_header(source, WANTED, transfer_syntax_uid, SEQUENCES)
    element = header.pixel_data
    if element is None:
        raise no_pixel_data(source.name)
    pixels, _ = pixels_of(header, element, {})
    _check_length(header, element, pixels)
    values = header.values
    words = {
        tag: values[tag].value.decode("ascii", "replace").strip("\0 ") if tag in values else ""
        for tag in _WORDS
    }
    image_type = values[_IMAGE_TYPE].value if _IMAGE_TYPE in values else b""
    frames = _facts(header, pixels.number_of_frames, words[_MODALITY] == "MR", image_type)
    text = image_type.decode("ascii", "replace")
    return Described(
        source=source,
        sop_class_uid=words[_SOP_CLASS],
        sop_instance_uid=words[_SOP_INSTANCE],
        study_uid=words[_STUDY],
        series_uid=words[_SERIES],
        frame_of_reference_uid=words[_FRAME_OF_REFERENCE],
        modality=words[_MODALITY],
        image_type=tuple(word.strip("\0 ") for word in text.split("\\")) if text else (),
        transfer_syntax=str(header.transfer_syntax),
        rows=pixels.rows,
        columns=pixels.columns,
        samples=pixels.samples,
        bits_allocated=pixels.bits_allocated,
        bits_stored=pixels.bits_stored,
        signed=pixels.signed,
        photometric_interpretation=pixels.photometric_interpretation,
        pixel_keyword=pixels.keyword,
        units=words[_UNITS],
        padding=_padding(header, pixels.signed),
        has_lut=not _LUTS.isdisjoint(header.sequences),
        has_modality_lut=_MODALITY_LUT in header.sequences,
        has_frame_lut=frames.has_lut,
        lossy=words[_LOSSY] == "01",
        table=frames.table,
        dimensions=frames.dimensions,
        index_values=frames.index_values,
    )


def _check_length(header: Header, element: Element, pixels: ImagePixel) -> None:
    """Hold the number of frames against the bytes that are there, before rows are made."""
    frames, actual = pixels.number_of_frames, header.source.size - element.offset
    if frames * FACTS.itemsize > files.INFLATE_LIMIT:
        raise PixelDataError(
            f"(0028,0008) 'Number of Frames' says {frames}, and what a scan keeps of so many takes "
            f"more than {files.INFLATE_LIMIT} bytes",
            source=header.source.name,
            code="number-of-frames",
        )
    least = 8 if pixels.transfer_syntax.is_encapsulated else pixels.frame_bits
    if frames * least > 8 * actual:
        raise PixelDataError(
            f"{actual} bytes of pixel data do not hold the frames that (0028,0008) 'Number of "
            f"Frames' declares, {frames} of at least {least / 8:g} bytes: the file is truncated, "
            "or Rows, Columns, Bits Allocated or Number of Frames is wrong",
            source=header.source.name,
            code="pixel-data-short",
        )


def _padding(header: Header, signed: bool) -> float | None:
    """Return Pixel Padding Value, 16 bits whatever its VR says of the sign (PS3.3 C.7.5.1.1.2)."""
    raw = header.values.get(_PIXEL_PADDING)
    if raw is None or len(raw.value) > LONGEST:
        return None
    if raw.vr in (None, "US", "SS", "UN", "OW"):
        order = "<" if header.encoding.little_endian else ">"
        padding = first_number(raw.value, order + ("h" if signed else "H"))
    else:
        padding = first_decimal(raw.value)
    return padding if padding == padding else None


class _Frames(NamedTuple):
    """The facts of all frames, their Dimension Index Values, and whether one has a VOI LUT."""

    table: bytes
    has_lut: bool = False
    dimensions: tuple[str, ...] = ()
    index_values: bytes = b""


def _facts(header: Header, frames: int, is_mr: bool, image_type: bytes) -> _Frames:
    offset = header.values.get(_TIMEZONE_OFFSET)
    common = Common(
        little_endian=header.encoding.little_endian,
        is_mr=is_mr,
        image_type=image_type,
        offset=minutes(offset.value) if offset else 0,
        diffusion=private_diffusion(header.values, header.encoding) if is_mr else Diffusion(),
    )
    top = _top_level(header)
    if frames > 1:
        top[0] = b""  # the position of at most the first frame
    if header.sequences.keys().isdisjoint((_SHARED, _PER_FRAME)):
        return _Frames(frame_facts.packed(top, common) * frames)
    return _table(header, frames, top, common)


def _top_level(header: Header) -> list[bytes]:
    found = []
    for tag, vr, _ in frame_facts.ELEMENTS:
        raw = header.values.get(tag)
        if raw is None or len(raw.value) > LONGEST:
            found.append(b"")
        elif raw.vr == vr or raw.vr is None or raw.vr == "UN":
            found.append(raw.value)
        else:
            found.append(value_bytes(header.dataset(), tag, vr, header.encoding))
    return found


_Read: TypeAlias = Callable[[int, Filter], Iterator[dict[int, bytes]]]
"""The rows of the sequence with a tag; none where it is absent."""


def _table(header: Header, frames: int, top: list[bytes], common: Common) -> _Frames:
    """Return the facts of an instance with functional groups."""
    groups = header.sequences.keys() & {_SHARED, _PER_FRAME, _DIMENSION_INDEX}
    try:
        places = {tag: header.sequences[tag] for tag in groups}
        with files.opened(header.source) as file:
            window = window_over(file, header.source.size)

            def read(tag: int, wanted: Filter) -> Iterator[dict[int, bytes]]:
                if tag not in places:
                    return iter(())
                place = places[tag]
                if place is None:
                    raise NotUnderstood(0, "only pydicom could read the header")
                return rows(window, place, header.encoding, wanted)

            return _rows(read, frames, top, common)
    except NotUnderstood as error:
        reason = error
    dataset = read_whole_header(header.source, header.transfer_syntax)

    def read_dataset(tag: int, wanted: Filter) -> Iterator[dict[int, bytes]]:
        items = dataset[tag].value if tag in groups else Sequence()
        if not isinstance(items, Sequence):
            raise TypeError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is no sequence")
        return rows_of_dataset(items, header.encoding, wanted)

    try:
        return _rows(read_dataset, frames, top, common)
    except Exception as error:
        raise HeaderError(
            f"the functional groups are damaged: {reason}",
            source=header.source.name,
            detail=f"pydicom says: {error}",
            code="functional-groups",
        ) from error


_GROUPS: Final = Filter((*frame_facts.LEAVES, frame_facts.LUTS, frame_facts.INDEX_VALUES))


def _rows(read: _Read, frames: int, top: list[bytes], common: Common) -> _Frames:
    """Lay values of each frame over those that frames share, and these over `top`."""
    shared = next(read(_SHARED, _GROUPS), {})  # one item holds all (PS3.3 C.7.6.16)
    has_lut = frame_facts.LUTS.key in shared
    base = _laid_over(shared, top)
    dimensions = _dimensions(read, common.little_endian)
    order: Literal["<", ">"] = "<" if common.little_endian else ">"
    width = 4 * len(dimensions)
    indices = bytearray()
    table = bytearray(frame_facts.packed(base, common) * frames)
    size = FACTS.itemsize
    # A frame without an item keeps the row of what is shared.
    for at, row in zip(range(0, len(table), size), read(_PER_FRAME, _GROUPS), strict=False):
        table[at : at + size] = frame_facts.packed(_laid_over(row, base), common)
        has_lut = has_lut or frame_facts.LUTS.key in row
        values = row.get(frame_facts.INDEX_VALUES.key, b"")
        if len(values) == width:
            indices += values
    if not dimensions or len(indices) != frames * width:
        return _Frames(bytes(table), has_lut)
    native = np.frombuffer(indices, np.dtype("u4").newbyteorder(order)).astype("u4")
    return _Frames(bytes(table), has_lut, dimensions, native.tobytes())


def _dimensions(read: _Read, little_endian: bool) -> tuple[str, ...]:
    """Return the names of the dimensions of an object, in the order of its indices."""
    found: list[str] = []
    items = islice(read(_DIMENSION_INDEX, _DIMENSION), LONGEST)
    for number, row in enumerate(items):
        pointer, text = row.get(_POINTER.key, b""), row.get(_LABEL.key, b"")
        group, element = numbers(pointer, "<H" if little_endian else ">H", 2)
        tag = -1 if group != group else int(group) << 16 | int(element)
        label = "_".join(re.findall("[a-z0-9]+", text.decode("ascii", "replace").lower()))
        taken = {*_TAKEN, *found}
        other = label if label and label not in taken else f"dimension_{number}"
        found.append(_DIMENSIONS.get(tag, other))
    return tuple(found)


def _laid_over(row: dict[int, bytes], base: list[bytes]) -> list[bytes]:
    laid = base.copy()
    for number, value in row.items():
        if number < len(laid):
            laid[number] = value
    return laid
