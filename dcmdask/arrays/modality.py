"""`ModalityFrames`: stored values in units of the modality, such as Hounsfield units.

An array-like around one of stored frames: each frame is transformed by its own parameters,
all of them from headers, so that shape, type and values of a chunk depend on no other.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.lookup_tables import Luts
from dcmdask.errors import DecodeError, HeaderError, how_to_pass
from dcmdask.pixels.array_like import ArrayLike, frame_numbers, inner_shape, split

Array: TypeAlias = npt.NDArray[Any]

# Values that are worked on at a time, to stay in the processor's cache.
BLOCK = 2**15
# Bytes that are decoded before they are transformed.
DECODED_BYTES = 2**22
# More bits than these have no exact place in float32.
_FLOAT32_BITS = 24


@dataclass(frozen=True, eq=False)
class Transformation:
    """Conversion of stored values into others: a value, or an array for all frames.

    Attributes
    ----------
    bits_stored : int or array of int
        (0028,0101).
    slope, intercept : float or array of float
        (0028,1053), (0028,1052); NaN counts as 1 and 0.
    center, width : float or array of float
        (0028,1050), (0028,1051); NaN where there is no window.
    function : str or array of str
        VOI LUT Function (0028,1056); empty counts as LINEAR.
    interpretation : str
        Photometric Interpretation (0028,0004) of the decoded frames.
    luts : sequence of Luts or None
        The lookup tables of each frame, those of one instance the same object; empty where
        no frame has any. They come before `slope`, `intercept` and the window.
    signed : bool or array of bool, optional
        (0028,0103), where the type of the frames does not tell, since it holds those of several.
    floating : bool
        Whether modality values are floating point where integers would hold them, too.
    """

    bits_stored: npt.ArrayLike
    slope: npt.ArrayLike = np.nan
    intercept: npt.ArrayLike = np.nan
    center: npt.ArrayLike = np.nan
    width: npt.ArrayLike = np.nan
    function: npt.ArrayLike = "LINEAR"
    interpretation: str = "MONOCHROME2"
    luts: Sequence[Luts | None] = ()
    signed: npt.ArrayLike | None = None
    floating: bool = False


class TransformedFrames(ArrayLike):
    """Frames of which every value is made of the stored one, by parameters of the frame.

    `_columns` are the parameters, each one value or one for each frame, without NaN.
    """

    _columns: tuple[Array, ...]

    def __init__(self, frames: ArrayLike, luts: Sequence[Luts | None]) -> None:
        self.frames = frames
        self._luts = tuple(luts)
        if self._luts and len(self._luts) != len(frames):
            raise ValueError(f"lookup tables for {len(self._luts)} frames of {len(frames)}")

    @abstractmethod
    def _transform(self, parameters: tuple[Any, ...], stored: Array, out: Array) -> None:
        """Store what becomes of frames of the same parameters in `out`."""

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below and of all parameters."""
        digest = hashlib.blake2b(f"{type(self).__name__} {self.frames.token}".encode())
        for column in self._columns:
            digest.update(f"{column.dtype.str} {column.shape}".encode() + column.tobytes())
        seen: dict[int, int] = {}
        for luts in self._luts:
            known = id(luts) in seen
            digest.update(b"%d," % seen.setdefault(id(luts), len(seen)))
            for lut in () if known or luts is None else (luts.modality, luts.voi, luts.palette):
                if lut is not None:
                    look = f"{lut.first} {lut.bits} {lut.entries.dtype.str} {lut.entries.shape}"
                    digest.update(look.encode() + lut.entries.tobytes())
                digest.update(b";")
        return digest.hexdigest()[:32]

    def __getitem__(self, key: Any) -> Array:
        """Decode the frames that `key` names, transform what it selects of them, return that.

        Raises
        ------
        FrameNumberError, IndexError, DecodeError, SourceChangedError
            As the frames below do.
        """
        (outer,), inner = split(key, self.ndim)
        numbers = frame_numbers(outer, len(self), self.name)
        below = self.frames.ndim
        shape, _ = inner_shape(inner[: below - 1], self.frames.shape[1:])
        out = np.empty(0, self.dtype)
        # A few frames at a time, which are still in the cache when they are transformed; of
        # no frames as well, since there the index is checked.
        step = max(1, DECODED_BYTES // max(1, self.frames.nbytes // max(1, len(self))))
        for first in range(0, max(1, len(numbers)), step):
            some = numbers[first : first + step]
            stored = self.frames[(np.asarray(some, np.int64), *inner[: below - 1])]
            stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            if first == 0:
                # Not before frames came that the header's size was true of.
                out = np.empty((len(numbers), *shape, *self.shape[below:]), self.dtype)
            start = first
            for parameters, alike in groupby(self._parameters(some)):
                stop = start + sum(1 for _ in alike)
                self._transform(parameters, stored[start - first : stop - first], out[start:stop])
                start = stop
        selected: Array = out[(..., *inner[below - 1 :])]
        return selected[0] if isinstance(outer, int) else selected

    def transformed(self, pixel: npt.ArrayLike) -> Array:
        """Return what becomes of a stored pixel of the first frame."""
        stored = np.empty((1, 1, 1, *self.frames.shape[3:]), self.frames.dtype.newbyteorder("="))
        stored[...] = pixel
        out = np.empty((1, 1, 1, *self.shape[3:]), self.dtype)
        self._transform(next(self._parameters([0])), stored, out)
        pixels: Array = out[0, 0, 0]
        return pixels

    def _parameters(self, numbers: list[int]) -> Iterator[tuple[Any, ...]]:
        columns = [np.broadcast_to(c, len(self))[numbers].tolist() for c in self._columns]
        luts = [self._luts[n] for n in numbers] if self._luts else repeat(None, len(numbers))
        return zip(*columns, luts, strict=True)


class ModalityFrames(TransformedFrames):
    """Frames in the units of their modality, such as Hounsfield units (PS3.3 C.11.1).

    Each value is what pydicom's `apply_modality_lut` makes of it, by the frame's own slope
    and intercept, cast to `dtype`. One difference: where only one of slope and intercept is
    there, it is used.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns[, samples]) of stored values.
    transformation : Transformation
        Of each frame.

    Attributes
    ----------
    dtype : numpy.dtype
        float32, or float64 where more than 24 bits are stored or values may be beyond
        float32; the smallest signed integer that holds all values that Bits Stored allows,
        where every slope is 1 and every intercept an integer. Of float pixel data the type it
        has. uint8 or uint16 where every frame has a Modality LUT.

    Raises
    ------
    HeaderError
        Float pixel data has a Modality LUT.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask.pixels.frame_array import open_frames
    >>> stored = open_frames(get_testdata_file("CT_small.dcm"))
    >>> values = ModalityFrames(stored, Transformation(bits_stored=12, slope=1, intercept=-1024))
    >>> values.dtype, values[0, 0, :3].tolist()
    (dtype('int16'), [-849, -844, -858])
    """

    def __init__(self, frames: ArrayLike, transformation: Transformation) -> None:
        super().__init__(frames, transformation.luts)
        self._columns = rescaling(transformation, frames.dtype)
        self.shape = frames.shape
        self.dtype = self._decide(transformation.floating)

    def _decide(self, floating: bool) -> np.dtype[Any]:
        stored = self.frames.dtype
        slope, intercept, bits, signed = (np.broadcast_to(c, len(self)) for c in self._columns)
        tables = {luts.modality for luts in self._luts if luts and luts.modality}
        if stored.kind == "f":
            if tables:
                raise HeaderError(
                    "float pixel data has a Modality LUT Sequence (0028,3000), and there are no "
                    "entries for fractions",
                    source=self.name,
                )
            return stored.newbyteorder("=")
        if self._luts:
            linear = np.array([not (luts and luts.modality) for luts in self._luts])
            slope, intercept, bits = slope[linear], intercept[linear], bits[linear]
            signed = signed[linear]
        most = max((lut.bits for lut in tables), default=0)
        if tables and not len(slope):
            return np.dtype(np.uint8 if most <= 8 else np.uint16)
        whole = np.all(slope == 1) and np.all(intercept == np.rint(intercept))
        if whole and not floating:
            exact = _smallest(bits, intercept, signed, 2**most - 1)
            if exact is not None:
                return exact
        return floating_type(bits, slope, intercept)

    def _transform(self, parameters: tuple[Any, ...], stored: Array, out: Array) -> None:
        slope, intercept, bits, _, luts = parameters
        if luts and luts.modality:
            store(luts.modality, stored, out, by_table=True)
        elif self.dtype.kind == "i":
            self._check_range(stored, int(intercept), bits)
            # Sums wrap round, so the result is right although a summand may not fit.
            np.add(stored, self.dtype.type(intercept), out=out, dtype=self.dtype, casting="unsafe")
        elif slope == 1 and intercept == 0:
            out[...] = stored
        else:
            store(lambda values: rescaled(values, slope, intercept), stored, out)

    def _check_range(self, stored: Array, intercept: int, bits: int) -> None:
        """A JPEG 2000 codestream may hold more bits than Bits Stored says."""
        fits, holds = np.iinfo(self.dtype), np.iinfo(stored.dtype)
        if (fits.min <= holds.min + intercept and holds.max + intercept <= fits.max) or (
            not stored.size
        ):
            return
        low, high = int(stored.min()), int(stored.max())
        if low + intercept < fits.min or high + intercept > fits.max:
            raise DecodeError(
                f"stored values reach from {low} to {high}, and (0028,0101) 'Bits Stored' says "
                f"{bits} bits, for which {self.dtype} is made; {how_to_pass('bits_stored')}",
                source=self.name,
            )


def rescaling(
    transformation: Transformation, stored: np.dtype[Any]
) -> tuple[Array, Array, Array, Array]:
    """Return slope, intercept, Bits Stored and whether values are signed, all finite."""
    signed = transformation.signed
    return (
        *slope_and_intercept(transformation.slope, transformation.intercept),
        np.asarray(transformation.bits_stored, np.int64),
        np.asarray(stored.kind == "i" if signed is None else signed, np.bool_),
    )


def slope_and_intercept(slope: npt.ArrayLike, intercept: npt.ArrayLike) -> tuple[Array, Array]:
    """Return both with 1 for a slope and 0 for an intercept that is absent, which is NaN."""
    slope, intercept = np.asarray(slope, np.float64), np.asarray(intercept, np.float64)
    return np.where(np.isnan(slope), 1.0, slope), np.where(np.isnan(intercept), 0.0, intercept)


def value_range(bits: int, signed: bool) -> tuple[int, int]:
    """Return the least and the greatest value that has so many bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def floating_type(
    bits: npt.ArrayLike, slope: npt.ArrayLike, intercept: npt.ArrayLike, entry: float = 0.0
) -> np.dtype[Any]:
    """Return float32, or float64 where that cannot hold all values of so many bits.

    `entry` is the largest absolute value of a table.
    """
    bits, slope, intercept = map(np.asarray, (bits, slope, intercept))
    with np.errstate(over="ignore"):
        largest = np.maximum(np.abs(slope) * 2.0**bits + np.abs(intercept), entry)
    wide = np.any(bits > _FLOAT32_BITS) or np.any(largest > np.finfo(np.float32).max)
    return np.dtype(np.float64 if wide else np.float32)


def _smallest(bits: Array, intercept: Array, signed: Array, highest: int) -> np.dtype[Any] | None:
    """Return the smallest signed integer for all values of so many bits plus intercept.

    It holds 0 and `highest` as well; None where there is no such type.
    """
    low, high = 0, highest
    for some, with_sign in np.unique(np.column_stack([bits, signed]), axis=0).tolist():
        least, greatest = value_range(some, with_sign)
        added = intercept[(bits == some) & (signed == with_sign)]
        low, high = min(low, least + int(added.min())), max(high, greatest + int(added.max()))
    types = map(np.dtype, ("i1", "i2", "i4", "i8"))
    return next((t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max), None)


def rescaled(values: Array, slope: float, intercept: float) -> Array:
    """Return what pydicom makes of `values`, in its two roundings of float64."""
    meant: Array = np.multiply(values, slope, dtype=np.float64)
    meant += intercept
    return meant


def store(
    function: Callable[[Array], Array], stored: Array, out: Array, *, by_table: bool = False
) -> None:
    """Store ``function(stored)`` in `out`, a block at a time.

    Parameters
    ----------
    function : callable
        Of each value alone.
    stored : ndarray
    out : ndarray
        C-contiguous, of the shape of `stored`, with more axes behind where the function
        gives several values for one.
    by_table : bool, optional
        Call the function for each value that the type of `stored` has instead, where those
        are fewer, and look the results up.
    """
    flat = stored.reshape(-1)
    room = out.reshape(flat.size, *out.shape[stored.ndim :])
    table: Array | None = None
    codes = 256**stored.itemsize
    if by_table and stored.dtype.kind in "iu" and codes <= 2**16 and codes < flat.size:
        every = np.arange(codes).astype(f"u{stored.itemsize}")
        table = np.ascontiguousarray(function(every.view(stored.dtype)), out.dtype)
    for start in range(0, flat.size, BLOCK):
        block, place = flat[start : start + BLOCK], room[start : start + BLOCK]
        if table is None:
            place[...] = function(block)
        else:
            # `wrap` finds negative values behind the others, and costs no pass over them.
            np.take(table, block, axis=0, out=place, mode="wrap")
