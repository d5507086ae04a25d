"""Label maps: one volume of segment numbers, made of segments that do not overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.chunks import to_dask
from dcmdask.arrays.placement import ABSENT, ArrangedFrames
from dcmdask.pixels.array_like import ArrayLike, inner_shape, split

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

Array: TypeAlias = "npt.NDArray[Any]"

# Parts that are laid over one another in a task.
_TOGETHER = 16


class LabelMapFrames(ArrayLike):
    """Numbers of segments, as an array (planes, rows, columns); 0 where there is none.

    Each access decodes the segments that are in its planes, and nothing else.

    Parameters
    ----------
    frames : ArrangedFrames
        (segments, planes, rows, columns); not 0 is inside.
    numbers : sequence of int
        Number of each segment.

    Raises
    ------
    ValueError
        When it is indexed: segments overlap.
    """

    def __init__(self, frames: ArrangedFrames, numbers: Sequence[int]) -> None:
        self.frames = frames
        self.dtype = np.min_scalar_type(max(numbers, default=0))
        self.numbers = np.array(numbers, self.dtype)
        self.shape = frames.shape[1:]

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below, and of the numbers."""
        text = f"{type(self).__name__} {self.frames.token} {self.numbers.tolist()}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __getitem__(self, key: Any) -> Array:
        """Decode the segments in the planes that `key` names, and return their numbers there.

        Raises
        ------
        IndexError, DecodeError, SourceChangedError
            As the frames below do.
        """
        (outer,), inner = split(key, self.ndim)
        planes = self.frames.numbers[:, outer].reshape(len(self.numbers), -1)
        # Rows and columns stay axes until all is laid.
        whole = self.frames.frames
        shape, _ = inner_shape(inner, self.shape[1:])
        out = np.zeros((planes.shape[1], *self.shape[1:]), self.dtype)
        for below, numbers in zip(out, planes.T, strict=True):
            there = numbers != ABSENT
            _lay(below, whole[numbers[there]], self.numbers[there])
        selected: Array = out[(slice(None), *inner)].reshape(-1, *shape)
        return selected[0] if isinstance(outer, int) else selected


def labelmap(array: xr.DataArray) -> xr.DataArray:
    """Return the numbers of segments as one array; see :meth:`DicomAccessor.labelmap`."""
    import xarray as xr

    if "segment" not in array.dims or "segment_number" not in array.coords:
        raise ValueError("a label map is made of segments, and the array has no such dimension")
    if array.attrs.get("segmentation_type") == "FRACTIONAL" and array.dtype != bool:
        raise ValueError(
            "parts of fractions are in no segment or another: compare them first, such as "
            "(v > 0.5).dcm.labelmap()"
        )
    if array.ndim < 3:
        raise ValueError("a label map is made of planes, and the array has none: select later")
    array = array.transpose("segment", ...)
    numbers = np.asarray(array.coords["segment_number"].values)
    dtype = np.min_scalar_type(int(numbers.max(initial=0)))
    across = numbers.astype(dtype).reshape(-1, *[1] * (array.ndim - 1))
    data: Any = array.data
    laid: Any
    if isinstance(data, np.ndarray):
        laid = _laid_over(_numbered(data, across), (0,), False)
    elif (frames := _frames_of(data)) is not None:
        laid = to_dask(LabelMapFrames(frames, numbers.tolist()), (*data.chunks[1:],))
    else:
        import dask.array as da

        chunks = ((1,) * len(data.chunks[0]), *data.chunks[1:])
        of_each = da.from_array(across, chunks=(data.chunks[0], *[1] * (array.ndim - 1)))
        parts = da.map_blocks(_numbered, data, of_each, dtype=dtype, chunks=chunks)
        laid = da.reduction(
            parts,
            chunk=_itself,
            aggregate=_laid_over,
            axis=0,
            dtype=dtype,
            split_every=_TOGETHER,
            concatenate=False,
            meta=np.empty((0,) * (array.ndim - 1), dtype),
        )
    names = [name for name, one in array.coords.items() if "segment" not in one.dims]
    attributes = {
        **array.attrs,
        "segmentation_type": "LABELMAP",
        "label_numbers": numbers.tolist(),
        "labels": list(map(str, array.coords["segment"].values)),
    }
    if "segment_colour" in array.coords:
        attributes["label_colours"] = array.coords["segment_colour"].values.tolist()
    coordinates = {name: array.coords[name] for name in names}
    return xr.DataArray(laid, coordinates, array.dims[1:], "labels", attributes)


def _frames_of(data: da.Array) -> ArrangedFrames | None:
    """Return the frames that an array has all of, unchanged, where it has two axes of them.

    Planes without a frame of a segment, which are most, are not made then.
    """
    found: Any = data.dask.get(f"original-{data.name}")
    if isinstance(found, ArrangedFrames) and found.frame_axes == 2 and not found.fill_value:
        return found
    return None


def _itself(part: Array, axis: Sequence[int], keepdims: bool) -> Array:
    return part


def _numbered(segments: Array, numbers: Array) -> Array:
    """Return (1, ...): the number of the segment of each voxel, 0 where there is none."""
    out = np.zeros((1, *segments.shape[1:]), numbers.dtype)
    for plane in np.ndindex(segments.shape[1:-2]):
        _lay(out[(0, *plane)], segments[(slice(None), *plane)], numbers.reshape(-1))
    return out


def _laid_over(parts: Any, axis: Sequence[int], keepdims: bool) -> Array:
    """Return several label maps as one."""
    first, *others = parts if isinstance(parts, list) else [parts]
    # The first is no one else's.
    for other in others:
        for plane in np.ndindex(other.shape[1:-2]):
            _lay(first[(0, *plane)], other[(slice(0, 1), *plane)])
    return np.asarray(first if keepdims else first[0])


def _lay(below: Array, layers: Array, numbers: Array | None = None) -> None:
    """Lay label maps (n, rows, columns), or segments of these numbers, over a label map."""
    # Of all at once: each call releases the interpreter's lock, and gets it back slowly.
    filled = layers.max(axis=-1, initial=0) != 0
    for place, (over, rows) in enumerate(zip(layers, filled, strict=True)):
        # Most segments are empty in most rows.
        there = np.flatnonzero(rows)
        if not len(there):
            continue
        lines = slice(there[0], there[-1] + 1)
        under, upper = below[lines], over[lines]
        where = upper != 0
        number = None if numbers is None else numbers[place]
        if (double := np.count_nonzero(under[where])) > 0:
            one = int(under[where].max())
            other = int(upper.max() if number is None else number)
            raise ValueError(
                f"segments {min(one, other)} and {max(one, other)} overlap, in {double} voxels of "
                "a plane: no label map holds both; leave one out by v.sel(segment=[...])"
            )
        np.copyto(under, upper if number is None else number, where=where)
