"""Zarr chunks for Dask arrays, so that no two tasks write the same one: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from dcmdask.errors import AlignmentError

Blocks = Sequence[Sequence[int]]


def zarr_chunks(blocks: Blocks, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the shape of the Zarr chunks for an array in Dask `blocks`.

    Every boundary between two blocks is a boundary between two Zarr chunks, so each
    chunk is written whole by one task, and by no other.

    Parameters
    ----------
    blocks : sequence of sequence of int
        The lengths of the Dask chunks along each axis.
    wanted : sequence of int, optional
        The length of a Zarr chunk along each axis. By default the Dask chunks', which
        have to be of one length along an axis; the last may be shorter.

    Raises
    ------
    AlignmentError
        Some Zarr chunk would belong to two blocks.
    ValueError
        `wanted` is not one positive number for each axis.

    Examples
    --------
    >>> zarr_chunks([(10, 10, 5), (512,), (512,)])
    (10, 512, 512)
    >>> zarr_chunks([(10, 10, 5), (512,), (512,)], wanted=(5, 256, 256))
    (5, 256, 256)
    """
    if wanted is not None and (len(wanted) != len(blocks) or min(wanted, default=1) < 1):
        raise ValueError(
            f"chunks {tuple(wanted)!r} are not one positive integer for each of the "
            f"{len(blocks)} axes"
        )
    found = []
    for axis, lengths in enumerate(blocks):
        if any(math.isnan(length) for length in lengths):
            raise AlignmentError(
                f"axis {axis} has Dask chunks of unknown length, and a store needs its shape "
                "first: call compute_chunk_sizes()"
            )
        # Zarr has no chunks of length 0, not even for an empty axis.
        chunk = max(1, *lengths) if wanted is None else wanted[axis]
        _check(axis, lengths, chunk)
        found.append(chunk)
    return tuple(found)


def _check(axis: int, lengths: Sequence[int], chunk: int) -> None:
    for position, end in enumerate(accumulate(lengths[:-1])):
        if end % chunk == 0:
            continue
        start = end - end % chunk
        fit = math.gcd(*lengths[:-1])
        chunks = f"chunks of {fit}" if fit == 1 else f"chunks of {fit} or a divisor of it"
        raise AlignmentError(
            f"axis {axis}: Dask chunk {position} ends at {end}, inside the Zarr chunk from {start} "
            f"to {start + chunk}, which two tasks would write; {chunks} would fit, or "
            f".rechunk({{{axis}: {chunk}}}) first"
        )
