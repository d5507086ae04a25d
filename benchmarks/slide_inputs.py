"""Whole slides to measure with: one level each, made once from a fixed seed."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from inputs import ENCODERS, VERSION, describe, tiles, write
from pydicom.dataset import Dataset
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit

TILE = 256
# Tiles that are encoded; they are repeated.
DISTINCT = 512
SPACING = 0.00025  # mm


@dataclass(frozen=True)
class Case:
    """One slide to make."""

    name: str
    syntax: UID
    tiles: int
    table: bool


CASES = (
    Case("20 000 JPEG, table", JPEGBaseline8Bit, 20_000, True),
    Case("20 000 JPEG, no table", JPEGBaseline8Bit, 20_000, False),
    Case("200 000 JPEG, table", JPEGBaseline8Bit, 200_000, True),
    Case("200 000 JPEG, no table", JPEGBaseline8Bit, 200_000, False),
    Case("2 000 JPEG 2000, table", JPEG2000Lossless, 2_000, True),
)


class Size(NamedTuple):
    """Number of tiles of a slide, down and across."""

    down: int
    across: int


def size_of(count: int) -> Size:
    """Return the size nearest to a square."""
    down = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    return Size(down, count // down)


def make(case: Case, folder: Path, count: int) -> Path:
    """Return the path of the case's slide, made where it is not there yet."""
    kind = "jpeg" if case.syntax == JPEGBaseline8Bit else "jpeg2000"
    name = f"slide-{kind}-{count}-{'table' if case.table else 'no-table'}-v{VERSION}"
    # OpenSlide takes what lies beside it for other levels.
    path = folder / name / "level.dcm"
    if not path.exists():
        with ThreadPoolExecutor() as pool:
            encode = _jpeg if case.syntax == JPEGBaseline8Bit else ENCODERS[case.syntax]
            few = list(pool.map(encode, tiles(min(DISTINCT, count))))
        header = _described(case.syntax, size_of(count))
        write(path, header, itertools.islice(itertools.cycle(few), count), count, case.table)
    return path


def _jpeg(tile: np.ndarray) -> bytes:
    # Of a quality with which 200 000 tiles fit into a Basic Offset Table.
    return imagecodecs.jpeg8_encode(
        tile, level=70, colorspace="RGB", outcolorspace="YCBCR", subsampling="422"
    )


def _described(syntax: UID, size: Size) -> Dataset:
    """Return the header of a level (PS3.3 A.32.8)."""
    ds = describe(syntax, (TILE, TILE, 3), size.down * size.across, 8)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    ds.Modality, ds.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    del ds.ConversionType
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = "2.25.1", "SLIDE_CORNER"
    ds.DimensionOrganizationType = "TILED_FULL"
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID="2.25.2")]
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = (TILE * n for n in size)
    ds.ImagedVolumeHeight, ds.ImagedVolumeWidth = (TILE * n * SPACING for n in size)
    ds.ImagedVolumeDepth, ds.TotalPixelMatrixFocalPlanes, ds.NumberOfOpticalPaths = 0.001, 1, 1
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixOriginSequence = [
        _item(XOffsetInSlideCoordinateSystem=20, YOffsetInSlideCoordinateSystem=40)
    ]
    measures = _item(PixelSpacing=[SPACING, SPACING], SliceThickness=0.001)
    kind = _item(FrameType=ds.ImageType)
    ds.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[measures],
            WholeSlideMicroscopyImageFrameTypeSequence=[kind],
            OpticalPathIdentificationSequence=[_item(OpticalPathIdentifier="0")],
        )
    ]
    light = _item(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield")
    ds.OpticalPathSequence = [
        _item(OpticalPathIdentifier="0", IlluminationTypeCodeSequence=[light])
    ]
    ds.VolumetricProperties, ds.SpecimenLabelInImage = "VOLUME", "NO"
    ds.FocusMethod, ds.ExtendedDepthOfField, ds.BurnedInAnnotation = "AUTO", "NO", "NO"
    ds.LossyImageCompression = "01" if syntax == JPEGBaseline8Bit else "00"
    ds.ContainerIdentifier, ds.SpecimenDescriptionSequence = "1", []
    ds.ContainerTypeCodeSequence = ds.AcquisitionContextSequence = []
    ds.ContentDate, ds.ContentTime, ds.AcquisitionDateTime = "20200101", "10", "20200101"
    return ds


def _item(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds
