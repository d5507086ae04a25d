"""Segments, or a dose, in colours over a grey image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from dcmdask.errors import GeometryError
from dcmdask.labelled.grid import grid_of
from dcmdask.labelled.resampling import Method, like

# Colours of segments for which the object recommends none, told apart by most eyes (Okabe, Ito).
_PALETTE: Final = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
# Colours of a dose from 0 to its maximum, and the part of that from which on it is shown.
_RAMP: Final = np.array([[0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]], "f4")
_FAINT: Final = 0.1


def over(
    array: xr.DataArray,
    image: xr.DataArray,
    window: tuple[float, float] | None,
    opacity: float,
    ignore_frame_of_reference: bool,
) -> xr.DataArray:
    """Return an array in colours over an image; see :meth:`DicomAccessor.over`."""
    if not 0 < opacity <= 1:
        raise ValueError(f"an opacity of {opacity}: above 0, and at most 1")
    if not isinstance(image, xr.DataArray):
        raise TypeError(
            f"the image is an xarray.DataArray, such as of to_xarray(): not {type(image)}"
        )
    if array.attrs.get("segmentation_type") == "FRACTIONAL" and array.dtype.kind in "iu":
        raise ValueError(
            "these are stored values of fractions: take those of to_xarray('modality')"
        )
    for one, which in ((array, "the array"), (image, "the image")):
        if others := [dim for dim in one.dims if dim not in ("segment", "z", "y", "x")]:
            raise GeometryError(
                f"{which} has also {', '.join(map(str, others))}: select one, such as "
                f"v.isel({others[0]}=0)"
            )
    if "z" in array.coords and array.coords["z"].size == 1 and image.coords["z"].size > 1:
        # One plane is as thick as those of the image are apart, whatever Slice Thickness is.
        attributes = {**array.coords["z"].attrs, "slice_thickness": abs(grid_of(image).z[1])}
        array = array.assign_coords(z=array.coords["z"].assign_attrs(attributes))
    layer, method = _layer(array)
    # Arithmetic of older releases of xarray drops the directions.
    places = [name for name in ("z", "y", "x", "patient") if name in array.coords]
    layer = layer.assign_coords({name: array.coords[name] for name in places})
    layer = like(layer, image, method, 0.0, ignore_frame_of_reference)
    colours, there = layer[..., :3], opacity * layer[..., 3]
    made = _grey(image, window) * (1 - there) + opacity * colours
    made = made.transpose("z", "y", "x", "sample", missing_dims="ignore")
    made = made.round().clip(0, 255).astype("u1")
    kept = {name: one for name, one in image.coords.items() if {*one.dims} <= {*image.dims}}
    return xr.DataArray(made.data, kept, made.dims, "display", {"values": "display"})


def _layer(array: xr.DataArray) -> tuple[xr.DataArray, Method]:
    """Return colours times opacity, and opacity, along ``sample``, and how it is interpolated."""
    method: Method = "nearest"
    if "segment" in array.coords and "segment" not in array.dims:
        # One was selected.
        array = array.expand_dims("segment")
    numbers = array.attrs.get("label_numbers")
    if "segment" not in array.dims and numbers is not None:
        return _looked_up(array, np.atleast_1d(numbers).tolist()), method
    if "segment" in array.dims:
        given = array.coords.get("segment_colour")
        recommended = (
            [""] * array.sizes["segment"] if given is None else np.atleast_1d(given).tolist()
        )
        weights, colours = array.astype("f4").clip(0, 1), _colours(recommended)
    else:
        method, colours = "linear", _RAMP
        top = array.max()
        part = (array / top.where(top > 0, 1)).astype("f4")
        steps = xr.DataArray(np.arange(len(_RAMP), dtype="f4"), dims="segment")
        # Linear between the colours of the ramp.
        weights = (1 - abs(part * (len(_RAMP) - 1) - steps)).clip(0) * (part >= _FAINT)
    total = weights.sum("segment")
    # The mean of the colours of segments that overlap.
    mixed = xr.dot(weights, xr.DataArray(colours, dims=("segment", "sample")), dim="segment")
    layer = xr.concat(
        [mixed / total.clip(1), total.clip(0, 1).expand_dims("sample")], "sample", coords="minimal"
    )
    return layer.transpose(..., "sample"), method


def _looked_up(array: xr.DataArray, numbers: list[int]) -> xr.DataArray:
    """Return the colours of a label map; 0 and numbers that are not described have none."""
    inside = [number for number in numbers if number > 0]
    given = np.atleast_1d(array.attrs.get("label_colours", [""] * len(numbers))).tolist()
    recommended = [colour for number, colour in zip(numbers, given, strict=True) if number > 0]
    table = np.zeros((max(inside, default=0) + 2, 4), "f4")
    table[inside] = np.column_stack([_colours(recommended), np.ones(len(inside), "f4")])
    layer: xr.DataArray = xr.apply_ufunc(
        lambda block: table.take(block, axis=0, mode="clip"),
        array,
        output_core_dims=[["sample"]],
        dask="parallelized",
        output_dtypes=["f4"],
        dask_gufunc_kwargs={"output_sizes": {"sample": 4}},
    )
    return layer


def _colours(recommended: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the colour of each segment, (segments, 3)."""
    found = []
    for place, recommendation in enumerate(recommended):
        text = recommendation or _PALETTE[place % len(_PALETTE)]
        found.append([int(text[start : start + 2], 16) for start in (1, 3, 5)])
    return np.array(found, "f4").reshape(-1, 3)


def _grey(image: xr.DataArray, window: tuple[float, float] | None) -> xr.DataArray:
    if window is None and image.dtype == np.uint8:
        return image.astype("f4")
    image = image.astype("f4")
    low, high = image.min(), image.max()
    if window is not None:
        center, width = window
        if not 0 < width < np.inf:
            raise ValueError(f"a window of center {center} and width {width} shows nothing")
        low, high = xr.DataArray(center - width / 2), xr.DataArray(center + width / 2)
    shown: xr.DataArray = ((image - low) / (high - low) * 255).clip(0, 255).fillna(0)
    return shown
