"""What a job's function returned: arrays to Zarr, pictures to PNG, numbers to a row."""

from __future__ import annotations

import io
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dcmdask.arrays.picture import picture
from dcmdask.batch.folder import Folder
from dcmdask.export.dask_writer import Wanted, write_together
from dcmdask.export.store import KEY

OUTPUTS = "series"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Of an array's own attributes, those that say nothing of a person.
_ATTRIBUTES = ("values", "modality", "units", "spacing", "orientation", "affine", "series_uid")


class Picture(NamedTuple):
    """A result that becomes a PNG file.

    Attributes
    ----------
    frame : array-like
        (rows, columns) of grey values, or (rows, columns, 3) of RGB; also a lazy one.
    window : (center, width), optional
        What is stretched from black to white; by default the smallest to the largest value.
    spacing : (between rows, between columns), optional
        In mm, so that the picture has the right shape; an :class:`xarray.DataArray` knows it.
    """

    frame: Any
    window: tuple[float, float] | None = None
    spacing: tuple[float, float] | None = None


def keep(returned: Any, folder: Folder, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute what a function returned, at once, and write it.

    Parameters
    ----------
    returned : mapping or None
        Name to an array (of one dimension or more), a `Picture`, or a number, text or truth.
    folder : Folder
    name : str
        Of the series.

    Returns
    -------
    dict
        Name to number, text or truth.
    dict
        Name to the path, below the folder, of what was written.

    Raises
    ------
    TypeError, ValueError
        Something else was returned.
    DcmdaskError, OSError
        As decoding and writing raise them.
    """
    if returned is None:
        return {}, {}
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"process returned {type(returned).__name__}: a dict of names and arrays, numbers or "
            "Pictures is needed, or None"
        )
    arrays, pictures, values = {}, {}, {}
    for key, value in returned.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ValueError(f"{key!r} cannot name a result: letters, digits, _ and - can")
        if isinstance(value, Picture):
            pictures[key] = value
        elif getattr(value, "ndim", 0) > 0:
            arrays[key] = value
        else:
            values[key] = value
    below = f"{OUTPUTS}/{name}"
    wanted = [_wanted(value, folder.path(f"{below}/{key}.zarr")) for key, value in arrays.items()]
    others = [*(one.frame for one in pictures.values()), *values.values()]
    _, computed = write_together(wanted, others)
    for (key, one), frame in zip(pictures.items(), computed, strict=False):
        held = io.BytesIO()
        picture(frame, held, window=one.window, spacing=one.spacing)  # type: ignore[arg-type]
        folder.write(f"{below}/{key}.png", held.getvalue())
    plain = {
        key: _plain(key, value)
        for key, value in zip(values, computed[len(pictures) :], strict=True)
    }
    outputs = {key: f"{below}/{key}.zarr" for key in arrays}
    outputs |= {key: f"{below}/{key}.png" for key in pictures}
    return plain, outputs


def _wanted(value: Any, store: str) -> Wanted:
    dims = getattr(value, "dims", None)
    attributes = {}
    if dims is not None:
        told = {key: value.attrs[key] for key in _ATTRIBUTES if key in value.attrs}
        attributes = {KEY: {key: _jsonable(one) for key, one in told.items()}}
        value = value.data
    x = value if isinstance(value, da.Array) else da.from_array(np.asarray(value), chunks=-1)
    even = all(len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0] for lengths in x.chunks)
    if not even:
        x = x.rechunk(tuple(max(lengths) for lengths in x.chunks))
    return Wanted(x, store, dimension_names=dims, attributes=attributes, overwrite=True)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        return [_jsonable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(key: str, value: Any) -> Any:
    """Return a value of one cell of a table, as JSON writes it."""
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        # JSON has neither NaN nor infinity.
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{key} is {type(value).__name__}: no array, number, text, truth or Picture")
