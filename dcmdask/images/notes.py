"""Notes on the instances of a stack: identifiers, types and spacings that differ, and mosaics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dcmdask.arrays.concatenation import common_type, types_of
from dcmdask.dicom.description import Described, facts_of
from dcmdask.errors import Note
from dcmdask.images.plain import is_mosaic


def notes_on(instances: Sequence[Described]) -> tuple[Note, ...]:
    """Return notes on what the instances of a stack do not have in common."""
    return tuple(_notes(instances))


def _notes(instances: Sequence[Described]) -> Iterator[Note]:
    if is_mosaic(instances[0]):
        text = "Siemens mosaics: each frame holds the tiles of a volume, as stored"
        yield Note("mosaic", text)
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

    if any(one.spacing_source == "SequenceOfUltrasoundRegions" for one in instances):
        spacings = facts_of(instances)["spacing"]
        if not np.isfinite(spacings).all() or (spacings != spacings[0]).any():
            yield Note(
                "ultrasound-regions",
                "Sequence of Ultrasound Regions (0018,6011) does not tell one distance of pixels: "
                "regions in two dimensions differ, or there are none",
            )

    types = types_of(instances)
    if len(types) > 1:
        listed = ", ".join(sorted(map(str, types)))
        yield Note(
            "stored-types",
            f"stored values are {listed}: they are joined as {common_type(types)}, which holds all",
        )


def _counted(uids: set[str]) -> str:
    instances_without = " (some instances have none)" if "" in uids else ""
    return f"{len(uids - {''})}{instances_without}"
