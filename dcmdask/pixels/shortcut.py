"""Shortcuts of decoding around pydicom's decoder.

Each stores what :func:`dcmdask.pixels.decode.general` returns, to the bit but for one
stated exception (8-bit JPEG to RGB), or returns False. Tests compare the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom import offsets
from dcmdask.dicom.image_pixel import OVERRIDES, YBR, ImagePixel
from dcmdask.errors import Note
from dcmdask.pixels import codecs, colour, guard
from dcmdask.pixels.codestream import Codestream, Damaged

# Other options are left to pydicom.
_KNOWN_OPTIONS = OVERRIDES | {"pixel_keyword", "pixel_vr", "allow_excess_frames"}


def applies(pixels: ImagePixel) -> bool:
    """Return whether decoding has no options that only pydicom knows."""
    return pixels.options.keys() <= _KNOWN_OPTIONS


def decode_native(
    pixels: ImagePixel,
    spans: offsets.NativeSpans,
    raw: bool,
    frame: int,
    encoded: bytes | memoryview,
    out: npt.NDArray[Any],
) -> bool:
    """Store a native frame in `out`; return whether that was possible."""
    if not _is_plain_native(pixels, raw):
        return False
    if pixels.bits_allocated == 1:
        skipped = spans.skip_bits(frame)
        bits = np.unpackbits(np.frombuffer(encoded, "u1"), bitorder="little")
        stored = bits[skipped : skipped + spans.frame_bits]
    else:
        stored = np.frombuffer(encoded, pixels.dtype)
    if _is_by_plane(pixels):
        planes = stored.reshape(pixels.samples, pixels.rows, pixels.columns)
        codecs.interleave(planes, out)
        stored = out
    drop_unused_bits(pixels, stored.reshape(out.shape), out)
    return True


def is_stored_as_decoded(pixels: ImagePixel, raw: bool) -> bool:
    """Return whether native bytes are the decoded frame, but for unused bits."""
    return pixels.bits_allocated > 1 and _is_stored_plainly(pixels, raw)


def is_stored_as_bits(pixels: ImagePixel, raw: bool) -> bool:
    """Return whether native bytes are the bits of the decoded frame, and of no other frame."""
    whole = pixels.bits_allocated == 1 and pixels.frame_bits % 8 == 0
    return whole and _is_stored_plainly(pixels, raw)


def _is_stored_plainly(pixels: ImagePixel, raw: bool) -> bool:
    return (
        not pixels.transfer_syntax.is_encapsulated
        and applies(pixels)
        and _is_plain_native(pixels, raw)
        and not _is_by_plane(pixels)
    )


def drop_unused_bits(pixels: ImagePixel, stored: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Store samples in `out`, which may be `stored`, with the bits above Bits Stored as pydicom
    makes them (PS3.5 8.1.1): zero, or copies of the sign.
    """
    integers = pixels.keyword == "PixelData"
    shift = pixels.bits_allocated - pixels.bits_stored if integers else 0
    codecs.clear_bits(stored, shift, pixels.signed, out)


def _is_plain_native(pixels: ImagePixel, raw: bool) -> bool:
    interpretation = pixels.photometric_interpretation
    converted = interpretation == "YBR_FULL_422" or (interpretation == "YBR_FULL" and not raw)
    return not pixels.swaps_words and not converted


def _is_by_plane(pixels: ImagePixel) -> bool:
    return pixels.samples > 1 and pixels.options["planar_configuration"] == 1


def decode_encapsulated(
    pixels: ImagePixel,
    raw: bool,
    payload: bytes | memoryview,
    stream: Codestream,
    out: npt.NDArray[Any],
    notes: list[Note],
) -> bool:
    """Store an encapsulated frame in `out`; return whether that was possible.

    Oddities of the frame are appended to `notes`.

    Raises
    ------
    Damaged
        Its decoder warns.
    """
    if not out.dtype.isnative or not guard.notices_damage(stream):
        return False
    said = pixels.photometric_interpretation
    coded = said if raw else colour.coded_interpretation(stream, pixels)
    rgb = not raw and coded in YBR
    if not colours_known(stream, pixels, coded, rgb):
        return False
    try:
        codecs.decode_into(payload, out, stream, notes, rgb=rgb)
    except Damaged:
        raise
    except (RuntimeError, ValueError):
        # The general path says why, and tries what else there is.
        return False
    codecs.correct_bits(out, stream, pixels)
    if coded != said:
        notes.append(colour.unlike_header(pixels, coded))
    return True


def colours_known(stream: Codestream, pixels: ImagePixel, interpretation: str, rgb: bool) -> bool:
    """Return whether the codec alone gives the colours that pydicom gives."""
    if rgb:
        return stream.precision == 8 and colour.is_ycbcr(stream, interpretation)
    if pixels.samples == 1 or stream.kind in ("jpeg2000", "rle"):
        return True
    # pydicom believes these two over the header, with a warning.
    spells_rgb = stream.component_ids in colour.RGB_IDS and interpretation != "RGB"
    says_ybr = stream.jfif and "YBR" not in interpretation
    return not spells_rgb and not says_ybr
