"""Colours by their ICC profiles as sRGB (PS3.3 C.11.15)."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.errors import HeaderError

if TYPE_CHECKING:
    from PIL import ImageCms


def check_profile(profile: bytes, frame_shape: tuple[int, ...], dtype: Any, name: str) -> None:
    """Refuse a profile that cannot be used, and frames that are no RGB of 8 bits.

    Raises
    ------
    HeaderError
    """
    if frame_shape[2:] != (3,) or dtype != np.uint8:
        raise HeaderError(
            f"sRGB is made of RGB with 8 bits, not of {frame_shape} {dtype}",
            source=name,
            code="icc-profile",
        )
    try:
        _transform(profile)
    except ValueError as error:
        raise HeaderError(
            "(0028,2000) 'ICC Profile' cannot be used",
            source=name,
            detail=str(error),
            code="icc-profile",
        ) from error


def to_srgb(pixels: npt.NDArray[Any], profile: bytes) -> npt.NDArray[Any]:
    """Return RGB pixels (rows, columns, 3) as sRGB."""
    from PIL import Image

    found = _transform(profile).apply(Image.fromarray(np.ascontiguousarray(pixels)))
    return np.asarray(found)


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    """Return the transform from a profile to sRGB, by the rendering intent of the profile."""
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent(ImageCms.getDefaultIntent(given)),
            flags=ImageCms.Flags.NOCACHE,  # threads share it
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(str(error)) from error
