"""Frames at a fraction of their size, as their codec decodes them: of JPEG and JPEG 2000.

JPEG is decoded by smaller inverse transforms, whose samples are the means of blocks of pixels but
for what rounding makes of them; with chroma subsampled in one direction (4:2:2), two neighbours
share theirs. A resolution of JPEG 2000 is
what its wavelet leaves: it is sharper than the mean, and sample (i, j) is centred on pixel
(factor i, factor j) instead of on the middle of the block behind it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.image_pixel import YBR, ImagePixel
from dcmdask.dicom.instance import Instance
from dcmdask.pixels import colour, shortcut
from dcmdask.pixels.bulk import encoded_frames
from dcmdask.pixels.codestream import Codestream
from dcmdask.pixels.decode import Decoding, Span

# Factors of libjpeg-turbo's smaller transforms.
_JPEG_FACTORS = (2, 4, 8)
# Interpretations of samples of which a mean makes sense.
_MEASURED = ("MONOCHROME1", "MONOCHROME2", "RGB", *YBR, "YBR_ICT", "YBR_RCT")


def decode_reduced(
    instance: Instance, how: Decoding, frames: Sequence[int], factor: int
) -> npt.NDArray[Any] | None:
    """Return `frames` at 1 / `factor` of their size, or None where the codec cannot do it.

    Parameters
    ----------
    instance : Instance
    how : Decoding
    frames : sequence of int
    factor : int
        A power of 2.

    Returns
    -------
    ndarray or None
        (len(frames), ceil(rows / factor), ceil(columns / factor)[, samples]). None also where
        a frame is damaged, so that decoding the whole of it says so.
    """
    pixels = instance.pixels
    if not _is_reducible(pixels, how):
        return None
    rows, columns, *samples = pixels.frame_shape
    shape = (-(-rows // factor), -(-columns // factor), *samples)
    out = np.empty((len(frames), *shape), pixels.dtype)
    for position, encoded in enumerate(encoded_frames(instance, frames)):
        stream = encoded.codestream
        if stream is None or stream.signed or stream.precision > pixels.bits_stored:
            return None
        decode = _decode_jpeg if stream.kind == "jpeg" else _decode_jpeg2000
        coded = pixels.photometric_interpretation
        if not how.raw:
            coded = colour.coded_interpretation(stream, pixels)
        small = decode(encoded.payload, stream, coded, factor)
        if small is None or small.shape != shape:
            return None
        if coded != pixels.photometric_interpretation:
            instance.warn(colour.unlike_header(pixels, coded))
        out[position] = small
    return out


def _is_reducible(pixels: ImagePixel, how: Decoding) -> bool:
    interpretation = pixels.photometric_interpretation
    kept = how.raw and interpretation in YBR
    return (
        shortcut.applies(pixels)
        and not (how.plugin or pixels.signed or kept)
        and interpretation in _MEASURED
    )


def _decode_jpeg(
    data: Span, stream: Codestream, interpretation: str, factor: int
) -> npt.NDArray[Any] | None:
    if factor not in _JPEG_FACTORS or stream.precision != 8:
        return None
    is_grey = stream.components == 1
    if not (is_grey or _is_shown_as_coded(stream, interpretation)):
        return None
    import simplejpeg

    try:
        small: npt.NDArray[Any] = simplejpeg.decode_jpeg(
            data,
            "GRAY" if is_grey else "RGB",
            min_height=-(-stream.rows // factor),
            min_width=-(-stream.columns // factor),
            min_factor=factor,
            strict=True,
        )
    except ValueError:
        return None
    return small[..., 0] if is_grey else small


def _is_shown_as_coded(stream: Codestream, interpretation: str) -> bool:
    """Return whether libjpeg's RGB of three components is that of the header."""
    if interpretation == "RGB":
        return colour.is_rgb(stream)
    return interpretation in YBR and colour.is_ycbcr(stream, interpretation)


def _decode_jpeg2000(
    data: Span, stream: Codestream, interpretation: str, factor: int
) -> npt.NDArray[Any] | None:
    levels = factor.bit_length() - 1
    if stream.kind != "jpeg2000" or levels > stream.decompositions or interpretation in YBR:
        return None
    # Pillow has grey of up to 16 bits, which it fills up on the right, and RGB of 8 bits.
    depth = 8 if stream.precision <= 8 else 16
    if stream.precision > 16 or (stream.components > 1 and stream.precision != 8):
        return None
    from PIL import Image

    codestream = io.BytesIO(memoryview(data)[stream.offset :])
    try:
        with Image.open(codestream, formats=["JPEG2000"]) as image:
            # Of this format it is an attribute, in the place of a method of all pictures.
            image.reduce = levels  # type: ignore[method-assign, assignment]
            small = np.asarray(image)
    except (OSError, ValueError):
        return None
    return small >> (depth - stream.precision) if stream.precision < depth else small
