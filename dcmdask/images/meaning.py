"""Meaning of an instance: the seam between what a SOP class stores and what it is as an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dcmdask.dicom.description import Described
from dcmdask.errors import Note
from dcmdask.geometry.dimensions import Arrangement, arrange
from dcmdask.images.summary import places

if TYPE_CHECKING:
    from dcmdask.images.layout import Layout


class Meaning:
    """Frames that lie where their positions say: those of all classes without a module here.

    Attributes
    ----------
    kind : str
        Kind of the image, in a word or two; empty for what positions tell.
    separate_from : int or None
        Number of frames from which on an instance is an array of its own; None for never.
    empty : float or None
        Value where there is no frame, of a class that leaves out frames without any other.
    whole : str
        Dimension whose frames are in one chunk unless the user says otherwise; empty for none.
    """

    kind = ""
    separate_from: int | None = None
    empty: float | None = None
    whole = ""

    def meant(self, one: Described) -> Described:
        """Return a description with the facts of the frames as the class means them."""
        return one

    def arranged(self, layout: Layout) -> Arrangement:
        """Return the place of each frame, with the dimensions and coordinates of the class."""
        how = layout.order_by, layout.tolerance
        return arrange(layout.facts, layout.stored, layout.indices, *how)

    def attributes(self, instances: Sequence[Described]) -> dict[str, Any]:
        """Return what is to be said of an array as a whole."""
        return {}

    def summary(self, layout: Layout) -> str:
        """Return a line that says what the array is, without personal data."""
        found = places(layout.lengths)
        return found if layout.kind == "frames" else f"{layout.kind} of {found}"

    def notes(self, instances: Sequence[Described]) -> Iterable[Note]:
        """Yield notes on what keeps instances from being all that their class means."""
        return ()


class Unplaced(Meaning):
    """Frames whose positions and indices do not say how they lie behind one another."""

    def meant(self, one: Described) -> Described:
        """Return a description without positions and dimensions."""
        facts = one.facts.copy()
        facts["position"] = np.nan
        return replace(one, table=facts.tobytes(), dimensions=(), index_values=b"")
