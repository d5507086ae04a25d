"""Metadata of OME-Zarr 0.5 and 0.4: axes, scales, translations, channels.

An image of OME-Zarr has at most the axes t, c, z, y and x, each of them even. Other images are
refused. An axis of frames that differ in neither position nor time is called ``frame`` and has
no type, which the format allows in the place of c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from dcmdask.dicom.description import facts_of
from dcmdask.errors import Advice, IrregularSeriesError, LayoutError
from dcmdask.geometry.coordinates import MILLISECONDS
from dcmdask.geometry.grid import Geometry, is_tilted
from dcmdask.geometry.patient import patient_axes
from dcmdask.geometry.planes import Floats
from dcmdask.images.assembly import FILL, SPLIT
from dcmdask.labelled.labels import Labels
from dcmdask.store.contents import Contents
from dcmdask.store.ome.channels import channels_of, described, labels
from dcmdask.store.plan import Axes, Plan
from dcmdask.store.pyramid import Shape
from dcmdask.store.zarr_format import ZarrFormat

# Irregularities of a grid that scale and translation cannot express.
_UNEVEN = frozenset({"missing", "uneven", "duplicate", "position"})
# z is halved where its spacing is at most this times that in the plane.
_THICK = 1.5
# Times are even if they are off by less than this part of a step.
_EVEN_TIMES = 1e-3
OmeVersion: TypeAlias = Literal["0.4", "0.5"]
DEFAULT_VERSION: OmeVersion = "0.5"
# Attributes of a group that are the metadata of an image; 0.5 has them in the first one.
KEYS: Mapping[OmeVersion, tuple[str, ...]] = {
    "0.4": ("multiscales", "omero", "image-label"),
    "0.5": ("ome",),
}
_INSTEAD = Advice("format", "zarr", "stores it as it is")


class Part(NamedTuple):
    """Levels of a multiscale: an image, and those that are made of it.

    Attributes
    ----------
    contents : Contents
    plan : Plan
        With the axes of :func:`axes`.
    names : sequence of str
        Names of the arrays, one for each level.
    """

    contents: Contents
    plan: Plan
    names: Sequence[str]


def axes(contents: Contents) -> tuple[Shape, Axes]:
    """Return the shape and the axes of arranged frames in OME-Zarr.

    Samples are stored as c, in front of the space, and so is a dimension that is neither time nor
    space, such as diffusion weightings, echoes or energy windows. Frames without a position are t
    if they are of one instance that gives the time of each, or if there is just one. z is halved
    where its spacing is at most 1.5 times that in the plane, the larger of two: halving y and x
    alone would make them coarser than z. Focal planes of a slide are not halved: its own levels
    have all of them. More than one dimension to be stored as c, or an uneven grid, is refused.
    """
    frames, geometry = contents.frames, _geometry(contents)
    own = contents.dims[: frames.frame_axes]
    lengths = dict(zip(contents.dims, frames.shape, strict=True))
    stored_as = dict.fromkeys(channels_of(own), "c")
    # A single frame has one time, even if it is not known.
    if own == ("frame",) and (len(frames) == 1 or _times(contents) is not None):
        stored_as["frame"] = "t"
    stored = [stored_as.get(dim, dim) for dim in own]
    beyond = [dim for dim, name in zip(own, stored, strict=True) if name in ("c", "frame")]
    beyond += ["sample"] * contents.colour
    if len(beyond) > 1:
        raise LayoutError(
            f"OME-Zarr has one axis beyond t, z, y and x, and {' and '.join(beyond)} "
            f"({' and '.join(str(lengths[dim]) for dim in beyond)} long) need it",
            source=frames.name,
            advice=[_INSTEAD],
        )
    if geometry is not None:
        _check_even(geometry, frames.name)
    space = ["y", "x"]
    if stored[-1:] == ["z"]:
        space = [stored.pop(), *space]
    dims = (*stored, *(["c"] if contents.colour else []), *space)
    shape = [lengths[dim] for dim in own]
    shape[len(stored) : len(stored)] = [lengths["sample"]] if contents.colour else []
    shape += [lengths["y"], lengths["x"]]
    samples_axis = len(stored) if contents.colour else None
    return tuple(shape), Axes(
        dims,
        tuple(
            axis
            for axis in range(len(dims) - (2 if contents.tile is None else 0))
            if axis != samples_axis
        ),
        samples_axis,
        tuple(
            axis
            for axis, dim in enumerate(dims)
            if shape[axis] > 1
            and (dim in ("y", "x") or (dim == "z" and contents.tile is None and _is_fine(geometry)))
        ),
        contents.tile,
    )


def zarr_format_of(version: str) -> ZarrFormat:
    """Return the Zarr format that a version of OME-Zarr is stored in."""
    return 2 if version == "0.4" else 3


def metadata(
    parts: Sequence[Part],
    version: OmeVersion = DEFAULT_VERSION,
    image_label: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of the group of an image, validated.

    Lengths are in millimetres and times in milliseconds; an axis of which the spacing is
    not known, or which is not even in time, has the scale 1 and no unit. A translation is the
    position of the first pixel's centre in the patient, along the stack's own normal, columns
    and rows; on the levels above, it is the centre of the pixels that the first one is the mean
    of. Levels of a slide, the parts after the first, have the scale and the translation of their
    own headers. An image of labels also has `image_label`.
    """
    try:
        from yaozarrs import v04, v05
    except ImportError as error:
        raise ImportError("OME-Zarr needs yaozarrs: pip install 'dcmdask[ome]'") from error

    contents, plan, _ = parts[0]
    spacing = _spacing(contents)
    multiscale: dict[str, Any] = {
        "axes": [_axis(dim, dim in spacing) for dim in plan.dims],
        "datasets": [dataset for part in parts for dataset in _datasets(part)],
    }
    modality = contents.attributes.get("modality")
    if modality:
        multiscale["name"] = modality
    if any(len(part.names) > 1 for part in parts):
        multiscale["type"] = "first" if contents.is_label_map else "mean"
    told: dict[str, Any] = {"multiscales": [multiscale]}
    if channels := described(contents, plan):
        told["omero"] = {"channels": channels}
    if version == "0.4":
        multiscale["version"] = version
    else:
        told["version"] = version
    of_image = v04.Image if version == "0.4" else v05.Image
    dumped: dict[str, Any] = of_image.model_validate(told).model_dump(
        mode="json", exclude_none=True
    )
    if image_label is not None:
        dumped["image-label"] = dict(image_label)
        if version == "0.4":
            dumped["image-label"]["version"] = version
        (v04.LabelImage if version == "0.4" else v05.LabelImage).model_validate(dumped)
    return _attributes(dumped, version)


def _datasets(part: Part) -> Iterator[dict[str, Any]]:
    """Yield each level with its scale and translation."""
    contents, plan, names = part
    spacing, origin = _spacing(contents), _origin(contents)
    scale = [spacing.get(dim, 1.0) for dim in plan.dims]
    for level, name in enumerate(names):
        factors = [2**level if axis in plan.halved else 1 for axis in range(len(scale))]
        at = [origin.get(dim, 0.0) for dim in plan.dims]
        if not contents.is_label_map:
            at = [
                first + (factor - 1) / 2 * step
                for first, factor, step in zip(at, factors, scale, strict=True)
            ]
        transformations = [
            {
                "type": "scale",
                "scale": [f * step for f, step in zip(factors, scale, strict=True)],
            },
            {"type": "translation", "translation": at},
        ]
        yield {"path": name, "coordinateTransformations": transformations}


def of_labels(names: Sequence[str], version: OmeVersion) -> dict[str, Any]:
    """Return the attributes of the group that lists images of labels."""
    told: dict[str, Any] = {"labels": list(names)}
    return _attributes(told if version == "0.4" else {"version": version, **told}, version)


def _attributes(told: dict[str, Any], version: OmeVersion) -> dict[str, Any]:
    return told if version == "0.4" else {"ome": told}


def told_in(attributes: Mapping[str, Any]) -> Any:
    """Return the metadata among the attributes of a group, of either version."""
    return attributes.get("ome", attributes)


def coordinates(contents: Contents, dims: Sequence[str]) -> dict[str, Labels]:
    """Return coordinates of OME-Zarr only: labels of c, and times of frames.

    `dims` are the names of the stored axes.
    """
    found: dict[str, Labels] = {}
    if "c" in dims:
        found["c"] = (("c",), np.array(labels(contents)), {})
    if contents.dims[0] == "frame" and (told := _times(contents)) is not None:
        found["t"] = (("t",), told, {"units": "ms"})
    return found


# Axes


def _geometry(contents: Contents) -> Geometry | None:
    return None if contents.arrangement is None else contents.arrangement.geometry


def _check_even(geometry: Geometry, source: str) -> None:
    if is_tilted(geometry.shear):
        raise IrregularSeriesError(
            "OME-Zarr has no place for the shear of a tilted gantry",
            source=source,
            code="tilt",
            advice=[Advice("", "", "to_xarray().dcm.untilted() resamples it"), _INSTEAD],
        )
    reasons = [one.text for one in geometry.irregularities if one.code in _UNEVEN]
    if reasons:
        raise IrregularSeriesError(
            f"OME-Zarr has no place for frames that lie on no even grid: {'; '.join(reasons)}",
            source=source,
            advice=[FILL, SPLIT, _INSTEAD],
            code="+".join(sorted(_UNEVEN & {one.code for one in geometry.irregularities})),
        )


def _is_fine(geometry: Geometry | None) -> bool:
    """Return whether z may be halved; False where a spacing is not known."""
    if geometry is None:
        return False
    between_frames, *in_plane = geometry.spacing
    return bool(between_frames <= _THICK * max(in_plane))


def _axis(dim: str, measured: bool) -> dict[str, str]:
    if dim == "frame":
        return {"name": dim}
    kind, unit = {"t": ("time", "millisecond"), "c": ("channel", "")}.get(
        dim, ("space", "millimeter")
    )
    return {"name": dim, "type": kind, **({"unit": unit} if measured else {})}


# Scale and translation


def _spacing(contents: Contents) -> dict[str, float]:
    """Return the spacing along z, y and x in mm, and along t in ms, where it is known."""
    geometry = _geometry(contents)
    if geometry is not None:
        lengths = dict(zip("zyx", geometry.spacing, strict=True))
    else:
        # Frames without a position.
        each = np.unique(facts_of(contents.instances)["spacing"], axis=0)
        lengths = dict(zip("yx", each[0].tolist(), strict=True)) if len(each) == 1 else {}
    found = {dim: length for dim, length in lengths.items() if 0 < length < np.inf}
    times = _times(contents)
    if times is not None and len(times) > 1:
        step = float(times[-1] - times[0]) / (len(times) - 1)
        off = np.abs(times - times[0] - step * np.arange(len(times))).max()
        if off <= _EVEN_TIMES * step:
            found["t"] = step
    return found


def _origin(contents: Contents) -> dict[str, float]:
    """Return the centre of the first pixel, in mm along the stack's own z, y and x."""
    geometry = _geometry(contents)
    if geometry is None or geometry.affine is None:
        return {}
    axes = patient_axes(geometry, "")
    if axes is None:
        # Direction cosines that are not perpendicular.
        return {}
    return dict(zip("xyz", axes.coordinates_of(geometry.origin).tolist(), strict=True))


def _times(contents: Contents) -> Floats | None:
    """Return the time of each t in ms from the first; None where it is not known.

    Frames without a position have their own times if they are those of one instance, in its order.
    """
    if contents.dims[0] != "frame":
        return contents.coordinates["t"][1] if "t" in contents.coordinates else None
    arrangement, count = contents.arrangement, len(contents.frames)
    if arrangement is None or len(contents.instances) != 1 or count < 2:
        return None
    if not np.array_equal(arrangement.numbers, np.arange(count)):
        return None
    for column in MILLISECONDS:
        along, values, _ = contents.coordinates.get(column, ((), np.zeros(0), {}))
        if along == ("frame",) and (np.diff(values) > 0).all():
            return np.asarray(values - values[0])
    return None
