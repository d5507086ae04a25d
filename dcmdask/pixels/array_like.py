"""Base of arrays of frames: NumPy's members, all but the values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


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
        """Return what `key` selects, in a new array; see :mod:`dcmdask.pixels.indexing`."""
