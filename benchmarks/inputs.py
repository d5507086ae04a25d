"""Files to measure with: made once from a fixed seed, streamed, kept in a folder.

Frames are crops of a few large smooth pictures at random places, with noise from a
large field of noise at other random places: quick to make, each unlike the others, and
as hard to compress as the real thing.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_encoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SEED = 20240229
FOLDER = Path(tempfile.gettempdir()) / "dcmdask-benchmarks"
# Part of each file's name: a change to what is made must not find yesterday's files.
VERSION = 1

NATIVE = ExplicitVRLittleEndian
_SOP_CLASS = {
    1: "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture
    3: "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture
}
_ITEM = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True)
class Case:
    """One file to make.

    Attributes
    ----------
    name : str
    syntax : UID
    samples : int
        1: 512 x 512, 12 bits of 16; 3: 256 x 256 RGB, 8 bits.
    frames : int
    table : bool
        Write a Basic Offset Table.
    """

    name: str
    syntax: UID
    samples: int
    frames: int
    table: bool = True

    @property
    def encapsulated(self) -> bool:
        """Whether frames are in items."""
        return bool(self.syntax.is_encapsulated)


# So many frames that a pass over them takes dcmdask from a few tenths of a second to two seconds.
CASES = (
    Case("12-bit native", NATIVE, 1, 2000),
    Case("12-bit RLE", RLELossless, 1, 1000),
    Case("12-bit RLE, no table", RLELossless, 1, 1000, table=False),
    Case("12-bit JPEG lossless", JPEGLosslessSV1, 1, 800),
    Case("12-bit JPEG-LS", JPEGLSLossless, 1, 400),
    Case("12-bit JPEG 2000", JPEG2000Lossless, 1, 120),
    Case("12-bit HTJ2K", HTJ2KLossless, 1, 800),
    Case("RGB tiles native", NATIVE, 3, 5000),
    Case("RGB tiles RLE", RLELossless, 3, 3000),
    Case("RGB tiles JPEG", JPEGBaseline8Bit, 3, 5000),
    Case("RGB tiles JPEG, no table", JPEGBaseline8Bit, 3, 5000, table=False),
    Case("RGB tiles JPEG lossless", JPEGLosslessSV1, 3, 2000),
    Case("RGB tiles JPEG-LS", JPEGLSLossless, 3, 800),
    Case("RGB tiles JPEG 2000", JPEG2000Lossless, 3, 250),
    Case("RGB tiles HTJ2K", HTJ2KLossless, 3, 1000),
)


def make(case: Case, folder: Path = FOLDER, frames: int | None = None) -> Path:
    """Return the path of the case's file, made where it is not there yet.

    Parameters
    ----------
    case : Case
    folder : Path
    frames : int, optional
        At most so many frames; for trying things out.
    """
    count = min(case.frames, frames or case.frames)
    name = case.name.replace(", ", " ").replace(" ", "-").lower()
    path = folder / f"{name}-{count}-v{VERSION}.dcm"
    if not path.exists():
        encode = ENCODERS[case.syntax]
        pictures = (gray if case.samples == 1 else tiles)(count)
        # HTJ2K: OpenJPH in imagecodecs only writes a precision of 16 bits.
        stored = 8 if case.samples == 3 else 16 if case.syntax == HTJ2KLossless else 12
        shape = (512, 512) if case.samples == 1 else (256, 256, 3)
        header = describe(case.syntax, shape, count, stored)
        write(path, header, _encoded(encode, pictures), count, case.table)
    return path


def make_tiny(
    syntax: UID, frames: int, table: bool, groups: bool = False, folder: Path = FOLDER
) -> Path:
    """Return the path of a file of 16 x 16 frames of 8 bits, where decoding takes next to nothing.

    `groups` adds per-frame functional groups whose sequence and items have no length.
    """
    kind = {NATIVE: "native", RLELossless: "rle", JPEGBaseline8Bit: "jpeg"}[syntax]
    parts = ("tiny", kind, "table" if table else "no-table", "groups" if groups else "plain")
    path = folder / f"{'-'.join(parts)}-{frames}-v{VERSION}.dcm"
    if not path.exists():
        rng = np.random.default_rng(SEED)
        few = [rng.integers(0, 256, (16, 16), np.uint8) for _ in range(64)]
        encoded = [ENCODERS[syntax](frame) for frame in few]
        header = describe(syntax, (16, 16), frames, 8)
        if groups:
            header.PerFrameFunctionalGroupsSequence = _functional_groups(frames)
        write(path, header, islice(cycle(encoded), frames), frames, table)
    return path


def _functional_groups(frames: int) -> Sequence:
    groups = Sequence()
    for number in range(frames):
        position, content, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, number]
        content.FrameAcquisitionNumber = number + 1
        content.DimensionIndexValues = [1, number + 1]
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        for name in ("PlanePositionSequence", "FrameContentSequence"):
            group[name].is_undefined_length = True
        for item in (position, content, group):
            item.is_undefined_length_sequence_item = True
        groups.append(group)
    groups.is_undefined_length = True
    return groups


def _encoded(
    encode: Callable[[np.ndarray], bytes], pictures: Iterable[np.ndarray]
) -> Iterator[bytes]:
    """Encode on all cores, a few frames ahead."""
    together: list[np.ndarray] = []
    with ThreadPoolExecutor() as pool:
        for picture in pictures:
            together.append(picture)
            if len(together) == 32:
                yield from pool.map(encode, together)
                together = []
        yield from pool.map(encode, together)


# Pictures


def gray(count: int) -> Iterator[np.ndarray]:
    """Yield frames like slices through a body: smooth organs, air around, quantum noise."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[-1:1:512j, -1:1:512j].astype(np.float32)
    noise, _, _ = _fields()
    for number in range(count):
        turn = number * 0.05
        if number % 32 == 0:
            organs = np.full_like(x, 20)
            organs[x**2 / 0.75 + y**2 / 0.45 < 1] = 1040
            for _ in range(12):
                cx, cy, a, b = rng.uniform((-0.6, -0.4, 0.05, 0.05), (0.6, 0.4, 0.3, 0.2))
                organs[((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1] = rng.uniform(200, 1500)
        shading = 1 + 0.03 * np.sin(4 * x + turn) * np.cos(5 * y - turn)
        frame = organs * shading + 12 * _crop(noise, rng, (512, 512))
        yield frame.clip(0, 4095).astype(np.uint16)


def tiles(count: int) -> Iterator[np.ndarray]:
    """Yield tiles like stained tissue: pink ground, dark nuclei, fine texture."""
    rng = np.random.default_rng(SEED)
    noise, fine, coarse = _fields()
    ground = np.array([215, 160, 200], np.float32)
    nucleus = np.array([110, 70, 150], np.float32)
    for _ in range(count):
        dark = (_crop(coarse, rng, (256, 256)) > 0.9).astype(np.float32)[..., None]
        colour = ground * (1 - dark) + nucleus * dark
        texture = 10 * _crop(fine, rng, (256, 256)) + 3 * _crop(noise, rng, (256, 256))
        yield (colour + texture[..., None]).clip(0, 255).astype(np.uint8)


@cache
def _fields() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return white noise, fine texture and coarse blobs, each of standard deviation 1."""
    noise = np.random.default_rng(SEED).standard_normal((2048, 2048), np.float32)
    return noise, _smooth(noise, 2), _smooth(noise, 24)


def _crop(field: np.ndarray, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    top, left = rng.integers(0, [field.shape[i] - shape[i] for i in (0, 1)])
    return field[top : top + shape[0], left : left + shape[1]]


def _smooth(field: np.ndarray, width: float) -> np.ndarray:
    """Return `field` with only the waves longer than `width` pixels, standard deviation 1."""
    frequencies = [np.fft.fftfreq(n).astype(np.float32) for n in field.shape]
    radius = np.hypot(frequencies[0][:, None], frequencies[1][None, :])
    smooth = np.fft.ifft2(np.fft.fft2(field) * np.exp(-((radius * width) ** 2))).real
    return (smooth / smooth.std()).astype(np.float32)


# Codestreams


def _native(frame: np.ndarray) -> bytes:
    return frame.tobytes()


def _pydicom(syntax: UID, frame: np.ndarray) -> bytes:
    rgb = frame.ndim == 3
    wide = frame.itemsize == 2
    return get_encoder(syntax).encode(
        frame,
        rows=frame.shape[0],
        columns=frame.shape[1],
        number_of_frames=1,
        samples_per_pixel=3 if rgb else 1,
        bits_allocated=8 * frame.itemsize,
        bits_stored=12 if wide else 8,
        pixel_representation=0,
        photometric_interpretation="RGB" if rgb else "MONOCHROME2",
        **({"planar_configuration": 0} if rgb else {}),
    )


def _jpeg(frame: np.ndarray) -> bytes:
    if frame.ndim == 2:
        return imagecodecs.jpeg8_encode(frame, level=85)
    return imagecodecs.jpeg8_encode(
        frame, level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="422"
    )


def _jpeg_lossless(frame: np.ndarray) -> bytes:
    colours = {"colorspace": "RGB", "outcolorspace": "RGB"} if frame.ndim == 3 else {}
    bits = 8 if frame.ndim == 3 else 12
    return imagecodecs.jpeg8_encode(
        frame, lossless=True, predictor=1, bitspersample=bits, **colours
    )


def _jpeg2000(frame: np.ndarray) -> bytes:
    # Not with pydicom: pylibjpeg-openjpeg crashes when two threads encode at once.
    bits = 8 if frame.ndim == 3 else 12
    return imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="J2K", reversible=True, bitspersample=bits, numthreads=1
    )


def _htj2k(frame: np.ndarray) -> bytes:
    return imagecodecs.htj2k_encode(frame, reversible=True)


ENCODERS: dict[UID, Callable[[np.ndarray], bytes]] = {
    NATIVE: _native,
    RLELossless: partial(_pydicom, RLELossless),
    JPEGBaseline8Bit: _jpeg,
    JPEGLosslessSV1: _jpeg_lossless,
    JPEGLSLossless: partial(_pydicom, JPEGLSLossless),
    JPEG2000Lossless: _jpeg2000,
    HTJ2KLossless: _htj2k,
}


# Files


@cache
def _uid(of: str) -> str:
    # 2.25 and a number of 128 bits (PS3.5 B.2), the same at every run.
    return f"2.25.{int.from_bytes(of.encode()[:12].ljust(12), 'little')}"


def describe(syntax: UID, shape: tuple[int, ...], frames: int, bits_stored: int) -> Dataset:
    """Return the header of a secondary capture without its pixel data."""
    samples = shape[2] if len(shape) == 3 else 1
    ds = Dataset()
    ds.SOPClassUID = _SOP_CLASS[samples]
    ds.SOPInstanceUID = _uid(f"i{frames}{syntax[-3:]}")
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
    ds.Modality, ds.ConversionType = "OT", "SYN"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Bench^Mark", "1", "", ""
    ds.Manufacturer = ds.ReferringPhysicianName = ""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid("study"), _uid("series")
    ds.SeriesNumber = ds.InstanceNumber = "1"
    ds.SamplesPerPixel = samples
    colours = {
        JPEGBaseline8Bit: "YBR_FULL_422",
        JPEG2000Lossless: "YBR_RCT",
        HTJ2KLossless: "YBR_RCT",
    }
    ds.PhotometricInterpretation = colours.get(syntax, "RGB") if samples == 3 else "MONOCHROME2"
    if samples == 3:
        ds.PlanarConfiguration = 0
    ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = shape[:2]
    ds.BitsAllocated = 8 if bits_stored <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits_stored, bits_stored - 1, 0
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def write(path: Path, header: Dataset, frames: Iterable[bytes], count: int, table: bool) -> None:
    """Write a file frame by frame, one fragment each; it appears under its name when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        dcmwrite(part, header, enforce_file_format=True)
        with part.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            if header.file_meta.TransferSyntaxUID.is_encapsulated:
                _write_items(file, frames, count, table)
            else:
                _write_native(file, header, frames, count)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_native(file, header: Dataset, frames: Iterable[bytes], count: int) -> None:
    length = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated // 8
    total = count * length
    vr = b"OW" if header.BitsAllocated > 8 else b"OB"
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, vr, 0, total + total % 2))
    for frame in frames:
        file.write(frame)
    file.write(bytes(total % 2))


def _write_items(file, frames: Iterable[bytes], count: int, table: bool) -> None:
    """Write items behind a Basic Offset Table that is filled in at the end (PS3.5 A.4)."""
    file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    entries = count if table else 0
    file.write(_ITEM + struct.pack("<L", 4 * entries) + bytes(4 * entries))
    first = file.tell()
    starts = []
    for frame in frames:
        starts.append(file.tell() - first)
        frame += bytes(len(frame) % 2)
        file.write(_ITEM + struct.pack("<L", len(frame)) + frame)
    file.write(b"\xfe\xff\xdd\xe0" + bytes(4))
    if table:
        file.seek(first - 4 * entries)
        file.write(np.array(starts, "<u4").tobytes())
