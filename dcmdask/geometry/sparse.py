"""Arrangement of frames that have their place in a grid of which others may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcmdask.geometry.axes import determines
from dcmdask.geometry.coordinates import labels
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.grid import Irregularity, locate
from dcmdask.geometry.planes import Integers, is_placed
from dcmdask.geometry.repair import filled


class Places(NamedTuple):
    """Place of each frame along a dimension, from 0, and the number of places."""

    level: Integers
    length: int


def arrange_sparse(
    facts: npt.NDArray[Any],
    places: Mapping[str, Places],
    others: Mapping[str, Integers],
    tolerance: float | None = None,
) -> Arrangement | None:
    """Arrange frames by their places along dimensions, and by their positions along z.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`.
    places : mapping of str to Places
        Dimensions in front of z.
    others : mapping of str to ndarray of int64
        (n,): places along others, which are no dimensions where they follow from the positions.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm.

    Returns
    -------
    Arrangement or None
        Of an even grid, whose places without a frame are empty, and no irregularity. Frames of
        one place are. Without positions there is no z, and None where that tells frames not apart.
    """
    if not is_placed(facts).all():
        if not places:
            return None
        numbers, double = _numbers(list(places.values()), len(facts))
        return None if len(double) else Arrangement((*places,), numbers, {}, None)
    step = float(np.abs(facts["between"]).min())
    geometry, z, notes = locate(facts, tolerance, step)
    varying = {
        name: Places(level, int(level.max()) + 1)
        for name, level in others.items()
        if not determines(z, level)
    }
    every = {**places, **varying, "z": Places(z, len(geometry.positions))}
    numbers, double = _numbers(list(every.values()), len(facts))
    found = list(geometry.irregularities)
    if len(double):
        text = f"{len(double)} frames have the {', '.join(every)} of others"
        found.append(Irregularity("duplicate", text, tuple(double.tolist())))
    coordinates = labels(facts, (*every,), numbers, geometry, ())
    arranged = Arrangement((*every,), numbers, coordinates, geometry, tuple(found), notes)
    arranged = filled(arranged, facts, step)
    known = {name: one for name, one in arranged.coordinates.items() if name != "missing"}
    return replace(arranged, coordinates=known)


def _numbers(places: list[Places], frames: int) -> tuple[Integers, Integers]:
    """Return the frame at each place, and frames that others are in the place of."""
    numbers = np.full([one.length for one in places], -1, np.int64)
    levels = tuple(one.level for one in places)
    numbers[levels] = np.arange(frames)
    return numbers, np.flatnonzero(numbers[levels] != np.arange(frames))
