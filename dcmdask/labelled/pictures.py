"""Frames and volumes as PNG files, to look at."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from dcmdask.labelled.whole_file import whole_file

__all__ = ["contact_sheet", "frame", "planes", "projection"]

GAP = 4
GREY = 128
# Rows or columns of a picture that is resized for its spacing.
_LONGEST = 10_000
Path: TypeAlias = "str | os.PathLike[str] | IO[bytes]"


def frame(
    values: Any,
    path: Path,
    *,
    window: tuple[float, float] | None = None,
    spacing: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Write one frame, or a plane of a volume, to a PNG file.

    Parameters
    ----------
    values : array-like
        (rows, columns) of grey values, or (rows, columns, 3) of RGB; also a lazy one.
        Unsigned 8-bit values are shown as they are; any others are stretched.
    path : path or binary file
    window : (center, width), optional
        Range that is stretched from black to white; by default the smallest to the largest value.
    spacing : (between rows, between columns), optional
        In mm; where the two differ the picture is resized so that it has the right shape. Of
        an :class:`xarray.DataArray` it is read from the coordinates of its two dimensions.

    Returns
    -------
    tuple of float
        The values that are shown black and white.

    Raises
    ------
    ValueError
        `values` have another shape, the window shows nothing, or `spacing` is not positive and
        finite, or would make a picture of more than 10 000 rows or columns.
    TypeError
        `values` are no real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     frame(np.arange(12).reshape(3, 4), f"{folder}/a.png", window=(4, 8))
    (0.0, 8.0)
    """
    plane = np.asarray(values)
    _check(plane[np.newaxis])
    low, high = _range(plane, window)
    shown = _square(_grey(plane, low, high), _spacing(spacing, values, 2))
    _save(shown, path)
    return low, high


def contact_sheet(
    frames: Any,
    path: Path,
    *,
    columns: int | None = None,
    window: tuple[float, float] | None = None,
    spacing: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Write `frames` side by side to one PNG file, in rows from left to right.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns) of grey values, or (frames, rows, columns, 3) of RGB.
        Unsigned 8-bit values are shown as they are; any others are stretched.
    path : path or binary file
    columns : int, optional
        Frames in a row; by default so many that the sheet is about square.
    window : (center, width), optional
        Range that is stretched from black to white, in all frames; by default the smallest to
        the largest value.
    spacing : (between rows, between columns), optional
        In mm; where the two differ frames are resized so that they have the right shape. Of
        an :class:`xarray.DataArray` it is read from the coordinates of its last two dimensions.

    Returns
    -------
    tuple of float
        The values that are shown black and white.

    Raises
    ------
    ValueError
        There are no frames, they have another shape, the window shows nothing, or `spacing` is
        not positive and finite, or would make a picture of more than 10 000 rows or columns.
    TypeError
        `frames` are no real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     contact_sheet(np.arange(24).reshape(2, 3, 4), f"{folder}/sheet.png")
    (0.0, 23.0)
    """
    values = np.asarray(frames)
    _check(values)
    low, high = _range(values, window)
    if columns is not None and columns < 1:
        raise ValueError(f"columns is {columns}: at least 1")
    between = _spacing(spacing, frames, 2)
    shown = [_square(_grey(plane, low, high), between) for plane in values]
    count, (height, width) = len(shown), shown[0].shape[:2]
    across = min(count, columns or max(1, round(math.sqrt(count * height / width))))
    down = math.ceil(count / across)
    sheet = np.full(
        (down * (height + GAP) - GAP, across * (width + GAP) - GAP, *shown[0].shape[2:]), GREY, "u1"
    )
    for position, plane in enumerate(shown):
        top, left = position // across * (height + GAP), position % across * (width + GAP)
        sheet[top : top + height, left : left + width] = plane
    _save(sheet, path)
    return low, high


def planes(
    volume: Any,
    path: Path,
    *,
    at: tuple[int, int, int] | None = None,
    window: tuple[float, float] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> tuple[float, float]:
    """Write the three planes through one voxel of a volume to one PNG file, side by side.

    From left to right: the plane of the frames, then the one along x and z, then the one along
    y and z. In those two the last frame is on top, which is the head where frames ascend from
    the feet. All have the same scale.

    Parameters
    ----------
    volume : array-like
        (z, y, x) of grey values, or (z, y, x, 3) of RGB; of a lazy one only the three planes are
        computed.
    path : path or binary file
    at : tuple of int, optional
        Indices of the voxel; by default the middle.
    window : (center, width), optional
        Range that is stretched from black to white, in all planes; by default the smallest to
        the largest value.
    spacing : tuple of float, optional
        Along z, y and x in mm; of an :class:`xarray.DataArray` it is read from the coordinates.

    Returns
    -------
    tuple of float
        The values that are shown black and white.

    Raises
    ------
    ValueError
        `volume` is empty or has not these axes, the window shows nothing, or `spacing` is not
        positive and finite, or would make a picture of more than 10 000 rows or columns.
    TypeError
        `volume` has no real numbers.
    IndexError
        There is no voxel `at` that place.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     planes(np.arange(60).reshape(3, 4, 5), f"{folder}/a.png", spacing=(2, 1, 1))
    (2.0, 57.0)
    """
    _check_volume(volume, samples=(3,) * (len(volume.shape) == 4))
    z, y, x = (length // 2 for length in volume.shape[:3]) if at is None else at
    dz, dy, dx = between = _spacing(spacing, volume, 3) or (1.0, 1.0, 1.0)
    _check_spacing(between)
    cut = [np.asarray(volume[z]), np.asarray(volume[::-1, y]), np.asarray(volume[::-1, :, x])]
    for plane in cut:
        _check(plane[np.newaxis])
    low, high = _range(np.concatenate([plane.ravel() for plane in cut]), window)
    finest = min(dz, dy, dx)
    shown = [
        _resized(_grey(plane, low, high), height / finest, width / finest)
        for plane, (height, width) in zip(cut, ((dy, dx), (dz, dx), (dz, dy)), strict=True)
    ]
    height = max(len(plane) for plane in shown)
    width = sum(plane.shape[1] + GAP for plane in shown) - GAP
    sheet = np.full((height, width, *shown[0].shape[2:]), GREY, "u1")
    left = 0
    for plane in shown:
        sheet[: len(plane), left : left + plane.shape[1]] = plane
        left += plane.shape[1] + GAP
    _save(sheet, path)
    return low, high


def projection(
    volume: Any,
    path: Path,
    *,
    along: Literal["z", "y", "x"] = "y",
    how: Literal["max", "mean", "min"] = "max",
    window: tuple[float, float] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> tuple[float, float]:
    """Write a projection of a volume to a PNG file.

    Along y or x the last frame is on top, which is the head where frames ascend from the feet.

    Parameters
    ----------
    volume : array-like
        (z, y, x) of grey values; a lazy one is reduced as it is computed.
    path : path or binary file
    along : {"z", "y", "x"}
        The axis that is projected; by default y, as seen from the front.
    how : {"max", "mean", "min"}
    window : (center, width), optional
        Range that is stretched from black to white; by default the smallest to the largest
        value of the projection.
    spacing : tuple of float, optional
        Along z, y and x in mm; of an :class:`xarray.DataArray` it is read from the coordinates.

    Returns
    -------
    tuple of float
        The values that are shown black and white.

    Raises
    ------
    ValueError
        `volume` is empty or has not three axes, the window shows nothing, or `spacing` is not
        positive and finite, or would make a picture of more than 10 000 rows or columns.
    TypeError
        `volume` has no real numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     projection(np.arange(60).reshape(3, 4, 5), f"{folder}/a.png", along="z")
    (40.0, 59.0)
    """
    _check_volume(volume)
    if along not in ("z", "y", "x") or how not in ("max", "mean", "min"):
        raise ValueError(f"along is z, y or x, and how max, mean or min: not {along!r}, {how!r}")
    axis = "zyx".index(along)
    between = _spacing(spacing, volume, 3) or (1.0, 1.0, 1.0)
    reducible = volume if hasattr(volume, how) else np.asarray(volume)
    plane = np.asarray(getattr(reducible, how)(axis=axis))
    left = between[:axis] + between[axis + 1 :]
    return frame(plane if along == "z" else plane[::-1], path, window=window, spacing=left)


def _save(shown: npt.NDArray[Any], path: Path) -> None:
    """Write a picture whole, or not at all: an earlier one stays where that fails."""
    picture = Image.fromarray(shown)
    if not isinstance(path, str | os.PathLike):
        picture.save(path, format="PNG")
        return
    suffix = os.path.splitext(os.fsdecode(path))[1]
    if suffix.lower() not in ("", ".png"):
        raise ValueError(f"{os.fsdecode(path)}: a picture is a PNG file, and {suffix} is another")
    with whole_file(path) as name, open(name, "wb") as file:
        picture.save(file, format="PNG")


def _check_volume(volume: Any, samples: tuple[int, ...] = ()) -> None:
    if len(volume.shape[:3]) != 3 or volume.shape[3:] != samples or 0 in volume.shape:
        raise ValueError(f"a volume has (z, y, x), all of them at least 1, and not {volume.shape}")


def _check(frames: npt.NDArray[Any]) -> None:
    if frames.size == 0 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)):
        raise ValueError(
            f"a picture is made of (frames, rows, columns) or (frames, rows, columns, 3), at "
            f"least one of them, and not of {frames.shape}"
        )
    if frames.dtype.kind not in "buif":
        raise TypeError(f"a picture is made of real numbers, not of {frames.dtype}")


def _check_spacing(spacing: Sequence[float]) -> None:
    if not all(0 < one < math.inf for one in spacing):
        raise ValueError(f"a spacing of {tuple(spacing)} mm has no shape")


def _spacing(given: Sequence[float] | None, array: Any, axes: int) -> Any:
    """Return the spacing that is given, or that of the last `axes` of a labelled array.

    None where there are no labels, or where they are not evenly spaced.
    """
    if given is not None:
        return tuple(given)
    dims = [dim for dim in getattr(array, "dims", ()) if dim in ("z", "y", "x")][-axes:]
    distances = []
    for dim in dims:
        steps = np.diff(array.coords[dim]) if dim in array.coords else np.empty(0)
        # An axis may be turned round, as for a picture with the head on top.
        if not len(steps) or steps[0] == 0 or not np.allclose(steps, steps[0], rtol=1e-3):
            return None
        distances.append(abs(float(steps[0])))
    return tuple(distances) if len(distances) == axes else None


def _range(shown: npt.NDArray[Any], window: tuple[float, float] | None) -> tuple[float, float]:
    if window is not None:
        center, width = window
        if not (math.isfinite(center) and 0 < width < math.inf):
            raise ValueError(f"a window of center {center} and width {width} shows nothing")
        return center - width / 2, center + width / 2
    if shown.dtype == np.uint8:
        return 0.0, 255.0
    finite = shown[np.isfinite(shown)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _grey(frame: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    if frame.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return frame
    inside = np.nan_to_num(np.clip(frame.astype("f8"), low, high), nan=low)
    # Halved, since the range of very large numbers may be none.
    width = (high / 2 - low / 2) or 0.5
    scaled: npt.NDArray[Any] = np.round((inside / 2 - low / 2) / width * 255)
    return scaled.astype("u1")


def _square(plane: npt.NDArray[Any], spacing: Sequence[float] | None) -> npt.NDArray[Any]:
    """Resize a plane so that its pixels are square, as fine as the finer of the two."""
    if spacing is None:
        return plane
    _check_spacing(spacing)
    if len(spacing) != 2:
        raise ValueError(f"a frame has spacings of rows and columns, and not {tuple(spacing)}")
    between_rows, between_columns = spacing
    finest = min(between_rows, between_columns)
    return _resized(plane, between_rows / finest, between_columns / finest)


def _resized(plane: npt.NDArray[Any], vertical: float, horizontal: float) -> npt.NDArray[Any]:
    height, width = round(plane.shape[0] * vertical), round(plane.shape[1] * horizontal)
    if (height, width) == plane.shape[:2]:
        return plane
    if max(height, width) > max(_LONGEST, *plane.shape[:2]):
        raise ValueError(
            f"pixels that are {vertical:g} times as high and {horizontal:g} times as wide as the "
            f"finest make a picture of {height} x {width}, and {_LONGEST} is the most: the spacing "
            "is wrong"
        )
    resized = Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
