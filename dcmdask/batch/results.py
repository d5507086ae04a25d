"""Results of a job's function: arrays to Zarr, pictures to PNG, numbers to a row; thumbnails."""

from __future__ import annotations

import io
import math
import numbers
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from dask.base import compute

from dcmdask.archive.series import Series
from dcmdask.batch.outcome import COLUMNS
from dcmdask.batch.staging import Staging
from dcmdask.errors import DcmdaskWarning
from dcmdask.images.objects.slide import is_slide
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.images.volume import Stack
from dcmdask.labelled.pictures import frame as picture_of
from dcmdask.store.result_writer import result

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Longer side of a thumbnail, in pixels of the frame.
_SIDE = 240
# Ratio of pixel spacings beyond which pixels are shown square: no scanner makes them.
_LONGEST_PIXEL = 20.0


class Picture(NamedTuple):
    """A result that becomes a PNG file.

    Attributes
    ----------
    frame : array-like
        (rows, columns) of grey values, or (rows, columns, 3) of RGB; may be lazy.
    window : (center, width), optional
        Range from black to white; by default from the smallest to the largest value.
    spacing : (between rows, between columns), optional
        In mm, for the aspect ratio of the picture; an :class:`xarray.DataArray` has its own.
    """

    frame: Any
    window: tuple[float, float] | None = None
    spacing: tuple[float, float] | None = None


def keep(returned: Any, staging: Staging) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute all results of a function at once, and stage them.

    Returns numbers, strings and booleans by name; and the path, below the target, of each output:
    of arrays, tables and pictures, and of what the job wrote itself.
    """
    arrays: dict[str, Any] = {}
    pictures: dict[str, Picture] = {}
    values: dict[str, Any] = {}
    for key, value in _results(returned):
        if isinstance(value, Picture):
            pictures[key] = value
        elif getattr(value, "ndim", 0) > 0 or hasattr(value, "data_vars"):
            arrays[key] = value
        else:
            values[key] = value
    names = {key: f"{key}.zarr" for key in arrays} | {key: f"{key}.png" for key in pictures}
    outputs = {key: f"{staging.below}/{name}" for key, name in names.items()}
    if twice := set(outputs.values()) & set(staging.given.values()):
        raise ValueError(f"process wrote {twice.pop()} itself, and returned what goes there")
    staging.check_free([*names.values(), *staging.given])
    staging.forget(names.values())
    others = [*(one.frame for one in pictures.values()), *values.values()]
    with ExitStack() as stack:
        lazy = [
            stack.enter_context(result(value, staging.path(names[key]), staging.folder.options))
            for key, value in arrays.items()
        ]
        # At once, so that shared tasks run once.
        _, computed = compute(lazy, others)
    for (key, one), frame in zip(pictures.items(), computed, strict=False):
        held = io.BytesIO()
        picture_of(frame, held, window=one.window, spacing=one.spacing)
        staging.write(names[key], held.getvalue())
    plain = {
        key: _plain(key, value)
        for key, value in zip(values, computed[len(pictures) :], strict=True)
    }
    return plain, {**outputs, **staging.given}


def _results(returned: Any) -> Iterator[tuple[str, Any]]:
    if returned is None:
        return
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"process returned {type(returned).__name__}: a dict of names and arrays, numbers or "
            "Pictures is needed, or None"
        )
    for key, value in returned.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ValueError(f"{key!r} cannot name a result: letters, digits, _ and - can")
        if key in COLUMNS:
            raise ValueError(f"{key!r} cannot name a result: the table has a column of that name")
        if _is_masked(value.frame if isinstance(value, Picture) else value):
            raise TypeError(f"{key} is masked, and stores hold no masks: fill it with a value")
        yield key, value


def _is_masked(value: Any) -> bool:
    if hasattr(value, "data_vars"):
        return any(map(_is_masked, value.data_vars.values()))
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
        # Lone surrogates have no place in a text file.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        # JSON has neither NaN nor infinity.
        return float(value) if math.isfinite(value) else None
    raise TypeError(
        f"{key} is {type(value).__name__}: no array, number, string, boolean or Picture"
    )


# Thumbnails


def thumbnail(series: Series) -> bytes:
    """Return the middle frame of the largest stack, as a viewer shows it, as a small PNG.

    Of a whole slide it is the whole of it, without its label.
    """
    stack = series.stacks[0]
    held = io.BytesIO()
    if is_slide(stack):
        Slide(series.stacks).thumbnail(_SIDE).save(held, "PNG")
        return held.getvalue()
    with warnings.catch_warnings():
        # The job has seen them.
        warnings.simplefilter("ignore", DcmdaskWarning)
        frames = stack.to_dask("display", on_irregular="keep")
    leading = stack.arrangement.numbers.shape
    frame = frames[tuple(length // 2 for length in leading)]
    step = math.ceil(max(frame.shape[:2]) / _SIDE)
    picture_of(np.asarray(frame[::step, ::step]), held, spacing=_spacing(stack))
    return held.getvalue()


def _spacing(stack: Stack) -> tuple[float, float] | None:
    """Return the pixel spacing in mm; None where it is unknown or impossible."""
    rows, columns = (float(one) for one in stack.facts["spacing"][0])
    if not (rows > 0 and columns > 0 and 1 / _LONGEST_PIXEL < rows / columns < _LONGEST_PIXEL):
        return None
    return rows, columns
