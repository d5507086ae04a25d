"""`Slide`: the levels of a whole slide, and the pictures that belong to it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dcmdask.arrays.reduced import averaged
from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described
from dcmdask.errors import Advice, AmbiguousSourceError, HeaderError, Note
from dcmdask.images.objects.slide import flavour_of, has_extended_depth, no_slide, shows_label
from dcmdask.images.slides.level import Colour, Level
from dcmdask.images.volume import Stack
from dcmdask.pixels.notebook import html_table

if TYPE_CHECKING:
    import xarray as xr

# Pixels that the picture of a notebook is decoded of at most; of a coarser level it is quick.
_QUICK = 2**24
# Of a picture of a level: what is decoded at a time.
_CHUNK = "4 MiB"
# A level is one array also without a spacing of pixels, and with focal planes at any heights.
_KNOWN_PLANES = frozenset({"spacing", "uneven", "missing"})
# Two spacings of three digits, such as 0.000252 mm, are off by so much together.
_ROUNDED = 0.01
_FRAMES = Advice("", "", "dcmdask.from_dicom(path) gives the frames as they are stored")
_FILES = Advice("", "", "open_slide takes a list of the files of one pyramid")
_HEADS = ("level", "array", "um", "tile", "optical paths", "focal planes", "syntax")


class Slide:
    """A whole slide: its levels, finest first, and its label, overview and thumbnail images.

    Made by :func:`dcmdask.open_slide`.

    Parameters
    ----------
    stacks : iterable of Stack
        Of the images of one slide.

    Attributes
    ----------
    levels : tuple of Level
    notes : tuple of Note
        Oddities of what belongs together.

    Raises
    ------
    HeaderError, IrregularSeriesError, AmbiguousSourceError
        As for :func:`dcmdask.open_slide`.
    """

    def __init__(self, stacks: Iterable[Stack]) -> None:
        by_flavour: dict[str, list[Stack]] = {}
        for stack in stacks:
            by_flavour.setdefault(flavour_of(stack.instances[0]) or "VOLUME", []).append(stack)
        if not by_flavour:
            raise HeaderError("there is no image of a slide", code="slide")
        volumes = by_flavour.pop("VOLUME", [])
        self._pictures = by_flavour
        if not volumes:
            raise no_slide([one.instances[0] for each in by_flavour.values() for one in each])
        _check(volumes)
        volumes.sort(key=lambda one: -one.instances[0].rows * one.instances[0].columns)
        self.levels = tuple(_levels(volumes))
        self.notes = tuple(_notes(self.levels))

    @property
    def name(self) -> str:
        """Display name."""
        return self.levels[0].stack.name

    @property
    def instances(self) -> tuple[Described, ...]:
        """Descriptions of the levels, as planes of their total pixel matrix."""
        return tuple(each for one in self.levels for each in one.stack.instances)

    @property
    def pyramid_uid(self) -> str:
        """(0008,0019) Pyramid UID; empty where there is none."""
        tiling = self.levels[0].stack.instances[0].tiling
        return (uid(tiling.pyramid) or "") if tiling else ""

    def read_region(
        self,
        location: tuple[int, int],
        level: int,
        size: tuple[int, int],
        *,
        optical_path: int = 0,
        focal_plane: int = 0,
        color: Colour = "stored",
    ) -> npt.NDArray[Any]:
        """Return a part of a level, as OpenSlide counts it.

        Parameters
        ----------
        location : (x, y)
            Column and row of the first pixel **in the finest level**.
        level : int
            Number of the level, 0 for the finest.
        size : (width, height)
            Columns and rows of the result, in pixels of `level`.
        optical_path, focal_plane : int, optional
            Numbers of them, where there are several.
        color : {"stored", "srgb"}
            As the decoder gives colours, or by the ICC profile of the slide as sRGB.

        Returns
        -------
        ndarray
            (height, width) or (height, width, samples). What is outside of the slide has the value
            of missing tiles: as :meth:`Level.frames` says.

        Raises
        ------
        IndexError
            There is no such level, optical path or focal plane.
        """
        if not 0 <= level < len(self.levels):
            raise IndexError(f"there is no level {level}: there are {len(self.levels)}, from 0 on")
        one = self.levels[level]
        width, height = size
        if width < 0 or height < 0:
            raise ValueError(f"a size of {width} x {height} cannot be")
        numbers = {"optical_path": optical_path, "z": focal_plane}
        for name, number in numbers.items():
            length = dict(zip(one.dims, one.shape, strict=True)).get(name, 1)
            if not 0 <= number < length:
                raise IndexError(f"there is no {name} {number}: there are {length}")
        plane = tuple(numbers[dim] for dim in one.dims if dim in numbers)
        x, y = (round(position / one.downsample) for position in location)
        return one.region((x, y), size, plane, color)

    def best_level(self, downsample: float) -> int:
        """Return the number of the coarsest level that is at least as fine as this.

        Parameters
        ----------
        downsample : float
            Size of the finest level, divided by the one that is needed.
        """
        fine = [n for n, one in enumerate(self.levels) if one.downsample <= downsample * 1.001]
        return max(fine, default=0)

    def thumbnail(
        self, size: int = 1024, *, color: Colour = "stored", reduced: bool = False
    ) -> Image.Image:
        """Return a picture of the whole slide.

        It is made of the coarsest level that covers the slide, or thumbnail image, that has as many
        pixels; of much larger ones means of blocks of pixels are taken first. Thumbnail images that
        show the label, by (0048,0010), are left out. Grey values of more than 8 bits are stretched
        from the smallest to the largest.

        Parameters
        ----------
        size : int
            Pixels of its longer side; fewer where the slide has fewer.
        color : {"stored", "srgb"}
        reduced : bool
            Decode a level that is at least twice as large at 1/2, 1/4 or 1/8 of its size, which
            is faster and less exact: see `reduced` of :meth:`Level.frames`.

        Returns
        -------
        PIL.Image.Image
            In mode ``"RGB"`` or ``"L"``, of the first optical path and focal plane.
        """
        if size < 1:
            raise ValueError(f"a thumbnail of {size} pixels cannot be")
        others = [
            one
            for one in self._pictures.get("THUMBNAIL", ())
            if _is_whole(one) and not shows_label(one.instances[0])
        ]
        candidates = [*filter(self._is_covered, self.levels), *map(Level, others)]
        candidates.sort(key=lambda one: max(one.size))
        large = [one for one in candidates if max(one.size) >= size]
        source = large[0] if large else candidates[-1]
        rows, columns = self.levels[0].size
        factor = min(1.0, size / max(rows, columns))
        shape = max(1, round(columns * factor)), max(1, round(rows * factor))
        fractions = [n for n in (8, 4, 2) if reduced and max(source.size) >= n * size]
        picture = _picture(_whole(source, color, fractions[0] if fractions else 1, size))
        if picture.size == shape:
            return picture
        box = None
        if source in self.levels:
            # Not what a level was padded with.
            parts = (
                min(1.0, whole / source.downsample / own)
                for whole, own in zip((columns, rows), source.size[::-1], strict=True)
            )
            right, bottom = (part * n for part, n in zip(parts, picture.size, strict=True))
            box = (0.0, 0.0, right, bottom)
        return picture.resize(shape, box=box, reducing_gap=2.0)

    def _is_covered(self, level: Level) -> bool:
        """Return whether a level shows all that the finest does, up to a pixel."""
        lengths = zip(self.levels[0].size, level.size, strict=True)
        return all(whole / level.downsample < own + 1 for whole, own in lengths)

    @property
    def label(self) -> Image.Image | None:
        """Picture of the label; it may show names. None where there is none."""
        return self._picture("LABEL")

    @property
    def overview(self) -> Image.Image | None:
        """Picture of the whole glass, which may show the label too. None where there is none."""
        return self._picture("OVERVIEW")

    def _picture(self, flavour: str) -> Image.Image | None:
        stacks = self._pictures.get(flavour, ())
        if stacks and not _is_whole(stacks[0]):
            raise _not_whole(stacks[0])
        return _picture(_whole(Level(stacks[0]), "stored")) if stacks else None

    def to_datatree(
        self,
        *,
        color: Colour = "stored",
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> xr.DataTree:
        """Return the slide as an :class:`xarray.DataTree`, with a node for each level.

        Parameters
        ----------
        color : {"stored", "srgb"}
            As the decoder gives colours, or by the ICC profiles of the slide as sRGB.
        chunks : int, str, tuple or dict, optional
            ``"auto"`` plans by the cost of decoding. A number is one of rows and of columns,
            multiples of a tile; a size such as ``"64 MiB"`` is taken by as many tiles. Or, by
            axis, a tuple or a dict.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        xarray.DataTree
            Nodes ``"0"``, ``"1"``, ... finest first, each with a variable ``pixels`` as
            :meth:`Level.to_xarray` gives it.
        """
        import xarray as xr

        nodes = {
            str(number): one.to_xarray(color=color, chunks=chunks, **decoding_options).to_dataset(
                name="pixels"
            )
            for number, one in enumerate(self.levels)
        }
        tree = xr.DataTree.from_dict(nodes)
        tree.attrs["series_uid"] = uid(self.levels[0].stack.series_uid) or ""
        return tree

    @cached_property
    def _table(self) -> list[tuple[str, ...]]:
        return [level_cells(number, one) for number, one in enumerate(self.levels)]

    def _repr_html_(self) -> str:
        table = html_table(f"Slide of {self.name}", _HEADS, self._table)
        rows, columns = self.levels[-1].size
        if rows * columns > _QUICK:
            return table
        buffer = io.BytesIO()
        self.thumbnail(256).save(buffer, "PNG")
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return f'{table}<img alt="thumbnail" src="data:image/png;base64,{encoded}">'

    def __repr__(self) -> str:
        rows, columns = self.levels[0].size
        found = f"<Slide {rows} x {columns}, {len(self.levels)} levels"
        pictures = ", ".join(flavour.lower() for flavour in sorted(self._pictures))
        return f"{found}, {pictures}>" if pictures else f"{found}>"


def level_cells(number: int, level: Level) -> tuple[str, ...]:
    """Return a row of a table of levels, by `_HEADS`."""
    lengths = " ".join(f"{d}:{n}" for d, n in zip(level.dims, level.shape, strict=True))
    down, across = level.tile
    return (
        str(number),
        f"{lengths} {level.dtype}",
        " x ".join("?" if math.isnan(um) else f"{um:.4g}" for um in level.mpp),
        f"{down} x {across}",
        str(len(level.optical_paths) or 1),
        str(len(level.focal_planes)),
        level.transfer_syntax.name,
    )


def _check(stacks: Sequence[Stack]) -> None:
    """Raise where tiles cannot be put together, or a level is there several times."""
    sizes: dict[tuple[int, int], list[Stack]] = {}
    for stack in stacks:
        one = stack.instances[0]
        if not one.stored:
            raise _not_whole(stack)
        sizes.setdefault((one.rows, one.columns), []).append(stack)
    for (rows, columns), same in sizes.items():
        odd = [one for one in same[0].irregularities if one.code not in _KNOWN_PLANES]
        if len(same) > 1 or odd:
            names = sorted({each.source.name for stack in same for each in stack.instances})
            told = "; ".join([", ".join(names), *map(str, odd)])
            cause = (
                "are of the same optical path and focal plane, or differ in what one level has in "
                "common"
            )
            if len({has_extended_depth(one.instances[0]) for one in same}) > 1:
                cause = (
                    "are focal planes, and one plane that is made of them: (0048,0012) 'Extended "
                    "Depth of Field' is YES of some"
                )
            raise AmbiguousSourceError(
                f"several images of {rows} x {columns} {cause}: {told}",
                source=same[0].name,
                code="levels",
                advice=[_FILES],
            )


def _is_whole(stack: Stack) -> bool:
    """Return whether an image is one picture, and not tiles without a place."""
    return bool(stack.instances[0].stored) or len(stack.frame_numbers) == 1


def _not_whole(stack: Stack) -> HeaderError:
    one = stack.instances[0]
    fault = one.tiling.fault if one.tiling else "there is no total pixel matrix (0048,0006)"
    return HeaderError(
        f"the tiles of a slide cannot be put together: {fault}",
        source=one.source.name,
        code="tiles",
        advice=[_FRAMES],
    )


def _levels(stacks: Sequence[Stack]) -> Iterator[Level]:
    """Yield the levels; how much coarser than the first, as OpenSlide counts it.

    That is the mean of both ratios of sizes, since sizes are rounded; where spacings of pixels say
    something else by more than that, levels were padded, and spacings decide. Rounded spacings do
    not: then both ratios of sizes are one.
    """
    finest = stacks[0].instances[0]
    spacing = stacks[0].facts["spacing"][0]
    for stack in stacks:
        one = stack.instances[0]
        down, across = finest.rows / one.rows, finest.columns / one.columns
        by_size = (down + across) / 2
        by_spacing = float((stack.facts["spacing"][0] / spacing).mean())
        most = 1 / one.rows + 1 / one.columns
        if _agree(down, across, one.rows, one.columns):
            most = max(most, _ROUNDED)
        yield Level(stack, by_size if _alike(by_size, by_spacing, most) else by_spacing)


def _agree(by_size: float, by_spacing: float, rows: int, columns: int) -> bool:
    """Return whether two ratios of sizes, or of sizes and spacings, are one up to a pixel."""
    return _alike(by_size, by_spacing, 1 / rows + 1 / columns)


def _alike(by_size: float, by_spacing: float, most: float) -> bool:
    """Return whether two ratios differ by no more than `most`; also without spacings."""
    if not by_spacing > 0 or math.isinf(by_spacing):
        return True
    return abs(by_size / by_spacing - 1) <= most


def _notes(levels: Sequence[Level]) -> Iterator[Note]:
    finest = levels[0]
    for number, one in enumerate(levels):
        yield from one.stack.notes
        for odd in one.stack.irregularities:
            yield Note(odd.code, f"level {number}: {odd.text}")
        if not number:
            continue
        down, across = (a / b for a, b in zip(finest.size, one.size, strict=True))
        if not _agree(down, across, *one.size) or one.downsample != (down + across) / 2:
            yield Note(
                "levels",
                f"level {number} of {one.size[0]} x {one.size[1]} pixels does not cover the field "
                f"of the finest, {finest.size[0]} x {finest.size[1]}: positions are scaled by "
                f"{one.downsample:.4g}",
            )
        looks = zip(_look(one), _look(finest), strict=True)
        if other := [f"{own} instead of {first}" for own, first in looks if own != first]:
            yield Note("levels", f"level {number} is {', '.join(other)} as the finest is")


def _look(level: Level) -> tuple[str, str, str]:
    return level.photometric_interpretation, level.transfer_syntax.name, str(level.dtype)


def _whole(
    level: Level, color: Colour, reduced: int = 1, size: int | None = None
) -> npt.NDArray[Any]:
    """Return the first plane of a level, decoded on all cores.

    With a size as means of blocks of pixels where that leaves at least twice as many, so that
    memory is that of the result and of some chunks.
    """
    lazy = level.to_dask(color=color, reduced=reduced, chunks="auto" if size is None else _CHUNK)
    lazy = lazy[(0,) * (lazy.ndim - 2 - (level.stack.instances[0].samples > 1))]
    factor = 1 if size is None else _factor(lazy.chunks[:2], max(lazy.shape[:2]) // (2 * size))
    if factor > 1:
        chunks = tuple(tuple(-(-n // factor) for n in along) for along in lazy.chunks[:2])
        lazy = lazy.map_blocks(
            lambda block: averaged(block[np.newaxis], factor)[0],
            chunks=(*chunks, *lazy.chunks[2:]),
            dtype=lazy.dtype,
        )
    found: npt.NDArray[Any] = lazy.compute()
    return found


def _factor(chunks: Sequence[tuple[int, ...]], most: int) -> int:
    """Return the largest power of 2 up to `most` that divides all chunks but the last."""
    common = math.gcd(*(n for along in chunks for n in along[:-1]))
    factor = 1
    while 2 * factor <= most and common % (2 * factor) == 0:
        factor *= 2
    return factor


def _picture(values: npt.NDArray[Any]) -> Image.Image:
    """Return RGB or grey values as a picture of 8 bits."""
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) * (255 / ((high - low) or 1)) + 0.5).astype(np.uint8)
    return Image.fromarray(values)
