"""Compression of chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from dcmdask.errors import AlignmentError

BLOSC_BYTES = 2**31 - 1


# For what is small: zarr's own default, and a checksum.
SMALL = (ZstdCodec(level=0), Crc32cCodec())
# By the names that the command has for them; the levels are zarr's own defaults.
NAMED: Mapping[str, Any] = {
    "zstd": {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    "gzip": {"name": "gzip", "configuration": {"level": 5}},
    "none": None,
}


def codecs(wanted: Any, chunk: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return the compressors that are wanted, for chunks of this shape.

    Parameters
    ----------
    wanted : "auto", "zstd", "gzip", "none", or what zarr takes
        Blosc with Zstandard and bit shuffle, which on 12-bit images is both faster and smaller
        than Zarr's own default; and a checksum, since Blosc decodes most damaged chunks
        without a word.

    Raises
    ------
    AlignmentError
        A chunk is larger than Blosc takes.
    """
    if not isinstance(wanted, str):
        return wanted
    if wanted != "auto":
        if wanted not in NAMED:
            raise ValueError(
                f"compressors {wanted!r}: auto, {', '.join(NAMED)}, or what zarr takes"
            )
        return NAMED[wanted]
    if math.prod(chunk) * dtype.itemsize > BLOSC_BYTES:
        raise AlignmentError(
            f"a chunk of {chunk} {dtype} is larger than the {BLOSC_BYTES} bytes that Blosc takes: "
            "use smaller chunks"
        )
    return [BloscCodec(cname="zstd", shuffle="bitshuffle"), Crc32cCodec()]
