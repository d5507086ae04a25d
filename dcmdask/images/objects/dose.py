"""RT Dose (PS3.3 C.8.8.3): planes at offsets of a grid, in the units of the dose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dcmdask.dicom.conversion import term
from dcmdask.dicom.description import Described
from dcmdask.errors import Note
from dcmdask.geometry.planes import Floats, normal_of, spans_plane
from dcmdask.images.meaning import Meaning
from dcmdask.images.summary import places
from dcmdask.labelled.labels import units

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

_POSITION, _OFFSETS = 0x00200032, 0x3004000C
_ATTRIBUTES: Final = {
    "dose_type": (0x30040004, "PHYSICAL EFFECTIVE ERROR"),
    "dose_summation_type": (
        0x3004000A,
        "PLAN MULTI_PLAN PLAN_OVERVIEW FRACTION BEAM BRACHY FRACTION_SESSION BEAM_SESSION "
        "BRACHY_SESSION CONTROL_POINT RECORD",
    ),
}


class Dose(Meaning):
    """A grid of doses."""

    kind = "dose"
    separate_from = 2

    def meant(self, one: Described) -> Described:
        """Return a description with the position of each plane."""
        positions = _positions(one)
        if positions is None:
            return one
        facts = one.facts.copy()
        facts["position"] = positions
        return replace(one, table=facts.tobytes())

    def attributes(self, instances: Sequence[Described]) -> dict[str, Any]:
        """Return ``dose_type`` and ``dose_summation_type``, as (3004,0004) and (3004,000A)."""
        found = {}
        for name, (tag, terms) in _ATTRIBUTES.items():
            words = {term(one.own.word(tag), terms) for one in instances}
            if len(words) == 1 and (word := words.pop()) is not None:
                found[name] = word
        return found

    def summary(self, layout: Layout) -> str:
        """Return, say, ``dose in GY, PHYSICAL, of PLAN, on 100 planes``."""
        found = self.attributes(layout.instances)
        unit = units(layout.instances, layout.facts, "modality")
        kind, summed = found.get("dose_type"), found.get("dose_summation_type")
        words = (f"dose in {unit}" if unit else "dose", kind, f"of {summed}" if summed else None)
        return ", ".join([*filter(None, words), f"on {places(layout.lengths)}"])

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say why planes have no positions."""
        for one in instances:
            if len(one) > 1 and isinstance(found := _offsets(one), str):
                yield Note("grid-frame-offset-vector", found)
                return


def _positions(one: Described) -> Floats | None:
    """Return the position of each frame, (frames, 3); None where they stay as they are."""
    offsets = _offsets(one) if len(one) > 1 else ""
    first = one.own.numbers(_POSITION, "DS")
    if isinstance(offsets, str) or not first:
        return None
    # A value that cannot be read is infinity, and is named as in other images.
    position = np.array(first if len(first) == 3 else [np.inf] * 3)
    orientation = one.facts["orientation"]
    if not spans_plane(orientation).all():
        return np.tile(position, (len(one), 1))
    return position + np.outer(offsets, normal_of(orientation[0]))


def _offsets(one: Described) -> Floats | str:
    """Return the distance of each plane from the first along the normal, or why there is none.

    The Grid Frame Offset Vector begins with 0, or has the third components of the positions
    (PS3.3 C.8.8.3.2).
    """
    vector = np.array(one.own.numbers(_OFFSETS, "DS"))
    if len(vector) != len(one):
        return (
            f"(3004,000C) 'Grid Frame Offset Vector' has {len(vector)} values for {len(one)} "
            "frames: where they lie is not known"
        )
    if not np.isfinite(vector).all():
        return "(3004,000C) 'Grid Frame Offset Vector' has values that are no numbers"
    if vector[0] == 0:
        return vector
    position = one.own.numbers(_POSITION, "DS")
    orientation = one.facts["orientation"]
    along = normal_of(orientation[0]) if spans_plane(orientation).all() else np.zeros(3)
    if len(position) == 3 and np.isclose(abs(along[2]), 1) and np.isclose(position[2], vector[0]):
        return np.asarray((vector - vector[0]) * np.sign(along[2]))
    return (
        f"(3004,000C) 'Grid Frame Offset Vector' begins with {vector[0]:g}, which is neither 0 nor "
        "the third component of the position: where frames lie is not known"
    )
