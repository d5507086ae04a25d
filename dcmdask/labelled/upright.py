"""Volumes as they are looked at: the head or the front on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcmdask.errors import GeometryError
from dcmdask.labelled.grid import grid_of

if TYPE_CHECKING:
    import xarray as xr


def upright(array: xr.DataArray) -> tuple[xr.DataArray, tuple[float, float, float]]:
    """Return a volume with axes towards the head, the back and the left, and its spacing.

    Each axis of the image is that of the patient's which it is nearest to; nothing is
    interpolated.

    Raises
    ------
    GeometryError
        There are other axes, or no coordinates in the patient.
    """
    spatial = ("z", "y", "x", "sample")
    shape = {dim: n for dim, n in array.sizes.items() if dim not in spatial}
    if shape:
        raise GeometryError(
            f"a picture of a volume has z, y and x, and the array has also "
            f"{', '.join(map(str, shape))}: select one, such as v.isel({next(iter(shape))}=0)"
        )
    volume = array
    for dim in ("z", "y", "x"):
        if dim not in volume.dims:
            volume = volume.expand_dims(dim)
    grid = grid_of(volume)
    steps = dict(zip("xyz", (grid.x, grid.y, grid.z), strict=True))
    # The image axis that is nearest to each of the patient's axes, and where it points.
    directions = grid.axes.directions
    order, flips = [], {}
    for patient in (2, 1, 0):
        free = [i for i in range(3) if "xyz"[i] not in order]
        nearest = max(free, key=lambda i: abs(directions[patient, i]))
        dim = "xyz"[nearest]
        order.append(dim)
        if directions[patient, nearest] * steps[dim][1] < 0:
            flips[dim] = slice(None, None, -1)
    spacing = [abs(steps[dim][1]) for dim in order]
    turned = volume.transpose(*order, "sample", missing_dims="ignore").isel(flips)
    return turned, (spacing[0], spacing[1], spacing[2])
