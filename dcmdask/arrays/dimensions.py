"""Which frame of a stack stands for which time, echo, diffusion weighting and position.

Pure functions over a table of facts. Positions decide about ``z``. Where several frames
share a position, the smallest set of dimensions is taken by which each frame has a place
of its own in a full grid; what a header only repeats in other words becomes a coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.coordinates import MILLISECONDS, Coordinates, labels, told
from dcmdask.arrays.geometry import Floats, Geometry, Integers, Irregularity, is_placed, locate
from dcmdask.arrays.levels import (
    NUMBERS,
    TIMES,
    Axis,
    denied,
    determines,
    fixed_axes,
    joined,
    midnight_notes,
    numbered,
    order_axis,
    plausible,
    time_axes,
)
from dcmdask.arrays.matching import Contradiction


@dataclass(frozen=True)
class Arrangement:
    """Where each frame of a stack belongs.

    Attributes
    ----------
    dims : tuple of str
        Some of ``"t"``, ``"diffusion"``, ``"echo"``, ``"component"``, then ``"z"``; or
        ``("frame",)`` where frames have no position.
    numbers : ndarray of int64
        Rows of the facts, of the lengths of `dims`; -1 where there is no frame.
    coordinates : dict
        Name to (dims, values). ``z`` in mm from the first position, times in ms from the
        earliest frame, ``echo`` in ms, ``b_value`` in s/mm2; ``missing`` where some are.
    geometry : Geometry or None
        None for ``("frame",)``.
    irregularities : tuple of Irregularity
        Those of the geometry and of the dimensions; empty where all is regular.
    notes : tuple of str
        What the order rests on, where that is less than certain.
    """

    dims: tuple[str, ...]
    numbers: Integers
    coordinates: Coordinates
    geometry: Geometry | None
    irregularities: tuple[Irregularity, ...] = ()
    notes: tuple[str, ...] = ()


def arrange(facts: npt.NDArray[Any], stored: Integers | None = None) -> Arrangement:
    """Order the frames of one stack.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.frames.facts.FACTS`, of one shape, type and orientation.
    stored : ndarray of int, optional
        (n,): the number of each frame in its instance, which breaks ties.

    Returns
    -------
    Arrangement
        It does not depend on the order of the rows.
    """
    stored = np.zeros(len(facts), np.int64) if stored is None else stored
    midnight = midnight_notes(facts)
    facts = plausible(facts)
    placed = is_placed(facts)
    if not placed.all():
        return _in_number_order(facts, stored, placed)
    geometry, z = locate(facts)
    notes = _contradictions(facts, z)
    if np.bincount(z).max() == 1:
        numbers = np.argsort(z)
        coordinates, _ = labels(facts, ("z",), numbers, geometry, ())
        found = geometry.irregularities
        return Arrangement(("z",), numbers, coordinates, geometry, found, notes)
    axes = _explanation(facts, z)
    if axes is None:
        return _repeated(facts, stored, z, geometry, notes)
    notes += midnight
    unsure = next((axis for axis in axes if axis.unsure), None)
    if unsure is not None:
        unsettled = _unsettled(z, geometry, unsure)
        return _side_by_side(facts, stored, z, geometry, unsettled, notes)
    dims = (*(axis.name for axis in axes), "z")
    numbers = _grid(axes, z)
    irregularities = (*geometry.irregularities, *_holes(numbers, dims, geometry))
    coordinates, more = labels(facts, dims, numbers, geometry, axes)
    return Arrangement(dims, numbers, coordinates, geometry, irregularities, notes + more)


# The order of frames that have no position


def _in_number_order(
    facts: npt.NDArray[Any], stored: Integers, placed: npt.NDArray[np.bool_]
) -> Arrangement:
    order = _settled(facts, stored)
    irregularities: tuple[Irregularity, ...] = ()
    if placed.any():
        rows = np.flatnonzero(~placed)
        message = f"{len(rows)} of {len(facts)} frames have no position or orientation"
        irregularities = (Irregularity("position", message, tuple(rows.tolist())),)
    coordinates = told(facts, ("frame",), order)
    notes = _order_notes(facts["instance_number"][order], stored[order])
    return Arrangement(("frame",), order, coordinates, None, irregularities, notes)


def _order_notes(number: Floats, frame: Integers) -> tuple[str, ...]:
    """Say what the order of frames rests on, by instance and their number in it."""
    if len(np.unique(frame)) == len(frame) and not number[0] < number[-1]:
        # All are of one instance, and in the order in which it stores them.
        return ()
    if np.isnan(number).any() or ((np.diff(number) == 0) & (np.diff(frame) == 0)).any():
        return (
            "frames have no position, and Instance Number (0020,0013) is absent or the same "
            "for some: their order is arbitrary",
        )
    return ("frames have no position: they are in the order of Instance Number (0020,0013)",)


def _settled(facts: npt.NDArray[Any], stored: Integers) -> Integers:
    """Return the rows by Instance Number; ties by acquisition, then by all that they say."""
    instance, acquisition = facts["instance_number"], facts["acquisition_number"]
    keys = (instance, acquisition, stored, facts["acquisition_time"])
    order = np.lexsort(keys[::-1])
    same = np.full(len(facts) - 1, True)
    for key in keys:
        before, after = key[order][:-1], key[order][1:]
        same &= (before == after) | (np.isnan(before) & np.isnan(after))
    if not same.any():
        return order
    run = np.concatenate([[0], np.cumsum(~same)])
    content = facts[order].view(f"S{facts.dtype.itemsize}")
    return order[np.lexsort((content, run))]


# Which dimensions explain that frames share positions


def _explanation(facts: npt.NDArray[Any], z: Integers) -> tuple[Axis, ...] | None:
    """Return the dimensions by which each frame has a place of its own in a grid.

    Without time, as few as possible.
    """
    fixed = fixed_axes(facts, z)
    found = _grid_of(_sets(fixed)[1:], z)
    if found is not None:
        return found
    unsure = contradicted = None
    for axes in chain(_repeated_weightings(facts, z, fixed), _timed(facts, z, fixed)):
        time = axes[0]
        if time.contradiction is not None:
            contradicted = contradicted or axes
        elif time.unsure:
            unsure = unsure or axes
        # Another order does not settle what the times contradict.
        elif (time.holes or contradicted is None) and (unsure is None or len(axes) >= len(unsure)):
            return axes
    return contradicted or unsure


def _sets(axes: Sequence[Axis]) -> list[tuple[Axis, ...]]:
    """Return all combinations of axes, the smallest first."""
    return [one for size in range(len(axes) + 1) for one in combinations(axes, size)]


def _grid_of(sets: Iterable[tuple[Axis, ...]], z: Integers) -> tuple[Axis, ...] | None:
    """Return the first set whose grid is full, otherwise the first with few holes."""
    nearly = None
    for axes in sets:
        cells = _cells(axes, z)
        if cells == len(z):
            return axes
        if cells is not None and nearly is None:
            nearly = axes
    return nearly


def _timed(
    facts: npt.NDArray[Any], z: Integers, fixed: Sequence[Axis]
) -> Iterator[tuple[Axis, ...]]:
    """Yield sets of axes with a time, the likeliest first.

    With as many others as possible, since the frames of two echoes, say, may have times of
    their own. Numbers that only count, last.
    """
    places = [(others, joined([axis.level for axis in others], z)) for others in _sets(fixed)]
    for columns, axes_of in product((TIMES, tuple(NUMBERS)), (time_axes, order_axis)):
        for (others, place), column in product(reversed(places), columns):
            times = axes_of(column, facts[column], place)
            found = _grid_of(((time, *others) for time in times), z)
            if found is None:
                continue
            time, *rest = _by_numbers(facts, found, place, z)
            if not denied(time, facts["acquisition_number"], place):
                yield (time, *rest)


def _by_numbers(
    facts: npt.NDArray[Any], axes: tuple[Axis, ...], place: Integers, z: Integers
) -> tuple[Axis, ...]:
    """Let numbers decide which frames are of one time, where each position has its own times."""
    time, *others = axes
    if time.own:
        by_position = joined([z], joined([axis.level for axis in others], np.zeros_like(z)))
        for axis in numbered(time, facts, place, by_position):
            if _cells((axis, *others), z) is not None:
                return (axis, *others)
    return axes


def _repeated_weightings(
    facts: npt.NDArray[Any], z: Integers, fixed: Sequence[Axis]
) -> Iterator[tuple[Axis, ...]]:
    """Yield sets of axes where time is a series of diffusion weightings, some of them repeated."""
    weighting = next((axis for axis in fixed if axis.name == "diffusion"), None)
    if weighting is None:
        return
    for time, *others in _timed(facts, z, [axis for axis in fixed if axis is not weighting]):
        if determines(time.level, weighting.level):
            noted = time.noted.replace("orders t", "orders what is repeated")
            level = joined([time.level], weighting.level)
            yield (time._replace(name="diffusion", level=level, noted=noted), *others)


def _cells(axes: Sequence[Axis], z: Integers) -> int | None:
    """Return how many cells a grid has; None where two frames share one, or few are taken."""
    lengths = [int(axis.level.max()) + 1 for axis in axes]
    cells = int(np.prod([float(length) for length in (*lengths, z.max() + 1)]))
    # Only a time, which is the first, may have other limits.
    if 1 in lengths or cells - len(z) > axes[0].holes * cells:
        return None
    return cells if joined([axis.level for axis in axes], z).max() + 1 == len(z) else None


def _grid(axes: Sequence[Axis], z: Integers) -> Integers:
    levels = [axis.level for axis in axes]
    lengths = [int(level.max()) + 1 for level in (*levels, z)]
    numbers = np.full(lengths, -1, np.int64)
    numbers[(*levels, z)] = np.arange(len(z))
    return numbers


# What is not regular about it


def _holes(numbers: Integers, dims: tuple[str, ...], geometry: Geometry) -> list[Irregularity]:
    holes = np.argwhere(numbers < 0)
    if not len(holes):
        return []
    listed = [
        ", ".join(f"{dim} {place}" for dim, place in zip(dims[:-1], hole[:-1], strict=True))
        + f" at {geometry.positions[hole[-1]]:.4g} mm"
        for hole in holes[:3]
    ]
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    message = f"{len(holes)} of {numbers.size} frames are missing: {'; '.join(listed)}{more}"
    return [Irregularity("missing", message, _beside(numbers))]


def _beside(numbers: Integers) -> tuple[int, ...]:
    """Return for each hole the frame before it along z, or the next where there is none."""
    along = numbers.reshape(-1, numbers.shape[-1])
    here = np.where(along >= 0, np.arange(along.shape[1]), -1)
    before = np.maximum.accumulate(here, axis=1)
    # Of an empty line along z there is none at all, and -1 remains.
    nearest = np.where(before >= 0, before, np.argmax(along >= 0, axis=1)[:, np.newaxis])
    beside = np.take_along_axis(along, nearest, axis=1)[along < 0]
    return tuple(dict.fromkeys(beside[beside >= 0].tolist()))


def _unsettled(z: Integers, geometry: Geometry, axis: Axis) -> Irregularity:
    """Frames are missing, and it is not known which."""
    unsure = axis.unsure
    if axis.contradiction is not None:
        message = _contradicting(z, geometry, axis.contradiction, axis.column)
        return Irregularity("uneven", message, unsure)
    at = _listed(geometry, np.unique(z[list(unsure)]))
    message = (
        f"frames are missing, and t of the {len(unsure)} that are there is not known at {at} mm "
        "from the first: neither times nor numbers tell whether the first or the last are missing"
    )
    return Irregularity("missing", message, unsure)


def _contradicting(z: Integers, geometry: Geometry, found: Contradiction, column: str) -> str:
    unit = " ms" if column in MILLISECONDS else ""
    one, other = (f"{at:.4g} mm" for at in geometry.positions[z[list(found.rows)]])
    first, second = ([f"{step:.1f}{unit}" for step in steps] for steps in found.steps)
    return (
        "times are uneven, as where each position lacks another frame, and t is not known: "
        f"frame {found.ranks[0]} comes {first[0]} after the one before at {one} from the first, "
        f"{first[1]} at {other}, but frame {found.ranks[1]} {second[0]} at {one}, {second[1]} at "
        f"{other}"
    )


def _repeated(
    facts: npt.NDArray[Any],
    stored: Integers,
    z: Integers,
    geometry: Geometry,
    notes: tuple[str, ...],
) -> Arrangement:
    """Frames that share a position for no reason that the headers give."""
    counts = np.bincount(z)
    rows = np.flatnonzero(counts[z] > 1)
    places = np.flatnonzero(counts > 1)
    shared = f"{len(places)} positions" if len(places) > 1 else "a position"
    message = (
        f"{len(rows)} frames share {shared}, at {_listed(geometry, places)} mm from the first, "
        "and no grid of times, echoes, diffusion weightings or components has a place for each"
    )
    found = Irregularity("duplicate", message, tuple(rows.tolist()))
    return _side_by_side(facts, stored, z, geometry, found, notes)


def _listed(geometry: Geometry, places: Integers) -> str:
    more = f" and {len(places) - 8} more" if len(places) > 8 else ""
    return ", ".join(f"{geometry.positions[place]:.4g}" for place in places[:8]) + more


def _side_by_side(
    facts: npt.NDArray[Any],
    stored: Integers,
    z: Integers,
    geometry: Geometry,
    irregularity: Irregularity,
    notes: tuple[str, ...],
) -> Arrangement:
    """Frames in the order of positions, however many each has."""
    settled = _settled(facts, stored)
    order = settled[np.argsort(z[settled], kind="stable")]
    found = (*geometry.irregularities, irregularity)
    geometry = replace(geometry, affine=None, irregularities=found)
    coordinates = told(facts, ("z",), order)
    coordinates["z"] = (("z",), geometry.positions[z[order]])
    return Arrangement(("z",), order, coordinates, geometry, found, notes)


def _contradictions(facts: npt.NDArray[Any], z: Integers) -> tuple[str, ...]:
    """Say where numbers that should follow the positions do not."""
    index = facts["position_index"]
    known = np.isfinite(index)
    if not known.any():
        return ()
    order = np.lexsort((index[known], z[known]))
    steps = np.diff(index[known][order])
    between = np.diff(z[known][order]) > 0
    up, down = (steps[between] > 0).all(), (steps[between] < 0).all()
    if (up or down) and (steps[~between] == 0).all():
        return ()
    return (
        "In-Stack Position Number (0020,9057) or its dimension index contradicts Image Position "
        "(0020,0032): the positions decide",
    )
