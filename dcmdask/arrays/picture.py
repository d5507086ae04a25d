"""Frames as PNG files, to look at."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

GAP = 4
GREY = 128


def contact_sheet(
    frames: Any, path: str | os.PathLike[str], *, columns: int | None = None
) -> tuple[float, float]:
    """Write `frames` side by side to one PNG file, in rows from left to right.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns) of grey values, or (frames, rows, columns, 3) of RGB.
        Unsigned 8-bit values are shown as they are; any others are stretched, their
        smallest to black and their largest to white.
    path : path
    columns : int, optional
        Frames in a row; by default so many that the sheet is about square.

    Returns
    -------
    tuple of float
        The values that are shown black and white.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     contact_sheet(np.arange(24).reshape(2, 3, 4), f"{folder}/sheet.png")
    (0.0, 23.0)
    """
    shown = np.asarray(frames)
    if shown.size == 0 or not (shown.ndim == 3 or (shown.ndim == 4 and shown.shape[3] == 3)):
        raise ValueError(
            f"a picture is made of (frames, rows, columns) or (frames, rows, columns, 3), at "
            f"least one of them, and not of {shown.shape}"
        )
    low, high = _range(shown)
    count, height, width = shown.shape[:3]
    across = min(count, columns or max(1, round(math.sqrt(count * height / width))))
    down = math.ceil(count / across)
    sheet = np.full(
        (down * (height + GAP) - GAP, across * (width + GAP) - GAP, *shown.shape[3:]), GREY, "u1"
    )
    for position, frame in enumerate(shown):
        top, left = position // across * (height + GAP), position % across * (width + GAP)
        sheet[top : top + height, left : left + width] = _grey(frame, low, high)
    Image.fromarray(sheet).save(path, format="PNG")
    return low, high


def _range(shown: npt.NDArray[Any]) -> tuple[float, float]:
    if shown.dtype == np.uint8:
        return 0.0, 255.0
    finite = shown[np.isfinite(shown)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _grey(frame: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    if frame.dtype == np.uint8:
        return frame
    inside = np.nan_to_num(np.clip(frame.astype("f8"), low, high), nan=low)
    scaled: npt.NDArray[Any] = np.round((inside - low) * (255 / ((high - low) or 1)))
    return scaled.astype("u1")
