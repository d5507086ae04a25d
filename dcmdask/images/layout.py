"""Layout of a stack: facts of its frames, their dimensions, and what is odd about them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.concatenation import common_type, types_of
from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described, facts_of
from dcmdask.errors import Note
from dcmdask.geometry.axes import Indices
from dcmdask.geometry.dimensions import Arrangement
from dcmdask.geometry.grid import Geometry, Irregularity
from dcmdask.images.classes import meaning_of
from dcmdask.images.irregularities import conflicts, named, unreadable_weightings
from dcmdask.images.meaning import Meaning
from dcmdask.images.notes import notes_on
from dcmdask.images.regions import region_attributes, region_notes, regions_of
from dcmdask.images.summary import counted
from dcmdask.images.tiled import tile_notes
from dcmdask.labelled.labels import attributes


class Layout:
    """Frames of one shape and orientation, and how they lie; as headers give it.

    Parameters
    ----------
    series_uid, instances, frame_numbers, order_by, tolerance
        Those of a :class:`Stack <dcmdask.Stack>`.
    """

    def __init__(
        self,
        series_uid: str,
        instances: tuple[Described, ...],
        frame_numbers: npt.NDArray[np.int64],
        order_by: tuple[str, ...] = (),
        tolerance: float | None = None,
    ) -> None:
        self.series_uid = series_uid
        self.instances = instances
        self.frame_numbers = frame_numbers
        self.order_by = order_by
        self.tolerance = tolerance

    @property
    def name(self) -> str:
        """Display name."""
        return f"series {uid(self.series_uid) or 'without a valid UID'}"

    @cached_property
    def facts(self) -> npt.NDArray[Any]:
        """One row of `dcmdask.dicom.description.FACTS` for each of `frame_numbers`."""
        return facts_of(self.instances)[self.frame_numbers]

    @cached_property
    def arrangement(self) -> Arrangement:
        """Dimensions, frame order, coordinates and geometry, as the headers give them."""
        arrangement = self.meaning.arranged(self)
        found = (*arrangement.irregularities, *conflicts(self.instances, self.owner))
        return replace(arrangement, irregularities=found)

    @property
    def meaning(self) -> Meaning:
        """The class of its instances, as what it means."""
        return meaning_of(self.instances[0])

    def attributes(self, values: str) -> dict[str, Any]:
        """Return what the headers say of the array as a whole."""
        found = attributes(self.instances, self.facts, values, self.series_uid)
        found |= region_attributes(self.instances)
        return found | self.meaning.attributes(self.instances)

    @cached_property
    def stored(self) -> npt.NDArray[np.int64]:
        """Number of each frame in its own instance."""
        counts = np.array([len(one) for one in self.instances])
        starts = np.cumsum(counts) - counts
        numbers: npt.NDArray[np.int64] = self.frame_numbers - starts[self.owner]
        return numbers

    @property
    def indices(self) -> Indices | None:
        """The Dimension Index Values of the frames; those of several instances are unrelated."""
        names = self.instances[0].dimensions
        if len(self.instances) > 1 or not names:
            return None
        values = np.frombuffer(self.instances[0].index_values, np.uint32)
        return Indices(names, values.reshape(-1, len(names))[self.frame_numbers])

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """Number of the instance that each frame belongs to."""
        counts = [len(one) for one in self.instances]
        return np.repeat(np.arange(len(counts)), counts)[self.frame_numbers]

    @property
    def kind(self) -> str:
        """Kind of the stack, in one word."""
        if self.meaning.kind:
            return self.meaning.kind
        if "LOCALIZER" in self.instances[0].image_type:
            return "localizer"
        return "frames" if self.arrangement.dims == ("frame",) else "volume"

    @property
    def summary(self) -> str:
        """A line that says what it is, such as ``volume of 100 times x 33 planes``."""
        regions = len(regions_of(self.instances[0]))
        more = f", {counted(regions, 'region')}" if regions else ""
        return self.meaning.summary(self) + more

    @property
    def lengths(self) -> dict[str, int]:
        """Lengths of the dimensions in front of rows and columns, by their names."""
        return dict(zip(self.arrangement.dims, self.arrangement.numbers.shape, strict=True))

    @property
    def geometry(self) -> Geometry | None:
        """Geometry in the patient; None where the headers give no position."""
        return self.arrangement.geometry

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes: ``("t", "z", "y", "x")`` or what there is."""
        return (*self.arrangement.dims, "y", "x", *(["sample"] if self._colour else []))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, stored values."""
        one = self.instances[0]
        return (
            *self.arrangement.numbers.shape,
            one.rows,
            one.columns,
            *([one.samples] if self._colour else []),
        )

    @property
    def _colour(self) -> bool:
        return self.instances[0].samples > 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        return common_type(types_of(self.instances))

    @property
    def irregularities(self) -> tuple[Irregularity, ...]:
        """Irregularities, with millimetres and files; empty where all is regular."""
        return named(self.arrangement.irregularities, self)

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """Oddities of what belongs together, and of an order that is settled all the same."""
        return (
            *notes_on(self.instances, self.facts),
            *region_notes(self.instances),
            *tile_notes(self.instances),
            *unreadable_weightings(self),
            *self.arrangement.notes,
            *self.meaning.notes(self.instances),
        )

    def __repr__(self) -> str:
        lengths = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        found = self.irregularities
        irregular = f", irregular: {found[0]}" if found else ""
        return f"<Stack {self.kind} ({lengths}){irregular}>"
