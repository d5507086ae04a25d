"""Frames of one instance, read in runs and decoded one by one into one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.dicom import offsets
from dcmdask.dicom.instance import Instance
from dcmdask.pixels import shortcut
from dcmdask.pixels.decode import Decoding, Encoded, Span, allocate, decode_into, examine
from dcmdask.sources import files
from dcmdask.sources.dicomweb import ServedInstance

# Encoded bytes that one read holds in memory, unless one frame has more. Each read of a remote file
# waits for an answer: with half of it, 500 frames of 17 KB from 50 ms away take a quarter longer.
# For local files few enough to be in the processor's cache when they are decoded.
READ_BYTES = 8 * 2**20
LOCAL_READ_BYTES = 2**20
# Bytes that frames on a server take decoded, which are fetched by several requests at a time.
SERVED_READ_BYTES = 8 * READ_BYTES


def batches(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Split spans of these lengths into runs that are read together.

    Yields
    ------
    start, stop : int
        Bounds of a run of at most `limit` bytes, or of one span.

    Examples
    --------
    >>> list(batches([3, 3, 3, 9, 1], 6))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    start = total = 0
    for position, length in enumerate(lengths):
        if total and total + length > limit:
            yield start, position
            start, total = position, 0
        total += length
    if start < len(lengths):
        yield start, len(lengths)


def encoded_frames(instance: Instance, frames: Sequence[int]) -> Iterator[Encoded]:
    """Yield `frames`, a run at a time in memory.

    Each is only valid until the next one: its memory is used again.
    """
    starts, lengths = instance.spans.locate(np.asarray(frames, np.int64))
    read = _read_local if isinstance(instance.source, files.LocalFile) else _read
    spans = read(instance.source, starts, lengths)
    before: Encoded | None = None
    for frame, span in zip(frames, spans, strict=True):
        before = examine(instance, frame, span, before)
        yield before


def _read(source: files.Source, starts: list[int], lengths: list[int]) -> Iterator[Span]:
    limit = SERVED_READ_BYTES if isinstance(source, ServedInstance) else READ_BYTES
    for first, stop in batches(lengths, limit):
        yield from files.read(source, starts[first:stop], lengths[first:stop])


def _read_local(source: files.Source, starts: list[int], lengths: list[int]) -> Iterator[Span]:
    """Read neighbours in one call, into memory that is used again.

    Each call releases the interpreter's lock, and getting it back takes longer than reading
    a small frame; filling fresh pages of memory takes longer than reading into used ones.
    """
    room = bytearray()
    with files.opened(source) as file:
        for first, stop in batches(lengths, LOCAL_READ_BYTES):
            needed = sum(lengths[first:stop])
            if len(room) < needed:
                room = bytearray(needed)
            view = memoryview(room)
            filled = 0
            for offset, length in _joined(starts[first:stop], lengths[first:stop]):
                files.read_into(file, offset, view[filled : filled + length], source)
                filled += length
            taken = 0
            for length in lengths[first:stop]:
                yield view[taken : taken + length]
                taken += length


def _joined(starts: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield offset and length of spans, those that follow each other without a gap as one."""
    offset, joined = starts[0], 0
    for start, length in zip(starts, lengths, strict=True):
        if start != offset + joined:
            yield offset, joined
            offset, joined = start, 0
        joined += length
    yield offset, joined


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
    is_local = isinstance(instance.source, files.LocalFile) and not how.plugin
    if is_local and shortcut.is_stored_as_decoded(instance.pixels, how.raw):
        if out is None:
            out = np.empty((len(frames), *instance.pixels.frame_shape), instance.pixels.dtype)
        _read_native(instance, frames, out)
        return out
    if is_local and shortcut.is_stored_as_bits(instance.pixels, how.raw):
        # All at once: each frame alone would wait for the interpreter's lock.
        packed = np.empty((len(frames), instance.pixels.frame_bits // 8), np.uint8)
        _read_native(instance, frames, packed)
        unpacked = np.unpackbits(packed, axis=1, bitorder="little")
        unpacked = unpacked.reshape(len(frames), *instance.pixels.frame_shape)
        if out is None:
            return unpacked
        out[...] = unpacked
        return out
    for position, encoded in enumerate(encoded_frames(instance, frames)):
        if out is None:
            out = allocate(instance, how, frames, encoded)
        decode_into(instance, how, encoded, out[position])
    if out is None:
        out = np.empty((0, *instance.pixels.frame_shape), instance.pixels.dtype)
    return out


def decoded_frames(
    instance: Instance, how: Decoding, frames: Sequence[int]
) -> Iterator[npt.NDArray[Any]]:
    """Yield `frames` decoded, in the processor's cache.

    Each is only valid until the next one: its memory is used again.
    """
    if not instance.pixels.transfer_syntax.is_encapsulated:
        # Each frame alone would wait for the interpreter's lock.
        size = max(1, instance.pixels.frame_bits // 8)
        for start, stop in batches([size] * len(frames), LOCAL_READ_BYTES):
            yield from decode_frames(instance, how, frames[start:stop])
        return
    room: npt.NDArray[Any] | None = None
    for encoded in encoded_frames(instance, frames):
        if room is None:
            (room,) = allocate(instance, how, [encoded.frame], encoded)
        decode_into(instance, how, encoded, room)
        yield room


def _read_native(instance: Instance, frames: Sequence[int], out: npt.NDArray[Any]) -> None:
    """Read native frames into `out`, without bytes objects, whose fresh pages take five times
    as long as reading.
    """
    assert isinstance(instance.spans, offsets.NativeSpans)
    starts, _ = instance.spans.locate(np.asarray(frames, np.int64))
    with files.opened(instance.source) as file:
        for start, frame in zip(starts, out, strict=True):
            files.read_into(file, start, memoryview(frame).cast("B"), instance.source)
            shortcut.drop_unused_bits(instance.pixels, frame, frame)
