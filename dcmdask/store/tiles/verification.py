"""Verification of stores whose chunks are the encoded tiles of a slide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import zarr
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGLSLossless

from dcmdask.archive.discovery import MARK_KEY
from dcmdask.pixels.codestream import CodestreamError, parse
from dcmdask.store.regions import grid_of
from dcmdask.store.scheduler import run_levels
from dcmdask.store.target.place import Place, check_reached
from dcmdask.store.tiles.levels import TOGETHER, Kept, kept_levels
from dcmdask.store.tiles.writer import array_of, as_ome, kept_slide, register, token_of
from dcmdask.store.verification.comparison import (
    NOT_ENDED,
    Compared,
    Difference,
    error_text,
    sample,
)

# A transfer syntax of each family of codestreams, by the codec that decodes them.
_SYNTAXES: Final = {
    "imagecodecs_jpeg": JPEGBaseline8Bit,
    "imagecodecs_jpeg2k": JPEG2000,
    "imagecodecs_jpegls": JPEGLSLossless,
}


@dataclass(frozen=True)
class _Check:
    place: Place
    arrays: tuple[zarr.Array[Any], ...]
    keys: tuple[tuple[str, ...], ...]
    levels: tuple[Kept, ...]


def compare_kept(
    place: Place,
    mark: Mapping[str, Any],
    src: Any,
    fraction: float,
    progress: Callable[[int, int | None], None] | None,
    storage_options: Mapping[str, Any] | None,
    opening: Mapping[str, Any],
) -> Compared:
    """Read every chunk: it has to be the tile of the source, or without one to decode.

    `mark` is the attribute ``dcmdask`` of the group; other parameters are those of
    :func:`dcmdask.verify`.
    """
    register()
    differences: list[Difference] = []
    is_complete = mark.get("complete") is True
    if not is_complete:
        differences.append(NOT_ENDED)
    levels: tuple[Kept, ...] = ()
    token_same = None
    if src is not None:
        options = {**dict(mark["plan"].get("options") or {}), **opening}
        slide = kept_slide(src, storage_options, options)
        levels = kept_levels(slide, options)
        token_same = token_of(levels) == mark["plan"].get("source")
        if version := mark["plan"].get("ome_version"):
            levels = as_ome(levels, slide, version, {MARK_KEY: {"plan": {}}}, options)
    arrays, found = _arrays(place, mark, levels)
    differences += found
    there = place.sizes()
    keys, found = _keys(arrays, mark, levels, there)
    differences += found
    if levels and len(levels) != len(arrays):
        levels = ()
    check = _Check(place, arrays, keys, levels)
    counts = {level: -(-len(of_level) // TOGETHER) for level, of_level in enumerate(keys)}
    numbers = sample(counts, fraction, str(mark["plan"].get("source")))
    for result in chain(*run_levels(_check_tiles, [(check, numbers)], progress)):
        differences += result
    regions = (sum(map(len, numbers.values())), sum(counts.values()))
    distinct = tuple(dict.fromkeys(differences))
    return Compared(is_complete, regions, len(arrays), token_same, (), distinct)


def _arrays(
    place: Place, mark: Mapping[str, Any], levels: tuple[Kept, ...]
) -> tuple[tuple[zarr.Array[Any], ...], list[Difference]]:
    """Return the arrays that can be read, and what is wrong with others."""
    arrays: list[zarr.Array[Any]] = []
    differences: list[Difference] = []
    for number, name in enumerate(mark["arrays"]):
        try:
            array = zarr.open_array(place.store, path=name, mode="r", zarr_format=2)
        except Exception as error:
            # For damaged metadata zarr raises anything.
            check_reached(error)
            differences.append(Difference(name, f"it cannot be read: {error_text(error)}"))
            continue
        arrays.append(array)
        if number < len(levels):
            made = zarr.create_array({}, **array_of(levels[number]), zarr_format=2)
            if made.metadata.to_dict() != array.metadata.to_dict():
                differences.append(Difference(name, "its metadata is not that of the source"))
    if levels and len(levels) != len(mark["arrays"]):
        text = f"the source has {len(levels)} levels, the store {len(mark['arrays'])}"
        differences.append(Difference("levels", text))
    return tuple(arrays), differences


def _keys(
    arrays: tuple[zarr.Array[Any], ...],
    mark: Mapping[str, Any],
    levels: tuple[Kept, ...],
    there: Mapping[str, int | None],
) -> tuple[tuple[tuple[str, ...], ...], list[Difference]]:
    """Return the keys of chunks to check, in the order of the tiles, and what lacks or is odd."""
    keys: list[tuple[str, ...]] = []
    differences: list[Difference] = []
    for number, array in enumerate(arrays):
        every = {
            f"{array.basename}/{array.metadata.encode_chunk_key(index)}"
            for index in np.ndindex(*grid_of(array.shape, array.chunks))
        }
        if levels and len(levels) == len(arrays):
            wanted = tuple(key for key, _ in levels[number].spans())
        else:
            wanted = tuple(sorted(every.intersection(there)))
            count = mark["plan"]["tiles"][number]
            if len(wanted) != count:
                text = f"{len(wanted)} chunks, and {count} tiles were stored"
                differences.append(Difference(array.basename or "", text))
        differences += [Difference(key, "it is missing") for key in wanted if key not in there]
        surplus = sorted(every.intersection(there) - set(wanted))
        differences += [Difference(key, "the source has no such tile") for key in surplus]
        keys.append(wanted)
    return tuple(keys), differences


def _check_tiles(check: _Check, number: int, *, level: int) -> list[Difference]:
    """Check some chunks of a level."""
    place, found = range(number * TOGETHER, (number + 1) * TOGETHER), list[Difference]()
    if check.levels:
        one = check.levels[level]
        tiles = one.tiles[place.start : place.stop]
        for key, data in one.contents(tiles):
            stored = check.place.read(key)
            if stored is not None and stored != data:
                found.append(Difference(key, "it is not the tile of the source"))
        return found
    array = check.arrays[level]
    for key in check.keys[level][place.start : place.stop]:
        index = map(int, key.replace(".", "/").split("/")[1:])
        chunk = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, array.chunks, strict=True))
        try:
            codec: Any = array.compressors[0] if array.compressors else None
            syntax = _SYNTAXES.get(getattr(codec, "codec_id", ""))
            # A codec may decode what was cut, without a word.
            if syntax and not parse(check.place.read(key) or b"", syntax).complete:
                found.append(Difference(key, "it is damaged: its codestream has no end"))
                continue
            array[chunk]
        except CodestreamError as error:
            found.append(Difference(key, f"it is damaged: {error}"))
        except Exception as error:
            # A codec raises anything.
            check_reached(error)
            found.append(Difference(key, f"it does not decode: {error_text(error)}"))
    return found
