"""imagecodecs against pydicom's plugins: values, properties, damage."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import pytest
from make_dicom import encapsulated, encoded, noise, saved
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from real_files import corpus_files, corpus_id, packaged_files

from dcmdask import DcmdaskWarning, DecodeError, open_frames
from dcmdask.dicom.image_pixel import ImagePixel
from dcmdask.pixels.codecs import (
    correct_bits,
    decode_into,
    is_available,
    own_decoder,
)
from dcmdask.pixels.codestream import CodestreamError, Contradiction, parse
from dcmdask.pixels.colour import is_ycbcr
from dcmdask.pixels.guard import SYNTAXES, check
from dcmdask.pixels.jpeg_lossless import verify

ROWS, COLUMNS = 48, 56


def picture(bits: int, samples: int = 1) -> np.ndarray:
    """Smooth, with noise: every coder has something to do and nothing saturates."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    noise = np.random.default_rng(bits).normal(0, 2**bits / 100, (ROWS, COLUMNS))
    gray = (np.sin(x / 17) + np.cos(y / 23) + 2) / 4 * 0.9 * (2**bits - 1) + noise
    gray = np.clip(gray, 0, 2**bits - 1).astype("u1" if bits <= 8 else "u2")
    return gray if samples == 1 else np.stack([gray, gray[::-1], gray[:, ::-1]], -1).copy()


def rle(array: np.ndarray) -> bytes:
    return RLELosslessEncoder.encode(
        array.tobytes(),
        rows=ROWS,
        columns=COLUMNS,
        samples_per_pixel=array.shape[2] if array.ndim == 3 else 1,
        bits_allocated=8 * array.itemsize,
        bits_stored=8 * array.itemsize,
        pixel_representation=0,
        photometric_interpretation="RGB" if array.ndim == 3 else "MONOCHROME2",
        planar_configuration=0,
        number_of_frames=1,
        encoding_plugin="pydicom",
    )


def j2k(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(array, codecformat="j2k", **options))


def jpeg(array: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(array, **options))


class Stream(NamedTuple):
    uid: str
    data: bytes
    bits: int
    # The plugin of pydicom that damage is compared with: the strictest that reads all.
    reference: str
    samples: int = 1
    interpretation: str = "MONOCHROME2"
    signed: int = 0
    allocated: int = 0
    exact: bool = True

    @property
    def options(self) -> dict[str, Any]:
        return {
            "rows": ROWS,
            "columns": COLUMNS,
            "samples_per_pixel": self.samples,
            "bits_allocated": self.allocated or (8 if self.bits <= 8 else 16),
            "bits_stored": self.bits,
            "pixel_representation": self.signed,
            "photometric_interpretation": self.interpretation,
            "planar_configuration": 0,
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }

    def pixels(self, uid: str = "", **changed: int) -> ImagePixel:
        return ImagePixel({**self.options, **changed}, UID(uid or self.uid))


G8, G12, G16, RGB = picture(8), picture(12), picture(16), picture(8, 3)
S16 = (G16.astype("i4") - 2**15).astype("i2")
LOSSLESS = {"level": 0, "reversible": True}
AS_RGB = {"colorspace": "RGB", "outcolorspace": "RGB"}

STREAMS = {
    "jpeg-8": Stream(JPEGBaseline8Bit, jpeg(G8, level=90), 8, "pillow"),
    "jpeg-422": Stream(
        JPEGBaseline8Bit, jpeg(RGB, level=90, subsampling="422"), 8, "pillow", 3, "YBR_FULL_422"
    ),
    "jpeg-420": Stream(
        JPEGBaseline8Bit, jpeg(RGB, level=90, subsampling="420"), 8, "pillow", 3, "YBR_FULL"
    ),
    "jpeg-rgb": Stream(JPEGBaseline8Bit, jpeg(RGB, level=90, **AS_RGB), 8, "pillow", 3, "RGB"),
    "extended-8": Stream(JPEGExtended12Bit, jpeg(G8, level=90), 8, "pillow"),
    # pylibjpeg is alone to read it, and rounds by itself.
    "extended-12": Stream(
        JPEGExtended12Bit, jpeg(G12, level=90, bitspersample=12), 12, "pylibjpeg", exact=False
    ),
    "lossless-8": Stream(JPEGLosslessSV1, jpeg(G8, lossless=True), 8, "gdcm"),
    "lossless-12": Stream(
        JPEGLossless, jpeg(G12, lossless=True, bitspersample=12, predictor=4), 12, "gdcm"
    ),
    "lossless-16": Stream(JPEGLosslessSV1, jpeg(G16, lossless=True, bitspersample=16), 16, "gdcm"),
    "lossless-signed": Stream(
        JPEGLosslessSV1,
        jpeg(S16.view("u2"), lossless=True, bitspersample=16),
        16,
        "gdcm",
        signed=1,
    ),
    "lossless-rgb": Stream(
        JPEGLosslessSV1, jpeg(RGB, lossless=True, **AS_RGB), 8, "gdcm", 3, "RGB"
    ),
    "ls-8": Stream(JPEGLSLossless, bytes(imagecodecs.jpegls_encode(G8)), 8, "pyjpegls"),
    "ls-16": Stream(JPEGLSLossless, bytes(imagecodecs.jpegls_encode(G16)), 16, "pyjpegls"),
    "ls-rgb": Stream(
        JPEGLSLossless, bytes(imagecodecs.jpegls_encode(RGB)), 8, "pyjpegls", 3, "RGB"
    ),
    "ls-near": Stream(
        JPEGLSNearLossless, bytes(imagecodecs.jpegls_encode(G12, level=3)), 16, "pyjpegls"
    ),
    "j2k-8": Stream(JPEG2000Lossless, j2k(G8, **LOSSLESS), 8, "pylibjpeg"),
    "j2k-8-in-16": Stream(JPEG2000Lossless, j2k(G8, **LOSSLESS), 8, "pylibjpeg", allocated=16),
    "j2k-12": Stream(JPEG2000Lossless, j2k(G12, bitspersample=12, **LOSSLESS), 12, "pylibjpeg"),
    "j2k-signed": Stream(JPEG2000Lossless, j2k(S16, **LOSSLESS), 16, "pylibjpeg", signed=1),
    "j2k-sign-differs": Stream(
        JPEG2000Lossless, j2k(G12, bitspersample=12, **LOSSLESS), 12, "pylibjpeg", signed=1
    ),
    "j2k-rgb": Stream(JPEG2000, j2k(RGB, level=40), 8, "pylibjpeg", 3, "YBR_ICT"),
    "j2k-jp2": Stream(
        JPEG2000Lossless,
        bytes(imagecodecs.jpeg2k_encode(G8, codecformat="jp2", **LOSSLESS)),
        8,
        "pylibjpeg",
    ),
    "ht-12": Stream(
        HTJ2KLossless, bytes(imagecodecs.htj2k_encode(G12, reversible=True)), 16, "pylibjpeg"
    ),
    "ht-rpcl": Stream(
        HTJ2KLosslessRPCL, bytes(imagecodecs.htj2k_encode(G8, reversible=True)), 8, "pylibjpeg"
    ),
    "ht-lossy": Stream(
        HTJ2K, bytes(imagecodecs.htj2k_encode(G8, level=0.01, reversible=False)), 8, "pylibjpeg"
    ),
    "rle-8": Stream(RLELossless, rle(G8), 8, "pydicom"),
    "rle-16": Stream(RLELossless, rle(G16), 16, "pydicom"),
    "rle-12": Stream(RLELossless, rle(G12), 12, "pydicom", signed=1),
    "rle-rgb": Stream(RLELossless, rle(RGB), 8, "pydicom", 3, "RGB"),
}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Stream:
    return STREAMS[request.param]


def run(decoder: Decoder, stream: Stream, plugin: str) -> tuple[np.ndarray, dict[str, Any]]:
    source = encapsulate([stream.data])
    options = stream.options
    if plugin == "imagecodecs":
        options |= {"codestream": check(stream.data, stream.pixels()), "notes": []}
    return decoder.as_array(source, index=0, raw=True, decoding_plugin=plugin, **options)


def direct(stream: Stream) -> np.ndarray:
    options = stream.options
    codestream = check(stream.data, stream.pixels())
    shape = (ROWS, COLUMNS, stream.samples)[: 3 if stream.samples > 1 else 2]
    out = np.empty(shape, f"{'ui'[stream.signed]}{options['bits_allocated'] // 8}")
    decode_into(memoryview(stream.data), out, codestream, [])
    correct_bits(out, codestream, stream.pixels())
    return out


def test_the_module_does_not_load_imagecodecs() -> None:
    code = "import sys, dcmdask.pixels.codecs as m; sys.exit('imagecodecs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_syntax_is_there() -> None:
    assert len(SYNTAXES) == 12
    assert all(is_available(uid) for uid in SYNTAXES)
    assert not is_available(ExplicitVRLittleEndian)
    assert own_decoder(ExplicitVRLittleEndian) is None


def test_own_decoders_are_own_and_whole() -> None:
    seen: list[Decoder | None] = []
    threads = [
        threading.Thread(target=lambda: seen.append(own_decoder(JPEG2000))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(decoder) for decoder in seen}) == 1
    decoder = seen[0]
    assert decoder is not None
    assert decoder.available_plugins == ("imagecodecs",)
    assert "imagecodecs" not in get_decoder(JPEG2000).available_plugins


def test_equals_the_reference_plugin(stream: Stream) -> None:
    expected, properties = run(get_decoder(stream.uid), stream, stream.reference)
    decoder = own_decoder(stream.uid)
    assert decoder is not None
    got, described = run(decoder, stream, "imagecodecs")
    assert (got.dtype, got.shape, described) == (expected.dtype, expected.shape, properties)
    difference = np.abs(got.astype("i8") - expected.astype("i8")).max()
    assert difference <= (0 if stream.exact else 1)
    np.testing.assert_array_equal(direct(stream), got)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_lossless_jpeg_of_every_predictor(bits: int, predictor: int) -> None:
    noise = np.random.default_rng(1).integers(0, 2**bits, (ROWS, COLUMNS))
    for frame in (picture(bits), noise.astype("u1" if bits <= 8 else "u2")):
        data = jpeg(frame, lossless=True, bitspersample=bits, predictor=predictor)
        stream = Stream(JPEGLossless, data, bits, "")
        np.testing.assert_array_equal(direct(stream), frame)


def test_lossless_jpeg_of_other_samples_is_noticed() -> None:
    codestream = check(STREAMS["lossless-12"].data, STREAMS["lossless-12"].pixels())
    verify(STREAMS["lossless-12"].data, codestream, G12)
    last = G12.copy()
    last[-1, -1] ^= 1
    for other in (last, np.zeros_like(G12)):
        with pytest.raises(CodestreamError, match=r"damaged|does not define"):
            verify(STREAMS["lossless-12"].data, codestream, other)


def damaged(data: bytes, flips: int) -> list[bytes]:
    """Cuts at many places, then seeded bit flips, half of them in the first 300 bytes."""
    size = len(data)
    cuts = {*np.linspace(0, size - 1, 60).astype(int).tolist(), *range(size - 6, size)}
    streams = [data[:cut] for cut in sorted(cuts)]
    random = np.random.default_rng(7)
    for i in range(flips):
        position = int(random.integers(0, size if i % 2 else min(size, 300)))
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(random.integers(8))
        streams.append(bytes(flipped))
    return streams


# Accepted by libjpeg-turbo with a warning that imagecodecs does not pass on, while pylibjpeg
# raises: 12-bit is the one codec that is less strict than its reference. What is held is
# that cuts are refused and nothing crashes.
NOT_STRICT = {"extended-12"}


def test_raises_where_the_reference_raises(request: pytest.FixtureRequest, stream: Stream) -> None:
    decoder = get_decoder(stream.uid)
    # pylibjpeg also reads the JP2 boxes; what is wrong in them touches no sample.
    boxes = parse(stream.data, stream.uid).offset
    accepted = 0
    for data in damaged(stream.data, flips=400):
        if data[:boxes] != stream.data[:boxes]:
            continue
        bad = stream._replace(data=data)
        try:
            got = direct(bad)
        except (ValueError, RuntimeError):
            continue
        accepted += 1
        # The reference only sees what the guard lets through: unguarded, a flipped bit in
        # the size makes pylibjpeg allocate gigabytes and GDCM abort the process.
        if request.node.callspec.params["stream"] not in NOT_STRICT:
            expected = reads(decoder, bad)
            if stream.exact and not np.array_equal(got, expected):
                # Decoders agree on what is decodable, not on what damage decodes to.
                assert got.shape == expected.shape
    assert 0 < accepted < 466


def reads(decoder: Decoder, stream: Stream) -> np.ndarray:
    """What the reference makes of it, for lossless JPEG any of the two; or its error."""
    others = ["pylibjpeg"] if stream.reference == "gdcm" else []
    for plugin in [*others, stream.reference]:
        try:
            return run(decoder, stream, plugin)[0]
        except RuntimeError:
            if plugin == stream.reference:
                raise
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("jpeg-8", {"rows": 49}, "48 rows and 56 columns, the header 49"),
        ("j2k-8", {"columns": 55}, "56 columns, the header 48 .* and 55"),
        ("ls-8", {"samples_per_pixel": 3}, "1 components, the header 3"),
        ("lossless-16", {"bits_allocated": 8}, "16 bits, the header 8"),
        ("rle-16", {"bits_allocated": 8}, "2 RLE segments, 1 samples of 8 .* need 1"),
    ],
)
def test_contradictions_give_both_numbers(name: str, changed: dict[str, int], reason: str) -> None:
    stream = STREAMS[name]
    with pytest.raises(Contradiction, match=reason):
        check(stream.data, stream.pixels(**changed))


def test_a_frame_of_another_syntax_is_refused() -> None:
    stream = STREAMS["lossless-8"]
    with pytest.raises(CodestreamError, match="jpeg-lossless, transfer syntax JPEG Baseline"):
        check(stream.data, stream.pixels(JPEGBaseline8Bit))


def test_short_rle_segments_are_not_a_frame() -> None:
    stream = STREAMS["rle-16"]
    out = np.empty((ROWS + 1, COLUMNS), "u2")
    codestream = check(stream.data, stream.pixels())
    with pytest.raises((ValueError, RuntimeError)):
        decode_into(stream.data, out, codestream, [])


@pytest.mark.parametrize("name", ["jpeg-422", "jpeg-420"])
def test_straight_to_rgb_is_off_by_one_at_most(name: str) -> None:
    stream = STREAMS[name]
    codestream = check(stream.data, stream.pixels())
    assert is_ycbcr(codestream, stream.interpretation)
    out = np.empty(RGB.shape, "u1")
    decode_into(stream.data, out, codestream, [], rgb=True)
    expected, _ = get_decoder(stream.uid).as_array(
        encapsulate([stream.data]), index=0, decoding_plugin="pillow", **stream.options
    )
    difference = np.abs(out.astype("i2") - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.003


def test_who_takes_a_frame_for_ycbcr() -> None:
    ycbcr = parse(STREAMS["jpeg-422"].data, JPEGBaseline8Bit)
    rgb = parse(STREAMS["jpeg-rgb"].data, JPEGBaseline8Bit)
    assert is_ycbcr(ycbcr, "YBR_FULL_422")
    assert is_ycbcr(ycbcr._replace(jfif=False, adobe_transform=1), "YBR_FULL")
    assert not is_ycbcr(ycbcr, "RGB")
    assert not is_ycbcr(rgb, "YBR_FULL")
    assert not is_ycbcr(ycbcr._replace(jfif=False, adobe_transform=0), "YBR_FULL")
    assert not is_ycbcr(ycbcr._replace(component_ids=(114, 103, 98)), "YBR_FULL")


# No plugin of pydicom reads these.
UNREADABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "the size is overwritten by a delimiter",
    "liver_rle.dcm": "one bit allocated, RLE",
    "JPEG-lossy.dcm": "12-bit JPEG with a scan header that only libjpeg excuses",
    "RG2_JPLY.dcm": "12-bit JPEG with a scan header that only libjpeg excuses",
}


# A third of them each time, and all before a release.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.rare) for n in (1, 2))])
def test_every_real_frame_equals_some_plugin(part: int, corpus: Path) -> None:
    """Up to three frames of every encapsulated file, exactly; 12-bit JPEG to 1."""
    compared = 0
    for path in (*packaged_files(), *corpus_files())[part::3]:
        try:
            dataset = dcmread(path, force=True)
            uid = UID(dataset.file_meta.TransferSyntaxUID)
            frames = dataset.PixelData
            count = int(dataset.get("NumberOfFrames") or 1)
        except (AttributeError, OSError, ValueError):
            continue
        if uid not in SYNTAXES or path.name in UNREADABLE or "generated_" in path.name:
            continue
        options = as_pixel_options(dataset)
        extended = options.pop("extended_offsets", None)
        options["number_of_frames"] = 1
        encoded = generate_frames(frames, number_of_frames=count, extended_offsets=extended)
        for data, _ in zip(encoded, range(3), strict=False):
            compared += 1
            source = encapsulate([data])
            decoder = own_decoder(uid)
            assert decoder is not None
            codestream = check(data, ImagePixel(options, uid))
            try:
                got, _ = decoder.as_array(
                    source, index=0, raw=True, codestream=codestream, notes=[], **options
                )
            except RuntimeError as error:
                pytest.fail(f"{corpus_id(path)}: {error}")
            most = 1 if parse(data, uid).precision == 12 and uid == JPEGExtended12Bit else 0
            assert equals_some(uid, source, options, got, most), corpus_id(path)
    assert compared > 50


def equals_some(
    uid: UID, source: bytes, options: dict[str, Any], got: np.ndarray, most: int
) -> bool:
    reference = get_decoder(uid)
    for plugin in reference.available_plugins:
        try:
            expected, _ = reference.as_array(
                source, index=0, raw=True, decoding_plugin=plugin, **options
            )
        except RuntimeError:
            continue
        if np.abs(got.astype("i8") - expected.astype("i8")).max() <= most:
            return True
    return False


# Damage within an 8-bit JPEG frame, which has its end marker.


def inner_damage(data: bytes, count: int) -> list[bytes]:
    """Copies without a piece of the coded data, or with zeros in its place."""
    random = np.random.default_rng(14)
    start, end = data.index(b"\xff\xda") + 14, data.rindex(b"\xff\xd9")
    made = []
    for number in range(count):
        at = int(random.integers(start, end - 300))
        made.append(data[:at] + (b"" if number % 2 else bytes(256)) + data[at + 256 :])
    return made


@pytest.mark.filterwarnings("ignore:.*8-bit JPEG frames have surplus bytes")
@pytest.mark.parametrize("colour", [False, True])
def test_damage_inside_a_jpeg_frame_is_noticed(colour: bool, tmp_path: Path) -> None:
    """Most of it: what libjpeg warns of. It was decoded without a word."""
    rows = np.add.outer(np.arange(128), np.arange(160))
    frame = (rows % 251 + noise(1, 128, 160, bits=4)[0]).astype("u1")
    interpretation = "YBR_FULL_422" if colour else "MONOCHROME2"
    if colour:
        frame = np.stack([frame, frame[::-1], frame[:, ::-1]], -1)
    (whole,) = [encoded(frame, JPEGBaseline8Bit)]
    streams = [whole, *inner_damage(whole, 60)]
    made = encapsulated(
        np.stack([frame] * len(streams)),
        JPEGBaseline8Bit,
        streams=streams,
        PhotometricInterpretation=interpretation,
    )
    frames = open_frames(saved(tmp_path, made))
    assert frames[0].shape == frame.shape
    noticed = 0
    for number in range(1, len(streams)):
        try:
            frames[number]
        except DecodeError as error:
            assert f"frame {number}" in str(error)
            noticed += "the codestream is damaged: " in str(error)
    assert noticed > 0.5 * (len(streams) - 1)
    # To decode it all the same, as pydicom does, one names a plugin.
    assert open_frames(saved(tmp_path, made), decoding_plugin="pillow")[1].shape == frame.shape


def test_surplus_bytes_behind_the_coded_data_are_no_damage(tmp_path: Path) -> None:
    """Some encoders pad; every other reader shows the same pixels."""
    frame = noise(1, 64, 48, bits=4)[0].astype("u1")
    whole = encoded(frame, JPEGBaseline8Bit)
    end = whole.rindex(b"\xff\xd9")
    padded = whole[:end] + bytes(16) + whole[end:]
    made = encapsulated(np.stack([frame] * 2), JPEGBaseline8Bit, streams=[whole, padded])
    path = saved(tmp_path, made)
    # An option that only pydicom knows takes the general path.
    for options in ({}, {"correct_unused_bits": True}):
        frames = open_frames(path, **options)
        with pytest.warns(DcmdaskWarning, match="surplus bytes behind their coded data") as caught:
            found = frames[1]
        np.testing.assert_array_equal(found, frames[0])
        (warning,) = caught
        assert str(warning.message).startswith(f"{path}: ")
        assert warning.filename == __file__
