"""Report of an export, in numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.utils import format_bytes
from zarr.abc.store import Store
from zarr.storage import LocalStore

from dcmdask.store.regions import Failure


@dataclass(frozen=True)
class ExportReport:
    """Report of an export.

    Attributes
    ----------
    store : str
        The path or URL of the store.
    shape : tuple of int
        Of the array; of a pyramid, of its largest level.
    dtype : numpy.dtype
        In native byte order.
    chunks : tuple of int
        The shape of a Zarr chunk.
    bytes_decoded : int
        Of the array.
    bytes_stored : int or None
        Of the store with all its metadata; None where it cannot be listed.
    seconds : float
        From the call to the end.
    token : str
        Of the source; of an array of one's own, its name.
    shards : tuple of int or None
        The shape of a Zarr shard, if there are shards.
    levels : int
        Of the pyramid; 1 where there is none.
    regions : int
        Number of tasks that write all levels.
    written : int
        Number of tasks that wrote; the others had written all of theirs before.
    failures : tuple of Failure
        ``(frame, reason)`` of each frame that could not be decoded and was filled.
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

    def __str__(self) -> str:
        size = format_bytes(self.bytes_decoded)
        if self.bytes_stored:
            ratio = self.bytes_decoded / self.bytes_stored
            size += f" in {format_bytes(self.bytes_stored)} ({ratio:.1f} : 1)"
        shards = f", shards {self.shards}" if self.shards else ""
        filled = f", {len(self.failures)} frames filled" if self.failures else ""
        return (
            f"{self.store}: {self.shape} {self.dtype}, chunks {self.chunks}{shards}, {size}, "
            f"{self.seconds:.1f} s{filled}"
        )


def bytes_stored(store: Store) -> int | None:
    """Return the bytes of a local store; None of others."""
    if not isinstance(store, LocalStore):
        return None
    folders = os.walk(Path(store.root))
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in folders
        for name in names
    )
