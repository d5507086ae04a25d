"""`ArrangedFrames`: frames in their places along several axes, such as (t, z, rows, columns)."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.pixels.array_like import ArrayLike, inner_shape, split

ABSENT = -1


class ArrangedFrames(ArrayLike):
    """Frames as an array (..., rows, columns) or (..., rows, columns, samples).

    Each access decodes every frame that it needs once, and no other.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns[, samples]).
    numbers : array of int64
        Frame at each place, of any shape; -1 for none. A frame may be in
        several places, or in none.
    fill_value : array-like, optional
        Value of places without a frame, or one for each sample; needed if there are some.

    Attributes
    ----------
    shape : tuple of int
        ``(*numbers.shape, *frames.shape[1:])``.
    dtype : numpy.dtype
        That of the frames, in native byte order.

    Raises
    ------
    ValueError
        A number is of no frame; there is no `fill_value` where one is needed, or it does
        not fit the type.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask.pixels.frame_array import open_frames
    >>> frames = open_frames(get_testdata_file("examples_ybr_color.dcm"))
    >>> arranged = ArrangedFrames(frames, np.arange(30).reshape(5, 6))
    >>> arranged.shape, arranged[2, 3:5, :, 0].shape
    ((5, 6, 240, 320, 3), (2, 240, 3))
    """

    def __init__(
        self, frames: ArrayLike, numbers: npt.ArrayLike, fill_value: npt.ArrayLike | None = None
    ) -> None:
        self.frames = frames
        self.numbers = np.array(numbers, np.int64)
        self.frame_axes = self.numbers.ndim
        self.shape = (*self.numbers.shape, *frames.shape[1:])
        self.dtype = frames.dtype.newbyteorder("=")
        self.fill_value: Any = None
        if fill_value is not None:
            each = [fitting(one, self.dtype) for one in np.ravel(fill_value).tolist()]
            self.fill_value = each[0] if len(set(each)) == 1 else np.array(each, self.dtype)
        wrong = (self.numbers < ABSENT) | (self.numbers >= len(frames))
        if wrong.any():
            raise ValueError(
                f"there is no frame {self.numbers[wrong][0]}: there are {len(frames)}, and -1 "
                "stands for none"
            )
        if fill_value is None and (self.numbers == ABSENT).any():
            raise ValueError("there are places without a frame: a fill_value is needed")

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below, and of where they lie."""
        parts = (self.frames.token, self.numbers.shape, repr(self.fill_value))
        digest = hashlib.blake2b(repr(parts).encode(), digest_size=16)
        digest.update(self.numbers.tobytes())
        return digest.hexdigest()

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames that `key` needs, and return what it selects of them.

        Parameters
        ----------
        key : int, slice, Ellipsis, tuple of them, with one array or list among them
            One axis in front of rows takes an array of integers or booleans, if no slice
            stands between it and an integer; the others take integers and slices.

        Raises
        ------
        IndexError
            An index is out of range, or something that this array does not take.
        DecodeError, SourceChangedError, FileNotFoundError
            As the frames below do.
        """
        outer, inner = split(key, self.ndim, self.frame_axes)
        numbers = np.asarray(self.numbers[outer])
        shape, _ = inner_shape(inner, self.shape[self.frame_axes :])
        wanted = numbers.ravel()
        there = wanted != ABSENT
        frames, places = np.unique(wanted[there], return_inverse=True)
        if len(frames) == len(places):
            # In the order asked for there is nothing left to move.
            out = self.frames[(wanted[there], *inner)]
        else:
            out = self.frames[(frames, *inner)][places]
        out = out.astype(self.dtype, copy=False)
        if not there.all():
            some, out = out, np.zeros((len(wanted), *shape), self.dtype)
            if np.any(self.fill_value):
                out[~there] = self.fill_value
            out[there] = some
        selected: npt.NDArray[Any] = out.reshape((*numbers.shape, *shape))[()]
        return selected


def fitting(fill_value: float, dtype: np.dtype[Any]) -> Any:
    """Return `fill_value` in `dtype`.

    Raises
    ------
    ValueError
        It does not fit.
    """
    number = float(fill_value)
    if dtype.kind == "f":
        fits = not math.isfinite(number) or abs(number) <= float(np.finfo(dtype).max)
    elif dtype.kind == "b":
        fits = number in (0, 1)
    else:
        limits = np.iinfo(dtype)
        fits = number.is_integer() and limits.min <= int(fill_value) <= limits.max
    if not fits:
        raise ValueError(f"the fill value {fill_value!r} does not fit {dtype}")
    return dtype.type(fill_value)
