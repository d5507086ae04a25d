"""Segmentations of a small CT series, written by highdicom."""

import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import xarray as xr
from made_series import AXIAL, along, classic
from make_dicom import noise
from pydicom import dcmread
from pydicom.sr.codedict import codes

from dcmdask import scan
from dcmdask.errors import DcmdaskWarning

PLANES, ROWS, COLUMNS = 6, 10, 12
# Whole numbers of 8 bits, inside of what sRGB has.
COLOURS = ((60.0, 40.0, 20.0), (80.0, -20.0, 5.0))
KINDS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


def source(folder: Path, orientation: tuple[float, ...] = AXIAL) -> list[Any]:
    """Data sets of a CT series, which highdicom refers to."""
    frames = noise(PLANES, ROWS, COLUMNS, dtype="i2", bits=12)
    positions = along(orientation, 2.5 * np.arange(PLANES))
    personal = {
        "PatientID": "1",
        "PatientName": "A^B",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyID": "1",
        "StudyDate": "20200101",
        "StudyTime": "100000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PositionReferenceIndicator": "",
        "SliceThickness": 2.5,
    }
    paths = classic(folder, frames, positions, orientation=orientation, seed=None, **personal)
    return [dcmread(path) for path in paths]


def described(number: int, label: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver if number % 2 else codes.SCT.Kidney,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        display_color=hd.color.CIELabColor(*COLOURS[number % 2]),
    )


def written(
    path: Path,
    images: list[Any],
    pixels: np.ndarray,
    kind: str = "BINARY",
    labels: tuple[str, ...] = ("Liver", "Kidney", "Spleen"),
    **options: Any,
) -> Path:
    """Write segments (planes, rows, columns[, segments]) with highdicom."""
    segmentation = hd.seg.Segmentation(
        images,
        pixels,
        segmentation_type=kind,
        segment_descriptions=[described(n, label) for n, label in enumerate(labels, 1)],
        series_instance_uid="1.2.826.0.1.3680043.8.498.70",
        series_number=2,
        sop_instance_uid="1.2.826.0.1.3680043.8.498.71",
        instance_number=1,
        manufacturer="us",
        manufacturer_model_name="us",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    segmentation.save_as(path)
    return path


def masks(seed: int = 0, segments: int = 3, overlapping: bool = False) -> np.ndarray:
    """Segments (planes, rows, columns, segments), each on some of the planes."""
    rng = np.random.default_rng(seed)
    made = np.zeros((PLANES, ROWS, COLUMNS, segments), np.uint8)
    for segment in range(segments):
        rows = slice(0, ROWS) if overlapping else slice(3 * segment, 3 * segment + 3)
        chosen = rng.random((3, rows.stop - rows.start, COLUMNS)) < 0.5
        made[segment : segment + 3, rows, :, segment] = chosen
    return made


def read(path: Path, **options: Any) -> xr.DataArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        return scan(path)[0].to_xarray(**options)


def changed(path: Path, change: Any) -> Path:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path
