"""`Stack`: frames of one look and orientation, which are one array with dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.arranged import ArrangedFrames
from dcmdask.arrays.dimensions import Arrangement, arrange
from dcmdask.arrays.geometry import Geometry, Irregularity
from dcmdask.arrays.joined import JoinedFrames
from dcmdask.arrays.mending import filled, parts
from dcmdask.arrays.valued import Values, check_values, fill_for, valued
from dcmdask.errors import AmbiguousSourceError, DcmdaskWarning, IrregularSeriesError
from dcmdask.frames.facts import Described, facts_of
from dcmdask.frames.instance import outside

if TYPE_CHECKING:
    import dask.array as da

    from dcmdask.arrays.chunks import Chunks

OnIrregular: TypeAlias = Literal["error", "keep", "fill", "split"]
ON_IRREGULAR = ("error", "keep", "fill", "split")
# How many files a message names.
_NAMED = 3


class Stack:
    """Frames of one look and orientation: what can be one array.

    Made by :class:`Series`. Nothing is read before something is computed.

    Attributes
    ----------
    series_uid : str
    instances : tuple of Described
        Whose frames are in it.
    rows : ndarray of int64
        Which frames, counted through all frames of `instances`.
    kind : str
        ``"volume"``; ``"localizer"`` and ``"mosaic"`` as Image Type (0008,0008) says;
        ``"frames"`` where there are no positions.
    """

    series_uid: str
    instances: tuple[Described, ...]
    rows: npt.NDArray[np.int64]

    def __init__(
        self, series_uid: str, instances: tuple[Described, ...], rows: npt.NDArray[np.int64]
    ) -> None:
        self.series_uid = series_uid
        self.instances = instances
        self.rows = rows

    @cached_property
    def facts(self) -> npt.NDArray[Any]:
        """One row of `dcmdask.frames.facts.FACTS` for each frame, in the order of `rows`."""
        facts = facts_of(self.instances)[self.rows]
        if is_mosaic(self.instances[0]):
            # The position is that of the mosaic, and its tiles are the positions.
            facts["position"] = np.nan
        return facts

    @cached_property
    def arrangement(self) -> Arrangement:
        """Dimensions, frame order, coordinates and geometry, as the headers give them."""
        return arrange(self.facts, self._stored)

    @property
    def _stored(self) -> npt.NDArray[np.int64]:
        """The number of each frame in its own instance."""
        return np.concatenate([np.arange(len(one)) for one in self.instances])[self.rows]

    @property
    def kind(self) -> str:
        """What the stack is, in one word."""
        if is_mosaic(self.instances[0]):
            return "mosaic"
        if "LOCALIZER" in self.instances[0].image_type:
            return "localizer"
        return "frames" if self.arrangement.dims == ("frame",) else "volume"

    @property
    def geometry(self) -> Geometry | None:
        """Where the frames are in the patient; None where the headers give no position."""
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
    def irregularities(self) -> tuple[str, ...]:
        """What is not regular, in words, with millimetres and files; empty where all is."""
        return tuple(self._worded(one) for one in self.arrangement.irregularities)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know although the order is settled."""
        notes = self.arrangement.notes
        if self.kind == "mosaic":
            notes = ("Siemens mosaics: each frame holds the tiles of a volume, as stored", *notes)
        return notes

    def _worded(self, irregularity: Irregularity) -> str:
        names = self._names(irregularity.frames)
        return f"{irregularity.message} ({names})" if names else irregularity.message

    def _names(self, frames: Sequence[int]) -> str:
        """Return the files of a few of these rows of the facts."""
        starts = np.cumsum([0, *(len(one) for one in self.instances)])
        named = []
        for row in frames[:_NAMED]:
            instance = int(np.searchsorted(starts, self.rows[row], "right")) - 1
            one = self.instances[instance]
            frame = int(self.rows[row] - starts[instance])
            named.append(one.source.name + (f", frame {frame}" if len(one) > 1 else ""))
        more = len(frames) - len(named)
        return "; ".join(named) + (f" and {more} more" if more > 0 else "")

    def __repr__(self) -> str:
        lengths = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        irregular = f", irregular: {self.irregularities[0]}" if self.irregularities else ""
        return f"<Stack {self.kind} ({lengths}){irregular}>"

    def split(self) -> tuple[Stack, ...]:
        """Return its regular parts: runs between gaps, one volume of each copy."""
        if not self.arrangement.irregularities:
            return (self,)
        return tuple(
            Stack(self.series_uid, self.instances, self.rows[part]).compact()
            for part in parts(self.facts, self.arrangement, self._stored)
        )

    def compact(self) -> Stack:
        """Return the same stack without the instances that have no frame in it."""
        counts = np.array([len(one) for one in self.instances])
        starts = np.cumsum([0, *counts])
        owner = np.searchsorted(starts, self.rows, "right") - 1
        used = np.unique(owner)
        shift = np.cumsum([0, *counts[used]])[:-1] - starts[used]
        rows = self.rows + shift[np.searchsorted(used, owner)]
        return Stack(self.series_uid, tuple(self.instances[i] for i in used), rows)

    @property
    def frames(self) -> ArrangedFrames:
        """The stored values as an array-like (..., rows, columns[, samples]), in order."""
        return self._array(self.arrangement, "stored", None, {})

    def arranged(self, on_irregular: OnIrregular = "error") -> Arrangement:
        """Return the arrangement once what is irregular is dealt with as asked.

        Raises
        ------
        IrregularSeriesError
            Something is, and `on_irregular` does not settle it.
        """
        check_on_irregular(on_irregular)
        for note in self.notes:
            warnings.warn(f"series {self.series_uid}: {note}", DcmdaskWarning, stacklevel=outside())
        arrangement = self.arrangement
        if on_irregular == "fill":
            arrangement = filled(arrangement, self.facts)
        if arrangement.irregularities and on_irregular != "keep":
            what = "\n".join(f"- {self._worded(one)}" for one in arrangement.irregularities)
            cannot = "cannot be filled" if on_irregular == "fill" else "is not regular"
            raise IrregularSeriesError(
                f"the stack of {len(self.rows)} frames {cannot}:\n{what}\n"
                "on_irregular='keep' takes the frames as they are, with their true positions, "
                "'fill' puts empty frames into gaps, 'split' gives the regular parts",
                source=f"series {self.series_uid}",
            )
        return arrangement

    def to_dask(
        self,
        values: Values = "stored",
        on_irregular: OnIrregular = "error",
        chunks: Chunks = "auto",
        *,
        fill_value: float | None = None,
        **opening: Any,
    ) -> Any:
        """Return the stack as a lazy Dask array.

        Parameters
        ----------
        values : {"stored", "modality", "display"}
            As the decoder gives them; in the units of the modality, such as Hounsfield
            units, by each frame's own slope and intercept; or 8-bit grey or RGB as a viewer
            shows them.
        on_irregular : {"error", "keep", "fill", "split"}
            What to do where positions are missing, double or uneven: raise; keep the
            frames, in spatial order; put `fill_value` where frames are missing; or return a
            list with an array for each regular part.
        chunks : int, str, tuple or dict, optional
            As for :func:`dcmdask.from_dicom`, of frames along the flattened leading axes.
        fill_value : number, optional
            For missing frames. By default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120) in the same units, or 0.
        **opening
            `raw`, `decoding_plugin` and pydicom's decoding options, as for
            :func:`dcmdask.from_dicom`.

        Returns
        -------
        dask.array.Array or list of dask.array.Array
            (..., z, rows, columns) or (..., z, rows, columns, samples), the axes those of
            `dims`; a list, also of one, for ``on_irregular="split"`` only.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.
        """
        if on_irregular == "split":
            return [
                part.to_dask(values, "error", chunks, fill_value=fill_value, **opening)
                for part in self.split()
            ]
        return self._to_dask(self.arranged(on_irregular), values, chunks, fill_value, opening)

    def to_xarray(
        self,
        values: Values = "stored",
        on_irregular: OnIrregular = "error",
        chunks: Chunks = "auto",
        *,
        fill_value: float | None = None,
        **opening: Any,
    ) -> Any:
        """Return the stack as an :class:`xarray.DataArray` with labels, units and affine.

        Parameters are those of :meth:`to_dask`. Needs xarray: ``pip install
        'dcmdask[xarray]'``.

        Returns
        -------
        xarray.DataArray or list of xarray.DataArray
            Lazy Dask inside. The coordinates ``x``, ``y`` and ``z`` are index times
            spacing in mm, not patient axes; ``attrs["affine"]`` (4 x 4) takes (column x, row
            y, slice z) indices of pixel centres to the patient's LPS axes in mm.
        """
        from dcmdask.arrays.labelled import labelled

        if on_irregular == "split":
            return [
                part.to_xarray(values, "error", chunks, fill_value=fill_value, **opening)
                for part in self.split()
            ]
        arrangement = self.arranged(on_irregular)
        array = self._to_dask(arrangement, values, chunks, fill_value, opening)
        return labelled(array, arrangement, self.instances, self.facts, values, self.series_uid)

    def flattened(
        self, values: Values, on_irregular: OnIrregular, **opening: Any
    ) -> ArrangedFrames:
        """Return the frames as an array-like (frames, rows, columns[, samples]), z fastest.

        Raises
        ------
        AmbiguousSourceError
            There are several regular parts, and ``on_irregular="split"``.
        """
        if on_irregular == "split":
            parts = self.split()
            if len(parts) != 1:
                listed = "\n".join(f"- {part}" for part in parts)
                raise AmbiguousSourceError(
                    f"{len(parts)} regular parts where one array is meant:\n{listed}\n"
                    "to_dask(on_irregular='split') of the series gives a list",
                    source=f"series {self.series_uid}",
                )
            return parts[0].flattened(values, "error", **opening)
        arrangement = self.arranged(on_irregular)
        return self._array(arrangement, values, None, opening, flat=True)

    def _to_dask(
        self,
        arrangement: Arrangement,
        values: Values,
        chunks: Chunks,
        fill_value: float | None,
        opening: Mapping[str, Any],
    ) -> da.Array:
        # Whoever only looks at geometry need not wait for dask.array to be imported.
        from dcmdask.arrays.chunks import to_dask

        return to_dask(self._array(arrangement, values, fill_value, opening), chunks)

    def _array(
        self,
        arrangement: Arrangement,
        values: Values,
        fill_value: float | None,
        opening: Mapping[str, Any],
        flat: bool = False,
    ) -> ArrangedFrames:
        check_values(values, bool(opening.get("raw")))
        joined = JoinedFrames(self.instances, **opening)
        frames = valued(joined, self.instances, values, opening)
        numbers = np.where(arrangement.numbers >= 0, self.rows[arrangement.numbers], -1)
        numbers = numbers.reshape(-1) if flat else numbers
        if fill_value is None:
            fill_value = fill_for(frames, self.instances, values)
        return ArrangedFrames(frames, numbers, fill_value)


def check_on_irregular(on_irregular: str) -> None:
    """Refuse a choice that does not exist."""
    if on_irregular not in ON_IRREGULAR:
        raise ValueError(f"on_irregular is one of {', '.join(ON_IRREGULAR)}, not {on_irregular!r}")


def is_mosaic(one: Described) -> bool:
    """Return whether a frame holds the tiles of a volume, as Siemens MR stores them."""
    return "MOSAIC" in one.image_type
