"""Labels of an OME-Zarr image: segments as numbers, on the grid of the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dcmdask.arrays.placement import ABSENT, ArrangedFrames
from dcmdask.errors import Advice, LayoutError
from dcmdask.images.placing import on_planes, places_in
from dcmdask.labelled.labelmap import LabelMapFrames
from dcmdask.store.contents import Contents, contents
from dcmdask.store.source import source_of

if TYPE_CHECKING:
    import xarray as xr

FOLDER = "labels"
# Segments are one image of numbers.
_TOGETHER = "segments"
_RESAMPLED = Advice("", "", "to_xarray().dcm.like(image, method='nearest') resamples it")


class LabelImage(NamedTuple):
    """One image of labels.

    Attributes
    ----------
    name : str
        Name of its group, below ``labels``.
    contents : Contents
        Numbers of segments, (z, rows, columns).
    described : dict
        The value of ``image-label``.
    """

    name: str
    contents: Contents
    described: dict[str, Any]


def label_images(
    src: Any, image: Contents, storage_options: Mapping[str, Any] | None
) -> list[LabelImage]:
    """Return a segmentation as images of labels: one, or one for each segment where they overlap.

    It has to be on the grid of the image, and without fractions.
    """
    if hasattr(src, "dims") and hasattr(src, "coords"):
        raise TypeError("labels are a segmentation's files, series or stack, and not its array")
    if image.tile is not None:
        raise LayoutError(
            "labels of a whole slide are not stored beside its levels",
            source=image.frames.name,
            advice=[Advice("", "", "to_xarray(like=slide.levels[0]) puts them on its pixels")],
        )
    source = source_of(src, arranged=True, storage_options=storage_options)
    found = contents(source, values="stored", on_irregular="error", fill_value=None)
    kind = found.attributes.get("segmentation_type")
    if kind not in ("BINARY", "LABELMAP"):
        what = "has fractions" if kind == "FRACTIONAL" else "is no segmentation"
        raise LayoutError(
            f"labels are the segments of a segmentation, and this {what}", source=found.frames.name
        )
    others = [dim for dim in found.dims if dim not in ("segment", "z", "y", "x")]
    if others:
        raise LayoutError(
            f"labels are segments in space, and the segmentation has also {', '.join(others)}",
            source=found.frames.name,
        )
    assert isinstance(found.frames, ArrangedFrames)
    frames = _on_grid(found, found.frames, image)
    if kind == "LABELMAP":
        numbers: Any = found.attributes["label_numbers"]
        return [_described(_TOGETHER, found, frames, image, numbers)]
    numbers = found.coordinates["segment_number"][1].tolist()
    if not _overlap(found, frames):
        together = LabelMapFrames(frames, numbers)
        return [_described(_TOGETHER, found, together, image, numbers)]
    return [
        _described(
            f"segment-{number}",
            found,
            LabelMapFrames(
                ArrangedFrames(frames.frames, frames.numbers[place : place + 1], 0), [number]
            ),
            image,
            [number],
        )
        for place, number in enumerate(numbers)
    ]


def _on_grid(found: Contents, frames: ArrangedFrames, image: Contents) -> ArrangedFrames:
    """Return the frames of a segmentation, with the planes of the image along z."""
    z, *in_plane = places_in(_labelled(image), _labelled(found), False)
    lengths = dict(zip(image.dims, image.frames.shape, strict=True))
    for places, dim in zip(in_plane, "yx", strict=True):
        if not np.array_equal(places, np.arange(lengths[dim])):
            raise LayoutError(
                f"the segmentation and the image have not the same pixels along {dim}",
                source=found.frames.name,
                advice=[_RESAMPLED],
            )
    return on_planes(frames, frames.frame_axes - 1, z, lengths["z"])


def _labelled(one: Contents) -> xr.DataArray:
    """Return the coordinates in the patient and the attributes, on an array without values."""
    import xarray as xr

    known = {
        name: (dims, values, attributes)
        for name, (dims, values, attributes) in one.coordinates.items()
        if name in ("z", "y", "x", "patient")
    }
    nothing = np.broadcast_to(np.False_, one.frames.shape)
    return xr.DataArray(nothing, known, one.dims, one.values, one.attributes)


def _overlap(found: Contents, frames: ArrangedFrames) -> bool:
    """Return whether a voxel is in several segments: by Segments Overlap, or by all of them."""
    told = found.dataset.get("SegmentsOverlap")
    if told in ("YES", "NO"):
        return bool(told == "YES")
    from dcmdask.arrays.chunks import to_dask

    several = np.flatnonzero((frames.numbers != ABSENT).sum(0) > 1)
    if not len(several):
        return False
    inside = to_dask(frames, {0: -1})[:, several] != 0
    return bool((inside.sum(axis=0, dtype="u4") > 1).any().compute())


def _described(
    name: str, found: Contents, frames: Any, image: Contents, numbers: list[int]
) -> LabelImage:
    arrangement = image.arrangement
    assert arrangement is not None
    planes = np.arange(len(frames))
    made = replace(
        found,
        frames=frames,
        dims=("z", "y", "x"),
        coordinates={},
        attributes={},
        arrangement=replace(arrangement, dims=("z",), numbers=planes, coordinates={}),
    )
    rows = [row for row in _segments(found) if row["label-value"] in numbers]
    colours = [
        {"label-value": row["label-value"], "rgba": [*bytes.fromhex(colour[1:]), 255]}
        for row in rows
        if (colour := row.pop("colour", ""))
    ]
    # From the group of the labels to that of the image.
    described: dict[str, Any] = {"properties": rows, "source": {"image": "../../"}}
    if colours:
        described["colors"] = colours
    return LabelImage(name, made, described)


def _segments(found: Contents) -> Iterator[dict[str, Any]]:
    """Yield number, label, codes and colour of each segment."""
    told = found.attributes
    if "labels" in told:
        numbers: Any = told["label_numbers"]
        labels: Any = told["labels"]
        colours: Any = told["label_colours"]
        for number, label, colour in zip(numbers, labels, colours, strict=True):
            yield {"label-value": number, "name": label, **({"colour": colour} if colour else {})}
        return
    columns = {
        name.removeprefix("segment_"): values.tolist()
        for name, (dims, values, _) in found.coordinates.items()
        if dims == ("segment",)
    }
    for place, number in enumerate(columns.pop("number")):
        row = {name: values[place] for name, values in columns.items() if values[place]}
        yield {"label-value": number, "name": row.pop("segment"), **row}
