"""An export before anything is written: its arrays, objects and attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import zarr

from dcmdask import __version__
from dcmdask.archive.copies import OnDuplicate
from dcmdask.archive.discovery import MARK_KEY
from dcmdask.arrays.placement import ABSENT, ArrangedFrames, fitting
from dcmdask.arrays.transformation import check_values
from dcmdask.geometry.repair import OnIrregular
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.labelled.labels import PARAMETERS, Labels
from dcmdask.store.contents import Contents, contents
from dcmdask.store.ome import metadata as ome
from dcmdask.store.ome.labels import FOLDER, LabelImage, label_images
from dcmdask.store.plan import Axes, Plan, Wanted, planned
from dcmdask.store.provenance import decoding, versions, without_defaults
from dcmdask.store.pyramid import Level, Shape
from dcmdask.store.regions import Layout, grid_of
from dcmdask.store.source import check_alike, check_one_level, images_of, source_of
from dcmdask.store.zarr_format import (
    array_parameters,
    codecs,
    recorded_codecs,
    small,
    storable,
)

Format: TypeAlias = Literal["zarr", "ome-zarr"]
OnError: TypeAlias = Literal["fail", "fill"]
MASK = "missing"


@dataclass(frozen=True)
class Prepared:
    """Contents, plan and attributes of an export.

    Attributes
    ----------
    contents : Contents
    plan : Plan
    layout : Layout
    attributes : dict
        Attributes of the group, with ``"complete": false``.
    compressors
        As zarr takes them.
    fill_value : float, list of float or None
        Value of frames that cannot be decoded, or one for each sample; None where they end the
        export.
    beside : tuple of Prepared
        Further images of the store: the next levels of a whole slide, in the same group; and
        images of labels, each with the attributes of a group of its own.
    """

    contents: Contents
    plan: Plan
    layout: Layout
    attributes: dict[str, Any]
    compressors: Any = field(repr=False)
    fill_value: float | list[float] | None
    beside: tuple[Prepared, ...] = ()

    @property
    def all(self) -> tuple[Prepared, ...]:
        """This image, and those beside it."""
        return (self, *self.beside)

    @property
    def pyramid(self) -> tuple[Prepared, ...]:
        """The images that are in the group of the store: this one, and levels of a slide."""
        return tuple(one for one in self.all if not one.folder)

    @property
    def folder(self) -> str:
        """The group of the arrays, below that of the store; empty for the latter."""
        return self.layout.names[0].rpartition("/")[0]

    def arrays(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each level, and its parameters for zarr."""
        for name, level in zip(self.layout.names, self.plan.levels, strict=True):
            attributes = self._described() if level is self.plan.levels[0] else {}
            yield name, _made(level, self.layout, self.compressors, attributes)

    def _described(self) -> dict[str, Any]:
        """Return the attributes that xarray reads: unit, parameters, names of other coordinates."""
        labels = [*self.coordinates]
        if self.layout.mask and self.plan.tile is None:
            labels.append(self.layout.mask)
        others = [name for name in labels if name not in self.plan.dims]
        told = self.attributes[MARK_KEY]
        names = ("units", "spacing_source", *PARAMETERS)
        return {
            **{name: told[name] for name in names if name in told},
            **({"coordinates": " ".join(others)} if others else {}),
        }

    def mask(self) -> dict[str, Any]:
        """Return the parameters for zarr of the array that marks missing frames, or tiles."""
        plan = self.plan
        whole, unit = (
            [-(-lengths[axis] // n) for axis, n in zip(plan.frame_axes, plan.pieces, strict=True)]
            for lengths in (plan.levels[0].shape, plan.unit(0))
        )
        # Levels have different numbers of tiles.
        level = self.layout.mask.removeprefix(MASK)
        tiles = {"y": f"tile_row{level}", "x": f"tile_column{level}"} if plan.tile else {}
        dims = [plan.dims[axis] for axis in plan.frame_axes]
        return array_parameters(
            self.layout.zarr_format,
            shape=tuple(whole),
            chunks=tuple(max(1, n) for n in unit),
            dtype=np.dtype(bool),
            compressors=small(self.layout.zarr_format),
            dimension_names=[tiles.get(dim, dim) for dim in dims],
        )

    def grids(self) -> dict[str, list[int]]:
        """Return the number of objects along each axis of each array that is written."""
        found = {
            name: grid_of(level.shape, level.objects)
            for name, level in zip(self.layout.names, self.plan.levels, strict=True)
        }
        for name, (_, values, _) in self.coordinates.items():
            found[name] = grid_of(values.shape, values.shape)
        if self.layout.mask:
            made = self.mask()
            found[self.layout.mask] = grid_of(made["shape"], made["chunks"])
        for one in self.beside:
            found |= one.grids()
        return found | {name: [] for name in self.groups()}

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of each group below that of the store."""
        below = [one for one in self.beside if one.folder]
        if not below:
            return {}
        listed = [one.folder.rpartition("/")[2] for one in below]
        version: ome.OmeVersion = self.attributes[MARK_KEY]["plan"].get(
            "ome_version", ome.DEFAULT_VERSION
        )
        found = {FOLDER: ome.of_labels(listed, version)}
        for one in below:
            told = {key: one.attributes[key] for key in one.attributes if key != MARK_KEY}
            found[one.folder] = told
        return found

    @property
    def absent(self) -> npt.NDArray[np.bool_] | None:
        """Places without a frame, or tiles of these; None where each place has one."""
        frames, plan = self.contents.frames, self.plan
        if not isinstance(frames, ArrangedFrames):
            return None
        absent: npt.NDArray[np.bool_] = frames.numbers == ABSENT
        if not absent.any():
            return None
        if plan.tile is None:
            return absent
        rows, columns = (
            -(-frames.shape[absent.ndim + axis] // n) for axis, n in enumerate(plan.tile)
        )
        return np.broadcast_to(absent[..., None, None], (*absent.shape, rows, columns))

    @cached_property
    def coordinates(self) -> dict[str, Labels]:
        """Name to dims, values and attributes of each coordinate."""
        found = dict(self.contents.coordinates)
        if self.attributes.keys() != {MARK_KEY}:
            # An axis that is renamed keeps its coordinate under the own name of that.
            found |= ome.coordinates(self.contents, self.plan.dims)
        stored = [self.plan.dims[axis] for axis in self.plan.frame_axes]
        renamed = dict(zip(self.contents.dims, stored, strict=False))
        return {
            name: (
                tuple(renamed.get(dim, dim) for dim in dims),
                storable(values, self.layout.zarr_format),
                attributes,
            )
            for name, (dims, values, attributes) in found.items()
            if name != self.layout.mask
        }


def prepare(
    src: Any,
    *,
    format: Format = "zarr",
    ome_version: ome.OmeVersion = ome.DEFAULT_VERSION,
    chunks: Wanted = "auto",
    shards: Wanted = "auto",
    compressors: Any = "auto",
    levels: int | str = "auto",
    values: str = "stored",
    on_irregular: OnIrregular = "error",
    on_duplicate: OnDuplicate = "error",
    order_by: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    on_error: OnError = "fail",
    fill_value: float | None = None,
    with_identifiers: bool = False,
    labels: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> Prepared:
    """Decide how `src` is exported; nothing is decoded and nothing written.

    Parameters are those of :func:`dcmdask.to_zarr`.
    """
    for name, value, choices in (
        ("format", format, Format),
        ("ome_version", ome_version, ome.OmeVersion),
        ("on_error", on_error, OnError),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {value!r}")
    as_ome = format == "ome-zarr"
    if not as_ome and levels not in ("auto", 1):
        raise ValueError("levels are for OME-Zarr: format='ome-zarr'")
    if not as_ome and labels is not None:
        raise ValueError("labels are for OME-Zarr: format='ome-zarr'")
    if not as_ome and ome_version != ome.DEFAULT_VERSION:
        raise ValueError("ome_version is for OME-Zarr: format='ome-zarr'")
    zarr_format = ome.zarr_format_of(ome_version)
    if zarr_format == 2:
        if shards not in (None, "auto"):
            raise ValueError(f"OME-Zarr {ome_version} is stored in Zarr 2, which has no shards")
        shards = None
    check_values(values, opening)
    source = source_of(
        src,
        arranged=as_ome,
        on_duplicate=on_duplicate,
        storage_options=storage_options,
        **opening,
    )
    if not as_ome and isinstance(source, Slide):
        check_one_level(source)
    every = [
        contents(
            one,
            values=values,
            on_irregular=on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            with_identifiers=with_identifiers,
            storage_options=storage_options,
            **opening,
        )
        for one in images_of(source, levels)
    ]
    what = every[0]
    dtype = what.frames.dtype.newbyteorder("=")
    if isinstance(source, Slide):
        check_alike(source, [one.frames.dtype for one in every])
    filling = what.fill_value(fill_value) if on_error == "fill" else None
    for number in [] if filling is None else np.ravel(filling).tolist():
        fitting(number, dtype)
    images = []
    for number, one in enumerate(every):
        shape, axes = ome.axes(one) if as_ome else _axes(one)
        # Those that a slide lacks are made of the last one.
        of_plan: Any = {"levels": levels, "kept": number} if one is every[-1] else {}
        plan = planned(shape, dtype, axes, chunks=chunks, shards=shards, **of_plan)
        names = tuple(str(number + level) for level in range(len(plan.levels)))
        mask = mask_of(names[0]) if on_error == "fill" else ""
        layout = Layout(plan, names if as_ome else ("pixels",), mask, zarr_format)
        own = codecs(compressors, plan.levels[0].chunks, dtype, zarr_format)
        alone = replace(one, coordinates={}) if number else one
        images.append(Prepared(alone, plan, layout, {MARK_KEY: {}}, own, filling))
    # Zarr refuses parameters here, before the target is touched.
    for image in images:
        level = image.plan.levels[0]
        zarr.create_array(
            {}, **_made(level, image.layout, image.compressors), zarr_format=zarr_format
        )
    described = {
        "version": __version__,
        "versions": versions(),
        "complete": False,
        "format": format,
        "plan": {
            "format": format,
            **({} if ome_version == ome.DEFAULT_VERSION else {"ome_version": ome_version}),
            "values": values,
            "dtype": dtype.str,
            **_recorded(images[0]),
            # The next levels of a whole slide; the last of them has those that are made.
            **({"next": [_recorded(one) for one in images[1:]]} if len(images) > 1 else {}),
            "on_irregular": on_irregular,
            "order_by": [order_by] if isinstance(order_by, str) else list(order_by or ()),
            "on_error": on_error,
            "fill_value": _as_text(filling),
            "with_identifiers": with_identifiers,
            # Verification opens the source with these.
            "options": without_defaults(
                {
                    "fill_value": None if fill_value is None else str(fill_value),
                    "tolerance": None if tolerance is None else float(tolerance),
                    "on_duplicate": on_duplicate,
                    **decoding(what.opening),
                }
            ),
        },
        **what.attributes,
    }
    attributes = {MARK_KEY: json.loads(json.dumps(described))}
    if as_ome:
        parts = [ome.Part(one.contents, one.plan, one.layout.names) for one in images]
        attributes |= ome.metadata(parts, ome_version)
    beside = [] if labels is None else label_images(labels, what, storage_options)
    of_labels = [_of_labels(one, len(plan.levels), ome_version) for one in beside]
    if of_labels:
        attributes[MARK_KEY]["plan"]["labels"] = [one.contents.frames.token for one in of_labels]
    prepared = replace(images[0], attributes=attributes, beside=(*images[1:], *of_labels))
    attributes[MARK_KEY]["arrays"] = prepared.grids()
    return prepared


def _axes(what: Contents) -> tuple[Shape, Axes]:
    """Return the shape and the axes of one array, as the frames have them."""
    frames = what.frames
    samples = frames.ndim - 1 if what.colour else None
    leading = tuple(range(frames.frame_axes + (0 if what.tile is None else 2)))
    return frames.shape, Axes(what.dims, leading, samples, tile=what.tile)


def _as_text(filling: float | list[float] | None) -> str | list[str] | None:
    """Return a fill value as JSON has it, in which there is no NaN."""
    if isinstance(filling, list):
        return list(map(str, filling))
    return None if filling is None else str(filling)


def mask_of(name: str) -> str:
    """Return the name of the array that marks what is missing of an array of frames."""
    return MASK if name == "0" else f"{MASK}-{name}"


def _recorded(image: Prepared) -> dict[str, Any]:
    """Return what a store says of one image, by which it is resumed and verified."""
    plan, level = image.plan, image.plan.levels[0]
    made = _made(level, image.layout, image.compressors)
    tried = zarr.create_array({}, **made, zarr_format=image.layout.zarr_format)
    return {
        "source": image.contents.frames.token,
        "shape": level.shape,
        "chunks": level.chunks,
        "shards": level.shards,
        "levels": len(plan.levels),
        "codecs": recorded_codecs(tried),
        **({} if plan.tile is None else {"tile": plan.tile}),
    }


def _of_labels(one: LabelImage, levels: int, version: ome.OmeVersion) -> Prepared:
    """Return an image of labels with as many levels as the image that they are of."""
    shape, axes = ome.axes(one.contents)
    dtype, zarr_format = one.contents.frames.dtype, ome.zarr_format_of(version)
    shards = "auto" if zarr_format == 3 else None
    plan = planned(shape, dtype, axes, levels=levels, shards=shards)
    names = tuple(f"{FOLDER}/{one.name}/{level}" for level in range(levels))
    own = [name.rpartition("/")[2] for name in names]
    told = ome.metadata([ome.Part(one.contents, plan, own)], version, one.described)
    compressors = codecs("auto", plan.levels[0].chunks, dtype, zarr_format)
    layout = Layout(plan, names, zarr_format=zarr_format)
    return Prepared(one.contents, plan, layout, {MARK_KEY: {}, **told}, compressors, None)


def _made(
    level: Level, layout: Layout, compressors: Any, attributes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return array_parameters(
        layout.zarr_format,
        shape=level.shape,
        chunks=level.chunks,
        shards=level.shards,
        dtype=layout.plan.dtype,
        dimension_names=layout.plan.dims,
        compressors=compressors,
        attributes=attributes,
    )
