"""Positions in the patient to an even grid and its affine, or to what is not even about it."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phantoms import AXIAL, OBLIQUE, at_distances, grid, normal_of, without

from dcmdask.geometry.grid import Geometry, locate
from dcmdask.geometry.planes import is_placed


@st.composite
def orientations(draw: Any) -> np.ndarray:
    """Two orthonormal directions, any of them."""
    numbers = st.floats(-1, 1).filter(lambda x: abs(x) > 0.05)
    row = np.array(draw(st.tuples(numbers, numbers, numbers)))
    other = np.array(draw(st.tuples(numbers, numbers, numbers)))
    row /= np.linalg.norm(row)
    column = np.cross(np.cross(row, other), row)
    if np.linalg.norm(column) < 0.05:
        column = np.cross(row, [row[1], -row[2], row[0] + 1])
    return np.concatenate([row, column / np.linalg.norm(column)])


lengths = st.floats(0.05, 20)
origins = st.tuples(*[st.floats(-2000, 2000)] * 3)


def told(pattern: str, message: str) -> list[float]:
    """The numbers that a message gives for the groups of a pattern."""
    match = re.search(pattern.replace("#", r"([\d.]+(?:e[+-]\d+)?)"), message)
    assert match is not None, message
    return [float(word) for word in match.groups()]


def located(facts: np.ndarray) -> tuple[Geometry, np.ndarray]:
    geometry, z, _ = locate(facts)
    assert (np.diff(geometry.positions) > 0).all() and geometry.positions[0] == 0
    return geometry, z


@given(orientations(), origins, lengths, lengths, st.floats(0.1, 20), st.integers(2, 40), st.data())
def test_an_even_grid_is_found_back(
    orientation: np.ndarray, origin: Any, rows: float, columns: float, gap: float, n: int, data: Any
) -> None:
    made = grid(orientation=orientation, origin=origin, gap=gap, spacing=(rows, columns), z=n)
    order = np.array(data.draw(st.permutations(range(n))))
    geometry, z = located(made.facts[order])
    assert geometry.regular
    np.testing.assert_array_equal(z, order)
    np.testing.assert_allclose(geometry.spacing, (gap, rows, columns), rtol=1e-6)
    np.testing.assert_allclose(geometry.positions, gap * np.arange(n), atol=1e-6)
    affine = geometry.affine
    assert affine is not None
    # Columns: along a row, along a column, from frame to frame; PS3.3 C.7.6.2.1.1
    np.testing.assert_allclose(affine[:3, 0], orientation[:3] * columns, atol=1e-9)
    np.testing.assert_allclose(affine[:3, 1], orientation[3:] * rows, atol=1e-9)
    np.testing.assert_allclose(affine[:3, 2], normal_of(orientation) * gap, atol=1e-6)
    np.testing.assert_array_equal(affine[3], [0, 0, 0, 1])
    assert np.linalg.det(affine) > 0
    for i in range(n):
        at = affine @ [0, 0, i, 1]
        np.testing.assert_allclose(at[:3], made.facts["position"][i], atol=1e-6)


@given(orientations(), origins, st.floats(0.3, 10), st.integers(2, 60), st.integers(4, 6))
def test_rounded_headers_are_regular(
    orientation: np.ndarray, origin: Any, gap: float, n: int, decimals: int
) -> None:
    facts = grid(orientation=orientation, origin=origin, gap=gap, z=n).facts
    facts["position"] = facts["position"].round(decimals)
    facts["orientation"] = facts["orientation"].round(6)
    geometry, _ = located(facts)
    assert geometry.irregularities == () and geometry.affine is not None
    for i in range(n):
        at = geometry.affine @ [0, 0, i, 1]
        np.testing.assert_allclose(at[:3], facts["position"][i], atol=3 * 10.0**-decimals)


@given(orientations(), st.floats(0.008, 0.05), st.integers(2, 200), st.integers(4, 6))
def test_pixels_of_a_few_micrometres(
    orientation: np.ndarray, gap: float, n: int, decimals: int
) -> None:
    facts = grid(
        orientation=orientation, origin=(0, 0, 0), gap=gap, spacing=(0.004,) * 2, z=n
    ).facts
    facts["position"] = facts["position"].round(decimals)
    geometry, z = located(facts)
    assert geometry.irregularities == () and len(np.unique(z)) == n
    assert geometry.spacing[0] == pytest.approx(gap, abs=1e-4)


@given(orientations(), st.floats(0.1, 10), st.integers(3, 30), st.data())
def test_a_grid_that_lacks_frames(orientation: np.ndarray, gap: float, n: int, data: Any) -> None:
    """As long as most neighbours are left, and most frames."""
    there = data.draw(
        st.lists(st.booleans(), min_size=n - 2, max_size=n - 2).filter(lambda x: not all(x))
    )
    there = np.flatnonzero([True, *there, True])
    facts = grid(orientation=orientation, gap=gap, z=n).facts[there]
    geometry, _ = located(facts)
    steps = np.diff(there)
    if (steps == steps[0]).all():
        # Nothing tells that there should be more.
        assert geometry.regular and geometry.spacing[0] == pytest.approx(steps[0] * gap)
        return
    assert not geometry.regular and geometry.affine is None
    if 2 * (steps == 1).sum() < len(steps) or n > 2 * len(there):
        return
    (found,) = geometry.irregularities
    assert found.code == "missing" and geometry.spacing[0] == pytest.approx(gap)
    assert told("^# of # positions # mm apart", found.text) == pytest.approx(
        [n - len(there), n, gap], rel=1e-3
    )
    places = np.setdiff1d(np.arange(n), there)
    (words,) = re.findall(r"at (.+?)(?: and \d+ more)? mm from", found.text)
    listed = [float(word) for word in words.split(", ")]
    np.testing.assert_allclose(listed, gap * places[:8], rtol=1e-3)
    # The frames in front of the gaps.
    np.testing.assert_array_equal(found.frames, np.flatnonzero(steps > 1))


@given(orientations(), st.floats(0.5, 5), st.integers(4, 30), st.data())
def test_a_frame_off_the_grid_is_uneven(
    orientation: np.ndarray, gap: float, n: int, data: Any
) -> None:
    which = data.draw(st.integers(1, n - 2))
    off = data.draw(st.floats(0.13, 0.37)) * gap
    distances = gap * np.arange(n)
    distances[which] += off
    geometry, _ = located(at_distances(distances, orientation))
    (found,) = geometry.irregularities
    assert found.code == "uneven" and geometry.affine is None and np.isnan(geometry.spacing[0])
    np.testing.assert_allclose(geometry.positions, distances, atol=1e-6)
    assert told("from # to # mm", found.text) == pytest.approx([gap - off, gap + off], rel=1e-3)


@given(orientations(), st.floats(0.5, 5), st.integers(2, 30), st.floats(1, 40), st.floats(0, 6.28))
def test_a_tilt_is_measured(
    orientation: np.ndarray, gap: float, n: int, degrees: float, towards: float
) -> None:
    # Less than a hundredth of a mm is not told from a rounded header.
    assume(np.tan(np.radians(degrees)) * gap * (n - 1) > 0.011)
    row, column = orientation[:3], orientation[3:]
    lean = np.tan(np.radians(degrees)) * (row * np.cos(towards) + column * np.sin(towards))
    facts = grid(orientation=orientation, gap=gap, lean=lean, z=n).facts
    geometry, _, (note,) = locate(facts)
    assert geometry.regular and geometry.affine is not None and note.code == "tilt"
    assert told("tilted by #°", note.text) == pytest.approx([degrees], rel=1e-3)
    aside = gap * float(np.linalg.norm(lean))
    assert told("begins # mm beside", note.text) == pytest.approx([aside], rel=1e-3)
    assert geometry.spacing[0] == pytest.approx(gap)
    for i in range(n):
        at = geometry.affine @ [0, 0, i, 1]
        np.testing.assert_allclose(at[:3], facts["position"][i], atol=1e-6)


def test_the_last_digits_of_two_positions_are_no_tilt() -> None:
    facts = at_distances([0, 0.5], AXIAL)
    facts["position"][1] += [0.004, 0, 0]
    geometry, _, notes = locate(facts)
    assert geometry.regular and notes == () and geometry.shear == (0, 0, 0)


def test_gaps_that_creep_do_not_make_a_grid() -> None:
    """Each is nearly the one before, yet the last would be half a step off."""
    distances = np.concatenate([[0], np.cumsum(np.linspace(1, 1.019, 100))])
    geometry, _ = located(at_distances(distances))
    assert [one.code for one in geometry.irregularities] == ["uneven"] and geometry.affine is None


def test_few_of_many_positions_are_no_grid() -> None:
    """Two frames that are close make no grid of what lies far apart."""
    for distances in ([0, 3, 6, 9, 10.5, 13.5, 16.5], [0, 1, 2, 1000], [0, 0.05, 0.1, 9e5]):
        geometry, _ = located(at_distances(distances))
        assert [one.code for one in geometry.irregularities] == ["uneven"], distances


def test_frames_side_by_side_are_named() -> None:
    facts = np.concatenate([grid(z=3).facts, grid(z=3).facts[:1]])
    facts["position"][3] += [0, 40, 0]
    geometry, z = located(facts)
    (found,) = geometry.irregularities
    assert found.code == "position" and "1 frames" in found.text and "40 mm" in found.text
    assert found.frames in [(0,), (3,)] and z.tolist() == [0, 1, 2, 0]


def test_the_odd_one_out_is_named() -> None:
    made = grid(t=3, z=4)
    made.facts["position"][6] -= [40, 0, 0]
    geometry, _ = located(made.facts)
    (found,) = geometry.irregularities
    assert found.code == "position" and found.frames == (6,) and "40 mm" in found.text


def test_small_steps_are_not_even_by_being_small() -> None:
    distances = 0.05 * np.arange(9)
    distances[4] += 0.015
    geometry, _ = located(at_distances(distances))
    assert [one.code for one in geometry.irregularities] == ["uneven"]


def test_noise_in_repeated_positions() -> None:
    facts = grid(t=50, z=6, orientation=OBLIQUE).facts
    facts["position"] += np.random.default_rng(0).uniform(-1e-3, 1e-3, (300, 3))
    geometry, z = located(facts)
    assert geometry.regular and np.bincount(z).tolist() == [50] * 6


@pytest.mark.parametrize(
    ("orientation", "codes"),
    [
        (AXIAL, "LPS"),
        ((-1, 0, 0, 0, 1, 0), "RPI"),
        ((0, 1, 0, 0, 0, -1), "PIR"),
        ((1, 0, 0, 0, 0, -1), "LIP"),
        (OBLIQUE, "LSA"),
    ],
)
def test_codes(orientation: Any, codes: str) -> None:
    assert located(grid(orientation=orientation, z=2).facts)[0].codes == codes


def test_one_position() -> None:
    facts = grid(z=1, gap=4.0).facts
    geometry, _ = located(facts)
    assert geometry.regular and geometry.spacing == (4.0, 0.5, 0.75)
    np.testing.assert_allclose(geometry.affine @ [0, 0, 1, 1], [-12.5, 30.25, -3, 1])
    facts["thickness"] = np.nan
    geometry, _ = located(facts)
    assert geometry.regular and np.isnan(geometry.spacing[0])
    np.testing.assert_allclose(geometry.affine @ [0, 0, 1, 1], [-12.5, 30.25, -6, 1])


def test_a_negative_zero_is_a_zero() -> None:
    facts = grid(z=4).facts
    facts["orientation"][::2] = (1, -0.0, -0.0, 0, 1, -0.0)
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        geometry, _ = located(facts[order])
        assert geometry.regular and not np.signbit(geometry.orientation).any()


@pytest.mark.parametrize(
    "orientation",
    [(0,) * 6, (1, 0, 0, 1, 0, 0), (np.inf,) * 6, (1e300,) * 6, (np.nan, 0, 0, 0, 1, 0)],
    ids=["zero", "parallel", "infinite", "huge", "nan"],
)
def test_orientations_that_span_no_plane(orientation: Any) -> None:
    facts = grid(z=3).facts
    facts["orientation"][1] = orientation
    assert is_placed(facts).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300, -1e308, 1e7])
def test_positions_out_of_this_world(value: float) -> None:
    facts = grid(z=3).facts
    facts["position"][1, 2] = value
    assert is_placed(facts).tolist() == [True, False, True]


@pytest.mark.parametrize("spacing", [(0, 1), (-1, 1), (np.nan, np.nan), (np.inf, 1), (1, np.nan)])
def test_pixels_without_a_size(spacing: Any) -> None:
    geometry, _ = located(grid(z=4, spacing=spacing).facts)
    assert [one.code for one in geometry.irregularities] == ["spacing"]
    assert geometry.affine is None and np.isnan(geometry.spacing[1:]).all()
    assert geometry.spacing[0] == 2.5


@pytest.mark.parametrize("spacing", [1e-300, 1e-9, 1e300])
@pytest.mark.parametrize("thickness", [1e300, -1.0, 0.0, np.inf])
def test_absurd_sizes_break_nothing(spacing: float, thickness: float) -> None:
    for n in (1, 2, 5):
        facts = grid(z=n, spacing=(spacing, spacing)).facts
        facts["thickness"] = thickness
        geometry, z = located(facts)
        assert geometry.regular and z.tolist() == list(range(n))


def test_two_frames_closer_than_headers_are_precise() -> None:
    geometry, z = located(at_distances([0, 1e-7]))
    assert z.tolist() == [0, 0] and geometry.positions.tolist() == [0]


def test_steps_smaller_than_the_tolerance_are_steps() -> None:
    geometry, z = located(at_distances(0.006 * np.arange(20)))
    assert geometry.regular and z.tolist() == list(range(20))
    facts = without(at_distances(0.006 * np.arange(20)), [7])
    assert [one.code for one in located(facts)[0].irregularities] == ["missing"]
