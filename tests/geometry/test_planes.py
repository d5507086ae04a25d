"""Frames that lie and measure alike, and volumes that are in one another's way."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import AXIAL, OBLIQUE, at_distances, grid, table

from dcmdask.geometry.planes import alike, are_in_the_way


def partition(facts: np.ndarray, rows: int = 100, columns: int = 100) -> set[frozenset[int]]:
    """The marks of the frames of each group."""
    found = alike(facts, rows, columns)
    assert sorted(np.concatenate(found)) == list(range(len(facts)))
    marks = facts["window_center"].astype(int)
    return {frozenset(marks[numbers].tolist()) for numbers in found}


@given(order=st.permutations(range(8)), noise=st.integers(0, 99))
def test_the_order_of_frames_decides_nothing(order: list[int], noise: int) -> None:
    facts = grid(z=8).facts
    facts["orientation"][4:] = OBLIQUE
    facts["orientation"] += np.random.default_rng(noise).uniform(-2e-4, 2e-4, (8, 6))
    expected = {frozenset(range(4)), frozenset(range(4, 8))}
    assert partition(facts[order]) == partition(facts) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spacing", (0.51, 0.75)),
        ("spacing", (np.nan, np.nan)),
        ("spacing", (0, 1)),
        ("stack_id", b"2"),
        ("orientation", (np.nan,) * 6),
        ("orientation", (np.inf,) * 6),
        ("orientation", (1e300,) * 6),
        ("orientation", (1, 0, 0, 0, -1, 0)),
    ],
)
def test_what_differs_is_apart(column: str, value: Any) -> None:
    facts = grid(z=4).facts
    facts[column][1] = value
    assert partition(facts) == {frozenset({1}), frozenset({0, 2, 3})}


def test_spacings_of_which_the_last_digit_differs_are_alike() -> None:
    facts = grid(z=4).facts
    facts["spacing"][1] += 1e-4
    assert len(partition(facts)) == 1
    facts["spacing"][1] += 1e-2
    assert len(partition(facts)) == 2


def test_nothing_is_known() -> None:
    facts = table(3)
    assert len(partition(facts)) == 1 and not are_in_the_way(facts, np.arange(3))


def test_orientations_that_turn_on_and_on_take_no_square_time() -> None:
    """No clock: what is quadratic would hold up the whole run."""
    facts = grid(z=10_000).facts
    angles = np.linspace(0, np.pi, 10_000)
    facts["orientation"][:, 4], facts["orientation"][:, 5] = np.cos(angles), np.sin(angles)
    assert len(alike(facts, 512, 512)) > 1000


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([(0, 5), (0, 5)], True),
        ([(0, 5), (1.25, 5)], True),
        ([(0, 5), (12.5, 5)], False),
        ([(0, 5), (10, 5)], True),
        ([(0, 5), (2.5, 1)], False),
        ([(0, 1), (0, 1), (0, 1)], False),
        ([(20, 3), (0, 9), (40, 3)], True),
    ],
)
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_volumes_in_the_way(starts: Any, expected: bool, orientation: Any) -> None:
    """Each of some planes 2.5 mm apart; a single plane is no volume."""
    distances = [start + 2.5 * np.arange(count) for start, count in starts]
    facts = at_distances(np.concatenate(distances), orientation)
    group = np.repeat(np.arange(len(starts)), [count for _, count in starts])
    assert are_in_the_way(facts, group) is expected
