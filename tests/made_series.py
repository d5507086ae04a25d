"""Whole series of small files in a known geometry: classic and enhanced, regular and not."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from make_dicom import native, noise
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# Turned about two axes; orthonormal to ten digits.
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
SERIES = "1.2.826.0.1.3680043.8.498.7"
STORAGE = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}


def normal(orientation: Sequence[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def along(orientation: Sequence[float], distances: Sequence[float]) -> np.ndarray:
    """Positions (n, 3) at these distances along the normal, from an origin off the axes."""
    origin = np.array([-12.5, 30.25, -7.0])
    return origin + np.outer(distances, normal(orientation))


def classic(
    folder: Path,
    frames: np.ndarray,
    positions: np.ndarray | None,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.75),
    modality: str = "CT",
    series: str = SERIES,
    numbers: Sequence[int] | None = None,
    each: Mapping[str, Sequence[Any]] | None = None,
    seed: int | None = 0,
    **elements: Any,
) -> list[Path]:
    """One file for each frame (n, rows, columns), named in random order unless `seed` is None.

    `each` gives an element's value for each frame; None leaves it out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = np.arange(len(frames))
    if seed is not None:
        np.random.default_rng(seed).shuffle(names)
    paths = []
    for number, frame in enumerate(frames):
        own = {keyword: values[number] for keyword, values in (each or {}).items()}
        if positions is not None:
            own["ImagePositionPatient"] = [f"{x:.9g}" for x in positions[number]]
            own["ImageOrientationPatient"] = [f"{x:.9g}" for x in orientation]
        own = {
            "SOPClassUID": STORAGE[modality],
            "SOPInstanceUID": f"{series}.{names[number] + 1}",
            "SeriesInstanceUID": series,
            "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.6",
            "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5",
            "Modality": modality,
            "PixelSpacing": list(spacing),
            "InstanceNumber": (numbers or range(1, len(frames) + 1))[number],
            "NumberOfFrames": None,
            **elements,
            **own,
        }
        path = folder / f"{names[number]:04}"
        path.write_bytes(native(frame[np.newaxis], **own))
        paths.append(path)
    return paths


def archive(folder: Path, count: int, frames: int = 2) -> dict[int, np.ndarray]:
    """Make series `SERIES`.0 and so on, each in a folder of its number; return their frames."""
    made = {}
    for number in range(count):
        made[number] = noise(frames, 8, 8, seed=number)
        positions = along(AXIAL, 2.5 * np.arange(frames))
        uid = f"{SERIES}.{number}"
        classic(folder / f"{number:03}", made[number], positions, series=uid, seed=None)
    return made


def enhanced(
    folder: Path,
    frames: np.ndarray,
    positions: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.75),
    contents: Sequence[Mapping[str, Any]] | None = None,
    macros: Sequence[Mapping[str, Mapping[str, Any]]] | None = None,
    name: str = "enhanced",
    series: str = SERIES,
    **elements: Any,
) -> Path:
    """One multi-frame MR file. `contents` go into Frame Content; `macros` are sequences by name."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_of({"ImageOrientationPatient": list(orientation)})]
    shared.PixelMeasuresSequence = [_of({"PixelSpacing": list(spacing), "SliceThickness": 2.0})]
    groups = []
    for number, position in enumerate(positions):
        group = Dataset()
        group.PlanePositionSequence = [
            _of({"ImagePositionPatient": [f"{x:.9g}" for x in position]})
        ]
        group.FrameContentSequence = [_of(contents[number] if contents else {"StackID": "1"})]
        for sequence, values in (macros[number] if macros else {}).items():
            setattr(group, sequence, [_of(values)])
        groups.append(group)
    path = folder / name
    path.write_bytes(
        native(
            frames,
            SOPClassUID=EnhancedMRImageStorage,
            SOPInstanceUID=f"{series}.{zlib.crc32(name.encode())}",
            SeriesInstanceUID=series,
            StudyInstanceUID="1.2.826.0.1.3680043.8.498.6",
            FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.5",
            Modality="MR",
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=groups,
            **elements,
        )
    )
    return path


def direction(gradient: Sequence[float]) -> Dataset:
    """An item of the Diffusion Gradient Direction Sequence."""
    return _of({"DiffusionGradientOrientation": list(map(float, gradient))})


def _of(values: Mapping[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
