"""Precise values of Philips MR: those of dcm2niix, from the private Scale Slope."""

import subprocess
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from made_series import AXIAL, along, classic, enhanced
from make_dicom import noise
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from real_files import DCM2NIIX

import dcmdask
from dcmdask import HeaderError, scan

CREATOR = "Philips MR Imaging DD 001"
SLOPE, INTERCEPT, SCALE = 1.25, -7.5, 0.0421


def scaled(item: Dataset, scale: float, first: bool = False) -> None:
    """Add a Scale Slope, in the `first` block or another one: its creator says which."""
    if not first:
        item.private_block(0x2005, "SOMEBODY ELSE", create=True)
    item.private_block(0x2005, CREATOR, create=True).add_new(0x0E, "FL", scale)


def volume(
    folder: Path, scale: float | None = SCALE, first: bool = False, **elements: Any
) -> np.ndarray:
    stored = noise(4, 8, 10)
    for path in classic(
        folder,
        stored,
        along(AXIAL, 2.5 * np.arange(4)),
        modality="MR",
        **{
            "Manufacturer": "Philips Medical Systems",
            "RescaleSlope": SLOPE,
            "RescaleIntercept": INTERCEPT,
            **elements,
        },
    ):
        if scale is not None:
            dataset = dcmread(path)
            scaled(dataset, scale, first)
            dataset.save_as(path)
    return stored


def test_classic_files(tmp_path: Path) -> None:
    stored = volume(tmp_path)
    series = scan(tmp_path)[0]
    v = series.to_xarray("philips-float")
    scale = float(np.float32(SCALE))
    expected = (stored * SLOPE + INTERCEPT) / (SLOPE * scale)
    assert v.dtype == np.float32 and v.attrs["values"] == "philips-float"
    assert "units" not in v.attrs
    np.testing.assert_allclose(v.values, expected, rtol=1e-6)
    np.testing.assert_allclose(series.to_xarray("modality"), stored * SLOPE + INTERCEPT)
    file = series.files[0]
    one = dcmdask.from_dicom(file, values="philips-float").compute()
    assert any(np.array_equal(one[0], plane) for plane in v.values)


def test_values_are_those_of_dcm2niix(tmp_path: Path) -> None:
    assert DCM2NIIX is not None
    volume(tmp_path / "in", first=True)  # as dcm2niix expects it
    command = [DCM2NIIX, "-z", "n", "-b", "n", "-f", "v", "-o", str(tmp_path), str(tmp_path / "in")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    image: Any = nib.load(tmp_path / "v.nii")
    v = scan(tmp_path / "in")[0].to_xarray("philips-float")
    # Rows are the other way round.
    theirs = image.get_fdata()[:, ::-1]
    np.testing.assert_allclose(v.transpose("x", "y", "z").values, theirs, rtol=1e-5, atol=1e-4)


def test_each_frame_of_an_enhanced_file_has_its_own(tmp_path: Path) -> None:
    scales, stored = [0.5, 0.25, 2.0], noise(3, 8, 8)
    macros = [
        {"PixelValueTransformationSequence": {"RescaleSlope": "2", "RescaleIntercept": "6"}}
    ] * 3
    path = enhanced(tmp_path, stored, along(AXIAL, [0, 2, 4]), macros=macros)
    dataset = dcmread(path)
    for group, scale in zip(dataset.PerFrameFunctionalGroupsSequence, scales, strict=True):
        inner = Dataset()
        scaled(inner, scale)
        block = group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", Sequence([inner]))
    dataset.save_as(path)
    v = scan(tmp_path)[0].to_xarray("philips-float")
    expected = (stored * 2.0 + 6) / (2 * np.array(scales))[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(v.values, expected, rtol=1e-6)


def test_integers_are_floating_point_too(tmp_path: Path) -> None:
    stored = volume(tmp_path, 1.0, RescaleSlope="1", RescaleIntercept="0")
    v = scan(tmp_path)[0].to_xarray("philips-float")
    assert v.dtype == np.float32
    np.testing.assert_array_equal(v.values, stored)


def test_stores(tmp_path: Path) -> None:
    volume(tmp_path / "in")
    dcmdask.to_zarr(tmp_path / "in", tmp_path / "v.zarr", values="philips-float")
    assert dcmdask.verify(tmp_path / "v.zarr", tmp_path / "in").ok
    expected = scan(tmp_path / "in")[0].to_xarray("philips-float").values
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "v.zarr").pixels.values, expected)


@pytest.mark.parametrize("scale", [None, 0.0, np.inf])
def test_without_a_scale_slope_nothing_is_guessed(scale: float | None, tmp_path: Path) -> None:
    volume(tmp_path, scale)
    with pytest.raises(HeaderError, match=r"no Scale Slope \(2005,100E\)") as caught:
        scan(tmp_path)[0].to_xarray("philips-float")
    assert caught.value.code == "HeaderError/scale-slope"


def test_a_rescale_slope_of_0_is_an_error(tmp_path: Path) -> None:
    volume(tmp_path, RescaleSlope="0")
    with warnings.catch_warnings(), pytest.raises(HeaderError, match="Rescale Slope' is 0"):
        warnings.simplefilter("ignore")
        scan(tmp_path)[0].to_xarray("philips-float")
