"""Dimensions by which frames that share a position are told apart: pure functions.

A level is a number from 0 on for each frame. Levels of several axes are joined to one number for
each combination of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.errors import Note
from dcmdask.geometry.planes import Floats, Integers

COMPONENTS = (b"MAGNITUDE", b"PHASE", b"REAL", b"IMAGINARY")
# The most specific first.
TIMES = ("temporal_position", "trigger_time", "reference_time", "acquisition_time", "content_time")
# They only order frames.
NUMBERS = {"acquisition_number": "Acquisition Number", "instance_number": "Instance Number"}
# Attributes that a user can choose, and the columns of the facts that have them.
ORDER_BY = {
    "TemporalPositionIndex": "temporal_position",
    "TemporalPositionIdentifier": "temporal_position",
    "TriggerTime": "trigger_time",
    "NominalCardiacTriggerDelayTime": "trigger_time",
    "FrameReferenceTime": "reference_time",
    "FrameReferenceDateTime": "reference_time",
    "TemporalPositionTimeOffset": "reference_time",
    "AcquisitionTime": "acquisition_time",
    "AcquisitionDateTime": "acquisition_time",
    "FrameAcquisitionDateTime": "acquisition_time",
    "ContentTime": "content_time",
    "AcquisitionNumber": "acquisition_number",
    "FrameAcquisitionNumber": "acquisition_number",
    "InstanceNumber": "instance_number",
    "DiffusionBValue": "b_value",
    "EchoTime": "echo_time",
    "EffectiveEchoTime": "echo_time",
    "EchoNumbers": "echo_number",
    "ComplexImageComponent": "component",
}
# Order of the dimensions of an array; others follow them.
ORDER = ("t", "diffusion", "echo", "component")
# Columns of time that count, and so are no moments.
_COUNTERS = ("temporal_position", "acquisition_number")
# Numbers that differ by less are the same: ms of times, s/mm2 of b-values.
_SAME = 1e-3
# Components of unit vectors that differ by less are the same.
_SAME_DIRECTION = 1e-5

# An unreadable weighting stays infinite, since one that is absent is none.
_WEIGHTINGS = ("b_value", "direction")
_COMPARED = (*TIMES, *NUMBERS, "echo_time", "echo_number", *_WEIGHTINGS, "position_index")
# A step over a missing frame takes the time of two.
_UNEVEN = 1.5
# Numbers of this size count nothing; the ms since year 0 are fewer.
ABSURD = 1e15


class Axis(NamedTuple):
    """A dimension: its name, the column of the facts that it is from, the level of each frame.

    `values`: coordinate of each frame, where it is not taken from the column itself; None
    otherwise.
    """

    name: str
    column: str
    level: Integers
    values: npt.NDArray[Any] | None = None


class Indices(NamedTuple):
    """Dimension Index Values (0020,9157): names of the dimensions, and (frames, names) values."""

    names: tuple[str, ...]
    values: npt.NDArray[np.uint32]


def check_order_by(order_by: Sequence[str]) -> None:
    """Refuse keywords that are not in `ORDER_BY`, and two of one column."""
    known: dict[str, str] = {}
    for keyword in order_by:
        if keyword not in ORDER_BY:
            raise ValueError(f"order_by takes {', '.join(sorted(ORDER_BY))}, not {keyword!r}")
        column = ORDER_BY[keyword]
        if column in known:
            raise ValueError(f"order_by has {known[column]} and {keyword}, which are one dimension")
        known[column] = keyword


def plausible(facts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the facts with NaN for numbers that are infinite or so large that none was meant.

    Diffusion weightings have infinity instead, negative b-values too.
    """
    implausible = {column: np.abs(facts[column]) >= ABSURD for column in _COMPARED}
    implausible["b_value"] |= facts["b_value"] < 0
    if not any(rows.any() for rows in implausible.values()):
        return facts
    facts = facts.copy()
    for column, rows in implausible.items():
        facts[column][rows] = np.inf if column in _WEIGHTINGS else np.nan
    return facts


def find_axes(
    facts: npt.NDArray[Any], z: Integers, indices: Indices | None = None
) -> tuple[Axis, ...] | None:
    """Return the axes besides z by which each frame has a place of its own.

    The first of these whose grid is full: the object's own dimension indices; attributes, as
    values that all positions share, the fewest without a time, then with a time and as many
    others as possible; the order of times or numbers at each position. Where that order puts
    frames of one time apart, a grid of shared values of which at most a quarter is missing
    comes before it.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`.
    z : ndarray of int64
        (n,): the position of each frame.
    indices : Indices, optional

    Returns
    -------
    tuple of Axis or None
        In the order of `ORDER`; diffusion weightings in that of their acquisition, where times
        or numbers tell it.
    """
    if indices is not None and is_full(indexed := _indexed(indices), z):
        return indexed
    fixed = _fixed_axes(facts, z)
    shared = [*_subsets(fixed)[1:], *_timed(facts, fixed, np.zeros_like(z))]
    full = (axes for axes in shared if is_full(axes, z))
    partial = (axes for axes in shared if _is_mostly_there(axes, z))
    # Times of their own may be equal by chance, numbers that count are not.
    strict = _ranked(facts, z, fixed, (*TIMES, *NUMBERS))
    found = next(chain(full, strict, partial, _ranked(facts, z, fixed, _COUNTERS)), None)
    return None if found is None else _sorted(_acquired(_weighted(found, facts), facts, z))


def chosen_axes(
    facts: npt.NDArray[Any], z: Integers, order_by: Sequence[str]
) -> tuple[Axis, ...] | None:
    """Return an axis for each keyword of `ORDER_BY`, if each frame has a place of its own by them.

    The last one may be the order of its values at each position.
    """
    columns = [ORDER_BY[keyword] for keyword in order_by]
    if not all(_is_known(facts, column) for column in columns):
        return None
    *others, last = _named_apart([_axis(facts, column) for column in columns], facts)
    for place in (np.zeros_like(z), z):
        level = ranks(last.level, joined([axis.level for axis in others], place))
        axes = _sorted((*others, last._replace(level=level)))
        if is_full(axes, z):
            return axes
    return None


def without(facts: npt.NDArray[Any], order_by: Sequence[str]) -> list[str]:
    """Return the keywords of which some frames have no value."""
    return [keyword for keyword in order_by if not _is_known(facts, ORDER_BY[keyword])]


def _named_apart(axes: Sequence[Axis], facts: npt.NDArray[Any]) -> list[Axis]:
    """Return axes of which no two have one name: of two times, the second has its column's."""
    found: dict[str, Axis] = {}
    for axis in axes:
        if axis.name in found:
            values = facts[axis.column]
            if axis.column in TIMES and axis.column not in _COUNTERS:
                # Relative, as all times are: those of the clock may say who it was.
                values = values - values.min()
            axis = axis._replace(name=axis.column, values=values)
        found[axis.name] = axis
    return list(found.values())


# Grids


def is_full(axes: Sequence[Axis], z: Integers) -> bool:
    """Return whether each place of the grid of these axes and z has exactly one frame."""
    return bool(axes) and _cells(axes, z) == len(z) and _is_apart(axes, z)


def _is_mostly_there(axes: Sequence[Axis], z: Integers) -> bool:
    """Return whether at most a quarter of a grid is missing."""
    return _cells(axes, z) * 3 <= 4 * len(z) and _is_apart(axes, z)


def _cells(axes: Sequence[Axis], z: Integers) -> float:
    return float(np.prod([level.max() + 1.0 for level in (*(axis.level for axis in axes), z)]))


def _is_apart(axes: Sequence[Axis], z: Integers) -> bool:
    levels = [axis.level for axis in axes]
    return all(level.any() for level in levels) and is_told(levels, z)


def is_told(levels: Sequence[Integers], z: Integers) -> bool:
    """Return whether no two frames of one position have the same levels."""
    return bool(joined(levels, z).max() + 1 == len(z))


def joined(levels: Iterable[Integers], place: Integers) -> Integers:
    """Return one number for each combination of a place and levels, sorted in this order."""
    for level in levels:
        place = distinct(place * (level.max() + 1) + level, 0.5)
    return place


def distinct(values: npt.NDArray[Any], same: float = _SAME) -> Integers:
    """Return the rank of each value among the distinct ones, tiny differences left out.

    Examples
    --------
    >>> distinct(np.array([40.0, 0.0, 40.0000001]))
    array([1, 0, 1])
    """
    order = np.argsort(values, kind="stable")
    level = np.empty(len(values), np.int64)
    level[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > same)])
    return level


def ranks(values: npt.NDArray[Any], place: Integers) -> Integers:
    """Return the rank of each value among the distinct ones of its place.

    Examples
    --------
    >>> ranks(np.array([10.0, 20.0, 15.0, 35.0]), np.array([0, 0, 1, 1]))
    array([0, 1, 0, 1])
    """
    both = joined([distinct(values)], place)
    first = np.full(place.max() + 1, len(place))
    np.minimum.at(first, place, both)
    ranked: Integers = both - first[place]
    return ranked


def determines(level: Integers, other: Integers) -> bool:
    """Return whether frames on one level are on one of the other, too."""
    return bool(joined([other], level).max() == level.max())


def _subsets(axes: Sequence[Axis]) -> list[tuple[Axis, ...]]:
    """Return all combinations of axes, the smallest first."""
    return [one for size in range(len(axes) + 1) for one in combinations(axes, size)]


def _sorted(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    known = dict(zip(ORDER, range(len(ORDER)), strict=True))
    return tuple(sorted(axes, key=lambda axis: known.get(axis.name, len(ORDER))))


# Values of headers


def _indexed(indices: Indices, left_out: Sequence[str] = ("stack", "z")) -> tuple[Axis, ...]:
    """Return an axis for each dimension of an object that varies, but for those of positions."""
    axes: dict[str, Axis] = {}
    for name, values in zip(indices.names, indices.values.T, strict=True):
        level = distinct(values.astype(np.int64), 0.5)
        if name in left_out or not level.any():
            continue
        if name in axes:
            # Two attributes of one dimension, such as b-value and direction.
            level, values = joined([level], axes[name].level), None
        axes[name] = Axis(name, "", level, values=None if name in ORDER else values)
    return _sorted(axes.values())


def indexed_axes(indices: Indices) -> tuple[Axis, ...]:
    """Return an axis for each dimension of frames without positions that varies, z the last.

    Nothing where their grid is not full.
    """
    found = sorted(_indexed(indices, ("stack",)), key=lambda axis: axis.name == "z")
    return tuple(found) if is_full(found, np.zeros(len(indices.values), np.int64)) else ()


def _axis(facts: npt.NDArray[Any], column: str) -> Axis:
    """Return the axis of a column by its values."""
    if column == "b_value":
        return Axis("diffusion", column, _weightings(facts))
    if column == "component":
        return Axis(column, column, _components(facts[column]))
    name = "echo" if column in ("echo_time", "echo_number") else "t"
    return Axis(name, column, distinct(facts[column]))


def _fixed_axes(facts: npt.NDArray[Any], z: Integers) -> list[Axis]:
    """Return the axes other than time on which frames of one position differ."""
    columns = ("b_value", "echo_time", "echo_number", "component")
    found: dict[str, Axis] = {}
    for axis in (_axis(facts, column) for column in columns if _is_known(facts, column)):
        if not determines(z, axis.level):
            found.setdefault(axis.name, axis)
    return list(found.values())


def _is_known(facts: npt.NDArray[Any], column: str) -> bool:
    """Return whether all frames have a value; none of a weighting or component is one, too."""
    return column in ("b_value", "component") or bool(np.isfinite(facts[column]).all())


def _weightings(facts: npt.NDArray[Any]) -> Integers:
    """Number the diffusion weightings; the direction of an unweighted frame says nothing."""
    b = np.nan_to_num(facts["b_value"], nan=-1.0)
    direction = np.where((b > 0)[:, np.newaxis], np.nan_to_num(facts["direction"]), 0.0)
    return joined([distinct(axis, _SAME_DIRECTION) for axis in direction.T], distinct(b))


def _components(words: npt.NDArray[np.bytes_]) -> Integers:
    found, which = np.unique(words, return_inverse=True)
    known = [*COMPONENTS, *(word for word in found.tolist() if word not in COMPONENTS)]
    return distinct(np.array([known.index(word) for word in found.tolist()])[which.reshape(-1)])


# Time


def _timed(
    facts: npt.NDArray[Any], fixed: Sequence[Axis], place: Integers
) -> Iterator[tuple[Axis, ...]]:
    """Yield a time with each combination of other axes, as many as possible first.

    The time is the rank of a column among frames of one place and the same other levels, since
    the frames of two echoes, say, may have times of their own.
    """
    for columns in (TIMES, tuple(NUMBERS)):
        for others in reversed(_subsets(fixed)):
            here = joined([axis.level for axis in others], place)
            for column in columns:
                if _is_known(facts, column):
                    yield (Axis("t", column, ranks(facts[column], here)), *others)


def _ranked(
    facts: npt.NDArray[Any], z: Integers, fixed: Sequence[Axis], columns: Sequence[str]
) -> Iterator[tuple[Axis, ...]]:
    """Yield axes with the order of times or numbers at each position.

    No such order puts frames apart that have the same value of one of `columns`, where that
    tells frames of one position apart. None is of an index, which has values in common.
    """
    for axes in _timed(facts, fixed, z):
        time, *others = axes
        if time.column == "temporal_position" or not is_full(axes, z):
            continue
        place = joined([axis.level for axis in others], z)
        shared = (distinct(facts[one]) for one in columns if _is_known(facts, one))
        if all(determines(level, time.level) for level in shared if is_told([level], place)):
            yield axes


def _weighted(axes: tuple[Axis, ...], facts: npt.NDArray[Any]) -> tuple[Axis, ...]:
    """Return axes where a time that is a series of diffusion weightings is that.

    As where some are repeated, most often those of b = 0.
    """
    weighting = _axis(facts, "b_value")
    if "diffusion" in [axis.name for axis in axes] or not weighting.level.any():
        return axes
    return tuple(
        axis._replace(name="diffusion", level=joined([axis.level], weighting.level))
        if axis.name == "t" and determines(axis.level, weighting.level)
        else axis
        for axis in axes
    )


def _acquired(axes: tuple[Axis, ...], facts: npt.NDArray[Any], z: Integers) -> tuple[Axis, ...]:
    """Return axes with diffusion weightings in the order in which each position has them."""
    return tuple(
        _reordered(axis, [one.level for one in axes if one is not axis], facts, z)
        if axis.name == "diffusion"
        else axis
        for axis in axes
    )


def _reordered(
    axis: Axis, others: Iterable[Integers], facts: npt.NDArray[Any], z: Integers
) -> Axis:
    here = joined(others, z)
    for column in (*TIMES, *NUMBERS):
        if _is_known(facts, column):
            rank = ranks(facts[column], here)
            if determines(axis.level, rank) and determines(rank, axis.level):
                return axis._replace(level=rank)
    return axis


def notes_on(axes: Sequence[Axis], facts: npt.NDArray[Any], z: Integers) -> tuple[Note, ...]:
    """Notes on an order of axes that is less than certain."""
    found = []
    for axis in axes:
        others = joined((one.level for one in axes if one is not axis), np.zeros_like(z))
        if axis.column in NUMBERS and not _times_tell(facts, z):
            text = (
                f"frames share positions, and only {NUMBERS[axis.column]} tells them apart: it "
                f"orders {axis.name}"
            )
            found.append(Note("number-order", text))
        elif axis.name == "t" and axis.column in TIMES:
            times = facts[axis.column]
            same = joined([distinct(times)], others)
            if not _is_even(times, axis.level, z) or not determines(same, axis.level):
                text = (
                    "frames share positions, and the times of one position do not go with those "
                    "of another, as where frames are missing: t is their order at each"
                )
                found.append(Note("time-order", text))
    return tuple(found)


def _times_tell(facts: npt.NDArray[Any], z: Integers) -> bool:
    """Return whether some frames of one position have different times."""
    known = (column for column in TIMES if _is_known(facts, column))
    return any(not determines(z, distinct(facts[column])) for column in known)


def _is_even(times: Floats, level: Integers, z: Integers) -> bool:
    """Return whether the step from each level to the next is about the same at all positions."""
    first = np.full((level.max() + 1, z.max() + 1), np.inf)
    np.minimum.at(first, (level, z), times)
    if not np.isfinite(first).all():
        # A grid with holes is of values that positions share.
        return True
    steps = np.diff(first, axis=0)
    return bool((steps.max(axis=1) <= _UNEVEN * steps.min(axis=1)).all())
