"""Distribution of one result over the series, for a plot: pure functions."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Approximate number of bins, and maximum number of strings.
_BINS = 24
_TEXTS = 10
# Larger numbers are not drawn: their differences may overflow.
_LARGEST = 1e300
# Numbers are drawn as one if they differ by less than this, relative to the largest,
_EQUAL = 1e-7
# or by less than this.
_LEAST = 1e-290


class Bar(NamedTuple):
    """A bin of numbers, a string or a boolean.

    Attributes
    ----------
    label : str
    number : int
        Number of values.
    """

    label: str
    number: int


class Distribution(NamedTuple):
    """Distribution of the values of one result.

    Attributes
    ----------
    bars : tuple of Bar
        Adjoining bins, from the smallest number to the largest; or strings and booleans, the most
        frequent first.
    numeric : bool
        Whether the bars are bins of numbers.
    low, median, high : float
        Minimum, median and maximum of the numbers; 0 where there are none.
    first, last : float
        Begin of the first bin and end of the last one, or the last whole number in it; 0 where
        there are none.
    absent : int
        Number of values that are None, NaN or infinite.
    left_out : int
        Number of others outside `bars`: strings among numbers, numbers beyond 1e300, outliers,
        rare strings.
    """

    bars: tuple[Bar, ...]
    numeric: bool
    low: float
    median: float
    high: float
    first: float
    last: float
    absent: int
    left_out: int

    @property
    def drawn(self) -> int:
        """Number of values in `bars`."""
        return sum(bar.number for bar in self.bars)


def distribution(values: Sequence[Any]) -> Distribution:
    """Count values: numbers by bins if there are any, otherwise strings and booleans.

    Outliers, which would squeeze all others into one bin, are not drawn: numbers that are farther
    from the middle half than three times its range (J. W. Tukey's "far out").

    Examples
    --------
    >>> [tuple(bar) for bar in distribution([1, 2, 2, None, 4]).bars]
    [('1', 1), ('2', 2), ('3', 0), ('4', 1)]
    >>> [tuple(bar) for bar in distribution([True, "a", True]).bars]
    [('true', 2), ('a', 1)]
    """
    present = [value for value in values if not _is_absent(value)]
    absent = len(values) - len(present)
    numbers = [float(value) for value in present if _is_number(value)]
    if numbers:
        whole = all(isinstance(value, int) for value in present if _is_number(value))
        drawn = _without_outliers(numbers)
        edges = _edges(min(drawn), max(drawn), whole)
        counts, _ = np.histogram(drawn, edges)
        bars = tuple(
            Bar(_label(low, high, whole), int(count))
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        )
        return Distribution(
            bars,
            True,
            min(numbers),
            statistics.median(numbers),
            max(numbers),
            float(edges[0]),
            float(edges[-1] - 1 if whole and len(bars) > 1 else edges[-1]),
            absent,
            len(present) - len(drawn),
        )
    texts = Counter(_text(value) for value in present if isinstance(value, bool | str))
    bars = tuple(Bar(*one) for one in texts.most_common(_TEXTS))
    rest = len(present) - sum(bar.number for bar in bars)
    return Distribution(bars, False, 0.0, 0.0, 0.0, 0.0, 0.0, absent, rest)


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and -_LARGEST <= value <= _LARGEST


def _text(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _without_outliers(numbers: list[float]) -> list[float]:
    first, third = np.percentile(numbers, (25, 75))
    reach = 3 * (third - first)
    within = [one for one in numbers if first - reach <= one <= third + reach]
    # If the middle half is one value, all others would be outliers.
    return within if reach else numbers


def _edges(low: float, high: float, whole: bool) -> list[float]:
    """Return edges of bins, multiples of 1, 2 or 5 times a power of ten, around all numbers."""
    if _are_equal(low, high):
        return [low, math.nextafter(high, math.inf)]
    step = _step((high - low) / _BINS)
    if whole:
        step = max(1.0, step)
    numbers = range(math.floor(low / step), math.floor(high / step) + 2)
    edges = [number * step for number in numbers]
    # Products are rounded, and a quotient may be as good as 0.
    if len(edges) > 2 and edges[-2] > high:
        edges.pop()
    return [min(edges[0], low), *edges[1:-1], max(edges[-1], high)]


def _are_equal(low: float, high: float) -> bool:
    return high - low <= max(_LEAST, _EQUAL * max(abs(low), abs(high)))


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _label(low: float, high: float, whole: bool) -> str:
    if _are_equal(low, high) or (whole and high - low <= 1):
        return f"{low:.10g}"
    # A bin of whole numbers ends before its edge.
    return f"{low:.10g} to {high - 1 if whole else high:.10g}"
