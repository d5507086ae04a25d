"""Damaged and contradictory files: a clear error of ours, never a crash, hang or wrong array."""

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import (
    LOSSLESS,
    NATIVE,
    described,
    encapsulated,
    encoded,
    native,
    noise,
    part10,
    pixel_element,
    saved,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from real_files import packaged_file

from dcmdask.errors import (
    DcmdaskError,
    DecodeError,
    HeaderError,
    MissingElementError,
    NoPixelDataError,
    NotDicomError,
    PixelDataError,
    UnsupportedSyntaxError,
)
from dcmdask.pixels import decode
from dcmdask.pixels.frame_array import open_frames
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array

GREY = noise(3, 16, 16)


def refused(path: Path, kind: type[DcmdaskError], *words: str, **options: Any) -> None:
    """Opening, or decoding frame 0, fails everywhere alike and tells file and `words`."""
    for use in (
        lambda: open_frames(path, **options)[0],
        lambda: pixel_array(path, index=0, **options),
        lambda: next(iter_pixels(path, **options)),
    ):
        with pytest.raises(kind) as caught:
            use()
        message = str(caught.value)
        assert message.startswith(str(path))
        for word in words:
            assert word in message, f"{word!r} not in {message!r}"
        # Of classes with one cause the name is enough.
        if kind not in (NotDicomError, NoPixelDataError):
            assert re.fullmatch(r"\w+Error/[a-z0-9]+(-[a-z0-9]+)*", caught.value.code)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), again.frame) == (
            type(caught.value),
            message,
            caught.value.frame,
        )


def native_as(frames: np.ndarray, **elements: Any) -> bytes:
    element = pixel_element(frames.tobytes(), ExplicitVRLittleEndian)
    return part10(described(frames, **elements), ExplicitVRLittleEndian, element)


# Not DICOM, or without pixels.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"A text that is no image.\n" * 40,
        b"\x89PNG\r\n\x1a\n" + bytes(400),
        bytes(4000),
        b"\xff" * 4000,
        bytes(range(256)) * 8,
        bytes(128) + b"DICOM" + bytes(100),
    ],
    ids=["empty", "a byte", "text", "PNG", "zeros", "ones", "all bytes", "nearly"],
)
def test_not_dicom(data: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path, data)
    refused(path, NotDicomError, "not a DICOM file", f"{len(data)} bytes", "transfer_syntax_uid")


@pytest.mark.parametrize("rest", [b"", b"\0", b"\2\0", b"\xff" * 300, bytes(300)])
def test_a_prefix_and_no_data_set(rest: bytes, tmp_path: Path) -> None:
    refused(saved(tmp_path, bytes(128) + b"DICM" + rest), DcmdaskError)


def test_no_pixel_data(tmp_path: Path) -> None:
    for syntax in NATIVE:
        path = saved(tmp_path, part10(described(GREY), syntax, b""))
        refused(path, NoPixelDataError, "no pixel data", "(7FE0,0010)")
    refused(packaged_file("reportsi.dcm"), NoPixelDataError)


@pytest.mark.parametrize(
    "keyword",
    [
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "SamplesPerPixel",
        "PhotometricInterpretation",
    ],
)
def test_an_element_that_is_missing(keyword: str, tmp_path: Path) -> None:
    for make in (native_as, lambda frames, **e: encapsulated(frames, RLELossless, **e)):
        refused(saved(tmp_path, make(GREY, **{keyword: None})), MissingElementError, "(0028,")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Rows": 0}, ("(0028,0010) 'Rows'", "value is 0", "65535")),
        (
            {"Columns": 0},
            (
                "'Columns'",
                "value is 0",
            ),
        ),
        (
            {"BitsAllocated": 12},
            (
                "'Bits Allocated'",
                "value is 12",
            ),
        ),
        (
            {"BitsAllocated": 65535},
            (
                "'Bits Allocated'",
                "value is 65535",
            ),
        ),
        ({"BitsStored": 9}, ("'Bits Stored'", "value is 9", "1 to 8")),
        (
            {"BitsStored": 0},
            (
                "'Bits Stored'",
                "value is 0",
            ),
        ),
        (
            {"SamplesPerPixel": 2},
            (
                "'Samples per Pixel'",
                "value is 2",
            ),
        ),
        (
            {"SamplesPerPixel": 4},
            (
                "'Samples per Pixel'",
                "value is 4",
            ),
        ),
        (
            {"PixelRepresentation": 2},
            (
                "'Pixel Representation'",
                "value is 2",
            ),
        ),
        ({"PhotometricInterpretation": "NONSENSE"}, ("'NONSENSE'",)),
        (
            {"SamplesPerPixel": 3, "PlanarConfiguration": 2},
            (
                "'Planar Configuration'",
                "value is 2",
            ),
        ),
    ],
    ids=str,
)
def test_an_element_that_is_invalid(
    elements: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(saved(tmp_path, native_as(GREY, **elements)), HeaderError, *words)


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [(0x00280010, "US", b"\1"), (0x00280010, "US", b""), (0x00280004, "CS", b"\xff\xfe")],
    ids=str,
)
def test_a_value_of_the_wrong_size(tag: int, vr: str, value: bytes, tmp_path: Path) -> None:
    data = native(GREY)
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), 0)[:6]
    at = data.index(head)
    (length,) = struct.unpack_from("<H", data, at + 6)
    data = data[: at + 6] + struct.pack("<H", len(value)) + value + data[at + 8 + length :]
    refused(saved(tmp_path, data), DcmdaskError)


def test_texts_of_a_file_are_in_the_detail_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are shared have the message, and not the detail."""
    data = native(GREY)
    rows = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 16)
    assert rows in data
    named = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 9) + b"Doe^John "
    with pytest.raises(HeaderError, match=r"Doe\^John") as header:
        open_frames(data.replace(rows, named))
    assert (header.value.message, header.value.code) == (
        "an element of group 0028 is invalid", "HeaderError/image-pixel",
    )  # fmt: skip

    def refuse(*arguments: Any) -> None:
        raise RuntimeError("this is no image of Doe^John")

    monkeypatch.setattr(decode, "_run", refuse)
    frames = open_frames(encapsulated(GREY, RLELossless), decoding_plugin="pydicom")
    with pytest.raises(DecodeError, match=r"frame 1: .*Doe\^John") as frame:
        frames[1]
    assert (frame.value.message, frame.value.code) == (
        "the frame does not decode", "DecodeError/decoder",
    )  # fmt: skip


# Truncated.


def test_truncated_anywhere(tmp_path: Path) -> None:
    for name, data in {
        "native": native(GREY),
        "implicit": native(GREY, NATIVE[1]),
        "big endian": native(GREY, NATIVE[2]),
        "deflated": native(GREY, NATIVE[3]),
        "encapsulated": encapsulated(GREY, JPEGLSLossless, delimiter=False),
    }.items():
        # The last byte may be padding.
        for cut in [*range(0, 600, 7), *range(600, len(data), 41), len(data) - 2]:
            path = saved(tmp_path, data[:cut])
            with pytest.raises(DcmdaskError) as caught:
                open_frames(path)
            assert str(path) in str(caught.value), (name, cut)


def test_truncated_in_the_header(tmp_path: Path) -> None:
    data = native(GREY)
    rows = data.index(b"\x28\x00\x10\x00US")
    refused(saved(tmp_path, data[: rows + 9]), HeaderError, "header ends early", "truncated")


def test_truncated_in_a_native_frame(tmp_path: Path) -> None:
    path = saved(tmp_path, native(GREY)[:-100])
    refused(path, PixelDataError, "668 bytes", "2 whole frames", "100 bytes are missing", "says 3")


def test_truncated_in_an_item(tmp_path: Path) -> None:
    data = encapsulated(GREY, RLELossless)
    path = saved(tmp_path, data[:-60])
    refused(
        path, PixelDataError, "2 whole frames", "says 3", "number_of_frames=2", "bytes are left"
    )


def test_an_item_that_is_longer_than_the_file(tmp_path: Path) -> None:
    for table in ("none", "basic"):
        data = encapsulated(GREY, RLELossless, table=table)
        second = [i for i in range(len(data)) if data.startswith(b"\xfe\xff\x00\xe0", i)][2]
        for length in (2**31, 0xFFFFFFFE, 0xFFFFFFFF, len(data)):
            broken = data[: second + 4] + struct.pack("<L", length) + data[second + 8 :]
            refused(saved(tmp_path, broken), PixelDataError, "hold 1 whole frame", "says 3")
            first = open_frames_quietly(saved(tmp_path, broken), number_of_frames=1)
            np.testing.assert_array_equal(first[0], GREY[0])


def open_frames_quietly(path: Path, **options: Any) -> Any:
    with pytest.warns(UserWarning):
        return open_frames(path, **options)


def test_a_damaged_deflated_data_set(tmp_path: Path) -> None:
    data = native(GREY, DeflatedExplicitVRLittleEndian)
    refused(saved(tmp_path, data[:-200]), PixelDataError, "ends early", "truncated")
    middle = len(data) - 300
    broken = data[:middle] + bytes(100) + data[middle + 100 :]
    refused(saved(tmp_path, broken), DcmdaskError)


# Codestreams that contradict the header, or end early.

ENCODED = [*LOSSLESS, JPEGBaseline8Bit]


@pytest.mark.parametrize("syntax", ENCODED)
@pytest.mark.parametrize("part", [0.97, 0.5, 0.1, 0.0])
def test_a_codestream_that_ends_early(syntax: str, part: float, tmp_path: Path) -> None:
    streams = [encoded(frame, syntax) for frame in GREY]
    whole = open_frames(encapsulated(GREY, syntax, streams=streams))[:]
    streams[0] = streams[0][: int(len(streams[0]) * part)]
    path = saved(tmp_path, encapsulated(GREY, syntax, streams=streams))
    refused(path, DecodeError, "frame 0")
    np.testing.assert_array_equal(open_frames(path)[1:], whole[1:])


@pytest.mark.parametrize("syntax", ENCODED)
@pytest.mark.parametrize(
    "header",
    [
        {"Rows": 17},
        {"Rows": 15},
        {"Columns": 32, "Rows": 8},
        {"Rows": 60000, "Columns": 60000},
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    ],
    ids=str,
)
def test_a_codestream_of_another_size_or_colour(
    syntax: str, header: dict[str, Any], tmp_path: Path
) -> None:
    if syntax == RLELossless and header in ({"Rows": 15}, {"Columns": 32, "Rows": 8}):
        pytest.skip("RLE segments tell no size, and pydicom takes what is left over for padding")
    path = saved(tmp_path, encapsulated(GREY, syntax, **header))
    refused(path, DecodeError, "frame 0")


@pytest.mark.parametrize("syntax", ENCODED[1:])
def test_a_codestream_of_colour_under_a_grey_header(syntax: str, tmp_path: Path) -> None:
    colour = noise(3, 16, 16, 3)
    path = saved(
        tmp_path,
        encapsulated(
            colour,
            syntax,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            PlanarConfiguration=None,
        ),
    )
    refused(path, DecodeError, "frame 0", "components")


@pytest.mark.parametrize("syntax", ENCODED[1:-1])
def test_a_codestream_of_more_bits_than_allocated(syntax: str, tmp_path: Path) -> None:
    streams = [encoded(frame, syntax) for frame in noise(3, 16, 16, dtype="u2")]
    path = saved(tmp_path, encapsulated(GREY, syntax, streams=streams))
    refused(path, DecodeError, "frame 0", "precision of 16 bits")


def test_a_codestream_of_another_syntax(tmp_path: Path) -> None:
    streams = [encoded(frame, JPEG2000Lossless) for frame in GREY]
    # Not JPEG baseline: there pillow tells by itself what it has, and decodes it rightly.
    for syntax in (RLELossless, JPEGLSLossless, JPEGLosslessSV1):
        path = saved(tmp_path, encapsulated(GREY, syntax, streams=streams))
        refused(path, DecodeError, "frame 0")


# Syntaxes that nothing decodes.


@pytest.mark.parametrize(
    ("uid", "words"),
    [
        ("1.2.840.10008.1.2.4.100", ("MPEG2", "a video, not frames", "ffmpeg")),
        ("1.2.840.10008.1.2.4.102", ("MPEG-4", "a video, not frames")),
        ("1.2.840.10008.1.2.4.107", ("HEVC", "a video, not frames")),
        ("1.2.840.10008.1.2.4.110", ("JPEG XL", "1.2.840.10008.1.2.4.110", "convert")),
        ("1.2.840.10008.1.2.4.112", ("JPEG XL", "convert")),
        ("1.2.840.10008.1.2.4.94", ("JPIP",)),
        ("1.2.3.4.5", ("1.2.3.4.5",)),
        ("nonsense", ("nonsense",)),
    ],
)
def test_unsupported_syntaxes(uid: str, words: tuple[str, ...], tmp_path: Path) -> None:
    streams = [b"\0\0\0\1" * 8] * 3
    data = encapsulated(GREY, RLELossless, streams=streams)
    old = b"UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.5\0"
    value = uid.encode() + b"\0" * (len(uid) % 2)
    assert old in data
    data = data.replace(old, b"UI" + struct.pack("<H", len(value)) + value)
    refused(saved(tmp_path, data), UnsupportedSyntaxError, *words)
    refused(
        saved(tmp_path, encapsulated(GREY, RLELossless, streams=streams)),
        UnsupportedSyntaxError,
        *words,
        transfer_syntax_uid=uid,
    )


def test_a_syntax_that_is_missing_or_empty(tmp_path: Path) -> None:
    data = native(GREY)
    uid = b"1.2.840.10008.1.2.1\0"
    assert data.count(uid) == 1
    path = saved(tmp_path, data.replace(uid, bytes(len(uid))))
    refused(path, MissingElementError, "(0002,0010)", "transfer_syntax_uid")
    found = open_frames(path, transfer_syntax_uid=str(ExplicitVRLittleEndian))
    np.testing.assert_array_equal(found[:], GREY)


# Sizes that only the header believes in.


@pytest.mark.parametrize("syntax", [*NATIVE, *ENCODED])
def test_absurd_sizes(syntax: str, tmp_path: Path) -> None:
    size = {"Rows": 65535, "Columns": 65535}
    make = native if syntax in NATIVE else encapsulated
    kind = PixelDataError if syntax in NATIVE else DecodeError
    refused(saved(tmp_path, make(GREY, UID(syntax), **size)), kind)
    path = saved(tmp_path, make(GREY, UID(syntax), NumberOfFrames=2**31 - 1))
    refused(path, PixelDataError, "3 whole frames", str(2**31 - 1), "number_of_frames=3")
    refused(saved(tmp_path, make(GREY, UID(syntax))), PixelDataError, number_of_frames=10**30)


def test_a_deflated_data_set_that_is_mostly_zeros(tmp_path: Path) -> None:
    # As far as deflate goes, 1032 times: this is what a whole file may honestly hold.
    frames = np.zeros((4, 512, 512), "u1")
    path = saved(tmp_path, native(frames, DeflatedExplicitVRLittleEndian))
    assert path.stat().st_size * 1032 > frames.nbytes > path.stat().st_size * 200
    np.testing.assert_array_equal(open_frames(path)[:], frames)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless])
def test_junk_frames_ask_for_no_memory(syntax: UID) -> None:
    # 2000 items of 8 bytes, and a header that makes 477 GiB of them.
    frames = np.zeros((1, 8, 8), "u1")
    data = encapsulated(frames, syntax, streams=[bytes(8)] * 2000, table="none")
    opened = open_frames(data, number_of_frames=2000, rows=16000, columns=16000)
    for ask in (lambda: opened[:], lambda: opened[7]):
        with pytest.raises(DecodeError, match="frame"):
            ask()


def test_short_rle_frames_ask_for_no_memory() -> None:
    frame = np.zeros((1, 2000, 2000), "u1")
    good = encoded(frame[0], RLELossless)
    streams = [good] + [good[:64] + b"\x81\x00"] * 2000
    data = encapsulated(frame, RLELossless, streams=streams, table="none")
    opened = open_frames(data, number_of_frames=len(streams))
    with pytest.raises(DecodeError, match=r"frame 1: .* 74 bytes of RLE cannot hold them"):
        opened[:]
    np.testing.assert_array_equal(opened[0], frame[0])
