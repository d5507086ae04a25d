"""`TiledFrames`: the tiles of frames that hold several pictures side by side, as frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.pixels.array_like import ArrayLike, frame_numbers, inner_shape, split
from dcmdask.pixels.frame_array import FrameArray


class TiledFrames(ArrayLike):
    """Tiles as an array (frames * tiles, rows, columns[, samples]), row by row of each frame.

    Each access decodes every frame that it needs once, however many of its tiles are asked for.

    Parameters
    ----------
    frames : FrameArray
    tiles : int
        Number of tiles of a frame that are used; others behind them are empty.
    rows, columns : int
        Size of a tile, of which a frame holds whole ones.
    """

    def __init__(self, frames: FrameArray, tiles: int, rows: int, columns: int) -> None:
        self.frames = frames
        self.tiles = tiles
        self._across = frames.shape[2] // columns
        self.shape = (len(frames) * tiles, rows, columns, *frames.shape[3:])
        self.dtype = frames.dtype

    @property
    def name(self) -> str:
        """Display name of the source."""
        return self.frames.name

    @property
    def token(self) -> str:
        """Hash of the frames below, and of how they are cut."""
        parts = (self.frames.token, self.shape)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def decode_into(self, out: npt.NDArray[Any], tiles: Sequence[int]) -> None:
        """Decode `tiles` into `out`, (len(tiles), rows, columns[, samples])."""
        _, rows, columns = self.shape[:3]
        numbers = np.asarray(tiles, np.int64)
        used, which = np.unique(numbers // self.tiles, return_inverse=True)
        decoded = self.frames[used]
        down, across = np.divmod(numbers % self.tiles, self._across)
        for place, (frame, top, left) in enumerate(
            zip(which, down * rows, across * columns, strict=True)
        ):
            out[place] = decoded[frame, top : top + rows, left : left + columns]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Decode the frames whose tiles `key` names, and return what it selects of them."""
        (outer,), inner = split(key, self.ndim)
        numbers = frame_numbers(outer, len(self), self.name)
        inner_shape(inner, self.shape[1:])
        tiles = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        self.decode_into(tiles, numbers)
        selected: npt.NDArray[Any] = tiles[(slice(None), *inner)]
        return selected[0] if isinstance(outer, int) else selected
