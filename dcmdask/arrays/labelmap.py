"""Label maps: one volume of segment numbers, made of segments that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

Array: TypeAlias = "npt.NDArray[Any]"

# Parts that are laid over one another in a task.
_TOGETHER = 16


def labelmap(array: xr.DataArray) -> xr.DataArray:
    """Return the numbers of segments as one array; see :meth:`DicomAccessor.labelmap`."""
    if "segment" not in array.dims or "segment_number" not in array.coords:
        raise ValueError("a label map is made of segments, and the array has no such dimension")
    if array.attrs.get("segmentation_type") == "FRACTIONAL" and array.dtype != bool:
        raise ValueError(
            "parts of fractions are in no segment or another: compare them first, such as "
            "(v > 0.5).dcm.labelmap()"
        )
    array = array.transpose("segment", ...)
    numbers = np.asarray(array.coords["segment_number"].values)
    dtype = np.min_scalar_type(int(numbers.max(initial=0)))
    across = numbers.astype(dtype).reshape(-1, *[1] * (array.ndim - 1))
    data: Any = array.data
    if isinstance(data, np.ndarray):
        laid = _laid_over(_numbered(data, across), (0,), False)
    else:
        import dask.array as da

        chunks = ((1,) * len(data.chunks[0]), *data.chunks[1:])
        of_each = da.from_array(across, chunks=(data.chunks[0], *[1] * (array.ndim - 1)))
        parts = da.map_blocks(_numbered, data, of_each, dtype=dtype, chunks=chunks)
        laid = da.reduction(
            parts,
            chunk=_itself,
            aggregate=_laid_over,
            axis=0,
            dtype=dtype,
            split_every=_TOGETHER,
            concatenate=False,
            meta=np.empty((0,) * (array.ndim - 1), dtype),
        )
    names = [name for name, one in array.coords.items() if "segment" not in one.dims]
    attributes = {
        **array.attrs,
        "segmentation_type": "LABELMAP",
        "label_numbers": numbers.tolist(),
        "labels": list(map(str, array.coords["segment"].values)),
    }
    coordinates = {name: array.coords[name] for name in names}
    return xr.DataArray(laid, coordinates, array.dims[1:], "labels", attributes)


def _itself(part: Array, axis: Sequence[int], keepdims: bool) -> Array:
    return part


def _numbered(segments: Array, numbers: Array) -> Array:
    """Return (1, ...): the number of the segment of each voxel, 0 where there is none."""
    out = np.zeros((1, *segments.shape[1:]), numbers.dtype)
    for segment, number in zip(segments, numbers.reshape(-1), strict=True):
        _lay(out[0], segment, number)
    return out


def _laid_over(parts: Any, axis: Sequence[int], keepdims: bool) -> Array:
    """Return several label maps as one."""
    first, *others = parts if isinstance(parts, list) else [parts]
    # The first is no one else's.
    for other in others:
        _lay(first[0], other[0])
    return np.asarray(first if keepdims else first[0])


def _lay(below: Array, above: Array, number: Any = None) -> None:
    """Lay a label map, or a segment of this number, over another label map."""
    rows = below.shape[-2:]
    for under, over in zip(below.reshape(-1, *rows), above.reshape(-1, *rows), strict=True):
        # Most planes of most segments are empty.
        if not over.max():
            continue
        where = over != 0
        if (double := np.count_nonzero(np.logical_and(under, where))) > 0:
            one = int(under[where].max())
            other = int(over.max() if number is None else number)
            raise ValueError(
                f"segments {min(one, other)} and {max(one, other)} overlap, in {double} voxels of "
                "a plane: no label map holds both; leave one out by v.sel(segment=[...])"
            )
        np.copyto(under, over if number is None else number, where=where)
