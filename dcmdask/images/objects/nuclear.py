"""Nuclear Medicine (PS3.3 C.8.4): frames by the vectors that the Frame Increment Pointer names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dcmdask.dicom.conversion import numbers
from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import Filter, Wanted
from dcmdask.dicom.own_elements import DETECTORS, FRAME_INCREMENT_POINTER, VECTORS
from dcmdask.errors import Note
from dcmdask.geometry.planes import Floats, Integers, normal_of, spans_plane
from dcmdask.images.meaning import Unplaced
from dcmdask.images.summary import places

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_PLACE: Final = Filter(Wanted((tag,), tag, "DS") for tag in (_POSITION, _ORIENTATION))


class Nuclear(Unplaced):
    """Frames by energy window, detector, phase, rotation, gate, slice, view and time."""

    kind = "nuclear"
    separate_from = 2

    def meant(self, one: Described) -> Described:
        """Return a description with an index for each vector, and positions of reconstructions."""
        vectors = _vectors(one)
        if isinstance(vectors, str):
            return super().meant(one)
        facts = one.facts.copy()
        facts["position"] = np.nan
        place = _place(one)
        if isinstance(place, tuple):
            position, orientation, step = place
            along = (vectors["z"] - vectors["z"].min()) * step
            facts["position"] = position + np.outer(along, normal_of(orientation))
            facts["orientation"] = orientation
        indices = np.column_stack(list(vectors.values())).astype(np.uint32)
        return replace(
            one, table=facts.tobytes(), dimensions=tuple(vectors), index_values=indices.tobytes()
        )

    def summary(self, layout: Layout) -> str:
        """Return, say, ``nuclear medicine: 2 detectors x 60 angular views``."""
        return f"nuclear medicine: {places(layout.lengths)}"

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say why vectors tell no dimensions, or slices have no place."""
        for code, read in (("frame-vectors", _vectors), ("slice-positions", _place)):
            reasons = (found for one in instances if isinstance(found := read(one), str))
            if reason := next(reasons, ""):
                yield Note(code, reason)


def _vectors(one: Described) -> dict[str, Integers] | str:
    """Return the number of each frame along the dimensions, or why they are not known."""
    found: dict[str, Integers] = {}
    for tag in one.own.tags(FRAME_INCREMENT_POINTER):
        name = VECTORS.get(tag)
        if name is None:
            continue
        values = np.array(one.own.numbers(tag, "US"))
        if len(values) != len(one) or not np.isfinite(values).all():
            called = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            return (
                f"the vector {called} has {len(values)} values for {len(one)} frames: which frame "
                "is which is not known"
            )
        found[name] = values.astype(np.int64)
    if len(one) == 1:
        return found or {"z": np.ones(1, np.int64)}
    if not found:
        return "(0028,0009) 'Frame Increment Pointer' names no vector of nuclear medicine"
    places = np.prod([len(np.unique(values)) for values in found.values()])
    if not len(np.unique(list(found.values()), axis=1).T) == len(one) == places:
        return f"the vectors of {', '.join(found)} do not give each frame a place in a full grid"
    return found


def _place(one: Described) -> tuple[Floats, Floats, float] | str | None:
    """Return position and orientation of the first slice, and the way from one to the next.

    Why they are not known, where there is a position that cannot be used; None without one, and
    of frames that are no slices.
    The spacing is along the normal, and negative where slices go against it.
    """
    vectors = _vectors(one)
    if isinstance(vectors, str) or "z" not in vectors:
        return None
    spacing = float(one.facts["between"][0]) if len(one) > 1 else 0.0
    for item in one.own.items(DETECTORS, _PLACE)[:1]:
        position, orientation = (
            np.array(numbers(item[tag].value, "DS", True) if tag in item else ())
            for tag in (_POSITION, _ORIENTATION)
        )
        is_there = position.shape == (3,) and orientation.shape == (6,)
        finite = np.isfinite([*position, *orientation, spacing]).all()
        if is_there and finite and spans_plane(orientation[np.newaxis]).all():
            return position, orientation, spacing
        if len(position):
            return (
                "position or orientation in (0054,0022) 'Detector Information Sequence', or "
                "(0018,0088) 'Spacing Between Slices', cannot be used: slices have no place"
            )
    return None
