"""Segmentations beside highdicom, and mosaics beside dcm2niix and nibabel.

    python benchmarks/images.py [--segments 98] [--planes 300] [--mosaics 100] [--repeats 3]

A segmentation has binary segments of 512 x 512 pixels that do not overlap, each on a third of the
planes; it is read into one label map, from the path on. A run of mosaics has volumes of
36 x 64 x 64 voxels; it is converted to a NIfTI file, which dcm2niix does in a process of its own,
and read into an array. Files are in the page cache. Rounds run everyone once and alternate in
direction; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from inputs import FOLDER, SEED, VERSION
from machine import describe_machine, table
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, SegmentationStorage

import dcmdask

LABEL_MAPS, MOSAICS = 5.0, 1.0
TILES, ACROSS, SIDE = 36, 6, 64
ROOT = "2.25.329800735698586629295641978511506172919"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the files (%(default)s)")
    parser.add_argument("--segments", type=int, default=98, help="(%(default)s)")
    parser.add_argument("--planes", type=int, default=300, help="of the segments (%(default)s)")
    parser.add_argument("--mosaics", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    print(describe_machine(), end="\n\n")
    path = made(options.folder, f"seg-{options.segments}-{options.planes}", segmentation, options)
    calls: dict[str, Callable[[Path], Any]] = {"dcmdask": label_map, "highdicom": by_highdicom}
    np.testing.assert_array_equal(label_map(path), by_highdicom(path))
    what = f"{options.segments} segments on {options.planes} planes to a label map: median"
    print(f"{what}\n\n{compared(calls, path, options.repeats, LABEL_MAPS)}", end="\n\n")
    folder = made(options.folder, f"mosaics-{options.mosaics}", mosaics, options)
    calls = {"dcmdask": nifti, "dcm2niix": by_dcm2niix}
    np.testing.assert_array_equal(nifti(folder), by_dcm2niix(folder))
    what = f"{options.mosaics} mosaics to a NIfTI file: median"
    print(f"{what}\n\n{compared(calls, folder, options.repeats, MOSAICS)}", end="\n\n")
    calls = {"dcmdask": volumes, "nibabel": by_nibabel}
    np.testing.assert_array_equal(volumes(folder), by_nibabel(folder))
    what = f"{options.mosaics} mosaics to an array: median"
    print(f"{what}\n\n{compared(calls, folder, options.repeats, MOSAICS)}")


def compared(
    calls: Mapping[str, Callable[[Path], Any]], path: Path, repeats: int, bar: float
) -> str:
    """Time each call, and return a table of medians and of the ratio."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for name in list(calls)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            calls[name](path)
            taken[name].append(time.perf_counter() - started)
    ours, theirs = taken.values()
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    heads = [*(f"{name}, s" for name in calls), "times as fast", "bar", "reached"]
    row = [f"{statistics.median(times):.2f}" for times in taken.values()]
    return table(heads, [[*row, f"{ratio:.2f}", f"{bar:g}", "yes" if ratio >= bar else "no"]])


def label_map(path: Path) -> np.ndarray:
    """Segments as one array of numbers."""
    found = dcmdask.scan(path)[0].to_xarray().dcm.labelmap()
    return found.compute(scheduler="threads").values


def by_highdicom(path: Path) -> np.ndarray:
    """The same; its planes are in descending order."""
    import highdicom

    return highdicom.seg.segread(path).get_volume(combine_segments=True).array[::-1]


def nifti(folder: Path) -> np.ndarray:
    """Write a NIfTI file, and return what is in it."""
    return _converted(lambda target: volumes_of(folder).dcm.to_nifti(target / "a.nii"))


def by_dcm2niix(folder: Path) -> np.ndarray:
    """The same."""
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "a", "-o"]

    def convert(target: Path) -> None:
        program = Path(sys.executable).with_name(command[0])
        name = str(program) if program.exists() else command[0]
        subprocess.run([name, *command[1:], target, folder], check=True, capture_output=True)

    return _converted(convert)


def _converted(convert: Callable[[Path], None]) -> np.ndarray:
    import nibabel

    with tempfile.TemporaryDirectory() as target:
        convert(Path(target))
        image = nibabel.load(Path(target) / "a.nii")
        # Rows are in either order in a NIfTI file, with an affine that says so.
        return np.asarray(nibabel.as_closest_canonical(image).dataobj)


def volumes_of(folder: Path) -> Any:
    """Return the run, lazily."""
    return dcmdask.scan(folder)[0].to_xarray()


def volumes(folder: Path) -> np.ndarray:
    """(t, z, y, x)."""
    return volumes_of(folder).compute(scheduler="threads").values


def by_nibabel(folder: Path) -> np.ndarray:
    """The same, file by file."""
    with warnings.catch_warnings():
        # It calls itself experimental.
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_file

    found = [wrapper_from_file(path).get_data() for path in sorted(folder.iterdir())]
    return np.stack(found).transpose(0, 3, 1, 2)


def made(parent: Path, name: str, make: Callable[[Path, Any], None], options: Any) -> Path:
    """Return a file or folder, made where it is not there yet."""
    path = parent / f"images-{name}-v{VERSION}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        make(part, options)
        part.replace(path)
    return path


def segmentation(path: Path, options: Any) -> None:
    """Write binary segments, stripes that move from plane to plane."""
    ds = _header(SegmentationStorage, "SEG", 512, 512, bits=1)
    ds.SegmentationType, ds.SegmentSequence = "BINARY", []
    for number in range(1, options.segments + 1):
        kind = _dataset(CodeValue="85756007", CodingSchemeDesignator="SCT", CodeMeaning="Tissue")
        ds.SegmentSequence.append(
            _dataset(
                SegmentNumber=number,
                SegmentLabel=f"organ {number}",
                SegmentAlgorithmType="AUTOMATIC",
                SegmentAlgorithmName="made",
                SegmentedPropertyCategoryCodeSequence=[kind],
                SegmentedPropertyTypeCodeSequence=[kind],
            )
        )
    uid = f"{ROOT}.9"
    ds.DimensionOrganizationSequence = [_dataset(DimensionOrganizationUID=uid)]
    ds.DimensionIndexSequence = [
        _dataset(
            DimensionIndexPointer=index, FunctionalGroupPointer=group, DimensionOrganizationUID=uid
        )
        for (index, group) in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    ]
    measures = _dataset(PixelSpacing=[0.8, 0.8], SliceThickness=1.5, SpacingBetweenSlices=1.5)
    orientation = _dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    ds.SharedFunctionalGroupsSequence = [
        _dataset(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    ds.PerFrameFunctionalGroupsSequence, frames = [], []
    rng = np.random.default_rng(SEED)
    height = 512 // options.segments
    for segment in range(options.segments):
        some = max(1, options.planes // 3)
        first = int(rng.integers(0, options.planes - some + 1))
        for plane in range(first, first + some):
            content = _dataset(DimensionIndexValues=[segment + 1, plane + 1])
            where = _dataset(ImagePositionPatient=[0, 0, 1.5 * plane])
            of = _dataset(ReferencedSegmentNumber=segment + 1)
            ds.PerFrameFunctionalGroupsSequence.append(
                _dataset(
                    FrameContentSequence=[content],
                    PlanePositionSequence=[where],
                    SegmentIdentificationSequence=[of],
                )
            )
            pixels = np.zeros((512, 512), np.uint8)
            pixels[segment * height : (segment + 1) * height, plane : plane + 200] = 1
            frames.append(np.packbits(pixels, bitorder="little").tobytes())
    ds.NumberOfFrames, ds.PixelData = len(frames), b"".join(frames)
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)


def mosaics(folder: Path, options: Any) -> None:
    """Write a run of mosaics, 2 s apart."""
    folder.mkdir()
    rng = np.random.default_rng(SEED)
    side = ACROSS * SIDE
    for number in range(options.mosaics):
        ds = _header(MRImageStorage, "MR", side, side, bits=16)
        ds.SOPInstanceUID = f"{ROOT}.7.{number + 1}"
        ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [3, 3]
        ds.ImagePositionPatient = [-576, -576, -60]
        ds.SliceThickness = ds.SpacingBetweenSlices = 3.5
        ds.RepetitionTime, ds.InstanceNumber, ds.AcquisitionNumber = 2000, number + 1, number + 1
        ds.AcquisitionDate = ds.SeriesDate = ds.ContentDate = "20200101"
        minutes, seconds = divmod(2 * number, 60)
        ds.AcquisitionTime = ds.ContentTime = f"10{minutes:02}{seconds:02}"
        ds.SeriesTime, ds.SeriesNumber = "100000", 3
        ds.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
        ds.add_new(0x00291010, "OB", _csa())
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        head = 800 * (np.cos(6 * np.pi * x) * np.cos(6 * np.pi * y) > 0)
        ds.PixelData = (head + rng.normal(100, 10, head.shape)).astype("<u2").tobytes()
        ds.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)


def _csa() -> bytes:
    """The private header: number of tiles, and the direction in which they follow one another."""
    elements = {
        "NumberOfImagesInMosaic": ("US", [str(TILES)]),
        "AcquisitionMatrixText": ("SH", [f"{SIDE}p*{SIDE}"]),
        "SliceNormalVector": ("FD", ["0.0", "0.0", "1.0"]),
    }
    out = bytearray(b"SV10\4\3\2\1" + struct.pack("<2I", len(elements), 77))
    for name, (vr, values) in elements.items():
        out += struct.pack("<64si4s3i", name.encode(), len(values), vr.encode(), 0, 6, 77)
        for number in range(6):
            value = values[number].encode() + b"\0" if number < len(values) else b""
            out += struct.pack("<4i", *[len(value)] * 2, 77, len(value))
            out += value + bytes(-len(value) % 4)
    return bytes(out)


def _header(sop_class: str, modality: str, rows: int, columns: int, bits: int) -> Dataset:
    ds = _dataset(SOPClassUID=sop_class, Modality=modality, Rows=rows, Columns=columns)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPInstanceUID, ds.SeriesInstanceUID = f"{ROOT}.5", f"{ROOT}.6"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.3", f"{ROOT}.4"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    return ds


def _dataset(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


if __name__ == "__main__":
    warnings.simplefilter("ignore", dcmdask.DcmdaskWarning)
    main(sys.argv[1:])
