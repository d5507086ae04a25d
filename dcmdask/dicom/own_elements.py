"""Elements that only some SOP classes have, by which they say what their frames are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from dcmdask.dicom.conversion import LONGEST, code_string, numbers, text
from dcmdask.dicom.elements import (
    EXPLICIT_LITTLE,
    Encoding,
    Filter,
    NotUnderstood,
    RawValue,
    Wanted,
)
from dcmdask.dicom.groups.items import items_of
from dcmdask.dicom.pixel_spacing import REGIONS

__all__ = [
    "DETECTORS",
    "EXTENDED_DEPTH",
    "FRAME_INCREMENT_POINTER",
    "FRAME_TIME",
    "FRAME_TIME_VECTOR",
    "NONE",
    "NUCLEAR_MEDICINE",
    "OWN",
    "PARAMETRIC_MAP",
    "REFERENCED_SERIES",
    "RT_DOSE",
    "SEGMENTATIONS",
    "SPECIMEN_LABEL",
    "ULTRASOUND_VOLUME",
    "VECTORS",
    "WHOLE_SLIDES",
    "OwnElements",
    "own_elements",
]

RT_DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
NUCLEAR_MEDICINE: Final = "1.2.840.10008.5.1.4.1.1.20"
# Segmentation, Label Map Segmentation.
SEGMENTATIONS: Final = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
ULTRASOUND_VOLUME: Final = "1.2.840.10008.5.1.4.1.1.6.2"
PARAMETRIC_MAP: Final = "1.2.840.10008.5.1.4.1.1.30"
WHOLE_SLIDES: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
# Specimen Label in Image, Extended Depth of Field.
SPECIMEN_LABEL, EXTENDED_DEPTH = 0x00480010, 0x00480012

FRAME_INCREMENT_POINTER, FRAME_TIME, FRAME_TIME_VECTOR = 0x00280009, 0x00181063, 0x00181065
# Energy Window, Detector, Phase, Rotation, R-R Interval, Time Slot, Slice, Angular View and Time
# Slice Vector, by the names of their dimensions.
VECTORS: Final = {
    0x00540010: "energy_window",
    0x00540020: "detector",
    0x00540030: "phase",
    0x00540050: "rotation",
    0x00540060: "rr_interval",
    0x00540070: "time_slot",
    0x00540080: "z",
    0x00540090: "angular_view",
    0x00540100: "time_slice",
}
DETECTORS: Final = 0x00540022  # Detector Information Sequence
REFERENCED_SERIES: Final = 0x00081115
"""Referenced Series Sequence, of which the Series Instance UIDs alone are kept."""
_SERIES: Final = 0x0020000E
_SERIES_UIDS: Final = Filter([Wanted((_SERIES,), _SERIES)])
_POSITION, _CHARACTER_SET = 0x00200032, 0x00080005
# Cine Rate, Positioner Primary and Secondary Angle Increment.
_CINE: Final = frozenset(
    {FRAME_INCREMENT_POINTER, FRAME_TIME, FRAME_TIME_VECTOR, 0x00180040, 0x00181520, 0x00181521}
)
_OF_CLASS: Final[Mapping[str, frozenset[int]]] = {
    # Grid Frame Offset Vector, Dose Type, Dose Summation Type.
    NUCLEAR_MEDICINE: frozenset({FRAME_INCREMENT_POINTER, *VECTORS, DETECTORS}),
    # Segmentation Type, Segment Sequence.
    **dict.fromkeys(
        SEGMENTATIONS, frozenset({_CHARACTER_SET, REFERENCED_SERIES, 0x00620001, 0x00620002})
    ),
    PARAMETRIC_MAP: frozenset({_CHARACTER_SET}),
    RT_DOSE: frozenset({_POSITION, 0x3004000C, 0x30040004, 0x3004000A}),
    WHOLE_SLIDES: frozenset({SPECIMEN_LABEL, EXTENDED_DEPTH}),
}
OWN: Final = _CINE.union(*_OF_CLASS.values())
"""All of them, by their tags."""


class OwnElements(NamedTuple):
    """Elements of one data set, as they stand there.

    Attributes
    ----------
    values : tuple of (int, RawValue)
        By tag.
    encoding : Encoding
    """

    values: tuple[tuple[int, RawValue], ...] = ()
    encoding: Encoding = EXPLICIT_LITTLE

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value; none of an element that is absent."""
        return next((raw.value for one, raw in self.values if one == tag), b"")

    def numbers(self, tag: int, vr: str) -> tuple[float, ...]:
        """Return the numbers of a value, none of an element that is absent or empty."""
        value = self.raw(tag)
        return numbers(value, vr, self.encoding.little_endian) if value.strip(b"\0 ") else ()

    def tags(self, tag: int) -> list[int]:
        """Return the tags of an AT."""
        pairs = self.numbers(tag, "US")
        return [int(g) << 16 | int(e) for g, e in zip(pairs[::2], pairs[1::2], strict=False)]

    def items(self, tag: int, wanted: Filter) -> list[dict[int, RawValue]]:
        """Return what is wanted of each item of a sequence; nothing of one that is damaged."""
        raw = dict(self.values).get(tag)
        if raw is None:
            return []
        try:
            return list(items_of(tag, raw, self.encoding, wanted))
        except NotUnderstood:
            return []

    def text(self, raw: RawValue | None) -> str:
        """Return the text of a value in the character set of the data set."""
        return "" if raw is None else text(raw.value[:LONGEST], self.raw(_CHARACTER_SET))

    def word(self, tag: int) -> str:
        """Return the text of a CS, empty of an element that is absent."""
        return code_string(self.raw(tag)[:LONGEST])


NONE: Final = OwnElements()


def own_elements(
    sop_class_uid: str, frames: int, values: Mapping[int, RawValue], encoding: Encoding
) -> OwnElements:
    """Return the elements that this SOP class has for itself, of those of a data set."""
    tags = _OF_CLASS.get(sop_class_uid, _CINE if frames > 1 else frozenset())
    if REGIONS in values:
        tags |= {REGIONS}
    if tags.isdisjoint(values):
        return NONE
    found = {tag: values[tag] for tag in sorted(tags & values.keys())}
    if REFERENCED_SERIES in found:
        # Its items name each instance of a series.
        items = OwnElements(tuple(found.items()), encoding).items(REFERENCED_SERIES, _SERIES_UIDS)
        uids = [code_string(one[_SERIES].value).encode() for one in items if _SERIES in one]
        found[REFERENCED_SERIES] = RawValue("UI", b"\\".join(uids))
    return OwnElements(tuple(found.items()), encoding)
