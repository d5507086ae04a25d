"""Frames at a fraction of their size, by the codec: beside the mean of whole frames."""

import warnings
from typing import Any

import imagecodecs
import numpy as np
import pytest
from index_checks import opened
from make_dicom import encapsulated, encoded, native, noise
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask import DcmdaskWarning, DecodeError, open_frames
from dcmdask.pixels.frame_array import FrameArray

ROWS, COLUMNS = 100, 90
Y, X = np.mgrid[:ROWS, :COLUMNS]


def smooth(samples: int = 3, bits: int = 8) -> np.ndarray:
    """Two frames without edges, of values that differ by at most 1/120 between neighbours."""
    first = np.stack([0.1 + X / 120, 0.9 - Y / 150, 0.3 + (X + 2 * Y) / 600], axis=-1)
    frames = np.stack([first, first[..., [1, 2, 0]]])
    frames = np.round(frames * (2**bits - 1)).astype(f"u{bits // 8}")
    return np.ascontiguousarray(frames if samples == 3 else frames[..., 0])


def mean(frames: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks; those at the edge repeat its pixels, as codecs do."""
    more = [(0, -length % factor) for length in frames.shape[1:3]]
    padded = np.pad(frames.astype(float), [(0, 0), *more, *[(0, 0)] * (frames.ndim - 3)], "edge")
    n, rows, columns, *samples = padded.shape
    blocks = padded.reshape(n, rows // factor, factor, columns // factor, factor, *samples)
    return blocks.mean((2, 4))


def jpeg(frames: np.ndarray, sampling: str, stored: str = "YCBCR") -> list[bytes]:
    return [
        imagecodecs.jpeg8_encode(
            frame, level=98, colorspace="RGB", outcolorspace=stored, subsampling=sampling
        )
        for frame in frames
    ]


def colour_jpeg(sampling: str, **elements: Any) -> FrameArray:
    frames = smooth()
    stored = "RGB" if sampling == "RGB" else "YCBCR"
    streams = jpeg(frames, "444" if stored == "RGB" else sampling, stored)
    said = "RGB" if stored == "RGB" else "YBR_FULL_422"
    elements = {"PhotometricInterpretation": said, **elements}
    return opened(encapsulated(frames, JPEGBaseline8Bit, streams=streams, **elements))


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("sampling", ["444", "422", "420", "RGB"])
def test_jpeg_is_the_mean(sampling: str, factor: int) -> None:
    frames = colour_jpeg(sampling)
    found = frames.reduced([1, 0], factor)
    assert found is not None and found.dtype == frames.dtype
    expected = mean(frames[[1, 0]], factor)
    assert found.shape == expected.shape == (2, -(-ROWS // factor), -(-COLUMNS // factor), 3)
    # Without the edges, where half a block of chroma is beyond them. libjpeg makes up for
    # chroma that is subsampled in both directions; in one, two samples of a row share it.
    inner = np.s_[:, :-1, :-1]
    within = {"422": 2 + 1.1 * factor, "420": 4}.get(sampling, 2)
    np.testing.assert_allclose(found[inner], expected[inner], atol=within)
    assert np.abs(found - expected).mean() < (0.7 if sampling != "422" else 0.5 + factor / 3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_grey_jpeg_is_the_mean(factor: int) -> None:
    frames = opened(encapsulated(smooth(1), JPEGBaseline8Bit))
    found = frames.reduced(range(2), factor)
    assert found is not None
    np.testing.assert_allclose(found[:, :-1, :-1], mean(frames[:], factor)[:, :-1, :-1], atol=2)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_error_where_there_are_edges(samples: int) -> None:
    """Noise is the worst of pictures: in the middle, grey is within 1 and colours within 5."""
    tile = noise(1, 64, 64, samples) // 3 + 60
    streams = [imagecodecs.jpeg8_encode(tile[0], level=90)] if samples == 1 else jpeg(tile, "422")
    said = "YBR_FULL_422" if samples == 3 else "MONOCHROME2"
    data = encapsulated(tile, JPEGBaseline8Bit, streams=streams, PhotometricInterpretation=said)
    frames = open_frames(data)
    for factor in (2, 4, 8):
        found = frames.reduced([0], factor)
        assert found is not None
        wrong = np.abs(found - mean(frames[:], factor))
        assert np.mean(wrong) < (1 if samples == 1 else 5)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize(("samples", "bits"), [(3, 8), (1, 8), (1, 16)])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_jpeg_2000_is_centred_on_the_first_pixel(
    samples: int, bits: int, factor: int, syntax: UID
) -> None:
    pixels = np.ascontiguousarray(smooth(samples, bits)[:, :96, :80])
    colours = {"PhotometricInterpretation": "YBR_RCT"} if samples == 3 else {}
    frames = opened(encapsulated(pixels, syntax, **colours))
    found = frames.reduced([0, 1], factor)
    assert found is not None and found.dtype == frames.dtype
    at_first, in_middle = pixels[:, ::factor, ::factor], mean(pixels, factor)
    assert found.shape == at_first.shape
    inner = np.s_[:, 1:-1, 1:-1]
    wrong = np.abs(found[inner].astype(float) - at_first[inner])
    assert wrong.max() <= 3 * 2 ** (bits - 8)
    assert wrong.mean() < np.abs(found[inner] - in_middle[inner]).mean()


def test_fewer_bits_of_jpeg_2000() -> None:
    for bits in (6, 12):
        pixels = (smooth(1, 8 if bits == 6 else 16) >> (2 if bits == 6 else 4)).copy()
        streams = [
            imagecodecs.jpeg2k_encode(
                frame, level=0, reversible=True, codecformat="j2k", bitspersample=bits
            )
            for frame in pixels
        ]
        look = {"BitsStored": bits, "HighBit": bits - 1}
        frames = opened(encapsulated(pixels, JPEG2000Lossless, streams=streams, **look))
        found = frames.reduced([0, 1], 2)
        assert found is not None
        inner = np.s_[:, 1:-1, 1:-1]
        wrong = np.abs(found.astype(float) - pixels[:, ::2, ::2])[inner]
        assert wrong.max() <= 3 ** (bits - 8) + 1


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 15, 17, 33, 63, 65])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_any_size(rows: int, syntax: UID) -> None:
    pixels = np.ascontiguousarray(smooth(1)[:, :rows])
    frames = opened(encapsulated(pixels, syntax))
    for factor in (2, 4, 8):
        found = frames.reduced([0], factor)
        shape = (1, -(-rows // factor), -(-COLUMNS // factor))
        # Pillow rounds to other sizes than OpenJPEG.
        assert found.shape == shape if found is not None else syntax == JPEG2000Lossless


def test_a_header_that_is_wrong_about_colours() -> None:
    frames = smooth()
    data = encapsulated(frames, JPEGBaseline8Bit, streams=jpeg(frames, "422"))
    wrong = open_frames(data)
    with pytest.warns(DcmdaskWarning, match="Photometric Interpretation"):
        found = wrong.reduced([0, 1], 2)
    right = colour_jpeg("422").reduced([0, 1], 2)
    assert found is not None and right is not None
    np.testing.assert_array_equal(found, right)


def test_none_where_the_codec_cannot() -> None:
    grey = smooth(1)
    for syntax in (RLELossless, JPEGLSLossless, JPEGLosslessSV1):
        assert opened(encapsulated(grey, syntax)).reduced([0], 2) is None
    assert opened(native(grey)).reduced([0], 2) is None
    signed = encapsulated(grey, JPEG2000Lossless, PixelRepresentation=1)
    palette = encapsulated(grey, JPEG2000Lossless, PhotometricInterpretation="PALETTE COLOR")
    for data in (signed, palette):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DcmdaskWarning)
            assert open_frames(data).reduced([0], 2) is None
    for factor in (3, 5, 16):
        assert colour_jpeg("422").reduced([0], factor) is None
    three = encapsulated(grey, JPEG2000Lossless)
    for factor in (3, 6, 64, 1024):
        assert opened(three).reduced([0], factor) is None
    ycbcr = encapsulated(
        smooth(),
        JPEGBaseline8Bit,
        streams=jpeg(smooth(), "422"),
        PhotometricInterpretation="YBR_FULL_422",
    )
    assert opened(ycbcr, raw=True).reduced([0], 2) is None
    assert opened(ycbcr, decoding_plugin="pylibjpeg").reduced([0], 2) is None


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_damage_is_left_to_the_whole_frame(syntax: UID) -> None:
    grey = smooth(1)
    streams = [encoded(frame, syntax) for frame in grey]
    streams[1] = streams[1][: len(streams[1]) // 2]
    frames = open_frames(encapsulated(grey, syntax, streams=streams))
    assert frames.reduced([0], 2) is not None
    assert frames.reduced([0, 1], 2) is None
    with pytest.raises(DecodeError, match="frame 1"):
        frames[1]
