"""`from_dicom`: one file as a lazy Dask array, and how its chunks are planned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.utils import parse_bytes
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dcmdask.frames.frame_array import FrameArray, open_frames

Chunks: TypeAlias = "int | str | Sequence[Any] | Mapping[int, Any] | None"

# Seconds per megabyte of decoded frame on one thread, as benchmarks/costs.py measures them,
# the slower of 12-bit frames with noise and RGB tiles (an estimate for 12-bit JPEG). Constants,
# so that a graph does not depend on the machine that makes it.
SECONDS_PER_MEGABYTE: Mapping[str, float] = {
    RLELossless: 0.0007,
    JPEGBaseline8Bit: 0.002,
    JPEGExtended12Bit: 0.010,
    JPEGLossless: 0.009,
    JPEGLosslessSV1: 0.009,
    JPEGLSLossless: 0.014,
    JPEGLSNearLossless: 0.014,
    JPEG2000Lossless: 0.053,
    JPEG2000: 0.053,
    HTJ2KLossless: 0.008,
    HTJ2KLosslessRPCL: 0.008,
    HTJ2K: 0.008,
}
SECONDS_PER_MEGABYTE_NATIVE = 0.00012
SECONDS_PER_FRAME = 0.00005
# A task should be long beside the 0.3 ms that the scheduler takes for it, and short beside
# the wait for one frame; there should be enough of them for a cluster.
LEAST_TASK_SECONDS = 0.003
TASK_SECONDS = 0.2
LEAST_CHUNKS = 32


def from_dicom(
    src: Any,
    *,
    chunks: Chunks = "auto",
    raw: bool = False,
    decoding_plugin: str = "",
    storage_options: Mapping[str, Any] | None = None,
    **decoding_options: Any,
) -> da.Array:
    """Open one DICOM file as a lazy Dask array; nothing is decoded.

    A slice of the array decodes only the frames that it names: ``x[5]``, ``x[::50]`` and
    ``x[10:20, :64, :64]`` are handed down to the frames. A list or mask of frames and a
    negative step are not: whole chunks are decoded; index what :func:`open_frames` gives
    for that. The multiprocessing scheduler sends the frame index with every task, the
    distributed one once to each worker.

    Parameters
    ----------
    src : str, path-like, file-like, bytes, pydicom.Dataset or FrameArray
        As for :func:`open_frames`. Bytes and data sets become part of the graph.
    chunks : int, str, tuple or dict, optional
        Frames per chunk; a chunk is made of whole frames. ``"auto"`` plans by the cost
        of decoding: at most 0.2 s and a quarter of Dask's ``array.chunk-size`` a chunk,
        and at least 32 chunks, unless there are fewer frames or a chunk would take less
        than 3 ms. A size such as ``"64 MiB"``, ``-1`` for all frames, a tuple for all axes
        or a dict by axis work as in Dask, as long as rows, columns and samples stay whole.
    raw, decoding_plugin, storage_options, **decoding_options
        As for :func:`open_frames`.

    Returns
    -------
    dask.array.Array
        (frames, rows, columns), or (frames, rows, columns, samples) for 3 samples; also
        for a single frame. Its name is a hash of the source (path, size and modification
        time, or content) and all options.

    Raises
    ------
    ValueError
        `chunks` would split rows, columns or samples.
    DcmdaskError
        As for :func:`open_frames`.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> x = from_dicom(get_testdata_file("examples_ybr_color.dcm"), chunks=10)
    >>> x
    dask.array<from_dicom, shape=(30, 240, 320, 3), dtype=uint8, chunksize=(10, 240, 320, 3), \
chunktype=numpy.ndarray>
    >>> int(x[5].max().compute())
    220
    """
    if isinstance(src, FrameArray):
        if raw or decoding_plugin or storage_options or decoding_options:
            raise TypeError("a FrameArray has its options already; open it with others")
        frames = src
    else:
        frames = open_frames(
            src,
            raw=raw,
            decoding_plugin=decoding_plugin,
            storage_options=storage_options,
            **decoding_options,
        )
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


def plan_chunks(frames: FrameArray, chunks: Chunks = "auto") -> tuple[tuple[int, ...], ...]:
    """Return chunks of whole frames, as Dask writes them.

    Raises
    ------
    ValueError
        A chunk would not be made of whole frames, or chunks and frames do not add up.
    """
    rest = frames.shape[1:]
    wanted = _along_frames(chunks, frames.shape)
    if isinstance(wanted, int) and (wanted < -1 or wanted == 0):
        raise ValueError(f"chunks of {wanted} frames cannot be: use 1 or more, or -1 for all")
    if wanted == "auto":
        limit = parse_bytes(dask.config.get("array.chunk-size")) // 4
        wanted = _affordable(frames.shape, frames.dtype.itemsize, frames.transfer_syntax, limit)
    elif isinstance(wanted, str):
        wanted = max(1, parse_bytes(wanted) // max(1, frames.nbytes // max(1, len(frames))))
    if isinstance(wanted, int):
        wanted = min(wanted, len(frames))
    (along,) = da.core.normalize_chunks((wanted,), shape=(len(frames),))
    return (tuple(along), *((length,) for length in rest))


def _along_frames(chunks: Chunks, shape: tuple[int, ...]) -> Any:
    """Return what `chunks` says of the frame axis, once it leaves the others whole."""
    if isinstance(chunks, Mapping):
        if unknown := sorted(set(chunks) - set(range(len(shape))), key=str):
            raise ValueError(f"chunks {chunks!r}: {unknown} are no axes of {shape}, by number")
        by_axis = [chunks.get(axis, "auto" if axis == 0 else -1) for axis in range(len(shape))]
    elif isinstance(chunks, Sequence) and not isinstance(chunks, str):
        by_axis = list(chunks)
        if len(by_axis) != len(shape):
            raise ValueError(f"chunks {chunks!r} are for {len(by_axis)} axes of {len(shape)}")
    else:
        return -1 if chunks is None else chunks
    for axis, wanted in enumerate(by_axis[1:], 1):
        length = shape[axis]
        if wanted not in (-1, None, "auto", length, (length,)) and not (
            isinstance(wanted, int) and wanted >= length
        ):
            raise ValueError(
                f"chunks {chunks!r} split axis {axis} of {shape}, and a frame is decoded whole: "
                f"use chunks={by_axis[0]!r} and then .rechunk({{{axis}: {wanted!r}}})"
            )
    return by_axis[0]


def _affordable(shape: tuple[int, ...], itemsize: int, syntax: UID, limit: int) -> int:
    """Return how many frames make a task of the right size."""
    frame_bytes = math.prod(shape[1:]) * itemsize
    each = SECONDS_PER_MEGABYTE.get(syntax, SECONDS_PER_MEGABYTE_NATIVE)
    seconds = SECONDS_PER_FRAME + each * frame_bytes / 1e6
    by_time = TASK_SECONDS / seconds
    by_memory = limit / max(1, frame_bytes)
    by_count = max(shape[0] / LEAST_CHUNKS, LEAST_TASK_SECONDS / seconds)
    return max(1, int(min(by_time, by_memory, by_count)))
