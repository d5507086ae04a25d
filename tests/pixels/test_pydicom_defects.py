"""What pydicom documents and does not do, or does in another way; each is right here."""

from pathlib import Path

import numpy as np
import pytest
from make_dicom import (
    by_pydicom,
    encapsulated,
    encoded,
    native,
    noise,
    saved,
)
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from dcmdask.errors import DcmdaskWarning
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array

FRAMES = noise(40, 12, 14, dtype="u2", bits=12)


def test_a_deflated_file_by_path(tmp_path: Path) -> None:
    path = saved(tmp_path, native(FRAMES, DeflatedExplicitVRLittleEndian))
    np.testing.assert_array_equal(pixel_array(path), FRAMES)
    np.testing.assert_array_equal(pixel_array(path, index=4), FRAMES[4])
    np.testing.assert_array_equal(list(iter_pixels(path)), FRAMES)


@pytest.mark.parametrize("raw", [False, True])
def test_several_native_subsampled_frames_one_by_one(raw: bool) -> None:
    data = native(noise(3, 4, 6, 3), PhotometricInterpretation="YBR_FULL_422")
    expected = by_pydicom(data, raw=raw)
    np.testing.assert_array_equal(list(iter_pixels(data, raw=raw)), expected)
    for i in range(3):
        np.testing.assert_array_equal(pixel_array(data, index=i, raw=raw), expected[i])


@pytest.mark.parametrize("shape", [(3, 3), (5, 7), (1, 1), (4, 6)])
def test_single_bit_frames_that_start_inside_a_byte(shape: tuple[int, int]) -> None:
    frames = noise(9, *shape, dtype="?")
    data = native(frames, BitsAllocated=1, BitsStored=1, HighBit=0)
    for i in range(9):
        np.testing.assert_array_equal(pixel_array(data, index=i), frames[i])
    np.testing.assert_array_equal(list(iter_pixels(data)), frames)
    np.testing.assert_array_equal(pixel_array(data), frames)


def test_frames_with_a_corrected_sign_are_writeable(tmp_path: Path) -> None:
    frames = noise(3, 16, 16, dtype="i2", bits=12)
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        streams = [encoded(frame.view("u2") & 0xFFF, syntax) for frame in frames]
        data = encapsulated(frames, syntax, streams=streams, BitsStored=12, HighBit=11)
        for frame in (pixel_array(data, index=1), *iter_pixels(data), pixel_array(data)):
            frame += 1


def test_excess_native_frames_by_path(tmp_path: Path) -> None:
    path = saved(tmp_path, native(FRAMES, NumberOfFrames=38))
    with pytest.warns(DcmdaskWarning, match="there are 40 frames"):
        np.testing.assert_array_equal(pixel_array(path), FRAMES)
    with pytest.warns(DcmdaskWarning, match="there are 40 frames"):
        np.testing.assert_array_equal(pixel_array(path, index=39), FRAMES[39])
    with pytest.warns(DcmdaskWarning, match="left over"):
        array = pixel_array(path, allow_excess_frames=False)
    np.testing.assert_array_equal(array, FRAMES[:38])


def test_colour_conversion_of_lossy_jpeg_is_within_one() -> None:
    # Smooth, so that sub-sampled colour is not all noise.
    ramp = np.linspace(0, 255, 64).astype("u1")
    across, down = np.meshgrid(ramp, ramp)
    frame = np.stack([across, down, across[:, ::-1]], axis=-1)
    data = encapsulated(frame[None], JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    expected = by_pydicom(data)[0].astype(int)
    assert np.abs(pixel_array(data).astype(int) - expected).max() <= 1
    assert np.abs(expected - frame).max() < 20, "colours are what was encoded"
    np.testing.assert_array_equal(pixel_array(data, raw=True), by_pydicom(data, raw=True)[0])
