"""Channels of an OME-Zarr group: label, colour, window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.modality import slope_and_intercept, value_range
from dcmdask.dicom.description import facts_of
from dcmdask.geometry.planes import Floats
from dcmdask.store.contents import Contents
from dcmdask.store.plan import Plan

# Dimensions that are not stored as c.
_OTHERS = frozenset({"t", "z", "y", "x", "frame", "sample"})
_WHITE = "FFFFFF"
_SAMPLES = {
    "RGB": (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")),
    "YBR": (("Y", _WHITE), ("CB", _WHITE), ("CR", _WHITE)),
}


class _Window(NamedTuple):
    """Stored values of black and white, and the range of all values."""

    start: float
    end: float
    least: float
    greatest: float
    inverted: bool = False


def channels_of(dims: Sequence[str]) -> list[str]:
    """Return the dimensions that are stored as c, such as echoes or energy windows."""
    return [dim for dim in dims if dim not in _OTHERS]


def labels(contents: Contents) -> list[str]:
    """Return a label for each c; one label without such an axis."""
    for dim in channels_of(contents.dims):
        told = {
            name: values
            for name, (along, values, _) in contents.coordinates.items()
            if along == (dim,)
        }
        count = contents.frames.shape[contents.dims.index(dim)]
        return [_label(dim, {name: told[name][i] for name in told}, i) for i in range(count)]
    if contents.colour:
        return [label for label, _ in _samples(contents)]
    return [str(contents.attributes.get("units") or contents.values)]


def _label(dim: str, told: dict[str, Any], number: int) -> str:
    if dim == "optical_path":
        return f"optical path {told[dim]}"
    if "component" in told:
        return str(told["component"])
    if "echo" in told:
        return f"echo {told['echo']:g} ms"
    if "echo_number" in told:
        return f"echo {told['echo_number']:g}"
    if "b_value" in told:
        direction = [float(told.get(f"direction_{axis}", np.nan)) for axis in "xyz"]
        along = ", ".join(f"{part:.3g}" for part in direction)
        weighting = f"b {told['b_value']:g} s/mm2"
        return f"{weighting} ({along})" if np.isfinite(direction).all() else weighting
    return f"{dim} {told.get(dim, number)}"


def _samples(contents: Contents) -> Sequence[tuple[str, str]]:
    """Return name and colour of each sample."""
    header: Any = contents.attributes["header"]
    interpretation, count = header["PhotometricInterpretation"], contents.frames.shape[-1]
    known = _SAMPLES.get("YBR" if interpretation.startswith("YBR") else interpretation, ())
    if len(known) == count:
        return known
    return [(f"sample {number}", _WHITE) for number in range(count)]


def described(contents: Contents, plan: Plan) -> list[dict[str, Any]]:
    """Return the entry of ``omero`` for each c.

    It is empty for labels, for values of unknown range, and for a single channel without a
    window, where viewers take a window from the values.
    """
    window = None if contents.is_label_map else _window(contents, plan.dtype)
    if window is None:
        return []
    whole = (window.start, window.end) == (window.least, window.greatest)
    if whole and "c" not in plan.dims and contents.values != "display":
        return []
    colours = [colour for _, colour in _samples(contents)] if contents.colour else None
    together = colours is not None and _WHITE not in colours
    return [
        {
            "label": label,
            "color": colours[number] if colours is not None else _WHITE,
            "active": together or number == 0,
            "inverted": window.inverted,
            "window": {
                "start": window.start,
                "end": window.end,
                "min": window.least,
                "max": window.greatest,
            },
        }
        for number, label in enumerate(labels(contents))
    ]


def _window(contents: Contents, dtype: np.dtype[Any]) -> _Window | None:
    """Return the window that all frames share, in stored values, or else the whole range.

    None where the range is not known, or where the window is not for these values.
    """
    if contents.values == "display":
        return _Window(0.0, 255.0, 0.0, 255.0)
    if contents.values not in ("stored", "modality"):
        return None
    instances, facts = contents.instances, facts_of(contents.instances)
    if any(one.pixel_keyword != "PixelData" for one in instances):
        return None
    # One that cannot be read is infinite.
    slopes, intercepts = slope_and_intercept(facts["slope"], facts["intercept"])
    by_table = any(one.has_modality_lut for one in instances)
    ranges = np.array([value_range(one.bits_stored, one.signed) for one in instances], float)
    stored = contents.values == "stored"
    if stored or contents.colour:
        ends = ranges
    elif not by_table:
        lowest, highest = ranges[:, 0].min(), ranges[:, 1].max()
        ends = np.array([slopes * end + intercepts for end in (lowest, highest)])
    elif dtype.kind in "iu":
        ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], float)
    else:
        return None
    header: Any = contents.attributes["header"]
    inverted = header["PhotometricInterpretation"] == "MONOCHROME1"
    least, greatest = float(ends.min()), float(ends.max())
    whole = _Window(least, greatest, least, greatest, inverted)
    edges = _common_window(facts)
    if contents.colour or edges is None or (stored and by_table):
        return whole
    if stored:
        one = len(np.unique(slopes)) == 1 and len(np.unique(intercepts)) == 1
        if not one or slopes[0] == 0 or not np.isfinite([slopes[0], intercepts[0]]).all():
            return whole
        # A window is applied to rescaled values (PS3.3 C.11.2.1.2).
        edges = np.sort((edges - intercepts[0]) / slopes[0])
        inverted ^= bool(slopes[0] < 0)
    return _Window(float(edges[0]), float(edges[1]), least, greatest, inverted)


def _common_window(facts: npt.NDArray[Any]) -> Floats | None:
    """Return the ends of the window that all frames share (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    columns = ("window_center", "window_width", "window_function")
    if any(len({value.tobytes() for value in facts[column]}) > 1 for column in columns):
        return None
    center, width = float(facts["window_center"][0]), float(facts["window_width"][0])
    half = width / 2
    edges = np.array([center - half, center + half])
    if facts["window_function"][0].strip().upper() in (b"", b"LINEAR"):
        # The ends are centres of values.
        edges[1] -= 1
    # False for NaN.
    return edges if edges[0] < edges[1] < np.inf else None
