"""Coordinates of arranged frames: the facts that each axis tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.errors import Note
from dcmdask.geometry.axes import Axis, plausible
from dcmdask.geometry.grid import Geometry
from dcmdask.geometry.patient import NANOMETRES, along_axis
from dcmdask.geometry.planes import Floats, Integers

Coordinates: TypeAlias = "dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]]"

# Most telling first.
MILLISECONDS = ("trigger_time", "reference_time", "acquisition_time")
# Columns that become coordinates where they vary.
_VARYING = (
    *(*MILLISECONDS, "echo_time", "b_value", "slope", "intercept"),
    *("positioner_primary_angle", "positioner_secondary_angle"),
)
# Trigger Time is a time after the R wave (PS3.3 C.8.3.1). Beyond the longest heartbeat, in ms, it
# is something else that a maker counts: GE counts 4 s for each 2 s of functional runs. Of other
# multiples nothing of the kind is known: such images took several excitations, a repetition each.
_HEARTBEAT = 3000.0
# Part of a Repetition Time by which steps may be off.
_OFF = 0.01
# Stands for what a header does not say, among values that are compared.
_UNSAID = -np.inf


def labels(
    facts: npt.NDArray[Any],
    dims: tuple[str, ...],
    numbers: Integers,
    geometry: Geometry | None,
    axes: Sequence[Axis],
) -> Coordinates:
    """Return the coordinates of an arrangement.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`.
    dims : tuple of str
    numbers : ndarray of int64
        Rows of `facts`, -1 for none; of the lengths of `dims`.
    geometry : Geometry or None
    axes : sequence of Axis
        The dimensions in front of ``z``.
    """
    found = varying_coordinates(facts, dims, numbers)
    if geometry is not None:
        found["z"] = (("z",), z_of(geometry))
    for axis in axes:
        rows = _firsts(numbers, dims.index(axis.name))
        if axis.name == "t":
            times = _times(facts, numbers, dims.index("t"))
            if times is not None:
                found["t"] = (("t",), times)
        elif axis.name == "component":
            words = [word.decode().lower() or "unknown" for word in facts["component"][rows]]
            found["component"] = (("component",), np.array(words))
        elif axis.name == "diffusion":
            found["b_value"] = (("diffusion",), facts["b_value"][rows])
            weighted = facts["b_value"][rows, np.newaxis] > 0
            direction = np.where(weighted, facts["direction"][rows], np.nan)
            found["direction"] = (("diffusion", "patient"), direction)
        elif axis.name == "echo":
            if axis.column != "echo_number" and np.isfinite(facts["echo_time"][rows]).all():
                found["echo"] = (("echo",), facts["echo_time"][rows])
                found.pop("echo_time", None)
            else:
                found["echo_number"] = (("echo",), facts["echo_number"][rows])
        elif axis.values is not None:
            found[axis.name] = ((axis.name,), axis.values[rows])
    return found


def varying_coordinates(
    facts: npt.NDArray[Any], dims: tuple[str, ...], numbers: Integers
) -> Coordinates:
    """Return the columns that vary, along the axes that they vary along.

    Image Position as ``position_x``, ``position_y`` and ``position_z``, on the patient's axes.
    Also ``missing``, where `numbers` has no frame for some places. A b-value that cannot be read
    is infinity, which is not taken for no weighting.
    """
    found: Coordinates = {}
    facts = plausible(facts)
    absent = numbers < 0
    columns = {column: facts[column] for column in _VARYING}
    columns |= {f"position_{axis}": facts["position"][:, i] for i, axis in enumerate("xyz")}
    for column, values in columns.items():
        if column in MILLISECONDS and np.isfinite(values).any():
            values = values - np.nanmin(values)
        known = ~np.isnan(values) if column == "b_value" else np.isfinite(values)
        said = np.where(known, values, _UNSAID)
        along, left = reduced(np.where(absent, np.nan, said[numbers]), dims)
        if along:
            left[left == _UNSAID] = np.nan
            found[column] = (along, left)
    if absent.any():
        along, left = reduced(absent.astype(np.float64), dims)
        found["missing"] = (along, left.astype(bool))
    return found


def reduced(values: Floats, dims: tuple[str, ...]) -> tuple[tuple[str, ...], Floats]:
    """Drop the axes along which nothing changes; NaN is equal to anything."""
    kept: list[str] = []
    for dim in dims:
        # Unlike min and max these pass NaN over.
        low, high = (f.reduce(values, axis=len(kept)) for f in (np.fmin, np.fmax))
        if np.array_equal(low, high, equal_nan=True):
            values = high
        else:
            kept.append(dim)
    return tuple(kept), values


def z_of(geometry: Geometry) -> Floats:
    """Return the even grid along the normal where there is one, otherwise the true positions."""
    gap, z = geometry.spacing[0], np.round(geometry.z, NANOMETRES)
    if np.isnan(gap):
        return z
    is_complete = round(float(geometry.positions[-1]) / gap) == len(z) - 1
    return along_axis(z[0], gap, len(z)) if is_complete else z


def _firsts(numbers: Integers, axis: int) -> Integers:
    """Return a row of the facts for each index of an axis; each has one."""
    along = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
    rows: Integers = along[np.arange(len(along)), np.argmax(along >= 0, axis=1)]
    return rows


def _times(facts: npt.NDArray[Any], numbers: Integers, axis: int) -> Floats | None:
    """Return ms from the earliest frame for each t; None where no column of times ascends."""
    for column in (*MILLISECONDS, "content_time"):
        each = _earliest(facts[column], numbers, axis)
        # Not of NaN, which is the least of the times that it is among.
        if (np.diff(each) > 0).all() and not (
            column == "trigger_time" and _is_counted_twice(each, facts["repetition_time"])
        ):
            first: float = each[0]
            return np.asarray(each - first)
    return None


def _earliest(times: Floats, numbers: Integers, axis: int) -> Floats:
    """Return the earliest time of each index of an axis."""
    placed = np.where(numbers >= 0, times[numbers], np.inf)
    each: Floats = np.moveaxis(placed, axis, 0).reshape(numbers.shape[axis], -1).min(axis=1)
    return each


def _is_counted_twice(each: Floats, repetition_times: Floats) -> bool:
    """Return whether trigger times of a run go on by two Repetition Times."""
    repetition_time = float(repetition_times[0])
    if not repetition_time > 0 or (repetition_times != repetition_time).any():
        return False
    off = np.abs(np.diff(each) / repetition_time - 2)
    return each[-1] - each[0] > _HEARTBEAT and bool((off <= _OFF).all())


def time_notes(
    facts: npt.NDArray[Any], dims: tuple[str, ...], numbers: Integers, coordinates: Coordinates
) -> tuple[Note, ...]:
    """Notes on times that are not those of t, although they order it."""
    if "t" not in dims:
        return ()
    each = _earliest(facts["trigger_time"], numbers, dims.index("t"))
    if not _is_counted_twice(each, facts["repetition_time"]):
        return ()
    instead = (
        "t is from other times"
        if "t" in coordinates
        else "t has no coordinate, as there are no other times; trigger_time has these"
    )
    text = (
        f"Trigger Time (0018,1060) goes on by {each[1] - each[0]:g} ms where Repetition Time "
        f"(0018,0080) is {facts['repetition_time'][0]:g} ms: {instead}"
    )
    return (Note("trigger-time", text),)
