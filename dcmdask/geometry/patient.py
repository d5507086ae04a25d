"""Axes of an image in the patient: coordinates in millimetres, and affines made from them.

With r, c and n the unit vectors along a row, along a column and along the normal, a point P
of the patient (LPS, PS3.3 C.7.6.2.1.1) has the coordinates x = r·P, y = c·P and z = n·P. Two
images of one frame of reference and orientation therefore have the same coordinates at the
same point, and cropping, flipping or averaging an image keeps its coordinates true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.geometry.grid import Geometry, is_tilted
from dcmdask.geometry.planes import Floats

# Direction cosines of one acquisition differ in the digits behind these: 0.005 mm over 500 mm.
_DIGITS = 5
# Digits behind the point of coordinates in mm.
NANOMETRES = 6
# Coordinates that are off an even grid by this part of its step are on it.
_EVEN = 1e-3


@dataclass(frozen=True)
class PatientAxes:
    """Directions of an image in the patient.

    Attributes
    ----------
    row, column : tuple of float
        Unit vectors along a row (x) and along a column (y), perpendicular to one another.
    shear : tuple of float
        Movement of the planes along x and y in mm, for each mm along the normal: of a tilted
        gantry, or of direction cosines that are rounded.
    shear_origin : float
        z of the plane whose x and y are not moved.
    frame_of_reference_uid : str
        Empty where the header has none.
    """

    row: tuple[float, float, float]
    column: tuple[float, float, float]
    shear: tuple[float, float] = (0.0, 0.0)
    shear_origin: float = 0.0
    frame_of_reference_uid: str = ""

    @property
    def tilted(self) -> bool:
        """Whether the gantry was tilted: columns and the step between planes are not square."""
        return is_tilted(self.shear)

    @property
    def directions(self) -> Floats:
        """(3, 3): unit vectors along x, y and z as columns."""
        return np.column_stack([self.row, self.column, np.cross(self.row, self.column)])

    def identity(self, series_uid: str) -> int:
        """Number that images of one frame of reference and equal directions share.

        Images without a Frame of Reference UID share it with those of their own series.
        """
        rounded = np.round([*self.row, *self.column], _DIGITS) + 0.0
        tilt = np.round([*self.shear, self.shear_origin], 2) if self.tilted else np.zeros(3)
        text = f"{self.frame_of_reference_uid or series_uid} {[*rounded.tolist(), *tilt.tolist()]}"
        # As a signed number of 64 bits, which every format of files has.
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def attributes(self) -> dict[str, Any]:
        """Return the directions in types that Zarr and NetCDF have."""
        found: dict[str, Any] = {"orientation": [*self.row, *self.column]}
        if any(self.shear):
            found |= {"shear": list(self.shear), "shear_origin": self.shear_origin}
        if self.frame_of_reference_uid:
            found["frame_of_reference_uid"] = self.frame_of_reference_uid
        return found

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Any]) -> PatientAxes:
        """Return the axes that :meth:`attributes` describes.

        Raises
        ------
        KeyError, ValueError, TypeError
            It describes none.
        """
        orientation = np.asarray(attributes["orientation"], np.float64).reshape(6)
        shear = np.asarray(attributes.get("shear", (0.0, 0.0)), np.float64).reshape(2)
        axes = _perpendicular(orientation)
        return cls(
            *axes,
            (float(shear[0]), float(shear[1])),
            float(attributes.get("shear_origin", 0.0)),
            str(attributes.get("frame_of_reference_uid", "")),
        )

    def affine(self, x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> Floats:
        """Return the affine of a grid.

        Parameters
        ----------
        x, y, z : (first coordinate, step)
            In mm.

        Returns
        -------
        ndarray
            (4, 4): takes (x, y, z) indices to the patient's LPS axes in mm.
        """
        along = self.directions
        leaning = along[:, 2] + along[:, :2] @ self.shear
        affine = np.eye(4)
        affine[:3, :3] = np.column_stack([along[:, 0] * x[1], along[:, 1] * y[1], leaning * z[1]])
        affine[:3, 3] = along @ [x[0], y[0], z[0]]
        affine[:3, 3] += along[:, :2] @ self.shear * (z[0] - self.shear_origin)
        return affine + 0.0

    def coordinates_of(self, points: npt.ArrayLike) -> Floats:
        """Return the x, y and z of points of the patient.

        Parameters
        ----------
        points : array-like
            (..., 3), LPS in mm.
        """
        found: Floats = np.asarray(points, np.float64) @ self.directions
        moved = (found[..., 2:] - self.shear_origin) * np.asarray(self.shear)
        found[..., :2] -= moved
        return found


def patient_axes(geometry: Geometry, frame_of_reference_uid: str) -> PatientAxes | None:
    """Return the axes of a stack; None where no three directions describe all of its planes."""
    if not {"position", "orientation"}.isdisjoint(one.code for one in geometry.irregularities):
        return None
    row, column = _perpendicular(np.array(geometry.orientation))
    axes = PatientAxes(row, column, frame_of_reference_uid=frame_of_reference_uid)
    shear = np.asarray(geometry.shear) @ axes.directions[:, :2]
    if not shear.any():
        return axes
    return PatientAxes(
        row,
        column,
        (float(shear[0]), float(shear[1])),
        float(axes.directions[:, 2] @ geometry.origin),
        frame_of_reference_uid,
    )


def _perpendicular(
    orientation: npt.NDArray[Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return unit vectors along rows and columns, of direction cosines that were rounded."""
    row, column = orientation.reshape(2, 3)
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    if not (np.isfinite(row).all() and np.isfinite(column).all()):
        raise ValueError(f"{orientation.tolist()} are no direction cosines")
    a, b, c = row.tolist()
    d, e, f = column.tolist()
    return (a, b, c), (d, e, f)


def along_axis(first: float, step: float, length: int) -> Floats:
    """Return evenly spaced coordinates, equal where other sums lead to the same millimetres."""
    return np.round(first + step * np.arange(length, dtype=np.float64), NANOMETRES)


def first_and_step(coordinates: Floats, alone: float = 1.0) -> tuple[float, float] | None:
    """Return the first of evenly spaced coordinates and their step; None where they are not.

    Parameters
    ----------
    coordinates : ndarray
        (n,)
    alone : float
        Step of a single one.

    Examples
    --------
    >>> first_and_step(np.array([-2.5, 0.0, 2.5]))
    (-2.5, 2.5)
    >>> first_and_step(np.array([0.0, 2.5, 7.5])) is None
    True
    """
    if not len(coordinates) or not np.isfinite(coordinates).all():
        return None
    if len(coordinates) == 1:
        return float(coordinates[0]), alone
    # Without the noise of floating point, which a sum of millimetres has.
    step = round(float(coordinates[-1] - coordinates[0]) / (len(coordinates) - 1), 9)
    even = coordinates[0] + step * np.arange(len(coordinates))
    if step == 0 or np.abs(coordinates - even).max() > _EVEN * abs(step):
        return None
    return float(coordinates[0]), step
