"""Whole slides as a pyramid of Zarr 2 whose chunks are their tiles, as they are encoded.

Zarr 2, since imagecodecs registers its codecs for that alone. Nothing is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.concatenation import JoinedFrames
from dcmdask.arrays.matrix import TotalPixelMatrix
from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.dicom.image_pixel import YBR
from dcmdask.dicom.instance import Instance
from dcmdask.errors import Advice, LayoutError
from dcmdask.images.slides.level import Level
from dcmdask.images.slides.whole_slide import Slide
from dcmdask.pixels import colour, shortcut
from dcmdask.pixels.codestream import Codestream
from dcmdask.pixels.decode import Encoded
from dcmdask.store.target.place import Place

ABSENT = -1
# Tiles that a task copies.
TOGETHER = 256
_DECODED = Advice("", "", "an export without keep_codec decodes them")


@dataclass(frozen=True)
class Kept:
    """One level: where each of its tiles goes.

    Attributes
    ----------
    name : str
        Of its array.
    dims : tuple of str
    shape, chunks : tuple of int
    dtype : numpy.dtype
    codec : dict or None
        Configuration of numcodecs; None where tiles are not compressed.
    fill_value : int
    frames : JoinedFrames
        The tiles of all files.
    numbers : ndarray of int64
        (..., tiles down, tiles across[, 1]): the frame of each chunk; -1 for none.
    attributes : dict
    separator : str
        Between the numbers of a key.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: dict[str, Any] | None
    fill_value: int
    frames: JoinedFrames = field(repr=False)
    numbers: npt.NDArray[np.int64] = field(repr=False)
    attributes: dict[str, Any]
    # Folders would take longer to make than their tiles to write.
    separator: str = "."

    @cached_property
    def tiles(self) -> npt.NDArray[np.int64]:
        """Flat indices of chunks that have a tile, in the order of their frames."""
        flat = self.numbers.ravel()
        there = np.flatnonzero(flat != ABSENT)
        ordered: npt.NDArray[np.int64] = there[np.argsort(flat[there], kind="stable")]
        return ordered

    def keys(self, tiles: npt.NDArray[np.int64]) -> list[str]:
        """Return the keys of chunks by their flat indices."""
        along = np.unravel_index(tiles, self.numbers.shape)
        numbers = zip(*(one.tolist() for one in along), strict=True)
        return [f"{self.name}/{self.separator.join(map(str, one))}" for one in numbers]

    def spans(self) -> Iterator[tuple[str, int]]:
        """Yield key and span length of each tile, in the order of the frames."""
        lengths = self.frames.lengths(self.numbers.ravel()[self.tiles].tolist())
        return zip(self.keys(self.tiles), lengths, strict=True)

    def contents(self, tiles: npt.NDArray[np.int64]) -> Iterator[tuple[str, bytes | memoryview]]:
        """Yield key and content of tiles, each valid until the next; all are encoded alike."""
        stored = self.frames.encoded(self.numbers.ravel()[tiles].tolist())
        known: Instance | None = None
        stream: Codestream | None = None
        for key, (instance, encoded) in zip(self.keys(tiles), stored, strict=True):
            # Frames that repeat the header of the one before share its codestream.
            if instance is not known or encoded.codestream is not stream:
                if codec_of(instance, encoded) != self.codec:
                    raise _refused(
                        instance.name, f"frame {encoded.frame} is not encoded as the first one is"
                    )
                known, stream = instance, encoded.codestream
            yield key, encoded.payload


@dataclass(frozen=True)
class Copying:
    """Parameters of all tasks: levels, and the tiles that are left of each."""

    place: Place
    levels: tuple[Kept, ...]
    left: tuple[npt.NDArray[np.int64], ...]

    def tasks(self) -> dict[int, list[int]]:
        """Return the numbers of the tasks of each level."""
        return {
            level: list(range(-(-len(tiles) // TOGETHER))) for level, tiles in enumerate(self.left)
        }


def copy_tiles(job: Copying, number: int, *, level: int) -> int:
    """Write some tiles of a level as they are, and return how many."""
    tiles = job.left[level][number * TOGETHER : (number + 1) * TOGETHER]
    root = os.fspath(job.place.root)
    made = set[str]()
    for key, data in job.levels[level].contents(tiles):
        if not job.place.is_local:
            job.place.put(key, bytes(data))
            continue
        folder = key.rpartition("/")[0]
        if folder not in made:
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            made.add(folder)
        # Lengths are compared when an export is resumed, so that one that was cut is seen.
        with open(os.path.join(root, key), "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
    return len(tiles)


def missing(one: Kept, there: Mapping[str, int | None]) -> npt.NDArray[np.int64]:
    """Return the tiles that are not in a store, or not whole, by the sizes of its objects."""
    if not there:
        return one.tiles
    items = one.codec is not None
    kept = [
        tile
        for tile, (key, length) in zip(one.tiles.tolist(), one.spans(), strict=True)
        if not _is_whole(there.get(key), length, items)
    ]
    return np.array(kept, np.int64)


def _is_whole(size: int | None, length: int, items: bool) -> bool:
    """Return whether an object has the bytes of a span, without the header of its item.

    A tile in several items is copied once more: its length does not tell it from one that was cut.
    """
    return size == length - (8 if items else 0)


def kept_levels(slide: Slide, opening: Mapping[str, Any]) -> tuple[Kept, ...]:
    """Return how the levels of a slide are stored without decoding.

    Refused where tiles are not the chunks of an array, or no codec of Zarr 2 decodes them to what
    dcmdask decodes.
    """
    return tuple(_kept(str(n), one, opening) for n, one in enumerate(slide.levels))


def _kept(name: str, level: Level, opening: Mapping[str, Any]) -> Kept:
    arranged: ArrangedFrames = level.frames(**opening)
    matrix: Any = arranged.frames
    assert isinstance(matrix, TotalPixelMatrix)
    joined = matrix.frames
    assert isinstance(joined, JoinedFrames)
    numbers = _numbers(matrix, level.name)[arranged.numbers]
    if (arranged.numbers == ABSENT).any():
        numbers[arranged.numbers == ABSENT] = ABSENT
    fill = np.unique(matrix.fill_value)
    if len(fill) > 1 and (numbers == ABSENT).any():
        raise _refused(level.name, "there are places without a tile, and their colour is no grey")
    tail = level.shape[arranged.frame_axes + 2 :]
    first = int(numbers[numbers != ABSENT].min())
    ((instance, encoded),) = joined.encoded([first])
    codec = codec_of(instance, encoded)
    return Kept(
        name=name,
        dims=level.dims,
        shape=level.shape,
        chunks=(*(1,) * arranged.frame_axes, *level.tile, *tail),
        dtype=instance.pixels.dtype,
        codec=codec,
        fill_value=int(fill[0]),
        frames=joined,
        numbers=numbers[..., np.newaxis] if tail else numbers,
        attributes={"downsample": level.downsample, "mpp": list(level.mpp)},
    )


def _numbers(matrix: TotalPixelMatrix, name: str) -> npt.NDArray[np.int64]:
    """Return the frame of each tile, (planes, down, across)."""
    _, rows, columns = matrix.shape[:3]
    height, width = matrix.tile
    shape = len(matrix), -(-rows // height), -(-columns // width)
    numbers = np.full(shape, ABSENT, np.int64)
    for plane in range(len(matrix)):
        tiles = np.array(matrix.tiles(plane, (0, rows), (0, columns)), np.int64).reshape(-1, 3)
        frames, tops, lefts = tiles.T
        if (tops % height).any() or (lefts % width).any():
            raise _refused(name, "its tiles do not lie on a grid")
        places = tops // height, lefts // width
        if len(np.unique(tiles[:, 1:], axis=0)) < len(tiles):
            raise _refused(name, "several tiles have one place")
        numbers[plane][places] = frames
    return numbers


def codec_of(instance: Instance, encoded: Encoded) -> dict[str, Any] | None:
    """Return the codec of numcodecs that decodes a tile to what dcmdask decodes; None for none."""
    pixels, stream = instance.pixels, encoded.codestream
    if not pixels.transfer_syntax.is_encapsulated:
        whole = pixels.bits_stored == pixels.bits_allocated
        if whole and shortcut.is_stored_as_decoded(pixels, False):
            return None
        raise _refused(instance.name, "its bytes are not those of the decoded pixels")
    if stream is None or encoded.fault is not None:
        reason = encoded.fault or f"{pixels.transfer_syntax.name} has no codec for Zarr 2"
        raise _refused(instance.name, str(reason))
    coded = colour.coded_interpretation(stream, pixels)
    rgb = coded in YBR
    plain = (
        shortcut.applies(pixels)
        and shortcut.colours_known(stream, pixels, coded, rgb)
        and not (pixels.signed or stream.signed)
        and stream.precision <= pixels.bits_stored
        and stream.itemsize * 8 == pixels.bits_allocated
    )
    codec = _codec(stream, rgb) if plain else None
    if codec is None:
        raise _refused(
            instance.name,
            f"frame {encoded.frame} ({stream.kind}, {stream.precision} bits, {coded}) is not what "
            "a codec of imagecodecs alone decodes",
        )
    return codec


def _codec(stream: Codestream, rgb: bool) -> dict[str, Any] | None:
    """Return the configuration of a codec; None where there is none."""
    if stream.kind == "jpeg" and stream.precision == 8:
        if stream.components == 1:
            return {"id": "imagecodecs_jpeg"}
        # With YCbCr as input and output nothing is converted.
        spaces = {"colorspace_jpeg": "YCBCR", "colorspace_data": "RGB" if rgb else "YCBCR"}
        return {"id": "imagecodecs_jpeg", **spaces}
    if rgb:
        return None
    if stream.kind == "jpeg2000" and not stream.offset:
        return {"id": "imagecodecs_jpeg2k", "numthreads": 1}
    if stream.kind == "jpeg-ls" and (stream.components == 1 or stream.interleave):
        return {"id": "imagecodecs_jpegls"}
    return None


def _refused(name: str, why: str) -> LayoutError:
    return LayoutError(
        f"tiles cannot be kept as they are encoded: {why}",
        source=name,
        code="keep-codec",
        advice=[_DECODED],
    )
