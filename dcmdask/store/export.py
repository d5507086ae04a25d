"""An export before anything is written: what goes where, and what the store says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr

from dcmdask import __version__
from dcmdask.arrays.labels import UNITS
from dcmdask.arrays.placement import ABSENT, ArrangedFrames, fitting
from dcmdask.arrays.transformation import Values
from dcmdask.dicom.image_pixel import DECODING_OPTIONS
from dcmdask.geometry.repair import OnIrregular
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.store import ome
from dcmdask.store.codecs import SMALL, codecs
from dcmdask.store.completion import Layout, grid_of
from dcmdask.store.contents import Contents, contents
from dcmdask.store.group import KEY
from dcmdask.store.plan import Level, Plan, Wanted, planned
from dcmdask.store.provenance import decoding, versions

Format: TypeAlias = Literal["zarr", "ome-zarr"]
FORMATS = ("zarr", "ome-zarr")
MASK = "missing"
Told: TypeAlias = "tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]"


@dataclass(frozen=True)
class Prepared:
    """An export that could be written.

    Attributes
    ----------
    contents : Contents
    plan : Plan
    layout : Layout
    attributes : dict
        Of the group, ``"complete": false`` included.
    compressors
        As zarr takes them.
    fill_value : float or None
        For frames that cannot be decoded; None where they end the export.
    """

    contents: Contents
    plan: Plan
    layout: Layout
    attributes: dict[str, Any]
    compressors: Any = field(repr=False)
    fill_value: float | None = None

    def arrays(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each level, and how zarr makes it."""
        for name, level in zip(self.layout.names, self.plan.levels, strict=True):
            made = _made(level, self.plan, self.compressors)
            if level is self.plan.levels[0]:
                made["attributes"] = self._described()
            yield name, made

    def _described(self) -> dict[str, Any]:
        """Return what xarray reads at an array: its unit, and what else is a coordinate."""
        names = [*self.coordinates, *([self.layout.mask] if self.layout.mask else [])]
        others = [name for name in names if name not in self.plan.dims]
        units = self.attributes[KEY].get("units")
        return {
            **({"units": units} if units else {}),
            **({"coordinates": " ".join(others)} if others else {}),
        }

    def mask(self) -> dict[str, Any]:
        """Return how zarr makes the array of missing frames."""
        unit, axes = self.plan.unit(0), self.plan.frame_axes
        return {
            "shape": tuple(self.plan.levels[0].shape[axis] for axis in axes),
            "chunks": tuple(max(1, unit[axis]) for axis in axes),
            "dtype": np.dtype(bool),
            "compressors": SMALL,
            "dimension_names": [self.plan.dims[axis] for axis in axes],
        }

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
        return found

    @property
    def absent(self) -> npt.NDArray[np.bool_] | None:
        """Places without a frame; None where each has one."""
        frames = self.contents.frames
        if not isinstance(frames, ArrangedFrames) or not (frames.numbers == ABSENT).any():
            return None
        absent: npt.NDArray[np.bool_] = frames.numbers == ABSENT
        return absent

    @cached_property
    def coordinates(self) -> dict[str, Told]:
        """Name to dims, values and attributes of what is stored beside the pixels."""
        found: dict[str, Told] = {}
        renamed = dict(zip(self._own_frame_dims, self._stored_frame_dims, strict=True))
        for name, (dims, values) in self.contents.coordinates.items():
            if name == self.layout.mask:
                continue
            unit = {"units": UNITS[name]} if name in UNITS else {}
            along = tuple(renamed.get(dim, dim) for dim in dims)
            found[name] = (along, _storable(values), unit)
        if "ome" in self.attributes:
            # An axis that is named otherwise keeps what was known of it, under its own name.
            for name, (along, values) in ome.coordinates(self.contents, self.plan.dims).items():
                unit = {"units": UNITS[name]} if name in UNITS else {}
                found[name] = (along, _storable(values), unit)
        return found

    @property
    def _own_frame_dims(self) -> tuple[str, ...]:
        return self.contents.dims[: self.contents.frames.frame_axes]

    @property
    def _stored_frame_dims(self) -> tuple[str, ...]:
        return tuple(self.plan.dims[axis] for axis in self.plan.frame_axes)


def prepare(
    src: Any,
    *,
    format: Format = "zarr",
    chunks: Wanted = "auto",
    shards: Wanted = "auto",
    compressors: Any = "auto",
    levels: int | str = "auto",
    values: Values = "stored",
    on_irregular: OnIrregular = "error",
    order_by: str | Sequence[str] | None = None,
    on_error: str = "fail",
    fill_value: float | None = None,
    with_identifiers: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> Prepared:
    """Decide how `src` is exported; nothing is decoded and nothing written.

    Parameters are those of :func:`dcmdask.to_zarr`.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {format!r}")
    if on_error not in ("fail", "fill"):
        raise ValueError(f"on_error is one of fail, fill, not {on_error!r}")
    as_ome = format == "ome-zarr"
    if not as_ome and levels not in ("auto", 1):
        raise ValueError("levels are for OME-Zarr: format='ome-zarr'")
    what = contents(
        src,
        arranged=as_ome,
        values=values,
        on_irregular=on_irregular,
        order_by=order_by,
        fill_value=fill_value,
        with_identifiers=with_identifiers,
        storage_options=storage_options,
        **opening,
    )
    frames = what.frames
    count, dtype = frames.frame_axes, frames.dtype.newbyteorder("=")
    if as_ome:
        axes = ome.axes(what)
        plan = planned(
            axes.shape,
            dtype,
            axes.dims,
            frame_axes=axes.frame_axes,
            samples_axis=axes.samples_axis,
            halved=axes.halved,
            chunks=chunks,
            shards=shards,
            levels=levels,
        )
        names = tuple(map(str, range(len(plan.levels))))
    else:
        samples = frames.ndim - 1 if what.colour else None
        plan = planned(
            frames.shape,
            dtype,
            what.dims,
            frame_axes=tuple(range(count)),
            samples_axis=samples,
            chunks=chunks,
            shards=shards,
        )
        names = ("pixels",)
    layout = Layout(plan, names, MASK if on_error == "fill" else "")
    compressors = codecs(compressors, plan.levels[0].chunks, dtype)
    # What zarr refuses it refuses here, before the target is touched.
    tried = zarr.create_array({}, **_made(plan.levels[0], plan, compressors))
    filling = what.fill_value(fill_value) if on_error == "fill" else None
    if filling is not None:
        fitting(filling, dtype)
    told = {
        "version": __version__,
        "versions": versions(),
        "complete": False,
        "format": format,
        "plan": {
            "source": frames.token,
            "format": format,
            "values": values,
            "shape": plan.levels[0].shape,
            "dtype": dtype.str,
            "chunks": plan.levels[0].chunks,
            "shards": plan.levels[0].shards,
            "levels": len(plan.levels),
            "codecs": tried.metadata.to_dict()["codecs"],
            "on_irregular": on_irregular,
            "order_by": [order_by] if isinstance(order_by, str) else list(order_by or ()),
            "on_error": on_error,
            "fill_value": None if filling is None else str(filling),
            "with_identifiers": with_identifiers,
            # What a later look at the same source needs.
            "options": {
                "fill_value": None if fill_value is None else str(fill_value),
                **decoding(_opened_with(src, opening)),
            },
        },
        **what.attributes,
    }
    attributes = {KEY: json.loads(json.dumps(told))}
    if as_ome:
        attributes["ome"] = ome.metadata(what, plan, names)
    prepared = Prepared(what, plan, layout, attributes, compressors, filling)
    attributes[KEY]["arrays"] = prepared.grids()
    return prepared


def _opened_with(src: Any, opening: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(src, FrameArray):
        return opening
    how = src.decoding
    return {name: how[name] for name in how.keys() & {"raw", "decoding_plugin", *DECODING_OPTIONS}}


def _made(level: Level, plan: Plan, compressors: Any) -> dict[str, Any]:
    return {
        "shape": level.shape,
        "chunks": level.chunks,
        "shards": level.shards,
        "dtype": plan.dtype,
        "dimension_names": plan.dims,
        "compressors": compressors,
    }


def _storable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values in a type that the Zarr 3 specification has."""
    if values.dtype.kind == "U":
        return values.astype(np.dtypes.StringDType())
    return np.ascontiguousarray(values)
