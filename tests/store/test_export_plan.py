"""Chunks, shards and regions: every object is written once, and all frames are."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from dcmdask import AlignmentError
from dcmdask.store.plan import CHUNK_BYTES, SHARD_BYTES, Axes, Plan, check_fits, planned
from dcmdask.store.pyramid import halve
from dcmdask.store.regions import Layout, left

U2 = np.dtype("u2")
DIMS = ("t", "c", "z", "y", "x")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan: up to two axes of frames, samples in front, behind or absent, a pyramid, tiles."""
    outer = draw(st.lists(st.integers(1, 9), min_size=1, max_size=2))
    where = draw(st.sampled_from(["none", "last", "first"]))
    shape = [*outer, draw(st.integers(1, 20)), draw(st.integers(1, 20))]
    frame_axes = tuple(range(len(outer)))
    halved: tuple[int, ...] = ()
    samples_axis = None
    if where == "last":
        shape.append(3)
        samples_axis = len(shape) - 1
    else:
        if where == "first":
            samples_axis = len(outer) - 1
            shape.insert(samples_axis, 3)
            frame_axes = tuple(a + (a >= samples_axis) for a in frame_axes)
        last = len(shape)
        halved = draw(st.sampled_from([(), (last - 2, last - 1), (last - 3, last - 2, last - 1)]))
    tile = draw(st.none() | st.tuples(st.integers(1, 7), st.integers(1, 7)))
    if tile is not None:
        last = len(shape) - (where == "last")
        frame_axes += (last - 2, last - 1)
        halved = tuple(axis for axis in halved if axis >= last - 2)
    plane = [length for axis, length in enumerate(shape) if axis != samples_axis]
    chunks: Any = draw(st.just("auto") | st.tuples(*[st.integers(1, n + 2) for n in plane]))
    shards: Any = draw(st.sampled_from(["auto", None, "some"]))
    if shards == "some":
        times = draw(st.tuples(*[st.integers(1, 4) for _ in plane]))
        base = plane if chunks == "auto" else chunks
        shards = [n * m for n, m in zip(base, times, strict=True)]
    most = 1 + math.ceil(math.log2(max((shape[a] for a in halved), default=1)))
    return planned(
        tuple(shape),
        U2,
        Axes(DIMS[-len(shape) :], frame_axes, samples_axis, halved, tile),
        chunks=chunks,
        shards=shards,
        levels=draw(st.integers(1, min(4, most))),
    )


@given(plans())
def test_regions_cover_all_frames_once(plan: Plan) -> None:
    for level, one in enumerate(plan.levels):
        if level == 1:
            continue
        hits = np.zeros(one.shape, np.uint8)
        for number in range(plan.count(level)):
            region = plan.region(level, number)
            hits[region] += 1
            for axis in set(range(len(one.shape))) - set(plan.frame_axes):
                assert region[axis] == slice(0, one.shape[axis])
        assert (hits == 1).all()


@given(plans())
def test_regions_are_made_of_whole_frames_or_tiles(plan: Plan) -> None:
    for number in range(plan.count(0)):
        region = plan.region(0, number)
        for axis, piece in zip(plan.frame_axes, plan.pieces, strict=True):
            assert region[axis].start % piece == 0
            assert region[axis].stop % piece == 0 or region[axis].stop == plan.levels[0].shape[axis]


@given(plans())
def test_each_object_is_written_whole_by_one_region(plan: Plan) -> None:
    layout = Layout(plan, tuple("abcd"[: len(plan.levels)]), "mask")
    owners = Counter(
        key
        for level in layout.tasks
        for number in range(plan.count(level))
        for key in layout.keys(level, number)
    )
    assert set(owners.values()) == {1}
    expected = {
        f"{name}/c/" + "/".join(map(str, index))
        for name, one in zip(layout.names, plan.levels, strict=True)
        for index in product(
            *(range(-(-n // o)) for n, o in zip(one.shape, one.objects, strict=True))
        )
    }
    assert {key for key in owners if not key.startswith("mask")} == expected
    assert sum(key.startswith("mask") for key in owners) == plan.count(0)
    # What is written of level 1 is made of what the same task decoded.
    if len(plan.levels) > 1:
        for number in range(plan.count(0)):
            region = plan.region(0, number)
            assert plan.below(1, plan.above(region)) == region


@given(plans(), st.data())
def test_what_is_left_is_done(plan: Plan, data: st.DataObject) -> None:
    layout = Layout(plan, tuple("abcd"[: len(plan.levels)]))
    everything = [
        key
        for level in layout.tasks
        for number in range(plan.count(level))
        for key in layout.keys(level, number)
    ]
    there = set(data.draw(st.lists(st.sampled_from(everything))))
    regions, stale = left(layout, there, set(everything) - there)
    redone = {key for level in regions for n in regions[level] for key in layout.keys(level, n)}
    assert there - set(stale) | redone == set(everything)
    assert set(stale) == redone & there
    # What is there and not whole is written again.
    assert left(layout, there, everything)[1] == sorted(there, key=everything.index)
    assert left(layout, everything, ())[1] == []
    assert not any(left(layout, everything, ())[0].values())
    assert sum(map(len, left(layout, (), ())[0].values())) == layout.regions


@given(plans())
def test_shards_are_made_of_chunks(plan: Plan) -> None:
    for one in plan.levels:
        assert min(one.chunks) >= 1
        if one.shards is not None:
            pairs = zip(one.shards, one.chunks, strict=True)
            assert all(shard % chunk == 0 for shard, chunk in pairs)


@pytest.mark.parametrize(
    ("shape", "dims", "samples", "chunks", "shards"),
    [
        # A CT: tiles of four frames, shards of whole frames.
        ((500, 512, 512), ("z", "y", "x"), None, (4, 256, 256), (32, 512, 512)),
        # An fMRI: whole volumes.
        ((200, 36, 64, 64), ("t", "z", "y", "x"), None, (1, 36, 64, 64), (16, 36, 64, 64)),
        # A short cine, and a long one of small frames.
        ((30, 240, 320, 3), ("frame", "row", "column", "sample"), 3, (1, 240, 320, 3), None),
        ((10000, 64, 64), ("frame", "row", "column"), None, (64, 64, 64), (1024, 64, 64)),
        # A mammogram is cut up, an X-ray is not.
        ((1, 4000, 3000), ("frame", "row", "column"), None, (1, 1000, 1000), None),
        ((1, 1300, 1000), ("frame", "row", "column"), None, (1, 1300, 1000), None),
    ],
)
def test_what_is_chosen(
    shape: Any, dims: Any, samples: int | None, chunks: Any, shards: Any
) -> None:
    axes = tuple(range(len(shape) - 2 - (samples is not None)))
    plan = planned(shape, U2, Axes(dims, axes, samples))
    assert (plan.levels[0].chunks, plan.levels[0].shards) == (chunks, shards)


@given(
    array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=3000),
    st.sampled_from(["u1", "u2", "f8"]),
    st.booleans(),
)
def test_what_is_chosen_is_of_a_reasonable_size(
    shape: tuple[int, ...], dtype: str, volume: bool
) -> None:
    axes = tuple(range(len(shape) - 2))
    dims = DIMS[-len(shape) :] if volume else ("a", "b", "y", "x")[-len(shape) :]
    plan = planned(shape, np.dtype(dtype), Axes(dims, axes))
    (level,) = plan.levels
    size = np.dtype(dtype).itemsize
    one_frame = size * math.prod(shape[len(axes) :])
    assert size * math.prod(level.chunks) <= max(CHUNK_BYTES, 16 * CHUNK_BYTES)
    padded = size * math.prod(level.shards or level.chunks)
    assert padded <= max(2 * SHARD_BYTES, 16 * one_frame)


@pytest.mark.parametrize(
    ("chunks", "shards", "error", "message"),
    [
        ((2, 8, 8), (3, 8, 8), AlignmentError, r"shards \(3, 8, 8, 3\) are not made of whole"),
        ((2, 8), "auto", ValueError, r"chunks \(2, 8\) are not one positive number for each of"),
        ((2, 8, 8, 3), "auto", ValueError, "without samples"),
        ((0, 8, 8), "auto", ValueError, "positive"),
        ("64 MiB", "auto", ValueError, "'auto', or a number for each axis"),
        ("auto", "no", ValueError, "'auto', or a number for each axis"),
    ],
)
def test_what_makes_no_sense(chunks: Any, shards: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        planned(
            (10, 8, 8, 3),
            U2,
            Axes(("frame", "row", "column", "sample"), (0,), samples_axis=3),
            chunks=chunks,
            shards=shards,
        )


def test_chunks_fit_into_the_shards_that_are_wanted() -> None:
    plan = planned((60, 512, 512), U2, Axes(("z", "y", "x"), (0,)), shards=(6, 512, 512))
    assert plan.levels[0].chunks == (3, 256, 256)


def test_a_number_is_of_whole_frames() -> None:
    plan = planned((60, 51, 52), U2, Axes(("z", "y", "x"), (0,)), chunks=2, shards=10, levels=1)
    assert (plan.levels[0].chunks, plan.levels[0].shards) == ((2, 51, 52), (10, 51, 52))


@pytest.mark.parametrize("levels", [0, 6, "many"])
def test_levels_that_cannot_be(levels: Any) -> None:
    with pytest.raises(ValueError, match="from 1 to 5"):
        planned((3, 16, 16), U2, Axes(("z", "y", "x"), (0,), halved=(1, 2)), levels=levels)


@given(plans(), st.integers(1, 4000))
def test_a_region_that_does_not_fit(plan: Plan, limit: int) -> None:
    if plan.region_bytes <= limit:
        check_fits(plan, limit, "a test")
        return
    with pytest.raises(AlignmentError) as caught:
        check_fits(plan, limit, "a test")
    message = str(caught.value)
    assert f"{plan.region_bytes} bytes" in message
    assert f"{limit} (a test)" in message
    if "would fit" not in message:
        return
    shown = message.rsplit(" of ", maxsplit=1)[-1].removesuffix(" would fit")
    kind = "shards" if plan.levels[0].shards else "chunks"
    numbers = tuple(map(int, shown.split(",")))
    given_: dict[str, Any] = {"chunks": plan.levels[0].chunks, kind: numbers}
    if kind == "shards" and plan.samples_axis is not None:
        given_["chunks"] = [
            n for axis, n in enumerate(plan.levels[0].chunks) if axis != plan.samples_axis
        ]
    again = planned(
        plan.levels[0].shape,
        U2,
        Axes(plan.dims, plan.frame_axes, plan.samples_axis, plan.halved, plan.tile),
        levels=len(plan.levels),
        **{"shards": None, **given_},
    )
    check_fits(again, limit, "a test")


# Levels.


@given(st.data())
def test_a_level_is_what_it_is_defined_as(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(max_dims=4, max_side=5))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1, max_size=3))
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4"])))
    numbers = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = numbers.integers(0, 2**32, shape, np.uint32).astype(dtype)
    result = halve(array, axes)
    assert result.dtype == dtype
    assert result.shape == tuple(-(-n // 2) if a in axes else n for a, n in enumerate(shape))
    for index in np.ndindex(result.shape):
        place = tuple(
            slice(2 * i, 2 * i + 2) if axis in axes else slice(i, i + 1)
            for axis, i in enumerate(index)
        )
        # An odd last value stands for itself along its axis: the mean over what is there.
        values = [Fraction(value) for value in array[place].ravel().tolist()]
        mean = sum(values) / len(values)
        if dtype.kind == "f":
            assert result[index] == pytest.approx(float(mean), rel=1e-6)
        else:
            assert result[index] == math.floor(mean + Fraction(1, 2))
    firsts = array[tuple(slice(None, None, 2 if a in axes else 1) for a in range(len(shape)))]
    np.testing.assert_array_equal(halve(array, axes, labels=True), firsts)


def test_a_mean_does_not_hide_what_is_not_known() -> None:
    array = np.array([[1, np.nan, 3, 4]], "f4")
    np.testing.assert_array_equal(halve(array, (1,)), [[np.nan, 3.5]])


def test_the_mean_of_the_largest_numbers() -> None:
    for dtype in ("u1", "i2", "u4", "i4"):
        limits = np.iinfo(dtype)
        for value in (limits.min, limits.max):
            array = np.full((2, 2, 2), value, dtype)
            assert halve(array, (0, 1, 2)).ravel().tolist() == [value]


@pytest.mark.parametrize(
    ("frames", "halved", "chunk"),
    [
        *((35, (), 18), (32, (), 32), (33, (), 17), (65, (), 22), (5, (), 5), (161, (), 27)),
        *((35, (0, 1, 2), 18), (33, (0, 1, 2), 18), (161, (0, 1, 2), 28)),
    ],
)
def test_chunks_are_even(frames: int, halved: tuple[int, ...], chunk: int) -> None:
    """Of 35 frames that would be 32 and 3, two chunks are 18 and 17; those wanted stay."""
    shape, axes = (frames, 128, 64), Axes(("z", "y", "x"), (0,), halved=halved)
    plan = planned(shape, np.dtype("u2"), axes, shards=None)
    assert plan.levels[0].chunks == (chunk, 128, 64)
    wanted = planned(shape, np.dtype("u2"), axes, shards=None, chunks=(32, 128, 64))
    assert wanted.levels[0].chunks == (32, 128, 64)


@pytest.mark.parametrize(
    ("shape", "tile", "chunks", "shards"),
    [
        # About as wide as high, in whole tiles.
        ((3, 80_000, 90_000), (256, 256), (1, 512, 512), (3, 4096, 4096)),
        ((3, 80_000, 90_000), (240, 240), (1, 480, 480), (3, 3840, 3840)),
        ((3, 5_000, 6_000), (512, 512), (1, 512, 512), (3, 1024, 1024)),
        ((3, 900, 90_000), (256, 256), (1, 512, 512), (3, 1024, 8192)),
        # No further than the last tile.
        ((3, 600, 900), (64, 64), (1, 512, 512), None),
        ((3, 60, 90), (64, 64), (1, 64, 128), None),
        # A tile is the whole matrix.
        ((3, 2_000, 3_000), (2_000, 3_000), (1, 2_000, 1_500), None),
    ],
)
def test_tiles_make_squares(shape: Any, tile: Any, chunks: Any, shards: Any) -> None:
    axes = Axes(("c", "y", "x"), (1, 2), samples_axis=0, halved=(1, 2), tile=tile)
    plan = planned(shape, np.dtype("u1"), axes)
    assert (plan.levels[0].chunks, plan.levels[0].shards) == (chunks, shards)
    plan = planned(shape, np.dtype("u1"), axes, chunks=96, shards=192)
    assert (plan.levels[0].chunks, plan.levels[0].shards) == ((1, 96, 96), (3, 192, 192))


def test_even_chunks_make_whole_shards() -> None:
    plan = planned((1000, 512, 300), np.dtype("u2"), Axes(("z", "y", "x"), (0,)))
    level = plan.levels[0]
    assert level.shards is not None and level.chunks[2] == 150
    assert not any(s % c for s, c in zip(level.shards, level.chunks, strict=True))
