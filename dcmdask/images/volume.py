"""`Stack`: frames of one look and orientation, which are one array with dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dcmdask.arrays.placement import ArrangedFrames
from dcmdask.arrays.transformation import fill_for
from dcmdask.dicom.description import Described
from dcmdask.dicom.image_pixel import check_options
from dcmdask.geometry.axes import check_order_by
from dcmdask.geometry.repair import parts
from dcmdask.images.assembly import array_of, assemble, planned, settled
from dcmdask.images.layout import Layout
from dcmdask.images.summary import HEADS, cells
from dcmdask.pixels.notebook import html_table

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from dcmdask.images.slides.level import Level


class Stack(Layout):
    """Frames of one look and orientation: what can be one array.

    Nothing is read before something is computed.

    Parameters
    ----------
    series_uid : str
    instances : tuple of Described
        Instances that the frames belong to.
    frame_numbers : ndarray of int64
        Numbers of frames, counted through all frames of `instances`.
    order_by : tuple of str, optional
        Keywords of attributes that tell frames of one position apart.
    tolerance : float, optional
        Largest distance of positions from an even grid, in mm.

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

    def _repr_html_(self) -> str:
        return html_table(f"Stack of {self.name}", HEADS, [cells(self)])

    def split(self) -> tuple[Stack, ...]:
        """Return its regular parts: runs between gaps, one volume of each copy."""
        if not self.arrangement.irregularities:
            return (self,)
        rows = parts(self.facts, self.arrangement, self.stored, self.tolerance)
        numbers = [self.frame_numbers[part] for part in rows]
        how = self.order_by, self.tolerance
        return tuple(compacted(self.series_uid, self.instances, numbers, *how))

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
            A keyword is not among those that a scan reads, or two are of one attribute.
        """
        if order_by is None:
            return self
        if not isinstance(order_by, str | Sequence):
            raise TypeError(f"order_by takes keywords, not {order_by!r}")
        keywords = (order_by,) if isinstance(order_by, str) else tuple(order_by)
        check_order_by(keywords)
        return Stack(self.series_uid, self.instances, self.frame_numbers, keywords, self.tolerance)

    def within(self, tolerance: float | None) -> Stack:
        """Return the stack with another tolerance for positions that are nearly even.

        Parameters
        ----------
        tolerance : float or None
            Largest distance of positions from an even grid, in mm. None leaves it as it is.
        """
        if tolerance is None:
            return self
        if not 0 <= tolerance < np.inf:
            raise ValueError(f"tolerance is a number of millimetres, not {tolerance!r}")
        how = self.order_by, float(tolerance)
        return Stack(self.series_uid, self.instances, self.frame_numbers, *how)

    @property
    def frames(self) -> ArrangedFrames:
        """The stored values as an array-like (..., rows, columns[, samples]), in order.

        As for ``on_irregular="keep"``: a place of an incomplete grid holds the fill value.
        """
        return array_of(self, self.arrangement, "stored", None, {})

    def to_dask(
        self,
        values: str = "stored",
        *,
        on_irregular: Literal["error", "keep", "fill"] = "error",
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> da.Array:
        """Return the stack as a lazy Dask array.

        Parameters
        ----------
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        on_irregular : {"error", "keep", "fill"}
            For positions that are missing, double or uneven: raise; keep the frames as they are,
            in spatial order (where a grid of several dimensions is not complete, its holes hold
            `fill_value`); or put `fill_value` where positions and frames are missing.
            :meth:`Stack.split` gives the regular parts.
        order_by : str or sequence of str, optional
            Keywords of attributes that tell frames of one position apart, one dimension each, such
            as ``"TriggerTime"``. By default the Dimension Index Sequence (PS3.3 C.7.6.17), or
            attributes that all positions share.
        tolerance : float, optional
            Largest distance of positions from an even grid, in mm. By default 3 % of its step, or
            less than the last digit that positions are written with.
        fill_value : number, optional
            Value of missing frames. By default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120) in the same units, or 0.
        chunks : int, str, tuple or dict, optional
            Frames per chunk, along the flattened leading axes. ``"auto"`` plans by the cost of
            decoding, a size such as ``"64 MiB"`` and -1 for all frames work as in Dask; a tuple
            for all axes and a dict by axis have to leave rows, columns and samples whole.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB; for stored
            values only.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        dask.array.Array
            (..., z, rows, columns) or (..., z, rows, columns, samples), the axes those of
            `dims`.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
        >>> scan(folder)[0].stacks[0].to_dask(on_irregular="keep").shape
        (5, 16, 16)
        """
        check_options(decoding_options, self.to_dask)
        _, frames, _ = assemble(
            self,
            values,
            on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            **decoding_options,
        )
        # Geometry alone need not wait for dask.array to be imported.
        from dcmdask.arrays.chunks import to_dask

        return to_dask(frames, planned(self, chunks))

    def to_xarray(
        self,
        values: str = "stored",
        *,
        like: xr.DataArray | Stack | Level | None = None,
        ignore_frame_of_reference: bool = False,
        on_irregular: Literal["error", "keep", "fill"] = "error",
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> xr.DataArray:
        """Return the stack as an :class:`xarray.DataArray` with labels and units.

        Parameters
        ----------
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        like : xarray.DataArray, Stack or Level, optional
            Image of which the result has the x, y and z, such as that which a segmentation was
            drawn on. Planes are put in their places, and others are empty; nothing is
            interpolated: ``v.dcm.like(other)`` does that.
        ignore_frame_of_reference : bool
            Trust positions although the two have not the same Frame of Reference UID (0020,0052).
        on_irregular : {"error", "keep", "fill"}
            For positions that are missing, double or uneven: raise; keep the frames as they are,
            in spatial order (where a grid of several dimensions is not complete, its holes hold
            `fill_value`); or put `fill_value` where positions and frames are missing.
            :meth:`Stack.split` gives the regular parts.
        order_by : str or sequence of str, optional
            Keywords of attributes that tell frames of one position apart, one dimension each, such
            as ``"TriggerTime"``. By default the Dimension Index Sequence (PS3.3 C.7.6.17), or
            attributes that all positions share.
        tolerance : float, optional
            Largest distance of positions from an even grid, in mm. By default 3 % of its step, or
            less than the last digit that positions are written with.
        fill_value : number, optional
            Value of missing frames. By default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120) in the same units, or 0.
        chunks : int, str, tuple or dict, optional
            Frames per chunk, along the flattened leading axes. ``"auto"`` plans by the cost of
            decoding, a size such as ``"64 MiB"`` and -1 for all frames work as in Dask; a tuple
            for all axes and a dict by axis have to leave rows, columns and samples whole.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB; for stored
            values only.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        xarray.DataArray
            Backed by a lazy Dask array, with the axes of `dims`. The coordinates
            ``x``, ``y`` and ``z`` are mm along rows, columns and the normal, from the origin of
            the patient's axes; :class:`.dcm <dcmdask.labelled.accessor.DicomAccessor>` has the
            affine and what follows from it.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.
        GeometryError
            The stack and `like` have not one frame of reference, or their grids do not coincide.
        ImportError
            xarray is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
        >>> v = scan(folder)[0].stacks[0].to_xarray("modality", on_irregular="keep")
        >>> v.dims, v.attrs["units"]
        (('z', 'y', 'x'), 'HU')
        """
        from dcmdask.arrays.chunks import to_dask
        from dcmdask.labelled.labels import labelled

        check_options(decoding_options, self.to_xarray)
        stack, frames, arrangement = assemble(
            self,
            values,
            on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            **decoding_options,
        )
        what = arrangement, stack.instances, stack.facts, stack.attributes(values)
        chunks = planned(stack, chunks)
        if like is None:
            return labelled(to_dask(frames, chunks), *what)
        from dcmdask.images.placing import on_grid_of

        if frames.fill_value is None:
            fill_value = fill_for(frames, stack.instances, values)
            frames = ArrangedFrames(frames.frames, frames.numbers, fill_value)
        template = labelled(np.broadcast_to(frames.dtype.type(0), frames.shape), *what)
        # A level is made of a stack, and not known here.
        other: Any = like.to_xarray() if hasattr(like, "to_xarray") else like
        return on_grid_of(other, template, frames, chunks, trusted=ignore_frame_of_reference)

    def flattened(
        self,
        values: str,
        on_irregular: Literal["error", "keep", "fill"],
        *,
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        **decoding_options: Any,
    ) -> ArrangedFrames:
        """Return the frames as an array-like (frames, rows, columns[, samples]), z fastest.

        Parameters
        ----------
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        on_irregular : {"error", "keep", "fill"}
            For positions that are missing, double or uneven: raise; keep the frames that
            there are, in spatial order; or put `fill_value` where positions and frames are missing.
            :meth:`Stack.split` gives the regular parts.
        order_by : str or sequence of str, optional
            Keywords of attributes that tell frames of one position apart, one dimension each, such
            as ``"TriggerTime"``. By default the Dimension Index Sequence (PS3.3 C.7.6.17), or
            attributes that all positions share.
        tolerance : float, optional
            Largest distance of positions from an even grid, in mm. By default 3 % of its step, or
            less than the last digit that positions are written with.
        fill_value : number, optional
            Value of missing frames. By default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120) in the same units, or 0.
        raw : bool, optional
            Leave YBR_FULL and YBR_FULL_422 as they are instead of converting to RGB; for stored
            values only.
        decoding_plugin : str, optional
            The only decoder to use: ``"imagecodecs"``, or one of pydicom's for the transfer syntax.
        **decoding_options
            pydicom's decoding options, and overrides of group 0028 by pydicom's keywords, such as
            `photometric_interpretation`.

        Returns
        -------
        ArrangedFrames
            Nothing is decoded until it is indexed.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.

        Examples
        --------
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> (stack,) = scan(get_testdata_file("CT_small.dcm"))[0].stacks
        >>> stack.flattened("modality", "error")[0].shape
        (128, 128)
        """
        check_options(decoding_options, self.flattened)
        stack = self.ordered_by(order_by).within(tolerance)
        arrangement = settled(stack, on_irregular)
        numbers = arrangement.numbers.reshape(-1)
        if on_irregular == "keep":
            numbers = numbers[numbers >= 0]
        arrangement = replace(arrangement, numbers=numbers)
        return array_of(stack, arrangement, values, fill_value, decoding_options)


def compacted(
    series_uid: str,
    instances: Sequence[Described],
    groups: Iterable[npt.NDArray[np.int64]],
    order_by: tuple[str, ...] = (),
    tolerance: float | None = None,
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
        yield Stack(series_uid, kept, numbers + shift[which], order_by, tolerance)
