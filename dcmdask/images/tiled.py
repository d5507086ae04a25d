"""Tiled images of any class: descriptions of frames that are tiles become those of planes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.matrix import TotalPixelMatrix, rows_of
from dcmdask.arrays.modality import TransformedFrames
from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.arrays.reduced import ReducedFrames
from dcmdask.dicom.description import Described
from dcmdask.dicom.tiles.tiling import Tiling
from dcmdask.errors import Note
from dcmdask.images.cielab import srgb_of
from dcmdask.pixels.array_like import ArrayLike


def with_planes(instances: Iterable[Described]) -> Iterator[Described]:
    """Yield descriptions, those of tiles as of the planes of their total pixel matrix.

    The parts of a concatenation are one. Tiles whose places are not known stay as they are, and so
    do those of parts that have the same frames.
    """
    parts: dict[tuple[object, ...], list[Described]] = {}
    for one in instances:
        tiling = one.tiling
        if tiling is None or tiling.fault or one.stored:
            yield one
        elif tiling.concatenation:
            key = tiling.concatenation, tiling.matrix, tiling.tile, one.samples
            parts.setdefault(key, []).append(one)
        else:
            yield planes_of([one])
    for members in parts.values():
        if fault := _doubled([one.tiling for one in members if one.tiling is not None]):
            for one in members:
                assert one.tiling is not None
                yield replace(one, tiling=replace(one.tiling, fault=fault))
        else:
            yield planes_of(members)


def _doubled(tilings: Sequence[Tiling]) -> str:
    """Return a fault of parts in the order of TILED_FULL that have the same frames."""
    parts = sorted((one.first, one.frames) for one in tilings if not one.places)
    for (first, frames), (after, _) in pairwise(parts):
        if after < first + frames:
            return (
                f"of two parts of a concatenation one has {frames} frames from {first} on and the "
                f"other begins at {after}: (0020,9228) 'Concatenation Frame Offset Number' is "
                "wrong or absent, or a part is there twice"
            )
    return ""


def planes_of(parts: Sequence[Described]) -> Described:
    """Return a description of the planes that the frames of some instances are tiles of."""
    tilings = [(one.tiling, one) for one in parts if one.tiling is not None]
    tilings.sort(key=lambda pair: pair[0].first)
    rows = dict.fromkeys(row for tiling, _ in tilings for row in rows_of(tiling.table))
    matrix = tilings[0][0].matrix
    return replace(
        tilings[0][1],
        rows=matrix[0],
        columns=matrix[1],
        table=b"".join(rows),
        stored=tuple(one for _, one in tilings),
    )


def tile_notes(instances: Sequence[Described]) -> Iterator[Note]:
    """Yield notes on where tiles lie, and on why they stay frames."""
    for one in instances:
        if one.tiling is None:
            continue
        if one.tiling.fault and not one.stored:
            yield Note("tiles", f"tiles are left as they are stored: {one.tiling.fault}")
        tilings = [part.tiling for part in one.stored if part.tiling is not None]
        for tiling in tilings:
            yield from tiling.notes
        there = sum(tiling.frames for tiling in tilings)
        down, across = one.tiling.grid
        needed = down * across * one.tiling.planes
        if one.tiling.concatenation and there < needed and not one.tiling.places:
            text = f"{needed - there} of {needed} tiles are in parts that are not here"
            yield Note("tiles", f"{text}: they are empty")


def frames_of(
    instances: Sequence[Described],
    options: Mapping[str, Any],
    fill_value: float | None = None,
    reduced: int = 1,
    profiles: Sequence[bytes] = (),
) -> JoinedFrames | TotalPixelMatrix:
    """Return the stored frames of instances, or the planes that they are tiles of.

    Parameters
    ----------
    instances : sequence of Described
    options : mapping
        Decoding options.
    fill_value : number, optional
        Value of pixels without a tile.
    reduced : int, optional
        Planes of tiles with 1 / `reduced` of the rows and columns.
    profiles : sequence of bytes, optional
        ICC profile of each plane, to make sRGB.
    """
    parts = [part for one in instances for part in one.stored or (one,)]
    joined = JoinedFrames(parts, **options)
    if not instances[0].stored:
        return joined
    filled = absent_pixel(instances[0], joined) if fill_value is None else fill_value
    tiles = joined if reduced == 1 else ReducedFrames(joined, reduced)
    return TotalPixelMatrix(tiles, instances, filled, profiles)


def may_lack_tiles(instances: Iterable[Described]) -> bool:
    """Return whether there may be places without a tile."""
    tilings = [part.tiling for one in instances for part in one.stored]
    return any(
        one.places or one.frames < math.prod(one.grid) * one.planes
        for one in tilings
        if one is not None
    )


def absent_colour(frames: ArrayLike) -> Any:
    """Return the colour of pixels without a tile; None of frames that are no planes in colour."""
    if isinstance(frames, ArrangedFrames):
        return absent_colour(frames.frames)
    if isinstance(frames, TransformedFrames):
        stored = absent_colour(frames.frames)
        return None if stored is None else frames.transformed(stored)
    if isinstance(frames, TotalPixelMatrix) and frames.ndim > 3:
        return frames.fill_value
    return None


def absent_pixel(one: Described, frames: ArrayLike) -> Any:
    """Return the value of pixels without a tile.

    Of colour it is (0048,0015) Recommended Absent Pixel CIELab Value, or white as the glass of a
    slide is; of grey it is 0.
    """
    if one.samples != 3 or frames.dtype.kind == "f":
        return 0
    absent = one.tiling.absent if one.tiling else ()
    share = srgb_of(absent) or (1.0, 1.0, 1.0)
    return np.rint(np.array(share) * (2**one.bits_stored - 1)).astype(frames.dtype)
