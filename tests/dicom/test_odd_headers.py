"""Headers that other software reads, or refuses without saying where."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_checks import opened
from make_dicom import (
    by_pydicom,
    described,
    encapsulated,
    native,
    noise,
    part10,
    pixel_element,
    saved,
)
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dcmdask import DcmdaskWarning, NoPixelDataError, NotDicomError, from_dicom, scan
from dcmdask.dicom.description import describe
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources.files import locate

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def inserted(data: bytes, before: int, element: bytes) -> bytes:
    """`data` in explicit little endian with an element in front of that with the tag `before`."""
    at = data.index(struct.pack("<HH", before >> 16, before & 0xFFFF), 132)
    return data[:at] + element + data[at:]


@pytest.mark.parametrize("make", [native, lambda f, **kw: encapsulated(f, RLELossless, **kw)])
def test_a_photometric_interpretation_with_a_leading_blank(make: Any) -> None:
    """PS3.5 6.2: leading and trailing blanks of a CS mean nothing."""
    frames = noise(2, 8, 8, samples=3)
    data = make(frames, PhotometricInterpretation=" RGB")
    np.testing.assert_array_equal(opened(data)[:], frames)
    assert describe(locate(data)).photometric_interpretation == "RGB"


def test_a_number_of_frames_with_vr_us() -> None:
    """As users of pydicom met it: Number of Frames is no IS, and is read all the same."""
    frames = noise(3, 8, 8)
    data = native(frames, NumberOfFrames=30)
    text = struct.pack("<HH2sH", 0x28, 8, b"IS", 2) + b"30"
    data = data.replace(text, struct.pack("<HH2sHH", 0x28, 8, b"US", 2, 3))
    np.testing.assert_array_equal(by_pydicom(data), frames)
    np.testing.assert_array_equal(opened(data)[:], frames)
    assert len(describe(locate(data))) == 3


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: syntax.name)
def test_a_data_set_alone(syntax: UID, tmp_path: Path) -> None:
    """pydicom issues 2231 and 1102, fo-dicom issue 340: no preamble, no file meta information."""
    frames = noise(3, 8, 8, dtype="u2")
    for number, frame in enumerate(frames):
        data = native(
            frame[np.newaxis],
            syntax,
            preamble=False,
            meta=False,
            SeriesInstanceUID="1.2.3",
            SOPInstanceUID=f"1.2.3.{number}",
            InstanceNumber=number + 1,
        )
        saved(tmp_path, data, f"{number}.dcm")
    text = f"the data set is in {syntax.name}"
    np.testing.assert_array_equal(opened(data, text)[:], frames[2:])
    found = scan(tmp_path)
    assert (len(found), list(found.skipped)) == (1, [])
    with pytest.warns(DcmdaskWarning) as caught:
        np.testing.assert_array_equal(from_dicom(tmp_path).compute(), frames)
    assert any(text in str(one.message) for one in caught)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\0",
        b"\x08\0\x05\0" + b"\xff" * 400,
        b"\x08\0\x05\0CS\xff\xff" + bytes(400),
        b"\0\x08\0\x05" * 100,
        b"\x10\0\x10\0PN\x04\0A^B " + bytes(100),
    ],
)
def test_what_begins_like_group_0008_and_does_not_go_on_so(data: bytes) -> None:
    with pytest.raises(NotDicomError):
        open_frames(data)


def test_an_unknown_vr_before_the_pixel_data(tmp_path: Path) -> None:
    """dcmjs, and fo-dicom issue 598: a VR of two blanks."""
    # With a length of four bytes behind it, as UN has it.
    odd = struct.pack("<HH2sHL", 0x0028, 0x1FFF, b"  ", 0, 4) + b"ABCD"
    pixels = noise(1, 8, 8)
    data = part10(described(pixels), ExplicitVRLittleEndian, b"")
    at = len(data)
    data += odd + pixel_element(pixels.tobytes(), ExplicitVRLittleEndian)
    where = rf"byte {at} .*\(0028,1FFF\) has no known VR"
    with pytest.raises(NoPixelDataError, match=where):
        open_frames(data)
    saved(tmp_path, data)
    (skipped,) = scan(tmp_path).skipped
    assert f"byte {at}" in skipped.reason
    assert "(0028,1FFF)" in skipped.reason
    assert "truncated" not in skipped.reason and skipped.kind == "doubtful"
    # Without such an element nothing is known but that it ends too early.
    saved(tmp_path, data[:at])
    (skipped,) = scan(tmp_path).skipped
    assert skipped.reason.endswith("it is probably truncated")
