"""Description of an instance: look of its frames, position and time of each.

Nothing here names a person; see PS3.15 Annex E for what does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dcmdask.dicom import frame_facts
from dcmdask.dicom.conversion import LONGEST, UNREADABLE, code_string, first_number, minutes
from dcmdask.dicom.frame_count import count_frames
from dcmdask.dicom.frame_facts import DAY, FACTS, FRAME_TYPE, NUMBER_OF, TAGS, Common
from dcmdask.dicom.frame_index import FrameIndex
from dcmdask.dicom.groups.functional_groups import SEQUENCES as GROUPS
from dcmdask.dicom.groups.functional_groups import Frames, frame_table, value_bytes
from dcmdask.dicom.header import (
    EXTENDED_OFFSET_TABLE,
    EXTENDED_OFFSET_TABLE_LENGTHS,
    Header,
    read_header,
)
from dcmdask.dicom.image_pixel import (
    ELEMENTS,
    OVERRIDES,
    ImagePixel,
    header_options,
    inflate_limit,
)
from dcmdask.dicom.instance import Indexing, index_of, no_pixel_data, pixels_of
from dcmdask.dicom.own_elements import NONE, OWN, RT_DOSE, SEGMENTATIONS, OwnElements, own_elements
from dcmdask.dicom.pixel_spacing import IMAGER, REGIONS, other_spacing
from dcmdask.dicom.private.diffusion import PRIVATE_ELEMENTS, private_diffusion
from dcmdask.dicom.private.mosaic import MOSAIC_ELEMENTS, NO_MOSAIC, Mosaic, is_mosaic, mosaic_of
from dcmdask.dicom.texts import IDENTIFIERS, identifiers_of, text_of
from dcmdask.dicom.tiles.tiling import TILED, TILED_SEQUENCES, Tiling, is_tiled, tiling_of
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

__all__ = ["FACTS", "Described", "describe", "facts_of"]

_MODALITY_LUT, _VOI_LUT = 0x00283000, 0x00283010
_ROW: Final = FACTS.itemsize
_LUTS: Final = frozenset({_MODALITY_LUT, _VOI_LUT})
SEQUENCES: Final = _LUTS | GROUPS | TILED_SEQUENCES
_IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080008, 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
_TIMEZONE_OFFSET, _PIXEL_PADDING, _UNITS = 0x00080201, 0x00280120, 0x00541001
_DOSE_UNITS, _DOSE_GRID_SCALING, _MAXIMUM = 0x30040002, 0x3004000E, 0x0062000E
_LOSSY, _CHARACTER_SET, _SERIES_DESCRIPTION = 0x00282110, 0x00080005, 0x0008103E
_WORDS: Final = frozenset(
    {
        _SOP_CLASS,
        _SOP_INSTANCE,
        _STUDY,
        _SERIES,
        _FRAME_OF_REFERENCE,
        _MODALITY,
        _UNITS,
        _LOSSY,
        _DOSE_UNITS,
    }
)
# The elements that an instance is described by.
WANTED: Final = frozenset(
    {
        *ELEMENTS,
        *(tag for tag, _, _ in frame_facts.ELEMENTS),
        *PRIVATE_ELEMENTS,
        *MOSAIC_ELEMENTS,
        *OWN,
        *TILED,
        *_WORDS,
        *(_IMAGE_TYPE, _TIMEZONE_OFFSET, _PIXEL_PADDING, _CHARACTER_SET, _SERIES_DESCRIPTION),
        *(
            _DOSE_GRID_SCALING,
            _MAXIMUM,
            IMAGER,
            REGIONS,
            EXTENDED_OFFSET_TABLE,
            EXTENDED_OFFSET_TABLE_LENGTHS,
        ),
    }
)


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
        (0054,1001) Units of PET, such as ``"BQML"``, or (3004,0002) Dose Units.
    padding : float or None
        (0028,0120) Pixel Padding Value, with the sign that Pixel Representation gives it;
        infinity where it cannot be read.
    has_lut : bool
        Whether the data set has a Modality LUT or a VOI LUT Sequence with items; they are
        read when they are needed.
    has_modality_lut : bool
        Whether it has a Modality LUT Sequence with items.
    has_frame_lut : bool
        Whether a Frame VOI LUT macro of the functional groups has a VOI LUT Sequence.
    lossy : bool
        Whether (0028,2110) says that something was lost by compression.
    series_description : str
        (0008,103E), free text: shown to whoever scans, and never stored.
    spacing_source : str
        ``"ImagerPixelSpacing"`` or ``"SequenceOfUltrasoundRegions"`` where there is no Pixel
        Spacing: the spacing in `facts` is from there, NaN where regions have several, and
        infinity where one cannot be read.
    table : bytes
        The bytes of `facts`: in millions of instances, an array of each would count.
    dimensions : tuple of str
        Names by the pointers of the Dimension Index Sequence (0020,9222): ``"stack"``,
        ``"z"``, ``"t"``, ``"echo"``, ``"diffusion"``, ``"component"``, ``"segment"``,
        ``"data_type"``; for other pointers the Dimension Description Label, in lower case, or
        ``"dimension_N"``. Empty unless all frames have Dimension Index Values.
    index_values : bytes
        (frames, dimensions) unsigned 32-bit integers.
    own : OwnElements
        Elements that only its SOP class has.
    mosaic : Mosaic
        What a private header says of the tiles that a frame holds.
    tiling : Tiling or None
        Places of the frames in a total pixel matrix. `table` is one row then, of all frames.
    stored : tuple of Described
        Descriptions as they stand in the headers, of one that is changed to the planes of a
        total pixel matrix: several for the parts of a concatenation.
    tiles : int
        Number of tiles that a frame is cut into. Rows, columns and facts are those of tiles then;
        a header is described with 1.
    overrides : tuple of (str, Any)
        Options that it was described with and has to be opened with, sorted.
    index : FrameIndex, optional
        Its frame index, where one was asked for and was at hand; no fact of the instance.
    identifiers : tuple of str, optional
        Values of `IDENTIFIERS`, where they were asked for.
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
    series_description: str
    spacing_source: str
    table: bytes
    dimensions: tuple[str, ...] = ()
    index_values: bytes = b""
    own: OwnElements = NONE
    mosaic: Mosaic = NO_MOSAIC
    tiling: Tiling | None = None
    stored: tuple[Described, ...] = ()
    tiles: int = 1
    overrides: tuple[tuple[str, Any], ...] = ()
    index: FrameIndex | None = field(default=None, compare=False, repr=False)
    identifiers: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def facts(self) -> npt.NDArray[Any]:
        """Facts of the frames, read-only, of dtype `FACTS`: a row for each frame."""
        rows = np.frombuffer(self.table, FACTS)
        return rows if self.tiling is None or self.stored else np.broadcast_to(rows, len(self))

    def rows_of_facts(self) -> bytes:
        """Return the bytes of `facts`."""
        return self.table if len(self.table) == len(self) * _ROW else self.facts.tobytes()

    def __len__(self) -> int:
        if self.tiling is None or self.stored:
            return len(self.table) // _ROW
        return self.tiling.frames


_LEAP: Final = 1000
# Times that lie within so many milliseconds are taken for times of one day.
_LONG: Final = DAY / 2
# Least pause in a day by which a run that passes midnight is recognised, in milliseconds.
_PAUSE: Final = 3 * DAY / 4


def facts_of(instances: Iterable[Described]) -> npt.NDArray[Any]:
    """Return the facts of all frames of some instances, one after the other.

    Acquisition and content times without a date are made comparable: if all lack a date and
    lie within six hours around midnight, those after midnight are moved to the next day. They
    are NaN if only some frames have a date, or if times are spread over more than half a day.

    Returns
    -------
    ndarray
        Writable, of dtype `FACTS`.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> one = describe(files.locate(get_testdata_file("CT_small.dcm")))
    >>> facts_of([one, one]).shape
    (2,)
    """
    # numpy.concatenate compares the fields of each with those of all before.
    facts = np.frombuffer(bytearray().join([one.rows_of_facts() for one in instances]), FACTS)
    for times in (facts["acquisition_time"], facts["content_time"]):
        undated = (times >= 0) & (times < DAY + _LEAP)
        if undated.any():
            all_are = undated[np.isfinite(times)].all()
            times[undated] = _compared(times[undated]) if all_are else np.nan
    return facts


def _compared(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | float:
    """Return milliseconds since midnight with those of the next day raised by a day."""
    ordered = np.unique(times)
    if ordered[-1] - ordered[0] <= _LONG:
        return times
    pauses = np.diff(ordered)
    widest = int(np.argmax(pauses))
    if pauses[widest] < _PAUSE:
        return np.nan
    return np.where(times <= ordered[widest], times + DAY, times)


def describe(
    source: files.Stored,
    options: Mapping[str, Any] | None = None,
    *,
    header: Header | None = None,
    indexing: Indexing = "no",
    identifiers: bool = False,
) -> Described:
    """Describe one instance, in one walk over its header.

    A number that is absent is NaN, one that is there and cannot be read is infinity; it is an
    error, or an irregularity, where it is needed. Elements of a functional group macro
    count only inside that macro (PS3.3 C.7.6.16.2). Values of the frame come before shared
    ones, and these before the top level of the data set. A position at the top level counts
    only for an instance of one frame. Frames without an item in the Per-Frame Functional Groups
    Sequence have what is shared, and surplus items are ignored.

    Parameters
    ----------
    source : Stored
        As :func:`dcmdask.sources.files.locate` returns it.
    options : mapping, optional
        Overrides of group 0028, `transfer_syntax_uid`, `inflate_limit` and
        `allow_excess_frames`, as for
        :func:`dcmdask.open_frames`; others are not looked at.
    header : Header, optional
        Header of this source with :data:`WANTED` and :data:`SEQUENCES`, if it was read already.
    indexing : {"no", "at hand", "walk"}
        Whether the frame index is made: where it is at hand, or always; not where there are
        overrides.
    identifiers : bool
        Whether `IDENTIFIERS` are kept.

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
    options = {} if options is None else options
    overrides = {key: options[key] for key in sorted(OVERRIDES & options.keys())}
    if header is None:
        syntax = options.get("transfer_syntax_uid")
        limit = inflate_limit(options)
        wanted = WANTED.union(IDENTIFIERS.values()) if identifiers else WANTED
        header = read_header(source, wanted, syntax, SEQUENCES, limit)
    element = header.pixel_data
    if element is None:
        raise no_pixel_data(header)
    pixels, _ = pixels_of(header, element, overrides)
    excess = bool(options.get("allow_excess_frames", True))
    count = count_frames(header, element, pixels, excess)
    values = header.values
    words = {tag: code_string(values[tag].value) if tag in values else "" for tag in _WORDS}
    image_type = values[_IMAGE_TYPE].value if _IMAGE_TYPE in values else b""
    spacing = other_spacing(header)
    frames, tiling = _facts(header, count, pixels, words, image_type, spacing.value)
    kinds = image_type.decode("ascii", "replace")
    if isinstance(source, ServedInstance):
        # Its metadata, as the server said them, are part of it.
        told = header.source
        source = told.deflated if isinstance(told, files.Inflated) else told
    return Described(
        source=files.to_keep(source),
        sop_class_uid=words[_SOP_CLASS],
        sop_instance_uid=words[_SOP_INSTANCE],
        study_uid=words[_STUDY],
        series_uid=words[_SERIES],
        frame_of_reference_uid=words[_FRAME_OF_REFERENCE],
        modality=words[_MODALITY],
        image_type=tuple(word.strip("\0 ") for word in kinds.split("\\")) if kinds else (),
        transfer_syntax=str(header.transfer_syntax),
        rows=pixels.rows,
        columns=pixels.columns,
        samples=pixels.samples,
        bits_allocated=pixels.bits_allocated,
        bits_stored=pixels.bits_stored,
        signed=pixels.signed,
        photometric_interpretation=pixels.photometric_interpretation,
        pixel_keyword=pixels.keyword,
        units=words[_UNITS] or words[_DOSE_UNITS],
        padding=_padding(header, pixels.signed),
        has_lut=not _LUTS.isdisjoint(header.sequences),
        has_modality_lut=_MODALITY_LUT in header.sequences,
        has_frame_lut=frames.has_lut,
        lossy=words[_LOSSY] == "01",
        series_description=text_of(header, _SERIES_DESCRIPTION),
        spacing_source=spacing.source,
        table=frames.table,
        dimensions=frames.dimensions,
        index_values=frames.index_values,
        mosaic=mosaic_of(values, header.encoding) if is_mosaic(image_type) else NO_MOSAIC,
        own=own_elements(words[_SOP_CLASS], count, values, header.encoding),
        tiling=tiling,
        overrides=tuple(header_options(options).items()),
        identifiers=identifiers_of(header) if identifiers else (),
        index=None if overrides else index_of(header, element, excess, indexing),
    )


def _padding(header: Header, signed: bool) -> float | None:
    """Return Pixel Padding Value, 16 bits whatever its VR says of the sign (PS3.3 C.7.5.1.1.2)."""
    raw = header.values.get(_PIXEL_PADDING)
    if raw is None:
        return None
    vr = "DS"
    if raw.vr in (None, "US", "SS", "UN", "OW"):
        vr = "SS" if signed else "US"
    padding = first_number(raw.value[:LONGEST], vr, header.encoding.little_endian)
    return None if isnan(padding) else padding


def _facts(
    header: Header,
    frames: int,
    pixels: ImagePixel,
    words: Mapping[int, str],
    kind: bytes,
    spacing: bytes,
) -> tuple[Frames, Tiling | None]:
    offset = header.values.get(_TIMEZONE_OFFSET)
    common = Common(header.encoding.little_endian, minutes(offset.value) if offset else 0)
    top = _top_level(header)
    if frames > 1:
        top[0] = b""  # the position of at most the first frame
    if spacing:
        top[NUMBER_OF[TAGS["spacing"]]] = spacing
    if words[_SOP_CLASS] == RT_DOSE:
        # Its scaling alone gives doses (PS3.3 C.8.8.3), whatever a rescaling besides says.
        scaling = header.values.get(_DOSE_GRID_SCALING)
        top[NUMBER_OF[TAGS["slope"]]] = scaling.value[:LONGEST] if scaling else b""
        top[NUMBER_OF[TAGS["intercept"]]] = b""
    if words[_SOP_CLASS] in SEGMENTATIONS and (maximum := header.values.get(_MAXIMUM)):
        number = first_number(maximum.value, "US", common.little_endian)
        is_number = 0 < number < inf
        top[NUMBER_OF[TAGS["slope"]]] = b"%r" % (1 / number) if is_number else UNREADABLE
    if words[_MODALITY] == "MR":
        top[NUMBER_OF[FRAME_TYPE]] = top[NUMBER_OF[FRAME_TYPE]] or kind
        for tag, value in private_diffusion(header.values, header.encoding).items():
            top[NUMBER_OF[tag]] = value
    if is_tiled(header):
        row, tiling = tiling_of(header, frames, (pixels.rows, pixels.columns), top, common)
        return Frames(row), tiling
    if GROUPS.isdisjoint(header.sequences):
        return Frames(frame_facts.packed(top, common) * frames), None
    return frame_table(header, frames, top, common), None


def _top_level(header: Header) -> list[bytes]:
    found = []
    for tag, vr, _ in frame_facts.ELEMENTS:
        raw = header.values.get(tag)
        if raw is None or not raw.value:
            found.append(b"")
        elif raw.vr == vr or raw.vr is None or raw.vr == "UN":
            found.append(raw.value[:LONGEST])
        else:
            found.append(value_bytes(header.dataset(), tag, vr, header.encoding))
    return found
