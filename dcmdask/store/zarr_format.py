"""Differences of Zarr 3 and Zarr 2: names of objects, metadata of arrays, compression.

Zarr 2 has neither shards nor names of dimensions, which xarray looks for in an attribute. It has no
checksum behind a compressor, other than one that readers in other languages do not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from dcmdask.archive.discovery import ATTRIBUTES, GROUP
from dcmdask.errors import AlignmentError

ZarrFormat: TypeAlias = Literal[2, 3]

# Files of metadata of Zarr 2, besides that of attributes.
GROUP_2, ARRAY_2, CONSOLIDATED_2 = ".zgroup", ".zarray", ".zmetadata"
# The content of the first one.
EMPTY_GROUP_2 = json.dumps({"zarr_format": 2}).encode()
# Names of the files of metadata of groups and arrays.
METADATA: Mapping[ZarrFormat, frozenset[str]] = {
    2: frozenset({ATTRIBUTES, GROUP_2, ARRAY_2, CONSOLIDATED_2}),
    3: frozenset({GROUP}),
}
# The attribute in which xarray looks for names of dimensions.
_DIMENSIONS = "_ARRAY_DIMENSIONS"


# Names


def document_of(zarr_format: ZarrFormat) -> str:
    """Return the name of the file with the attributes of a group."""
    return GROUP if zarr_format == 3 else ATTRIBUTES


def attributes_in(document: bytes) -> tuple[dict[str, Any], ZarrFormat]:
    """Return the attributes in such a file, none where it is damaged, and the format it is of."""
    told: Any = None
    with suppress(ValueError, RecursionError):
        told = json.loads(document)
    if not isinstance(told, dict):
        return {}, 3
    if "attributes" not in told:
        return told, 2
    found = told["attributes"]
    return found if isinstance(found, dict) else {}, 3


def metadata_key(name: str, zarr_format: ZarrFormat) -> str:
    """Return the key of the metadata of an array."""
    return f"{name}/{GROUP if zarr_format == 3 else ARRAY_2}"


def key_of(name: str, index: Sequence[int | str], zarr_format: ZarrFormat = 3) -> str:
    """Return the key of an object of an array: a shard, or a chunk where there are none."""
    # A Zarr 2 array without axes has the chunk 0.
    numbers = index if zarr_format == 3 or len(index) else [0]
    return "/".join([prefix_of(name, zarr_format), *map(str, numbers)])


def prefix_of(name: str, zarr_format: ZarrFormat) -> str:
    """Return the part that the keys of all objects of an array begin with."""
    return f"{name}/c" if zarr_format == 3 else name


# Arrays


def array_parameters(
    zarr_format: ZarrFormat,
    *,
    dimension_names: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return the parameters by which zarr makes an array in a group of a format."""
    attributes = dict(attributes or {})
    if zarr_format == 3:
        return {**others, "dimension_names": dimension_names, "attributes": attributes}
    return {
        **others,
        "attributes": {_DIMENSIONS: list(dimension_names), **attributes},
        # xarray takes values that are equal to it for missing ones.
        "fill_value": None,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    }


def dimensions_of(array: zarr.Array[Any]) -> tuple[Any, ...]:
    """Return the names of the dimensions of an array; none where it has none."""
    metadata: Any = array.metadata
    if metadata.zarr_format == 3:
        return tuple(metadata.dimension_names or ())
    found: Any = array.attrs.get(_DIMENSIONS)
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else ()


def attributes_of(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the attributes of an array besides the names of its dimensions."""
    found = array.attrs.asdict()
    if array.metadata.zarr_format == 2:
        found.pop(_DIMENSIONS, None)
    return found


def storable(values: np.ndarray[Any, Any], zarr_format: ZarrFormat) -> np.ndarray[Any, Any]:
    """Return values in a type that the specification of the format has."""
    if values.dtype.kind == "U" and zarr_format == 3:
        return values.astype(np.dtypes.StringDType())
    return np.asarray(values, order="C")


# Compression

BLOSC_BYTES = 2**31 - 1
# Its last four bytes are the length of all.
_BLOSC_HEADER = 16
# Compression of small arrays: Zstandard, and a checksum.
_SMALL: Mapping[ZarrFormat, Any] = {
    2: {"id": "zstd", "level": 0, "checksum": True},
    3: (ZstdCodec(level=0), Crc32cCodec()),
}
# By the names that the command has for them; the levels are zarr's own defaults.
_NAMED: Mapping[ZarrFormat, Mapping[str, Any]] = {
    2: {
        # A checksum is a part of its frames, which every decoder compares.
        "zstd": {"id": "zstd", "level": 0, "checksum": True},
        "gzip": {"id": "gzip", "level": 5},
        "none": None,
    },
    3: {
        "zstd": {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
        "gzip": {"name": "gzip", "configuration": {"level": 5}},
        "none": None,
    },
}
_BLOSC: Mapping[ZarrFormat, Any] = {
    2: {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0},
    3: [BloscCodec(cname="zstd", shuffle="bitshuffle"), Crc32cCodec()],
}


def small(zarr_format: ZarrFormat) -> Any:
    """Return the compressors of small arrays, such as coordinates."""
    return _SMALL[zarr_format]


def codecs(
    wanted: Any, chunk: tuple[int, ...], dtype: np.dtype[Any], zarr_format: ZarrFormat = 3
) -> Any:
    """Return the compressors that are wanted, for chunks of this shape.

    ``"auto"`` is Blosc with Zstandard and bit shuffle, which on 12-bit images is both faster and
    smaller than Zarr's own default; and in Zarr 3 a checksum, since Blosc decodes most damaged
    chunks without a word.
    """
    if not isinstance(wanted, str):
        return wanted
    if wanted != "auto":
        named = _NAMED[zarr_format]
        if wanted not in named:
            raise ValueError(
                f"compressors {wanted!r}: auto, {', '.join(named)}, or what zarr takes"
            )
        return named[wanted]
    if math.prod(chunk) * dtype.itemsize > BLOSC_BYTES:
        raise AlignmentError(
            f"a chunk of {chunk} {dtype} is larger than the {BLOSC_BYTES} bytes that Blosc takes: "
            "use smaller chunks",
            code="blosc",
        )
    return _BLOSC[zarr_format]


def recorded_codecs(array: zarr.Array[Any]) -> list[Any]:
    """Return the codecs of an array, in the words of its metadata."""
    told: Any = array.metadata.to_dict()
    if told["zarr_format"] == 3:
        return list(told["codecs"])
    return [*(told["filters"] or ()), told["compressor"]]


def reads_beyond(array: zarr.Array[Any]) -> bool:
    """Return whether decoding an object that was cut short reads memory beyond it.

    Blosc's decompressor is not told how much there is. A checksum behind it, or that of a
    shard's index, is compared before it is called.
    """
    last: Any = array.compressors[-1] if array.compressors else None
    is_blosc = isinstance(last, BloscCodec) or getattr(last, "codec_id", "") == "blosc"
    return is_blosc and not array.shards


def check_length(fs: Any, path: str) -> None:
    """Refuse an object on a file system that is not as long as its Blosc header says."""
    head, size = fs.cat_file(path, start=0, end=_BLOSC_HEADER), fs.size(path)
    expected = int.from_bytes(head[12:], "little")
    if len(head) < _BLOSC_HEADER or expected != size:
        raise ValueError(f"it has {size} bytes, and {expected} by its header")
