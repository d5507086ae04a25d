"""Multi-frame files of any class with functional groups and dimensions, made for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_series import AXIAL, SERIES, along
from make_dicom import native, saved
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedUSVolumeStorage

POINTERS = {
    "z": (0x00209057, 0x00209111),  # In-Stack Position Number
    "t": (0x00209128, 0x00209111),  # Temporal Position Index
    "position": (0x00209301, 0x0020930E),  # Image Position (Volume)
    "data": (0x00189808, 0x00189807),  # Data Type
}


def item(**values: Any) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def multi_frame(
    folder: Path,
    frames: np.ndarray,
    dimensions: Sequence[str],
    indices: Sequence[Sequence[int]],
    sop_class: UID,
    groups: Sequence[Mapping[str, Dataset]],
    shared: Mapping[str, Dataset] | None = None,
    **elements: Any,
) -> Path:
    """A file whose frames have these Dimension Index Values and functional groups."""
    folder.mkdir(parents=True, exist_ok=True)
    pointers = [
        item(DimensionIndexPointer=tag, FunctionalGroupPointer=group)
        for tag, group in (POINTERS[name] for name in dimensions)
    ]
    per_frame = []
    for values, macros in zip(indices, groups, strict=True):
        content = item(DimensionIndexValues=list(values))
        for name, value in zip(dimensions, values, strict=True):
            if name == "z":
                content.StackID, content.InStackPositionNumber = "1", value
            if name == "t":
                content.TemporalPositionIndex = value
        group = item(FrameContentSequence=[content])
        for keyword, macro in macros.items():
            setattr(group, keyword, [macro])
        per_frame.append(group)
    common = {"PixelMeasuresSequence": item(PixelSpacing=[0.5, 0.75], SliceThickness=2.5)}
    all_frames = item(**{name: [macro] for name, macro in {**common, **(shared or {})}.items()})
    found = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": f"{SERIES}.1",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": "1.2.4",
        "DimensionIndexSequence": pointers,
        "SharedFunctionalGroupsSequence": [all_frames],
        "PerFrameFunctionalGroupsSequence": per_frame,
        **elements,
    }
    return saved(folder, native(frames, **found), "0")


def in_patient(position: np.ndarray) -> dict[str, Dataset]:
    return {"PlanePositionSequence": item(ImagePositionPatient=[f"{x:.9g}" for x in position])}


def turned(orientation: Sequence[float]) -> dict[str, Dataset]:
    text = [f"{x:.9g}" for x in orientation]
    return {"PlaneOrientationSequence": item(ImageOrientationPatient=text)}


def ultrasound(
    folder: Path,
    frames: np.ndarray,
    dimensions: Sequence[str],
    indices: Sequence[Sequence[int]],
    distances: Sequence[float],
    orientation: Sequence[float] = AXIAL,
    seconds: Sequence[float] | None = None,
    **elements: Any,
) -> Path:
    groups: list[dict[str, Dataset]] = []
    for number, position in enumerate(along(orientation, distances)):
        groups.append({"PlanePositionVolumeSequence": item(ImagePositionVolume=position.tolist())})
        if seconds is not None:
            time = item(TemporalPositionTimeOffset=float(seconds[number]))
            groups[-1]["TemporalPositionSequence"] = time
        if "data" in dimensions:
            kind = ("TISSUE_INTENSITY", "FLOW_VELOCITY")[indices[number][-1] - 1]
            groups[-1]["ImageDataTypeSequence"] = item(DataType=kind, AliasedDataType="NO")
    shared = {
        "PlaneOrientationVolumeSequence": item(ImageOrientationVolume=list(map(float, orientation)))
    }
    how = {"VolumeFrameOfReferenceUID": "1.2.5", "Modality": "US", **elements}
    sop_class = EnhancedUSVolumeStorage
    return multi_frame(folder, frames, dimensions, indices, sop_class, groups, shared, **how)
