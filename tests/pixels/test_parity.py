"""Every real file gives what pydicom gives: whole, frame by frame, on every path.

The oracle is pydicom's `pixel_array` of the data set, all frames, and frame `i` of that.
"""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom import pixels as pydicom_pixels
from pydicom.pixels import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)
from real_files import corpus_files, corpus_id, packaged_file, packaged_files

from dcmdask.dicom.instance import open_instance
from dcmdask.errors import (
    DcmdaskError,
    DcmdaskWarning,
    NoPixelDataError,
    UnsupportedSyntaxError,
)
from dcmdask.pixels import codecs
from dcmdask.pixels.decode import Decoding, examine, general
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array

# Real files break rules; what is said about them is tested elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PACKAGED, CORPUS = packaged_files(), corpus_files()
FILES = [*PACKAGED, *CORPUS]
# Files that pydicom takes longer than 20 seconds for.
LONG = frozenset({"966_fixed.dcm", "NM_Kakadu44_SOTmarkerincons.dcm"})
CASES = [
    pytest.param(
        path,
        id=corpus_id(path) if path in set(CORPUS) else f"packaged/{path.name}",
        marks=[pytest.mark.rare] * (path.name in LONG),
    )
    for path in FILES
]
# Of larger files only the first, the last and one between are taken one by one as well.
BYTES_ONE_BY_ONE = 8_000_000

# Files that pydicom refuses and that are read here.
ONLY_OURS = {
    "emri_small_jpeg_2k_lossless_too_short.dcm": (
        "the Sequence Delimitation Item is missing, so pydicom drops the pixel data; "
        "all frames are whole"
    ),
    "OT-PAL-8-face.dcm": ("there is no file meta information, so pydicom knows no transfer syntax"),
}


@cache
def _header(path: Path) -> Dataset:
    return dcmread(path, force=True, stop_before_pixels=True)


# YCbCr under RGB: the codestream decides about the colours, and pydicom converts nothing.
CODED_AS = {"JPEGBaseline/SC_rgb_jpeg_lossy_gdcm.dcm": "YBR_FULL"}


@pytest.fixture
def compare(compared: Callable[[Path], None]) -> Callable[[Path], None]:
    corpus = set(CORPUS)
    return lambda path: compared(path) if path in corpus else None


def oracle(path: Path, **options: Any) -> np.ndarray:
    """All frames, with a frame axis also where there is one."""
    dataset = dcmread(path, force=True)
    array = pydicom_pixels.pixel_array(dataset, **options)
    samples = int(options.get("samples_per_pixel", dataset.SamplesPerPixel))
    return array[np.newaxis] if array.ndim == (2 if samples == 1 else 3) else array


def is_colour(path: Path) -> bool:
    return int(_header(path).get("SamplesPerPixel") or 1) > 1


def tolerance(path: Path, raw: bool, fast: bool) -> int:
    """What may differ: imagecodecs rounds 12-bit JPEG otherwise; fixed point colour by 1."""
    syntax = _header(path).file_meta.TransferSyntaxUID
    if syntax == JPEGExtended12Bit and not fast:
        return 1
    return int(syntax == JPEGBaseline8Bit and is_colour(path) and fast and not raw)


def assert_equal(got: np.ndarray, expected: np.ndarray, most: int, what: str) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), what
    if most:
        difference = np.abs(got.astype("i8") - expected.astype("i8")).max()
        assert difference <= most, f"{what}: differs by {difference}"
    else:
        np.testing.assert_array_equal(got, expected, err_msg=what)


def one_by_one(frames: FrameArray) -> list[int]:
    count = len(frames)
    taken = count if frames.nbytes <= BYTES_ONE_BY_ONE else min(count, 3)
    return sorted(set(np.linspace(0, count - 1, taken).astype(int).tolist()))


@pytest.mark.parametrize("path", CASES)
def test_equals_pydicom(path: Path, compare: Callable[[Path], None]) -> None:
    try:
        expected = oracle(path)
    except Exception:
        refused_by_pydicom(path)
        compare(path)
        return
    if coded := CODED_AS.get("/".join(path.parts[-2:])):
        expected = oracle(path, photometric_interpretation=coded)
        with pytest.warns(DcmdaskWarning, match="the codestream decides"):
            assert_equal(open_frames(path)[:], expected, 1, "FrameArray")
        compare_all(path, oracle(path, raw=True), True)
        compare(path)
        return
    # Only colour is ever converted, so only colour has a raw form of its own.
    for raw in (False, True) if is_colour(path) else (False,):
        if raw:
            expected = oracle(path, raw=True)
        compare_all(path, expected, raw)
    compare(path)


def refused_by_pydicom(path: Path) -> None:
    if path.name in ONLY_OURS:
        assert pixel_array(path).size
        return
    with pytest.raises(DcmdaskError) as caught:
        pixel_array(path)
    if not isinstance(caught.value, NoPixelDataError | UnsupportedSyntaxError):
        assert str(path) in str(caught.value)


def compare_all(path: Path, expected: np.ndarray, raw: bool) -> None:
    fast, slow = tolerance(path, raw, fast=True), tolerance(path, raw, fast=False)
    frames = open_frames(path, raw=raw)
    assert (frames.shape, frames.dtype) == (expected.shape, expected.dtype), "as declared"
    whole = pixel_array(path, raw=raw)
    assert_equal(whole if len(frames) > 1 else whole[np.newaxis], expected, fast, "pixel_array")
    chosen = one_by_one(frames)
    instance = open_instance(path, {})
    plugins = ["", "imagecodecs"] if codecs.own_decoder(frames.transfer_syntax) else [""]
    for i, streamed in zip(chosen, iter_pixels(path, indices=chosen, raw=raw), strict=True):
        assert_equal(frames[i], expected[i], fast, f"FrameArray[{i}]")
        assert_equal(streamed, expected[i], fast, f"iter_pixels, {i}")
        encoded = examine(instance, i, frames.encoded(i))
        for plugin in plugins:
            array = general(instance, Decoding(raw, plugin), encoded)
            assert_equal(array, expected[i], slow, f"general, {i}, {plugin!r}")
    last = chosen[-1]
    assert_equal(pixel_array(path, index=last, raw=raw), expected[last], fast, "index=")
    if "imagecodecs" in plugins:
        named = open_frames(path, raw=raw, decoding_plugin="imagecodecs")
        assert_equal(named[last], expected[last], slow, "decoding_plugin='imagecodecs'")


def test_the_listed_exceptions_are_there() -> None:
    names = {path.name for path in FILES}
    listed = {*ONLY_OURS, *(Path(one).name for one in CODED_AS)}
    if not CORPUS:
        pytest.skip("no corpus of real files: set DCMDASK_CORPUS")
    assert listed <= names


@pytest.mark.parametrize("path", [*CASES[: len(PACKAGED)], *CASES[len(PACKAGED) :: 6]])
def test_ds_out(path: Path) -> None:
    tags = [0x00100020, 0x00080060, 0x7FE00010]
    theirs, ours = Dataset(), Dataset()
    try:
        pydicom_pixels.pixel_array(path, ds_out=theirs, specific_tags=tags[:2], index=0)
    except Exception:
        # Deflated files by path, and what pydicom cannot read.
        syntax = getattr(_header(path), "file_meta", {}).get("TransferSyntaxUID")
        if syntax != DeflatedExplicitVRLittleEndian or "Rows" not in _header(path):
            return
        kept = {0x00080005, *tags}
        theirs = Dataset({e.tag: e for e in _header(path) if e.tag.group == 0x28 or e.tag in kept})
        theirs.file_meta = _header(path).file_meta
    pixel_array(path, ds_out=ours, specific_tags=tags[:2], index=0)
    assert ours == theirs
    assert ours.file_meta == theirs.file_meta
    assert ours.file_meta
    streamed = Dataset()
    next(iter_pixels(path, ds_out=streamed, specific_tags=tags[:2]))
    assert streamed == theirs


@pytest.mark.rare
@pytest.mark.parametrize("path", CASES)
def test_every_plugin(path: Path) -> None:
    if path.name in ONLY_OURS:
        return
    syntax = getattr(_header(path), "file_meta", {}).get("TransferSyntaxUID")
    if not syntax or not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        return
    try:
        plugins = get_decoder(syntax).available_plugins
    except NotImplementedError:
        return
    for plugin in plugins:
        for raw in (False, True):
            try:
                expected = oracle(path, raw=raw, decoding_plugin=plugin)
            except Exception:
                with warnings.catch_warnings(), pytest.raises(DcmdaskError):
                    pixel_array(path, raw=raw, decoding_plugin=plugin)
                continue
            got = pixel_array(path, raw=raw, decoding_plugin=plugin)
            got = got if got.ndim == expected.ndim else got[np.newaxis]
            assert_equal(got, expected, 0, f"{plugin}, raw={raw}")


def test_a_plugin_is_used_alone() -> None:
    path = packaged_file("examples_jpeg2k.dcm")
    with pytest.raises(ValueError, match="nonesuch"):
        open_frames(path, decoding_plugin="nonesuch")
    expected = oracle(path, decoding_plugin="pylibjpeg")
    assert_equal(open_frames(path, decoding_plugin="pylibjpeg")[:], expected, 0, "pylibjpeg")
