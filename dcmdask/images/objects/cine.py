"""Cine (PS3.3 C.7.6.5): frames that follow one another in time, of ultrasound and X-rays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import called
from dcmdask.dicom.own_elements import FRAME_INCREMENT_POINTER, FRAME_TIME, FRAME_TIME_VECTOR
from dcmdask.errors import Note
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.planes import Floats
from dcmdask.images.meaning import Meaning
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

_CINE_RATE: Final = 0x00180040
_ORIGINS: Final = {"US": "ultrasound ", "IVUS": "ultrasound ", "XA": "X-ray ", "RF": "X-ray "}
# Changes of the angles of a positioner for each frame (PS3.3 C.8.7.5.1.3), by the angles.
_INCREMENTS: Final = {
    "positioner_primary_angle": 0x00181520,
    "positioner_secondary_angle": 0x00181521,
}


class Cine(Meaning):
    """A loop of frames."""

    kind = "loop"
    separate_from = 2

    def arranged(self, layout: Layout) -> Arrangement:
        """Return frames along ``t``, with times in ms from the first, if the header has them.

        With the angles of a positioner that moves, and their changes from the first frame.
        """
        arrangement = super().arranged(layout)
        if arrangement.dims != ("frame",):
            return arrangement
        one, times = layout.instances[0], _times(layout.instances[0])
        dim = "frame" if isinstance(times, str) else "t"
        numbers = layout.stored[arrangement.numbers]
        found = {
            name: (tuple(dim for _ in along), values)
            for name, (along, values) in arrangement.coordinates.items()
        }
        if not isinstance(times, str):
            found["t"] = (("t",), times[numbers])
        for name in _INCREMENTS:
            increments = _increments(one, name)
            if isinstance(increments, str) or not len(increments):
                continue
            found[f"{name}_increment"] = ((dim,), increments[numbers])
            angles = one.facts[name] + increments
            if np.isfinite(angles).all():
                found[name] = ((dim,), angles[numbers])
        return replace(arrangement, dims=(dim,), coordinates=found)

    def summary(self, layout: Layout) -> str:
        """Return, say, ``ultrasound loop of 30 frames``."""
        origin = _ORIGINS.get(layout.instances[0].modality, "")
        return f"{origin}loop of {counted(layout.frame_numbers.size, 'frame')}"

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say why frames have no times, or no angles."""
        if isinstance(found := _times(instances[0]), str):
            yield Note("frame-time", f"frames have no times: {found}")
        for name in _INCREMENTS:
            if isinstance(increments := _increments(instances[0], name), str):
                yield Note("positioner-angles", increments)


def is_cine(one: Described) -> bool:
    """Return whether the frames of an instance follow one another in time."""
    if len(one) == 1 or not np.isnan(one.facts["position"]).all():
        return False
    if pointer := one.own.tags(FRAME_INCREMENT_POINTER):
        return not {FRAME_TIME, FRAME_TIME_VECTOR}.isdisjoint(pointer)
    return any(one.own.raw(tag) for tag in (FRAME_TIME, FRAME_TIME_VECTOR, _CINE_RATE))


def _times(one: Described) -> Floats | str:
    """Return the time of each frame in ms from the first, or why it is not known.

    By the vector, unless the Frame Increment Pointer names Frame Time alone.
    """
    pointer = one.own.tags(FRAME_INCREMENT_POINTER)
    vector = np.array(one.own.numbers(FRAME_TIME_VECTOR, "DS"))
    if len(vector) and (not pointer or FRAME_TIME_VECTOR in pointer):
        # The first is the time since a frame before, or 0.
        steps, called = vector[1:], "(0018,1065) 'Frame Time Vector'"
        if len(vector) != len(one):
            return f"{called} has {len(vector)} values for {len(one)} frames"
    else:
        each, called = one.own.numbers(FRAME_TIME, "DS")[:1], "(0018,1063) 'Frame Time'"
        rate = one.own.numbers(_CINE_RATE, "IS")[:1]
        if each in ((), (0.0,)) and rate and rate[0] > 0:
            each = (1000 / rate[0],)
        steps = np.repeat(np.array(each or (np.nan,)), len(one) - 1)
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return f"{called} has values that are no times between frames"
    return np.concatenate([[0.0], np.cumsum(steps)])


def _increments(one: Described, name: str) -> Floats | str:
    """Return the change of an angle for each frame, none, or why it is not known.

    A single value is the change from each frame to the next (PS3.3 C.8.7.5.1.3).
    """
    tag = _INCREMENTS[name]
    found = np.array(one.own.numbers(tag, "DS"))
    if len(found) == 1:
        found = found * np.arange(len(one))
    if len(found) not in (0, len(one)):
        return f"{called(tag)} has {len(found)} values for {len(one)} frames"
    if not np.isfinite(found).all():
        return f"{called(tag)} has values that are no numbers"
    return found
