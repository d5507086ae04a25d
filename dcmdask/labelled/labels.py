"""A stack as an xarray DataArray: dimensions, coordinates, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.dicom.conversion import MODALITIES, term, uid
from dcmdask.dicom.conversion import UNITS as UNIT_TERMS
from dcmdask.dicom.description import Described
from dcmdask.dicom.quantities.real_world import is_real_world, real_world_units
from dcmdask.dicom.quantities.suv import SUV_UNITS
from dcmdask.geometry.coordinates import Coordinates
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.grid import Geometry
from dcmdask.geometry.patient import PatientAxes, along_axis, patient_axes
from dcmdask.geometry.planes import Floats, common_spacing

if TYPE_CHECKING:
    import xarray as xr

Labels: TypeAlias = "tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]"
"""Dimensions, values and attributes of a coordinate."""

# Units of coordinates, in the notation of UCUM.
UNITS = {
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
    "positioner_primary_angle": "deg",
    "positioner_secondary_angle": "deg",
    "positioner_primary_angle_increment": "deg",
    "positioner_secondary_angle_increment": "deg",
}

# Attributes of an array where they are the same for all frames, and their columns in the facts:
# in ms, degrees, mm and T, as the standard has them.
PARAMETERS = {
    "repetition_time": "repetition_time",
    "echo_time": "echo_time",
    "inversion_time": "inversion_time",
    "flip_angle": "flip_angle",
    "slice_thickness": "thickness",
    "magnetic_field_strength": "field_strength",
}


def labelled(
    array: Any,
    arrangement: Arrangement,
    instances: Sequence[Described],
    facts: npt.NDArray[Any],
    attributes: Mapping[str, Any],
) -> xr.DataArray:
    """Return `array` with the names, coordinates and attributes that the headers give.

    Parameters
    ----------
    array : dask.array.Array, or an array of xarray for lazy indexing
        (*arrangement.dims, rows, columns[, samples]).
    arrangement : Arrangement
    instances, facts : sequence of Described, ndarray
        Those of the stack.
    attributes : mapping
        As :func:`attributes` returns them, and others.

    Raises
    ------
    ImportError
        xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise ImportError("labels need xarray: pip install 'dcmdask[xarray]'") from error

    import dcmdask.labelled.accessor  # noqa: F401  results have `.dcm` from here on

    dims = (*arrangement.dims, "y", "x", "sample")[: array.ndim]
    found = coordinates(array.shape, dims, arrangement, instances, facts)
    labels = {name: xr.Variable(*one) for name, one in found.items()}
    # Without the label of a mapping, which files of other formats may not have in a name.
    name = str(attributes["values"]).partition(":")[0]
    return xr.DataArray(array, labels, dims, name=name, attrs=dict(attributes))


def attributes(
    instances: Sequence[Described], facts: npt.NDArray[Any], values: str, series_uid: str
) -> dict[str, Any]:
    """Return what the headers say of an array as a whole.

    ``values``, ``series_uid``, and where they are known ``modality`` and ``units``. Where
    it is not Pixel Spacing, ``spacing_source`` is the keyword of the element that the distance of
    pixels of all frames is from: of a detector, or of the regions of ultrasound. Where they
    are the same for all frames ``repetition_time``, ``echo_time`` and ``inversion_time`` in ms,
    ``flip_angle`` in degrees, ``slice_thickness`` in mm and ``magnetic_field_strength`` in T.
    """
    found: dict[str, Any] = {"values": values, "series_uid": uid(series_uid) or ""}
    if (modality := term(instances[0].modality, MODALITIES)) is not None:
        found["modality"] = modality
    return found | physical(instances, facts, values)


def physical(
    instances: Sequence[Described], facts: npt.NDArray[Any], values: str
) -> dict[str, Any]:
    """Return those of :func:`attributes` that are units, spacings and parameters."""
    unit = units(instances, facts, values)
    found: dict[str, Any] = {} if unit is None else {"units": unit}
    return found | spacing_source(instances, facts) | parameters(facts)


def spacing_source(instances: Sequence[Described], facts: npt.NDArray[Any]) -> dict[str, str]:
    """Return ``spacing_source``, where all frames have a spacing from one such element."""
    sources = {one.spacing_source for one in instances}
    if len(sources) > 1 or sources == {""} or np.isnan(_spacing(instances, facts)).any():
        return {}
    return {"spacing_source": sources.pop()}


def parameters(facts: npt.NDArray[Any]) -> dict[str, float]:
    """Return the values of `PARAMETERS` that are known and the same for all frames.

    None of them is negative or 0, which is written where a value is not known.
    """
    firsts = {name: float(facts[column][0]) for name, column in PARAMETERS.items()}
    return {
        name: first
        for name, first in firsts.items()
        if 0 < first < np.inf and (facts[PARAMETERS[name]] == first).all()
    }


def coordinates(
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    arrangement: Arrangement,
    instances: Sequence[Described],
    facts: npt.NDArray[Any],
) -> dict[str, Labels]:
    """Return the coordinates of an array (*arrangement.dims, y, x[, sample]).

    ``x``, ``y`` and ``z`` are in mm along the image's own axes, from the origin of the patient's
    axes (:mod:`dcmdask.geometry.patient`); ``patient`` has the directions. Frames without a
    common position in their plane have ``x`` and ``y`` from their first pixel, and no
    ``patient``.
    """
    found = with_units(arrangement.coordinates)
    geometry, origin = arrangement.geometry, (0.0, 0.0)
    spacing = _spacing(instances, facts) if geometry is None else geometry.spacing[1:]
    if geometry and geometry.in_patient and (axes := _axes(geometry, instances)) is not None:
        x, y, _ = axes.coordinates_of(geometry.origin).tolist()
        origin = y, x
        found["patient"] = ((), np.array(axes.identity(instances[0].series_uid)), axes.attributes())
    for dim, first, step in zip(("y", "x"), origin, spacing, strict=True):
        if np.isfinite(step):
            values = along_axis(first, step, shape[dims.index(dim)])
            found[dim] = ((dim,), values, {"units": "mm"})
    thickness = parameters(facts).get("slice_thickness")
    if "z" in found and thickness is not None:
        dims_of_z, z, units_of_z = found["z"]
        found["z"] = (dims_of_z, z, {**units_of_z, "slice_thickness": thickness})
    return found


def _axes(geometry: Geometry, instances: Sequence[Described]) -> PatientAxes | None:
    uids = {one.frame_of_reference_uid for one in instances}
    # Several, which a de-identification may have made, are none.
    return patient_axes(geometry, (uid(uids.pop()) or "") if len(uids) == 1 else "")


def with_units(coordinates: Coordinates) -> dict[str, Labels]:
    """Return coordinates with units; a vector in the patient is one for each of its axes."""
    found: dict[str, Labels] = {}
    for name, (along, values) in coordinates.items():
        attributes = {"units": UNITS[name]} if name in UNITS else {}
        if along[-1:] == ("patient",):
            parts = zip("xyz", np.moveaxis(values, -1, 0), strict=True)
            found |= {f"{name}_{axis}": (along[:-1], part, attributes) for axis, part in parts}
        else:
            found[name] = (along, values, attributes)
    return found


def _spacing(instances: Sequence[Described], facts: npt.NDArray[Any]) -> Floats:
    return common_spacing(facts, instances[0].rows, instances[0].columns)


def units(instances: Sequence[Described], facts: npt.NDArray[Any], values: str) -> str | None:
    """Return the unit of the values, or None where the header does not tell.

    Of ``"modality"``, where it is that of all frames: (0054,1001) Units of PET;
    (0028,1054) Rescale Type, where it is not ``"US"``, unspecified; Hounsfield units for CT
    that is rescaled without one (PS3.3 C.8.2.1). A Modality LUT has none. Of SUV and real world
    values in the notation of UCUM, those of the latter as the mappings of all frames have them.
    """
    if values in SUV_UNITS:
        return SUV_UNITS[values]
    if is_real_world(values):
        return real_world_units(instances, values)
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
