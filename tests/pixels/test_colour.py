"""JPEG straight to RGB against pydicom's conversion, over all triples of Y, Cb and Cr.

A JPEG of flat 8 x 8 blocks at the highest quality holds their values exactly, so one block
for each triple shows what the codec's conversion makes of it.
"""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.pixels import convert_color_space
from pydicom.uid import JPEGBaseline8Bit

from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.pixels.codecs import decode_into
from dcmdask.pixels.guard import check

# Values of Y in one picture; with all pairs of Cb and Cr it has 512 x 512 blocks.
LEVELS = 4
SIDE = 512


def differences(first: int) -> tuple[int, int]:
    """How far the conversions are apart at most for four values of Y, and how often they are."""
    import imagecodecs

    luma, blue, red = np.meshgrid(
        np.arange(first, first + LEVELS), np.arange(256), np.arange(256), indexing="ij"
    )
    triples = np.stack([luma, blue, red], axis=-1).astype("u1").reshape(SIDE, SIDE, 3)
    blocks = triples.repeat(8, axis=0).repeat(8, axis=1)
    data = imagecodecs.jpeg8_encode(
        blocks, level=100, colorspace="YCBCR", outcolorspace="YCBCR", subsampling="444"
    )
    options = {"rows": 8 * SIDE, "columns": 8 * SIDE, "samples_per_pixel": 3, "bits_allocated": 8}
    codestream = check(data, ImagePixel(options, JPEGBaseline8Bit))
    decoded = np.empty_like(blocks)
    decode_into(data, decoded, codestream, [])
    np.testing.assert_array_equal(decoded[::8, ::8], triples)
    decode_into(data, decoded, codestream, [], rgb=True)
    expected = convert_color_space(triples, "YBR_FULL", "RGB")
    apart = np.abs(decoded[::8, ::8].astype(int) - expected)
    return int(apart.max()), int(np.count_nonzero(apart))


@pytest.mark.parametrize("first", [0, 76, 128, 200, 252])
def test_some_triples(first: int) -> None:
    most, often = differences(first)
    assert most <= 1
    assert often <= 0.002 * LEVELS * 256**2 * 3


@pytest.mark.rare
def test_all_triples() -> None:
    found = [differences(first) for first in range(0, 256, LEVELS)]
    assert max(most for most, _ in found) == 1
    share = sum(often for _, often in found) / (256**3 * 3)
    assert 0.0002 < share < 0.0004
