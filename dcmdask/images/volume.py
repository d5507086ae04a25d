"""`Stack`: frames of one look and orientation, which are one array with dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.arranged import ArrangedFrames
from dcmdask.arrays.joined import JoinedFrames, look
from dcmdask.arrays.valued import Values, check_values, fill_for, valued
from dcmdask.dicom.conversion import uid
from dcmdask.dicom.description import Described, facts_of
from dcmdask.dicom.instance import outside
from dcmdask.errors import DcmdaskWarning, IrregularSeriesError
from dcmdask.geometry.axes import ORDER_BY, Indices
from dcmdask.geometry.dimensions import Arrangement, arrange
from dcmdask.geometry.grid import Geometry
from dcmdask.geometry.repair import OnIrregular, check_on_irregular, filled, parts
from dcmdask.images.irregularities import conflicts, worded

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from dcmdask.arrays.chunks import Chunks

# Segmentation and its label map, RT Dose, Nuclear Medicine: for now plain frames.
_PLAIN = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("66.4", "66.7", "481.2", "20")
)


class Stack:
    """Frames of one look and orientation: what can be one array.

    Nothing is read before something is computed.

    Parameters
    ----------
    series_uid : str
    instances : tuple of Described
        Whose frames are in it.
    frame_numbers : ndarray of int64
        Numbers of frames, counted through all frames of `instances`.
    order_by : tuple of str, optional
        As for :meth:`ordered_by`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask import scan
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
    >>> (stack,) = scan(folder)[0].stacks
    >>> stack
    <Stack volume (z: 5, y: 16, x: 16)>
    >>> stack.geometry.codes, stack.geometry.regular
    ('LPS', True)
    >>> stack.frames[2, :3, 0]
    array([ 975,  980, 1015], dtype=int16)
    """

    def __init__(
        self,
        series_uid: str,
        instances: tuple[Described, ...],
        frame_numbers: npt.NDArray[np.int64],
        order_by: tuple[str, ...] = (),
    ) -> None:
        self.series_uid = series_uid
        self.instances = instances
        self.frame_numbers = frame_numbers
        self.order_by = order_by

    @property
    def name(self) -> str:
        """Display name."""
        return f"series {uid(self.series_uid) or 'without a valid UID'}"

    @cached_property
    def facts(self) -> npt.NDArray[Any]:
        """One row of `dcmdask.dicom.description.FACTS` for each of `frame_numbers`."""
        facts = facts_of(self.instances)[self.frame_numbers]
        if is_mosaic(self.instances[0]) or self.instances[0].sop_class_uid in _PLAIN:
            # Their positions are not those of frames that lie behind one another.
            facts["position"] = np.nan
        return facts

    @cached_property
    def arrangement(self) -> Arrangement:
        """Dimensions, frame order, coordinates and geometry, as the headers give them."""
        arrangement = arrange(self.facts, self._stored, self._indices, self.order_by)
        found = (*arrangement.irregularities, *conflicts(self.instances, self._owner))
        return replace(arrangement, irregularities=found)

    @property
    def _stored(self) -> npt.NDArray[np.int64]:
        """The number of each frame in its own instance."""
        return np.concatenate([np.arange(len(one)) for one in self.instances])[self.frame_numbers]

    @property
    def _indices(self) -> Indices | None:
        """The Dimension Index Values of the frames; those of several instances are unrelated."""
        names = self.instances[0].dimensions
        if len(self.instances) > 1 or not names:
            return None
        values = np.frombuffer(self.instances[0].index_values, np.uint32)
        return Indices(names, values.reshape(-1, len(names))[self.frame_numbers])

    @property
    def _owner(self) -> npt.NDArray[np.int64]:
        """The instance that each frame belongs to."""
        counts = [len(one) for one in self.instances]
        return np.repeat(np.arange(len(counts)), counts)[self.frame_numbers]

    @property
    def kind(self) -> str:
        """Kind of the stack, in one word."""
        if is_mosaic(self.instances[0]):
            return "mosaic"
        if "LOCALIZER" in self.instances[0].image_type:
            return "localizer"
        return "frames" if self.arrangement.dims == ("frame",) else "volume"

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
        return look(self.instances[:1], {})[1]

    @property
    def irregularities(self) -> tuple[str, ...]:
        """Irregularities, in words, with millimetres and files; empty where all is regular."""
        return self.worded()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, although the order is settled."""
        notes = self.arrangement.notes
        if self.kind == "mosaic":
            notes = ("Siemens mosaics: each frame holds the tiles of a volume, as stored", *notes)
        return notes

    def worded(self, arrangement: Arrangement | None = None, but: str = "") -> tuple[str, ...]:
        """Return the irregularities of an arrangement, or its own, with the files' names."""
        found = (arrangement or self.arrangement).irregularities
        told = [one for one in found if one.kind != but]
        return worded(told, self.instances, self._owner, self._stored)

    def __repr__(self) -> str:
        lengths = ", ".join(f"{d}: {n}" for d, n in zip(self.dims, self.shape, strict=True))
        irregular = f", irregular: {self.irregularities[0]}" if self.irregularities else ""
        return f"<Stack {self.kind} ({lengths}){irregular}>"

    def split(self) -> tuple[Stack, ...]:
        """Return its regular parts: runs between gaps, one volume of each copy."""
        if not self.arrangement.irregularities:
            return (self,)
        rows = parts(self.facts, self.arrangement, self._stored)
        numbers = [self.frame_numbers[part] for part in rows]
        return tuple(compacted(self.series_uid, self.instances, numbers, self.order_by))

    def ordered_by(self, order_by: str | Sequence[str] | None) -> Stack:
        """Return the stack with another rule for frames that share a position.

        Parameters
        ----------
        order_by : str, sequence of str, or None
            Keywords of attributes, one dimension each, such as ``"TriggerTime"`` or
            ``["EchoTime", "AcquisitionTime"]``. Frames of one position are told apart by them
            alone: by values that all positions share; of the last one also by their order at
            each position, where all have equally many. None leaves it as it is.

        Raises
        ------
        ValueError
            A keyword is not among those that a scan reads.
        """
        if order_by is None:
            return self
        if not isinstance(order_by, str | Sequence):
            raise TypeError(f"order_by takes keywords, not {order_by!r}")
        keywords = (order_by,) if isinstance(order_by, str) else tuple(order_by)
        for keyword in keywords:
            if keyword not in ORDER_BY:
                raise ValueError(f"order_by takes {', '.join(sorted(ORDER_BY))}, not {keyword!r}")
        return Stack(self.series_uid, self.instances, self.frame_numbers, keywords)

    @property
    def frames(self) -> ArrangedFrames:
        """The stored values as an array-like (..., rows, columns[, samples]), in order.

        As for ``on_irregular="keep"``: a place of an incomplete grid holds the fill value.
        """
        return self._array(self.arrangement, "stored", None, {})

    def _arranged(self, on_irregular: OnIrregular = "error") -> Arrangement:
        """Return the arrangement once what is irregular is dealt with as asked.

        Raises
        ------
        IrregularSeriesError
            Something is, and `on_irregular` does not settle it.
        """
        check_on_irregular(on_irregular)
        for note in self.notes:
            warnings.warn(f"{self.name}: {note}", DcmdaskWarning, stacklevel=outside())
        arrangement = self.arrangement
        if on_irregular == "fill":
            arrangement = filled(arrangement, self.facts)
        kinds = {one.kind for one in arrangement.irregularities}
        # What is tilted can be filled, and stays tilted: its affine says so.
        left = kinds - {"tilt"} if on_irregular == "fill" else kinds
        if left and on_irregular != "keep":
            what = "\n".join(f"- {text}" for text in self.worded(arrangement))
            cannot = "cannot be filled" if on_irregular == "fill" else "is not regular"
            raise IrregularSeriesError(
                f"the stack of {len(self.frame_numbers)} frames {cannot}:\n{what}\n"
                "on_irregular='keep' takes the frames as they are, with their true positions, and "
                "'fill' puts empty frames into gaps; order_by='TriggerTime' or other keywords "
                "name what tells frames of one position apart; scan(...)[0].stacks[0].split() "
                "gives the regular parts",
                source=self.name,
            )
        return arrangement

    def to_dask(
        self,
        values: Values = "stored",
        *,
        on_irregular: OnIrregular = "error",
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        chunks: Chunks = "auto",
        **decoding_options: Any,
    ) -> da.Array:
        """Return the stack as a lazy Dask array.

        Parameters
        ----------
        values : {"stored", "modality", "display"}
            As the decoder gives them; in the units of the modality, such as Hounsfield
            units, by each frame's own slope and intercept; or 8-bit grey or RGB as a viewer
            shows them.
        on_irregular : {"error", "keep", "fill"}
            For positions that are missing, double or uneven: raise; keep the frames as they
            are, in spatial order (where a grid of several dimensions is not complete, its
            holes hold `fill_value`); or put `fill_value` where positions and frames are
            missing. `split` gives the regular parts.
        order_by : str or sequence of str, optional
            Attributes that tell frames of one position apart, as for :meth:`ordered_by`.
        fill_value : number, optional
            For missing frames. By default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120) in the same units, or 0.
        chunks : int, str, tuple or dict, optional
            As for :func:`dcmdask.from_dicom`, of frames along the flattened leading axes.
        **decoding_options
            `raw`, `decoding_plugin` and pydicom's decoding options, as for
            :func:`dcmdask.from_dicom`.

        Returns
        -------
        dask.array.Array
            (..., z, rows, columns) or (..., z, rows, columns, samples), the axes those of
            `dims`.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.
        """
        _, frames, _ = self.assembled(
            values, on_irregular, order_by=order_by, fill_value=fill_value, **decoding_options
        )
        # Whoever only looks at geometry need not wait for dask.array to be imported.
        from dcmdask.arrays.chunks import to_dask

        return to_dask(frames, chunks)

    def to_xarray(
        self,
        values: Values = "stored",
        *,
        on_irregular: OnIrregular = "error",
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        chunks: Chunks = "auto",
        **decoding_options: Any,
    ) -> xr.DataArray:
        """Return the stack as an :class:`xarray.DataArray` with labels, units and affine.

        Parameters are those of :meth:`to_dask`. Needs xarray: ``pip install
        'dcmdask[xarray]'``.

        Returns
        -------
        xarray.DataArray
            Lazy Dask inside. The coordinates ``x``, ``y`` and ``z`` are index times
            spacing in mm, not patient axes; ``attrs["affine"]`` (4 x 4) takes (column x, row
            y, slice z) indices of pixel centres to the patient's LPS axes in mm.
        """
        from dcmdask.arrays.chunks import to_dask
        from dcmdask.arrays.labels import labelled

        stack, frames, arrangement = self.assembled(
            values, on_irregular, order_by=order_by, fill_value=fill_value, **decoding_options
        )
        array = to_dask(frames, chunks)
        return labelled(array, arrangement, stack.instances, stack.facts, values, self.series_uid)

    def flattened(
        self,
        values: Values,
        on_irregular: OnIrregular,
        *,
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        **decoding_options: Any,
    ) -> ArrangedFrames:
        """Return the frames as an array-like (frames, rows, columns[, samples]), z fastest.

        Parameters are those of :meth:`to_dask`; kept, there are no frames but those that are.
        """
        stack = self.ordered_by(order_by)
        arrangement = stack._arranged(on_irregular)
        numbers = arrangement.numbers.reshape(-1)
        if on_irregular == "keep":
            numbers = numbers[numbers >= 0]
        return stack._array(
            replace(arrangement, numbers=numbers), values, fill_value, decoding_options
        )

    def assembled(
        self,
        values: Values,
        on_irregular: OnIrregular,
        *,
        order_by: str | Sequence[str] | None = None,
        fill_value: float | None = None,
        **decoding_options: Any,
    ) -> tuple[Stack, ArrangedFrames, Arrangement]:
        """Return the stack in the order asked for, its frames as an array-like, how they lie.

        Parameters are those of :meth:`to_dask`, and so are errors.
        """
        stack = self.ordered_by(order_by)
        arrangement = stack._arranged(on_irregular)
        return stack, stack._array(arrangement, values, fill_value, decoding_options), arrangement

    def _array(
        self,
        arrangement: Arrangement,
        values: Values,
        fill_value: float | None,
        decoding_options: Mapping[str, Any],
    ) -> ArrangedFrames:
        check_values(values, decoding_options)
        joined = JoinedFrames(self.instances, **decoding_options)
        frames = valued(joined, self.instances, values, decoding_options)
        numbers = np.where(arrangement.numbers >= 0, self.frame_numbers[arrangement.numbers], -1)
        if fill_value is None and (numbers < 0).any():
            fill_value = fill_for(frames, self.instances, values)
        return ArrangedFrames(frames, numbers, fill_value)


def is_mosaic(one: Described) -> bool:
    """Return whether a frame holds the tiles of a volume, as Siemens MR stores them."""
    return "MOSAIC" in one.image_type


def compacted(
    series_uid: str,
    instances: Sequence[Described],
    groups: Iterable[npt.NDArray[np.int64]],
    order_by: tuple[str, ...] = (),
) -> Iterator[Stack]:
    """Yield a stack for each group of frames, with only the instances that it has frames of.

    Parameters
    ----------
    groups : iterable of ndarray
        Frame numbers, counted through all frames of `instances`.
    """
    counts = np.array([len(one) for one in instances])
    starts = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(counts)), counts)
    for numbers in groups:
        used, which = np.unique(owner[numbers], return_inverse=True)
        shift = np.cumsum(counts[used]) - counts[used] - starts[used]
        kept = tuple(instances[i] for i in used.tolist())
        yield Stack(series_uid, kept, numbers + shift[which], order_by)
