"""`pixel_array` and `iter_pixels`: pydicom's documentation, word for word, on all cores."""

import io
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from counting import count_decodings
from make_dicom import (
    LOSSLESS,
    NATIVE,
    by_pydicom,
    encapsulated,
    encoded,
    native,
    noise,
    saved,
)
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dcmdask.errors import DecodeError, FrameNumberError
from dcmdask.pixels import pixel_array as pixels
from dcmdask.pixels.pixel_array import iter_pixels, pixel_array

FRAMES = noise(40, 12, 14, dtype="u2", bits=12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path, encapsulated(FRAMES, JPEGLSLossless))


def threads_of_ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("dcmdask")]


def files_in(folder: Path) -> list[str]:
    """The files of `folder` that this process has open, where the platform tells."""
    links = Path("/proc/self/fd")
    if not links.is_dir():
        return []
    targets = [os.path.realpath(link) for link in links.iterdir()]
    return [target for target in targets if target.startswith(str(folder))]


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in four threads, also on a machine with one core."""
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Each frame that is decoded while the test runs, and the thread that did it."""
    log: list[tuple[int, str]] = []
    count_decodings(monkeypatch, lambda frame: log.append((frame, threading.current_thread().name)))
    # A few frames each, so that many tasks are made of few frames.
    monkeypatch.setattr(pixels, "TASK_FRAMES", 2)
    return log


# Shapes.


@pytest.mark.parametrize(
    ("frames", "shape"),
    [
        (noise(1, 8, 9), (8, 9)),
        (noise(1, 8, 9, 3), (8, 9, 3)),
        (noise(4, 8, 9), (4, 8, 9)),
        (noise(4, 8, 9, 3), (4, 8, 9, 3)),
    ],
    ids=["grey", "colour", "grey frames", "colour frames"],
)
@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, JPEG2000Lossless])
def test_shapes(syntax: str, frames: np.ndarray, shape: tuple[int, ...]) -> None:
    make = native if syntax in NATIVE else encapsulated
    data = make(frames, syntax)
    array = pixel_array(data)
    assert array.shape == shape
    np.testing.assert_array_equal(array, frames if len(frames) > 1 else frames[0])
    one = pixel_array(data, index=len(frames) - 1)
    np.testing.assert_array_equal(one, frames[-1])
    assert [frame.shape for frame in iter_pixels(data)] == [frames.shape[1:]] * len(frames)


# Results belong to the caller.

KINDS = {
    "native": lambda: native(FRAMES),
    "big endian": lambda: native(FRAMES, ExplicitVRBigEndian),
    "all bits": lambda: native(noise(5, 6, 7)),
    "signed": lambda: native(noise(5, 6, 7, dtype="i2"), BitsStored=12, HighBit=11),
    "1 bit": lambda: native(noise(5, 5, 7, dtype="?"), BitsAllocated=1, BitsStored=1, HighBit=0),
    "float": lambda: native(noise(5, 6, 7, dtype="f4")),
    "422": lambda: native(noise(5, 6, 8, 3), PhotometricInterpretation="YBR_FULL_422"),
    "planes": lambda: native(noise(5, 6, 7, 3), PlanarConfiguration=1),
    "odd words": lambda: native(noise(5, 5, 7), ExplicitVRBigEndian, vr="OW"),
    "deflated": lambda: native(FRAMES, DeflatedExplicitVRLittleEndian),
    **{
        str(syntax): lambda syntax=syntax: encapsulated(noise(3, 8, 8, 3), syntax)
        for syntax in LOSSLESS
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [False, True])
def test_results_are_the_callers(kind: str, raw: bool) -> None:
    data = KINDS[kind]()
    expected = by_pydicom(data, raw=raw)
    dataset = dcmread(io.BytesIO(data))
    before = bytes(dataset.PixelData) if "PixelData" in dataset else b""
    for source in (data, dataset):
        results = [
            (pixel_array(source, raw=raw), expected),
            (pixel_array(source, raw=raw, index=1), expected[1]),
            *zip(iter_pixels(source, raw=raw), expected, strict=True),
        ]
        for array, meant in results:
            np.testing.assert_array_equal(array, meant)
            assert array.dtype == meant.dtype
            assert array.flags.writeable
            array[...] = 0
    assert before == (bytes(dataset.PixelData) if "PixelData" in dataset else b"")
    np.testing.assert_array_equal(pixel_array(data, raw=raw), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_view_only(kind: str) -> None:
    data = KINDS[kind]()
    expected = by_pydicom(data)
    for source in (data, dcmread(io.BytesIO(data))):
        np.testing.assert_array_equal(pixel_array(source, view_only=True), expected)
        np.testing.assert_array_equal(pixel_array(source, view_only=True, index=2), expected[2])
        for frame, meant in zip(iter_pixels(source, view_only=True), expected, strict=True):
            np.testing.assert_array_equal(frame, meant)


def test_a_view_is_a_view() -> None:
    # With all bits in use nothing has to be changed, so nothing is copied.
    frames = noise(5, 6, 7)
    dataset = dcmread(io.BytesIO(native(frames)))
    held = np.frombuffer(dataset.PixelData, "u1")
    assert np.shares_memory(pixel_array(dataset, view_only=True), held)
    assert not np.shares_memory(pixel_array(dataset), held)


# Which frames.


def test_indices(path: Path) -> None:
    for indices in ([], [3], [5, 5, 0, 39], range(0, 40, 7), (1, 2), {4}):
        streamed = list(iter_pixels(path, indices=indices))
        assert len(streamed) == len(indices)
        for frame, i in zip(streamed, indices, strict=True):
            np.testing.assert_array_equal(frame, FRAMES[i])
    for array in (np.array([7, 1]), np.array([], int), np.arange(3, dtype="u1")):
        streamed = list(iter_pixels(path, indices=array))
        assert len(streamed) == len(array)
        assert all((a == b).all() for a, b in zip(streamed, FRAMES[array], strict=True))


@pytest.mark.parametrize("wrong", [-1, 40, 10**20])
def test_a_frame_that_does_not_exist(wrong: int, path: Path) -> None:
    for kind in (FrameNumberError, IndexError, ValueError):
        with pytest.raises(kind, match=f"frame {wrong} does not exist.*0 to 39"):
            pixel_array(path, index=wrong)
        with pytest.raises(kind, match=f"frame {wrong}"):
            list(iter_pixels(path, indices=[0, wrong]))
    assert not threads_of_ours()


def test_an_index_that_is_no_number(path: Path) -> None:
    for wrong in (1.5, "1", [1]):
        with pytest.raises(TypeError):
            pixel_array(path, index=wrong)
        with pytest.raises(TypeError):
            list(iter_pixels(path, indices=[wrong]))


def test_indices_are_consumed_as_frames_are_decoded(
    path: Path, four_cores: None, decoded: list[tuple[int, str]]
) -> None:
    taken: list[int] = []

    def plenty() -> Iterator[int]:
        for i in itertools.islice(itertools.cycle(range(40)), 1000):
            taken.append(i)
            yield i

    stream: Any = iter_pixels(path, indices=plenty())
    for wanted in range(100):
        np.testing.assert_array_equal(next(stream), FRAMES[wanted % 40])
        # Four threads, two tasks each and one that was just handed out, of two frames.
        assert len(taken) - wanted <= (2 * 4 + 1) * 2
    stream.close()
    assert len(decoded) <= len(taken)
    assert not threads_of_ours()


# Threads.


def test_all_cores_decode(path: Path, four_cores: None, decoded: list[tuple[int, str]]) -> None:
    np.testing.assert_array_equal(pixel_array(path), FRAMES)
    assert sorted(frame for frame, _ in decoded) == list(range(40))
    assert all(name.startswith("dcmdask") for _, name in decoded)
    decoded.clear()
    np.testing.assert_array_equal(list(iter_pixels(path)), FRAMES)
    assert all(name.startswith("dcmdask") for _, name in decoded)
    assert not threads_of_ours()


def test_one_frame_decodes_one_frame(path: Path, decoded: list[tuple[int, str]]) -> None:
    pixel_array(path, index=7)
    assert [frame for frame, _ in decoded] == [7]
    decoded.clear()
    list(iter_pixels(path, indices=[9, 3]))
    assert sorted(frame for frame, _ in decoded) == [3, 9]


def test_a_caller_that_is_one_of_many_uses_its_own_thread(
    path: Path, four_cores: None, decoded: list[tuple[int, str]]
) -> None:
    def work() -> None:
        np.testing.assert_array_equal(pixel_array(path), FRAMES)
        np.testing.assert_array_equal(list(iter_pixels(path)), FRAMES)

    worker = threading.Thread(target=work, name="one of many")
    worker.start()
    worker.join()
    assert {name for _, name in decoded} == {"one of many"}
    assert len(decoded) == 80
    decoded.clear()
    dask.compute(*[dask.delayed(work)() for _ in range(3)], scheduler="threads", num_workers=2)
    assert len(decoded) == 240
    assert not any(name.startswith("dcmdask") for _, name in decoded)


def test_a_child_process_uses_one_thread(four_cores: None) -> None:
    assert pixels._free_cores() == 4
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(pixels._free_cores).result() == 1


# The end of a stream.


def test_a_stream_that_is_left_early_leaves_nothing(path: Path, four_cores: None) -> None:
    stream: Any = iter_pixels(path)
    next(stream)
    stream.close()
    assert not threads_of_ours() and not files_in(path.parent)
    with pytest.raises(StopIteration):
        next(stream)
    for i, _ in enumerate(iter_pixels(path)):
        if i == 2:
            break
    assert not threads_of_ours() and not files_in(path.parent)
    with pytest.raises(RuntimeError, match="mine"):
        for _ in iter_pixels(path):
            raise RuntimeError("mine")
    never_started = iter_pixels(path)
    del never_started
    assert not threads_of_ours() and not files_in(path.parent)


def test_an_interrupt_ends_the_process(path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "os.sched_getaffinity = lambda _: set(range(4))\n"
        "from dcmdask.pixels.pixel_array import iter_pixels\n"
        "for i, _ in enumerate(iter_pixels(sys.argv[1])):\n"
        "    if i == 3: signal.raise_signal(signal.SIGINT)\n"
    )
    root = str(Path(pixels.__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_bad_frame_ends_the_stream_at_its_place(tmp_path: Path, four_cores: None) -> None:
    streams = [encoded(frame, RLELossless) for frame in FRAMES]
    streams[33] = bytes(len(streams[33]))
    bad = saved(tmp_path, encapsulated(FRAMES, RLELossless, streams=streams))
    good = []
    with pytest.raises(DecodeError, match=r"made\.dcm, frame 33: "):
        for frame in iter_pixels(bad):
            good.append(frame)
    # Frames are decoded some at a time: those before the bad one's company have come.
    assert len(good) >= 33 // pixels.TASK_FRAMES * pixels.TASK_FRAMES
    np.testing.assert_array_equal(good, FRAMES[: len(good)])
    assert not threads_of_ours()
    with pytest.raises(DecodeError, match="frame 33"):
        pixel_array(bad)
    rest = [i for i in range(40) if i != 33]
    np.testing.assert_array_equal(list(iter_pixels(bad, indices=rest)), FRAMES[rest])
    assert not threads_of_ours()


# `ds_out`.


def test_ds_out_is_filled_before_the_first_frame(path: Path) -> None:
    filled = Dataset()
    stream: Any = iter_pixels(path, ds_out=filled, specific_tags=[0x00100010])
    next(stream)
    assert filled.Rows == 12 and filled.PatientName == "Made^For^Tests"
    assert "SOPClassUID" not in filled and "PixelData" not in filled
    stream.close()
    untouched = Dataset()
    pixel_array(dcmread(path), ds_out=untouched)
    assert len(untouched) == 0


def test_sources_without_file_meta() -> None:
    bare = native(FRAMES, preamble=False, meta=False)
    syntax = str(ExplicitVRLittleEndian)
    np.testing.assert_array_equal(pixel_array(bare, transfer_syntax_uid=syntax), FRAMES)
    filled = Dataset()
    pixel_array(bare, transfer_syntax_uid=syntax, ds_out=filled)
    assert filled.Rows == 12


def test_frames_before_one_that_fails_are_yielded() -> None:
    data = native(FRAMES)
    iterator = iter_pixels(data, indices=[0, 2, 99, 1])
    np.testing.assert_array_equal(next(iterator), FRAMES[0])
    np.testing.assert_array_equal(next(iterator), FRAMES[2])
    with pytest.raises(FrameNumberError, match="frame 99"):
        next(iterator)
