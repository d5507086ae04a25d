"""What a job's function returned: arrays to Zarr, pictures to PNG, numbers to a row."""

from __future__ import annotations

import io
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dcmdask.arrays.picture import picture
from dcmdask.batch.folder import Folder
from dcmdask.batch.outcome import NAME
from dcmdask.batch.records import RECORDS
from dcmdask.export.dask_writer import ToWrite, write_together
from dcmdask.export.provenance import jsonable
from dcmdask.export.store import KEY

OUTPUTS = "series"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# The extension keeps what is written apart from what is returned.
_FILE = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
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


class _AtHand(NamedTuple):
    """The series that is being processed, for whom, and what it writes itself."""

    folder: Folder
    name: str
    owner: str
    given: dict[str, str]


_at_hand: ContextVar[_AtHand] = ContextVar("series_at_hand")


def output(name: str) -> str:
    """Return the path or URL of something that `process` writes itself, below the target.

    For what is better not returned: a store that another function writes, or goes on with.
    It goes into the record of the series. What an earlier try began is still there, if it was
    one of the same job with the same options and files; what any other began is removed.

    Parameters
    ----------
    name : str
        Of a file or a folder, with an extension; letters, digits, ``_`` and ``-``.

    Raises
    ------
    RuntimeError
        No series is being processed here; neither is one inside of a task of Dask's.
    ValueError
        That is no such name.

    Examples
    --------
    >>> def process(series):
    ...     dcmdask.to_zarr(series, batch.output("pixels.zarr"), resume=True)
    """
    if not _FILE.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an output: letters, digits, _ and -, and a '.ext'")
    at = _at_hand.get(None)
    if at is None:
        raise RuntimeError(
            "batch.output is for the function that batch.run calls with a series, and not for "
            "tasks of its arrays"
        )
    if not at.given:
        at.folder.write(_begun_key(at.name), at.owner.encode())
        if at.folder.is_local:
            os.makedirs(at.folder.path(f"{OUTPUTS}/{at.name}"), exist_ok=True)
    at.given[name] = f"{OUTPUTS}/{at.name}/{name}"
    return at.folder.path(at.given[name])


def _begun_key(name: str) -> str:
    return f"{RECORDS}/{name}.begun"


def _clear(folder: Folder, name: str, owner: str) -> None:
    """Remove what anybody else began for a series: another version of the job, or of the files."""
    key, below = _begun_key(name), f"{OUTPUTS}/{name}"
    if folder.is_local:
        # Nobody else is at it.
        if folder.read([key]).get(key) != owner.encode():
            folder.remove(below)
        return
    # What another driver of this job adds from now on is not to go.
    before = folder.objects(below)
    if folder.read([key]).get(key) != owner.encode():
        now = folder.objects(below) if before else {}
        folder.remove_objects([path for path, told in before.items() if now.get(path) == told])
        # What is here from now on is ours, whichever worker of ours puts it there.
        folder.write(key, owner.encode())


@contextmanager
def own_outputs(folder: Folder, name: str, owner: str) -> Iterator[dict[str, str]]:
    """Let `output` name outputs of a series meanwhile, and give those that it named.

    What anybody else began for the series is removed before.

    Parameters
    ----------
    folder : Folder
    name : str
        Of the series.
    owner : str
        Tells one job, its options and the files of the series from others.
    """
    _clear(folder, name, owner)
    given: dict[str, str] = {}
    token = _at_hand.set(_AtHand(folder, name, owner, given))
    try:
        yield given
    finally:
        _at_hand.reset(token)


def keep(
    returned: Any, folder: Folder, name: str, given: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute what a function returned, at once, and write it.

    Parameters
    ----------
    returned : mapping or None
        Name to an array (of one dimension or more), a `Picture`, or a number, text or truth.
    folder : Folder
    name : str
        Of the series.
    given : mapping
        Name to path of what it has written itself.

    Returns
    -------
    dict
        Name to number, text or truth.
    dict
        Name to the path, below the folder, of what was written, now or by itself.

    Raises
    ------
    TypeError, ValueError
        Something else was returned.
    DcmdaskError, OSError
        As decoding and writing raise them.
    """
    if returned is None:
        return {}, dict(given)
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"process returned {type(returned).__name__}: a dict of names and arrays, numbers or "
            "Pictures is needed, or None"
        )
    arrays, pictures, values = {}, {}, {}
    for key, value in returned.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ValueError(f"{key!r} cannot name a result: letters, digits, _ and - can")
        if key == NAME:
            raise ValueError(f"{key!r} cannot name a result: it is the column of the series")
        if _is_masked(value.frame if isinstance(value, Picture) else value):
            raise TypeError(f"{key} is masked, and what is stored is not: fill it with a value")
        if isinstance(value, Picture):
            pictures[key] = value
        elif getattr(value, "ndim", 0) > 0:
            arrays[key] = value
        else:
            values[key] = value
    below = f"{OUTPUTS}/{name}"
    outputs = {key: f"{below}/{key}.zarr" for key in arrays}
    outputs |= {key: f"{below}/{key}.png" for key in pictures}
    if twice := set(outputs.values()) & set(given.values()):
        raise ValueError(f"process wrote {twice.pop()} itself, and returned what goes there")
    shared = not folder.is_local
    wanted = [_wanted(value, folder.path(outputs[key]), shared) for key, value in arrays.items()]
    others = [*(one.frame for one in pictures.values()), *values.values()]
    _, computed = write_together(wanted, others)
    for (key, one), frame in zip(pictures.items(), computed, strict=False):
        held = io.BytesIO()
        picture(frame, held, window=one.window, spacing=one.spacing)
        folder.write(outputs[key], held.getvalue())
    plain = {
        key: _plain(key, value)
        for key, value in zip(values, computed[len(pictures) :], strict=True)
    }
    return plain, {**outputs, **given}


def _wanted(value: Any, store: str, shared: bool) -> ToWrite:
    dims = getattr(value, "dims", None)
    attributes = {}
    if dims is not None:
        told = {key: value.attrs[key] for key in _ATTRIBUTES if key in value.attrs}
        attributes = {KEY: {key: jsonable(one) for key, one in told.items()}}
        value = value.data
    x = value if isinstance(value, da.Array) else da.from_array(np.asarray(value), chunks=-1)
    even = all(len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0] for lengths in x.chunks)
    if not even:
        x = x.rechunk(tuple(max(lengths) for lengths in x.chunks))
    return ToWrite(
        x, store, dimension_names=dims, attributes=attributes, overwrite=not shared, shared=shared
    )


def _is_masked(value: Any) -> bool:
    inner = getattr(value, "data", None) if hasattr(value, "dims") else value
    array = getattr(inner, "_meta", inner)
    return isinstance(array, np.ma.MaskedArray) and array.ndim > 0


def _plain(key: str, value: Any) -> Any:
    """Return a value of one cell of a table, as JSON writes it."""
    if value is np.ma.masked:
        return None
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        # Also what no file of text can hold.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        # JSON has neither NaN nor infinity.
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{key} is {type(value).__name__}: no array, number, text, truth or Picture")
