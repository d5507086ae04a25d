"""RLE frames that imagecodecs refuses and pydicom decodes."""

import struct
from itertools import pairwise

import numpy as np
import pytest
from make_dicom import by_pydicom, encapsulated, encoded, noise
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dcmdask import DcmdaskWarning, DecodeError, open_frames, pixel_array
from dcmdask.pixels import decode


def padded_segments(stream: bytes, surplus: bytes, behind: bytes = b"") -> bytes:
    """An RLE frame with bytes more behind each segment, and behind the last one."""
    count, *offsets = struct.unpack_from("<16L", stream)
    bounds = [*offsets[:count], len(stream)]
    segments = [stream[a:b] + surplus for a, b in pairwise(bounds)]
    starts = [64, *(64 + np.cumsum([len(one) for one in segments[:-1]])).tolist()]
    header = struct.pack("<16L", count, *starts, *[0] * (15 - count))
    return header + b"".join(segments) + behind


@pytest.mark.filterwarnings("ignore:The decoded RLE segment:UserWarning")
@pytest.mark.filterwarnings("ignore:.*RLE segments hold more bytes:dcmdask.DcmdaskWarning")
@pytest.mark.parametrize(
    ("surplus", "behind"),
    # Two more bytes as a literal run; zeros, which are literal runs as well; no operation.
    [(b"\1AB", b""), (b"\xffA", b""), (b"\0\0", b""), (b"", bytes(6)), (b"\x80", b"\x80" * 4)],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_rle_segments_with_surplus_bytes(surplus: bytes, behind: bytes, samples: int) -> None:
    """pydicom issue 1438."""
    frames = noise(2, 8, 8, samples=samples, dtype="u1" if samples == 3 else "u2")
    streams = [padded_segments(encoded(frame, RLELossless), surplus, behind) for frame in frames]
    streams = [stream + bytes(len(stream) % 2) for stream in streams]
    data = encapsulated(frames, RLELossless, streams=streams)
    # pylibjpeg-rle, which pydicom tries first, panics on some of them.
    np.testing.assert_array_equal(by_pydicom(data, decoding_plugin="pydicom"), frames)
    found = open_frames(data)
    np.testing.assert_array_equal(found[:], frames)
    np.testing.assert_array_equal(pixel_array(data), frames)


def test_surplus_bytes_are_noted() -> None:
    """pydicom issue 1438."""
    frames = noise(1, 8, 8)
    stream = padded_segments(encoded(frames[0], RLELossless), b"\1AB")
    data = encapsulated(frames, RLELossless, streams=[stream])
    with pytest.warns(UserWarning) as caught:
        np.testing.assert_array_equal(open_frames(data)[:], frames)
    notes = [one.message for one in caught if isinstance(one.message, DcmdaskWarning)]
    assert [note.code for note in notes] == ["surplus-bytes"]


def test_the_plugin_that_is_named_is_the_only_one() -> None:
    frames = noise(1, 8, 8)
    stream = padded_segments(encoded(frames[0], RLELossless), b"\1AB")
    data = encapsulated(frames, RLELossless, streams=[stream])
    with pytest.raises(DecodeError):
        open_frames(data, decoding_plugin="imagecodecs")[0]


def test_rle_segments_that_are_short_stay_refused() -> None:
    frames = noise(1, 8, 8, dtype="u2")
    stream = encoded(frames[0], RLELossless)
    data = encapsulated(frames, RLELossless, streams=[stream[:-10]])
    with pytest.raises(DecodeError):
        open_frames(data)[0]


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_other_frames_are_not_handed_on(syntax: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(1, 16, 16)
    stream = bytearray(encoded(frames[0], syntax))
    del stream[-70:-10]
    stream += bytes(len(stream) % 2)
    data = encapsulated(frames, syntax, streams=[bytes(stream)])
    monkeypatch.delattr(decode, "get_decoder")
    with pytest.raises(DecodeError) as caught:
        open_frames(data)[0]
    assert caught.value.code == "DecodeError/decoder"
