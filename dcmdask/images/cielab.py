"""Colours in CIELab, as DICOM stores them (PS3.3 C.10.7.1.1), as sRGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

# White of CIELab in DICOM, and linear sRGB of XYZ that is adapted to it (Bradford).
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_SRGB: Final = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


def srgb_of(cielab: Sequence[float]) -> tuple[float, float, float] | None:
    """Return a stored CIELab value as red, green and blue from 0 to 1; None where it is none.

    Examples
    --------
    >>> srgb_of((32768, 32896, 32896))
    (0.466354, 0.466336, 0.466239)
    """
    if len(cielab) != 3 or not np.isfinite(cielab).all():
        return None
    lightness = cielab[0] / 0xFFFF * 100
    a, b = (value / 0xFFFF * 255 - 128 for value in cielab[1:])
    y = (lightness + 16) / 116
    scaled = np.array([y + a / 500, y, y - b / 200])
    linear = np.where(scaled > 6 / 29, scaled**3, 3 * (6 / 29) ** 2 * (scaled - 4 / 29))
    rgb = np.clip(_SRGB @ (linear * _D50), 0, 1)
    coded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    red, green, blue = coded.round(6).tolist()
    return red, green, blue
