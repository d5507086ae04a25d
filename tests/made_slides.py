"""Whole slides as files (PS3.3 A.32.8), made for tests, with the pixels that they must have.

The pixels that are expected come from the picture itself, or, of lossy syntaxes, from each tile
decoded alone by imagecodecs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from made_enhanced import item
from made_tiff import page_of, with_tiff
from make_dicom import DELIMITER, ITEM, encoded, part10, pixel_element, tables_of
from make_dicom import item as encapsulated_item
from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498.8"
SPACING = 0.0005  # mm
FOCAL_STEP = 0.002  # mm
ORIGIN = (20.0, 40.0)  # mm
# Rows run along -y of the slide, columns along -x, as scanners lay it in.
ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
# What tiles show beyond the edge of the matrix.
BEYOND = 77


@dataclass(frozen=True)
class Made:
    """One level or associated image.

    `matrix` is (optical paths, focal planes, rows, columns[, samples]), and zero where `present`,
    its first four axes, is false. `paths` are the files: several of a concatenation.
    """

    paths: list[Path]
    matrix: np.ndarray
    present: np.ndarray
    spacing: float

    @property
    def path(self) -> Path:
        (path,) = self.paths
        return path


@dataclass(frozen=True)
class MadeSlide:
    folder: Path
    levels: list[Made]
    associated: dict[str, Made] = field(default_factory=dict)


def made_slide(
    folder: Path,
    size: tuple[int, int] = (150, 210),
    tile: tuple[int, int] = (64, 64),
    *,
    organisation: str = "TILED_FULL",
    syntax: UID = JPEGBaseline8Bit,
    samples: int = 3,
    bits: int = 8,
    sampling: str = "422",
    table: str = "basic",
    focal_planes: int = 1,
    optical_paths: int = 1,
    holes: Sequence[tuple[int, int, int, int]] = (),
    shuffled: bool = False,
    downsamples: Sequence[float] = (1,),
    associated: Sequence[str] = (),
    parts: int = 1,
    dual: str = "",
    pyramid: bool = True,
    icc: bool = True,
    **elements: Any,
) -> MadeSlide:
    """Write a slide into `folder`, a file for each level.

    Parameters
    ----------
    folder : Path
    size, tile : tuple of int
        Rows and columns of the finest level, and of each tile.
    organisation : str
        TILED_FULL, TILED_SPARSE, or nothing.
    syntax : UID
        Explicit VR Little Endian, JPEG, JPEG 2000, JPEG-LS or RLE.
    samples, bits : int
    sampling : str
        Of JPEG: 444, 422, 420, or RGB for components that are not transformed.
    table : str
        Offset table: basic, extended or none.
    focal_planes, optical_paths : int
    holes : sequence of tuple
        Optical path, focal plane, row and column of tiles to leave out, of a sparse level.
    shuffled : bool
        Frames of a sparse level in any order.
    downsamples : sequence of float
    associated : sequence of str
        Of LABEL, OVERVIEW, THUMBNAIL.
    parts : int
        Instances of the concatenation that each level is.
    dual : str
        Kind of TIFF file that each instance also is: byte order, and ``*`` or ``+`` (BigTIFF), as
        ``II*``.
    pyramid, icc : bool
        With Pyramid UID; with ICC profile.
    **elements
        By keyword: other values, None to leave one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    look = Look(tile, organisation, syntax, samples, bits, sampling, table, dual, icc)
    common = {"PyramidUID": f"{ROOT}.4"} if pyramid else {}
    levels = []
    for number, downsample in enumerate(downsamples):
        rows, columns = (math.ceil(length / downsample) for length in size)
        pictures = np.stack(
            [
                [
                    picture(rows, columns, samples, bits, path, plane)
                    for plane in range(focal_planes)
                ]
                for path in range(optical_paths)
            ]
        )
        kind = ("DERIVED", "RESAMPLED") if downsample > 1 else ("ORIGINAL", "NONE")
        own = {"ImageType": [kind[0], "PRIMARY", "VOLUME", kind[1]], **common, **elements}
        left = set(holes) if number == 0 else set()
        spacing = SPACING * downsample
        volume = (size[0] * SPACING, size[1] * SPACING)
        name = f"level-{number}"
        levels.append(
            _write(
                folder,
                name,
                1 + number,
                look,
                pictures,
                spacing,
                volume,
                left,
                shuffled,
                parts,
                own,
            )
        )
    others = {}
    for number, flavour in enumerate(associated):
        rows, columns = {"LABEL": (40, 50), "OVERVIEW": (40, 120)}.get(flavour, (30, 42))
        whole = picture(rows, columns, 3, 8, 5 + number, 0)[np.newaxis, np.newaxis]
        spacing = 25.0 / rows if flavour != "THUMBNAIL" else size[0] * SPACING / rows
        own = {
            "ImageType": ["ORIGINAL", "PRIMARY", flavour, "NONE"],
            "SpecimenLabelInImage": "NO" if flavour == "THUMBNAIL" else "YES",
        }
        plain = look._replace(tile=(rows, columns), organisation="TILED_FULL", samples=3, bits=8)
        volume = (rows * spacing, columns * spacing)
        name = flavour.lower()
        others[flavour] = _write(
            folder, name, 101 + number, plain, whole, spacing, volume, set(), False, 1, own
        )
    return MadeSlide(folder, levels, others)


class Look(NamedTuple):
    """How tiles are stored."""

    tile: tuple[int, int]
    organisation: str
    syntax: UID
    samples: int
    bits: int
    sampling: str
    table: str
    dual: str
    icc: bool


class Place(NamedTuple):
    """Optical path, focal plane, and row and column of a tile among the tiles."""

    path: int
    plane: int
    row: int
    column: int


# Pictures


def picture(
    rows: int, columns: int, samples: int = 3, bits: int = 8, path: int = 0, plane: int = 0
) -> np.ndarray:
    """A smooth picture with lines, unlike its mirror images, and the same in every size."""
    y = (np.arange(rows)[:, np.newaxis] + 0.5) / rows
    x = (np.arange(columns) + 0.5) / columns
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (3 * x + 2 * y + 0.13 * path + 0.31 * plane))
    planes = [0.1 + 0.8 * x + 0 * y, 0.1 + 0.8 * y + 0 * x, 0.2 + 0.6 * wave]
    shown = planes[: samples if samples > 1 else 0] or [(planes[0] + 2 * planes[1] + wave) / 4]
    found = np.stack(shown, axis=-1)
    # A line for each optical path and focal plane, at a place of its own.
    at = int((0.3 + 0.07 * path + 0.21 * plane) % 1 * columns)
    found[: rows * 2 // 3, at : at + max(1, columns // 100)] = 0.05
    found[rows // 5, : columns // 2] = 0.95
    found = np.round(found * (2**bits - 1)).astype(f"u{-(-bits // 8)}")
    return found if samples > 1 else found[..., 0]


@cache
def srgb() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Little CMS writes the time at which it was made.
    return profile[:24] + bytes(12) + profile[36:]


def encode_tile(tile: np.ndarray, look: Look) -> tuple[bytes, np.ndarray]:
    """The bytes of a tile, and its pixels once they are decoded."""
    syntax = look.syntax
    if syntax == ExplicitVRLittleEndian:
        return tile.tobytes(), tile
    if syntax == JPEGBaseline8Bit:
        if tile.ndim == 2:
            stream = imagecodecs.jpeg8_encode(tile, level=90)
            return stream, imagecodecs.jpeg8_decode(stream)
        stored = "RGB" if look.sampling == "RGB" else "YCBCR"
        stream = imagecodecs.jpeg8_encode(
            tile,
            level=85,
            colorspace="RGB",
            outcolorspace=stored,
            subsampling="444" if stored == "RGB" else look.sampling,
        )
        decoded = imagecodecs.jpeg8_decode(stream, colorspace=stored, outcolorspace="RGB")
        return stream, decoded
    if syntax == JPEG2000Lossless:
        stream = imagecodecs.jpeg2k_encode(
            tile, level=0, reversible=True, codecformat="j2k", mct=tile.ndim == 3
        )
        return bytes(stream), tile
    if syntax not in (JPEGLSLossless, RLELossless):
        raise NotImplementedError(syntax.name)
    return encoded(tile, syntax), tile


def interpretation(look: Look) -> str:
    if look.samples == 1:
        return "MONOCHROME2"
    if look.syntax == JPEGBaseline8Bit and look.sampling != "RGB":
        return "YBR_FULL_422"
    return "YBR_RCT" if look.syntax == JPEG2000Lossless else "RGB"


# Files


def _write(
    folder: Path,
    name: str,
    number: int,
    look: Look,
    pictures: np.ndarray,
    spacing: float,
    volume: tuple[float, float],
    holes: set[tuple[int, int, int, int]],
    shuffled: bool,
    parts: int,
    elements: dict[str, Any],
) -> Made:
    paths, planes, rows, columns = pictures.shape[:4]
    height, width = look.tile
    down, across = -(-rows // height), -(-columns // width)
    # TILED_FULL: along the row, down, then focal planes, then optical paths (C.7.6.17.3).
    places = [Place(*at) for at in product(range(paths), range(planes), range(down), range(across))]
    places = [place for place in places if place not in holes]
    if shuffled:
        np.random.default_rng(number).shuffle(places)
        places = [Place(*map(int, place)) for place in places]
    matrix = np.zeros_like(pictures)
    present = np.zeros(pictures.shape[:4], bool)
    streams = []
    for place in places:
        where = (
            place.path,
            place.plane,
            slice(place.row * height, min(rows, (place.row + 1) * height)),
            slice(place.column * width, min(columns, (place.column + 1) * width)),
        )
        shown = pictures[where]
        whole = np.full((height, width, *shown.shape[2:]), BEYOND, shown.dtype)
        whole[: shown.shape[0], : shown.shape[1]] = shown
        stream, decoded = encode_tile(whole, look)
        streams.append(stream)
        matrix[where] = decoded[: shown.shape[0], : shown.shape[1]]
        present[where] = True
    files = []
    size = -(-len(places) // parts)
    for part, first in enumerate(range(0, len(places), size)):
        some = slice(first, first + size)
        dataset = described(
            number, look, (rows, columns), (paths, planes), spacing, volume, places[some]
        )
        if parts > 1:
            dataset.ConcatenationUID = f"{ROOT}.3.{number}"
            dataset.SOPInstanceUIDOfConcatenationSource = dataset.SOPInstanceUID
            dataset.SOPInstanceUID = f"{ROOT}.2.{number}.{part + 1}"
            dataset.InConcatenationNumber = part + 1
            dataset.InConcatenationTotalNumber = -(-len(places) // size)
            dataset.ConcatenationFrameOffsetNumber = first
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)
        path = folder / (f"{name}-{part}.dcm" if parts > 1 else f"{name}.dcm")
        path.write_bytes(as_file(dataset, streams[some], look))
        files.append(path)
    return Made(files, matrix, present, spacing)


def described(
    number: int,
    look: Look,
    size: tuple[int, int],
    counts: tuple[int, int],
    spacing: float,
    volume: tuple[float, float],
    places: Sequence[Place],
) -> Dataset:
    """The header of one instance, which holds tiles of these places."""
    rows, columns = size
    paths, planes = counts
    height, width = look.tile
    digits = f"{spacing:.10g}"
    measures = item(PixelSpacing=[digits, digits], SliceThickness="0.001")
    if planes > 1:
        measures.SpacingBetweenSlices = f"{FOCAL_STEP:g}"
    kind = item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    shared = item(
        PixelMeasuresSequence=[measures], WholeSlideMicroscopyImageFrameTypeSequence=[kind]
    )
    if paths == 1:
        shared.OpticalPathIdentificationSequence = [item(OpticalPathIdentifier="0")]
    lossy = look.syntax == JPEGBaseline8Bit
    dataset = item(
        SOPClassUID=VLWholeSlideMicroscopyImageStorage,
        SOPInstanceUID=f"{ROOT}.2.{number}",
        StudyInstanceUID=f"{ROOT}.5",
        SeriesInstanceUID=f"{ROOT}.6",
        FrameOfReferenceUID=f"{ROOT}.7",
        PositionReferenceIndicator="SLIDE_CORNER",
        PatientName="Made^For^Tests",
        PatientID="1",
        PatientBirthDate="",
        PatientSex="",
        StudyID="",
        StudyDate="20200101",
        StudyTime="101112",
        AccessionNumber="",
        ReferringPhysicianName="",
        Manufacturer="Made",
        ManufacturerModelName="Made",
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        Modality="SM",
        SeriesNumber=1,
        InstanceNumber=number,
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        AcquisitionDateTime="20200101101112",
        ContentDate="20200101",
        ContentTime="101112",
        ContainerIdentifier="1",
        ContainerTypeCodeSequence=[],
        IssuerOfTheContainerIdentifierSequence=[],
        AcquisitionContextSequence=[],
        SpecimenDescriptionSequence=[
            item(
                SpecimenIdentifier="1",
                SpecimenUID=f"{ROOT}.8",
                IssuerOfTheSpecimenIdentifierSequence=[],
                SpecimenPreparationSequence=[],
            )
        ],
        SamplesPerPixel=look.samples,
        PhotometricInterpretation=interpretation(look),
        NumberOfFrames=len(places),
        Rows=height,
        Columns=width,
        BitsAllocated=-(-look.bits // 8) * 8,
        BitsStored=look.bits,
        HighBit=look.bits - 1,
        PixelRepresentation=0,
        BurnedInAnnotation="NO",
        LossyImageCompression="01" if lossy else "00",
        VolumetricProperties="VOLUME",
        SpecimenLabelInImage="NO",
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
        ImagedVolumeWidth=volume[1],
        ImagedVolumeHeight=volume[0],
        ImagedVolumeDepth=max(1, planes - 1) * FOCAL_STEP,
        TotalPixelMatrixColumns=columns,
        TotalPixelMatrixRows=rows,
        TotalPixelMatrixFocalPlanes=planes,
        NumberOfOpticalPaths=paths,
        TotalPixelMatrixOriginSequence=[
            item(
                XOffsetInSlideCoordinateSystem=f"{ORIGIN[0]:g}",
                YOffsetInSlideCoordinateSystem=f"{ORIGIN[1]:g}",
            )
        ],
        ImageOrientationSlide=[f"{cosine:g}" for cosine in ORIENTATION],
        OpticalPathSequence=[_optical_path(path, look) for path in range(paths)],
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=f"{ROOT}.9")],
        SharedFunctionalGroupsSequence=[shared],
    )
    if look.samples > 1:
        dataset.PlanarConfiguration = 0
    if lossy:
        dataset.LossyImageCompressionRatio = "10"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    if look.organisation:
        dataset.DimensionOrganizationType = look.organisation
    if look.organisation == "TILED_SPARSE":
        pointers = ((0x0048021F, 0x0048021A), (0x0048021E, 0x0048021A), (0x0040074A, 0x0048021A))
        dataset.DimensionIndexSequence = [
            item(
                DimensionIndexPointer=tag,
                FunctionalGroupPointer=group,
                DimensionOrganizationUID=f"{ROOT}.9",
            )
            for tag, group in pointers
        ]
        dataset.PerFrameFunctionalGroupsSequence = [
            _groups(place, look.tile, spacing) for place in places
        ]
    return dataset


def _optical_path(number: int, look: Look) -> Dataset:
    code = item(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield")
    path = item(
        OpticalPathIdentifier=str(number),
        OpticalPathDescription=f"path {number}",
        IlluminationTypeCodeSequence=[code],
    )
    if look.samples == 1:
        path.IlluminationWaveLength = 400.0 + 100 * number
    else:
        white = item(
            CodeValue="414298005", CodingSchemeDesignator="SCT", CodeMeaning="Full Spectrum"
        )
        path.IlluminationColorCodeSequence = [white]
        if look.icc:
            path.ICCProfile = srgb()
    return path


def _groups(place: Place, tile: tuple[int, int], spacing: float) -> Dataset:
    row, column = place.row * tile[0], place.column * tile[1]
    x, y = ORIGIN[0] - row * spacing, ORIGIN[1] - column * spacing
    position = item(
        ColumnPositionInTotalImagePixelMatrix=column + 1,
        RowPositionInTotalImagePixelMatrix=row + 1,
        XOffsetInSlideCoordinateSystem=f"{x:.10g}",
        YOffsetInSlideCoordinateSystem=f"{y:.10g}",
        # In micrometres (C.8.12.6.1).
        ZOffsetInSlideCoordinateSystem=f"{1000 * FOCAL_STEP * place.plane:g}",
    )
    index = [place.row + 1, place.column + 1, place.plane + 1]
    return item(
        FrameContentSequence=[item(DimensionIndexValues=index)],
        PlanePositionSlideSequence=[position],
        OpticalPathIdentificationSequence=[item(OpticalPathIdentifier=str(place.path))],
    )


def as_file(dataset: Dataset, streams: Sequence[bytes], look: Look) -> bytes:
    """The file of these tiles."""
    if not look.syntax.is_encapsulated:
        value = b"".join(streams)
        vr = "OW" if look.bits > 8 else "OB"
        return part10(dataset, look.syntax, pixel_element(value, look.syntax, vr))
    even = [stream + bytes(len(stream) % 2) for stream in streams]
    offsets, _ = tables_of([[stream] for stream in even])
    basic = b""
    if look.table == "extended":
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        # With the padding: wsidicom refuses odd lengths.
        lengths = [len(stream) for stream in even]
        dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(lengths)}Q", *lengths)
    elif look.table == "basic":
        basic = struct.pack(f"<{len(offsets)}L", *offsets)
    value = encapsulated_item(basic) + b"".join(map(encapsulated_item, even)) + DELIMITER
    data = part10(dataset, look.syntax, pixel_element(value, look.syntax, "OB"))
    if look.dual:
        first = len(data) - len(value) + 8 + len(basic)
        page = page_of(dataset, [first + 8 + at for at in offsets], list(map(len, streams)))
        data = with_tiff(data, look.dual, [page])
    return data


# Large files


@dataclass(frozen=True)
class BigSlide:
    """One level of many tiles: frame i is ``streams[numbers[i]]``."""

    path: Path
    streams: list[bytes]
    numbers: np.ndarray
    down: int
    across: int


def big_slide(
    path: Path,
    tiles: int,
    *,
    syntax: UID = JPEGBaseline8Bit,
    table: str = "none",
    tile: int = 256,
    distinct: int = 256,
    quality: int = 75,
) -> BigSlide:
    """Write one level of `tiles` RGB tiles, a few encoded ones repeated, in one stream."""
    down = next(n for n in range(math.isqrt(tiles), 0, -1) if tiles % n == 0)
    across = tiles // down
    streams = distinct_tiles(syntax, tile, min(distinct, tiles), quality)
    numbers = np.arange(tiles) * 7919 % len(streams)
    look = Look((tile, tile), "TILED_FULL", syntax, 3, 8, "422", table, "", True)
    size = (down * tile, across * tile)
    volume = (size[0] * SPACING, size[1] * SPACING)
    dataset = described(1, look, size, (1, 1), SPACING, volume, [Place(0, 0, 0, 0)])
    dataset.NumberOfFrames = tiles
    items = [encapsulated_item(stream) for stream in streams]
    sizes = np.array(list(map(len, items)))[numbers]
    offsets = np.concatenate([[0], np.cumsum(sizes[:-1])])
    basic = b""
    if table == "extended":
        dataset.ExtendedOffsetTable = offsets.astype("<u8").tobytes()
        dataset.ExtendedOffsetTableLengths = (sizes - 8).astype("<u8").tobytes()
    elif table == "basic":
        basic = offsets.astype("<u4").tobytes()
    start = pixel_element(ITEM + struct.pack("<L", len(basic)) + basic, syntax, "OB")
    with path.open("wb") as file:
        file.write(part10(dataset, syntax, start))
        for first in range(0, tiles, 1024):
            file.write(b"".join([items[n] for n in numbers[first : first + 1024].tolist()]))
        file.write(DELIMITER)
    return BigSlide(path, streams, numbers, down, across)


def distinct_tiles(syntax: UID, tile: int, count: int, quality: int) -> list[bytes]:
    """Encoded crops of one textured picture, padded to even lengths."""
    random = np.random.default_rng(20)
    side = 8 * tile
    whole = picture(side, side).astype(np.int16)
    noise = random.normal(0, 7, (side, side, 1)).astype(np.int16)
    whole = np.clip(whole + noise, 0, 255).astype(np.uint8)
    streams = []
    for top, left in random.integers(0, side - tile, (count, 2)).tolist():
        crop = np.ascontiguousarray(whole[top : top + tile, left : left + tile])
        if syntax == JPEGBaseline8Bit:
            stream = imagecodecs.jpeg8_encode(
                crop, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="422"
            )
        else:
            stream, _ = encode_tile(crop, Look((tile, tile), "", syntax, 3, 8, "", "", "", False))
        streams.append(stream + bytes(len(stream) % 2))
    return streams
