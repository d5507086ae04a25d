"""A projection of every volume along an axis: a picture, and the values as Zarr.

    dcmdask run pipelines/projections.py SOURCE TARGET [OPTIONS]

**--kind** is max (the default), mean or min. **--axis** is z (the default) for a view along
the stack, y or x for one across it, or t for a projection over time. Pictures have square
pixels and the last frame, which is most often nearest to the head, on top. If a projection has
more than two dimensions, the picture shows the middle of the others.

**--center** and **--width** are a window, such as 300 and 1200 for bone; by default a picture
goes from its smallest to its largest value.

Each stack of a series that has the axis is projected; a series without such a stack fails. Values
are those of the modality. Missing, duplicate or unevenly spaced frames are an error that names
them, unless **--on-irregular** keep takes the frames that exist. Missing frames are never filled:
they would count like measured ones.
"""

from typing import Any, Literal

import dcmdask
from dcmdask import batch

# Attributes that hold for a projection, too; its spacing and affine differ from the volume.
ATTRIBUTES = ("values", "modality", "units", "series_uid")


def process(
    series: dcmdask.Series,
    kind: Literal["max", "mean", "min"] = "max",
    axis: Literal["z", "y", "x", "t"] = "z",
    center: float | None = None,
    width: float | None = None,
    on_irregular: Literal["error", "keep"] = "error",
) -> dict[str, Any]:
    """Return the projection of each stack that has the axis, and a picture of it."""
    if (center is None) != (width is None):
        raise ValueError("a window has both a center and a width")
    stacks = [stack for stack in series.stacks if axis in stack.dims]
    if not stacks:
        dims = " and ".join(sorted({str(stack.dims) for stack in series.stacks}))
        raise ValueError(f"there is no axis {axis} to project along: the axes are {dims}")
    results: dict[str, Any] = {"stacks": len(series.stacks), "projected": len(stacks)}
    for number, stack in enumerate(stacks):
        volume = stack.to_xarray(values="modality", on_irregular=on_irregular)
        if "missing" in volume.coords and volume.missing.any():
            raise ValueError(f"{int(volume.missing.sum())} frames of the grid are missing")
        projection = getattr(volume, kind)(axis)
        if kind == "mean":
            projection = projection.astype("float32")
        projection.attrs = {key: volume.attrs[key] for key in ATTRIBUTES if key in volume.attrs}
        name = f"{kind}-{axis}-{number}"
        results[name] = projection
        window = None if center is None else (center, width)
        results[f"{name}-picture"] = batch.Picture(plane(projection), window)
    return results


def plane(projection: Any) -> Any:
    """Return two dimensions of a projection, in the orientation of the picture."""
    shown = [dim for dim in projection.dims if dim != "sample"][-2:]
    others = {dim: projection.sizes[dim] // 2 for dim in projection.dims if dim not in shown}
    others.pop("sample", None)
    projection = projection.isel(others)
    return projection.isel(z=slice(None, None, -1)) if shown[0] == "z" else projection


if __name__ == "__main__":
    batch.main(process, description=__doc__)
