"""Many frames of one instance: read in runs, decoded one by one into one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.frames import files, offsets, shortcut
from dcmdask.frames.decode import Decoding, allocate, decode_into
from dcmdask.frames.instance import Instance

# Encoded bytes that one read holds in memory at most, unless one frame has more.
READ_BYTES = 4 * 2**20


def batches(instance: Instance, frames: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Split `frames` into runs whose spans are read together.

    Yields
    ------
    start : int
        Position of the first frame of the run in `frames`.
    run : list of int
    """
    _, lengths = instance.spans.locate(np.asarray(frames, np.int64))
    start = total = 0
    for position, length in enumerate(lengths):
        if total and total + length > READ_BYTES:
            yield start, list(frames[start:position])
            start, total = position, 0
        total += length
    if start < len(frames):
        yield start, list(frames[start:])


def spans_of(instance: Instance, frames: Sequence[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yield position in `frames`, frame and span, a run at a time in memory."""
    for start, run in batches(instance, frames):
        for position, (frame, encoded) in enumerate(
            zip(run, instance.read(run), strict=True), start
        ):
            yield position, frame, encoded


def decode_frames(
    instance: Instance, how: Decoding, frames: Sequence[int], out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Decode `frames` into `out`, or into a new array, and return it.

    Parameters
    ----------
    instance : Instance
    how : Decoding
    frames : sequence of int
    out : ndarray, optional
        (len(frames), *frame shape), C-contiguous.
    """
    if _read_straight(instance, how):
        if out is None:
            out = np.empty((len(frames), *instance.pixels.frame_shape), instance.pixels.dtype)
        _read_native(instance, frames, out)
        return out
    for position, frame, encoded in spans_of(instance, frames):
        if out is None:
            out = allocate(instance, len(frames), frame, encoded)
        decode_into(instance, how, frame, encoded, out[position])
    if out is None:
        out = np.empty((0, *instance.pixels.frame_shape), instance.pixels.dtype)
    return out


def _read_straight(instance: Instance, how: Decoding) -> bool:
    """Return whether the bytes of a local file are the frames, but for unused bits."""
    return (
        not how.plugin
        and isinstance(instance.source, files.LocalFile)
        and shortcut.is_stored_as_decoded(instance.pixels, how.raw)
    )


def _read_native(instance: Instance, frames: Sequence[int], out: npt.NDArray[Any]) -> None:
    """Read native frames without an object between the file and `out`.

    Bytes objects of this size come in fresh pages of the system, which cost five times
    what reading them takes.
    """
    assert isinstance(instance.spans, offsets.NativeSpans)
    starts, _ = instance.spans.locate(np.asarray(frames, np.int64))
    with files.opened(instance.source) as file:
        for start, frame in zip(starts, out, strict=True):
            files.read_into(file, start, frame, instance.name)
            shortcut.drop_unused_bits(instance.pixels, frame, frame)
