"""Arrays with coordinates as objects and files of other software: NIfTI, FSL, SimpleITK."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dcmdask.errors import GeometryError
from dcmdask.geometry.patient import first_and_step
from dcmdask.geometry.planes import Floats
from dcmdask.labelled.grid import grid_of
from dcmdask.labelled.whole_file import whole_file

if TYPE_CHECKING:
    import SimpleITK
    import xarray as xr

# From the patient's LPS axes to those of NIfTI: right, anterior, superior.
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Types of NIfTI that hold all values of another.
_NIFTI_TYPES = {"b": "u1", "e": "f4"}


def to_nifti(array: xr.DataArray, path: str | os.PathLike[str]) -> None:
    """Write a NIfTI file, and of diffusion also the files of FSL beside it."""
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("NIfTI needs nibabel: pip install 'dcmdask[nifti]'") from error

    name = os.fspath(path)
    stem = name.removesuffix(".gz").removesuffix(".nii")
    if name not in (f"{stem}.nii", f"{stem}.nii.gz"):
        raise ValueError(f"{name}: a NIfTI file is called .nii or .nii.gz")
    grid = grid_of(array)
    of_fsl = [f"{stem}.bval", f"{stem}.bvec"]
    weightings = None
    if "diffusion" in array.dims and "b_value" in array.coords:
        # Before anything is written: they may be unreadable.
        weightings = (bvals(array)[np.newaxis], bvecs(array))
    elif there := [one for one in of_fsl if os.path.lexists(one)]:
        raise FileExistsError(
            f"the array has no diffusion, and {' and '.join(there)} of another one would belong "
            "to it: remove them, or choose another name"
        )
    volume = _with_axes(array, ("x", "y", "z"))
    others = [dim for dim in volume.dims if dim not in ("x", "y", "z", "sample")]
    # Time is the fourth dimension of NIfTI.
    others.sort(key=lambda dim: dim != "t")
    lengths = [volume.sizes[dim] for dim in ("x", "y", "z", *others)]
    if len(lengths) > 7 or max(lengths) > 2**15 - 1:
        raise GeometryError(
            f"NIfTI has 7 axes of at most {2**15 - 1}, and the array has {len(lengths)}, of "
            f"{' x '.join(map(str, lengths))}",
            code="dimensions",
        )
    kind = volume.dtype
    if "sample" in volume.dims:
        if kind != np.uint8 or volume.sizes["sample"] != 3:
            raise TypeError(f"NIfTI has RGB of 8 bits, and none of {kind}")
    elif not (kind.kind in "biu" or kind.char in "efdFD"):
        raise TypeError(f"NIfTI has no place for the type {kind}")
    # Turned when it is computed: blocks that are turned are put together voxel by voxel.
    values = volume.compute().transpose("x", "y", "z", *others, ...).values
    if "sample" in volume.dims:
        values = np.ascontiguousarray(values).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    elif values.dtype.kind in _NIFTI_TYPES or values.dtype.char in _NIFTI_TYPES:
        values = values.astype(_NIFTI_TYPES.get(values.dtype.char, "u1"))
    image = nibabel.Nifti1Image(values, _TO_RAS @ grid.affine, dtype=values.dtype)
    image.header.set_xyzt_units("mm", "msec")
    image.set_sform(image.affine, code="scanner")
    if "t" in others and (found := _steps(array, "t")) is not None:
        image.header["pixdim"][4] = abs(found)  # NIfTI has no times that go back
    with whole_file(name) as written:
        nibabel.save(image, written)
    if weightings is not None:
        # A column for each volume: the first of the axes behind z is the fastest.
        which = np.indices([volume.sizes[dim] for dim in others])[others.index("diffusion")]
        for one, rows, digits in zip(of_fsl, weightings, ("%.6g", "%.8g"), strict=True):
            with whole_file(one) as written:
                np.savetxt(written, rows[:, which.ravel(order="F")], fmt=digits)


def to_sitk(array: xr.DataArray) -> SimpleITK.Image:
    """Return an image of SimpleITK."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError("SimpleITK is not installed: pip install 'dcmdask[itk]'") from error

    grid = grid_of(array)
    if grid.axes.tilted:
        raise GeometryError(
            "the gantry is tilted, and SimpleITK has no place for that: v.dcm.untilted() first",
            code="tilt",
        )
    volume = _with_axes(array, ("z", "y", "x"))
    others = [dim for dim in volume.dims if dim not in ("z", "y", "x", "sample")]
    if others:
        raise GeometryError(
            f"an image of SimpleITK has z, y and x, and the array also has "
            f"{', '.join(map(str, others))}: select one, such as v.isel({others[0]}=0)",
            code="dimensions",
        )
    volume = volume.transpose("z", "y", "x", ...)
    image = SimpleITK.GetImageFromArray(np.asarray(volume.values), isVector="sample" in volume.dims)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((grid.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    return image


def bvals(array: xr.DataArray) -> Floats:
    """Return the b-values, 0 where there is none."""
    return np.asarray(np.nan_to_num(_diffusion(array, "b_value")))


def bvecs(array: xr.DataArray) -> Floats:
    """Return the directions of the gradients, as FSL has them."""
    patient = np.stack([_diffusion(array, f"direction_{axis}") for axis in "xyz"])
    lengths = np.linalg.norm(patient, axis=0)
    patient = np.divide(patient, lengths, out=np.zeros_like(patient), where=lengths > 0)
    affine = (_TO_RAS @ grid_of(array).affine)[:3, :3]
    axes = affine / np.linalg.norm(affine, axis=0)
    found: Floats = np.linalg.solve(axes, _TO_RAS[:3, :3] @ patient)
    if np.linalg.det(axes) > 0:
        found[0] = -found[0]
    return found + 0.0


def _diffusion(array: xr.DataArray, name: str) -> Floats:
    if name not in array.coords:
        raise GeometryError(
            f"the array has no coordinate {name}, as diffusion has", code="no-coordinate"
        )
    values = np.atleast_1d(np.asarray(array.coords[name].values, np.float64))
    if np.isinf(values).any():
        raise GeometryError(
            f"{name} is infinity for {np.isinf(values).sum()} of {values.size} weightings, which "
            "stands for a value that cannot be read: set it, or select the others",
            code="unreadable",
        )
    return values


def as_stored(array: xr.DataArray) -> xr.DataArray:
    """Return an array with x and y in the order in which frames are stored: both ascend."""
    flips = {}
    for dim in ("y", "x"):
        if dim in array.coords and array.coords[dim].ndim == 1 and array.sizes[dim] > 1:
            first, last = array.coords[dim].values[[0, -1]]
            if last < first:
                flips[dim] = slice(None, None, -1)
    return array.isel(flips)


def _steps(array: xr.DataArray, dim: str) -> float | None:
    if dim not in array.coords or array.coords[dim].ndim != 1 or array.sizes[dim] < 2:
        return None
    found = first_and_step(np.asarray(array.coords[dim].values, np.float64))
    return None if found is None else found[1]


def _with_axes(array: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    missing = [dim for dim in dims if dim not in array.dims]
    return array.expand_dims(missing) if missing else array
