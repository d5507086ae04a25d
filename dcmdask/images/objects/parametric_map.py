"""Parametric maps (PS3.3 A.75): frames of several quantities are told apart by their mappings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dcmdask.dicom.description import Described
from dcmdask.dicom.elements import RawValue
from dcmdask.geometry.axes import determines, distinct
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.planes import Integers
from dcmdask.images.meaning import Meaning

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout

_CHANNEL: Final = "channel"
# Dimensions of which frames of several quantities share a value.
_OF_SPACE: Final = ("stack", "z")


class ParametricMap(Meaning):
    """Planes of one quantity, or of several along ``channel``."""

    kind = "parametric map"
    separate_from = 2

    def meant(self, one: Described) -> Described:
        """Return a description with a dimension of the quantities, its own one if there is any."""
        channel, names = _channels(one), list(one.dimensions)
        indices = np.frombuffer(one.index_values, np.uint32).reshape(len(one), len(names))
        for place, values in enumerate(indices.T.astype(np.int64)):
            level = distinct(values)
            if names[place] not in _OF_SPACE and determines(level, channel):
                if level.any() and determines(channel, level):
                    names[place] = _CHANNEL
                return replace(one, dimensions=tuple(names))
        if not channel.any() or _CHANNEL in names:
            return one
        return replace(
            one,
            dimensions=(*names, _CHANNEL),
            index_values=np.column_stack([indices, channel]).astype(np.uint32).tobytes(),
        )

    def arranged(self, layout: Layout) -> Arrangement:
        """Return the place of each frame, with the labels of the mappings along ``channel``."""
        found = super().arranged(layout)
        if _CHANNEL not in found.dims:
            return found
        along = np.moveaxis(found.numbers, found.dims.index(_CHANNEL), 0)
        frames = along.reshape(len(along), -1).max(axis=1)
        own = layout.instances[0].own
        labels = [own.text(RawValue(None, label)) for label in layout.facts["mapping"][frames]]
        coordinate = ((_CHANNEL,), np.array(labels))
        return replace(found, coordinates={**found.coordinates, _CHANNEL: coordinate})


def _channels(one: Described) -> Integers:
    """Return the number of each frame's label, from 0 in the order that they come in."""
    _, firsts, which = np.unique(one.facts["mapping"], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[which.reshape(-1)]
