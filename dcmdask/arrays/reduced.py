"""`ReducedFrames`: frames at a fraction of their size, by their codec where it can do that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.pixels.array_like import ArrayLike, frame_numbers, split

# Bytes of whole frames that are reduced at a time.
TILES_BYTES: Final = 2**24


class ReducedFrames(ArrayLike):
    """Frames with 1 / `factor` of the rows and columns, rounded up.

    JPEG and JPEG 2000 are decoded so (:meth:`dcmdask.FrameArray.reduced` says how close that comes
    to means of blocks of pixels); others are decoded whole, and are such means.

    Parameters
    ----------
    frames : JoinedFrames
    factor : int
        A power of 2.
    """

    def __init__(self, frames: JoinedFrames, factor: int) -> None:
        self.frames = frames
        self.factor = factor
        rows, columns = (-(-length // factor) for length in frames.shape[1:3])
        self.shape = (len(frames), rows, columns, *frames.shape[3:])
        self.dtype = frames.dtype

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames, and of the factor."""
        return f"{self.frames.token}-{self.factor}"

    def each(self, frames: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Yield frames, in the order asked for."""
        step = max(1, TILES_BYTES // (self.frames.nbytes // max(1, len(self))))
        for first in range(0, len(frames), step):
            yield from self[np.asarray(frames[first : first + step])]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames that `key` names, and return what it selects of them."""
        (outer,), inner = split(key, self.ndim)
        numbers = frame_numbers(outer, len(self), self.name)
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for start, stop, small in self.frames.reduced(numbers, self.factor):
            if small is None:
                small = averaged(self.frames[np.array(numbers[start:stop])], self.factor)
            out[start:stop] = small
        selected: npt.NDArray[Any] = out[(slice(None), *inner)]
        return selected[0] if isinstance(outer, int) else selected


def averaged(frames: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Return the means of blocks of pixels; at the end of those that there are.

    Examples
    --------
    >>> averaged(np.array([[[1, 2, 9], [3, 4, 10]]], np.uint8), 2)
    array([[[ 3, 10]]], dtype=uint8)
    """
    total: npt.NDArray[Any] = frames
    counts = np.ones(1)
    for axis in (1, 2):
        length = frames.shape[axis]
        starts = np.arange(0, length, factor)
        along = np.moveaxis(total, axis, 0)
        summed = np.zeros((len(starts), *along.shape[1:]))
        # In a fifth of the time of numpy.add.reduceat.
        for first in range(min(factor, length)):
            part = along[first::factor]
            summed[: len(part)] += part
        total = np.moveaxis(summed, 0, axis)
        counts = np.multiply.outer(counts, np.minimum(factor, length - starts))
    total /= counts.reshape(1, *counts.shape[1:], *(1,) * (frames.ndim - 3))
    if frames.dtype.kind in "iu":
        total = np.floor(total + 0.5)
    return total.astype(frames.dtype)
