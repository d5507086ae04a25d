"""`RealWorldFrames`: stored values as quantities, by Real World Value Mappings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcmdask.arrays.lookup_tables import Lut, Luts
from dcmdask.arrays.modality import Array, TransformedFrames, floating_type, rescaled, store
from dcmdask.dicom.quantities.real_world import RealWorldMapping
from dcmdask.errors import HeaderError
from dcmdask.pixels.array_like import ArrayLike

# Of the entries of a table, which are float64.
_ENTRY_BITS = 64


class RealWorldFrames(TransformedFrames):
    """Frames of real world values (PS3.3 C.7.6.16.2.11): NaN where a stored value has none.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns[, samples]) of stored values.
    mappings : sequence of RealWorldMapping
        Of each frame.
    bits_stored : int or array of int
        (0028,0101).

    Attributes
    ----------
    dtype : numpy.dtype
        float32, or float64 where more than 24 bits are stored or values may be beyond
        float32. Of float pixel data the type it has.

    Raises
    ------
    HeaderError
        Float pixel data has a table.
    """

    def __init__(
        self, frames: ArrayLike, mappings: Sequence[RealWorldMapping], bits_stored: Any
    ) -> None:
        tables = {id(one): _luts(one) for one in mappings if one.table is not None}
        super().__init__(frames, [tables.get(id(one)) for one in mappings] if tables else ())
        columns = np.array([(one.slope, one.intercept, one.first, one.last) for one in mappings])
        self._columns = tuple(columns.reshape(-1, 4).T)
        self.shape = frames.shape
        if frames.dtype.kind == "f":
            if tables:
                raise HeaderError(
                    "float pixel data has a Real World Value LUT (0040,9212), and there are no "
                    "entries for fractions",
                    source=self.name,
                )
            self.dtype = frames.dtype.newbyteorder("=")
        else:
            slope, intercept, *_ = self._columns
            entries = [np.abs(one.table).max() for one in mappings if one.table is not None]
            self.dtype = floating_type(bits_stored, slope, intercept, max(entries, default=0.0))

    def _transform(self, parameters: tuple[Any, ...], stored: Array, out: Array) -> None:
        slope, intercept, first, last, luts = parameters

        def real(values: Array) -> Array:
            found = luts.modality(values) if luts else rescaled(values, slope, intercept)
            return np.where((values >= first) & (values <= last), found, np.nan)

        store(real, stored, out, by_table=True)


def _luts(mapping: RealWorldMapping) -> Luts:
    table: Any = mapping.table
    return Luts(modality=Lut(int(mapping.first), _ENTRY_BITS, table))
