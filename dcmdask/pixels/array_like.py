"""Base of arrays of frames, and their indices by NumPy's rules.

The axes that number the frames come first. Each takes an integer or a slice, and one of
them may take an array of integers or booleans; the axes inside a frame take integers and
slices. Everything else is an IndexError.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.errors import FrameNumberError

FrameKey: TypeAlias = "int | slice | npt.NDArray[Any]"
InnerKey: TypeAlias = "tuple[int | slice, ...]"


class ArrayLike(ABC):
    """An array of frames that makes its values when it is indexed.

    Attributes
    ----------
    shape : tuple of int
        The axes that number the frames, then rows, columns and, for colour, samples.
    dtype : numpy.dtype
    frame_axes : int
        Number of axes that number the frames.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frame_axes: int = 1

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all frames, decoded."""
        return self.size * self.dtype.itemsize

    @property
    @abstractmethod
    def name(self) -> str:
        """Display name of the source."""

    @property
    @abstractmethod
    def token(self) -> str:
        """Hash of the sources and of everything that the values depend on."""

    def __dask_tokenize__(self) -> str:
        return self.token

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype}, {self.name}>"

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for position in range(len(self)):
            yield self[position]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("frames are decoded into a new array: copy=False cannot be kept")
        array: npt.NDArray[Any] = np.asarray(self[:], dtype)
        return array

    @abstractmethod
    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Return what `key` selects, in a new array; see :func:`split`."""


def split(key: Any, ndim: int, frame_axes: int = 1) -> tuple[tuple[FrameKey, ...], InnerKey]:
    """Return the index of each frame axis, and of each axis inside a frame.

    Parameters
    ----------
    key : object
        The index, as it stands between the brackets.
    ndim : int
    frame_axes : int, optional
        Number of axes that number the frames.

    Raises
    ------
    IndexError
        `key` is of a kind that is not taken here, or has too many parts.

    Examples
    --------
    >>> split((5, ..., 0), 4)
    ((5,), (slice(None, None, None), slice(None, None, None), 0))
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(k is Ellipsis for k in keys) > 1:
        raise IndexError("an index can only have a single Ellipsis")
    position = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    given = [k for k in keys if k is not Ellipsis]
    if len(given) > ndim:
        raise IndexError(f"{len(given)} indices for {ndim} dimensions")
    position = min(position, len(given))
    full = [*given[:position], *[slice(None)] * (ndim - len(given)), *given[position:]]
    outer = tuple(_frame_key(k) for k in full[:frame_axes])
    inner = tuple(_plain(k) for k in full[frame_axes:])
    arrays = [axis for axis, k in enumerate(outer) if isinstance(k, np.ndarray)]
    if len(arrays) > 1:
        raise IndexError(f"one axis can be indexed by an array, and here {len(arrays)} are")
    # NumPy puts the axis of an array in front of all others where slices stand between it
    # and an integer, which is hardly what is meant.
    if arrays and any(isinstance(k, slice) for k in outer[: arrays[0]]):
        picking = [i for i, k in enumerate(keys) if not isinstance(k, slice | type(Ellipsis))]
        if picking[-1] - picking[0] >= len(picking):
            raise IndexError(
                f"axis {arrays[0]} is indexed by an array and others, apart from it, by integers: "
                "index in two steps"
            )
    return outer, inner


def _frame_key(key: Any) -> FrameKey:
    if isinstance(key, list) or (isinstance(key, np.ndarray) and key.ndim > 0):
        numbers = np.asarray(key)
        if numbers.size == 0 and not isinstance(key, np.ndarray):
            numbers = numbers.astype(np.intp)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iub":
            raise IndexError(
                f"frames are picked by one list of integers or booleans, not {numbers.dtype} "
                f"of {numbers.ndim} dimensions"
            )
        return numbers
    return _plain(key)


def _plain(key: Any) -> int | slice:
    if isinstance(key, slice):
        return key
    if isinstance(key, bool | np.bool_) or key is None:
        raise IndexError(f"an integer, a slice or Ellipsis is needed, not {key!r}")
    try:
        return operator.index(key)
    except TypeError:
        raise IndexError(
            "integers, slices, Ellipsis and one list of frames are valid indices, not "
            f"{type(key).__name__}"
        ) from None


def frame_number(frame: int, count: int, name: str) -> int:
    """Return `frame` counted from the first of `count` frames of the source `name`.

    Raises
    ------
    FrameNumberError
        There is no such frame.
    """
    frame = operator.index(frame)
    if not -count <= frame < count:
        raise FrameNumberError(
            f"frame {frame} is out of range: there are {count} frames", source=name
        )
    return frame + count if frame < 0 else frame


def frame_numbers(key: FrameKey, count: int, name: str) -> list[int]:
    """Return the frames that `key` picks of `count`, each counted from the first.

    Raises
    ------
    FrameNumberError
        One of them does not exist.
    IndexError
        There are more or fewer booleans than frames.

    Examples
    --------
    >>> frame_numbers(slice(None, None, 2), 5, "a.dcm"), frame_numbers(-1, 5, "a.dcm")
    ([0, 2, 4], [4])
    """
    if isinstance(key, slice):
        return list(range(*key.indices(count)))
    if not isinstance(key, np.ndarray):
        return [frame_number(key, count, name)]
    if key.dtype.kind == "b":
        if len(key) != count:
            raise IndexError(f"{len(key)} booleans for {count} frames")
        return np.flatnonzero(key).tolist()
    return [frame_number(frame, count, name) for frame in key.tolist()]


def inner_shape(key: InnerKey, shape: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Return the shape of what `key` selects of one frame, and whether that is all of it.

    Raises
    ------
    IndexError
        An integer is out of range.

    Examples
    --------
    >>> inner_shape((slice(2, None), 3), (5, 6))
    ((3,), False)
    """
    # A view without elements tells the shape, and checks integers against it.
    selected = np.broadcast_to(np.empty((), "?"), shape)[key].shape
    forwards = all(isinstance(k, slice) and (k.step is None or k.step > 0) for k in key)
    return selected, forwards and selected == shape
