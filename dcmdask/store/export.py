"""An export before anything is written: its arrays, objects and attributes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import zarr
from dask.utils import format_bytes
from zarr.abc.store import Store
from zarr.storage import LocalStore

from dcmdask import __version__
from dcmdask.archive.copies import OnDuplicate
from dcmdask.archive.discovery import MARK_KEY
from dcmdask.arrays.placement import ABSENT, ArrangedFrames, fitting
from dcmdask.geometry.repair import OnIrregular
from dcmdask.labelled.labels import PARAMETERS, Labels
from dcmdask.store import ome
from dcmdask.store.contents import Contents, contents
from dcmdask.store.labels import FOLDER, LabelImage, label_images
from dcmdask.store.ownership import files_below
from dcmdask.store.plan import Plan, Wanted, planned
from dcmdask.store.provenance import decoding, versions, without_defaults
from dcmdask.store.pyramid import Level
from dcmdask.store.regions import Failure, Layout, grid_of
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
    fill_value : float or None
        Value of frames that cannot be decoded; None where they end the export.
    labels : tuple of Prepared
        Images of labels below this one, each with the names and the attributes of its group.
    """

    contents: Contents
    plan: Plan
    layout: Layout
    attributes: dict[str, Any]
    compressors: Any = field(repr=False)
    fill_value: float | None
    labels: tuple[Prepared, ...] = ()

    def arrays(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each level, and its parameters for zarr."""
        for name, level in zip(self.layout.names, self.plan.levels, strict=True):
            attributes = self._described() if level is self.plan.levels[0] else {}
            yield name, _made(level, self.layout, self.compressors, attributes)

    def _described(self) -> dict[str, Any]:
        """Return the attributes that xarray reads: unit, parameters, names of other coordinates."""
        labels = [*self.coordinates, *([self.layout.mask] if self.layout.mask else [])]
        others = [name for name in labels if name not in self.plan.dims]
        told = self.attributes[MARK_KEY]
        names = ("units", "spacing_source", *PARAMETERS)
        return {
            **{name: told[name] for name in names if name in told},
            **({"coordinates": " ".join(others)} if others else {}),
        }

    def mask(self) -> dict[str, Any]:
        """Return the parameters for zarr of the array that marks missing frames."""
        unit, axes = self.plan.unit(0), self.plan.frame_axes
        return array_parameters(
            self.layout.zarr_format,
            shape=tuple(self.plan.levels[0].shape[axis] for axis in axes),
            chunks=tuple(max(1, unit[axis]) for axis in axes),
            dtype=np.dtype(bool),
            compressors=small(self.layout.zarr_format),
            dimension_names=[self.plan.dims[axis] for axis in axes],
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
        for one in self.labels:
            found |= one.grids()
        return found | {name: [] for name in self.groups()}

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of each group below that of the store."""
        names = [one.layout.names[0].rpartition("/")[0] for one in self.labels]
        if not names:
            return {}
        listed = [name.rpartition("/")[2] for name in names]
        version: ome.OmeVersion = self.attributes[MARK_KEY]["plan"].get(
            "ome_version", ome.DEFAULT_VERSION
        )
        found = {FOLDER: ome.of_labels(listed, version)}
        for name, one in zip(names, self.labels, strict=True):
            found[name] = {key: one.attributes[key] for key in one.attributes if key != MARK_KEY}
        return found

    @property
    def absent(self) -> npt.NDArray[np.bool_] | None:
        """Places without a frame; None where each has one."""
        frames = self.contents.frames
        if not isinstance(frames, ArrangedFrames):
            return None
        absent: npt.NDArray[np.bool_] = frames.numbers == ABSENT
        return absent if absent.any() else None

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
    what = contents(
        src,
        arranged=as_ome,
        values=values,
        on_irregular=on_irregular,
        on_duplicate=on_duplicate,
        order_by=order_by,
        tolerance=tolerance,
        fill_value=fill_value,
        with_identifiers=with_identifiers,
        storage_options=storage_options,
        **opening,
    )
    frames = what.frames
    dtype = frames.dtype.newbyteorder("=")
    if as_ome:
        axes = ome.axes(what)
    else:
        samples = frames.ndim - 1 if what.colour else None
        axes = ome.Axes(frames.shape, what.dims, tuple(range(frames.frame_axes)), samples, ())
    plan = planned(dtype=dtype, chunks=chunks, shards=shards, levels=levels, **axes._asdict())
    names = tuple(map(str, range(len(plan.levels)))) if as_ome else ("pixels",)
    layout = Layout(plan, names, MASK if on_error == "fill" else "", zarr_format)
    compressors = codecs(compressors, plan.levels[0].chunks, dtype, zarr_format)
    # Zarr refuses parameters here, before the target is touched.
    tried = zarr.create_array(
        {}, **_made(plan.levels[0], layout, compressors), zarr_format=zarr_format
    )
    filling = what.fill_value(fill_value) if on_error == "fill" else None
    if filling is not None:
        fitting(filling, dtype)
    described = {
        "version": __version__,
        "versions": versions(),
        "complete": False,
        "format": format,
        "plan": {
            "source": frames.token,
            "format": format,
            **({} if ome_version == ome.DEFAULT_VERSION else {"ome_version": ome_version}),
            "values": values,
            "shape": plan.levels[0].shape,
            "dtype": dtype.str,
            "chunks": plan.levels[0].chunks,
            "shards": plan.levels[0].shards,
            "levels": len(plan.levels),
            "codecs": recorded_codecs(tried),
            "on_irregular": on_irregular,
            "order_by": [order_by] if isinstance(order_by, str) else list(order_by or ()),
            "on_error": on_error,
            "fill_value": None if filling is None else str(filling),
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
        attributes |= ome.metadata(what, plan, names, ome_version)
    beside = [] if labels is None else label_images(labels, what, storage_options)
    of_labels = tuple(_of_labels(one, len(plan.levels), ome_version) for one in beside)
    if of_labels:
        attributes[MARK_KEY]["plan"]["labels"] = [one.contents.frames.token for one in of_labels]
    prepared = Prepared(what, plan, layout, attributes, compressors, filling, of_labels)
    attributes[MARK_KEY]["arrays"] = prepared.grids()
    return prepared


def _of_labels(one: LabelImage, levels: int, version: ome.OmeVersion) -> Prepared:
    """Return an image of labels with as many levels as the image that they are of."""
    axes = ome.axes(one.contents)
    dtype, zarr_format = one.contents.frames.dtype, ome.zarr_format_of(version)
    shards = "auto" if zarr_format == 3 else None
    plan = planned(dtype=dtype, levels=levels, shards=shards, **axes._asdict())
    names = tuple(f"{FOLDER}/{one.name}/{level}" for level in range(levels))
    own = [name.rpartition("/")[2] for name in names]
    told = ome.metadata(one.contents, plan, own, version, one.described)
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


@dataclass(frozen=True)
class ExportReport:
    """Report of an export.

    Attributes
    ----------
    store : str
        The path or URL of the store.
    shape : tuple of int
        Shape of the array, or of the largest level of a pyramid.
    dtype : numpy.dtype
        In native byte order.
    chunks : tuple of int
        The shape of a Zarr chunk.
    bytes_decoded : int
        Bytes of the decoded array, or of the largest level of a pyramid.
    bytes_stored : int or None
        Size of the store with its metadata; None unless it is local.
    seconds : float
        Duration of the call.
    token : str
        Hash of the source; the name of a Dask array.
    shards : tuple of int or None
        The shape of a Zarr shard, if there are shards.
    levels : int
        Number of levels of a pyramid, or 1.
    regions : int
        Number of tasks that write all levels.
    written : int
        Number of tasks that wrote in this export.
    failures : tuple of Failure
        ``(frame, reason)`` of each frame that could not be decoded and was filled.
    """

    store: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    bytes_decoded: int
    bytes_stored: int | None
    seconds: float
    token: str
    shards: tuple[int, ...] | None = None
    levels: int = 1
    regions: int = 0
    written: int = 0
    failures: tuple[Failure, ...] = ()

    def __str__(self) -> str:
        shards = f", shards {self.shards}" if self.shards else ""
        levels = f", {self.levels} levels" if self.levels > 1 else ""
        stored = ""
        if self.bytes_stored:
            ratio = self.bytes_decoded / self.bytes_stored
            stored = f", {format_bytes(self.bytes_stored)} stored ({ratio:.1f} : 1)"
        lines = [
            self.store,
            f"  {self.shape} {self.dtype}, chunks {self.chunks}{shards}{levels}",
            f"  {format_bytes(self.bytes_decoded)} decoded{stored}",
        ]
        speed = ""
        if self.written < self.regions:
            there = self.regions - self.written
            lines.append(f"  {self.written} of {self.regions} regions written, {there} existed")
        elif self.seconds:
            speed = f", {format_bytes(int(self.bytes_decoded / self.seconds))}/s"
        lines.append(f"  {self.seconds:.1f} s{speed}")
        lines += [
            f"  frame {', '.join(map(str, frame))} filled: {why}" for frame, why in self.failures
        ]
        return "\n".join(lines)


def bytes_stored(store: Store) -> int | None:
    """Return the bytes of a local store; None for others."""
    if not isinstance(store, LocalStore):
        return None
    return sum(os.path.getsize(store.root / path) for path in files_below(store.root))
