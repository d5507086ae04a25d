"""The task of an export: decode the frames of a region, and write each object that they fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from dcmdask.errors import AlignmentError, DcmdaskError, StoreLostError
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.store.plan import Plan
from dcmdask.store.pyramid import halve
from dcmdask.store.target import NODE, PARTIAL, discard

Key: TypeAlias = tuple[slice, ...]


class Failure(NamedTuple):
    """A frame that could not be decoded.

    Attributes
    ----------
    frame : tuple of int
        Its index along the axes that number frames.
    reason : str
    """

    frame: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Job:
    """Parameters of all regions of an export; picklable.

    Attributes
    ----------
    frames : array-like
        (..., rows, columns[, samples]).
    plan : Plan
    arrays : tuple of zarr.Array
        One for each level.
    missing : zarr.Array or None
        Takes, for each frame, whether it is missing; None where a frame that cannot be
        decoded ends the export.
    absent : ndarray of bool or None
        Of the shape of `missing`: places without a frame.
    fill_value : float or None
        For missing frames, where `missing` takes them.
    labels : bool
        Whether levels are made of labels.
    """

    frames: ArrayLike
    plan: Plan
    arrays: tuple[zarr.Array[Any], ...]
    missing: zarr.Array[Any] | None = None
    absent: npt.NDArray[np.bool_] | None = None
    fill_value: float | None = None
    labels: bool = False


def write_region(job: Job, number: int) -> list[Failure]:
    """Decode region `number`, and write it to levels 0 and 1.

    Returns
    -------
    list of Failure
        The frames that were filled.

    Raises
    ------
    DecodeError
        A frame cannot be decoded, and is not to be filled; nothing was written.
    StoreLostError
        The store is gone.
    """
    plan = job.plan
    _check_there(job.arrays[0])
    region = plan.region(0, number)
    along = frames_of(plan, region)
    failures: list[Failure] = []
    if job.missing is None:
        block = job.frames[along]
    else:
        block, failures = decoded_or_filled(job.frames, along, job.fill_value)
    block = stored_as(plan, block)
    if job.missing is not None:
        # Before the pixels, so that a frame whose pixels are there has been told of.
        mask = np.zeros([one.stop - one.start for one in along], bool)
        if job.absent is not None:
            mask |= job.absent[along]
        for index, _ in failures:
            mask[tuple(i - one.start for i, one in zip(index, along, strict=True))] = True
        job.missing[along] = mask
    write(job.arrays[0], region, block)
    if len(job.arrays) > 1:
        write(job.arrays[1], plan.above(region), halve(block, plan.halved, labels=job.labels))
    return failures


def write_level(job: Job, number: int, *, level: int) -> list[Failure]:
    """Make region `number` of `level`, 2 or above, from the level below it."""
    region = job.plan.region(level, number)
    _check_there(job.arrays[level])
    below = job.arrays[level - 1][job.plan.below(level, region)]
    write(job.arrays[level], region, halve(np.asarray(below), job.plan.halved, labels=job.labels))
    return []


def frames_of(plan: Plan, region: Sequence[slice]) -> Key:
    """Return the frames of a region of level 0, along the axes that number them."""
    return tuple(region[axis] for axis in plan.frame_axes)


def stored_as(plan: Plan, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return decoded frames (..., rows, columns[, samples]) with the axes as they are stored."""
    if block.dtype.newbyteorder("=") == plan.dtype:
        # In native byte order; any other difference is refused where it is written.
        block = block.astype(plan.dtype, copy=False)
    if plan.samples_axis not in (None, block.ndim - 1):
        block = np.moveaxis(block, -1, plan.samples_axis)
    return np.ascontiguousarray(block)


def decoded_or_filled(
    frames: ArrayLike, along: Key, fill_value: float | None
) -> tuple[npt.NDArray[Any], list[Failure]]:
    """Decode the frames `along` their axes, and fill those that cannot be decoded.

    Raises
    ------
    DcmdaskError
        The fault is one of a disk or a network, and not of a frame.
    """
    try:
        return frames[along], []
    except DcmdaskError as error:
        _raise_if_it_may_pass(error)
    shape = [one.stop - one.start for one in along]
    block = np.full((*shape, *frames.shape[len(along) :]), fill_value, frames.dtype)
    failures = []
    for index in _indices(along):
        try:
            place = tuple(i - one.start for i, one in zip(index, along, strict=True))
            block[place] = frames[index]
        except DcmdaskError as error:
            _raise_if_it_may_pass(error)
            failures.append(Failure(index, str(error)))
    return block, failures


def _raise_if_it_may_pass(error: DcmdaskError) -> None:
    """Raise what is wrong with a disk or a network, and not with a frame."""
    if isinstance(error, OSError):
        raise error


def _indices(along: Key) -> Iterator[tuple[int, ...]]:
    return product(*(range(one.start, one.stop) for one in along))


def write(array: zarr.Array[Any], region: Key, block: npt.NDArray[Any]) -> None:
    """Write a block that fills a region.

    Raises
    ------
    AlignmentError
        It is of another shape or type.
    StoreLostError
        The store is gone.
    """
    # Zarr would stretch and convert what does not fit, without a word.
    room = tuple(one.stop - one.start for one in region)
    if block.shape != room or block.dtype != array.dtype:
        raise AlignmentError(
            f"a task gave {block.shape} {block.dtype} where the store has {room} {array.dtype}"
        )
    try:
        array[region] = block
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A disk that is full does not say which.
        raise OSError(error.errno, error.strerror, str(array.store_path)) from error
    _check_there(array)


def _check_there(array: zarr.Array[Any]) -> None:
    """Refuse to write to a local store that somebody discarded, and clear up what was.

    On another machine the folder may never have been there.
    """
    store = array.store
    if isinstance(store, LocalStore) and not (store.root / NODE).exists():
        if PARTIAL.search(store.root.name):
            # Not a folder that has a name of its own: whoever made that may have use for it.
            discard(store.root)
        raise StoreLostError(
            "the store is gone: the export has ended, or this worker does not share the file "
            "system",
            source=str(store),
        )
