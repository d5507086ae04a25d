"""Gaps filled to the grid that was made, and what is irregular split into what is not."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from phantoms import (
    AXIAL,
    IRREGULAR,
    OBLIQUE,
    REGULAR,
    at_distances,
    grid,
    partly_placed,
    side_by_side,
    temporal,
    without,
)

from dcmdask.geometry.dimensions import arrange
from dcmdask.geometry.grid import Irregularity
from dcmdask.geometry.regularity import Tolerance, missing_steps
from dcmdask.geometry.repair import filled, parts

# What no splitting mends.
UNMENDABLE = {"orientation", "spacing"}


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("lean", [(0, 0, 0), (0.1, 0.2, -0.05)], ids=["straight", "leaning"])
@settings(max_examples=30)
@given(there=st.lists(st.booleans(), min_size=2, max_size=40), times=st.integers(1, 3))
def test_a_filled_grid_is_the_one_that_was_made(
    orientation: Any, lean: Any, there: list[bool], times: int
) -> None:
    kept = np.array([True, *there, True])
    steps = np.diff(np.flatnonzero(kept))
    assume(not kept.all() and (steps == 1).mean() >= 0.5 and len(kept) <= 2 * kept.sum())
    made = grid(t=times, z=len(kept), orientation=orientation, gap=1.7, lean=lean)
    made.tell(trigger_time=25.0 * made.at("t"), slope=1.0 + made.at("z"))
    whole = arrange(made.facts)
    facts = made.facts[kept[made.at("z")]]
    found = filled(arrange(facts), facts)
    assert found.irregularities == ()
    assert [note.code for note in found.notes] == (["tilt"] if any(lean) else [])
    assert found.dims == whole.dims and found.numbers.shape == whole.numbers.shape
    expected = np.where(kept, made.numbers, -1).reshape(whole.numbers.shape)
    marks = np.where(found.numbers < 0, -1, facts["window_center"][found.numbers])
    np.testing.assert_array_equal(marks, expected)
    np.testing.assert_array_equal(found.coordinates["missing"][1], ~kept)
    assert found.coordinates["missing"][0] == ("z",)
    for name in ("t", "z") if times > 1 else ("z",):
        np.testing.assert_allclose(found.coordinates[name][1], whole.coordinates[name][1])
    slope = np.where(kept, 1.0 + np.arange(len(kept)), np.nan)
    np.testing.assert_array_equal(found.coordinates["slope"][1], slope)
    assert found.geometry is not None and whole.geometry is not None
    np.testing.assert_allclose(found.geometry.affine, whole.geometry.affine, atol=1e-9)
    np.testing.assert_allclose(found.geometry.positions, whole.geometry.positions, atol=1e-9)
    np.testing.assert_allclose(found.geometry.spacing, whole.geometry.spacing)
    assert found.geometry.irregularities == found.irregularities


def test_frames_and_positions_that_are_missing_at_once() -> None:
    made = temporal()
    lost = {*made.numbers[:, 2], made.numbers[1, 3]}
    facts = without(made.facts, sorted(lost))
    arrangement = arrange(facts)
    assert [one.code for one in arrangement.irregularities] == ["missing", "missing"]
    found = filled(arrangement, facts)
    expected = np.where(np.isin(made.numbers, list(lost)), -1, made.numbers)
    marks = np.where(found.numbers < 0, -1, facts["window_center"][found.numbers])
    np.testing.assert_array_equal(marks, expected)
    assert found.irregularities == () and found.geometry is not None and found.geometry.regular
    assert found.coordinates["missing"][0] == ("t", "z")
    np.testing.assert_array_equal(found.coordinates["missing"][1], expected < 0)


@pytest.mark.parametrize("name", REGULAR)
def test_what_is_regular_is_left_alone(name: str) -> None:
    facts = REGULAR[name]().facts
    arrangement = arrange(facts)
    assert filled(arrangement, facts) is arrangement
    (part,) = parts(facts, arrangement)
    np.testing.assert_array_equal(part, arrangement.numbers.ravel())


@pytest.mark.parametrize("name", IRREGULAR)
def test_filling_leaves_nothing_out(name: str) -> None:
    make, kinds = IRREGULAR[name]
    facts = make()
    found = filled(arrange(facts), facts)
    left = {one.code for one in found.irregularities}
    unknown = ("of unknown times", "incomplete, by numbers", "frames missing")
    assert left == (kinds if name in unknown else kinds - {"missing"})
    assert sorted(found.numbers[found.numbers >= 0]) == list(range(len(facts)))


def test_a_tilt_is_left_where_a_gap_is_filled() -> None:
    facts = IRREGULAR["tilted, missing"][0]()
    found = filled(arrange(facts), facts)
    assert found.numbers.tolist() == [0, 1, -1, 2, 3, 4]
    assert found.irregularities == () and [note.code for note in found.notes] == ["tilt"]
    assert found.geometry is not None and found.geometry.regular
    np.testing.assert_allclose(found.geometry.affine[:3, 2], [0, 0.25 * 2.5, 2.5], atol=1e-9)


def test_frames_of_unknown_times_are_apart() -> None:
    facts = IRREGULAR["of unknown times"][0]()
    found = arrange(facts)
    assert filled(found, facts) is found
    split = assert_split(facts)
    together, alone = split
    marks = facts["window_center"].astype(int)
    np.testing.assert_array_equal(marks[together].reshape(4, 4) // 5, np.indices((4, 4))[0])
    assert marks[alone].tolist() == [5, 10, 15]


def test_frames_of_unknown_times_are_apart_whatever_else_is_wrong() -> None:
    facts = IRREGULAR["of unknown times"][0]()
    found = arrange(facts)
    conflict = Irregularity("conflict", "two files of one UID", (0, 1))
    twice = replace(found, irregularities=(*found.irregularities, conflict))
    assert [len(part) for part in parts(facts, twice)] == [16, 3]


def assert_split(facts: np.ndarray) -> list[np.ndarray]:
    """Parts are disjoint, cover everything and are regular."""
    found = parts(facts, arrange(facts))
    assert sorted(np.concatenate(found)) == list(range(len(facts)))
    for part in found:
        again = arrange(facts[part])
        assert {one.code for one in again.irregularities} <= UNMENDABLE
        assert (again.numbers >= 0).all()
    return found


@pytest.mark.parametrize("name", IRREGULAR)
def test_parts_are_regular(name: str) -> None:
    assert_split(IRREGULAR[name][0]())


@pytest.mark.parametrize(
    ("facts", "sizes"),
    [
        (at_distances([0, 2.5, 5, 10, 12.5, 17.5]), [3, 2, 1]),
        (at_distances([0, 10, 11, 12, 13, 20, 22, 24]), [1, 4, 3]),
        (without(temporal().facts, [7]), [15, 2, 2]),
        (temporal().facts[:18], [15, 3]),
        (side_by_side(), [4, 4]),
        (partly_placed(), [2, 3]),
        (IRREGULAR["duplicate"][0](), [6, 1]),
        (IRREGULAR["all at one position"][0](), [1, 1, 1]),
    ],
    ids=[
        "gaps", "another step", "frame missing", "incomplete volume", "side by side",
        "partly placed", "duplicate", "one position",
    ],
)  # fmt: skip
def test_parts_that_are_expected(facts: np.ndarray, sizes: list[int]) -> None:
    assert sorted(map(len, assert_split(facts))) == sorted(sizes)


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from([1.0, 1.0, 1.0, 1.004, 2.0, 1.5, 0.3, 7.0]), min_size=1, max_size=40),
    st.sampled_from([AXIAL, OBLIQUE]),
)
def test_runs_of_any_gaps_are_even(gaps: list[float], orientation: Any) -> None:
    distances = np.concatenate([[0], np.cumsum(gaps)])
    facts = at_distances(distances, orientation)
    found = assert_split(facts)
    # In the order of positions, and no two runs make a longer one.
    np.testing.assert_array_equal(np.concatenate(found), np.arange(len(facts)))
    for one, other in pairwise(found):
        both = missing_steps(distances[np.concatenate([one, other])], Tolerance())
        assert both is None or both.max() > 1 or len(one) == 1


@settings(max_examples=60)
@given(t=st.integers(2, 4), echo=st.integers(1, 2), z=st.integers(1, 5), data=st.data())
def test_parts_of_what_has_holes(t: int, echo: int, z: int, data: Any) -> None:
    made = grid(t=t, echo=echo, z=z)
    made.tell(temporal_position=made.at("t"), echo_time=10.0 + made.at("echo"))
    lost = data.draw(st.sets(st.integers(0, len(made.facts) - 1), max_size=len(made.facts) // 3))
    assert_split(without(made.facts, sorted(lost)))


def test_very_many_parts_are_found_in_linear_time() -> None:
    """No clock: what is quadratic would hold up the whole run."""
    facts = at_distances(np.cumsum(np.random.default_rng(0).uniform(0.5, 3, 50_000)))
    found = parts(facts, arrange(facts))
    assert sum(map(len, found)) == 50_000


def test_no_frame_is_in_two_parts_where_one_is_missing_and_one_is_off_the_line() -> None:
    made = grid(t=4, z=5, gap=1.0, origin=(0, 0, 0))
    made.tell(temporal_position=made.at("t") + 1)
    made.facts["position"][5] = [0.004, 0, 0.0095]
    facts = without(made.facts, [7])
    found = parts(facts, arrange(facts))
    assert sorted(np.concatenate(found)) == list(range(len(facts)))
