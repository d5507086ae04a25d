"""A stack on the grid of another image: its planes put in their places, nothing interpolated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dcmdask.arrays.chunks import to_dask
from dcmdask.arrays.grid import check_same_frame, grid_of
from dcmdask.arrays.placement import ABSENT, ArrangedFrames
from dcmdask.dicom.instance import issue
from dcmdask.errors import GeometryError, Note

if TYPE_CHECKING:
    import xarray as xr

_SPATIAL = ("z", "y", "x")


def on_grid_of(
    other: xr.DataArray,
    template: xr.DataArray,
    frames: ArrangedFrames,
    chunks: int | str | Sequence[Any] | Mapping[int, Any] | None,
    *,
    trusted: bool,
) -> xr.DataArray:
    """Return frames as an array with the z, y and x of another one.

    Parameters
    ----------
    other : xarray.DataArray
    template : xarray.DataArray
        The frames on their own grid; its values are not looked at.
    frames : ArrangedFrames
        With a fill value.
    chunks
        As for :func:`dcmdask.arrays.chunks.plan_chunks`.
    trusted : bool
        Trust positions although the two have not the same frame of reference.

    Raises
    ------
    GeometryError
        One of the two is no volume in the patient, they have not the same frame of reference
        (``frame-of-reference``), or their grids do not coincide (``grid``).
    """
    import xarray as xr

    for one, which in ((template, "the stack"), (other, "the other image")):
        if missing := [dim for dim in _SPATIAL if dim not in one.dims]:
            raise GeometryError(f"{which} has no axis {missing[0]}", code="no-volume")
    check_same_frame(template, other, trusted)
    z, y, x = grid_of(template).places_in(grid_of(other))
    axis = template.dims.index("z")
    inside = (z >= 0) & (z < other.sizes["z"])
    if not inside.all():
        text = f"{np.count_nonzero(~inside)} of {len(z)} planes are outside of the other image"
        issue(Note("outside", f"{text}, and left out"), frames.name)
    fill = frames.fill_value
    shape = list(frames.numbers.shape)
    shape[axis] = other.sizes["z"]
    numbers = np.full(shape, ABSENT)
    # A view with z in front.
    np.moveaxis(numbers, axis, 0)[z[inside]] = np.moveaxis(frames.numbers, axis, 0)[inside]
    placed = to_dask(ArrangedFrames(frames.frames, numbers, fill), chunks)
    kept = {
        name: one
        for name, one in template.coords.items()
        if name != "patient" and not {*one.dims} & {*_SPATIAL}
    }
    made = xr.DataArray(placed, kept, template.dims, template.name, template.attrs)
    for dim, places in (("y", y), ("x", x)):
        wanted = np.arange(other.sizes[dim])
        if not np.array_equal(places, wanted):
            # Cut out of the other image, or in the opposite direction.
            made = made.assign_coords({dim: places}).reindex(
                {dim: wanted}, fill_value=frames.fill_value
            )
    coordinates = {name: other.coords[name] for name in (*_SPATIAL, "patient")}
    return made.assign_coords(coordinates)
