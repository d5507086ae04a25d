"""Levels of a pyramid, each made from the one below: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def halve(
    array: npt.NDArray[Any], axes: Sequence[int], *, labels: bool = False
) -> npt.NDArray[Any]:
    """Return an array of half the length along `axes`, each value made from its neighbours.

    A value is the mean of 2 x 2 (or, of three axes, 2 x 2 x 2) values; the last of an odd
    axis, of those that there are. The mean of integers is rounded, half upwards; that of
    floating point is NaN where one value is.

    Parameters
    ----------
    array : ndarray
        Integers of at most 32 bits, or floating point.
    axes : sequence of int
    labels : bool
        Take the first of the values instead, since a mean of two labels is a third one.

    Returns
    -------
    ndarray
        Of the same type; along `axes` (n + 1) // 2 long.

    Examples
    --------
    >>> halve(np.array([[1, 2, 9], [3, 4, 10]], np.uint8), (0, 1))
    array([[ 3, 10]], dtype=uint8)
    >>> halve(np.array([[1, 2, 9], [3, 4, 10]], np.uint8), (0, 1), labels=True)
    array([[1, 9]], dtype=uint8)
    """
    if labels:
        return array[_every_second(array.ndim, axes, 0)]
    shape = [-(-n // 2) if axis in axes else n for axis, n in enumerate(array.shape)]
    halved = np.empty(shape, array.dtype)
    step = 2 if 0 in axes else 1
    # A little at a time, which stays in the processor's cache.
    for place in range(shape[0]):
        halved[place : place + 1] = _mean(array[place * step : (place + 1) * step], axes)
    return halved


def _mean(array: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
    """Return the mean of neighbours, in a type that it fits into."""
    kind = array.dtype.kind
    # Eight values, and what rounding adds, fit.
    wide = np.dtype(
        np.float64 if kind == "f" else np.int32 if array.dtype.itemsize <= 2 else np.int64
    )
    total = array
    # The first axes first, whose neighbours lie in one piece.
    for axis in sorted(axes):
        if total.shape[axis] % 2:
            # Counted twice, the last value is the mean of what is there.
            total = np.concatenate([total, np.take(total, [-1], axis)], axis)
        first, second = (total[_every_second(array.ndim, [axis], start)] for start in (0, 1))
        total = np.add(first, second, dtype=wide)
    if kind == "f":
        total /= 2 ** len(axes)
    else:
        total += 2 ** len(axes) // 2
        # Shifting rounds down, of negative values too.
        total >>= len(axes)
    return total


def _every_second(ndim: int, axes: Sequence[int], start: int) -> tuple[slice, ...]:
    return tuple(slice(start, None, 2) if axis in axes else slice(None) for axis in range(ndim))
