"""The source of an export: one file, a stack, or the levels of a whole slide."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from dcmdask.archive.collection import one_file, only_stack
from dcmdask.archive.copies import OnDuplicate
from dcmdask.archive.open_slide import slide_of
from dcmdask.archive.scan import Scan, scan
from dcmdask.archive.series import Series
from dcmdask.dicom.image_pixel import header_options, inflate_limit
from dcmdask.errors import Advice, LayoutError
from dcmdask.images.objects.slide import is_slide
from dcmdask.images.slides.level import Level
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.images.volume import Stack
from dcmdask.pixels.frame_array import FrameArray


def source_of(
    src: Any,
    *,
    arranged: bool,
    on_duplicate: OnDuplicate = "error",
    storage_options: Mapping[str, Any] | None = None,
    **opening: Any,
) -> Any:
    """Return the stack or the slide that is exported; or the one file whose frames are.

    There has to be one series of one stack, or one slide with an image of itself: its label,
    overview and thumbnail are none. With `arranged`, frames of one file are put in space, too.
    """
    if isinstance(src, Level):
        return Slide([src.stack])
    if isinstance(src, Stack):
        return Slide([src]) if _is_level(src) else src
    if isinstance(src, FrameArray) and (opening or storage_options or arranged):
        raise TypeError(
            "a FrameArray is stored with the options that it was opened with; pass the path"
        )
    if isinstance(src, Slide | FrameArray):
        return src
    found: Scan | Series
    if isinstance(src, Series):
        found, every = src, [src]
    elif arranged or (one := one_file(src, storage_options, inflate_limit(opening))) is None:
        if isinstance(src, Dataset | bytes | bytearray | memoryview) or hasattr(src, "read"):
            raise TypeError("only frames of files are arranged in space: pass a path or URL")
        found = scan(src, storage_options=storage_options, **header_options(opening))
        every = list(found)
    else:
        return one
    if any(_is_level(stack) for one in every for stack in one.stacks):
        for one in every:
            one.warn_left_out()
        return slide_of(every, found.name)
    if isinstance(found, Scan):
        return only_stack(found, on_duplicate)
    found.warn_left_out()
    return found.only_stack(on_duplicate)


def _is_level(stack: Stack) -> bool:
    """Return whether a stack has planes of a slide, and not tiles without a place."""
    return is_slide(stack) and bool(stack.instances[0].stored)


def images_of(source: Any, levels: int | str) -> list[Any]:
    """Return the images that a source has, the finest first: of a slide so many of its levels."""
    if not isinstance(source, Slide):
        return [source]
    stacks = [level.stack for level in source.levels]
    return stacks if isinstance(levels, str) else stacks[: max(1, operator.index(levels))]


def check_one_level(slide: Slide) -> None:
    """Refuse several levels where one array is stored."""
    if len(slide.levels) > 1:
        sizes = ", ".join("{} x {}".format(*level.size) for level in slide.levels)
        raise LayoutError(
            f"format='zarr' stores one array, and the slide has {len(slide.levels)} levels: "
            f"{sizes}",
            source=slide.name,
            code="levels",
            advice=[
                Advice("format", "ome-zarr", "stores all of them"),
                Advice("", "", "open_slide(...).levels[0] is the finest"),
            ],
        )


def check_alike(slide: Slide, types: Sequence[np.dtype[Any]]) -> None:
    """Refuse levels of a pyramid that differ in samples, type, optical paths or focal planes.

    `types` are those of the values of the levels to store.
    """
    levels = slide.levels[: len(types)]
    looks = [_look(level, dtype) for level, dtype in zip(levels, types, strict=True)]
    differing = []
    for number, (one, level) in enumerate(zip(looks, levels, strict=True)):
        others = [
            f"{own} instead of {looks[0][name]}"
            for name, own in one.items()
            if own != looks[0][name]
        ]
        if others:
            size = "{} x {}".format(*level.size)
            differing.append(f"level {number} of {size} has {', '.join(others)}")
    heights = [np.array(level.focal_planes) for level in levels]
    step = np.abs(np.diff(heights[0])).min(initial=np.inf)
    for number, own in enumerate(heights):
        if not differing and (np.abs(own - heights[0]) > step / 2).any():
            shown = [", ".join(f"{height:g}" for height in of) for of in (own, heights[0])]
            differing.append(
                f"level {number} has focal planes at {shown[0]} um instead of {shown[1]} um"
            )
    if differing:
        raise LayoutError(
            f"the levels of a pyramid have the same axes: {'; '.join(differing)}",
            source=slide.name,
            code="levels",
            advice=[Advice("levels", 1, "stores the finest level only, and none made from it")],
        )


def _look(level: Level, dtype: np.dtype[Any]) -> dict[str, str]:
    """Return what all levels of a pyramid have in common, in words."""
    lengths = dict(zip(level.dims, level.shape, strict=True))
    paths = [path.identifier for path in level.optical_paths]
    found = {
        "samples": f"{lengths.get('sample', 1)} samples",
        "type": f"values of {dtype}",
        "paths": f"{lengths.get('optical_path', 1)} optical paths",
        "planes": f"{lengths.get('z', 1)} focal planes",
    }
    if len(paths) > 1:
        found["paths"] += f" ({', '.join(paths)})"
    return found
