"""Native frames: arithmetic over bits, held against the bytes that are there."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_checks import opened
from make_dicom import (
    NATIVE,
    by_pydicom,
    native,
    noise,
)
from pydicom.uid import (
    ExplicitVRBigEndian,
)

from dcmdask.dicom.offsets import NativeSpans
from dcmdask.errors import PixelDataError
from dcmdask.pixels.frame_array import open_frames

# How many there are.


@pytest.mark.parametrize("syntax", NATIVE)
def test_excess_native_frames(syntax: str) -> None:
    frames = noise(5, 8, 9, dtype="u2")
    data = native(frames, syntax, NumberOfFrames=3)
    found = opened(data, "there are 5 frames, and (0028,0008) 'Number of Frames' says 3")
    np.testing.assert_array_equal(found[:], frames)
    kept = opened(data, "288 bytes of pixel data are left over", allow_excess_frames=False)
    np.testing.assert_array_equal(kept[:], frames[:3])
    np.testing.assert_array_equal(opened(data, number_of_frames=5)[:], frames)


def test_native_padding_is_told_and_is_not_a_frame() -> None:
    frames = noise(2, 8, 8)
    found = opened(native(frames, surplus=bytes(10)), "10 bytes of pixel data are left over")
    np.testing.assert_array_equal(found[:], frames)
    # One byte behind an odd number of them is how the element is padded (PS3.5 8.1.1).
    odd = noise(3, 5, 7)
    np.testing.assert_array_equal(opened(native(odd))[:], odd)


def test_fewer_native_frames() -> None:
    frames = noise(3, 8, 8)
    data = native(frames, NumberOfFrames=5)
    with pytest.raises(PixelDataError, match=r"192 bytes .* hold 3 whole frames .*=3\) gives"):
        open_frames(data)
    np.testing.assert_array_equal(opened(data, number_of_frames=3)[:], frames)


@pytest.mark.parametrize("syntax", NATIVE[:3])
def test_truncated_native_frames(syntax: str) -> None:
    frames = noise(4, 8, 8, dtype="u2")
    data = native(frames, syntax)
    with pytest.raises(PixelDataError, match=r"3 whole frames.*truncated, 1 bytes are missing"):
        open_frames(data[:-1])
    found = opened(data[:-1], "127 bytes of pixel data are left over", number_of_frames=3)
    np.testing.assert_array_equal(found[:], frames[:3])
    with pytest.raises(PixelDataError, match="0 whole frames"):
        open_frames(data[: -4 * 128 + 3])


# Native frames are arithmetic.


@given(
    frame_bits=st.integers(1, 100),
    count=st.integers(1, 9),
    start=st.integers(0, 50),
    unit=st.sampled_from([1, 2]),
    data=st.data(),
)
def test_native_spans_cover_the_bits_of_a_frame(
    frame_bits: int, count: int, start: int, unit: int, data: st.DataObject
) -> None:
    spans = NativeSpans(start, frame_bits, count, unit)
    frame = data.draw(st.integers(0, count - 1))
    ((offset,), (length,)) = spans.locate(np.array([frame]))
    whole = np.arange(frame_bits * count)
    held = whole[8 * (offset - start) : 8 * (offset - start + length)]
    skipped = spans.skip_bits(frame)
    expected = whole[frame * frame_bits : (frame + 1) * frame_bits]
    np.testing.assert_array_equal(held[skipped : skipped + frame_bits], expected)
    # The smallest range of units: nothing whole is left out at either end.
    assert offset % unit == start % unit and length % unit == 0
    assert skipped < 8 * unit
    assert 8 * length - skipped - frame_bits < 8 * unit
    assert len(spans) == count


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4", "f8"]),
    syntax=st.sampled_from(NATIVE),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    samples=st.sampled_from([1, 3]),
    planar=st.sampled_from([0, 1]),
    vr=st.sampled_from(["OB", "OW"]),
)
def test_native_frames_of_every_kind(
    kind: str,
    syntax: str,
    shape: tuple[int, int, int],
    samples: int,
    planar: int,
    vr: str,
) -> None:
    if kind in ("f4", "f8", "?"):
        samples = 1
    if kind not in ("?", "u1", "i1"):
        vr = "OW"
    frames = noise(*shape, samples, kind)
    elements: dict[str, Any] = {"PlanarConfiguration": planar} if samples == 3 else {}
    if kind == "?":
        elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    data = native(frames, syntax, vr=vr, **elements)
    found = opened(data)
    np.testing.assert_array_equal(found[:], frames)
    assert found.dtype == frames.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")
    for i in range(len(frames)):
        np.testing.assert_array_equal(found[i], frames[i])


@pytest.mark.parametrize("syntax", NATIVE)
def test_native_subsampled_colour(syntax: str) -> None:
    frames = noise(3, 4, 6, 3)
    data = native(frames, syntax, vr="OB", PhotometricInterpretation="YBR_FULL_422")
    for raw in (False, True):
        np.testing.assert_array_equal(opened(data, raw=raw)[:], by_pydicom(data, raw=raw))
