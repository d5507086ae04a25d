"""Contact sheets show each frame in its place, and say which values are black and white."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from PIL import Image

from dcmdask.arrays.picture import GAP, GREY, contact_sheet


def sheet(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("samples", [(), (3,)])
def test_bytes_are_shown_as_they_are(tmp_path: Path, samples: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 8, *samples), dtype="u1")
    assert contact_sheet(frames, tmp_path / "a.png", columns=2) == (0.0, 255.0)
    shown = sheet(tmp_path / "a.png")
    assert shown.shape == (3 * 6 + 2 * GAP, 2 * 8 + GAP, *samples)
    for number, frame in enumerate(frames):
        top, left = number // 2 * (6 + GAP), number % 2 * (8 + GAP)
        np.testing.assert_array_equal(shown[top : top + 6, left : left + 8], frame)
    assert (shown[6 : 6 + GAP] == GREY).all()
    assert (shown[12 + 2 * GAP :, 8:] == GREY).all()


@pytest.mark.parametrize(
    ("values", "expected", "shown"),
    [
        (np.array([-1000, 0, 1000], "i2"), (-1000.0, 1000.0), [0, 128, 255]),
        (np.array([0, 2**40, 2**41], "u8"), (0.0, 2.0**41), [0, 128, 255]),
        (np.array([0.0, np.nan, 0.5]), (0.0, 0.5), [0, 0, 255]),
        (np.array([0.0, np.inf, 0.5]), (0.0, 0.5), [0, 255, 255]),
        (np.array([7, 7, 7], "u2"), (7.0, 7.0), [0, 0, 0]),
        (np.array([np.nan] * 3), (0.0, 0.0), [0, 0, 0]),
    ],
)
def test_others_are_stretched(tmp_path: Path, values: Any, expected: Any, shown: Any) -> None:
    assert contact_sheet(values.reshape(1, 1, 3), tmp_path / "a.png") == expected
    assert sheet(tmp_path / "a.png").tolist() == [shown]


def test_a_sheet_is_about_square(tmp_path: Path) -> None:
    contact_sheet(da.zeros((30, 24, 32), dtype="u1"), tmp_path / "a.png")
    height, width = sheet(tmp_path / "a.png").shape
    assert 0.7 < height / width < 1.4


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 2), (0, 4, 4), (1, 2, 3, 3, 3)])
def test_what_is_no_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a picture is made of"):
        contact_sheet(np.zeros(shape), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
