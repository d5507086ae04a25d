"""Mosaics of Siemens and UIH: each frame holds the tiles of a volume, side by side."""

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
from dcmdask.geometry.planes import Floats, is_out_of_reach, is_placed, normal_of, spans_plane
from dcmdask.images.meaning import Unplaced
from dcmdask.images.summary import counted

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

# Decimals of ms. Headers have more, in which the same times differ.
_MICROSECONDS: Final = 3
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
        # Values that cannot be read stay, and are named as in other images.
        if one.mosaic.positions:
            facts["position"] = one.mosaic.positions
        elif is_placed(one.facts).all() and not is_out_of_reach(one.facts["spacing"]).any():
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
        each = np.round(times, _MICROSECONDS)[layout.owner, layout.stored % tiles]
        along, found = reduced(np.where(numbers < 0, np.nan, each[numbers]), arrangement.dims)
        coordinates = {**arrangement.coordinates, "slice_time": (along, found)}
        return replace(arrangement, coordinates=coordinates)

    def summary(self, layout: Layout) -> str:
        """Return, say, ``mosaic: 100 volumes of 33 slices``."""
        tiles = layout.instances[0].tiles
        frames = layout.frame_numbers.size
        if tiles == 1:
            return f"mosaic: {counted(frames, 'frame')} as stored"
        return f"mosaic: {counted(frames // tiles, 'volume')} of {counted(tiles, 'slice')}"

    def notes(self, instances: Sequence[Described]) -> Iterator[Note]:
        """Say why tiles are left together, and what of their positions the header does not say."""
        one = instances[0]
        if one.tiles == 1:
            if isinstance(found := _grid(one), str):
                yield Note("mosaic", f"mosaics, left as they are stored: {found}")
            return
        if one.mosaic.positions:
            return
        if not one.mosaic.normal:
            text = "the private header does not say in which direction slices follow one another"
            yield Note("mosaic-normal", f"{text}: that of the orientation is taken")
        if not 0 < one.facts["between"][0] < np.inf:
            text = "there is no (0018,0088) 'Spacing Between Slices': the thickness is taken"
            yield Note("mosaic-spacing", text)
        across, down = ceil(sqrt(one.tiles)), _least_rows(one.tiles)
        is_full = one.mosaic.is_square and one.rows * across == one.columns * down
        if is_full and one.rows != one.columns:
            yield Note(
                "mosaic-grid",
                f"tiles are taken to be of {one.rows} x {one.columns} pixels, in a full grid; "
                f"without its empty rows they would be of {one.columns} x {one.columns}",
            )


def is_mosaic(one: Described) -> bool:
    """Return whether a frame holds the tiles of a volume, as MR of Siemens or UIH stores them."""
    return not {"MOSAIC", "VFRAME"}.isdisjoint(one.image_type)


def _grid(one: Described) -> tuple[int, int, int] | str:
    """Return the number of tiles, down and across, or why they are not known.

    Tiles fill a square grid; of Siemens rows without a tile are left out only where that does not
    fit, and of UIH always.
    """
    tiles = one.mosaic.tiles
    if not tiles:
        return "the private header that tells their number is not there"
    across = ceil(sqrt(tiles))
    positions = one.mosaic.positions
    if positions is None:
        return "the private header has positions of tiles that cannot be read"
    if positions and len(positions) != tiles * len(one):
        return f"the private header has positions of {len(positions)} tiles for {tiles * len(one)}"
    rows_of_tiles = (across,) * one.mosaic.is_square + (_least_rows(tiles),)
    down = next((n for n in rows_of_tiles if one.rows % n == one.columns % across == 0), 0)
    if not down:
        return f"{one.rows} x {one.columns} pixels are no grid of {tiles} tiles"
    is_known = bool(one.mosaic.normal) and spans_plane(one.facts["orientation"]).all()
    if is_known and np.abs(np.dot(one.mosaic.normal, _normal(one))) < _PARALLEL:
        return "the private header has another orientation than (0020,0037) 'Image Orientation'"
    return tiles, down, across


def _least_rows(tiles: int) -> int:
    """Return the number of rows of a grid without those that have no tile."""
    return ceil(tiles / ceil(sqrt(tiles)))


def _normal(one: Described) -> Floats:
    return normal_of(one.facts["orientation"][0])


def _positions(one: Described, tiles: int, rows: int, columns: int) -> Floats:
    """Return the positions of the tiles of each frame, (frames, tiles, 3).

    Of Siemens, the position in the header is that of a picture as large as the mosaic, with the
    same middle as the first tile; of UIH it is that of the first tile.
    """
    facts = one.facts
    along = facts["orientation"].reshape(-1, 2, 3)
    between_rows, between_columns = facts["spacing"].T
    across = along[:, 0] * (between_columns * (one.columns - columns) / 2)[:, np.newaxis]
    down = along[:, 1] * (between_rows * (one.rows - rows) / 2)[:, np.newaxis]
    normal = _normal(one)
    if one.mosaic.normal and np.dot(one.mosaic.normal, normal) < 0:
        normal = -normal
    between, thickness = facts["between"][0], facts["thickness"][0]
    step = normal * (between if 0 < between < np.inf else thickness)
    first = facts["position"] + (across + down if one.mosaic.is_square else 0.0)
    return np.asarray(first[:, np.newaxis] + np.arange(tiles)[:, np.newaxis] * step)
