"""Geometry of frames in the patient: order along the normal, affine, irregularities.

Pure functions over positions and orientations (PS3.3 C.7.6.2.1.1). Positions decide; what
a header says of spacing between slices, slice location or gantry tilt is not looked at,
since it may be absent or wrong. All lengths are in millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.errors import Note
from dcmdask.geometry.planes import (
    FAR,
    Floats,
    Integers,
    clusters,
    is_out_of_reach,
    most_common,
    normal_of,
    same_within,
)
from dcmdask.geometry.regularity import Tolerance, last_digits, missing_steps, off_grid

# Direction cosines may be this far from orthonormal: headers round them.
_ORTHONORMAL = 1e-3
# A shear of less (a tenth of a degree) comes from rounded direction cosines.
_TILTED = 2e-3
# Number of missing positions that a message lists.
_LISTED = 8


class Irregularity(NamedTuple):
    """One thing that keeps frames from being a regular grid.

    Attributes
    ----------
    code : str
        ``"missing"``, ``"duplicate"``, ``"uneven"``, ``"position"``, ``"orientation"``,
        ``"spacing"``, ``"conflict"``, or ``"unreadable"`` for positions and orientations that
        are there and cannot be.
    text : str
        Description, with millimetres.
    frames : tuple of int
        Rows of the facts.
    """

    code: str
    text: str
    frames: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Geometry:
    """The grid of a stack.

    Attributes
    ----------
    affine : ndarray or None
        (4, 4): takes (column x, row y, slice z) indices of pixel centres to the patient's
        LPS axes in mm. None where one affine would be a lie: positions with gaps, uneven or
        scattered, or pixels without a spacing. For a single position z is the normal times
        the slice thickness, or 1 mm where that is not known.
    spacing : tuple of float
        Between z, y and x indices in mm. z is measured along the normal, and goes through the
        first and the last position; NaN for a single one without thickness and for uneven ones.
    orientation : tuple of float
        Direction cosines along a row, then along a column.
    positions : ndarray
        (n,): the distance of each position from the first, along the normal, ascending.
    origin : tuple of float
        Centre of the first pixel of the first frame, on the patient's LPS axes in mm.
    shear : tuple of float
        Movement of the frames in their plane for each mm along the normal, on the patient's
        axes: of a tilted gantry, or of direction cosines that are rounded; the affine has it.
    irregularities : tuple of Irregularity
        Empty where the grid is regular.
    tolerance : Tolerance
        Largest distance of `positions` from an even grid.
    in_patient : bool
        False of a volume of ultrasound with axes of its own, which stand for the patient's here;
        their directions in the patient are not known.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask import scan
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests"
    >>> geometry = scan(folder / "98892001/CT5N")[0].stacks[0].geometry
    >>> geometry.regular, geometry.codes, geometry.spacing
    (True, 'LPS', (2.5, 0.488281, 0.488281))

    Where the middle of the third frame is in the patient, in mm to the left, back and head:

    >>> x, y, z = 7.5, 7.5, 2
    >>> (geometry.affine @ [x, y, z, 1])[:3].round(3)
    array([ -68.538, -139.338,    3.762])

    Four frames that are no even grid have no affine:

    >>> uneven = scan(folder / "77654033/CT2")[0].stacks[0].geometry
    >>> uneven.regular, uneven.affine is None, uneven.positions
    (False, True, array([  0.  , 202.5 , 203.75, 205.  ]))
    >>> uneven.irregularities[0].code
    'uneven'
    """

    affine: Floats | None
    spacing: tuple[float, float, float]
    orientation: tuple[float, ...]
    positions: Floats
    origin: tuple[float, ...]
    shear: tuple[float, ...] = (0.0, 0.0, 0.0)
    irregularities: tuple[Irregularity, ...] = ()
    tolerance: Tolerance = field(default_factory=Tolerance)
    in_patient: bool = True

    @property
    def z(self) -> Floats:
        """(n,): distance of each position from the origin of the patient's axes, in mm."""
        normal = normal_of(np.array(self.orientation))
        return np.asarray(float(normal @ self.origin) + self.positions)

    @property
    def regular(self) -> bool:
        """Whether there are no irregularities."""
        return not self.irregularities

    @property
    def codes(self) -> str:
        """The patient's direction that each of x, y and z points to, such as ``"LPS"``.

        Left, Right, Posterior, Anterior, Superior (head) or Inferior; empty where the axes are
        not the patient's.
        """
        if not self.in_patient:
            return ""
        row, column = np.array(self.orientation).reshape(2, 3)
        return "".join(
            "RAI LPS"[4 * (v[axis] > 0) + axis]
            for v in (row, column, np.cross(row, column))
            for axis in [int(np.argmax(np.abs(v)))]
        )


def locate(
    facts: npt.NDArray[Any], tolerance: float | None = None, known_step: float | None = None
) -> tuple[Geometry, Integers, tuple[Note, ...]]:
    """Return the grid of frames that have positions, the z index of each, and notes.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`; position and orientation are given.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm.
    known_step : float, optional
        Its step in mm, where positions may be missing on purpose.

    Returns
    -------
    geometry : Geometry
    z : ndarray of int64
        (n,): which of `geometry.positions` each frame is at.
    notes : tuple of Note
        Oddities of a regular grid.
    """
    orientation, found = _orientation(facts["orientation"])
    spacing, more = _pixel_spacing(facts["spacing"])
    found += more
    normal = normal_of(orientation)
    same = same_within(spacing)
    z = clusters(facts["position"] @ normal, same)
    origins = _origins(facts["position"], z)
    found += _scattered(facts["position"], origins, z, same)
    along = origins @ normal
    digits = last_digits(origins)
    # Just less, as no rounding is off by a whole digit.
    within = Tolerance(0.99 * float(np.abs(normal) @ digits), tolerance)
    shear, more = _shear(
        origins, along, normal, max(same, float(np.linalg.norm(digits))), within, z
    )
    found += more
    steps, more = _steps(along, within, z, known_step)
    found += more
    notes = (*_tilt_notes(shear, along), *_grid_notes(along, steps, same))
    gap = _thickness(facts["thickness"])
    step = normal * (gap if gap > 0 else 1.0)
    if len(along) > 1:
        gap = (along[-1] - along[0]) / steps.sum() if steps is not None else np.nan
        step = gap * (normal + shear)
    affine = None
    if not {one.code for one in found} - {"orientation"}:
        affine = affine_of(orientation, spacing, origins[0], step)
    shape = (float(gap), float(spacing[0]), float(spacing[1]))
    geometry = Geometry(
        affine,
        shape,
        tuple(orientation.tolist()),
        along - along[0],
        tuple(origins[0].tolist()),
        tuple(shear.tolist()),
        tuple(found),
        within,
    )
    return geometry, z, notes


def is_tilted(shear: Sequence[float] | Floats) -> bool:
    """Return whether planes that are moved so far for each mm are those of a tilted gantry."""
    return bool(np.linalg.norm(shear) >= _TILTED)


def affine_of(
    orientation: Sequence[float] | Floats,
    spacing: Sequence[float] | Floats,
    origin: Floats,
    step: Floats,
) -> Floats:
    """Return the affine of a grid (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    orientation : (6,)
    spacing : (2,)
        Between rows, then between columns.
    origin : (3,)
        Position of the first frame.
    step : (3,)
        From one frame to the next.
    """
    row, column = np.array(orientation).reshape(2, 3)
    between_rows, between_columns = spacing
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row * between_columns, column * between_rows, step])
    affine[:3, 3] = origin
    return affine


def same_position(geometry: Geometry) -> float:
    """Return how close two positions of this grid have to be to be one, in mm."""
    return same_within(np.array(geometry.spacing[1:]))


def _orientation(orientations: Floats) -> tuple[Floats, list[Irregularity]]:
    orientation = most_common(orientations)
    row, column = orientation.reshape(2, 3)
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    dot = float(row @ column)
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(dot)) <= _ORTHONORMAL:
        return orientation, []
    words = ", ".join(f"{value:g}" for value in orientation)
    message = (
        f"Image Orientation ({words}) is not orthonormal: lengths {lengths[0]:.4g} and "
        f"{lengths[1]:.4g}, dot product {dot:.4g}"
    )
    rows = np.flatnonzero((orientations == orientation).all(axis=1))
    return orientation, [Irregularity("orientation", message, _tuple(rows))]


def _pixel_spacing(spacings: Floats) -> tuple[Floats, list[Irregularity]]:
    known = np.isfinite(spacings).all(axis=1)
    spacing = most_common(spacings[known] if known.any() else spacings[:1])
    if known.any() and (spacing > 0).all():
        return spacing, []
    if np.isnan(spacing).all():
        message = "pixels have no spacing"
    elif is_out_of_reach(spacing):
        message = "the spacing of pixels is there and cannot be read"
    else:
        message = f"the spacing of pixels is {spacing[0]:g} x {spacing[1]:g} mm"
    rows = np.arange(len(spacings))
    return np.full(2, np.nan), [Irregularity("spacing", message, _tuple(rows))]


def _thickness(thickness: Floats) -> float:
    known = thickness[(thickness > 0) & (thickness < FAR)]
    return float(known[0]) if len(known) and (known == known[0]).all() else np.nan


def _origins(positions: Floats, z: Integers) -> Floats:
    """Return a position for each z: the one that most of its frames have, or else the smallest."""
    order = np.lexsort((*positions.T[::-1], z))
    ascending, place = positions[order], z[order]
    changes = (np.diff(ascending, axis=0) != 0).any(axis=1) | (np.diff(place) > 0)
    starts = np.flatnonzero(np.concatenate([[True], changes]))
    counts = np.diff(np.append(starts, len(z)))
    best = starts[np.lexsort((starts, -counts, place[starts]))]
    return np.asarray(ascending[best[np.flatnonzero(np.diff(place[best], prepend=-1))]])


def _scattered(positions: Floats, origins: Floats, z: Integers, same: float) -> list[Irregularity]:
    """Frames at one distance that do not begin at one point of their plane."""
    apart = np.linalg.norm(positions - origins[z], axis=1)
    rows = np.flatnonzero(apart > same)
    if not len(rows):
        return []
    message = (
        f"{len(rows)} frames share their distance along the normal with others and begin up to "
        f"{apart.max():.4g} mm beside them"
    )
    return [Irregularity("position", message, _tuple(rows))]


def _shear(
    origins: Floats, along: Floats, normal: Floats, same: float, tolerance: Tolerance, z: Integers
) -> tuple[Floats, list[Irregularity]]:
    """Return how far the origin moves in the plane for a millimetre along the normal."""
    if len(along) == 1:
        return np.zeros(3), []
    along = along - along[0]
    sideways = origins - origins[0] - np.outer(along, normal)
    shear = sideways[-1] / along[-1]
    if np.linalg.norm(sideways, axis=1).max() <= same:
        # Of a short stack the last digits of positions look like a tilt.
        return np.zeros(3) if is_tilted(shear) else shear, []
    off = np.linalg.norm(sideways - np.outer(along, shear), axis=1)
    if off.max() > max(same, tolerance.of(np.diff(along).min())):
        worst = int(np.argmax(off))
        message = (
            f"origins do not lie on a line: at {along[worst]:.4g} mm one is {off[worst]:.4g} mm "
            "beside it"
        )
        return shear, [Irregularity("position", message, _tuple(np.flatnonzero(z == worst)))]
    return shear, []


def _tilt_notes(shear: Floats, along: Floats) -> tuple[Note, ...]:
    if not is_tilted(shear):
        return ()
    lean = float(np.linalg.norm(shear))
    each = lean * float(np.median(np.diff(along)))
    text = (
        f"the gantry is tilted by {np.degrees(np.arctan(lean)):.4g}°: each frame begins "
        f"{each:.4g} mm beside the one before, as the affine says"
    )
    return (Note("tilt", text),)


def _grid_notes(along: Floats, steps: Integers | None, same: float) -> tuple[Note, ...]:
    off = 0.0 if steps is None or not len(steps) else off_grid(along, steps)
    if off <= same:
        return ()
    text = (
        f"positions are off an even grid by up to {off:.3g} mm: z is that of the grid, and "
        "position_x, position_y and position_z are as the headers have them"
    )
    return (Note("off-grid", text),)


def _steps(
    along: Floats, tolerance: Tolerance, z: Integers, step: float | None
) -> tuple[Integers | None, list[Irregularity]]:
    steps = missing_steps(along, tolerance, step)
    gaps = np.diff(along)
    if steps is None:
        typical = float(np.median(gaps))
        worst = int(np.argmax(np.abs(gaps - typical)))
        message = (
            f"gaps are uneven, from {gaps.min():.4g} to {gaps.max():.4g} mm (median "
            f"{typical:.4g}): {gaps[worst]:.4g} mm behind the frame that is "
            f"{along[worst] - along[0]:.4g} mm from the first"
        )
        return None, [Irregularity("uneven", message, _tuple(np.flatnonzero(z == worst + 1)))]
    if not len(steps) or steps.max() == 1:
        return steps, []
    step = (along[-1] - along[0]) / steps.sum()
    places = np.setdiff1d(np.arange(steps.sum() + 1), np.concatenate([[0], np.cumsum(steps)]))
    listed = ", ".join(f"{place * step:.4g}" for place in places[:_LISTED])
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    message = (
        f"{len(places)} of {steps.sum() + 1} positions {step:.4g} mm apart are missing, at "
        f"{listed}{more} mm from the first frame"
    )
    before = np.flatnonzero(np.isin(z, np.flatnonzero(steps > 1)))
    return steps, [Irregularity("missing", message, _tuple(before))]


def _tuple(rows: Integers) -> tuple[int, ...]:
    return tuple(rows.tolist())
