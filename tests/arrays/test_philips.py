"""Precise values of Philips MR: those of dcm2niix, from the private Scale Slope."""

import subprocess
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


def scaled(item: Dataset, scale: Any, first: bool = False, vr: str = "FL") -> None:
    """Add a Scale Slope, in the `first` block or another one: its creator says which."""
    if not first:
        item.private_block(0x2005, "SOMEBODY ELSE", create=True)
    item.private_block(0x2005, CREATOR, create=True).add_new(0x0E, vr, scale)


def volume(
    folder: Path, scale: Any = SCALE, first: bool = False, vr: str = "FL", **elements: Any
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
            scaled(dataset, scale, first, vr)
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


def multi_frame(folder: Path, scales: list[Any], shared: Any = None, vr: str = "FL") -> np.ndarray:
    """A file of a frame for each of `scales`, None for one without its own."""
    macro = {"PixelValueTransformationSequence": {"RescaleSlope": "2", "RescaleIntercept": "6"}}
    stored = noise(len(scales), 8, 8)
    positions = along(AXIAL, 2.0 * np.arange(len(scales)))
    path = enhanced(folder, stored, positions, macros=[macro] * len(scales))
    dataset = dcmread(path)
    groups = [*dataset.PerFrameFunctionalGroupsSequence, *dataset.SharedFunctionalGroupsSequence]
    for group, scale in zip(groups, [*scales, shared], strict=True):
        if scale is not None:
            inner = Dataset()
            scaled(inner, scale, vr=vr)
            block = group.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            block.add_new(0x0F, "SQ", Sequence([inner]))
    dataset.save_as(path)
    return stored


@pytest.mark.parametrize("vr", ["FL", "DS"])
def test_each_frame_of_an_enhanced_file_has_its_own(vr: str, tmp_path: Path) -> None:
    """Or the shared one, which is also that of a frame without a value; the first of several."""
    second: Any = [0.25, 7.0]
    stored = multi_frame(tmp_path, [0.5, second, None], 2.0, vr)
    v = scan(tmp_path)[0].to_xarray("philips-float")
    expected = (stored * 2.0 + 6) / (2 * np.array([0.5, 0.25, 2.0]))[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(v.values, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", ["abc", "", None])
def test_an_enhanced_file_without_a_number(scale: str | None, tmp_path: Path) -> None:
    multi_frame(tmp_path, ["0.5", scale], vr="LO")
    with pytest.raises(HeaderError) as caught:
        scan(tmp_path)[0].to_xarray("philips-float")
    assert caught.value.code == f"HeaderError/{'unreadable' if scale else 'scale-slope'}"
    assert caught.value.source == str(tmp_path / "enhanced") and caught.value.frame == 1
    assert "abc" not in caught.value.message and ("abc" in caught.value.detail) is (scale == "abc")


def test_a_file_that_cannot_be_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi_frame(tmp_path, [0.5])
    series = scan(tmp_path)[0]

    def read(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dcmdask.dicom.quantities.scale_slope.read_whole_header", read)
    with pytest.raises(PermissionError):
        series.to_xarray("philips-float")


def test_a_scale_slope_of_another_vr(tmp_path: Path) -> None:
    stored = volume(tmp_path, "0.012345678", vr="DS")
    v = scan(tmp_path)[0].to_xarray("philips-float")
    expected = (stored * SLOPE + INTERCEPT) / (SLOPE * 0.012345678)
    np.testing.assert_allclose(v.values, expected, rtol=1e-6)


def test_a_creator_that_reserved_two_blocks(tmp_path: Path) -> None:
    """PS3.5 7.8.1: nothing says that the first one has all elements."""
    stored = volume(tmp_path, vr="FL")
    for path in tmp_path.iterdir():
        dataset = dcmread(path)
        dataset.add_new(0x20050012, "LO", CREATOR)
        dataset.add_new(0x20051231, "FL", 1.0)
        dataset.save_as(path)
    v = scan(tmp_path)[0].to_xarray("philips-float")
    expected = (stored * SLOPE + INTERCEPT) / (SLOPE * float(np.float32(SCALE)))
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


def test_a_store_has_no_window_of_other_values(tmp_path: Path) -> None:
    volume(tmp_path / "in", WindowCenter="100", WindowWidth="200")
    for values in ("modality", "philips-float"):
        for format_ in ("zarr", "ome-zarr"):
            target = tmp_path / f"{values}.{format_}"
            dcmdask.to_zarr(tmp_path / "in", target, values=values, format=format_)
            text = (target / "zarr.json").read_text()
            assert ("WindowCenter" in text) is (values == "modality")
            assert ('"window"' in text) is (values == "modality" and format_ == "ome-zarr")


@pytest.mark.parametrize(
    ("scale", "code"),
    [
        (None, "scale-slope"),
        (0.0, "unreadable"),
        (np.inf, "unreadable"),
        (np.nan, "unreadable"),
    ],
)
def test_without_a_scale_slope_nothing_is_guessed(
    scale: float | None, code: str, tmp_path: Path
) -> None:
    volume(tmp_path, scale)
    with pytest.raises(HeaderError, match=r"Scale Slope \(2005,100E\)") as caught:
        scan(tmp_path)[0].to_xarray("philips-float")
    assert caught.value.code == f"HeaderError/{code}"
    assert [one.value for one in caught.value.advice] == ["modality"]


def test_a_rescale_slope_of_0_is_an_error(tmp_path: Path) -> None:
    volume(tmp_path, RescaleSlope="0")
    # Nor is there a warning of it, which would be an error of its own here.
    with pytest.raises(HeaderError, match="Rescale Slope' is 0") as no:
        scan(tmp_path)[0].to_xarray("philips-float")
    assert no.value.code == "HeaderError/rescale-slope" and no.value.source


def test_a_modality_lut_is_an_error(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], np.arange(256, dtype="<u2").tobytes()
    table.ModalityLUTType = "US"
    volume(tmp_path, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table])
    series = scan(tmp_path)[0]
    with pytest.raises(HeaderError, match="Modality LUT") as caught:
        series.to_xarray("philips-float")
    assert caught.value.code == "HeaderError/modality-lut"
    assert series.to_xarray("modality").shape == (4, 8, 10)
