"""xarray's side of dcmdask: the accessor ``.dcm``, and the engine ``"dcmdask"``.

>>> import xarray as xr
>>> from pathlib import Path
>>> from pydicom.data import get_testdata_file
>>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
>>> ds = xr.open_dataset(folder, engine="dcmdask", values="modality")
>>> ds.pixels.shape, ds.pixels.attrs["units"], ds.pixels.dcm.spacing[0]
((5, 16, 16), 'HU', 2.5)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from dcmdask.dicom.image_pixel import check_options, header_options
from dcmdask.labelled.accessor import DicomAccessor

if TYPE_CHECKING:
    from dcmdask.images.volume import Stack
    from dcmdask.pixels.array_like import ArrayLike

__all__ = ["DicomAccessor", "DicomBackend"]


class DicomBackend(BackendEntrypoint):
    """DICOM as the engine ``"dcmdask"`` of :func:`xarray.open_dataset` and `open_datatree`.

    Values are decoded when they are needed; ``chunks={}`` gives Dask arrays, in chunks that are
    planned by what decoding costs.
    """

    description = "DICOM files, series and archives"
    supports_groups = True
    # xarray does not find these by itself where there are decoding options.
    open_dataset_parameters = ("drop_variables",)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a name ends in ``.dcm``.

        Parameters
        ----------
        filename_or_obj
            Path or URL.
        """
        return isinstance(filename_or_obj, str) and filename_or_obj.lower().endswith(".dcm")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        values: str = "stored",
        on_irregular: Literal["error", "keep", "fill"] = "error",
        on_duplicate: Literal["error", "first"] = "error",
        order_by: str | Sequence[str] | None = None,
        tolerance: float | None = None,
        fill_value: float | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **decoding_options: Any,
    ) -> xr.Dataset:
        """Open the only stack of a file, folder or archive.

        Parameters
        ----------
        filename_or_obj
            Path, URL or pattern of a file, a folder or an archive.
        drop_variables : str or iterable of str, optional
            Names of coordinates to leave out.
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        on_irregular : {"error", "keep", "fill"}
            For positions that are missing, double or uneven: raise; keep the frames as they are;
            or put `fill_value` where positions and frames are missing.
        on_duplicate : {"error", "first"}
            For a scan that is there in single-frame and in multi-frame files: raise, or take the
            first of both.
        order_by : str or sequence of str, optional
            Keywords of attributes that tell frames of one position apart, one dimension each.
        tolerance : float, optional
            Largest distance of positions from an even grid, in mm. By default 3 % of its step, or
            less than the last digit that positions are written with.
        fill_value : number, optional
            Value of missing frames; by default NaN for floating point, otherwise Pixel Padding
            Value (0028,0120), or 0.
        storage_options : mapping, optional
            For the fsspec file system of a URL.
        **decoding_options
            `raw` and `decoding_plugin`, pydicom's decoding options, and overrides of group 0028 by
            pydicom's keywords, such as `bits_stored`, where headers lack an element or are wrong.

        Returns
        -------
        xarray.Dataset
            With the variable ``pixels``.

        Raises
        ------
        TypeError
            There is no such option.
        AmbiguousSourceError, IrregularSeriesError
            There are several stacks, or one that is not regular.
        """
        from dcmdask.archive.collection import only_stack
        from dcmdask.archive.scan import scan

        check_options(decoding_options, self.open_dataset)
        overrides = header_options(decoding_options)
        found = scan(filename_or_obj, storage_options=storage_options, **overrides)
        stack = only_stack(found, on_duplicate)
        how = {"order_by": order_by, "tolerance": tolerance, "fill_value": fill_value}
        return _dataset(stack, values, on_irregular, drop_variables, **how, **decoding_options)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        values: str = "stored",
        on_irregular: Literal["error", "keep", "fill"] = "keep",
        storage_options: Mapping[str, Any] | None = None,
        **decoding_options: Any,
    ) -> dict[str, xr.Dataset]:
        """Open all series below a folder.

        Parameters
        ----------
        filename_or_obj
            Path, URL or pattern of files, folders or archives.
        drop_variables : str or iterable of str, optional
            Names of coordinates to leave out.
        values : str
            ``"stored"``, as the decoder gives them; ``"modality"``, such as Hounsfield units, by
            each frame's own slope and intercept; ``"display"``, 8-bit grey or RGB as a viewer shows
            them; or ``"philips-float"``, ``"suv"``, ``"suv-lbm"``, ``"suv-bsa"``, ``"real-world"``
            or ``"real-world:LABEL"``, for which see :func:`dcmdask.from_dicom`.
        storage_options : mapping, optional
            For the fsspec file system of a URL.
        on_irregular : {"error", "keep", "fill"}
            By default stacks that are not regular are kept as they are.
        **decoding_options
            `raw` and `decoding_plugin`, pydicom's decoding options, and overrides of group 0028 by
            pydicom's keywords, such as `bits_stored`, where headers lack an element or are wrong.

        Returns
        -------
        dict
            A group for each series by its Series Instance UID, in a numbered group for each
            stack where a series has several.
        """
        from dcmdask.archive.scan import scan

        check_options(decoding_options, self.open_groups_as_dict)
        overrides = header_options(decoding_options)
        found = scan(filename_or_obj, storage_options=storage_options, **overrides)
        groups = {"/": xr.Dataset()}
        for number, series in enumerate(found):
            name = series.uid or f"series-{number}"
            for place, stack in enumerate(series.stacks):
                group = f"/{name}" if len(series.stacks) == 1 else f"/{name}/stack-{place}"
                groups[group] = _dataset(
                    stack, values, on_irregular, drop_variables, **decoding_options
                )
        return groups

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Open all series below a folder as a tree.

        Parameters
        ----------
        filename_or_obj
            Path, URL or pattern of files, folders or archives.
        **options
            Options of :meth:`open_groups_as_dict`.
        """
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


class _Frames(BackendArray):
    """Frames behind xarray's lazy indexing."""

    def __init__(self, frames: ArrayLike) -> None:
        self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self.frames.__getitem__
        )


def _dataset(
    stack: Stack,
    values: Any,
    on_irregular: Any,
    drop_variables: str | Iterable[str] | None,
    **how: Any,
) -> xr.Dataset:
    from dcmdask.arrays.chunks import plan_chunks
    from dcmdask.images.assembly import assemble, planned
    from dcmdask.labelled.labels import labelled

    stack, frames, arrangement = assemble(stack, values, on_irregular, **how)
    lazy = indexing.LazilyIndexedArray(_Frames(frames))
    array = labelled(lazy, arrangement, stack.instances, stack.facts, stack.attributes(values))
    array.encoding["preferred_chunks"] = dict(
        zip(array.dims, plan_chunks(frames, planned(stack, "auto")), strict=True)
    )
    dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
    return array.to_dataset(name="pixels").drop_vars(dropped, errors="ignore")
