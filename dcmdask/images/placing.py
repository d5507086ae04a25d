"""A stack on the grid of another image: its planes put in their places, nothing interpolated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.chunks import to_dask
from dcmdask.arrays.placement import ABSENT, ArrangedFrames
from dcmdask.dicom.instance import issue
from dcmdask.errors import GeometryError, Note
from dcmdask.geometry.planes import Integers
from dcmdask.labelled.grid import check_same_frame, grid_of

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

    if not hasattr(other, "dims"):
        raise TypeError(f"like is an xarray.DataArray, a Stack or a Series, not {type(other)}")
    is_flat = "z" not in other.dims and "z" in other.coords and template.sizes.get("z") == 1
    if is_flat:
        # One plane, such as a level of a slide, has no thickness that heights could be compared by.
        flat, other = other, other.drop_vars("z").expand_dims(z=template.coords["z"].values)
    z, y, x = places_in(other, template, trusted)
    axis = template.dims.index("z")
    placed = to_dask(on_planes(frames, axis, z, other.sizes["z"]), chunks)
    kept = {
        name: one
        for name, one in template.coords.items()
        if name != "patient" and not {*one.dims} & {*_SPATIAL}
    }
    made = xr.DataArray(placed, kept, template.dims, template.name, template.attrs)
    for dim, places in (("y", y), ("x", x)):
        wanted = np.arange(other.sizes[dim])
        _inside(places, len(wanted), f"pixels along {dim}", frames.name)
        if not np.array_equal(places, wanted):
            # Cut out of the other image, or in the opposite direction.
            made = made.assign_coords({dim: places}).reindex(
                {dim: wanted}, fill_value=frames.fill_value
            )
    if is_flat:
        made, other = made.isel(z=0, drop=True), flat
    coordinates = {name: other.coords[name] for name in (*_SPATIAL, "patient")}
    return made.assign_coords(coordinates)


def places_in(other: xr.DataArray, template: xr.DataArray, trusted: bool) -> list[Integers]:
    """Return the index in another array of each plane, row and column; see :func:`on_grid_of`."""
    for one, which in ((template, "the stack"), (other, "the other image")):
        if missing := [dim for dim in _SPATIAL if dim not in one.dims]:
            raise GeometryError(f"{which} has no axis {missing[0]}", code="no-volume")
    check_same_frame(template, other, trusted)
    return grid_of(template).places_in(grid_of(other))


def on_planes(frames: ArrangedFrames, axis: int, places: Integers, length: int) -> ArrangedFrames:
    """Return frames of which those along an axis are at other places, with a note on the rest."""
    inside = _inside(places, length, "planes", frames.name)
    shape = list(frames.numbers.shape)
    shape[axis] = length
    numbers = np.full(shape, ABSENT)
    # A view with the axis in front.
    np.moveaxis(numbers, axis, 0)[places[inside]] = np.moveaxis(frames.numbers, axis, 0)[inside]
    return ArrangedFrames(frames.frames, numbers, frames.fill_value)


def _inside(places: Integers, length: int, what: str, name: str) -> npt.NDArray[np.bool_]:
    """Return which places are inside of the other image, with a note on the others."""
    inside = (places >= 0) & (places < length)
    if not inside.all():
        text = f"{np.count_nonzero(~inside)} of {len(places)} {what} are outside of the other image"
        issue(Note("outside", f"{text}, and left out"), name)
    return inside
