"""Mosaics of Siemens: each frame holds the tiles of a volume, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from dcmdask.dicom.description import Described
from dcmdask.errors import Note
from dcmdask.geometry.coordinates import reduced
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.planes import Floats, normal_of
from dcmdask.images.meaning import Unplaced

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

# Direction cosines are rounded; the normal of another orientation is far from it.
_PARALLEL: Final = 0.999


class Mosaic(Unplaced):
    """Volumes of which each is one frame."""

    kind = "mosaic"

    def meant(self, one: Described) -> Described:
        """Return a description with a row of facts for each tile."""
        if isinstance(grid := _grid(one), str):
            return super().meant(one)
        tiles, down, across = grid
        rows, columns = one.rows // down, one.columns // across
        facts = np.repeat(one.facts, tiles)
        facts["position"] = _positions(one, tiles, rows, columns).reshape(-1, 3)
        return replace(one, rows=rows, columns=columns, tiles=tiles, table=facts.tobytes())

    def arranged(self, layout: Layout) -> Arrangement:
        """Return an arrangement with the start of each slice in ms, from that of its volume."""
        arrangement = super().arranged(layout)
        times = [one.mosaic.times for one in layout.instances]
        tiles = layout.instances[0].tiles
        if tiles == 1 or {len(each) for each in times} != {tiles}:
            return arrangement
        numbers = arrangement.numbers
        each = np.array(times)[layout.owner, layout.stored % tiles]
        along, found = reduced(np.where(numbers < 0, np.nan, each[numbers]), arrangement.dims)
        coordinates = {**arrangement.coordinates, "slice_time": (along, found)}
        return replace(arrangement, coordinates=coordinates)

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say why tiles are left together, and what of their positions the header does not say."""
        one = instances[0]
        if one.tiles == 1:
            if isinstance(found := _grid(one), str):
                yield Note("mosaic", f"Siemens mosaics, left as they are stored: {found}")
            return
        if np.isnan(one.mosaic.normal).any():
            text = "the private header does not say in which direction slices follow one another"
            yield Note("mosaic-normal", f"{text}: that of the orientation is taken")
        if not one.mosaic.spacing > 0:
            text = "(0018,0088) 'Spacing Between Slices' is missing: the thickness is taken"
            yield Note("mosaic-spacing", text)


def is_mosaic(one: Described) -> bool:
    """Return whether a frame holds the tiles of a volume, as Siemens MR stores them."""
    return "MOSAIC" in one.image_type


def _grid(one: Described) -> tuple[int, int, int] | str:
    """Return the number of tiles, down and across, or why they are not known.

    Tiles fill a square grid, of which rows without a tile may be left out.
    """
    tiles = one.mosaic.tiles
    if not tiles:
        return "the private header that tells their number is not there"
    across = ceil(sqrt(tiles))
    fitting = [
        (down, across)
        for down in (across, ceil(tiles / across))
        if one.rows % down == one.columns % across == 0
    ]
    if not fitting:
        return f"{one.rows} x {one.columns} pixels are no grid of {tiles} tiles"
    if np.abs(np.dot(one.mosaic.normal, _normal(one))) < _PARALLEL:
        return "the private header has another orientation than (0020,0037) 'Image Orientation'"
    square = (grid for grid in fitting if one.rows // grid[0] == one.columns // grid[1])
    return tiles, *next(square, fitting[0])


def _normal(one: Described) -> Floats:
    return normal_of(one.facts["orientation"][0])


def _positions(one: Described, tiles: int, rows: int, columns: int) -> Floats:
    """Return the positions of the tiles of each frame, (frames, tiles, 3).

    The position in the header is that of a picture as large as the mosaic, with the same middle
    as the first tile.
    """
    facts, mosaic = one.facts, one.mosaic
    along = facts["orientation"].reshape(-1, 2, 3)
    between_rows, between_columns = facts["spacing"].T
    across = along[:, 0] * (between_columns * (one.columns - columns) / 2)[:, np.newaxis]
    down = along[:, 1] * (between_rows * (one.rows - rows) / 2)[:, np.newaxis]
    normal = _normal(one)
    if np.dot(mosaic.normal, normal) < 0:
        normal = -normal
    step = normal * (mosaic.spacing if mosaic.spacing > 0 else facts["thickness"][0])
    first = facts["position"] + across + down
    return np.asarray(first[:, np.newaxis] + np.arange(tiles)[:, np.newaxis] * step)
