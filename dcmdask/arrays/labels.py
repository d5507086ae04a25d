"""A stack as an xarray DataArray: dimensions, coordinates, units, affine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.conversion import MODALITIES, term, uid
from dcmdask.dicom.conversion import UNITS as UNIT_TERMS
from dcmdask.dicom.description import Described
from dcmdask.geometry.coordinates import Coordinates
from dcmdask.geometry.dimensions import Arrangement

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

# Units of coordinates, in the notation of UCUM.
UNITS = {
    "x": "mm",
    "y": "mm",
    "z": "mm",
    "position_x": "mm",
    "position_y": "mm",
    "position_z": "mm",
    "t": "ms",
    "acquisition_time": "ms",
    "trigger_time": "ms",
    "reference_time": "ms",
    "content_time": "ms",
    "echo": "ms",
    "echo_time": "ms",
    "b_value": "s/mm2",
}


def labelled(
    array: da.Array,
    arrangement: Arrangement,
    instances: Sequence[Described],
    facts: npt.NDArray[Any],
    values: str,
    series_uid: str,
) -> xr.DataArray:
    """Return `array` with the names, coordinates and attributes that the headers give.

    Parameters
    ----------
    array : dask.array.Array
        (*arrangement.dims, rows, columns[, samples]).
    arrangement : Arrangement
    instances, facts : sequence of Described, ndarray
        Those of the stack.
    values : str
        ``"stored"``, ``"modality"`` or ``"display"``.
    series_uid : str

    Raises
    ------
    ImportError
        xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise ImportError("labels need xarray: pip install 'dcmdask[xarray]'") from error

    dims = (*arrangement.dims, "y", "x", "sample")[: array.ndim]
    labels = {
        name: xr.Variable(along, found, {"units": UNITS[name]} if name in UNITS else {})
        for name, (along, found) in coordinates(array.shape, dims, arrangement).items()
    }
    attrs = attributes(arrangement, instances, facts, values, series_uid)
    return xr.DataArray(array, labels, dims, name=values, attrs=attrs)


def attributes(
    arrangement: Arrangement,
    instances: Sequence[Described],
    facts: npt.NDArray[Any],
    values: str,
    series_uid: str,
) -> dict[str, Any]:
    """Return what the headers give of an array as a whole.

    ``values``, ``series_uid``; where they are known ``modality``, ``units``, and of the
    geometry ``spacing``, ``orientation`` and ``affine``.
    """
    geometry = arrangement.geometry
    found: dict[str, Any] = {"values": values, "series_uid": uid(series_uid) or ""}
    if (modality := term(instances[0].modality, MODALITIES)) is not None:
        found["modality"] = modality
    if (unit := units(instances, facts, values)) is not None:
        found["units"] = unit
    if geometry is not None:
        found["spacing"] = geometry.spacing
        found["orientation"] = geometry.orientation
        if geometry.affine is not None:
            found["affine"] = geometry.affine
    return found


def coordinates(
    shape: tuple[int, ...], dims: tuple[str, ...], arrangement: Arrangement
) -> Coordinates:
    """Return the coordinates of an array (*arrangement.dims, y, x[, sample]).

    Where a value is a vector in the patient, one coordinate for each of its axes.
    """
    found: Coordinates = {}
    for name, (along, values) in arrangement.coordinates.items():
        if along[-1:] == ("patient",):
            # An axis that the array does not have: one coordinate for each of three.
            parts = zip("xyz", np.moveaxis(values, -1, 0), strict=True)
            found |= {f"{name}_{axis}": (along[:-1], part) for axis, part in parts}
        else:
            found[name] = (along, values)
    geometry = arrangement.geometry
    if geometry is not None:
        _, between_rows, between_columns = geometry.spacing
        for name, spacing in (("y", between_rows), ("x", between_columns)):
            if np.isfinite(spacing):
                found[name] = ((name,), np.arange(shape[dims.index(name)]) * spacing)
    return found


def units(instances: Sequence[Described], facts: npt.NDArray[Any], values: str) -> str | None:
    """Return the unit of the values, or None where the header does not tell.

    Of ``"modality"`` only, where it is that of all frames: (0054,1001) Units of PET;
    (0028,1054) Rescale Type, where it is not ``"US"``, unspecified; Hounsfield units for CT
    that is rescaled without one (PS3.3 C.8.2.1). A Modality LUT has none.
    """
    if values != "modality" or any(one.has_modality_lut for one in instances):
        return None
    types = {word.decode("ascii", "replace") for word in np.unique(facts["rescale_type"])}
    found = {one.units for one in instances}
    if found != {""}:
        found |= types - {"", "US"}
    elif {one.modality for one in instances} == {"CT"} and _is_rescaled(facts):
        found = {word or "HU" for word in types}
    else:
        found = types
    return term(found.pop(), UNIT_TERMS) if len(found) == 1 else None


def _is_rescaled(facts: npt.NDArray[Any]) -> bool:
    return bool((np.isfinite(facts["slope"]) | np.isfinite(facts["intercept"])).all())
