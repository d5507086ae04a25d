"""Regularity of positions along the normal: tolerances, and the steps of an even grid.

Pure functions; all lengths are in millimetres.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dcmdask.geometry.planes import Floats, Integers

# Positions that are off an even grid by less than this part of its step are on it: between planes,
# interpolation is wrong by no more than this part of the difference of two neighbours.
_EVEN = 0.03
# Rounding explains no more than this part of a step: where one of four positions of a grid is
# missing, the others are off an even grid by a quarter.
_ROUNDED = 0.24
# Digits behind the point that positions are searched for. Whole millimetres are rarely rounded
# ones, and what is finer than these digits is less than the part of a step.
_DIGITS = range(1, 5)
# A position differs by less from the decimal number that it was written as.
_DECIMAL = 1e-7


class Tolerance(NamedTuple):
    """Tolerance for positions that are nearly on an even grid.

    Attributes
    ----------
    rounding : float
        The last digit that positions are written with, along the normal, in mm; 0 where they
        have none. Each may be off by half of it, and so may the ends that the grid goes through.
    given : float or None
        Tolerance in mm that was asked for, instead of all others.
    """

    rounding: float = 0.0
    given: float | None = None

    def of(self, step: float) -> float:
        """Return the tolerance in mm for a grid of this step."""
        if self.given is not None:
            return max(self.given, _DECIMAL)
        return min(max(_EVEN * step, self.rounding), _ROUNDED * step)


def missing_steps(
    positions: Floats, tolerance: Tolerance, step: float | None = None
) -> Integers | None:
    """Return how many grid steps lie between neighbours, or None where no grid fits.

    A `step` that is known is taken if its grid fits, however much of it is missing.

    The grid goes through the first and the last position. It fits if all neighbours are one step
    apart; or if most are, and no more of it is missing than is there.

    Examples
    --------
    >>> missing_steps(np.array([0, 2.5, 5, 10, 12.5]), Tolerance())
    array([1, 1, 2, 1])
    >>> missing_steps(np.array([0, 0.6, 1.2, 1.9, 2.5]), Tolerance(rounding=0.099))
    array([1, 1, 1, 1])
    """
    gaps = np.diff(positions)
    steps = np.ones(len(gaps), np.int64)
    if not len(gaps):
        return steps
    if step is not None and step > 0:
        known = np.rint(gaps / step).astype(np.int64)
        if known.min() > 0 and _is_on_grid(positions, known, tolerance):
            return known
    if _is_on_grid(positions, steps, tolerance):
        return steps
    # The smallest gap is one step; averaged over its like it is known precisely.
    step = gaps[gaps < 1.25 * gaps.min()].mean()
    steps = np.rint(gaps / step)
    whole = steps.sum()
    if 2 * (steps == 1).sum() < len(steps) or whole + 1 > 2 * len(positions):
        return None
    steps = steps.astype(np.int64)
    return steps if _is_on_grid(positions, steps, tolerance) else None


def _is_on_grid(positions: Floats, steps: Integers, tolerance: Tolerance) -> bool:
    step = (positions[-1] - positions[0]) / steps.sum()
    return bool(off_grid(positions, steps) <= tolerance.of(step))


def off_grid(positions: Floats, steps: Integers) -> float:
    """Return how far positions are off an even grid through the first and the last, in mm."""
    step = (positions[-1] - positions[0]) / steps.sum()
    even = step * np.concatenate([[0], np.cumsum(steps)])
    return float(np.abs(positions - positions[0] - even).max())


def last_digits(positions: Floats) -> Floats:
    """Return the last digit in mm that positions are written with, along each patient axis.

    0 where they are whole millimetres, or have more digits than matter.
    """
    found = np.zeros(3)
    for axis, values in enumerate(positions.T):
        if np.abs(values - np.round(values)).max() < _DECIMAL:
            continue
        for decimals in _DIGITS:
            if np.abs(values - np.round(values, decimals)).max() < _DECIMAL:
                found[axis] = 10.0**-decimals
                break
    return found
