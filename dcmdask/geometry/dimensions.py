"""Dimensions, order and coordinates of the frames of a stack.

Pure functions over a table of facts. Positions decide about ``z``; `dcmdask.geometry.axes` about
the dimensions by which frames that share a position are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.frame_facts import DAY, TAGS
from dcmdask.dicom.image_pixel import called
from dcmdask.errors import Note
from dcmdask.geometry.axes import (
    NUMBERS,
    Axis,
    Indices,
    chosen_axes,
    find_axes,
    indexed_axes,
    notes_on,
    plausible,
    without,
)
from dcmdask.geometry.coordinates import Coordinates, labels, time_notes, varying_coordinates
from dcmdask.geometry.grid import Geometry, Irregularity, locate
from dcmdask.geometry.planes import Floats, Integers, is_out_of_reach, is_placed


@dataclass(frozen=True)
class Arrangement:
    """Place of each frame of a stack.

    Attributes
    ----------
    dims : tuple of str
        Some of ``"t"``, ``"diffusion"``, ``"echo"``, ``"component"``, then ``"z"``; or
        ``("frame",)`` where frames have no position.
    numbers : ndarray of int64
        Rows of the facts, of the lengths of `dims`; -1 where there is no frame.
    coordinates : dict
        Name to (dims, values). ``z`` in mm along the normal, times in ms from the earliest
        frame, ``echo`` in ms, ``b_value`` in s/mm2; ``missing`` where some are.
    geometry : Geometry or None
        None for ``("frame",)``.
    irregularities : tuple of Irregularity
        Those of the geometry and of the dimensions; empty where all is regular.
    notes : tuple of Note
        Reasons of the order, where it is less than certain.
    """

    dims: tuple[str, ...]
    numbers: Integers
    coordinates: Coordinates
    geometry: Geometry | None
    irregularities: tuple[Irregularity, ...] = ()
    notes: tuple[Note, ...] = ()


def arrange(
    facts: npt.NDArray[Any],
    stored: Integers | None = None,
    indices: Indices | None = None,
    order_by: Sequence[str] = (),
    tolerance: float | None = None,
) -> Arrangement:
    """Order the frames of one stack.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`, of one shape, type and orientation.
    stored : ndarray of int, optional
        (n,): the number of each frame in its instance, which breaks ties.
    indices : Indices, optional
        Dimension Index Values, where all frames are of one instance that has them.
    order_by : sequence of str, optional
        Keywords of `dcmdask.geometry.axes.ORDER_BY` by which alone frames that share a position
        are told apart.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm.

    Returns
    -------
    Arrangement
        It does not depend on the order of the rows.
    """
    stored = np.zeros(len(facts), np.int64) if stored is None else stored
    midnight = _midnight_notes(facts)
    facts = plausible(facts)
    placed = is_placed(facts)
    if not placed.any() and indices is not None and (grid := indexed_axes(indices)):
        return _by_indices(facts, grid)
    if not placed.all():
        return _in_number_order(facts, stored, placed)
    geometry, z, notes = locate(facts, tolerance)
    notes += _contradictions(facts, z, indices)
    if np.bincount(z).max() == 1:
        numbers = np.argsort(z)
        coordinates = labels(facts, ("z",), numbers, geometry, ())
        found = geometry.irregularities
        return Arrangement(("z",), numbers, coordinates, geometry, found, notes)
    axes = chosen_axes(facts, z, order_by) if order_by else find_axes(facts, z, indices)
    if axes is None:
        shared = _shared(z, geometry, order_by, without(facts, order_by))
        return _side_by_side(facts, stored, z, geometry, shared, notes)
    notes += notes_on(axes, facts, z)
    dims = (*(axis.name for axis in axes), "z")
    numbers = _grid(axes, z)
    irregularities = (*geometry.irregularities, *_holes(numbers, dims, geometry))
    coordinates = labels(facts, dims, numbers, geometry, axes)
    notes += time_notes(facts, dims, numbers, coordinates)
    return Arrangement(dims, numbers, coordinates, geometry, irregularities, midnight + notes)


# The order of frames that have no position


def _by_indices(facts: npt.NDArray[Any], axes: Sequence[Axis]) -> Arrangement:
    """Frames without positions in the full grid of their dimension indices."""
    dims = tuple(axis.name for axis in axes)
    numbers = np.empty([int(axis.level.max()) + 1 for axis in axes], np.int64)
    numbers[tuple(axis.level for axis in axes)] = np.arange(len(facts))
    # Without positions nothing says where slices lie.
    others = [axis for axis in axes if axis.name != "z"]
    coordinates = labels(facts, dims, numbers, None, others)
    return Arrangement(dims, numbers, coordinates, None, tuple(_unreadable(facts)))


def _in_number_order(
    facts: npt.NDArray[Any], stored: Integers, placed: npt.NDArray[np.bool_]
) -> Arrangement:
    order = _settled(facts, stored)
    irregularities = _unreadable(facts)
    unplaced = ~placed
    for one in irregularities:
        unplaced[list(one.frames)] = False
    if placed.any() and unplaced.any():
        message = f"{unplaced.sum()} of {len(facts)} frames have no position or orientation"
        irregularities.append(Irregularity("position", message, _tuple(unplaced)))
    coordinates = varying_coordinates(facts, ("frame",), order)
    notes = _order_notes(facts["instance_number"][order], stored[order])
    return Arrangement(("frame",), order, coordinates, None, tuple(irregularities), notes)


def _unreadable(facts: npt.NDArray[Any]) -> list[Irregularity]:
    """Name positions and orientations that are there and cannot be."""
    found = []
    # An orientation matters where there is a position.
    there = ~np.isnan(facts["position"]).any(axis=1)
    for column in ("position", "orientation"):
        bad = there & is_out_of_reach(facts[column])
        if bad.any():
            message = (
                f"{called(TAGS[column])} of {bad.sum()} of {len(facts)} frames is there and cannot "
                f"be {'an' if column == 'orientation' else 'a'} {column}"
            )
            found.append(Irregularity("unreadable", message, _tuple(bad)))
    return found


def _order_notes(number: Floats, frame: Integers) -> tuple[Note, ...]:
    """Say what the order of frames rests on, by instance and their number in it."""
    if len(np.unique(frame)) == len(frame) and not number[0] < number[-1]:
        # All are of one instance, and in the order in which it stores them.
        return ()
    if np.isnan(number).any() or ((np.diff(number) == 0) & (np.diff(frame) == 0)).any():
        text = (
            "frames have no usable position, and Instance Number (0020,0013) is absent or the same "
            "for some: their order is arbitrary"
        )
        return (Note("arbitrary-order", text),)
    text = "frames have no usable position: they are in the order of Instance Number (0020,0013)"
    return (Note("instance-number-order", text),)


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


def _grid(axes: Sequence[Axis], z: Integers) -> Integers:
    levels = [axis.level for axis in axes]
    lengths = [int(level.max()) + 1 for level in (*levels, z)]
    numbers = np.full(lengths, -1, np.int64)
    numbers[(*levels, z)] = np.arange(len(z))
    return numbers


# Irregularities


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
    # An empty line along z has none at all, and -1 remains.
    nearest = np.where(before >= 0, before, np.argmax(along >= 0, axis=1)[:, np.newaxis])
    beside = np.take_along_axis(along, nearest, axis=1)[along < 0]
    return tuple(dict.fromkeys(beside[beside >= 0].tolist()))


def _shared(
    z: Integers, geometry: Geometry, order_by: Sequence[str], unsaid: Sequence[str]
) -> Irregularity:
    """Say that frames share positions without a place of their own for each."""
    counts = np.bincount(z)
    most = int(np.bincount(counts).argmax())
    if most > 1 and counts.max() == most and counts.min() < most:
        short = np.flatnonzero(counts < most)
        message = (
            f"frames are missing: {np.sum(counts == most)} positions have {most} frames, and "
            f"{len(short)} have fewer ({_listed(counts, short)} at {_at(geometry, short)} mm from "
            "the first); nothing tells which ones are missing"
        )
        return Irregularity("missing", message, _tuple(counts[z] < most))
    places = np.flatnonzero(counts > 1)
    shared = f"{len(places)} positions" if len(places) > 1 else "a position"
    by = ", ".join(order_by) or "times, echoes, diffusion weightings or components"
    message = (
        f"{counts[places].sum()} frames share {shared}, at {_at(geometry, places)} mm from the "
        f"first, and no grid of {by} has a place for each"
    )
    if unsaid:
        message += f": not all frames have {' and '.join(unsaid)}"
    return Irregularity("duplicate", message, _tuple(counts[z] > 1))


def _tuple(chosen: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _at(geometry: Geometry, places: Integers) -> str:
    return _listed(geometry.positions, places)


def _listed(values: npt.NDArray[Any], places: Integers) -> str:
    more = f" and {len(places) - 8} more" if len(places) > 8 else ""
    return ", ".join(f"{values[place]:.4g}" for place in places[:8]) + more


def _side_by_side(
    facts: npt.NDArray[Any],
    stored: Integers,
    z: Integers,
    geometry: Geometry,
    irregularity: Irregularity,
    notes: tuple[Note, ...],
) -> Arrangement:
    """Frames in the order of positions, however many each has."""
    settled = _settled(facts, stored)
    order = settled[np.argsort(z[settled], kind="stable")]
    found = (*geometry.irregularities, irregularity)
    geometry = replace(geometry, affine=None, irregularities=found)
    coordinates = varying_coordinates(facts, ("z",), order)
    coordinates["z"] = (("z",), geometry.z[z[order]])
    return Arrangement(("z",), order, coordinates, geometry, found, notes)


def _midnight_notes(facts: npt.NDArray[Any]) -> tuple[Note, ...]:
    """Say where times of day were taken to go on behind midnight, and the numbers deny it."""
    times = facts["acquisition_time"]
    before = facts[(times >= 0) & (times < DAY)]
    behind = facts[(times >= DAY) & (times < 2 * DAY)]
    for column in NUMBERS if len(before) and len(behind) else ():
        if behind[column].max() < before[column].min():
            text = (
                "Acquisition Time (0008,0032) without a date seems to pass midnight, but "
                f"{NUMBERS[column]} says that the earlier times of day were first"
            )
            return (Note("midnight", text),)
    return ()


def _contradictions(
    facts: npt.NDArray[Any], z: Integers, indices: Indices | None
) -> tuple[Note, ...]:
    """Say where numbers that should follow the positions do not."""
    index = facts["position_index"]
    if indices is not None and "z" in indices.names and not np.isfinite(index).any():
        index = indices.values[:, indices.names.index("z")].astype(np.float64)
    known = np.isfinite(index)
    if not known.any():
        return ()
    order = np.lexsort((index[known], z[known]))
    steps = np.diff(index[known][order])
    between = np.diff(z[known][order]) > 0
    up, down = (steps[between] > 0).all(), (steps[between] < 0).all()
    if (up or down) and (steps[~between] == 0).all():
        return ()
    text = (
        "In-Stack Position Number (0020,9057) or its dimension index contradicts Image Position "
        "(0020,0032): the positions decide"
    )
    return (Note("position-number", text),)
