"""A small picture of each series, for the page of the report."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np

from dcmdask.archive.series import Series
from dcmdask.arrays import pictures
from dcmdask.batch.records import RECORDS
from dcmdask.errors import DcmdaskWarning
from dcmdask.images.volume import Stack

# Of the longer side, in samples of the frame.
_SIDE = 240
# Pixels that are longer than that are shown square: no scanner makes them.
_LONGEST_PIXEL = 20.0


def thumbnail_key(name: str) -> str:
    """Return where the thumbnail of a series is, below the target: with what is the operator's."""
    return f"{RECORDS}/{name}.png"


def thumbnail(series: Series) -> bytes:
    """Return the middle frame of the largest stack, as a viewer shows it, as a small PNG.

    Raises
    ------
    DcmdaskError, OSError, ValueError
        It cannot be decoded or shown.
    """
    stack = series.stacks[0]
    with warnings.catch_warnings():
        # Of what is odd about the stack the job was told.
        warnings.simplefilter("ignore", DcmdaskWarning)
        frames = stack.to_dask("display", on_irregular="keep")
    leading = stack.arrangement.numbers.shape
    frame = frames[tuple(length // 2 for length in leading)]
    step = math.ceil(max(frame.shape[:2]) / _SIDE)
    held = io.BytesIO()
    pictures.frame(np.asarray(frame[::step, ::step]), held, spacing=_spacing(stack))
    return held.getvalue()


def _spacing(stack: Stack) -> tuple[float, float] | None:
    """Return the pixel spacing in mm; None where it is not known or cannot be."""
    rows, columns = (float(one) for one in stack.facts["spacing"][0])
    if not (rows > 0 and columns > 0 and 1 / _LONGEST_PIXEL < rows / columns < _LONGEST_PIXEL):
        return None
    return rows, columns
