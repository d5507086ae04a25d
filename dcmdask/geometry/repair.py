"""Repair of arrangements that are not regular: gaps are filled, or parts are split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from dcmdask.geometry.coordinates import varying_coordinates, z_of
from dcmdask.geometry.dimensions import Arrangement, arrange
from dcmdask.geometry.grid import Geometry, Irregularity, affine_of, same_position
from dcmdask.geometry.planes import Floats, Integers, clusters, grouped, is_placed
from dcmdask.geometry.regularity import Tolerance, missing_steps

OnIrregular: TypeAlias = Literal["error", "keep", "fill"]
ON_IRREGULAR: tuple[str, ...] = get_args(OnIrregular)
# A gap starts a new run if the next gap is smaller than this part of it.
_SMALLER = 0.75


def check_on_irregular(on_irregular: str) -> None:
    """Refuse a choice that does not exist."""
    if on_irregular not in ON_IRREGULAR:
        raise ValueError(f"on_irregular is one of {', '.join(ON_IRREGULAR)}, not {on_irregular!r}")


def filled(
    arrangement: Arrangement, facts: npt.NDArray[Any], step: float | None = None
) -> Arrangement:
    """Return the arrangement with -1 for the positions and frames that are missing.

    Nothing is filled where it is not known which are missing. Other irregularities prevent
    filling and stay in the result. `step` is that of the grid in mm, where it is known.
    """
    missing = [one for one in arrangement.irregularities if one.code == "missing"]
    others = _not_missing(arrangement.irregularities)
    geometry = arrangement.geometry
    if geometry is None or not missing or _side_by_side(arrangement, geometry):
        return arrangement
    steps = missing_steps(geometry.positions, geometry.tolerance, step)
    if steps is None or others:
        return replace(arrangement, irregularities=others)
    places = np.concatenate([[0], np.cumsum(steps)])
    numbers = np.full((*arrangement.numbers.shape[:-1], places[-1] + 1), -1, np.int64)
    numbers[..., places] = arrangement.numbers
    geometry = _without_gaps(geometry, places, arrangement.numbers, facts)
    varying = varying_coordinates(facts, arrangement.dims, numbers)
    names = arrangement.coordinates.keys() | {"missing"}
    coordinates = {name: found for name, found in varying.items() if name in names}
    for name, (dims, values) in arrangement.coordinates.items():
        if "z" not in dims:
            coordinates[name] = (dims, values)
    coordinates["z"] = (("z",), z_of(geometry))
    return replace(
        arrangement,
        numbers=numbers,
        coordinates=coordinates,
        geometry=geometry,
        irregularities=others,
    )


def _not_missing(irregularities: tuple[Irregularity, ...]) -> tuple[Irregularity, ...]:
    return tuple(one for one in irregularities if one.code != "missing")


def _side_by_side(arrangement: Arrangement, geometry: Geometry) -> bool:
    """Return whether frames of one position are side by side, as no grid has a place for each."""
    return bool(arrangement.numbers.shape[-1] != len(geometry.positions))


def _without_gaps(
    geometry: Geometry, places: Integers, numbers: Integers, facts: npt.NDArray[Any]
) -> Geometry:
    """Return the even grid, of whose positions there are those at `places`."""
    others = _not_missing(geometry.irregularities)
    if places[-1] + 1 == len(places):
        return replace(geometry, irregularities=others)
    first, last = (
        facts["position"][row[row >= 0][0]] for row in (numbers[..., 0], numbers[..., -1])
    )
    step = (last - first) / places[-1]
    return replace(
        geometry,
        affine=affine_of(geometry.orientation, geometry.spacing[1:], first, step),
        positions=np.interp(np.arange(places[-1] + 1), places, geometry.positions),
        origin=tuple(first.tolist()),
        irregularities=others,
    )


def parts(
    facts: npt.NDArray[Any],
    arrangement: Arrangement,
    stored: Integers | None = None,
    tolerance: float | None = None,
) -> list[Integers]:
    """Return the rows of each regular part, in the order of the arrangement.

    Runs of positions between gaps, one volume of each copy, complete volumes apart from
    each that is not. What no splitting mends, such as skewed axes, stays together.
    """
    stored = np.zeros(len(facts), np.int64) if stored is None else stored
    return list(_split(np.arange(len(facts)), arrangement, facts, stored, tolerance))


def _split(
    rows: Integers,
    arrangement: Arrangement,
    facts: npt.NDArray[Any],
    stored: Integers,
    tolerance: float | None,
) -> Iterator[Integers]:
    """Yield the regular parts of some rows, which are arranged so."""
    pieces = _pieces(facts[rows], arrangement)
    if len(pieces) == 1:
        yield from (rows[run[run >= 0]] for run in _runs(arrangement))
        return
    for piece in pieces:
        part = rows[piece]
        if len(part) == 1:
            yield part
        else:
            again = arrange(facts[part], stored[part], tolerance=tolerance)
            yield from _split(part, again, facts, stored, tolerance)


def _pieces(facts: npt.NDArray[Any], arrangement: Arrangement) -> list[Integers]:
    """Split rows once, for the first reason that there is other than gaps."""
    kinds = {one.code for one in arrangement.irregularities}
    numbers, geometry = arrangement.numbers, arrangement.geometry
    whole = numbers[numbers >= 0]
    if geometry is None:
        return [whole[part] for part in grouped(is_placed(facts)[whole].astype(np.int64))]
    same = same_position(geometry)
    if "position" in kinds:
        return [whole[part] for part in grouped(_beside(facts, geometry.orientation, same)[whole])]
    if "duplicate" in kinds:
        z = arrangement.coordinates["z"][1]
        return [whole[part] for part in grouped(np.arange(len(z)) - np.searchsorted(z, z))]
    if _side_by_side(arrangement, geometry):
        # Frames in order together, and each position apart where t is not known.
        (*_, unsure) = (one.frames for one in arrangement.irregularities if one.code != "conflict")
        group = np.zeros(len(facts), np.int64)
        z = np.empty(len(facts), np.int64)
        z[numbers] = np.searchsorted(geometry.z, arrangement.coordinates["z"][1])
        group[list(unsure)] = 1 + z[list(unsure)]
        return [whole[part] for part in grouped(group[whole])]
    if (numbers < 0).any():
        # Along the first axis: all that are complete, and each that is not.
        complete = (numbers >= 0).all(axis=tuple(range(1, numbers.ndim)))
        pieces = [numbers[complete].ravel(), *(one[one >= 0] for one in numbers[~complete])]
        return [piece for piece in pieces if len(piece)]
    return [whole]


def _runs(arrangement: Arrangement) -> list[Integers]:
    """Split a grid at its gaps, so that each run of positions is even."""
    kinds = {one.code for one in arrangement.irregularities}
    numbers, geometry = arrangement.numbers, arrangement.geometry
    if (
        geometry is None
        or kinds & {"position", "duplicate"}
        or _side_by_side(arrangement, geometry)
    ):
        return [numbers.ravel()]
    cuts = _cuts(geometry.positions, geometry.tolerance)
    return [run.ravel() for run in np.split(numbers, cuts, axis=-1)]


def _cuts(positions: Floats, tolerance: Tolerance) -> list[int]:
    """Return where runs of even gaps begin, but for the first; each as long as it can be."""
    cuts = []
    start, lowest, highest = 0, -np.inf, np.inf
    at = positions.tolist()
    for i in range(1, len(at)):
        steps = i - start
        step = (at[i] - at[start]) / steps
        begins = steps == 1 and i + 1 < len(at) and at[i + 1] - at[i] < _SMALLER * step
        if begins or not lowest <= step <= highest:
            cuts.append(i)
            start, lowest, highest = i, -np.inf, np.inf
            continue
        # Range of steps for which every position of the run lies on the line within the tolerance.
        off = 0.8 * tolerance.of(step) / steps
        lowest, highest = max(lowest, step - off), min(highest, step + off)
    return cuts


def _beside(facts: npt.NDArray[Any], orientation: tuple[float, ...], same: float) -> Integers:
    """Number the lines along the normal that frames begin on."""
    row, column = np.array(orientation).reshape(2, 3)
    # Half of it on either axis is less than all of it between them.
    across = clusters(facts["position"] @ row, same / 2)
    down = clusters(facts["position"] @ column, same / 2)
    return across * (int(down.max()) + 1) + down
