"""Instances as a scan describes them, and arrays of frames that are there already."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from make_dicom import native, saved
from pydicom.dataset import Dataset

from dcmdask.dicom.description import Described, describe
from dcmdask.pixels.array_like import ArrayLike
from dcmdask.sources.files import locate


def instance(src: Path | bytes) -> Described:
    """Return the description that a scan keeps of a file."""
    return describe(locate(src))


def number(dataset: Dataset, keyword: str) -> float:
    """The first number of an element; NaN where there is none."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return np.nan
    return float(value[0] if dataset[keyword].VM > 1 else value)


def single_files(folder: Path, frames: np.ndarray, **elements: Any) -> list[Described]:
    """Files of one native frame each."""
    return [
        instance(saved(folder, native(frames[i : i + 1], **elements), f"{i:04}.dcm"))
        for i in range(len(frames))
    ]


class Held(ArrayLike):
    """Frames that are in memory, and what was asked of them."""

    def __init__(self, frames: np.ndarray) -> None:
        self.held = frames
        self.shape, self.dtype = frames.shape, frames.dtype
        self.keys: list[Any] = []

    @property
    def name(self) -> str:
        return "held"

    @property
    def token(self) -> str:
        return f"held {self.held.tolist()}"

    def __getitem__(self, key: Any) -> np.ndarray:
        self.keys.append(key)
        return np.array(self.held[key])


def slices(length: int) -> st.SearchStrategy[slice]:
    bound = st.none() | st.integers(-length - 2, length + 2)
    step = st.none() | st.integers(-3, 3).filter(bool)
    return st.builds(slice, bound, bound, step)


def picks(length: int) -> st.SearchStrategy[Any]:
    """Arrays for one axis: of integers, of booleans."""
    numbers = st.lists(st.integers(-length, length - 1), max_size=6)
    truths = st.lists(st.booleans(), min_size=length, max_size=length)
    return (
        numbers | numbers.map(lambda k: np.array(k, "i8")) | truths.map(lambda k: np.array(k, "?"))
    )


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...], frame_axes: int = 1) -> Any:
    """Indices that an array-like takes: at most one array, for a frame axis, and an Ellipsis."""
    count = draw(st.integers(0, len(shape)))
    front = draw(st.integers(0, count))
    axes = [*range(front), *range(len(shape) - count + front, len(shape))]
    candidates = [axis for axis in axes if axis < frame_axes]
    picked = draw(st.sampled_from([None, *candidates]))
    parts = [
        draw(
            picks(shape[axis])
            if axis == picked
            else st.integers(-shape[axis], shape[axis] - 1) | slices(shape[axis])
        )
        for axis in axes
    ]
    if count < len(shape) or draw(st.booleans()):
        parts.insert(front, Ellipsis)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)
