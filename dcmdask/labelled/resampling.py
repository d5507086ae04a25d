"""Images on other grids: lazily, block by block of the result."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.placement import fitting
from dcmdask.errors import GeometryError
from dcmdask.geometry.patient import PatientAxes, along_axis
from dcmdask.geometry.planes import Floats
from dcmdask.labelled.grid import Grid, check_same_frame, grid_of

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

Method = Literal["linear", "nearest"]
_ORDERS = {"nearest": 0, "linear": 1}
_SPATIAL = ("z", "y", "x")
# Bytes of a block of the result, which scipy computes with 8 bytes a value.
_BLOCK = 32 * 2**20
# Voxels of a result on its own grid: more are no image but a slip of the unit, since one volume
# of them is 4 TB in single precision.
_MOST = 2**40
# Indices that are closer are one.
_SAME = 1e-6


def like(
    array: xr.DataArray,
    other: xr.DataArray,
    method: Method,
    fill_value: float | None,
    ignore_frame_of_reference: bool,
) -> xr.DataArray:
    """Return an array on the grid of another one."""
    source, target = grid_of(array), grid_of(other)
    check_same_frame(array, other, ignore_frame_of_reference)
    coordinates = {dim: other.coords[dim] for dim in (*_SPATIAL, "patient")}
    return _resampled(array, source, target, coordinates, method, fill_value)


def isotropic(
    array: xr.DataArray, spacing: float | None, method: Method, fill_value: float | None
) -> xr.DataArray:
    """Return an array with one spacing."""
    source = grid_of(array)
    if source.axes.tilted:
        raise GeometryError("the gantry is tilted: v.dcm.untilted() first", code="tilt")
    if spacing is None:
        spacing = min(abs(step) for _, step in (source.z, source.y, source.x))
    if not 0 < spacing < np.inf:
        raise ValueError(f"a spacing of {spacing} mm: greater than 0")
    along: list[tuple[float, float]] = []
    shape: list[int] = []
    for (first, step), length in zip((source.z, source.y, source.x), source.shape, strict=True):
        # A step that is nearly whole is whole.
        shape.append(int(np.floor((length - 1) * abs(step) / spacing + 1e-6)) + 1)
        along.append((first, float(np.copysign(spacing, step))))
    target = Grid(source.axes, along[0], along[1], along[2], (shape[0], shape[1], shape[2]))
    return _on_own_grid(array, source, target, method, fill_value)


def untilted(array: xr.DataArray, method: Method, fill_value: float | None) -> xr.DataArray:
    """Return an array of a tilted gantry on a grid of right angles."""
    source = grid_of(array)
    axes, shear = source.axes, source.axes.shear
    if not axes.tilted:
        return array
    ends = np.array([source.z[0], source.z[0] + source.z[1] * (source.shape[0] - 1)])
    along, shape = [source.z], [source.shape[0]]
    for (first, step), length, lean in zip(
        (source.y, source.x), source.shape[1:], shear[::-1], strict=True
    ):
        moves = (ends - axes.shear_origin) * lean
        # Whole pixels before the first and behind the last, so that no interpolation is needed
        # in a plane that is not moved.
        before = np.ceil(max(-(moves / step).min(), 0.0) - 1e-6)
        behind = np.ceil(max((moves / step).max(), 0.0) - 1e-6)
        along.append((first - before * step, step))
        shape.append(int(length + before + behind))
    upright = PatientAxes(axes.row, axes.column, frame_of_reference_uid=axes.frame_of_reference_uid)
    target = Grid(upright, along[0], along[1], along[2], (shape[0], shape[1], shape[2]))
    return _on_own_grid(array, source, target, method, fill_value)


def _on_own_grid(
    array: xr.DataArray, source: Grid, target: Grid, method: Method, fill_value: float | None
) -> xr.DataArray:
    import xarray as xr

    if math.prod(target.shape) > _MOST:
        raise ValueError(
            f"the result would have {' x '.join(map(str, target.shape))} voxels, more than {_MOST}"
        )
    coordinates = {}
    for dim, (first, step), length in zip(
        _SPATIAL, (target.z, target.y, target.x), target.shape, strict=True
    ):
        values = along_axis(first, step, length)
        coordinates[dim] = xr.DataArray(values, dims=dim, attrs=array.coords[dim].attrs)
    coordinates["patient"] = xr.DataArray(
        target.axes.identity(str(array.attrs.get("series_uid", ""))),
        attrs=target.axes.attributes(),
    )
    return _resampled(array, source, target, coordinates, method, fill_value)


def _resampled(
    array: xr.DataArray,
    source: Grid,
    target: Grid,
    coordinates: dict[str, xr.DataArray],
    method: Method,
    fill_value: float | None,
) -> xr.DataArray:
    import dask.array as da
    import xarray as xr

    if method not in _ORDERS:
        raise ValueError(f"method is one of {', '.join(_ORDERS)}, not {method!r}")
    dtype = array.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(f"resampling takes real numbers of at most 64 bits, and not {dtype}")
    # SciPy has no half precision.
    if (method == "linear" and dtype.kind != "f") or dtype == np.float16:
        dtype = np.dtype("f4" if dtype.itemsize <= 2 else "f8")
    if fill_value is None:
        fill_value = np.nan if dtype.kind == "f" else 0
    fill_value = fitting(fill_value, dtype)
    volume = array.expand_dims([dim for dim in _SPATIAL if dim not in array.dims])
    others = [dim for dim in volume.dims if dim not in _SPATIAL]
    volume = volume.transpose(*others, *_SPATIAL)
    data = volume.data if volume.chunks else da.from_array(volume.data, chunks=-1)
    # From indices of the result to those of the source, along z, y and x.
    matrix = (np.linalg.inv(source.affine) @ target.affine)[:3, :3][::-1, ::-1]
    offset = (np.linalg.inv(source.affine) @ target.affine)[:3, 3][::-1]
    result = _blocks(data, matrix, offset, target.shape, dtype, fill_value, _ORDERS[method])
    kept = {
        name: one
        for name, one in array.coords.items()
        if name not in coordinates and not {*one.dims} & {*_SPATIAL}
    }
    made = xr.DataArray(
        result,
        {**kept, **coordinates},
        (*others, *_SPATIAL),
        name=array.name,
        attrs=array.attrs,
    )
    # A grid of a plane has one position; that of a volume more axes than an array of a plane.
    made = made.isel({dim: 0 for dim in _SPATIAL if coordinates[dim].ndim == 0})
    if set(made.dims) == set(array.dims):
        return made.transpose(*array.dims)
    last = [dim for dim in others if dim == "sample"]
    return made.transpose(..., *(dim for dim in _SPATIAL if dim in made.dims), *last)


def _blocks(
    data: da.Array,
    matrix: Floats,
    offset: Floats,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    fill_value: float,
    order: int,
) -> da.Array:
    """Return the result as blocks, each made of the part of the source that it lies in."""
    import dask.array as da

    parts = [_parts(length, size) for length, size in zip(shape, _lengths(shape), strict=True)]
    lengths = np.array(data.shape[-3:])
    leading = data.ndim - 3
    made = np.empty([len(part) for part in parts], object)
    for number in itertools.product(*(range(len(part)) for part in parts)):
        starts = np.array([part[i][0] for part, i in zip(parts, number, strict=True)])
        stops = np.array([part[i][1] for part, i in zip(parts, number, strict=True)])
        corners = np.array(list(itertools.product(*zip(starts, stops - 1, strict=True))))
        inside = corners @ matrix.T + offset
        low = np.clip(np.floor(inside.min(0)).astype(int), 0, lengths - 1)
        high = np.clip(np.ceil(inside.max(0)).astype(int) + 1, low + 1, lengths)
        block = data[(..., *map(slice, low, high))]
        block = block.rechunk({axis: -1 for axis in range(leading, data.ndim)})
        size = tuple((stops - starts).tolist())
        made[number] = block.map_blocks(
            _block,
            matrix=matrix,
            offset=matrix @ starts + offset - low,
            shape=size,
            first=-low,
            last=lengths - 1 - low,
            fill_value=fill_value,
            order=order,
            result=dtype,
            dtype=dtype,
            chunks=(*block.chunks[:leading], *((n,) for n in size)),
            meta=np.empty((0,) * data.ndim, dtype),
        )
    joined: da.Array = da.block(made.tolist())
    return joined


def _block(
    block: npt.NDArray[Any],
    *,
    matrix: Floats,
    offset: Floats,
    shape: tuple[int, ...],
    first: npt.NDArray[Any],
    last: npt.NDArray[Any],
    fill_value: float,
    order: int,
    result: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Interpolate one block; `first` and `last` are the ends of the whole source in its indices."""
    from scipy import ndimage

    outside_of = _outside_of(matrix, offset, shape, first, last)
    if outside_of.all():
        return np.full((*block.shape[:-3], *shape), fill_value, result)
    found = np.empty((*block.shape[:-3], *shape), result)
    for place in np.ndindex(block.shape[:-3]):
        values = block[place]
        if values.dtype == np.float16 or values.dtype == bool:
            values = values.astype("f4")
        ndimage.affine_transform(
            values, matrix, offset, shape, found[place], order=order, mode="nearest"
        )
    if outside_of.any():
        np.copyto(found, fill_value, where=outside_of)
    return found


def _outside_of(
    matrix: Floats,
    offset: Floats,
    shape: tuple[int, ...],
    first: npt.NDArray[Any],
    last: npt.NDArray[Any],
) -> npt.NDArray[np.bool_]:
    """Return where a block is outside of the source, as an array that broadcasts to its shape.

    As in SimpleITK, half a pixel around the outermost centres is inside.
    """
    outside_of = np.zeros((1, 1, 1), bool)
    indices = np.ogrid[tuple(map(slice, shape))]
    for axis in range(3):
        along = np.full((1, 1, 1), offset[axis])
        for factor, index in zip(matrix[axis], indices, strict=True):
            # Most grids are turned about one axis, and need no array of all voxels.
            if abs(factor) * index.size > _SAME:
                along = along + factor * index
        outside_of = outside_of | (along < first[axis] - 0.5) | (along > last[axis] + 0.5)
    return outside_of


def _lengths(shape: Sequence[int]) -> list[int]:
    """Return the lengths of blocks: whole planes, as many as fit, and parts of large ones."""
    rows = max(1, min(shape[1], _BLOCK // (8 * shape[2])))
    planes = max(1, min(shape[0], _BLOCK // (8 * shape[2] * rows)))
    return [planes, rows, shape[2]]


def _parts(length: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, length)) for start in range(0, length, size)]
