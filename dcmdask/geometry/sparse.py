"""Arrangement of frames that have their place in a grid of which others may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.geometry.axes import determines
from dcmdask.geometry.coordinates import labels
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.grid import Irregularity, locate
from dcmdask.geometry.planes import Integers
from dcmdask.geometry.repair import filled


def arrange_sparse(
    facts: npt.NDArray[Any],
    places: Mapping[str, Integers],
    others: Mapping[str, Integers],
    tolerance: float | None = None,
) -> Arrangement:
    """Arrange frames by their numbers along dimensions, and their positions along z.

    Parameters
    ----------
    facts : ndarray
        (n,) of `dcmdask.dicom.description.FACTS`, all with a position.
    places : mapping of str to ndarray of int64
        (n,): place of each frame along the dimensions in front of z, from 0.
    others : mapping of str to ndarray of int64
        Likewise, of those that are no dimensions where they follow from the positions.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm.

    Returns
    -------
    Arrangement
        Of an even grid, whose places without a frame are empty, and no irregularity. Frames of
        one place are.
    """
    geometry, z, notes = locate(facts, tolerance)
    varying = {name: level for name, level in others.items() if not determines(z, level)}
    places = {**places, **varying}
    dims = (*places, "z")
    levels = (*places.values(), z)
    numbers = np.full([int(level.max()) + 1 for level in levels], -1, np.int64)
    numbers[levels] = np.arange(len(z))
    double = np.flatnonzero(numbers[levels] != np.arange(len(z)))
    found = list(geometry.irregularities)
    if len(double):
        text = f"{len(double)} frames have the {', '.join(places)} and position of others"
        found.append(Irregularity("duplicate", text, tuple(double.tolist())))
    coordinates = labels(facts, dims, numbers, geometry, ())
    arranged = Arrangement(dims, numbers, coordinates, geometry, tuple(found), notes)
    arranged = filled(arranged, facts)
    known = {name: one for name, one in arranged.coordinates.items() if name != "missing"}
    return replace(arranged, coordinates=known)
