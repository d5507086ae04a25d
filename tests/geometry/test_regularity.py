"""Positions that are nearly even, rounded, or really not even."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phantoms import AXIAL, OBLIQUE, at_distances, without

from dcmdask.geometry.dimensions import arrange
from dcmdask.geometry.grid import locate
from dcmdask.geometry.regularity import Tolerance, last_digits, missing_steps


def rounded(distances: Any, decimals: int, orientation: Any = AXIAL) -> np.ndarray:
    """Facts of frames of which a header has so many digits behind the point."""
    facts = at_distances(distances, orientation)
    facts["position"] = facts["position"].round(decimals)
    return facts


@given(
    st.floats(0.3, 10), st.integers(2, 300), st.integers(1, 3), st.sampled_from([AXIAL, OBLIQUE])
)
def test_rounded_positions_are_regular(gap: float, n: int, decimals: int, orientation: Any) -> None:
    """dicom2nifti issue 36, dcmstack issue 55."""
    assume(10.0**-decimals < gap / 8)
    facts = rounded(gap * np.arange(n), decimals, orientation)
    geometry, z, notes = locate(facts)
    assert geometry.regular and z.tolist() == list(range(n))
    assert geometry.spacing[0] == pytest.approx(gap, abs=2 * 10.0**-decimals / (n - 1))
    assert geometry.affine is not None
    off = [
        np.abs((geometry.affine @ [0, 0, i, 1])[:3] - facts["position"][i]).max() for i in range(n)
    ]
    assert max(off) <= 2 * 10.0**-decimals
    assert {note.code for note in notes} <= {"off-grid"}


def test_the_deviation_is_told_and_the_true_positions_stay() -> None:
    """dicom2nifti issue 36, dcmstack issue 55: positions that are rounded to 0.1 mm."""
    facts = rounded([0, 0.6, 1.2, 1.9, 2.5], 1)
    found = arrange(facts)
    (note,) = found.notes
    assert note.code == "off-grid" and "by up to 0.05 mm" in note.text
    assert found.irregularities == ()
    np.testing.assert_allclose(np.diff(found.coordinates["z"][1]), 0.625)
    np.testing.assert_array_equal(found.coordinates["position_z"][1], facts["position"][:, 2])
    assert arrange(at_distances(0.625 * np.arange(5))).notes == ()


def test_gaps_of_a_pet() -> None:
    """dicom2nifti issue 36, dcmstack issue 55: 267 positions with gaps of 3.19 to 3.29 mm."""
    gaps = np.tile([3.27, 3.29, 3.27, 3.27, 3.19, 3.29, 3.27], 38)
    distances = np.concatenate([[0], np.cumsum(gaps)])
    facts = at_distances(distances)
    found = arrange(facts)
    assert found.irregularities == () and [note.code for note in found.notes] == ["off-grid"]
    assert found.geometry is not None and found.geometry.affine is not None
    assert found.geometry.spacing[0] == pytest.approx(gaps.mean())
    np.testing.assert_array_equal(found.coordinates["position_z"][1], facts["position"][:, 2])


@pytest.mark.parametrize(
    ("distances", "code"),
    [
        ([0, 0.6, 1.2, 1.9, 3.1, 3.7], "missing"),
        ([0, 0.6, 1.2, 1.8, 2.6, 3.2, 3.8], "uneven"),
        ([0, 5, 10, 15, 21, 26, 31], "uneven"),
        ([0, 1, 2, 4, 5], "missing"),
        ([0, 2.5, 5, 7.4, 9.5], "uneven"),
        ([0, 0.5, 0.8, 1.5, 2], "uneven"),
    ],
)
def test_what_is_not_even_is_named(distances: Any, code: str) -> None:
    """dicom2nifti issue 36, dcmstack issue 55: a real gap is not a rounded one."""
    geometry, *_ = locate(rounded(distances, 1))
    assert [one.code for one in geometry.irregularities] == [code]
    assert geometry.affine is None


@given(st.integers(5, 30), st.sampled_from([0.3, 0.6, 1.25, 3.27]), st.integers(1, 2), st.data())
def test_a_missing_position_is_never_taken_for_rounding(
    n: int, gap: float, decimals: int, data: Any
) -> None:
    facts = rounded(gap * np.arange(n), decimals)
    lost = data.draw(st.integers(1, n - 2))
    geometry, *_ = locate(without(facts, [lost]))
    assert not geometry.regular and geometry.affine is None


@pytest.mark.parametrize(("tolerance", "regular"), [(0.3, True), (0.05, False), (0.0, False)])
def test_the_user_decides(tolerance: float, regular: bool) -> None:
    facts = at_distances([0, 2.5, 5.1, 7.5, 10], AXIAL)
    assert arrange(facts).geometry.regular is False
    found = arrange(facts, tolerance=tolerance)
    assert found.geometry.regular is regular
    even = arrange(at_distances(2.5 * np.arange(5)), tolerance=0.0)
    assert even.geometry.regular


@pytest.mark.parametrize(
    ("values", "digit"),
    [([0, 0.6, -1.2], 0.1), ([0, 1, 5], 0), ([-12.5, -12.5], 0.1), ([0.25, 1 / 3], 0)],
)
def test_the_last_digit(values: Any, digit: float) -> None:
    positions = np.zeros((len(values), 3))
    positions[:, 1] = values
    np.testing.assert_allclose(last_digits(positions), [0, digit, 0])


def test_a_gap_is_filled_in_a_stack_of_rounded_positions() -> None:
    steps = missing_steps(np.array([0, 0.6, 1.2, 1.9, 3.1, 3.7]), Tolerance(rounding=0.099))
    assert steps is not None and steps.tolist() == [1, 1, 1, 2, 1]


def test_two_frames_of_an_oblique_stack_are_not_tilted_by_their_last_digits() -> None:
    geometry, _, notes = locate(rounded([0, 1.3], 1, OBLIQUE))
    assert geometry.regular and notes == ()
    found = re.findall("tilted", " ".join(map(str, locate(rounded([0, 1.3, 2.6], 1, OBLIQUE))[2])))
    assert found == []
