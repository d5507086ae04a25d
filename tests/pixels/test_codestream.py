"""What a codestream says about itself, without decoding it."""

from __future__ import annotations

import contextlib
import pickle
import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    RLELossless,
)

from dcmdask.pixels.codestream import Codestream, CodestreamError, parse, repeats
from dcmdask.pixels.guard import SYNTAXES

GRAY = np.add.outer(np.arange(24), np.arange(40)).astype("u1")
RGB = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], axis=-1).copy()

STREAMS = {
    JPEGBaseline8Bit: imagecodecs.jpeg8_encode(RGB, level=90, subsampling="422"),
    JPEGLosslessSV1: imagecodecs.jpeg8_encode(GRAY.astype("u2"), lossless=True, bitspersample=12),
    JPEGLSNearLossless: imagecodecs.jpegls_encode(RGB, level=2),
    JPEG2000Lossless: imagecodecs.jpeg2k_encode(RGB, codecformat="j2k", level=0, reversible=True),
}


def rle_header(*offsets: int, count: int | None = None) -> bytes:
    padded = [*offsets, *[0] * (15 - len(offsets))]
    return struct.pack("<16L", len(offsets) if count is None else count, *padded)


def test_jpeg() -> None:
    stream = parse(STREAMS[JPEGBaseline8Bit], JPEGBaseline8Bit)
    assert (stream.kind, stream.process) == ("jpeg", 0xC0)
    assert (stream.rows, stream.columns, stream.components) == (24, 40, 3)
    assert (stream.precision, stream.itemsize) == (8, 1)
    assert stream.component_ids == (1, 2, 3)
    assert stream.sampling == ((2, 1), (1, 1), (1, 1))
    assert stream.jfif
    assert stream.adobe_transform is None
    assert stream.complete


def test_adobe_marker() -> None:
    data = imagecodecs.jpeg8_encode(RGB, colorspace="RGB", outcolorspace="RGB")
    stream = parse(data, JPEGBaseline8Bit)
    assert stream.adobe_transform == 0
    assert stream.component_ids == (82, 71, 66)
    assert not stream.jfif


def test_lossless_jpeg() -> None:
    stream = parse(STREAMS[JPEGLosslessSV1], JPEGLosslessSV1)
    assert (stream.kind, stream.precision, stream.itemsize) == ("jpeg-lossless", 12, 2)


def test_jpeg_ls() -> None:
    stream = parse(STREAMS[JPEGLSNearLossless], JPEGLSNearLossless)
    assert (stream.kind, stream.components) == ("jpeg-ls", 3)
    assert stream.interleave == 2


def test_jpeg_2000() -> None:
    stream = parse(STREAMS[JPEG2000Lossless], JPEG2000Lossless)
    assert (stream.rows, stream.columns, stream.components) == (24, 40, 3)
    assert (stream.signed, stream.uniform, stream.offset) == (False, True, 0)
    assert stream.tiles == 1


def test_signed_jpeg_2000() -> None:
    signed = GRAY.astype("i2") - 100
    data = imagecodecs.jpeg2k_encode(signed, codecformat="j2k", level=0, reversible=True)
    stream = parse(data, JPEG2000Lossless)
    assert (stream.signed, stream.precision) == (True, 16)


def test_jp2_wrapper() -> None:
    data = imagecodecs.jpeg2k_encode(GRAY, codecformat="jp2", level=0, reversible=True)
    stream = parse(data, JPEG2000Lossless)
    assert data[stream.offset :][:4] == b"\xff\x4f\xff\x51"
    assert (stream.rows, stream.columns) == GRAY.shape
    assert stream.complete


@pytest.mark.parametrize("uid", STREAMS)
def test_memoryview_says_the_same(uid: str) -> None:
    assert parse(memoryview(STREAMS[uid]), uid) == parse(STREAMS[uid], uid)


@pytest.mark.parametrize("uid", STREAMS)
@given(padding=st.binary(max_size=15))
def test_padding_hides_no_end_marker(uid: str, padding: bytes) -> None:
    data = STREAMS[uid]
    # Padding that itself opens a scan would make a frame look cut short.
    if not any(marker in b"\xd9" + padding for marker in (b"\xff\xda", b"\xff\x90", b"\xff\x93")):
        assert parse(data + padding, uid).complete
        assert parse(memoryview(data + padding), uid).complete


@pytest.mark.parametrize("uid", STREAMS)
def test_a_cut_is_seen_everywhere(uid: str) -> None:
    data = STREAMS[uid]
    for stop in range(len(data)):
        try:
            assert not parse(data[:stop], uid).complete, stop
            assert not parse(memoryview(data)[:stop], uid).complete, stop
        except CodestreamError:
            pass


@pytest.mark.parametrize("uid", STREAMS)
def test_a_frame_that_repeats_another_is_the_same_but_for_its_end(uid: str) -> None:
    whole = bytes(STREAMS[uid])
    other, repeated = parse(whole, uid), 0
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 5]) + whole[at + 1 :]
        for data in (whole[:at], changed, changed[: at + 5] + changed):
            if repeats(memoryview(data), other):
                repeated += 1
                stream = parse(data, uid)
                assert stream.complete
                assert stream._replace(end=other.end) == other
    assert bool(repeated) == (other.kind == "jpeg")


def test_end_marker_far_from_the_end_of_a_view() -> None:
    data = bytes(STREAMS[JPEGLosslessSV1])
    end = parse(data, JPEGLosslessSV1).end
    for gap in (0, 1, 65533, 65534, 65535, 65536, 65537, 200_000):
        assert parse(memoryview(data + bytes(gap)), JPEGLosslessSV1).end == end


def test_end_marker_of_a_thumbnail_does_not_count() -> None:
    data = bytes(STREAMS[JPEGBaseline8Bit])
    inner = b"\xff\xe1" + struct.pack(">H", 6) + b"\xff\xda\xff\xd9"
    cut = data[:2] + inner + data[2:-2]
    assert not parse(cut, JPEGBaseline8Bit).complete
    assert parse(cut + b"\xff\xd9", JPEGBaseline8Bit).complete


def test_fill_bytes_in_front_of_a_marker() -> None:
    data = bytes(STREAMS[JPEGBaseline8Bit])
    assert parse(data[:2] + b"\xff\xff" + data[2:], JPEGBaseline8Bit).complete


def test_a_second_scan_that_is_cut() -> None:
    data = bytes(STREAMS[JPEGBaseline8Bit])
    assert not parse(data + b"\xff\xda\x00\x08", JPEGBaseline8Bit).complete


def test_rle() -> None:
    stream = parse(rle_header(64, 70) + bytes(20), RLELossless)
    assert (stream.kind, stream.components, stream.complete) == ("rle", 2, True)
    assert not parse(rle_header(64, 84) + bytes(20), RLELossless).complete


@pytest.mark.parametrize(
    ("data", "uid", "reason"),
    [
        (b"", JPEGBaseline8Bit, "starts with FF D8"),
        (b"\xff\xd8", JPEGBaseline8Bit, "cut short"),
        (b"\xff\xd8\xff\xd9", JPEGBaseline8Bit, "found FF D9"),
        (b"\xff\xd8\xff\xe0\x40\x00\x00", JPEGBaseline8Bit, "claims 16384 bytes, 3 are left"),
        (b"\xff\xd8\xff\xc9\x00\x03\x00\x00", JPEGBaseline8Bit, "FF C9 is not in DICOM"),
        (b"\xff\x4f\xff\x52", JPEG2000Lossless, "starts with FF 4F FF 51"),
        (b"\xff\x4f\xff\x51\x00", JPEG2000Lossless, "cut short"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x00", JPEG2000Lossless, "no codestream"),
        (bytes(63), RLELossless, "64 bytes"),
        (rle_header(count=16), RLELossless, "16 segments"),
        (rle_header(64, 64), RLELossless, "ascend"),
        (rle_header(66), RLELossless, "start at 64"),
        (b"", "1.2.840.10008.1.2.1", "no codestream is defined"),
    ],
)
def test_errors_say_what_is_wrong(data: bytes, uid: str, reason: str) -> None:
    with pytest.raises(CodestreamError, match=reason) as caught:
        parse(data, uid)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@given(uid=st.sampled_from(sorted(SYNTAXES)), data=st.binary(max_size=200))
def test_nothing_but_a_codestream_error(uid: str, data: bytes) -> None:
    start = {"jpeg2000": b"\xff\x4f\xff\x51", "rle": b"\x01\0\0\0\x40\0\0\0"}
    for candidate in (data, start.get(SYNTAXES[uid].kind, b"\xff\xd8\xff") + data):
        with contextlib.suppress(CodestreamError):
            assert isinstance(parse(candidate, uid), Codestream)
