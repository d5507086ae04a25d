"""An export without decoding: the group, its arrays, and the tiles that are copied into them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from zarr.abc.store import Store

from dcmdask import __version__
from dcmdask.archive.discovery import MARK_KEY
from dcmdask.archive.open_slide import open_slide
from dcmdask.images.whole_slide import Slide
from dcmdask.sources.access import TARGET_OPTION, reaching
from dcmdask.store.contents import contents
from dcmdask.store.export import ExportReport, bytes_stored
from dcmdask.store.group import CONFIG, complete, opened
from dcmdask.store.kept import TOGETHER, Copying, Kept, copy_tiles, kept_levels, missing
from dcmdask.store.place import with_options
from dcmdask.store.provenance import decoding, versions, without_defaults
from dcmdask.store.scheduler import run_levels
from dcmdask.store.zarr_format import array_parameters


def write_kept(
    src: Any,
    store: str | os.PathLike[str] | Store,
    *,
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
    slide = src
    if not isinstance(src, Slide):
        slide = open_slide(src, storage_options=storage_options, **opening)
    levels = kept_levels(slide, opening)
    attributes = kept_attributes(slide, levels, with_identifiers, opening)
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
        written = run_levels(copy_tiles, job, job.tasks(), progress)
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


def array_of(one: Kept) -> dict[str, Any]:
    """Return the parameters by which zarr makes the array of a level."""
    import numcodecs  # type: ignore[import-untyped]

    made = array_parameters(
        2,
        shape=one.shape,
        chunks=one.chunks,
        dtype=one.dtype,
        compressors=None if one.codec is None else numcodecs.get_codec(dict(one.codec)),
        dimension_names=one.dims,
        attributes=one.attributes,
    )
    # A place without a tile has no chunk.
    return {**made, "fill_value": one.fill_value}


def register() -> None:
    """Let Zarr find the codecs of imagecodecs by their names."""
    import imagecodecs.numcodecs

    imagecodecs.numcodecs.register_codecs(verbose=False)


def kept_attributes(
    slide: Slide, levels: tuple[Kept, ...], with_identifiers: bool, opening: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes of the group."""
    what = contents(
        slide.levels[0].stack,
        arranged=True,
        values="stored",
        on_irregular="error",
        fill_value=None,
        with_identifiers=with_identifiers,
        **opening,
    )
    tokens = [one.frames.token for one in levels]
    described = {
        "version": __version__,
        "versions": versions(),
        "complete": False,
        "format": "zarr",
        "plan": {
            "source": hashlib.blake2b("".join(tokens).encode(), digest_size=16).hexdigest(),
            "keep_codec": True,
            "format": "zarr",
            "levels": [[one.name, *map(int, one.shape)] for one in levels],
            "codecs": [one.codec for one in levels],
            "with_identifiers": with_identifiers,
            "options": without_defaults(decoding(what.opening)),
        },
        **what.attributes,
        "arrays": {one.name: list(one.numbers.shape) for one in levels},
    }
    return {MARK_KEY: json.loads(json.dumps(described))}
