"""Small DICOM files in every encoding, made for tests.

The header is pydicom's; the pixel data element is put together here, so that it can also be
wrong. Every function gives bytes; :func:`saved` makes a file of them.
"""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import get_encoder, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

LOSSLESS = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless)
NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
PIXEL_TAGS = {"f4": 0x7FE00008, "f8": 0x7FE00009}
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)[:4]
DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
UNDEFINED = 0xFFFFFFFF


def noise(
    frames: int = 3,
    rows: int = 6,
    columns: int = 8,
    samples: int = 1,
    dtype: str = "u1",
    bits: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Random frames that use all of `bits`; with dtype ``"?"``, of single bits."""
    random = np.random.default_rng(seed)
    shape = (frames, rows, columns) if samples == 1 else (frames, rows, columns, samples)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return random.normal(size=shape).astype(kind)
    if kind.kind == "b":
        return random.integers(0, 2, shape).astype("u1")
    bits = bits or 8 * kind.itemsize
    low = -(1 << bits - 1) if kind.kind == "i" else 0
    return random.integers(low, low + (1 << bits) - 1, shape, dtype=kind, endpoint=True)


def described(frames: np.ndarray, **elements: Any) -> Dataset:
    """The header for `frames`; `elements` by keyword replace, or remove where None."""
    samples = frames.shape[3] if frames.ndim == 4 else 1
    bits = 8 * frames.dtype.itemsize
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.PatientName = "Made^For^Tests"
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = bits
    if frames.dtype.kind != "f":
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
        if value is None:
            delattr(dataset, keyword)
    return dataset


def part10(
    dataset: Dataset,
    syntax: UID,
    pixel_element: bytes,
    *,
    preamble: bool = True,
    meta: bool = True,
) -> bytes:
    """A DICOM file: `dataset`, and behind it a pixel data element as it stands."""
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    dataset.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    write_dataset(out, dataset)
    body = out.getvalue() + pixel_element
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
        body += bytes(len(body) % 2)
    head = BytesIO()
    if meta:
        file_meta = FileMetaDataset()
        file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file_meta.TransferSyntaxUID = syntax
        write_file_meta_info(head, file_meta, enforce_standard=True)
    return (bytes(128) + b"DICM" if preamble else b"") + head.getvalue() + body


def pixel_element(value: bytes, syntax: UID, vr: str = "OW", tag: int = 0x7FE00010) -> bytes:
    """The pixel data element with this value; of undefined length where encapsulated."""
    group, number = tag >> 16, tag & 0xFFFF
    if syntax.is_encapsulated:
        return struct.pack("<HH2sHL", group, number, vr.encode(), 0, UNDEFINED) + value
    value += bytes(len(value) % 2)
    if syntax.is_implicit_VR:
        return struct.pack("<HHL", group, number, len(value)) + value
    order = "<" if syntax.is_little_endian else ">"
    return struct.pack(f"{order}HH2sHL", group, number, vr.encode(), 0, len(value)) + value


def native_value(frames: np.ndarray, syntax: UID, vr: str, dataset: Dataset) -> bytes:
    """The value of native pixel data (PS3.5 8.1.1, PS3.3 C.7.6.3.1)."""
    if dataset.BitsAllocated == 1:
        return np.packbits(frames.ravel(), bitorder="little").tobytes()
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        # Y1 Y2 Cb1 Cr1 for every two pixels.
        pairs = frames.reshape(-1, 2, 3)
        return np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1).tobytes()
    if dataset.get("PlanarConfiguration"):
        frames = frames.transpose(0, 3, 1, 2)
    if not syntax.is_little_endian:
        frames = frames.astype(frames.dtype.newbyteorder(">"))
    value = frames.tobytes()
    value += bytes(len(value) % 2)
    if vr == "OW" and not syntax.is_little_endian and frames.dtype.itemsize == 1:
        value = np.frombuffer(value, "u2").byteswap().tobytes()
    return value


def native(
    frames: np.ndarray,
    syntax: UID = ExplicitVRLittleEndian,
    *,
    vr: str = "OW",
    surplus: bytes = b"",
    preamble: bool = True,
    meta: bool = True,
    **elements: Any,
) -> bytes:
    """A file of native frames, with `surplus` bytes behind them."""
    dataset = described(frames, **elements)
    tag = PIXEL_TAGS.get(f"{frames.dtype.kind}{frames.dtype.itemsize}", 0x7FE00010)
    if tag != 0x7FE00010:
        vr = {"f4": "OF", "f8": "OD"}[f"{frames.dtype.kind}{frames.dtype.itemsize}"]
    value = native_value(frames, syntax, vr, dataset) + surplus
    element = pixel_element(value, syntax, vr, tag)
    return part10(dataset, syntax, element, preamble=preamble, meta=meta)


def encoded(frame: np.ndarray, syntax: UID) -> bytes:
    """The codestream of one frame."""
    if syntax == RLELossless:
        return get_encoder(syntax).encode(
            frame,
            encoding_plugin="pydicom",
            rows=frame.shape[0],
            columns=frame.shape[1],
            samples_per_pixel=1 if frame.ndim == 2 else 3,
            number_of_frames=1,
            bits_allocated=8 * frame.dtype.itemsize,
            bits_stored=8 * frame.dtype.itemsize,
            pixel_representation=int(frame.dtype.kind == "i"),
            photometric_interpretation="MONOCHROME2" if frame.ndim == 2 else "RGB",
            planar_configuration=0,
        )
    encoders = {
        JPEGBaseline8Bit: lambda: imagecodecs.jpeg8_encode(frame, level=90),
        JPEGLosslessSV1: lambda: imagecodecs.jpeg8_encode(
            frame, lossless=True, predictor=1, bitspersample=8 * frame.itemsize
        ),
        JPEGLSLossless: lambda: imagecodecs.jpegls_encode(frame),
        JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(
            frame, level=0, reversible=True, codecformat="j2k", mct=False
        ),
        HTJ2KLossless: lambda: imagecodecs.htj2k_encode(frame, reversible=True),
    }
    return bytes(encoders[syntax]())


def fragments_of(stream: bytes, count: int) -> list[bytes]:
    """A codestream in `count` fragments of even length, as far as it has bytes for them."""
    stream += bytes(len(stream) % 2)
    size = max(2, -(-len(stream) // count))
    size += size % 2
    return [stream[at : at + size] for at in range(0, max(1, len(stream)), size)]


def item(fragment: bytes) -> bytes:
    return ITEM + struct.pack("<L", len(fragment)) + fragment


def tables_of(streams: Sequence[Sequence[bytes]]) -> tuple[list[int], list[int]]:
    """Offsets of frames from the first item tag, and lengths of their fragments."""
    lengths = [sum(map(len, fragments)) for fragments in streams]
    sizes = [sum(8 + len(f) for f in fragments) for fragments in streams]
    return [0, *np.cumsum(sizes[:-1]).tolist()], lengths


def encapsulated(
    frames: np.ndarray,
    syntax: UID,
    *,
    table: str | Sequence[int] = "basic",
    fragments: int = 1,
    padded_lengths: bool = True,
    delimiter: bool = True,
    streams: Sequence[bytes] | None = None,
    gap: bytes = b"",
    preamble: bool = True,
    meta: bool = True,
    **elements: Any,
) -> bytes:
    """A file of encapsulated frames (PS3.5 A.4).

    `table` is ``"basic"``, ``"extended"``, ``"none"``, or the entries of a Basic Offset
    Table. `streams` are codestreams to use instead of encoding `frames`; `gap` stands
    between the last item and its delimiter.
    """
    if streams is None:
        streams = [encoded(frame, syntax) for frame in frames]
    split = [fragments_of(stream, fragments) for stream in streams]
    offsets, lengths = tables_of(split)
    if not padded_lengths:
        lengths = [len(stream) for stream in streams]
    dataset = described(frames, **elements)
    basic = b""
    if table == "extended":
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(lengths)}Q", *lengths)
    elif table != "none":
        entries = offsets if isinstance(table, str) else table
        basic = struct.pack(f"<{len(entries)}L", *entries)
    value = item(basic) + b"".join(item(f) for fragments in split for f in fragments) + gap
    value += DELIMITER if delimiter else b""
    element = pixel_element(value, syntax, "OB")
    # The tables have lower tags than Pixel Data, and belong in front of it.
    return part10(dataset, syntax, element, preamble=preamble, meta=meta)


def patched(data: bytes, tag: int, vr: str, value: bytes) -> bytes:
    """`data` in explicit little endian with another value, of the same length, for one tag."""
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value))
    at = data.index(head) + 8
    return data[:at] + value + data[at + len(value) :]


def saved(folder: Path, data: bytes, name: str = "made.dcm") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def by_pydicom(data: bytes, **options: Any) -> np.ndarray:
    """Return the frames that pydicom decodes, always with a frame axis."""
    dataset = dcmread(BytesIO(data), force=True)
    array = pixel_array(dataset, **options)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return array if frames > 1 else array[np.newaxis]
