"""The accessor ``.dcm`` of :class:`xarray.DataArray`: the place of an image in the patient.

Everything is computed from the coordinates that the array has at the moment, so that it is
right after any selection, stride, flip or average.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from dcmdask.errors import GeometryError
from dcmdask.labelled import exchange, pictures, resampling
from dcmdask.labelled.grid import Grid, grid_of
from dcmdask.labelled.labelmap import labelmap
from dcmdask.labelled.overlay import over
from dcmdask.labelled.upright import upright

if TYPE_CHECKING:
    import SimpleITK

    from dcmdask.geometry.planes import Floats


@xr.register_dataarray_accessor("dcm")
class DicomAccessor:
    """The place of an image in the patient, and what follows from it.

    Parameters
    ----------
    array : xarray.DataArray
        With the coordinates that :meth:`dcmdask.Series.to_xarray` gives it, or some of them.

    Raises
    ------
    GeometryError
        By each attribute and method that needs coordinates which the array does not have.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pydicom.data import get_testdata_file
    >>> from dcmdask import scan
    >>> folder = Path(get_testdata_file("CT_small.dcm")).parent / "dicomdirtests/98892001/CT5N"
    >>> v = scan(folder)[0].to_xarray("modality")
    >>> v.dcm.spacing, v.dcm.orientation
    ((2.5, 0.488281, 0.488281), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    >>> v.dcm.affine[:3, 3].round(2).tolist()
    [-72.2, -143.0, -1.24]

    Every second frame, from the head to the feet:

    >>> half = v[::-2]
    >>> half.dcm.spacing, half.dcm.affine[:3, 3].round(2).tolist()
    ((5.0, 0.488281, 0.488281), [-72.2, -143.0, 8.76])
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def _grid(self) -> Grid:
        return grid_of(self._array)

    @property
    def affine(self) -> Floats:
        """(4, 4): takes (x, y, z) indices of pixel centres to the patient's LPS axes in mm.

        Where the array has one position only, z is the normal times Slice Thickness
        (0018,0050), or 1 mm.
        """
        return self._grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between pixel centres along z, y and x in mm; z along the normal."""
        grid = self._grid
        return abs(grid.z[1]), abs(grid.y[1]), abs(grid.x[1])

    @property
    def orientation(self) -> tuple[float, ...]:
        """Direction cosines along x, then along y, as Image Orientation (0020,0037) has them."""
        grid = self._grid
        directions = [np.array(grid.axes.row) * np.sign(grid.x[1])]
        directions.append(np.array(grid.axes.column) * np.sign(grid.y[1]))
        return tuple((np.concatenate(directions) + 0.0).tolist())

    # Other grids

    def like(
        self,
        other: xr.DataArray,
        *,
        method: Literal["linear", "nearest"] = "linear",
        fill_value: float | None = None,
        ignore_frame_of_reference: bool = False,
    ) -> xr.DataArray:
        """Return the image on the grid of another one, lazily.

        Parameters
        ----------
        other : xarray.DataArray
            Image with coordinates in the patient.
        method : {"linear", "nearest"}
            Interpolation; of labels take the nearest.
        fill_value : number, optional
            Value more than half a pixel outside this image: by default NaN, or 0 where the
            result has integers.
        ignore_frame_of_reference : bool
            Trust positions although the two have not the same Frame of Reference UID
            (0020,0052).

        Returns
        -------
        xarray.DataArray
            The axes of this array with the x, y and z of `other`. Linear interpolation gives
            floating point.

        Raises
        ------
        GeometryError
            One of them lacks coordinates, or they have not the same frame of reference.
        TypeError
            The array has not real numbers.
        ValueError
            `fill_value` does not fit the type of the result.
        """
        return resampling.like(self._array, other, method, fill_value, ignore_frame_of_reference)

    def isotropic(
        self,
        spacing: float | None = None,
        *,
        method: Literal["linear", "nearest"] = "linear",
        fill_value: float | None = None,
    ) -> xr.DataArray:
        """Return the image with one distance between pixels along x, y and z, lazily.

        Parameters
        ----------
        spacing : float, optional
            In mm; by default the smallest of the three.
        method : {"linear", "nearest"}
            Interpolation; of labels take the nearest.
        fill_value : number, optional
            Value outside the image: by default NaN, or 0 where the result has integers.

        Returns
        -------
        xarray.DataArray
            From the same first position on; the last one is up to a pixel before that of the
            image.

        Raises
        ------
        GeometryError
            There are no coordinates in the patient, or the gantry is tilted:
            :meth:`untilted` first.
        TypeError
            The array has not real numbers.
        ValueError
            `spacing` is not positive, or so small that the result has more than 2**40 voxels, or
            `fill_value` does not fit the type of the result.
        """
        return resampling.isotropic(self._array, spacing, method, fill_value)

    def untilted(
        self,
        *,
        method: Literal["linear", "nearest"] = "linear",
        fill_value: float | None = None,
    ) -> xr.DataArray:
        """Return an image of a tilted gantry on a grid of right angles, lazily.

        Parameters
        ----------
        method : {"linear", "nearest"}
            Interpolation; of labels take the nearest.
        fill_value : number, optional
            Value outside the image: by default NaN, or 0 where the result has integers.

        Returns
        -------
        xarray.DataArray
            With the spacing of the image, and as many more rows or columns as hold all of it.

        Raises
        ------
        GeometryError
            There are no coordinates in the patient.
        TypeError
            The array has not real numbers.
        ValueError
            `fill_value` does not fit the type of the result.
        """
        return resampling.untilted(self._array, method, fill_value)

    # Pictures

    def planes(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        at: Mapping[str, float] | None = None,
        window: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        """Write the axial, coronal and sagittal plane through a point to a PNG file.

        The axes of the image are turned and flipped to those of the patient that they are
        nearest to, so that the head and the front are on top; nothing is interpolated.

        Parameters
        ----------
        path : path or binary file
        at : mapping, optional
            Coordinates of the point in mm by ``"z"``, ``"y"`` and ``"x"``, of which the nearest
            planes are taken; by default the middle.
        window : (center, width), optional
            Range from black to white; by default the smallest to the largest value.

        Returns
        -------
        tuple of float
            The values that are shown black and white.
        """
        volume, spacing = upright(self._array)
        middle = [length // 2 for length in volume.shape]
        for axis, dim in enumerate(volume.dims[:3]):
            if at is not None and dim in at:
                middle[axis] = int(np.abs(volume.coords[dim].values - at[str(dim)]).argmin())
        place = middle[0], middle[1], middle[2]
        return pictures.planes(volume, path, at=place, window=window, spacing=spacing)

    def projection(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        along: Literal["z", "y", "x"] = "y",
        *,
        how: Literal["max", "mean", "min"] = "max",
        window: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        """Write a projection to a PNG file, with the head or the front on top.

        Parameters
        ----------
        path : path or binary file
        along : {"z", "y", "x"}
            The patient's axis that is projected: from the feet to the head, from the front to
            the back, or from the right to the left.
        how : {"max", "mean", "min"}
        window : (center, width), optional
            Range from black to white; by default the smallest to the largest value.

        Returns
        -------
        tuple of float
            The values that are shown black and white.
        """
        volume, spacing = upright(self._array)
        return pictures.projection(
            volume, path, along=along, how=how, window=window, spacing=spacing
        )

    def contact_sheet(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        columns: int | None = None,
        window: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        """Write all frames side by side to a PNG file, as a viewer shows them.

        Parameters
        ----------
        path : path or binary file
        columns : int, optional
            Frames in a row; by default so many that the sheet is about square.
        window : (center, width), optional
            Range from black to white; by default the smallest to the largest value.

        Returns
        -------
        tuple of float
            The values that are shown black and white.
        """
        shown = exchange.as_stored(self._array)
        leading = [dim for dim in shown.dims if dim not in ("y", "x", "sample")]
        if leading:
            # An index of all leading axes would be made for nothing.
            frames = shown.stack(picture=leading, create_index=False)
        else:
            frames = shown.expand_dims("picture")
        frames = frames.transpose("picture", "y", "x", ...)
        return pictures.contact_sheet(frames, path, columns=columns, window=window)

    def over(
        self,
        image: xr.DataArray,
        *,
        window: tuple[float, float] | None = None,
        opacity: float = 0.5,
        ignore_frame_of_reference: bool = False,
    ) -> xr.DataArray:
        """Return segments, a label map or a dose in colours over an image, lazily.

        Segments have the colours that the object recommends, others those of a palette; a dose
        goes from blue to red at its maximum, and is shown from a tenth of it on. The result has
        the grid of `image`: labels are taken from the nearest voxel, a dose is interpolated.

        Parameters
        ----------
        image : xarray.DataArray
            Grey values with coordinates in the patient.
        window : (center, width), optional
            Range of `image` from black to white; by default bytes are shown as they are, others
            from the smallest to the largest value.
        opacity : float
            Of the colours, above 0 and at most 1.
        ignore_frame_of_reference : bool
            Trust positions although the two have not the same Frame of Reference UID
            (0020,0052).

        Returns
        -------
        xarray.DataArray
            (z, y, x, sample) of RGB, uint8: what :meth:`planes` and
            :meth:`contact_sheet` take.

        Raises
        ------
        GeometryError
            One of them has other axes or lacks coordinates, or they have not the same frame of
            reference.
        ValueError
            `opacity` or `window` shows nothing.
        """
        return over(self._array, image, window, opacity, ignore_frame_of_reference)

    def plot(self, **options: Any) -> Any:
        """Draw a plane with matplotlib: grey, upright, and with the right aspect ratio.

        Parameters
        ----------
        **options
            Options of :meth:`xarray.DataArray.plot.imshow`.

        Returns
        -------
        matplotlib.image.AxesImage

        Raises
        ------
        GeometryError
            The array is no plane: select one, such as ``v.sel(z=40, method="nearest")``.
        """
        spatial = [dim for dim in self._array.dims if dim != "sample"]
        if len(spatial) != 2:
            raise GeometryError(
                f"a plot shows two dimensions, and the array has {', '.join(map(str, spatial))}: "
                "select a plane first, such as v.isel(z=0)"
            )
        vertical, horizontal = ("y", "x") if set(spatial) == {"x", "y"} else spatial
        # Rows go down in pictures of frames, and the head is on top where z is vertical.
        options = {"cmap": "gray", "yincrease": vertical == "z", **options}
        drawn = self._array.plot.imshow(x=horizontal, y=vertical, **options)
        drawn.axes.set_aspect("equal")
        return drawn

    # Segments

    def labelmap(self) -> xr.DataArray:
        """Return segments as one array of their numbers, lazily; 0 where there is none.

        The attributes ``labels`` and ``label_numbers`` say which segment has which number.

        Raises
        ------
        ValueError
            The array has no dimension ``segment``, or has fractions. Where segments overlap it is
            raised when the values are computed, with their numbers.
        """
        return labelmap(self._array)

    # Other software

    def to_nifti(self, path: str | os.PathLike[str]) -> None:
        """Write a NIfTI file (.nii or .nii.gz); of diffusion also .bval and .bvec beside it.

        These have a column for each volume of the file, also where there are more axes.
        Voxels keep their order: the affine says where they are. Needs nibabel:
        ``pip install 'dcmdask[nifti]'``.

        Parameters
        ----------
        path : path

        Raises
        ------
        GeometryError
            There are no coordinates in the patient, b-values or directions could not be read, or
            the array has more or longer axes than NIfTI.
        FileExistsError
            The array has no diffusion, and a .bval or .bvec file of this name is there.
        TypeError
            NIfTI has no place for the type.
        """
        exchange.to_nifti(self._array, path)

    def to_sitk(self) -> SimpleITK.Image:
        """Return a :class:`SimpleITK.Image`, with the values computed.

        Needs SimpleITK: ``pip install 'dcmdask[itk]'``.

        Raises
        ------
        GeometryError
            There are no coordinates in the patient, the array has other axes than z, y and x,
            or the gantry is tilted: :meth:`untilted` first.
        """
        return exchange.to_sitk(self._array)

    @property
    def bvals(self) -> Floats:
        """(n,): b-values in s/mm2, 0 without weighting, as FSL has them.

        One that could not be read, infinity in the coordinate `b_value`, is a `GeometryError`.
        """
        return exchange.bvals(self._array)

    @property
    def bvecs(self) -> Floats:
        """(3, n): unit vectors of the gradients on the voxel axes, as FSL has them.

        x is flipped where the axes of the NIfTI file are right-handed; zero without weighting
        or direction. The coordinates `direction_x` to `direction_z` keep the header's length.
        A direction that could not be read is a `GeometryError`.
        """
        return exchange.bvecs(self._array)
