"""Report of an export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.utils import format_bytes
from zarr.abc.store import Store
from zarr.storage import LocalStore

from dcmdask.sources.folder import files_below
from dcmdask.store.regions import Failure


@dataclass(frozen=True)
class ExportReport:
    """Report of an export.

    Attributes
    ----------
    store : str
        The path or URL of the store.
    shape : tuple of int
        Shape of the array, or of the largest level of a pyramid.
    dtype : numpy.dtype
        In native byte order.
    chunks : tuple of int
        The shape of a Zarr chunk.
    bytes_decoded : int
        Bytes of the decoded array, or of the largest level of a pyramid; of a whole slide, of all
        levels that it has itself.
    bytes_stored : int or None
        Size of the store with its metadata; None unless it is local.
    seconds : float
        Duration of the call.
    token : str
        Hash of the source; the name of a Dask array.
    shards : tuple of int or None
        The shape of a Zarr shard, if there are shards.
    levels : int
        Number of levels of a pyramid, or 1.
    regions : int
        Number of tasks that write all levels.
    written : int
        Number of tasks that wrote in this export.
    failures : tuple of Failure
        ``(frame, reason)`` of each frame that could not be decoded and was filled; of a whole
        slide, of each tile: the level and, after the optical path and the focal plane where there
        are several, its row and column among tiles.
    tile : (int, int) or None
        Rows and columns of a tile of a whole slide.
    """

    store: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    bytes_decoded: int
    bytes_stored: int | None
    seconds: float
    token: str
    shards: tuple[int, ...] | None = None
    levels: int = 1
    regions: int = 0
    written: int = 0
    failures: tuple[Failure, ...] = ()
    tile: tuple[int, int] | None = None

    def __str__(self) -> str:
        shards = f", shards {self.shards}" if self.shards else ""
        levels = f", {self.levels} levels" if self.levels > 1 else ""
        stored = ""
        if self.bytes_stored:
            ratio = self.bytes_decoded / self.bytes_stored
            stored = f", {format_bytes(self.bytes_stored)} stored ({ratio:.1f} : 1)"
        lines = [
            self.store,
            f"  {self.shape} {self.dtype}, chunks {self.chunks}{shards}{levels}",
            f"  {format_bytes(self.bytes_decoded)} decoded{stored}",
        ]
        speed = ""
        if self.written < self.regions:
            there = self.regions - self.written
            lines.append(f"  {self.written} of {self.regions} regions written, {there} existed")
        elif self.seconds:
            speed = f", {format_bytes(int(self.bytes_decoded / self.seconds))}/s"
        lines.append(f"  {self.seconds:.1f} s{speed}")
        what = "frame" if self.tile is None else "tile"
        lines += [
            f"  {what} {', '.join(map(str, frame))} filled: {why}" for frame, why in self.failures
        ]
        return "\n".join(lines)


def bytes_stored(store: Store) -> int | None:
    """Return the bytes of a local store; None for others."""
    if not isinstance(store, LocalStore):
        return None
    return sum(os.path.getsize(store.root / path) for path in files_below(store.root))
