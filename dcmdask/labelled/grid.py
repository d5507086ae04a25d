"""The grid of an xarray DataArray in the patient, from its coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dcmdask.dicom.instance import issue
from dcmdask.errors import GeometryError, Note
from dcmdask.geometry.patient import PatientAxes, first_and_step
from dcmdask.geometry.planes import Floats, Integers

if TYPE_CHECKING:
    import xarray as xr

# Part of a step by which a point may be off that of another grid: spacings that are rounded add up
# to that over a field of view. What is more than rounded positions is said.
_OFF, _ROUNDED = 0.25, 0.03


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

    def places_in(self, other: Grid) -> list[Integers]:
        """Return the index in another grid of each plane, row and column of this one.

        Returns
        -------
        list of ndarray
            Along z, y and x; indices may be outside of the other grid.

        Raises
        ------
        GeometryError
            A point of this grid is no point of the other, extended without end (``grid``).
        """
        if other.shape[0] == 1:
            # The step of one plane is its thickness, which is none.
            other = replace(other, z=(other.z[0], float(np.copysign(self.z[1], other.z[1]))))
        # x, y and z of the corners.
        last = np.array(self.shape[::-1]) - 1
        corners = np.stack(np.meshgrid(*zip(np.zeros(3), last, strict=True)), -1).reshape(-1, 3)
        matrix = np.linalg.inv(other.affine) @ self.affine
        found = corners @ matrix[:3, :3].T + matrix[:3, 3]
        first = np.rint(matrix[:3, 3])
        signs = np.where(np.diag(matrix) < 0, -1, 1)[:3]
        off = np.abs(found - (first + corners * signs)).max(0)
        if (off > _ROUNDED).any():
            mm = off * np.linalg.norm(other.affine[:3, :3], axis=0)
            listed = ", ".join(f"{name} {each:.3g}" for name, each in zip("xyz", mm, strict=True))
            if (off > _OFF).any():
                raise GeometryError(
                    f"the two grids do not coincide: their points are up to {listed} mm apart; "
                    'v.dcm.like(other, method="nearest") takes the nearest ones',
                    code="grid",
                )
            text = f"points are up to {listed} mm beside those of the other image: taken as one"
            issue(Note("grid", text), "array")
        return [
            (start + sign * np.arange(length)).astype(np.int64)
            for start, sign, length in zip(first[::-1], signs[::-1], self.shape, strict=True)
        ]


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


def check_same_frame(array: xr.DataArray, other: xr.DataArray, trusted: bool) -> None:
    """Raise where two arrays have not the same frame of reference; or issue a note.

    A segmentation lies where the series lies that it refers to, whatever their UIDs are.

    Parameters
    ----------
    array, other : xarray.DataArray
    trusted : bool
        Trust positions all the same.

    Raises
    ------
    GeometryError
        They have not, and are not trusted (``frame-of-reference``).
    """
    uid = axes_of(array).frame_of_reference_uid
    referenced = np.atleast_1d(array.attrs.get("referenced_series", [])).tolist()
    # Images of one series may have no UID of their frame of reference.
    if (
        uid == axes_of(other).frame_of_reference_uid != ""
        or array.coords["patient"].item() == other.coords["patient"].item()
        or other.attrs.get("series_uid", "") in referenced
    ):
        return
    text = "the two images have not the same Frame of Reference UID (0020,0052)"
    if not trusted:
        raise GeometryError(
            f"{text}: their positions may have different origins; "
            "ignore_frame_of_reference=True trusts them",
            code="frame-of-reference",
        )
    issue(Note("frame-of-reference", f"{text}: positions are trusted"), f"array {array.name}")
