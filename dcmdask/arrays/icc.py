"""`SrgbFrames`: colours by their ICC profiles as sRGB (PS3.3 C.11.15)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.errors import HeaderError
from dcmdask.pixels.array_like import ArrayLike, frame_numbers, split

if TYPE_CHECKING:
    from PIL import ImageCms


class SrgbFrames(ArrayLike):
    """RGB frames in sRGB, each by its own profile.

    Parameters
    ----------
    frames : array-like
        (frames, rows, columns, 3) of uint8.
    profiles : sequence of bytes
        ICC Profile (0028,2000) of each frame.

    Raises
    ------
    HeaderError
        A profile is none that can be used, or the frames are of another kind.
    """

    def __init__(self, frames: ArrayLike, profiles: Sequence[bytes]) -> None:
        self.frames = frames
        self._profiles = tuple(profiles)
        self.shape, self.dtype = frames.shape, frames.dtype
        if frames.shape[3:] != (3,) or frames.dtype != np.uint8:
            raise HeaderError(
                f"sRGB is made of RGB with 8 bits, not of {frames.shape[1:]} {frames.dtype}",
                source=frames.name,
                code="icc-profile",
            )
        for profile in set(profiles):
            _transform(profile, frames.name)

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below and of the profiles."""
        digest = hashlib.blake2b(self.frames.token.encode(), digest_size=16)
        for profile in self._profiles:
            digest.update(hashlib.blake2b(profile).digest())
        return digest.hexdigest()

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames that `key` names, and return what it selects of them in sRGB."""
        (outer,), inner = split(key, self.ndim)
        numbers = frame_numbers(outer, len(self), self.name)
        from PIL import Image

        # Colours are made of all samples of a pixel.
        found = self.frames[(np.asarray(numbers, np.int64), *inner[:-1])]
        out = np.empty_like(found)
        for number, one, place in zip(numbers, found, out, strict=True):
            if one.size:
                pixels = np.ascontiguousarray(one).reshape(1, -1, 3)
                changed = _transform(self._profiles[number], self.name).apply(
                    Image.fromarray(pixels)
                )
                place[...] = np.asarray(changed).reshape(one.shape)
        selected: npt.NDArray[Any] = out[(..., inner[-1])]
        return selected[0] if isinstance(outer, int) else selected


@lru_cache(maxsize=16)
def _transform(profile: bytes, name: str) -> ImageCms.ImageCmsTransform:
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
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise HeaderError(
            "(0028,2000) 'ICC Profile' cannot be used",
            source=name,
            detail=str(error),
            code="icc-profile",
        ) from error
