"""Notes on the instances of a stack: identifiers, types and spacings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.tag import Tag

from dcmdask.arrays.concatenation import common_type, types_of
from dcmdask.dicom.description import Described
from dcmdask.dicom.frame_facts import TAGS
from dcmdask.dicom.image_pixel import called
from dcmdask.errors import Note
from dcmdask.geometry.planes import common_spacing, is_out_of_reach, is_placed


def notes_on(instances: Sequence[Described], facts: npt.NDArray[Any]) -> Iterator[Note]:
    """Yield notes on what the instances of a stack, and their frames, do not have in common."""
    studies = {one.study_uid for one in instances}
    if len(studies) > 1:
        yield Note(
            "study-uids",
            f"{_counted(studies)} Study Instance UIDs (0020,000D): the Series Instance UID decides",
        )
    frames_of_reference = {one.frame_of_reference_uid for one in instances}
    if len(frames_of_reference) > 1:
        yield Note(
            "frame-of-reference-uids",
            f"{_counted(frames_of_reference)} Frame of Reference UIDs (0020,0052): positions are "
            "taken for those of one frame of reference",
        )

    if text := _without_spacing(instances, facts):
        yield Note("pixel-spacing", f"x and y have no coordinates: {text}")

    types = types_of(instances)
    if len(types) > 1:
        listed = ", ".join(sorted(map(str, types)))
        yield Note(
            "stored-types",
            f"stored values are {listed}: they are joined as {common_type(types)}, which holds all",
        )


def _without_spacing(instances: Sequence[Described], facts: npt.NDArray[Any]) -> str:
    """Say why there is no common spacing of pixels; nothing where no header has any.

    Of frames that are placed it is an irregularity.
    """
    if is_placed(facts).all():
        return ""
    if np.isfinite(common_spacing(facts, instances[0].rows, instances[0].columns)).all():
        return ""
    spacings = facts["spacing"]
    absent, unreadable = np.isnan(spacings).any(axis=1), is_out_of_reach(spacings)
    for bad, why in (
        (unreadable, "cannot be read"),
        ((spacings <= 0).any(axis=1), "is not positive"),
    ):
        if bad.any():
            return f"{_spacing_element(instances)} of {bad.sum()} of {len(facts)} frames {why}"
    if any(
        one.spacing_source == "SequenceOfUltrasoundRegions" and np.isnan(one.facts["spacing"]).any()
        for one in instances
    ):
        return "ultrasound regions (0018,6011) of one image have several spacings of pixels"
    if absent.all():
        return ""
    if absent.any():
        return f"{absent.sum()} of {len(facts)} frames have no spacing of pixels"
    (y, x), (last_y, last_x) = spacings.min(axis=0), spacings.max(axis=0)
    return f"spacings of pixels are from {y:g} x {x:g} to {last_y:g} x {last_x:g} mm"


def _spacing_element(instances: Sequence[Described]) -> str:
    sources = {one.spacing_source for one in instances} - {""}
    return called(Tag(sources.pop()) if len(sources) == 1 else TAGS["spacing"])


def _counted(uids: set[str]) -> str:
    instances_without = " (some instances have none)" if "" in uids else ""
    return f"{len(uids - {''})}{instances_without}"
