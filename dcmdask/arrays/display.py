"""`DisplayFrames`: stored values as 8-bit grey or RGB, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dcmdask.arrays.lookup_tables import Lut
from dcmdask.arrays.modality import (
    Array,
    Transformation,
    TransformedFrames,
    rescaled,
    rescaling,
    store,
    value_range,
)
from dcmdask.errors import HeaderError, MissingElementError
from dcmdask.pixels.array_like import ArrayLike

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class DisplayFrames(TransformedFrames):
    """Frames as a viewer shows them: grey values or RGB, 8 bits.

    Grey is windowed after the modality transformation (PS3.3 C.11.2): by the VOI LUT where
    there is one, else by the window; where there is none, or one that PS3.3 does not allow
    (a width below 1 for LINEAR, or not above 0), all values that Bits Stored allows are
    spread out. MONOCHROME1 is inverted. Palette and RGB are scaled to 8 bits.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns[, samples]) of stored values.
    transformation : Transformation
        Of each frame.

    Attributes
    ----------
    shape : tuple of int
        That of the frames; with (..., 3) behind it for PALETTE COLOR.
    dtype : numpy.dtype
        uint8.

    Raises
    ------
    HeaderError
        A VOI LUT Function that does not exist, or float pixel data without a window.
    MissingElementError
        PALETTE COLOR without a palette.

    Examples
    --------
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask.pixels.frame_array import open_frames
    >>> stored = open_frames(get_testdata_file("CT_small.dcm"))
    >>> window = Transformation(12, slope=1, intercept=-1024, center=-400, width=1500)
    >>> DisplayFrames(stored, window)[0, 0, :3].tolist()
    [51, 52, 50]
    """

    def __init__(self, frames: ArrayLike, transformation: Transformation) -> None:
        super().__init__(frames, transformation.luts)
        function = np.char.upper(np.char.strip(np.asarray(transformation.function).astype("U")))
        function = np.where(function == "", "LINEAR", function)
        if not np.isin(function, FUNCTIONS).all():
            # The value is not quoted: it may be anything.
            raise HeaderError(
                "(0028,1056) 'VOI LUT Function' must be one of " + ", ".join(FUNCTIONS),
                source=self.name,
            )
        center = np.asarray(transformation.center, np.float64)
        width = np.asarray(transformation.width, np.float64)
        # False for NaN, too.
        usable = np.isfinite(center) & ((width >= 1) | ((width > 0) & (function != "LINEAR")))
        windows = np.where(usable, center, 0.0), np.where(usable, width, 0.0)
        self._columns = (*rescaling(transformation, frames.dtype), *windows, function)
        self._inverted = transformation.interpretation == "MONOCHROME1"
        self._colour = frames.ndim > 3
        self._palette = transformation.interpretation == "PALETTE COLOR" and not self._colour
        self.shape = (*frames.shape, 3) if self._palette else frames.shape
        self.dtype = np.dtype(np.uint8)
        self._check()

    def _check(self) -> None:
        with_palette = [bool(luts and luts.palette) for luts in self._luts]
        if self._palette and not (with_palette and all(with_palette)):
            frame = with_palette.index(False) if with_palette else 0
            raise MissingElementError(
                "Photometric Interpretation is PALETTE COLOR, and there is no (0028,1101) 'Red "
                "Palette Color Lookup Table Descriptor' with its data",
                source=self.name,
                frame=frame,
            )
        if self.frames.dtype.kind == "f" and not self._palette:
            shown = np.broadcast_to(self._columns[5] > 0, len(self)).copy()
            shown[[n for n, luts in enumerate(self._luts) if luts and luts.voi]] = True
            if self._colour or not shown.all():
                raise HeaderError(
                    "float pixel data has no range to show without a window: (0028,1050) 'Window "
                    "Center' and (0028,1051) 'Window Width' are missing",
                    source=self.name,
                    frame=0 if self._colour else int(np.argmin(shown)),
                )

    @property
    def token(self) -> str:
        """Hash of the frames below and of all parameters."""
        return f"{super().token}-{self._inverted:d}{self._palette:d}"

    def _transform(self, parameters: tuple[Any, ...], stored: Array, out: Array) -> None:
        *_, luts = parameters
        if self._palette:
            palette = luts.palette
            # Palettes of 16 bits hold 8, with zeros or once more behind them.
            colours = (palette.entries >> max(0, palette.bits - 8)).astype(np.uint8)
            store(Lut(palette.first, 8, colours), stored, out, by_table=True)
        elif self._colour:
            low, high = value_range(parameters[2], parameters[3])
            if (low, high) == (0, 255) and stored.dtype == out.dtype:
                out[...] = stored
            else:
                store(lambda values: _spread(values, low, high), stored, out, by_table=True)
        else:
            shown = self._shown(parameters)
            store(shown, stored, out, by_table=True)

    def _shown(self, parameters: tuple[Any, ...]) -> Callable[[Array], Array]:
        """Return what makes grey of stored values (PS3.4 N.2)."""
        slope, intercept, bits, signed, center, width, function, luts = parameters
        modality = luts.modality if luts else None
        voi = luts.voi if luts else None
        if modality is None:
            ends = [end * slope + intercept for end in value_range(bits, signed)]
        else:
            ends = list(value_range(modality.bits, False))

        def shown(stored: Array) -> Array:
            values = rescaled(stored, slope, intercept) if modality is None else modality(stored)
            if voi is not None:
                grey = _spread(voi(values), 0, 2**voi.bits - 1)
            elif width > 0:
                grey = _windowed(values, center, width, function)
            else:
                grey = _spread(values, min(ends), max(ends))
            return 255 - grey if self._inverted else grey

        return shown


def _windowed(values: Array, center: float, width: float, function: str) -> Array:
    """Return grey values by a VOI LUT Function (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if function == "SIGMOID":
        # Beyond 700 the exponential has no place in float64, and the value is 0 anyway.
        return _grey(1 / (1 + np.exp(np.fmin(-4 * (values - center) / width, 700))))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return _grey(np.asarray(values > center, np.float64))
    return _grey((values - center) / width + 0.5)


def _spread(values: Array, low: float, high: float) -> Array:
    """Return grey values from 0 for `low` to 255 for `high`."""
    return _grey((values - float(low)) / (float(high - low) or 1.0))


def _grey(share: Array) -> Array:
    """Return 0 to 255 for 0 to 1, and beyond; NaN is black."""
    inside = np.fmin(np.fmax(share, 0), 1)
    return (inside * 255 + 0.5).astype(np.uint8)
