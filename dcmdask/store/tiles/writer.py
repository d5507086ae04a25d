"""An export without decoding: the group, its arrays, and the tiles that are copied into them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from zarr.abc.store import Store

from dcmdask import __version__
from dcmdask.archive.discovery import MARK_KEY
from dcmdask.dicom.image_pixel import DECODING_OPTIONS, OVERRIDES
from dcmdask.errors import Advice, LayoutError
from dcmdask.images.slides.level import Level
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.contents import Contents, contents
from dcmdask.store.export_report import ExportReport, bytes_stored
from dcmdask.store.ome import metadata as ome
from dcmdask.store.plan import Plan
from dcmdask.store.provenance import decoding, versions, without_defaults
from dcmdask.store.pyramid import Level as PlannedLevel
from dcmdask.store.scheduler import run_levels
from dcmdask.store.source import source_of
from dcmdask.store.target.group import CONFIG, complete, opened
from dcmdask.store.target.place import with_options
from dcmdask.store.tiles.levels import TOGETHER, Copying, Kept, copy_tiles, kept_levels, missing
from dcmdask.store.zarr_format import array_parameters


def write_kept(
    src: Any,
    store: str | os.PathLike[str] | Store,
    *,
    ome_version: str,
    overwrite: bool,
    resume: bool,
    with_identifiers: bool,
    progress: Callable[[int, int | None], None] | None,
    storage_options: Mapping[str, Any] | None,
    target_options: Mapping[str, Any] | None,
    **opening: Any,
) -> ExportReport:
    """Store the levels of a slide as arrays whose chunks are its tiles, as they are encoded.

    Parameters and errors are those of :func:`dcmdask.to_zarr` with `keep_codec`.
    """
    started = time.perf_counter()
    slide = kept_slide(src, storage_options, opening)
    levels = kept_levels(slide, opening)
    attributes = kept_attributes(slide, levels, with_identifiers, opening)
    if ome_version:
        levels = as_ome(levels, slide, ome_version, attributes, opening)
    register()
    target, store = store, with_options(store, target_options)
    begun = opened(store, attributes, overwrite=overwrite, resume=resume, zarr_format=2)
    with reaching(target, TARGET_OPTION), begun as (group, place, there):
        if place.fs is None:
            raise ValueError("keep_codec needs a path or URL, and this store is neither")
        for one in levels:
            if one.name not in group:
                group.create_array(one.name, **array_of(one), config=CONFIG)
        left = tuple(missing(one, there) for one in levels)
        job = Copying(place, levels, left)
        (written,) = run_levels(copy_tiles, [(job, job.tasks())], progress)
        complete(group)
        stored = bytes_stored(group.store)
    finest = levels[0]
    return ExportReport(
        store=str(target),
        shape=finest.shape,
        dtype=finest.dtype,
        chunks=finest.chunks,
        bytes_decoded=int(np.prod(finest.shape)) * finest.dtype.itemsize,
        bytes_stored=stored,
        seconds=time.perf_counter() - started,
        token=attributes[MARK_KEY]["plan"]["source"],
        levels=len(levels),
        regions=sum(-(-len(one.tiles) // TOGETHER) for one in levels),
        written=len(written),
    )


def kept_slide(
    src: Any, storage_options: Mapping[str, Any] | None, opening: Mapping[str, Any]
) -> Slide:
    """Return the slide whose tiles are kept."""
    found = source_of(src, arranged=True, storage_options=storage_options, **opening)
    if not isinstance(found, Slide):
        raise LayoutError(
            "only the tiles of a whole slide can be kept as they are encoded, and this is none",
            source=found.name,
            code="keep-codec",
        )
    return found


def planned_levels(src: Any, asked: Mapping[str, Any]) -> tuple[Kept, ...]:
    """Return how a slide would be stored; nothing is written."""
    opening = {name: asked[name] for name in asked if name in DECODING_OPTIONS | OVERRIDES}
    return kept_levels(kept_slide(src, asked.get("storage_options"), opening), opening)


def as_ome(
    levels: tuple[Kept, ...],
    slide: Slide,
    version: str,
    attributes: dict[str, Any],
    opening: Mapping[str, Any],
) -> tuple[Kept, ...]:
    """Return levels with the axes of OME-Zarr, and add its metadata to the attributes."""
    if version != "0.4":
        raise LayoutError(
            f"OME-Zarr {version} is stored in Zarr 3, for which imagecodecs has no codecs",
            code="keep-codec",
            advice=[Advice("ome_version", "0.4", "is stored in Zarr 2")],
        )
    if slide.levels[0].dims[-1] == "sample":
        raise LayoutError(
            "OME-Zarr has the channel in front of y and x, and an encoded tile of three samples is "
            "no chunk of such an array",
            source=slide.name,
            code="keep-codec",
            advice=[Advice("format", "zarr", "stores it as (y, x, sample)")],
        )
    found, parts = list[Kept](), list[ome.Part]()
    for one, level in zip(levels, slide.levels, strict=True):
        what = _contents(level, False, opening)
        shape, axes = ome.axes(what)
        plan = Plan(
            axes.dims, axes.frame_axes, dtype=one.dtype, levels=(PlannedLevel(shape, one.chunks),)
        )
        parts.append(ome.Part(what, plan, [one.name]))
        found.append(replace(one, dims=axes.dims, separator="/"))
    attributes |= ome.metadata(parts, "0.4")
    attributes[MARK_KEY]["format"] = attributes[MARK_KEY]["plan"]["format"] = "ome-zarr"
    attributes[MARK_KEY]["plan"]["ome_version"] = version
    return tuple(found)


def _contents(level: Level, with_identifiers: bool, opening: Mapping[str, Any]) -> Contents:
    return contents(
        level.stack,
        values="stored",
        on_irregular="error",
        fill_value=None,
        with_identifiers=with_identifiers,
        **opening,
    )


def token_of(levels: tuple[Kept, ...]) -> str:
    """Return a hash of the sources of all levels."""
    tokens = "".join(one.frames.token for one in levels)
    return hashlib.blake2b(tokens.encode(), digest_size=16).hexdigest()


def array_of(one: Kept) -> dict[str, Any]:
    """Return the parameters by which zarr makes the array of a level."""
    # It has its registry from numcodecs, and does not list it.
    from imagecodecs.numcodecs import get_codec  # type: ignore[attr-defined]

    made = array_parameters(
        2,
        shape=one.shape,
        chunks=one.chunks,
        dtype=one.dtype,
        compressors=None if one.codec is None else get_codec(dict(one.codec)),
        dimension_names=one.dims,
        attributes=one.attributes,
    )
    # A place without a tile has no chunk.
    keys = {"name": "v2", "separator": one.separator}
    return {**made, "fill_value": one.fill_value, "chunk_key_encoding": keys}


def register() -> None:
    """Let Zarr find the codecs of imagecodecs by their names."""
    import imagecodecs.numcodecs

    imagecodecs.numcodecs.register_codecs(verbose=False)


def kept_attributes(
    slide: Slide, levels: tuple[Kept, ...], with_identifiers: bool, opening: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes of the group."""
    what = _contents(slide.levels[0], with_identifiers, opening)
    described = {
        "version": __version__,
        "versions": versions(),
        "complete": False,
        "format": "zarr",
        "plan": {
            "source": token_of(levels),
            "keep_codec": True,
            "format": "zarr",
            "levels": [[one.name, *map(int, one.shape)] for one in levels],
            "codecs": [one.codec for one in levels],
            "tiles": [len(one.tiles) for one in levels],
            "with_identifiers": with_identifiers,
            "options": without_defaults(decoding(what.opening)),
        },
        **what.attributes,
        "arrays": {one.name: list(one.numbers.shape) for one in levels},
    }
    return {MARK_KEY: json.loads(json.dumps(described))}
