"""The grid of an xarray DataArray in the patient, from its coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dcmdask.errors import GeometryError
from dcmdask.geometry.patient import PatientAxes, first_and_step
from dcmdask.geometry.planes import Floats

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Grid:
    """Evenly spaced points in the patient.

    Attributes
    ----------
    axes : PatientAxes
    z, y, x : tuple of float
        First coordinate and step, in mm; a step is negative where the axis is turned round.
    shape : tuple of int
        Lengths along z, y and x.
    """

    axes: PatientAxes
    z: tuple[float, float]
    y: tuple[float, float]
    x: tuple[float, float]
    shape: tuple[int, int, int]

    @cached_property
    def affine(self) -> Floats:
        """(4, 4): takes (x, y, z) indices to the patient's LPS axes in mm."""
        return self.axes.affine(self.x, self.y, self.z)


def grid_of(array: xr.DataArray) -> Grid:
    """Return the grid of an array.

    Raises
    ------
    GeometryError
        Coordinates are missing, empty, no numbers, or not evenly spaced.
    """
    axes = axes_of(array)
    steps, lengths = {}, []
    for dim in ("z", "y", "x"):
        if dim not in array.coords:
            raise GeometryError(f"the array has no coordinate {dim}", code="no-coordinate")
        along = array.coords[dim]
        try:
            values = np.atleast_1d(np.asarray(along.values, np.float64))
            thickness = float(along.attrs.get("slice_thickness", 1.0))
        except (TypeError, ValueError) as error:
            raise GeometryError(
                f"{dim}, or its attribute slice_thickness, is not in numbers of mm",
                detail=str(error),
                code="no-number",
            ) from error
        if not len(values):
            raise GeometryError(f"the array is empty along {dim}", code="empty")
        if len(values) == 1 and dim != "z":
            raise GeometryError(
                f"there is one {dim} only, which does not tell the size of a pixel",
                code="one-coordinate",
            )
        found = first_and_step(values, thickness)
        if found is None:
            steps_there = np.diff(values)
            raise GeometryError(
                f"{dim} is not evenly spaced: its steps are from {steps_there.min():g} to "
                f"{steps_there.max():g} mm, and no affine describes that",
                code="uneven",
            )
        steps[dim] = found
        lengths.append(len(values))
    return Grid(axes, steps["z"], steps["y"], steps["x"], (lengths[0], lengths[1], lengths[2]))


def axes_of(array: xr.DataArray) -> PatientAxes:
    """Return the directions of an array in the patient.

    Raises
    ------
    GeometryError
        It has no coordinate `patient`, or one that does not describe directions.
    """
    if "patient" not in array.coords or array.coords["patient"].ndim:
        raise GeometryError(
            "the array has no coordinate 'patient', which says where it lies: it is not from "
            "dcmdask, its frames have no common plane or no position, or arrays of several "
            "directions or frames of reference were combined",
            code="no-patient",
        )
    try:
        return PatientAxes.of_attributes(array.coords["patient"].attrs)
    except (KeyError, TypeError, ValueError) as error:
        raise GeometryError(
            "the attributes of the coordinate 'patient' do not describe directions",
            detail=str(error),
            code="no-patient",
        ) from error
