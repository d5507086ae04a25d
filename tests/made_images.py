"""Files of the classes of images that are not volumes of planes, made for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap
from made_series import AXIAL, SERIES, along, classic, normal
from make_dicom import (
    DELIMITER,
    described,
    encoded,
    item,
    native,
    native_value,
    noise,
    part10,
    pixel_element,
    saved,
)
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    NuclearMedicineImageStorage,
    RLELossless,
    RTDoseStorage,
    UltrasoundMultiFrameImageStorage,
)

# The position of the first pixel.
FIRST = along(AXIAL, [0.0])[0]

# RT Dose

SCALING = 3.7e-5


def dose(
    folder: Path,
    frames: np.ndarray | None = None,
    offsets: Sequence[Any] | None = (0.0, 2.5, 5.0, 7.5),
    *,
    orientation: Sequence[float] = AXIAL,
    name: str = "dose.dcm",
    **elements: Any,
) -> Path:
    """An RT Dose of 32 bits, 4 planes of 6 x 8 pixels unless there are others."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = noise(4, 6, 8, dtype="u4") if frames is None else frames
    found = {
        "SOPClassUID": RTDoseStorage,
        "SOPInstanceUID": f"{SERIES}.{len(name)}",
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.6",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5",
        "Modality": "RTDOSE",
        "PixelSpacing": [0.5, 0.75],
        "ImagePositionPatient": FIRST.tolist(),
        "ImageOrientationPatient": list(orientation),
        "FrameIncrementPointer": 0x3004000C,
        "GridFrameOffsetVector": None if offsets is None else list(offsets),
        "DoseUnits": "GY",
        "DoseType": "PHYSICAL",
        "DoseSummationType": "PLAN",
        "DoseGridScaling": SCALING,
        **elements,
    }
    here = {keyword: value for keyword, value in found.items() if value is not None}
    return saved(folder, native(frames, ImplicitVRLittleEndian, **here), name)


# Mosaics of Siemens

SPACING = (0.5, 0.75)
GAP = 3.25
MR = 0x0019
CSA = 0x0029


def csa(elements: Mapping[str, tuple[str, Sequence[str]]], form: int = 2) -> bytes:
    """A CSA header of either form, as nibabel's documentation describes them."""
    least = 6  # items of each element, of which those behind the last value are empty
    first = max(least, len(next(iter(elements.values()))[1])) if elements else least
    out = bytearray(b"SV10\4\3\2\1" if form == 2 else b"")
    out += struct.pack("<2I", len(elements), 77)
    for name, (vr, values) in elements.items():
        items = max(least, len(values))
        out += struct.pack("<64si4s3i", name.encode(), len(values), vr.encode(), 0, items, 77)
        for number in range(items):
            value = values[number].encode() + b"\0" if number < len(values) else b""
            length = len(value)
            out += struct.pack("<4i", length + (0 if form == 2 else first), length, 77, length)
            out += value + bytes(-length % 4)
    return bytes(out)


def told(
    tiles: int, direction: Sequence[float], times: Sequence[float] | None = None
) -> dict[str, tuple[str, Sequence[str]]]:
    """Elements of a CSA header, with others between those that are read."""
    times = [50.0 * number for number in range(tiles)] if times is None else times
    return {
        "EchoLinePosition": ("IS", ["32"]),
        "NumberOfImagesInMosaic": ("US", [f"{tiles}".ljust(8)]),
        "B_value": ("IS", []),
        "SliceNormalVector": ("FD", [f"{x:.8f}" for x in direction]),
        "ImaCoilString": ("LO", ["HEA;HEP"]),
        "MosaicRefAcqTimes": ("FD", [f"{time:.8f}" for time in times]),
    }


def mosaic(
    folder: Path,
    tiles: np.ndarray,
    *,
    name: str = "0",
    grid: tuple[int, int] | None = None,
    form: int = 2,
    private: dict[str, tuple[str, Sequence[str]]] | bytes | None = None,
    block: int = 0x10,
    orientation: Sequence[float] = AXIAL,
    compressed: bool = False,
    mr_header: int | None = None,
    **elements: Any,
) -> Path:
    """A mosaic of `tiles` (n, rows, columns), the first with its first pixel at `FIRST`.

    `private` are the elements of the CSA header; None for those that are right, empty for none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, rows, columns = tiles.shape
    side = ceil(sqrt(count))
    down, across = grid or (side, side)
    frame = np.zeros((1, down * rows, across * columns), tiles.dtype)
    for number, tile in enumerate(tiles):
        top, left = rows * (number // across), columns * (number % across)
        frame[0, top : top + rows, left : left + columns] = tile
    middle = np.multiply(orientation[:3], SPACING[1] * (frame.shape[2] - columns) / 2)
    middle = middle + np.multiply(orientation[3:], SPACING[0] * (frame.shape[1] - rows) / 2)
    found = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"{SERIES}.1{name}",
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.6",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5",
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "PixelSpacing": list(SPACING),
        "ImageOrientationPatient": list(orientation),
        "ImagePositionPatient": [f"{x:.10g}" for x in FIRST - middle],
        "SliceThickness": 3,
        "SpacingBetweenSlices": GAP,
        "RepetitionTime": 2000,
        "InstanceNumber": 1,
        "NumberOfFrames": None,
        **elements,
    }
    dataset = described(frame, **{key: value for key, value in found.items() if value is not None})
    if found["NumberOfFrames"] is None:
        del dataset.NumberOfFrames
    if private is None:
        private = told(count, normal(orientation))
    if private:
        data = private if isinstance(private, bytes) else csa(private, form)
        dataset.add_new((CSA, block), "LO", "SIEMENS CSA HEADER")
        dataset.add_new((CSA, block << 8 | 0x10), "OB", data)
    if mr_header is not None:
        dataset.add_new((MR, 0x12), "LO", "SIEMENS MR HEADER")
        dataset.add_new((MR, 0x120A), "US", mr_header)
    syntax = RLELossless if compressed else ExplicitVRLittleEndian
    value = native_value(frame, syntax, "OW", dataset)
    if compressed:
        value = item(b"") + item(encoded(frame[0], syntax)) + DELIMITER
    path = folder / name
    path.write_bytes(part10(dataset, syntax, pixel_element(value, syntax)))
    return path


def run_of(folder: Path, tiles: np.ndarray, **options: Any) -> Path:
    """A file for each volume of `tiles` (t, z, y, x), 2 s apart."""
    for number, volume in enumerate(tiles):
        time = f"1000{2 * number:02}"
        more = {"AcquisitionTime": time, "InstanceNumber": number + 1}
        mosaic(folder, volume, name=str(number), **{**more, **options})
    return folder


# Grids of UIH

UIH = 0x0065


def uih(
    folder: Path,
    tiles: np.ndarray,
    positions: Sequence[Sequence[float]] | np.ndarray | None,
    *,
    name: str = "0",
    orientation: Sequence[float] = AXIAL,
    number: int | None = -1,
    first: Sequence[float] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> Path:
    """A grid of `tiles` (n, rows, columns), by (0065,1050) and (0065,1051) of dcm2niix's notes.

    `number` is that of tiles in the header, -1 for the right one. They are 50 ms apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, rows, columns = tiles.shape
    across = ceil(sqrt(count))
    down = ceil(count / across)
    frame = np.zeros((1, down * rows, across * columns), tiles.dtype)
    for place, tile in enumerate(tiles):
        top, left = rows * (place // across), columns * (place % across)
        frame[0, top : top + rows, left : left + columns] = tile
    if first is None:
        first = FIRST if positions is None else positions[0]
    found = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"{SERIES}.1{name}",
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.6",
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.5",
        "Modality": "MR",
        "Manufacturer": "UIH",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "VFRAME"],
        "PixelSpacing": list(SPACING),
        "ImageOrientationPatient": [f"{x:.9g}" for x in orientation],
        "ImagePositionPatient": [f"{x:.9g}" for x in first],
        "SliceThickness": 3,
        "SpacingBetweenSlices": GAP,
        "RepetitionTime": 2000,
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "100000.000",
        **elements,
    }
    dataset = described(frame, **{key: value for key, value in found.items() if value is not None})
    del dataset.NumberOfFrames
    dataset.add_new((UIH, 0x10), "LO", "Image Private Header")
    if number is not None:
        dataset.add_new((UIH, 0x1050), "DS", str(count if number == -1 else number))
    if positions is not None:
        items = []
        for place, position in enumerate(positions):
            items.append(Dataset())
            items[-1].AcquisitionDate = "20200101"
            items[-1].AcquisitionTime = f"1000{place * 0.05:06.3f}"
            items[-1].ImagePositionPatient = [f"{x:.9g}" for x in position]
        dataset.add_new((UIH, 0x1051), "SQ", items)
    path = folder / name
    value = native_value(frame, syntax, "OW", dataset)
    path.write_bytes(part10(dataset, syntax, pixel_element(value, syntax)))
    return path


# Loops

LOOP = noise(4, 6, 8)


def loop(folder: Path, frames: np.ndarray = LOOP, name: str = "0", **elements: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "SOPClassUID": UltrasoundMultiFrameImageStorage,
        "SOPInstanceUID": f"1.2.3.{int(name) + 1}",
        "SeriesInstanceUID": "1.2.3",
        "Modality": "US",
        "InstanceNumber": int(name) + 1,
        **elements,
    }
    return saved(folder, native(frames, ImplicitVRLittleEndian, **found), name)


# Nuclear medicine

TAGS = {
    "energy_window": ("EnergyWindowVector", 0x00540010),
    "detector": ("DetectorVector", 0x00540020),
    "phase": ("PhaseVector", 0x00540030),
    "rotation": ("RotationVector", 0x00540050),
    "rr_interval": ("RRIntervalVector", 0x00540060),
    "time_slot": ("TimeSlotVector", 0x00540070),
    "z": ("SliceVector", 0x00540080),
    "angular_view": ("AngularViewVector", 0x00540090),
    "time_slice": ("TimeSliceVector", 0x00540100),
}


def vectors(lengths: Mapping[str, int]) -> dict[str, list[int]]:
    """The vectors of a full grid, of which the last varies fastest, from 1 on."""
    places = product(*(range(1, length + 1) for length in lengths.values()))
    return dict(zip(lengths, map(list, zip(*places, strict=True)), strict=True))


def detector(
    position: Sequence[float] | None = tuple(FIRST), orientation: Sequence[float] | None = AXIAL
) -> Dataset:
    found = Dataset()
    found.StartAngle = 0
    if orientation is not None:
        found.ImageOrientationPatient = [f"{x:.9g}" for x in orientation]
    if position is not None:
        found.ImagePositionPatient = [f"{x:.9g}" for x in position]
    return found


def nuclear(
    folder: Path,
    frames: np.ndarray,
    told: Mapping[str, Sequence[int]],
    *,
    name: str = "0",
    syntax: UID = ExplicitVRLittleEndian,
    **elements: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "SOPClassUID": NuclearMedicineImageStorage,
        "SOPInstanceUID": f"1.2.3.{int(name) + 1}",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "FrameOfReferenceUID": "1.2.4",
        "Modality": "NM",
        "ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.5,
        "FrameIncrementPointer": [TAGS[name][1] for name in told],
        **{TAGS[name][0]: list(values) for name, values in told.items()},
        **elements,
    }
    here = {keyword: value for keyword, value in found.items() if value is not None}
    return saved(folder, native(frames, syntax, **here), name)


# Parametric maps


def parametric_map(folder: Path, pixels: np.ndarray, mappings: Sequence[Any]) -> Path:
    """A parametric map by highdicom: a frame for each plane (planes, rows, columns[, channels])."""
    frames = noise(*pixels.shape[:3], dtype="u2")
    whose = {
        "PatientID": "1",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "StudyID": "1",
        "StudyDate": "20200101",
        "StudyTime": "100000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "SliceThickness": 2.5,
    }
    folder.mkdir(parents=True, exist_ok=True)
    positions = along(AXIAL, 2.5 * np.arange(len(frames)))
    with TemporaryDirectory() as elsewhere:
        sources = classic(Path(elsewhere), frames, positions, seed=None, **whose)
        images = [dcmread(path) for path in sources]
    made = ParametricMap(
        images,
        pixels,
        series_instance_uid=f"{SERIES}.8",
        series_number=8,
        sop_instance_uid=f"{SERIES}.8.1",
        instance_number=1,
        manufacturer="maker",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=mappings,
        voi_lut_transformations=[VOILUTTransformation(window_center=0, window_width=100)],
    )
    path = folder / "map.dcm"
    made.save_as(path)
    return path


# PET

# Of 350 MBq with a half-life of 2 h, 175 MBq are left after 2 h.
INJECTION = {
    "RadiopharmaceuticalStartTime": "080000",
    "RadionuclideTotalDose": "350000000",
    "RadionuclideHalfLife": "7200",
}
PET: dict[str, Any] = {
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["ATTN", "DECY"],
    "PatientWeight": "70",
    "PatientSize": "1.75",
    "PatientSex": "M",
    "SeriesDate": "20200229",
    "SeriesTime": "100000",
    "AcquisitionDate": "20200229",
    "AcquisitionTime": "100000",
    "RescaleIntercept": "0",
}
SLOPES = ["0.5", "2", "1.25"]
PHILIPS, GE = (0x7053, "Philips PET Private Group"), (0x0009, "GEMS_PETD_01")
Private = tuple[tuple[int, str], int, str, str]


def pet(
    folder: Path,
    injections: list[Mapping[str, Any]] | None = None,
    private: list[Private] | None = None,
    each: Mapping[str, list[Any]] | None = None,
    **elements: Any,
) -> np.ndarray:
    """Write a series of three frames; return its modality values."""
    stored = noise(3, 4, 5, dtype="u2")
    items = []
    for injection in [INJECTION] if injections is None else injections:
        items.append(Dataset())
        for keyword, value in injection.items():
            setattr(items[-1], keyword, value)
    paths = classic(
        folder,
        stored,
        along(AXIAL, 2.5 * np.arange(3)),
        modality=elements.pop("Modality", "PT"),
        each={"RescaleSlope": SLOPES, **(each or {})},
        **{
            **PET,
            "RadiopharmaceuticalInformationSequence": items,
            **{keyword: value for keyword, value in elements.items() if value is not None},
        },
    )
    for path in paths:
        dataset = dcmread(path)
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
        for (group, creator), number, vr, value in private or ():
            # In another block than the first.
            dataset.private_block(group, "SOMEBODY ELSE", create=True)
            dataset.private_block(group, creator, create=True).add_new(number, vr, value)
        dataset.save_as(path)
    return stored * np.array(SLOPES, float)[:, np.newaxis, np.newaxis]
