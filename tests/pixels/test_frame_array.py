"""`FrameArray`: indices like NumPy's, no more work than asked for, threads and processes."""

import io
import multiprocessing
import pickle
import random
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import count_decodings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from make_dicom import (
    LOSSLESS,
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
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask.errors import DecodeError, FrameNumberError
from dcmdask.pixels import bulk
from dcmdask.pixels.frame_array import FrameArray, open_frames
from dcmdask.sources import files

GREY = noise(7, 5, 6, dtype="i2")
COLOUR = noise(4, 5, 6, 3)
WHOLE = {
    "native": (GREY, open_frames(native(GREY))),
    "colour": (COLOUR, open_frames(native(COLOUR, PlanarConfiguration=1))),
    "big endian": (GREY.astype(">i2"), open_frames(native(GREY, ExplicitVRBigEndian))),
    "JPEG-LS": (COLOUR, open_frames(encapsulated(COLOUR, JPEGLSLossless))),
}

# Indices.


def slices() -> st.SearchStrategy[slice]:
    bound = st.none() | st.integers(-9, 9) | st.sampled_from([-(10**12), 10**12])
    step = st.none() | st.integers(-4, 4).filter(bool) | st.sampled_from([-(10**12), 10**12])
    return st.builds(slice, bound, bound, step)


def integers() -> st.SearchStrategy[Any]:
    number = st.integers(-8, 8)
    return number | number.map(np.int64) | number.map(np.array) | st.just(np.uint8(1))


def frame_arrays() -> st.SearchStrategy[Any]:
    numbers = st.lists(st.integers(-7, 6), max_size=6)
    truths = st.lists(st.booleans(), min_size=7, max_size=7) | st.lists(
        st.booleans(), min_size=1, max_size=4
    )
    return (
        numbers
        | truths
        | numbers.map(lambda k: np.array(k, "i4"))
        | truths.map(lambda k: np.array(k, bool))
    )


def keys() -> st.SearchStrategy[Any]:
    first = integers() | slices() | frame_arrays()
    rest = st.lists(integers() | slices(), max_size=3)
    several = st.tuples(first, rest).map(lambda k: (k[0], *k[1]))
    with_ellipsis = st.tuples(several, st.integers(0, 4)).map(
        lambda k: (*k[0][: k[1]], Ellipsis, *k[0][k[1] :])
    )
    return first | several | with_ellipsis | st.sampled_from([Ellipsis, ()])


@settings(max_examples=400)
@given(kind=st.sampled_from(sorted(WHOLE)), key=keys())
@example(kind="colour", key=(slice(None, None, -1), slice(None, None, -1), slice(5, 1, -2)))
@example(kind="native", key=(slice(5, 1),))
@example(kind="native", key=([], 2))
def test_an_index_is_numpys(kind: str, key: Any) -> None:
    whole, frames = WHOLE[kind]
    try:
        expected = whole[key]
    except IndexError:
        with pytest.raises(IndexError):
            frames[key]
        return
    try:
        got = frames[key]
    except IndexError:
        assert picks_within_frames(key, whole.ndim)
        return
    np.testing.assert_array_equal(got, expected)
    assert got.shape == expected.shape
    # A NumPy scalar has no byte order; with an Ellipsis NumPy gives an array of no dimensions.
    assert got.dtype == (expected.dtype if got.ndim else expected.dtype.newbyteorder("="))
    if isinstance(got, np.ndarray):
        assert got.flags.writeable
        assert not np.shares_memory(got, frames[:])


def picks_within_frames(key: Any, ndim: int) -> bool:
    """Whether an array in `key` stands for another axis than that of the frames."""
    keys = key if isinstance(key, tuple) else (key,)
    at = next(
        (i for i, k in enumerate(keys) if isinstance(k, list | np.ndarray) and np.ndim(k)), None
    )
    return at is not None and at > 0 and not (at == 1 and len(keys) > ndim)


@pytest.mark.parametrize(
    "key",
    [
        None,
        (0, None),
        1.0,
        "0",
        True,
        np.True_,
        (Ellipsis, Ellipsis),
        (0, 0, 0, 0),
        [[0, 1]],
        [0.5],
        ["a"],
        np.zeros((7, 5), bool),
        np.zeros((2, 2), int),
        (0, [1, 2]),
        (slice(None), np.array([0, 1])),
        (slice(None), np.zeros(5, bool)),
        [True],
        [7],
        [-8],
        object(),
    ],
    ids=lambda key: type(key).__name__ if type(key) is object else repr(key),
)
def test_what_is_no_index(key: Any) -> None:
    with pytest.raises(IndexError):
        WHOLE["native"][1][key]


def test_a_ragged_list_is_no_index() -> None:
    with pytest.raises((IndexError, ValueError)):
        WHOLE["native"][1][[[1], [2, 3]]]


def test_a_frame_that_does_not_exist_is_named() -> None:
    frames = WHOLE["native"][1]
    for wrong in (7, -8, 10**20, -(10**20)):
        with pytest.raises(FrameNumberError, match=f"frame {wrong} is out of range.*7 frames"):
            frames[wrong]
        with pytest.raises(FrameNumberError):
            frames.encoded(wrong)
    # The array of 10^20 frames that would be needed is not made either.
    with pytest.raises(IndexError):
        frames[[10**20]]


def test_an_array_like(tmp_path: Path) -> None:
    frames = open_frames(saved(tmp_path, native(GREY)))
    assert (frames.shape, frames.dtype, frames.ndim) == (GREY.shape, GREY.dtype, 3)
    assert (frames.size, frames.nbytes, len(frames)) == (GREY.size, GREY.nbytes, 7)
    np.testing.assert_array_equal(np.asarray(frames), GREY)
    np.testing.assert_array_equal(np.array(frames, dtype="f4"), GREY.astype("f4"))
    assert np.asarray(frames, dtype="f4").dtype == "f4"
    with pytest.raises(ValueError, match="copy"):
        np.asarray(frames, copy=False)
    for frame, expected in zip(frames, GREY, strict=True):
        np.testing.assert_array_equal(frame, expected)
    np.testing.assert_array_equal(frames.encoded(-1), frames.encoded(6))
    assert "(7, 5, 6) int16" in repr(frames) and str(tmp_path) in repr(frames)
    shown = frames._repr_html_()
    assert "7 x 5 x 6 int16" in shown and "Explicit VR Little Endian" in shown
    assert frames.dataset.PatientName == "Made^For^Tests"
    assert "PixelData" not in frames.dataset
    assert frames.dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_single_frame_has_a_frame_axis() -> None:
    assert open_frames(native(noise(1, 4, 4))).shape == (1, 4, 4)
    assert open_frames(encapsulated(noise(1, 8, 8, 3), RLELossless)).shape == (1, 8, 8, 3)


# Work is counted.


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every read of a local file, as offset and length, while the test runs."""
    log: list[tuple[int, int]] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            position = self.tell()
            data = super().read(size)
            log.append((position, len(data)))
            return data

        def readinto(self, buffer: Any) -> int:
            log.append((self.tell(), len(buffer)))
            return super().readinto(buffer)

    def counting_open(path: str, mode: str, buffering: int) -> Counting:
        assert (mode, buffering) == ("rb", 0)
        return Counting(path)

    monkeypatch.setattr(files, "open", counting_open, raising=False)
    return log


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of every frame that is decoded while the test runs."""
    log: list[int] = []
    count_decodings(monkeypatch, log.append)
    return log


# What one look into a header fetches; a small header's block reaches into the pixels.
HEADER_BLOCK = 1 << 14


@pytest.mark.parametrize("kind", ["native", "basic", "none", "extended", "fragments"])
def test_opening_reads_headers_and_one_frame_is_read_once(
    kind: str, tmp_path: Path, reads: list[tuple[int, int]], decoded: list[int]
) -> None:
    frames = noise(12, 200, 300, dtype="u2", bits=10)
    if kind == "native":
        data = native(frames)
    elif kind == "fragments":
        data = encapsulated(frames, JPEGLSLossless, table="none", fragments=3)
    else:
        data = encapsulated(frames, JPEGLSLossless, table=kind)
    opened = open_frames(saved(tmp_path, data))
    items = {"native": 0, "fragments": 3 * 12}.get(kind, 12)
    # Each item's header; where fragments have to be told apart, their ends; the offset
    # table, the delimiter and one block of header.
    allowance = 8 * items + (32 * items if kind == "fragments" else 0) + 8 * 12 + 100
    assert sum(length for _, length in reads) <= HEADER_BLOCK + allowance
    assert sum(offset == 0 for offset, _ in reads) == 1, "the header is walked once"
    assert not decoded

    reads.clear()
    np.testing.assert_array_equal(opened[5], frames[5])
    (span,) = [(o, n) for o, n in zip(*opened._instance.spans.locate(np.array([5])), strict=True)]
    assert reads == [span]
    assert decoded == [5]

    reads.clear()
    decoded.clear()
    np.testing.assert_array_equal(opened[[9, 2, -3], :2, 3], frames[[9, 2, -3], :2, 3])
    assert decoded == [9, 2, 9]
    assert len(reads) <= 3
    decoded.clear()
    assert opened[3:3].shape == (0, 200, 300)
    assert opened[:0, 1].shape == (0, 300)
    assert opened[[], ..., 2].shape == (0, 200)
    assert decoded == []


def test_many_frames_are_read_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(10, 8, 8)
    opened = open_frames(native(frames))
    monkeypatch.setattr(bulk, "READ_BYTES", 130)
    together: list[int] = []
    original = files.read
    monkeypatch.setattr(files, "read", lambda s, o, n: together.append(len(o)) or original(s, o, n))
    np.testing.assert_array_equal(opened[::-1], frames[::-1])
    assert together == [2] * 5


def test_the_header_is_read_again_only_when_asked_for(
    tmp_path: Path, reads: list[tuple[int, int]]
) -> None:
    opened = open_frames(saved(tmp_path, native(GREY)))
    reads.clear()
    assert opened.dataset.Rows == 5
    assert reads
    reads.clear()
    assert opened.dataset.Columns == 6
    assert not reads


# One bad frame.


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_bad_frame_leaves_the_others_readable(syntax: str, tmp_path: Path) -> None:
    frames = noise(5, 16, 16)
    streams = [encoded(frame, syntax) for frame in frames]
    streams[2] = streams[2][:3] + bytes(len(streams[2]) - 3)
    path = saved(tmp_path, encapsulated(frames, syntax, streams=streams))
    opened = open_frames(path)
    good = [0, 1, 3, 4]
    np.testing.assert_array_equal(opened[good], frames[good])
    for key in (2, slice(None), [1, 2]):
        with pytest.raises(DecodeError) as caught:
            opened[key]
        assert str(caught.value).startswith(f"{path}, frame 2: ")
        assert (caught.value.source, caught.value.frame) == (str(path), 2)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.frame) == (str(caught.value), 2)


# Threads and processes.


@pytest.fixture(scope="module", params=["native", "1 bit", "JPEG-LS", "RLE", "deflated"])
def many(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[np.ndarray, FrameArray]:
    kind = request.param
    if kind == "1 bit":
        frames = noise(50, 9, 7, dtype="?")
        data = native(frames, BitsAllocated=1, BitsStored=1, HighBit=0)
    elif kind in ("native", "deflated"):
        frames = noise(50, 9, 11, 3)
        syntax = ExplicitVRLittleEndian if kind == "native" else DeflatedExplicitVRLittleEndian
        data = native(frames, syntax)
    else:
        frames = noise(50, 9, 11, dtype="u2")
        data = encapsulated(frames, JPEGLSLossless if kind == "JPEG-LS" else RLELossless)
    path = saved(tmp_path_factory.mktemp("many"), data)
    return frames, open_frames(path)


def test_eight_threads_read_random_frames(many: tuple[np.ndarray, FrameArray]) -> None:
    whole, frames = many

    def read(seed: int) -> int:
        choose = random.Random(seed)
        for _ in range(250):
            i = choose.randrange(len(whole))
            assert np.array_equal(frames[i], whole[i]), i
        return 250

    # 5 kinds of file, 10 000 reads together.
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(read, range(8))) == 2000


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_of_two_processes(method: str, tmp_path: Path) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this platform")
    frames = noise(20, 9, 11, 3)
    opened = open_frames(saved(tmp_path, encapsulated(frames, JPEG2000Lossless, table="none")))
    # Used here first: nothing that this leaves behind may harm the children.
    np.testing.assert_array_equal(opened[3], frames[3])
    order = random.Random(0).sample(range(20), 20)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        loaded = list(pool.map(opened.__getitem__, order))
    np.testing.assert_array_equal(loaded, frames[order])


def test_pickled_and_used(many: tuple[np.ndarray, FrameArray]) -> None:
    whole, frames = many
    assert frames.dataset.Rows == 9
    packed = pickle.dumps(frames)
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again[10:20], whole[10:20])
    assert again.token == frames.token
    assert again.dataset.Rows == 9
    assert len(packed) < 10_000, "neither pixels nor header travel"


def test_memory_sources_travel_whole() -> None:
    dataset = described(GREY)
    element = pixel_element(GREY.tobytes(), ExplicitVRLittleEndian)
    frames = open_frames(part10(dataset, ExplicitVRLittleEndian, element))
    again = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(again[:], GREY)
    assert again.token == frames.token
    assert again.dataset.PatientName == "Made^For^Tests"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    frames = open_frames(saved(tmp_path, encapsulated(GREY, RLELossless)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        frames[:]
        assert frames.dataset
        with pytest.raises(IndexError):
            frames[99]
    folder = Path("/proc/self/fd")
    if folder.is_dir():
        targets = {str(link.resolve()) for link in folder.iterdir() if link.exists()}
        assert not any(str(tmp_path) in target for target in targets)
