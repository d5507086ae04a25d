"""Planes of frames: which lie and measure alike, and which lie in one another's way.

Pure functions over positions, orientations and pixel spacings. All lengths are in millimetres.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float64]"
Integers: TypeAlias = "npt.NDArray[np.int64]"

# Part of a pixel by which the last corner of two images may differ that are alike.
_CORNER = 0.25
# Two positions closer than this are one, unless the pixels themselves are nearly as small.
_SAME = 0.01
_SAME_OF_A_PIXEL = 0.05
# Headers are not more precise; nor do they tell more where pixels have no spacing.
_PRECISE, _WITHOUT_PIXELS = 1e-5, 1e-3
# A unit vector that is at right angles to hardly any difference of two fields of view.
_LINE = np.sqrt(np.array([2, 3, 5, 7, 11, 13]) / 41)
# Direction cosines along the axes themselves.
_AXES = np.array([1.0, 0, 0, 0, 1, 0])
# No patient is larger, and no table longer.
FAR = 1e6
# With a smaller area between them direction cosines span no plane.
_A_PLANE = 0.1


def alike(facts: npt.NDArray[Any], rows: int, columns: int) -> list[Integers]:
    """Return the numbers of the frames of each orientation, pixel spacing and Stack ID.

    Of the same orientation and spacing are frames whose fields of view, laid on one another at
    the first corner, differ by less than a quarter of a pixel at the others. Spacings do not
    count without an orientation, as nothing is placed by them.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`.
    rows, columns : int
        Of each frame.
    """
    orientation, spacing = facts["orientation"], facts["spacing"]
    # Also false for NaN.
    turned = (np.abs(orientation) < FAR).all(1)
    measured = _is_measured(spacing) & turned
    # In pixels where these have no size.
    spacing = np.where(measured[:, np.newaxis], spacing, 1.0)
    edges = _edges(np.where(turned[:, np.newaxis], orientation, 0.0), spacing, rows, columns)
    stack = np.unique(facts["stack_id"], return_inverse=True)[1].reshape(-1)
    known = np.column_stack([stack, turned, measured])
    return [
        numbers[part]
        for numbers in grouped(np.unique(known, axis=0, return_inverse=True)[1].reshape(-1))
        for part in _of_equal_edges(edges[numbers], spacing[numbers].min(axis=1))
    ]


def common_spacing(facts: npt.NDArray[Any], rows: int, columns: int) -> Floats:
    """Return the distances between rows and columns that all frames have; otherwise NaN.

    Spacings are the same by the rule of :func:`alike`.
    """
    spacing = facts["spacing"]
    if _is_measured(spacing).all():
        edges = _edges(np.tile(_AXES, (len(spacing), 1)), spacing, rows, columns)
        if len(_of_equal_edges(edges, spacing.min(axis=1))) == 1:
            return most_common(spacing)
    return np.full(2, np.nan)


def _is_measured(spacing: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(((spacing > 0) & (spacing < FAR)).all(axis=1))


def _edges(orientation: Floats, spacing: Floats, rows: int, columns: int) -> Floats:
    """Return the edges of fields of view along a row and along a column, (n, 6)."""
    across, down = columns * spacing[:, 1:], rows * spacing[:, :1]
    return np.hstack([orientation[:, :3] * across, orientation[:, 3:] * down])


def _of_equal_edges(edges: Floats, pixel: Floats) -> list[Integers]:
    """Group fields of view by their edges along a row and along a column, (n, 6)."""
    if (edges == edges[0]).all():
        return [np.arange(len(edges))]
    distinct, first, which, counts = np.unique(
        edges, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    # The most common one is in the middle of its group, otherwise the one nearest to all.
    off = np.abs(distinct - np.median(distinct, axis=0)).sum(axis=1)
    # Only those are compared that are near one another along this line, as all are that are alike.
    along = distinct @ _LINE
    order = np.argsort(along)
    ascending = along[order]
    group = np.full(len(distinct), -1)
    for middle in np.lexsort((off, -counts)).tolist():
        if group[middle] >= 0:
            continue
        # Two of a group are at most half a pixel apart, so that each pixel is nearest to its own.
        same = _CORNER * pixel[first[middle]]
        # Each of both edges may be off by `same`.
        ends = along[middle] + np.array([-2, 2]) * same
        near = order[slice(*np.searchsorted(ascending, ends))]
        near = near[group[near] < 0]
        apart = distinct[near] - distinct[middle]
        across, down = apart[:, :3], apart[:, 3:]
        corners = [np.linalg.norm(one, axis=1) for one in (across, down, across + down)]
        group[near[np.max(corners, axis=0) <= same]] = middle
    return grouped(group[which.reshape(-1)])


def are_in_the_way(facts: npt.NDArray[Any], group: Integers) -> bool:
    """Return whether positions of a group of several planes repeat or interleave those of another.

    Parameters
    ----------
    facts : ndarray
        (n,) of one orientation.
    group : ndarray of int64
        (n,): number of the group of each frame.
    """
    along, group, same = _along(facts, group)
    if not len(along):
        return False
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    low, high = (f.reduceat(along[order], starts) for f in (np.minimum, np.maximum))
    volumes = high - low > same
    first = np.argsort(low[volumes])
    low, high = low[volumes][first], high[volumes][first]
    # One that begins before any earlier one ends.
    return bool((low[1:] <= np.maximum.accumulate(high)[:-1] + same).any())


def share_positions(facts: npt.NDArray[Any], group: Integers) -> bool:
    """Return whether frames of several groups are at one position.

    Parameters
    ----------
    facts : ndarray
        (n,) of one orientation.
    group : ndarray of int64
        (n,): number of the group of each frame.
    """
    along, group, same = _along(facts, group)
    if not len(along):
        return False
    z = clusters(along, same)
    return bool(len(np.unique(np.column_stack([z, group]), axis=0)) > z.max() + 1)


def _along(facts: npt.NDArray[Any], group: Integers) -> tuple[Floats, Integers, float]:
    """Return distances along the normal, and the groups, of frames that have a position.

    Also how close two distances have to be to be one.
    """
    placed = is_placed(facts)
    facts, group = facts[placed], group[placed]
    if not len(facts):
        return np.empty(0), group, 0.0
    along = facts["position"] @ normal_of(most_common(facts["orientation"]))
    return along, group, same_within(most_common(facts["spacing"]))


def grouped(group: Integers) -> list[Integers]:
    """Return the indices of each group, by the numbers of the groups.

    Examples
    --------
    >>> grouped(np.array([7, 3, 7]))
    [array([1]), array([0, 2])]
    """
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def normal_of(orientation: Floats) -> Floats:
    """Return the unit vector perpendicular to rows and columns with these direction cosines."""
    normal = _perpendicular(orientation)
    return np.asarray(normal / np.linalg.norm(normal))


def _perpendicular(orientation: Floats) -> Floats:
    """Return the cross product of rows and columns, (..., 6); that of NumPy takes twice as long."""
    forth = orientation[..., [1, 2, 0]] * orientation[..., [5, 3, 4]]
    return np.asarray(forth - orientation[..., [2, 0, 1]] * orientation[..., [4, 5, 3]])


def is_placed(facts: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which frames have a position, and an orientation that spans a plane."""
    # Also false for NaN.
    there = (np.abs(facts["position"]) < FAR).all(1)
    return np.asarray(there & spans_plane(facts["orientation"]))


def spans_plane(orientation: Floats) -> npt.NDArray[np.bool_]:
    """Return which direction cosines of rows and columns, (n, 6), span a plane."""
    valid = np.asarray((np.abs(orientation) < FAR).all(1))
    normal = _perpendicular(np.where(valid[:, np.newaxis], orientation, 0.0))
    spans: npt.NDArray[np.bool_] = np.linalg.norm(normal, axis=1) > _A_PLANE
    return spans


def is_out_of_reach(values: Floats) -> npt.NDArray[np.bool_]:
    """Return which rows have a number that could not be read, or that no patient can have."""
    return np.asarray((np.abs(values) >= FAR).any(axis=-1))


def most_common(values: Floats) -> Floats:
    """Return the row that is there most often; of several, the one nearest to the median."""
    if (values == values[0]).all():
        # Adding makes 0 of -0.
        return np.asarray(values[0] + 0.0)
    distinct, counts = np.unique(values, axis=0, return_counts=True)
    distinct = distinct[counts == counts.max()]
    off = np.abs(distinct - np.median(values, axis=0)).sum(axis=1)
    return np.asarray(distinct[np.argmin(off)] + 0.0)


def same_within(spacing: Floats) -> float:
    """Return how close two positions have to be to be one, by the spacing of pixels."""
    smallest = spacing.min()
    if not smallest > 0:
        return _WITHOUT_PIXELS
    return float(np.clip(_SAME_OF_A_PIXEL * smallest, _PRECISE, _SAME))


def clusters(values: Floats, same: float) -> Integers:
    """Return for each value the rank of its cluster, values up to `same` apart being one.

    Where values creep on by less than that, only those that are hardly different are one.

    Examples
    --------
    >>> clusters(np.array([5.0, 0.0, 5.001, 2.5]), 0.01)
    array([2, 0, 2, 1])
    >>> clusters(np.array([0, 0.006, 0.012, 0.018]), 0.01)
    array([0, 1, 2, 3])
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    rank = np.concatenate([[0], np.cumsum(np.diff(ascending) > same)])
    starts = np.flatnonzero(np.diff(rank, prepend=-1))
    if (ascending - ascending[starts][rank]).max() > same:
        rank = np.concatenate([[0], np.cumsum(np.diff(ascending) > min(same, _PRECISE))])
    result = np.empty(len(values), np.int64)
    result[order] = rank
    return result
