"""Comparison of a frame's codestream with the header, before it is decoded.

imagecodecs allocates what a codestream asks for, and fills up one that is cut short.
"""

from __future__ import annotations

from typing import NamedTuple

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.pixels.codestream import (
    Buffer,
    Codestream,
    CodestreamError,
    Contradiction,
    Incomplete,
    Unsuited,
    parse,
    repeats,
)
from dcmdask.pixels.jpeg_lossless import coding

__all__ = ["SYNTAXES", "Syntax", "check", "notices_damage"]


class Syntax(NamedTuple):
    """Transfer syntax that imagecodecs decodes.

    Attributes
    ----------
    kind : str
        Kind of its codestreams.
    cost : float
        Seconds per megabyte of decoded frame on one thread, as benchmarks/costs.py measures
        them, the slower of 12-bit frames with noise and RGB tiles (an estimate for 12-bit
        JPEG). Constants, so that a graph does not depend on the machine that makes it.
    """

    kind: str
    cost: float


# libjpeg-turbo reads the DCT processes and the lossless one, and is the fastest of imagecodecs'
# three lossless readers. HTJ2K goes through OpenJPEG: imagecodecs' own HTJ2K codec returns
# garbage where it fails.
SYNTAXES: dict[str, Syntax] = {
    JPEGBaseline8Bit: Syntax("jpeg", 0.002),
    JPEGExtended12Bit: Syntax("jpeg", 0.010),
    JPEGLossless: Syntax("jpeg-lossless", 0.009),
    JPEGLosslessSV1: Syntax("jpeg-lossless", 0.009),
    JPEGLSLossless: Syntax("jpeg-ls", 0.014),
    JPEGLSNearLossless: Syntax("jpeg-ls", 0.014),
    JPEG2000Lossless: Syntax("jpeg2000", 0.053),
    JPEG2000: Syntax("jpeg2000", 0.053),
    HTJ2KLossless: Syntax("jpeg2000", 0.008),
    HTJ2KLosslessRPCL: Syntax("jpeg2000", 0.008),
    HTJ2K: Syntax("jpeg2000", 0.008),
    RLELossless: Syntax("rle", 0.0007),
}


def check(data: Buffer, pixels: ImagePixel, like: Codestream | None = None) -> Codestream:
    """Return the parameters of one frame once they agree with the header.

    A codec allocates what a codestream asks for, and libjpeg makes up the rest of one that
    is cut short. This runs before either can happen.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
        The frame: fragments joined, item headers removed.
    pixels : ImagePixel
        Description of the frames, with a transfer syntax in `SYNTAXES`.
    like : Codestream, optional
        That of another frame, which has been checked. It is returned for a frame with the same
        header.

    Raises
    ------
    CodestreamError
        The codestream is not understood, or ends early.
    Contradiction
        It is not of the frame that the header describes.
    Unsuited
        It is of a form that imagecodecs does not decode as pydicom's plugins do.
    """
    if like is not None and repeats(data, like):
        return like
    stream = parse(data, pixels.transfer_syntax)
    if stream.kind == "rle":
        _check_rle(stream, pixels)
    else:
        _check_size(stream, pixels)
    kind = SYNTAXES[pixels.transfer_syntax].kind
    if stream.kind != kind:
        name = pixels.transfer_syntax.name
        raise Unsuited(f"the codestream is {stream.kind}, transfer syntax {name} is {kind}")
    if not stream.complete:
        # pylibjpeg and pyjpegls make something up for what is missing.
        raise Incomplete(
            f"the codestream ends early: no end marker in the {len(data)} bytes of the frame; "
            "decoding_plugin names one of pydicom's to decode it all the same"
        )
    if stream.kind == "jpeg2000":
        _check_j2k(stream)
    elif stream.kind != "rle":
        _check_jpeg(stream)
    if stream.kind == "jpeg-lossless":
        coding(data, stream)
    return stream


def notices_damage(codestream: Codestream) -> bool:
    """Return whether decoding fails where a frame is damaged as often as pydicom's plugins do.

    Damage may go unnoticed by all, as frames have no checksum. False for 12-bit DCT: of 460
    damaged frames libjpeg decoded 99 that pylibjpeg refuses.
    """
    return codestream.kind != "jpeg" or codestream.precision == 8


def _check_size(stream: Codestream, pixels: ImagePixel) -> None:
    """Compare the codestream's own size with the header."""
    if (stream.rows, stream.columns) != (pixels.rows, pixels.columns):
        raise Contradiction(
            f"the codestream has {stream.rows} rows and {stream.columns} columns, "
            f"the header {pixels.rows} (0028,0010) Rows and {pixels.columns} (0028,0011) Columns"
        )
    if stream.components != pixels.samples:
        raise Contradiction(
            f"the codestream has {stream.components} components, "
            f"the header {pixels.samples} (0028,0002) Samples per Pixel"
        )
    if stream.itemsize * 8 > max(pixels.bits_allocated, 8):
        raise Contradiction(
            f"the codestream has a precision of {stream.precision} bits, "
            f"the header {pixels.bits_allocated} (0028,0100) Bits Allocated"
        )


def _check_rle(stream: Codestream, pixels: ImagePixel) -> None:
    """Compare the number of segments with the header (PS3.5 G.2)."""
    if pixels.bits_allocated % 8:
        raise Unsuited(f"RLE frames of {pixels.bits_allocated} (0028,0100) Bits Allocated")
    expected = pixels.samples * pixels.bits_allocated // 8
    if stream.components != expected:
        raise Contradiction(
            f"the frame has {stream.components} RLE segments, {pixels.samples} samples of "
            f"{pixels.bits_allocated} (0028,0100) Bits Allocated need {expected}"
        )


def _check_j2k(stream: Codestream) -> None:
    """Raise for frames that OpenJPEG decodes and imagecodecs changes or cannot store."""
    if any(pair != (1, 1) for pair in stream.sampling) or not stream.uniform:
        raise Unsuited(
            "the JPEG 2000 components differ in precision, sign or sampling "
            f"{stream.sampling}, which imagecodecs would take for YCbCr"
        )
    if stream.precision > 32 or stream.tiles > 65535:
        raise Unsuited(
            f"{stream.precision} bits and {stream.tiles} tiles are beyond 32 bits and the "
            "65535 tiles of ITU-T T.800 A.4.2"
        )


def _check_jpeg(stream: Codestream) -> None:
    """Raise for frames that libjpeg decodes silently although no standard allows them."""
    if stream.adobe_transform not in (None, 0, 1, 2):
        # GDCM ends the process over it, so this frame is for no other decoder either.
        raise CodestreamError(
            f"colour transform {stream.adobe_transform} of the Adobe marker is not defined"
        )
    if stream.process == 0xC2:
        # One small stream can ask for any number of passes over the frame.
        raise Unsuited("progressive JPEG is not in the transfer syntaxes of PS3.5 8.2.1")
