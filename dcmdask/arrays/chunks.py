"""Frames handed to Dask, in chunks of whole frames that are planned by what decoding costs."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.matrix import TotalPixelMatrix
from dcmdask.arrays.modality import TransformedFrames
from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.arrays.reduced import ReducedFrames
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.pixels.frame_array import FrameArray
from dcmdask.pixels.guard import SYNTAXES

if TYPE_CHECKING:
    import dask.array as da

Chunks: TypeAlias = "int | str | Sequence[Any] | Mapping[int, Any] | None"

# As the costs of other transfer syntaxes.
SECONDS_PER_MEGABYTE_NATIVE = 0.00012
SECONDS_PER_FRAME = 0.00005
# To open a file of one frame, and to transform values, both on the slower side.
SECONDS_PER_OPENING = 0.0001
SECONDS_PER_MEGAPIXEL_TRANSFORMED = 0.001
# A task should be long beside the 0.3 ms that the scheduler takes for it, and short beside
# the wait for one frame; there should be enough of them for a cluster.
LEAST_TASK_SECONDS = 0.003
TASK_SECONDS = 0.2
LEAST_CHUNKS = 32


def to_dask(frames: ArrayLike, chunks: Chunks = "auto") -> da.Array:
    """Hand an array-like of frames to Dask; nothing is decoded.

    Parameters
    ----------
    frames : array-like
        Such as :class:`FrameArray`, or what is built around it.
    chunks : int, str, tuple or dict, optional
        As for :func:`plan_chunks`.

    Returns
    -------
    dask.array.Array
        Of the same shape and type; its name is a hash of the token and the chunks.
    """
    # A plan alone need not wait for the import.
    import dask.array as da
    from dask.base import tokenize

    planned = plan_chunks(frames, chunks)
    array: da.Array = da.from_array(
        frames,
        chunks=planned,
        name=f"from_dicom-{tokenize(frames, planned)}",
        asarray=False,
        meta=np.empty((0,) * frames.ndim, frames.dtype),
        inline_array=False,
    )
    return array


def plan_chunks(frames: ArrayLike, chunks: Chunks = "auto") -> tuple[tuple[int, ...], ...]:
    """Return chunks of whole frames, as Dask writes them; of total pixel matrices, of whole tiles.

    Where several axes number the frames, a number of frames or a size is for all of them
    together: the last takes as many as it has, the one before it the rest, and so on. Of total
    pixel matrices a number is one of rows and of columns, and a chunk is of one plane.

    Parameters
    ----------
    frames : array-like
    chunks : int, str, tuple or dict, optional
        ``"auto"``, a number of frames, a size such as ``"64 MiB"``, -1 or None for all
        frames; a tuple of them (or of chunk lengths) for all axes; or a dict by axis.

    Raises
    ------
    ValueError
        A chunk would not be made of whole frames, or chunks and frames do not add up.
    """
    axes = frames.frame_axes
    if (matrix := matrix_of(frames)) is not None:
        return _plan_tiles(frames, matrix.tile, chunks)
    explicit, together = _along_frames(chunks, frames.shape, axes)
    along = {axis: _divided(frames.shape[axis], wanted) for axis, wanted in explicit.items()}
    left = min((_frames_at_once(wanted, frames) for wanted in together), default=1)
    left //= math.prod(max(lengths) for lengths in along.values())
    for axis in reversed(range(axes)):
        if axis not in along:
            step = max(1, min(left, frames.shape[axis]))
            along[axis] = _divided(frames.shape[axis], step)
            left //= step
    inner = ((length,) for length in frames.shape[axes:])
    return (*(along[axis] for axis in range(axes)), *inner)


def matrix_of(frames: ArrayLike) -> TotalPixelMatrix | None:
    """Return the total pixel matrices that frames are planes of, if they are."""
    while isinstance(frames, ArrangedFrames | TransformedFrames):
        frames = frames.frames
    return frames if isinstance(frames, TotalPixelMatrix) else None


def _plan_tiles(
    frames: ArrayLike, tile: tuple[int, int], chunks: Chunks
) -> tuple[tuple[int, ...], ...]:
    """Return chunks of whole tiles of one plane, about as wide as high."""
    shape, axes = frames.shape, frames.frame_axes
    plane = axes, axes + 1
    if isinstance(chunks, Mapping):
        if unknown := sorted(set(chunks) - set(range(len(shape))), key=str):
            raise ValueError(f"chunks {chunks!r}: {unknown} are no axes of {shape}, by number")
        wanted = [chunks.get(axis, "auto") for axis in range(len(shape))]
    elif isinstance(chunks, Sequence) and not isinstance(chunks, str):
        wanted = list(chunks)
        if len(wanted) != len(shape):
            raise ValueError(f"chunks {chunks!r} are for {len(wanted)} axes of {len(shape)}")
    else:
        wanted = [chunks if axis in plane else "auto" for axis in range(len(shape))]
    sizes = [one for one in wanted if isinstance(one, str)]
    tiles = min((_tiles_at_once(one, frames, tile) for one in sizes), default=1)
    grid = [-(-shape[axis] // length) for axis, length in zip(plane, tile, strict=True)]
    down = min(grid[0], max(1, math.isqrt(tiles)))
    across = min(grid[1], max(1, tiles // down))
    together = {plane[0]: down * tile[0], plane[1]: across * tile[1]}
    found = []
    for axis, (one, length) in enumerate(zip(wanted, shape, strict=True)):
        if isinstance(one, str):
            one = together.get(axis, 1 if axis < axes else -1)
        along = _divided(length, -1 if one is None else one)
        step = tile[plane.index(axis)] if axis in plane else 1 if axis < axes else length
        if any(part % step for part in along[:-1]):
            raise ValueError(
                f"chunks {chunks!r} split tiles of {tile} along axis {axis} of {shape}, and a tile "
                f"is decoded whole: use multiples of {step} and then .rechunk()"
            )
        found.append(along)
    return tuple(found)


def _tiles_at_once(wanted: str, frames: ArrayLike, tile: tuple[int, int]) -> int:
    """Return how many tiles a chunk of this size has."""
    import dask.config
    from dask.utils import parse_bytes

    inner = frames.shape[frames.frame_axes :]
    tile_bytes = math.prod((*tile, *inner[2:])) * frames.dtype.itemsize
    if wanted != "auto":
        return max(1, parse_bytes(wanted) // tile_bytes)
    limit = parse_bytes(dask.config.get("array.chunk-size")) // 4
    count = math.prod(-(-n // length) for n, length in zip(inner, tile, strict=False))
    count *= math.prod(frames.shape[: frames.frame_axes])
    seconds = _seconds(frames)
    by_count = max(count / LEAST_CHUNKS, LEAST_TASK_SECONDS / seconds)
    return max(1, int(min(TASK_SECONDS / seconds, limit / tile_bytes, by_count)))


def _along_frames(
    chunks: Chunks, shape: tuple[int, ...], axes: int
) -> tuple[dict[int, Any], list[int | str]]:
    """Return what `chunks` says of single frame axes, and of the others together.

    Raises
    ------
    ValueError
        It says something else of the axes inside a frame than that they stay whole.
    """
    if isinstance(chunks, Mapping):
        if unknown := sorted(set(chunks) - set(range(len(shape))), key=str):
            raise ValueError(f"chunks {chunks!r}: {unknown} are no axes of {shape}, by number")
        by_axis = [chunks.get(axis, "auto" if axis < axes else -1) for axis in range(len(shape))]
    elif isinstance(chunks, Sequence) and not isinstance(chunks, str):
        by_axis = list(chunks)
        if len(by_axis) != len(shape):
            raise ValueError(f"chunks {chunks!r} are for {len(by_axis)} axes of {len(shape)}")
    elif chunks is None or chunks == -1:
        return dict.fromkeys(range(axes), -1), []
    else:
        return {}, [chunks]
    for axis, wanted in enumerate(by_axis[axes:], axes):
        length = shape[axis]
        if wanted not in (-1, None, "auto", length, (length,)) and not (
            isinstance(wanted, int) and wanted >= length
        ):
            whole = by_axis[0] if axes == 1 else tuple(by_axis[:axes])
            raise ValueError(
                f"chunks {chunks!r} split axis {axis} of {shape}, and a frame is decoded whole: "
                f"use chunks={whole!r} and then .rechunk({{{axis}: {wanted!r}}})"
            )
    outer = dict(enumerate(by_axis[:axes]))
    together: list[int | str] = [w for w in outer.values() if isinstance(w, str)]
    return {axis: w for axis, w in outer.items() if not isinstance(w, str)}, together


def _divided(length: int, wanted: Any) -> tuple[int, ...]:
    """Return the chunks of one frame axis."""
    if isinstance(wanted, int | np.integer):
        count = length if wanted == -1 else min(_positive(wanted), length)
        whole, rest = divmod(length, count)
        return (count,) * whole + ((rest,) if rest else ())
    from dask.array.core import normalize_chunks

    (along,) = normalize_chunks((wanted,), shape=(length,))
    return tuple(along)


def _positive(wanted: Any) -> int:
    count = operator.index(wanted)
    if count < 1:
        raise ValueError(f"chunks of {count} frames cannot be: use 1 or more, or -1 for all")
    return count


def _frames_at_once(wanted: int | str, frames: ArrayLike) -> int:
    """Return how many frames a chunk of this size has, counted through all frame axes."""
    if not isinstance(wanted, str):
        return _positive(wanted)
    import dask.config
    from dask.utils import parse_bytes

    frame_bytes = max(1, math.prod(frames.shape[frames.frame_axes :]) * frames.dtype.itemsize)
    if wanted == "auto":
        limit = parse_bytes(dask.config.get("array.chunk-size")) // 4
        return _affordable(frames, frame_bytes, limit)
    return max(1, parse_bytes(wanted) // frame_bytes)


def _affordable(frames: ArrayLike, frame_bytes: int, limit: int) -> int:
    """Return how many frames make a task of the right size."""
    seconds = _seconds(frames)
    by_time = TASK_SECONDS / seconds
    by_memory = limit / frame_bytes
    count = math.prod(frames.shape[: frames.frame_axes])
    by_count = max(count / LEAST_CHUNKS, LEAST_TASK_SECONDS / seconds)
    together = _decoded_together(frames)
    return max(1, int(min(by_time, by_memory, by_count)) // together) * together


def _decoded_together(frames: ArrayLike) -> int:
    """Return the number of frames that decoding one of them decodes."""
    if isinstance(frames, ArrangedFrames | TransformedFrames):
        return _decoded_together(frames.frames)
    return frames.tiles if isinstance(frames, JoinedFrames) else 1


def _seconds(frames: ArrayLike) -> float:
    """Return what a frame, or a tile of a total pixel matrix, takes on one thread, about."""
    if isinstance(frames, ArrangedFrames | TotalPixelMatrix | ReducedFrames):
        return _seconds(frames.frames)
    if isinstance(frames, TransformedFrames):
        matrix = matrix_of(frames)
        pixels = math.prod(frames.shape[1:] if matrix is None else matrix.tile)
        return _seconds(frames.frames) + SECONDS_PER_MEGAPIXEL_TRANSFORMED * pixels / 1e6
    pixels = math.prod(frames.shape[1:])
    if isinstance(frames, JoinedFrames):
        syntaxes: Mapping[str, int] = frames.transfer_syntaxes
        opening = SECONDS_PER_OPENING * frames.read_singly / len(frames)
    else:
        assert isinstance(frames, FrameArray)
        syntaxes, opening = {frames.transfer_syntax: len(frames)}, 0.0
    each = sum(
        (SYNTAXES[syntax].cost if syntax in SYNTAXES else SECONDS_PER_MEGABYTE_NATIVE) * count
        for syntax, count in syntaxes.items()
    ) / len(frames)
    return SECONDS_PER_FRAME + opening + each * pixels * frames.dtype.itemsize / 1e6
