"""`Series`: the instances of one Series Instance UID, and the stacks that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dcmdask.archive.copies import (
    OnDuplicate,
    check_on_duplicate,
    copies_among,
    have_equal_pixels,
    irregularities,
)
from dcmdask.archive.discovery import common_folder, folder_of
from dcmdask.archive.stacks import differences, stacks_of
from dcmdask.dicom.conversion import MODALITIES, UNITS, term, uid
from dcmdask.dicom.description import Described
from dcmdask.dicom.header import read_whole_header
from dcmdask.dicom.instance import issue
from dcmdask.errors import Advice, AmbiguousSourceError, Note
from dcmdask.geometry.grid import Irregularity
from dcmdask.images.objects.slide import is_slide
from dcmdask.images.summary import HEADS, cells
from dcmdask.images.volume import Stack
from dcmdask.pixels.notebook import html_table

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from dcmdask.images.slides.level import Level


# Number of stacks that a message lists, and that a notebook shows.
_LISTED, _SHOWN = 10, 50
_ONE_STACK = Advice("", "", "take one of them, such as scan(...)[0].stacks[0].to_dask()")
_SLIDE = Advice("", "", "dcmdask.open_slide(...) gives the levels of a slide")
_ONE_COPY = Advice("on_duplicate", "first", "takes the first of copies")

# Keyword to the attribute of a Described, and what lets only values through that are no name.
_METADATA: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "SeriesInstanceUID": ("series_uid", uid),
    "StudyInstanceUID": ("study_uid", uid),
    "FrameOfReferenceUID": ("frame_of_reference_uid", uid),
    "SOPClassUID": ("sop_class_uid", uid),
    "TransferSyntaxUID": ("transfer_syntax", uid),
    "Modality": ("modality", partial(term, terms=MODALITIES)),
    "PhotometricInterpretation": ("photometric_interpretation", str),
    "BitsAllocated": ("bits_allocated", int),
    "BitsStored": ("bits_stored", int),
    "Units": ("units", partial(term, terms=UNITS)),
}


class Series:
    """The instances of one Series Instance UID.

    Parameters
    ----------
    uid : str
    instances : sequence of Described
        In any order.
    conflicts : sequence of Irregularity, optional
        Instances that contradict each other.
    left_out : sequence of str, optional
        Files that may be part of it, each with the reason why it is left out: damaged, empty
        or unreadable files beside its own, or anywhere if no other series was found.
    """

    def __init__(
        self,
        uid: str,
        instances: Iterable[Described],
        conflicts: Iterable[Irregularity] = (),
        left_out: Iterable[str] = (),
    ) -> None:
        self.uid = uid
        self.instances = tuple(sorted(instances, key=lambda one: one.source.name))
        self.conflicts = tuple(conflicts)
        self.left_out = tuple(left_out)

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks, each of which can be one array; the largest first."""
        return stacks_of(self.uid, self.instances)

    @cached_property
    def copies(self) -> dict[int, int]:
        """Numbers of stacks that have the frames of another one, by their headers, and of that."""
        return copies_among(self.stacks)

    @property
    def irregularities(self) -> tuple[Irregularity, ...]:
        """Irregularities of its stacks, copies, and instances that contradict each other."""
        found = (one for stack in self.stacks for one in stack.irregularities)
        return (*self.conflicts, *irregularities(self.copies), *without_conflicts(found))

    @property
    def notes(self) -> tuple[Note, ...]:
        """Why its stacks are apart, and oddities that do not keep them from being arrays."""
        found = [note for stack in self.stacks for note in stack.notes]
        if len(self.stacks) > 1:
            found.insert(0, Note("stacks", self._why_apart))
        return tuple(dict.fromkeys(found))

    @property
    def _why_apart(self) -> str:
        return f"{len(self.stacks)} stacks, which differ in {differences(self.stacks)}"

    @property
    def files(self) -> tuple[str, ...]:
        """Paths or URLs of its instances, sorted."""
        return tuple(dict.fromkeys(one.source.name for one in self.instances))

    @property
    def folder(self) -> str:
        """Folder that holds all its files."""
        return common_folder(map(folder_of, self.files))

    @property
    def description(self) -> str:
        """Series Description (0008,103E) of the first instance that has one; free text."""
        return next(filter(None, (one.series_description for one in self.instances)), "")

    @cached_property
    def header(self) -> Dataset:
        """Header of the first instance, without pixel data; it may name a person."""
        first = self.instances[0]
        return read_whole_header(first.source, UID(first.transfer_syntax))

    @property
    def metadata(self) -> dict[str, Any]:
        """Technical facts that all its instances share, by DICOM keyword; nothing personal."""
        found = {}
        for keyword, (attribute, allowed) in _METADATA.items():
            values = {getattr(one, attribute) for one in self.instances}
            if len(values) == 1 and (value := allowed(values.pop())) is not None:
                found[keyword] = value
        return found

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.instances)

    @property
    def name(self) -> str:
        """Display name."""
        return f"series {uid(self.uid) or 'without a valid UID'}"

    def __repr__(self) -> str:
        stacks = "; ".join(map(repr, self.stacks[:_LISTED]))
        more = len(self.stacks) - _LISTED
        stacks += f" and {more} more" if more > 0 else ""
        return f"<{self.name.capitalize()}, {len(self)} instances: {stacks}>"

    def _repr_html_(self) -> str:
        rows = [(str(place), *cells(stack)) for place, stack in enumerate(self.stacks[:_SHOWN])]
        more = len(self.stacks) - len(rows)
        caption = f"{self.name.capitalize()} {self.description}: {len(self)} files in {self.folder}"
        caption += f"; {more} more stacks are not shown" if more else ""
        return html_table(caption, ("", *HEADS), rows)

    def only_stack(self, on_duplicate: OnDuplicate = "error") -> Stack:
        """Return the stack where there is one.

        Parameters
        ----------
        on_duplicate : {"error", "first"}
            For a scan that is there in single-frame and in multi-frame files: raise; or take the
            first of both, by name. Frames at the first, the middle and the last place have to be
            equal.

        Raises
        ------
        AmbiguousSourceError
            There are several; the message lists them.
        """
        check_on_duplicate(on_duplicate)
        stacks = self.stacks
        if on_duplicate == "first" and self.copies:
            stacks = self._without_copies()
        if len(stacks) != 1:
            count = len(self.stacks)
            # The largest one, where a list would be long.
            shown = self.stacks if count <= _LISTED else self.stacks[:1]
            listed = [f"- stack {i}: {stack}" for i, stack in enumerate(shown)]
            listed += [f"- and {count - 1} more"] if count > _LISTED else []
            listed += [f"- {one}" for one in irregularities(self.copies)]
            raise AmbiguousSourceError(
                "\n".join([f"{self._why_apart}, where one array is meant:", *listed]),
                source=self.name,
                code="stacks",
                advice=[
                    *([_SLIDE] if is_slide(stacks[0]) else []),
                    _ONE_STACK,
                    *([_ONE_COPY] if self.copies and on_duplicate == "error" else []),
                ],
            )
        return stacks[0]

    def _without_copies(self) -> tuple[Stack, ...]:
        left_out = [
            stack
            for number, original in self.copies.items()
            for stack in [self.stacks[number]]
            if have_equal_pixels(stack, self.stacks[original])
        ]
        if left_out:
            frames = sum(len(stack.frame_numbers) for stack in left_out)
            text = (
                f"{frames} frames are copies, in single-frame and in multi-frame files, and left "
                f"out: {left_out[0].instances[0].source.name}"
            )
            issue(Note("copies", text), self.name)
        return tuple(stack for stack in self.stacks if stack not in left_out)

    def warn_left_out(self) -> None:
        """Warn of files that may belong to it and were left out."""
        if self.left_out:
            shown = "; ".join(self.left_out[:_LISTED])
            number = len(self.left_out)
            text = f"files that may belong to this series were left out ({number}): {shown}"
            issue(Note("left-out", text), self.name)

    def to_dask(
        self,
        values: str = "stored",
        *,
        on_irregular: Literal["error", "keep", "fill"] = "error",
        on_duplicate: Literal["error", "first"] = "error",
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> da.Array:
        """Return the only stack as a lazy Dask array (..., z, rows, columns[, samples]).

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
        on_duplicate : {"error", "first"}
            For a scan that is there in single-frame and in multi-frame files: raise, or take the
            first of both, by name.
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
            :attr:`Stack.dims`.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.
        AmbiguousSourceError
            There are several stacks; the message lists them.
        """
        stack = self.only_stack(on_duplicate)
        self.warn_left_out()
        return stack.to_dask(
            values,
            on_irregular=on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            chunks=chunks,
            **decoding_options,
        )

    def to_xarray(
        self,
        values: str = "stored",
        *,
        like: xr.DataArray | Series | Stack | Level | None = None,
        ignore_frame_of_reference: bool = False,
        on_irregular: Literal["error", "keep", "fill"] = "error",
        on_duplicate: Literal["error", "first"] = "error",
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        chunks: int | str | Sequence[Any] | Mapping[int, Any] | None = "auto",
        **decoding_options: Any,
    ) -> xr.DataArray:
        """Return the only stack as an :class:`xarray.DataArray` with labels and units.

        Parameters
        ----------
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        like : xarray.DataArray, Series, Stack or Level, optional
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
        on_duplicate : {"error", "first"}
            For a scan that is there in single-frame and in multi-frame files: raise, or take the
            first of both, by name.
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
            Backed by a lazy Dask array, with the axes of :attr:`Stack.dims`. The coordinates
            ``x``, ``y`` and ``z`` are mm along rows, columns and the normal, from the origin of
            the patient's axes; :class:`.dcm <dcmdask.labelled.accessor.DicomAccessor>` has the
            affine and what follows from it.

        Raises
        ------
        IrregularSeriesError
            The stack is not regular, and `on_irregular` does not settle it.
        ImportError
            xarray is not installed.
        AmbiguousSourceError
            There are several stacks; the message lists them.
        GeometryError
            The stack and `like` have not one frame of reference, or their grids do not coincide.

        Examples
        --------
        >>> from pathlib import Path
        >>> from pydicom.data import get_testdata_file
        >>> from dcmdask import scan
        >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
        >>> v = scan(folder)[0].to_xarray(values="modality")
        >>> v.dims, v.shape, v.attrs["units"]
        (('z', 'y', 'x'), (5, 16, 16), 'HU')
        >>> v.z.values
        array([-1.2375,  1.2625,  3.7625,  6.2625,  8.7625])
        >>> v[2:].dcm.affine[:3, 3]
        array([ -72.199997, -143.      ,    3.7625  ])
        """
        stack = self.only_stack(on_duplicate)
        self.warn_left_out()
        return stack.to_xarray(
            values,
            like=like.to_xarray() if isinstance(like, Series) else like,
            ignore_frame_of_reference=ignore_frame_of_reference,
            on_irregular=on_irregular,
            order_by=order_by,
            tolerance=tolerance,
            fill_value=fill_value,
            chunks=chunks,
            **decoding_options,
        )


def without_conflicts(found: Iterable[Irregularity]) -> list[Irregularity]:
    """Return irregularities of a stack, but for conflicts, which its series names as well."""
    return [one for one in found if one.code != "conflict"]
