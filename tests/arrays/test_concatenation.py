"""`JoinedFrames`: frames of several files as one array, opened when they are read."""

import os
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from counting import count_decodings
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import instance, keys, single_files
from make_dicom import encapsulated, encoded, native, noise, saved
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask.arrays import concatenation
from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.transformation import with_values
from dcmdask.dicom import frame_count
from dcmdask.dicom.description import FACTS, describe
from dcmdask.errors import (
    DcmdaskWarning,
    DecodeError,
    FrameNumberError,
    HeaderError,
    PixelDataError,
    SourceChangedError,
)
from dcmdask.pixels.frame_array import open_frames
from dcmdask.sources.files import LocalFile, locate

GREY = noise(9, 5, 6, dtype="u2", bits=12)
SIGNED = noise(4, 5, 6, dtype="i2")
COLOUR = noise(6, 8, 8, 3)


def parts(frames: np.ndarray, *lengths: int) -> list[np.ndarray]:
    return np.split(frames, np.cumsum(lengths)[:-1])


ONE, THREE, TWO, ONE_MORE, TWO_MORE = parts(GREY, 1, 3, 2, 1, 2)
KINDS = {
    "single frames": (GREY, [native(frame[np.newaxis]) for frame in GREY]),
    "mixed": (
        GREY,
        [
            native(ONE, ExplicitVRBigEndian),
            encapsulated(THREE, JPEGLSLossless),
            native(TWO, ExplicitVRBigEndian),
            native(ONE_MORE, DeflatedExplicitVRLittleEndian),
            encapsulated(TWO_MORE, RLELossless),
        ],
    ),
    "big endian": (SIGNED, [native(part, ExplicitVRBigEndian) for part in parts(SIGNED, 3, 1)]),
    "colour": (
        COLOUR,
        [
            native(COLOUR[:1], PlanarConfiguration=1),
            encapsulated(COLOUR[1:4], RLELossless),
            native(COLOUR[4:]),
        ],
    ),
    "one frame": (GREY[:1], [native(GREY[:1])]),
}
JOINED = {
    name: (whole, JoinedFrames([instance(data) for data in files]))
    for name, (whole, files) in KINDS.items()
}


@pytest.mark.parametrize("kind", JOINED)
def test_an_array_like(kind: str) -> None:
    whole, frames = JOINED[kind]
    assert (frames.shape, frames.dtype, frames.ndim) == (whole.shape, whole.dtype, whole.ndim)
    assert (frames.size, frames.nbytes, len(frames)) == (whole.size, whole.nbytes, len(whole))
    assert frames.dtype.isnative
    got = np.asarray(frames)
    np.testing.assert_array_equal(got, whole)
    assert got.dtype == frames.dtype
    for frame, expected in zip(frames, whole, strict=True):
        np.testing.assert_array_equal(frame, expected)
    assert str(whole.shape) in repr(frames)
    assert sum(frames.transfer_syntaxes.values()) == len(whole)


@settings(max_examples=200)
@given(data=st.data(), kind=st.sampled_from(sorted(JOINED)))
def test_an_index_is_numpys(data: st.DataObject, kind: str) -> None:
    whole, frames = JOINED[kind]
    key = data.draw(keys(whole.shape))
    expected, got = whole[key], frames[key]
    np.testing.assert_array_equal(got, expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("key", [9, -10, [0, 9], (0, 5), (0, [1]), 1.0, None, np.zeros(8, bool)])
def test_what_is_no_index(key: Any) -> None:
    with pytest.raises(IndexError):
        JOINED["mixed"][1][key]
    with pytest.raises(FrameNumberError, match="frame 9 is out of range: there are 9 frames"):
        JOINED["mixed"][1][9]


# Work is counted.


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    log: list[int] = []
    count_decodings(monkeypatch, log.append)
    return log


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of each file whose header is read."""
    log: list[str] = []
    original = concatenation.open_instance

    def counting(source: LocalFile, *rest: Any, **more: Any) -> Any:
        log.append(Path(source.path).name)
        return original(source, *rest, **more)

    monkeypatch.setattr(concatenation, "open_instance", counting)
    return log


def test_only_what_is_asked_for_is_opened_and_decoded(
    tmp_path: Path, opened: list[str], decoded: list[int]
) -> None:
    files = [
        saved(tmp_path, native(ONE), "a"),
        saved(tmp_path, encapsulated(THREE, RLELossless), "b"),
        saved(tmp_path, native(ONE_MORE), "c"),
    ]
    whole = np.concatenate([ONE, THREE, ONE_MORE])
    frames = JoinedFrames([instance(path) for path in files])
    assert opened == ["b"], "an instance of several frames is opened once, before it is needed"
    assert decoded == []
    assert frames.read_singly == 2
    opened.clear()

    np.testing.assert_array_equal(frames[4], whole[4])
    assert (opened, decoded) == (["c"], [0])
    opened.clear(), decoded.clear()
    np.testing.assert_array_equal(frames[[3, 0, 2], 1:, 2], whole[[3, 0, 2], 1:, 2])
    assert (opened, decoded) == (["a"], [2, 0, 1])
    opened.clear(), decoded.clear()
    again = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(again[1:4], whole[1:4])
    assert (opened, decoded) == ([], [0, 1, 2])
    decoded.clear()
    assert frames[2:2].shape == (0, 5, 6)
    assert (opened, decoded) == ([], [])


# Files that are not, or not any more, as they were described.


def pair(folder: Path, kind: str) -> tuple[JoinedFrames, Path]:
    """A file of one frame, and another of one or of several."""
    frames = {"one frame": ONE, "several": THREE}[kind]
    first, second = saved(folder, native(ONE_MORE), "a.dcm"), saved(folder, native(frames), "b.dcm")
    return JoinedFrames([instance(first), instance(second)]), second


@pytest.mark.parametrize("kind", ["one frame", "several"])
def test_a_file_that_vanished_is_named(kind: str, tmp_path: Path) -> None:
    frames, path = pair(tmp_path, kind)
    path.unlink()
    np.testing.assert_array_equal(frames[0], ONE_MORE[0])
    for key in (1, slice(None)):
        with pytest.raises(FileNotFoundError) as caught:
            frames[key]
        assert caught.value.filename == str(path)


def touch(path: Path) -> None:
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize("change", [touch, lambda path: path.write_bytes(native(GREY))])
@pytest.mark.parametrize("kind", ["one frame", "several"])
def test_a_file_that_changed_is_named(
    kind: str, change: Callable[[Path], Any], tmp_path: Path
) -> None:
    frames, path = pair(tmp_path, kind)
    change(path)
    np.testing.assert_array_equal(frames[0], ONE_MORE[0])
    with pytest.raises(SourceChangedError, match=r"b\.dcm: the file has changed"):
        frames[1:]


def test_a_file_that_vanished_or_changed_before_it_is_indexed(tmp_path: Path) -> None:
    several = instance(saved(tmp_path, native(THREE)))
    touch(tmp_path / "made.dcm")
    with pytest.raises(SourceChangedError, match="has changed"):
        JoinedFrames([several])
    (tmp_path / "made.dcm").unlink()
    with pytest.raises(FileNotFoundError, match="made"):
        JoinedFrames([several])


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 6, "columns": 5},
        {"signed": True},
        {"bits_allocated": 8, "bits_stored": 8},
        {"table": bytes(2 * FACTS.itemsize)},
    ],
    ids=["rows", "sign", "bits", "frames"],
)
def test_a_file_that_is_not_as_described(wrong: dict[str, Any], tmp_path: Path) -> None:
    one = replace(instance(saved(tmp_path, native(GREY[:3]))), **wrong)
    with pytest.raises(
        SourceChangedError, match=r"made\.dcm: there are frames of \(3, 5, 6\) uint16"
    ) as caught:
        JoinedFrames([one])
    assert "were there when the headers were read" in str(caught.value)


def test_fewer_frames_than_described(tmp_path: Path) -> None:
    streams = [encoded(frame, RLELossless) for frame in GREY[:2]]
    path = saved(tmp_path, encapsulated(GREY[:3], RLELossless, streams=streams))
    with pytest.raises(PixelDataError, match=r"made\.dcm: 2 items hold 2 whole frames"):
        JoinedFrames([instance(path)])


def test_frames_beyond_those_described_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a remote file, whose items a scan does not count.
    monkeypatch.setattr(frame_count, "MOST_COUNTED", 1)
    data = encapsulated(THREE, RLELossless, table="none", NumberOfFrames=2)
    one = instance(saved(tmp_path, data))
    with pytest.warns(DcmdaskWarning, match="says 2"):
        frames = JoinedFrames([one])
    np.testing.assert_array_equal(frames[:], THREE[:2])


def test_files_that_look_different_are_refused() -> None:
    other = {
        "rows": native(noise(1, 6, 5, dtype="u2")),
        "type": native(noise(1, 5, 6, dtype="f4")),
        "colour": native(noise(1, 5, 6, 3, dtype="u2")),
    }
    first = replace(instance(native(ONE)), source=LocalFile("/first.dcm", 1, 1))
    for data in other.values():
        second = replace(instance(data), source=LocalFile("/second.dcm", 1, 1))
        with pytest.raises(HeaderError, match=r"/second\.dcm: its frames are .*/first\.dcm"):
            JoinedFrames([first, second])
    with pytest.raises(ValueError, match="no instances"):
        JoinedFrames([])
    with pytest.raises(HeaderError, match="Bits Allocated"):
        JoinedFrames([replace(first, bits_allocated=12)])


def test_a_bad_frame_leaves_the_others_readable(tmp_path: Path) -> None:
    streams = [encoded(frame, JPEGLSLossless) for frame in GREY]
    streams[2] = streams[2][:3] + bytes(len(streams[2]) - 3)
    data = [
        encapsulated(GREY[i : i + 1], JPEGLSLossless, streams=streams[i : i + 1]) for i in range(4)
    ]
    data.append(encapsulated(GREY[1:4], JPEGLSLossless, streams=streams[1:4]))
    files = [saved(tmp_path, one, f"{number}.dcm") for number, one in enumerate(data)]
    frames = JoinedFrames([instance(path) for path in files])
    good, whole = [0, 1, 3, 4, 6], np.concatenate([GREY[:4], GREY[1:4]])
    np.testing.assert_array_equal(frames[good], whole[good])
    for key, file, frame in ((2, "2.dcm", 0), (slice(None), "2.dcm", 0), (slice(3, 7), "4.dcm", 1)):
        with pytest.raises(DecodeError) as caught:
            frames[key]
        assert (caught.value.source, caught.value.frame) == (str(tmp_path / file), frame)


def test_a_note_is_told_once(tmp_path: Path) -> None:
    described = single_files(tmp_path, GREY[:4], NumberOfFrames=0)
    frames = JoinedFrames(described)
    with pytest.warns(DcmdaskWarning) as caught:
        np.testing.assert_array_equal(frames[:], GREY[:4])
        frames[2]
    assert [str(one.message).split(": ")[0] for one in caught] == [str(tmp_path / "0000.dcm")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(frames))[3]


def test_a_note_of_decoding_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    surplus = [encoded(frame, RLELossless) for frame in GREY[:4]]
    # Each frame has surplus bytes of another number: texts differ, the kind is one.
    surplus = [one + bytes(100 * (1 + number)) for number, one in enumerate(surplus)]
    data = [
        encapsulated(GREY[number : number + 1], RLELossless, streams=[one])
        for number, one in enumerate(surplus)
    ]
    files = [saved(tmp_path, one, f"{number}.dcm") for number, one in enumerate(data)]
    frames = JoinedFrames([instance(path) for path in files])
    caplog.set_level("INFO", "dcmdask")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(frames[:], GREY[:4])
        frames[3]
    ours = [one.message for one in caught if isinstance(one.message, DcmdaskWarning)]
    assert [one.code for one in ours] == ["surplus-bytes"]
    logged = [one.getMessage() for one in caplog.records if one.name == "dcmdask"]
    told = [text.split(": ")[0] for text in logged]
    assert told == [str(path) for path in (*files, files[3])]


def test_notes_on_headers_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    described = single_files(tmp_path, GREY[:4], RescaleSlope=0, RescaleIntercept=1)
    caplog.set_level("INFO", "dcmdask")
    with pytest.warns(DcmdaskWarning, match="Rescale Slope"):
        with_values(JoinedFrames(described), described, "modality", {})
    (text,) = (one.getMessage() for one in caplog.records if one.name == "dcmdask")
    assert "Rescale Slope" in text


# Options.


def test_options_reach_every_file(tmp_path: Path) -> None:
    colour = noise(3, 6, 8, 3)
    described = single_files(tmp_path, colour, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(JoinedFrames(described, raw=True), colour)
    converted = JoinedFrames(described)[:]
    assert not np.array_equal(converted, colour)
    np.testing.assert_array_equal(converted[1], open_frames(tmp_path / "0001.dcm")[0])
    rgb = JoinedFrames(described, photometric_interpretation="RGB")
    np.testing.assert_array_equal(rgb, colour)
    turned = JoinedFrames(described, raw=True, rows=8, columns=6)
    np.testing.assert_array_equal(turned, colour.reshape(3, 8, 6, 3))
    signed = JoinedFrames(described, raw=True, pixel_representation=1)
    np.testing.assert_array_equal(signed, colour.view("i1"))


def test_options_that_cannot_be() -> None:
    described = [instance(encapsulated(GREY[i : i + 1], RLELossless)) for i in range(2)]
    for name in ("number_of_frames", "extended_offsets", "allow_excess_frames"):
        with pytest.raises(TypeError, match=f"'{name}'.*one file alone"):
            JoinedFrames(described, **{name: 1})
    with pytest.raises(ValueError, match="nonesuch"):
        JoinedFrames(described, decoding_plugin="nonesuch")[0]
    np.testing.assert_array_equal(JoinedFrames(described, decoding_plugin="pydicom"), GREY[:2])


# Threads, processes, names.


def test_pickled_and_used(tmp_path: Path) -> None:
    files = KINDS["mixed"][1]
    described = [instance(saved(tmp_path, data, f"{i}.dcm")) for i, data in enumerate(files)]
    frames = JoinedFrames(described)
    again = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(again, GREY)
    assert (again.token, repr(again)) == (frames.token, repr(frames))
    with ThreadPoolExecutor(4) as pool:
        for number, frame in enumerate(pool.map(again.__getitem__, [0, 8, 1, 4, 6] * 20)):
            np.testing.assert_array_equal(frame, GREY[[0, 8, 1, 4, 6][number % 5]])


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_used_behind_a_fork() -> None:
    whole, frames = JOINED["mixed"]
    np.testing.assert_array_equal(frames[:], whole)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        np.testing.assert_array_equal(list(pool.map(frames.__getitem__, range(9))), whole)


def test_many_files_travel_light() -> None:
    one = instance(native(ONE))
    many = [
        replace(one, source=LocalFile(f"/archive/study/series/{number:08}.dcm", 600 + number, 7))
        for number in range(20_000)
    ]
    frames = JoinedFrames(many)
    packed = pickle.dumps(frames)
    assert len(packed) < 40 * len(many)
    assert pickle.loads(packed)._sources == frames._sources == [one.source for one in many]


def test_tokens(tmp_path: Path) -> None:
    described = single_files(tmp_path, GREY[:3])
    tokens = {
        JoinedFrames(described).token,
        JoinedFrames(described[::-1]).token,
        JoinedFrames(described[:2]).token,
        JoinedFrames(described, raw=True).token,
        JoinedFrames(described, decoding_plugin="imagecodecs").token,
        JoinedFrames(described, bits_stored=12).token,
        JoinedFrames(single_files(tmp_path, GREY[:3], BitsStored=12)).token,
    }
    assert len(tokens) == 7
    described = single_files(tmp_path, GREY[:3])
    assert JoinedFrames(described).token == JoinedFrames(described).token
    assert JoinedFrames(described).__dask_tokenize__() == JoinedFrames(described).token


def test_remote_files(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    described = []
    for number, frame in enumerate(GREY[:3]):
        store.pipe(f"/joined/{number}.dcm", native(frame[np.newaxis]))
        described.append(describe(locate(f"memory://joined/{number}.dcm")))
    frames = JoinedFrames([*described, instance(saved(tmp_path, native(THREE)))])
    whole = np.concatenate([GREY[:3], THREE])
    np.testing.assert_array_equal(frames, whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[2:5], whole[2:5])
    store.rm("/joined", recursive=True)


def test_one_header_says_nothing_wrong_of_another(tmp_path: Path) -> None:
    # What is known of a header is used again for one that is the same.
    for name in ("a.dcm", "b.dcm"):
        path = saved(tmp_path, native(GREY[:1], BitsAllocated=12), name)
        with pytest.raises(HeaderError, match=rf"{name}: .*Bits Allocated"):
            open_frames(path)
    path = saved(tmp_path, native(GREY[:1]))
    for _ in range(2):
        assert open_frames(path, rows=6, columns=5).shape == (1, 6, 5)
        assert open_frames(path).shape == (1, 5, 6)
        with pytest.raises(HeaderError, match="Rows"):
            open_frames(path, rows=6.0, columns=5)
    assert open_frames(saved(tmp_path, native(GREY[:2]))).shape == (2, 5, 6)


def test_native_is_read_into_place_whatever_the_byte_order(tmp_path: Path) -> None:
    order = [ExplicitVRLittleEndian, ExplicitVRBigEndian] * 2
    files = [
        saved(tmp_path, native(GREY[i : i + 1], syntax), f"{i}.dcm")
        for i, syntax in enumerate(order)
    ]
    several = saved(tmp_path, native(GREY[4:], ExplicitVRBigEndian), "several.dcm")
    frames = JoinedFrames([instance(path) for path in (*files, several)])
    np.testing.assert_array_equal(frames[:], GREY)
    np.testing.assert_array_equal(frames[::-2], GREY[::-2])
    np.testing.assert_array_equal(frames[1], GREY[1])
