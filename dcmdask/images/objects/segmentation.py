"""Segmentations and label maps (PS3.3 A.51 and C.8.20): segments as a dimension, or as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from dcmdask.dicom.conversion import numbers, term, uid
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import Filter, RawValue, Wanted
from dcmdask.dicom.own_elements import REFERENCED_SERIES
from dcmdask.errors import Note
from dcmdask.geometry.axes import distinct
from dcmdask.geometry.coordinates import Coordinates
from dcmdask.geometry.dimensions import Arrangement, arrange
from dcmdask.geometry.planes import Floats, Integers
from dcmdask.geometry.sparse import Places, arrange_sparse
from dcmdask.images.cielab import srgb_of
from dcmdask.images.meaning import Meaning
from dcmdask.images.summary import counted, places

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

_SEGMENTS, _TYPE = 0x00620002, 0x00620001
_NUMBER, _LABEL, _ALGORITHM, _COLOUR = 0x00620004, 0x00620005, 0x00620008, 0x0062000D
_CATEGORY, _PROPERTY, _MEANING, _CODE = 0x00620003, 0x0062000F, 0x00080104, 0x00080100
_SEGMENT: Final = Filter(
    (
        *(Wanted((tag,), tag) for tag in (_NUMBER, _LABEL, _ALGORITHM, _COLOUR)),
        Wanted((_CATEGORY, _MEANING), _CATEGORY),
        Wanted((_PROPERTY, _MEANING), _PROPERTY),
        Wanted((_PROPERTY, _CODE), _CODE),
    )
)


class Segment(NamedTuple):
    """One segment, as (0062,0002) Segment Sequence describes it."""

    number: int
    label: str
    category: str = ""
    property_type: str = ""
    code: str = ""
    algorithm: str = ""
    colour: str = ""


class Segmentation(Meaning):
    """Segments of an image, each at the positions where it is."""

    kind = "segmentation"
    separate_from = 1
    empty = 0
    # Segments are compared and laid over one another plane by plane.
    whole = "segment"

    def arranged(self, layout: Layout) -> Arrangement:
        """Return frames along ``segment`` and z; where there is none, the segment is not."""
        numbers = layout.facts["segment"]
        segments, dims = [], {}
        # Frames of a label map have no segment.
        if np.isfinite(numbers).all():
            segments = _all_segments(layout.instances[0], numbers)
            known = {one.number: place for place, one in enumerate(segments)}
            places = np.array([known[int(number)] for number in numbers.tolist()])
            dims = {"segment": Places(places, len(segments))}
        found = arrange_sparse(layout.facts, dims, _others(layout), layout.tolerance)
        if found is None:
            # Tiles of a slide, for example.
            return arrange(layout.facts, layout.stored)
        return replace(found, coordinates={**found.coordinates, **_coordinates(segments)})

    def attributes(self, instances: Sequence[Described]) -> dict[str, Any]:
        """Return ``segmentation_type``, ``referenced_series``; and of a label map its labels.

        These are ``labels``, ``label_numbers`` and ``label_colours``. The UIDs are those of the
        series that the segments were drawn on.
        """
        one = instances[0]
        series = _referenced_series(one)
        found: dict[str, Any] = {"referenced_series": series} if series else {}
        if kind := term(one.own.word(_TYPE), "BINARY FRACTIONAL LABELMAP"):
            found["segmentation_type"] = kind
        if not np.isfinite(one.facts["segment"]).all():
            segments = _segments(one)
            found["label_numbers"] = [each.number for each in segments]
            found["labels"] = [each.label for each in segments]
            found["label_colours"] = [each.colour for each in segments]
        return found

    def summary(self, layout: Layout) -> str:
        """Return, say, ``segmentation of 11 segments on 545 planes of series ...9256``."""
        one, lengths = layout.instances[0], layout.lengths
        segments = lengths.pop("segment", None) or len(_segments(one))
        found = "label map" if one.own.word(_TYPE) == "LABELMAP" else "segmentation"
        found += f" of {counted(segments, 'segment')}"
        if lengths:
            found += f" on {places(lengths)}"
        series = _referenced_series(one)
        if len(series) == 1:
            return f"{found} of series ...{series[0][-4:]}"
        return f"{found} of {len(series)} series" if series else found

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say which frames and descriptions of segments have nothing to do with one another."""
        one = instances[0]
        described = {each.number for each in _segments(one)}
        numbers = one.facts["segment"]
        there = set(numbers[np.isfinite(numbers)].astype(int).tolist())
        if unknown := there - described:
            listed = ", ".join(map(str, sorted(unknown)))
            yield Note("segments", f"segments {listed} have frames and no description (0062,0002)")
        if there and len(there) < len(described):
            empty = len(described - there)
            yield Note(
                "segments", f"{empty} of {len(described)} segments have no frame: they are empty"
            )
        if there and not np.isfinite(numbers).all():
            lacking = int((~np.isfinite(numbers)).sum())
            text = f"{lacking} of {len(numbers)} frames do not say of which segment they are"
            yield Note("segments", text)


def _referenced_series(one: Described) -> list[str]:
    texts = one.own.raw(REFERENCED_SERIES).decode("ascii", "replace").split("\\")
    return [text for text in texts if uid(text)]


def _others(layout: Layout) -> dict[str, Integers]:
    """Return the places of frames along other dimensions that the object has."""
    if layout.indices is None:
        return {}
    return {
        name: distinct(values.astype(np.int64), 0.5)
        for name, values in zip(layout.indices.names, layout.indices.values.T, strict=True)
        if name not in ("segment", "z", "stack")
    }


def _all_segments(one: Described, numbers: Floats) -> list[Segment]:
    """Return the segments that are described, and those that only frames have."""
    found = {each.number: each for each in _segments(one)}
    for number in numbers.astype(int).tolist():
        found.setdefault(number, Segment(number, f"segment {number}"))
    return [found[number] for number in sorted(found)]


def _segments(one: Described) -> list[Segment]:
    found = []
    for item in one.own.items(_SEGMENTS, _SEGMENT):
        number = _numbers(item, _NUMBER, one)
        if len(number) != 1 or not np.isfinite(number[0]):
            continue
        label, category, kind, code, algorithm = (
            one.own.text(item.get(tag)) for tag in (_LABEL, _CATEGORY, _PROPERTY, _CODE, _ALGORITHM)
        )
        colour = _hexadecimal(_numbers(item, _COLOUR, one))
        found.append(Segment(int(number[0]), label, category, kind, code, algorithm, colour))
    return found


def _numbers(item: dict[int, RawValue], tag: int, one: Described) -> tuple[float, ...]:
    raw = item.get(tag)
    return () if raw is None else numbers(raw.value, "US", one.own.encoding.little_endian)


def _coordinates(segments: Sequence[Segment]) -> Coordinates:
    """Return the coordinates of segments; labels that occur twice get their number."""
    if not segments:
        return {}
    count = Counter(one.label for one in segments)
    labels = [
        one.label if one.label and count[one.label] == 1 else f"{one.label} {one.number}".strip()
        for one in segments
    ]
    columns = {
        "segment": labels,
        "segment_number": [one.number for one in segments],
        "segment_category": [one.category for one in segments],
        "segment_type": [one.property_type for one in segments],
        "segment_code": [one.code for one in segments],
        "segment_algorithm": [one.algorithm for one in segments],
        "segment_colour": [one.colour for one in segments],
    }
    return {name: (("segment",), np.array(values)) for name, values in columns.items()}


def _hexadecimal(cielab: Sequence[float]) -> str:
    """Return a Recommended Display CIELab Value (PS3.3 C.10.7.1.1) as sRGB, such as ``#dc8464``."""
    rgb = srgb_of(cielab)
    return "" if rgb is None else "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
