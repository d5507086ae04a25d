"""`ArrangedFrames`, chunks along several axes, and the whole composition under Dask."""

import math
import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from counting import count_decodings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from instances import Held, instance, keys, single_files
from make_dicom import encapsulated, native, noise, saved
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from dcmdask.archive.from_dicom import from_dicom
from dcmdask.arrays.chunks import LEAST_CHUNKS, SECONDS_PER_OPENING, plan_chunks, to_dask
from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.display import DisplayFrames
from dcmdask.arrays.modality import ModalityFrames, Transformation
from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.errors import DecodeError
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.pixels.frame_array import open_frames

FRAMES = noise(24, 4, 5, dtype="u2", bits=12)


def placed(frames: np.ndarray, numbers: np.ndarray, fill: float) -> np.ndarray:
    """The whole array, made by NumPy."""
    return np.where(
        (numbers < 0).reshape(*numbers.shape, *(1,) * (frames.ndim - 1)), fill, frames[numbers]
    ).astype(frames.dtype)


@st.composite
def arrangements(draw: st.DrawFn) -> np.ndarray:
    """Frame numbers of one to three axes: a permutation, or any, some of them absent."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    count = math.prod(shape)
    order = st.permutations(range(24)).map(lambda numbers: numbers[:count])
    anything = st.lists(st.integers(-1, 23), min_size=count, max_size=count)
    chosen = draw(order if count <= 24 and draw(st.booleans()) else anything)
    return np.resize(np.array(chosen, np.int64), shape)


@settings(max_examples=400)
@given(data=st.data(), numbers=arrangements(), colour=st.booleans())
def test_an_index_is_numpys_and_each_frame_is_asked_for_once(
    data: st.DataObject, numbers: np.ndarray, colour: bool
) -> None:
    held = Held(noise(24, 3, 4, 3) if colour else FRAMES)
    frames = ArrangedFrames(held, numbers, 7)
    whole = placed(held.held, numbers, 7)
    assert (frames.shape, frames.dtype, len(frames)) == (whole.shape, whole.dtype, len(whole))
    key = data.draw(keys(whole.shape, numbers.ndim))
    expected = whole[key]
    try:
        got = frames[key]
    except IndexError as error:
        # NumPy moves the axis of the array to the front there.
        assert "index in two steps" in str(error)
        assert numbers.ndim > 1
        return
    np.testing.assert_array_equal(got, expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    (asked,) = held.keys
    every = numbers.reshape(*numbers.shape, *(1,) * (held.ndim - 1))
    wanted = np.broadcast_to(every, whole.shape)[key]
    decoded = np.arange(24)[asked[0]].tolist()
    assert len(decoded) == len(set(decoded))
    if wanted.size:
        assert set(decoded) == set(np.ravel(wanted).tolist()) - {-1}
    # Of rows and columns only what is selected is handed up.
    assert held.held[asked].size <= max(1, expected.size)


NUMBERS = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "key",
    [
        2,
        (0, 3),
        (0, 0, -5),
        (slice(None), [0, 1], slice(None), 0),
        (0, slice(None), [1]),
        (slice(None), 0, ..., [True, False, True, False]),
        ([0], [1]),
        (0, 0, 0, [1]),
        [[0, 1]],
        [True, False, True],
        (..., ...),
        None,
        0.5,
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 4),
    ],
    ids=repr,
)
def test_what_is_no_index(key: Any) -> None:
    frames = ArrangedFrames(Held(FRAMES), NUMBERS)
    if key == (0, slice(None), [1]) or key == (slice(None), [0, 1], slice(None), 0):
        # NumPy puts the array's axis first here, in front of the slice.
        assert FRAMES[NUMBERS][key].shape[0] == len(key[-1] if key[0] == 0 else key[1])
    with pytest.raises(IndexError):
        frames[key]


def test_arrays_that_stay_where_they_are() -> None:
    frames, whole = ArrangedFrames(Held(FRAMES), NUMBERS), FRAMES[NUMBERS]
    for key in (
        ([1, 0, 1],),
        (slice(None), [2, 0]),
        (slice(None), slice(None), [3, 3]),
        ([1, 0], slice(None), 2),
        (1, [2, 0]),
        (slice(None), [2, 0], 3),
        (slice(None), slice(None), [1, 0], 2, 3),
        ([False, True], ..., 2),
        (
            slice(None, None, -1),
            np.array([True, False, True]),
            slice(2),
            slice(None),
            slice(3, 0, -1),
        ),
    ):
        np.testing.assert_array_equal(frames[key], whole[key])


def test_an_array_like() -> None:
    frames = ArrangedFrames(Held(FRAMES), NUMBERS)
    assert (frames.ndim, frames.size, frames.nbytes) == (5, FRAMES.size, FRAMES.nbytes)
    np.testing.assert_array_equal(np.asarray(frames, "f4"), FRAMES[NUMBERS].astype("f4"))
    for part, expected in zip(frames, FRAMES[NUMBERS], strict=True):
        np.testing.assert_array_equal(part, expected)
    assert repr(frames) == "<ArrangedFrames (2, 3, 4, 4, 5) uint16, held>"
    swapped = ArrangedFrames(Held(FRAMES.astype(">u2")), NUMBERS)
    assert swapped.dtype == "u2" and swapped[1].dtype.isnative
    np.testing.assert_array_equal(swapped[1], FRAMES[NUMBERS][1])


@pytest.mark.parametrize(
    ("dtype", "fill", "fits"),
    [
        ("u2", 0, True),
        ("u2", 65535, True),
        ("u2", 7.0, True),
        ("u2", np.int64(7), True),
        ("u2", -1, False),
        ("u2", 65536, False),
        ("u2", 0.5, False),
        ("u2", np.nan, False),
        ("u2", np.inf, False),
        ("i2", -32768, True),
        ("i2", -32769, False),
        ("i8", 2**62 + 1, True),
        ("i8", 2**63, False),
        ("i8", 1e300, False),
        ("f4", np.nan, True),
        ("f4", -np.inf, True),
        ("f4", 0.1, True),
        ("f4", 1e39, False),
        ("f8", 1e300, True),
    ],
)
def test_a_fill_value_fits_the_type(dtype: str, fill: float, fits: bool) -> None:
    held = Held(noise(2, 3, 4, dtype=dtype))
    numbers = np.array([1, -1, 0])
    if not fits:
        with pytest.raises(ValueError, match="does not fit"):
            ArrangedFrames(held, numbers, fill)
        return
    frames = ArrangedFrames(held, numbers, fill)
    np.testing.assert_array_equal(frames[1], np.full((3, 4), fill, dtype))
    np.testing.assert_array_equal(frames[[0, 2]], held.held[[1, 0]])
    held.keys.clear()
    frames[1, :2]
    ((asked, *_),) = held.keys
    assert len(asked) == 0
    assert frames[1, 2, 3] == np.dtype(dtype).type(fill) or np.isnan(fill)


def test_numbers_that_cannot_be() -> None:
    held = Held(FRAMES)
    for wrong in ([0, 24], [-2]):
        with pytest.raises(ValueError, match="there is no frame"):
            ArrangedFrames(held, wrong, 0)
    with pytest.raises(ValueError, match="a fill_value is needed"):
        ArrangedFrames(held, [0, -1])
    given = np.arange(3)
    frames = ArrangedFrames(held, given)
    given[:] = 5
    np.testing.assert_array_equal(frames[:], FRAMES[:3])


def test_tokens() -> None:
    held = Held(FRAMES)
    variants = [
        ArrangedFrames(held, np.arange(24)),
        ArrangedFrames(held, np.arange(24), 0),
        ArrangedFrames(held, np.arange(24), 1),
        ArrangedFrames(held, np.arange(24)[::-1]),
        ArrangedFrames(held, np.arange(24).reshape(4, 6)),
        ArrangedFrames(Held(FRAMES[::-1]), np.arange(24)),
    ]
    assert len({one.token for one in variants}) == len(variants)
    for one in variants:
        again = pickle.loads(pickle.dumps(one))
        assert again.token == one.token
        np.testing.assert_array_equal(again, one)


# Chunks.


class Frames(ArrangedFrames):
    """As many frames as wanted, of which none is there."""

    def __init__(self, source: Path, shape: tuple[int, ...], rows: int, columns: int) -> None:
        frames = open_frames(native(noise(1, 1, 1, dtype="u2")))
        frames.shape = (math.prod(shape), rows, columns)
        super().__init__(frames, np.arange(math.prod(shape)).reshape(shape))


@pytest.mark.parametrize(
    ("shape", "chunks", "expected"),
    [
        ((3, 10), 4, ((1, 1, 1), (4, 4, 2))),
        ((3, 10), 10, ((1, 1, 1), (10,))),
        ((3, 10), 19, ((1, 1, 1), (10,))),
        ((3, 10), 20, ((2, 1), (10,))),
        ((3, 10), 1000, ((3,), (10,))),
        ((3, 10), -1, ((3,), (10,))),
        ((3, 10), None, ((3,), (10,))),
        ((3, 10), 1, ((1, 1, 1), (1,) * 10)),
        ((3, 10), "240 B", ((1, 1, 1), (6, 4))),
        ((3, 10), "1 MiB", ((3,), (10,))),
        ((3, 10), (1, -1, -1, -1), ((1, 1, 1), (10,))),
        ((3, 10), (2, (7, 3), 4, 5), ((2, 1), (7, 3))),
        ((3, 10), (3, "240 B", -1, -1), ((3,), (2,) * 5)),
        ((3, 10), ("800 B", 10, -1, -1), ((2, 1), (10,))),
        ((3, 10), {1: 5}, ((3,), (5, 5))),
        ((3, 10), {0: 1}, ((1, 1, 1), (10,))),
        ((3, 10), {}, ((1, 1, 1), (10,))),
        ((2, 3, 4), 12, ((1, 1), (3,), (4,))),
        ((2, 3, 4), 9, ((1, 1), (2, 1), (4,))),
        ((2, 3, 4), (-1, 5, 1, -1, -1), ((2,), (3,), (1, 1, 1, 1))),
        ((30,), 12, ((12, 12, 6),)),
    ],
    ids=str,
)
def test_chunks_along_several_axes(
    shape: tuple[int, ...], chunks: Any, expected: tuple[tuple[int, ...], ...], tmp_path: Path
) -> None:
    frames = Frames(tmp_path, shape, 4, 5)
    if chunks in ({}, {0: 1}, {1: 5}):
        with dask.config.set({"array.chunk-size": 4 * 15 * 40}):
            assert plan_chunks(frames, chunks)[: len(shape)] == expected
    else:
        assert plan_chunks(frames, chunks) == (*expected, (4,), (5,))


@pytest.mark.parametrize(
    "chunks",
    [
        0,
        -2,
        (0, 5, -1, -1),
        (1, 5, 2, -1),
        {2: 1},
        {4: 1},
        (3, 10),
        ((1, 1), 5, -1, -1),
        "nonsense",
    ],
    ids=str,
)
def test_chunks_that_cannot_be(chunks: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        plan_chunks(Frames(tmp_path, (3, 10), 4, 5), chunks)
    if chunks == (1, 5, 2, -1):
        assert "use chunks=(1, 5) and then .rechunk({2: 2})" in str(caught.value)


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    rows=st.integers(1, 2000),
    limit=st.sampled_from([1 << 20, 1 << 27]),
)
@example(shape=(40, 40), rows=512, limit=1 << 27)
def test_planned_chunks(shape: tuple[int, ...], rows: int, limit: int) -> None:
    frames = Frames(Path(), shape, rows, rows)
    with dask.config.set({"array.chunk-size": limit}):
        *outer, own_rows, own_columns = plan_chunks(frames)
    assert (own_rows, own_columns) == ((rows,), (rows,))
    assert tuple(map(sum, outer)) == shape
    steps = [lengths[0] for lengths in outer]
    for lengths in outer:
        assert set(lengths[:-1]) <= {lengths[0]} and 1 <= lengths[-1] <= lengths[0]
    # One axis is divided; those behind it are whole, of those before it one place is taken.
    assert any(
        set(steps[:axis]) <= {1} and tuple(steps[axis + 1 :]) == shape[axis + 1 :]
        for axis in range(len(shape))
    )
    assert math.prod(steps) == 1 or math.prod(steps) * rows * rows * 2 <= limit / 4


def test_opening_and_transforming_make_chunks_smaller(tmp_path: Path) -> None:
    stored = noise(200, 64, 64, dtype="u2", bits=12)
    several = open_frames(native(stored))
    singly = JoinedFrames(single_files(tmp_path, stored))
    shown = DisplayFrames(several, Transformation(12))
    lengths = [plan_chunks(frames)[0][0] for frames in (several, singly, shown)]
    assert lengths[0] > lengths[1] and lengths[0] > lengths[2]
    assert SECONDS_PER_OPENING * lengths[1] < 0.01
    assert len(plan_chunks(singly)[0]) >= min(LEAST_CHUNKS, 200 // lengths[1])


# The composition.


def composition(folder: Path) -> tuple[ArrayLike, np.ndarray]:
    """Two times four positions in files of one and of several frames, one of them missing."""
    stored = noise(7, 12, 10, dtype="u2", bits=12, seed=3)
    slopes = np.linspace(0.25, 4, 7)
    described = [
        instance(saved(folder, native(stored[:1], ExplicitVRBigEndian), "a")),
        instance(saved(folder, encapsulated(stored[1:4], JPEGLSLossless), "b")),
        instance(saved(folder, native(stored[4:5]), "c")),
        instance(saved(folder, encapsulated(stored[5:], RLELossless), "d")),
    ]
    numbers = np.array([[6, 1, 0, 4], [3, -1, 2, 5]])
    values = ModalityFrames(JoinedFrames(described), Transformation(12, slopes, -7.5))
    meant = (stored * slopes[:, None, None] + -7.5).astype("f4")
    return ArrangedFrames(values, numbers, np.nan), placed(meant, numbers, np.nan)


@pytest.mark.parametrize("chunks", ["auto", 1, 3, -1, (1, -1, -1, -1)])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_the_composition_under_dask(chunks: Any, scheduler: str, tmp_path: Path) -> None:
    frames, whole = composition(tmp_path)
    x = to_dask(frames, chunks)
    assert (x.shape, x.dtype) == (whole.shape, whole.dtype)
    assert type(x._meta) is np.ndarray and x._meta.dtype == x.dtype
    with dask.config.set(scheduler=scheduler, num_workers=2):
        computed, part, total = dask.compute(x, x[1, 1:, ::2, 3], x.sum())
    np.testing.assert_array_equal(computed, whole)
    np.testing.assert_array_equal(part, whole[1, 1:, ::2, 3])
    assert computed.dtype == x.dtype and np.isnan(total)
    assert pickle.loads(pickle.dumps(x)).name == x.name == to_dask(frames, chunks).name


SELECTIONS: list[tuple[Any, int]] = [
    ((0, 2), 1),
    ((1, 2, slice(0, 3), slice(0, 3)), 1),
    ((slice(None), 3), 2),
    ((1,), 3),
    ((slice(None), slice(1, 3), 5), 3),
    ((1, 1), 0),
]


@pytest.mark.parametrize("chunks", ["auto", 2, -1])
@pytest.mark.parametrize(("key", "count"), SELECTIONS, ids=str)
def test_a_slice_decodes_only_its_frames(
    chunks: Any, key: Any, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, whole = composition(tmp_path)
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    selected = to_dask(frames, chunks)[key]
    assert decoded == []
    np.testing.assert_array_equal(selected.compute(), whole[key])
    assert len(decoded) == count


def test_a_labelled_slice_decodes_only_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xarray

    frames, whole = composition(tmp_path)
    x = xarray.DataArray(to_dask(frames), dims=("t", "z", "y", "x"))
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    np.testing.assert_array_equal(x.isel(z=2, t=1, y=slice(3)).values, whole[1, 2, :3])
    assert len(decoded) == 1
    np.testing.assert_array_equal(x.isel(z=2).mean(("y", "x")), whole[:, 2].mean((1, 2)))
    assert len(decoded) == 3


def test_a_bad_frame_fails_its_task_alone(tmp_path: Path) -> None:
    stored = noise(4, 12, 10, dtype="u2")
    described = [
        instance(saved(tmp_path, encapsulated(stored[i : i + 1], RLELossless), f"{i}.dcm"))
        for i in range(4)
    ]
    bad = encapsulated(stored[2:3], RLELossless, streams=[bytes(300)])
    described[2] = instance(saved(tmp_path, bad, "2.dcm"))
    x = to_dask(ArrangedFrames(JoinedFrames(described), [[3, 2], [1, 0]]), 1)
    with pytest.raises(DecodeError, match=r"2\.dcm, frame 0"):
        x.compute()
    np.testing.assert_array_equal(x[1].compute(), stored[[1, 0]])
    np.testing.assert_array_equal(x[:, 0].compute(), stored[[3, 1]])


def test_from_dicom_is_made_the_same_way(tmp_path: Path) -> None:
    path = saved(tmp_path, native(FRAMES))
    assert from_dicom(path, chunks=5).name == to_dask(open_frames(path), 5).name
