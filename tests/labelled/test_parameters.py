"""Attributes of an array for what all frames share: times, flip angle, thickness, field."""

import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from made_series import AXIAL, along, classic, enhanced
from make_dicom import noise
from real_files import DCM2NIIX

import dcmdask
from dcmdask import DcmdaskWarning, scan

MR = {
    "RepetitionTime": "2000",
    "EchoTime": "30.5",
    "InversionTime": "900",
    "FlipAngle": "77",
    "SliceThickness": "2.5",
    "MagneticFieldStrength": "3",
}
NAMED = {
    "repetition_time": 2000.0,
    "echo_time": 30.5,
    "inversion_time": 900.0,
    "flip_angle": 77.0,
    "slice_thickness": 2.5,
    "magnetic_field_strength": 3.0,
}


def parameters(attributes: Any) -> dict[str, Any]:
    return {name: attributes[name] for name in NAMED if name in attributes}


def volume(folder: Path, **elements: Any) -> None:
    positions = along(AXIAL, 2.5 * np.arange(4))
    classic(folder, noise(4, 8, 10), positions, modality="MR", **{**MR, **elements})


def test_attributes_are_those_of_all_frames(tmp_path: Path) -> None:
    volume(tmp_path / "one")
    v = scan(tmp_path / "one")[0].to_xarray()
    assert parameters(v.attrs) == NAMED
    assert {type(value) for value in parameters(v.attrs).values()} == {float}
    volume(tmp_path / "other", each={"FlipAngle": [77, 77, 8, 77]}, InversionTime=None)
    found = parameters(scan(tmp_path / "other")[0].to_xarray().attrs)
    others = {name: NAMED[name] for name in NAMED if name not in ("flip_angle", "inversion_time")}
    assert found == others


def test_attributes_of_functional_groups(tmp_path: Path) -> None:
    macros = [
        {
            "MRTimingAndRelatedParametersSequence": {"RepetitionTime": 35.5, "FlipAngle": angle},
            "MREchoSequence": {"EffectiveEchoTime": 4.25},
            "MRModifierSequence": {"InversionTimes": [30.5]},
        }
        for angle in (8, 8, 9)
    ]
    enhanced(tmp_path, noise(3, 8, 8), along(AXIAL, [0, 2, 4]), macros=macros)
    found = parameters(scan(tmp_path)[0].to_xarray().attrs)
    assert found == {
        "repetition_time": 35.5,
        "echo_time": 4.25,
        "inversion_time": 30.5,
        "slice_thickness": 2.0,
    }


@pytest.mark.parametrize("format_", ["zarr", "netcdf"])
def test_attributes_can_be_written(format_: str, tmp_path: Path) -> None:
    volume(tmp_path / "in")
    v = scan(tmp_path / "in")[0].to_xarray().rename("pixels")
    if format_ == "zarr":
        v.to_zarr(tmp_path / "v", consolidated=False)
        back = xr.open_zarr(tmp_path / "v", consolidated=False).pixels
    else:
        v.to_netcdf(tmp_path / "v", engine="h5netcdf")
        back = xr.open_dataset(tmp_path / "v", engine="h5netcdf").pixels
    assert parameters(back.attrs) == NAMED


def test_attributes_of_stores(tmp_path: Path) -> None:
    volume(tmp_path / "in")
    dcmdask.to_zarr(tmp_path / "in", tmp_path / "series.zarr")
    assert parameters(xr.open_zarr(tmp_path / "series.zarr").pixels.attrs) == NAMED
    assert dcmdask.verify(tmp_path / "series.zarr", tmp_path / "in").ok
    file = next((tmp_path / "in").iterdir())
    dcmdask.to_zarr(file, tmp_path / "file.zarr")
    assert parameters(xr.open_zarr(tmp_path / "file.zarr").pixels.attrs) == NAMED
    assert dcmdask.verify(tmp_path / "file.zarr", file).ok


def test_the_first_acquisition_is_an_identifier(tmp_path: Path) -> None:
    times = ["120003", "120001.5", "120002", "120004"]
    volume(tmp_path / "in", AcquisitionDate="20200229", each={"AcquisitionTime": times})
    for asked in (False, True):
        target = tmp_path / f"{asked}.zarr"
        dcmdask.to_zarr(tmp_path / "in", target, with_identifiers=asked)
        text = (target / "zarr.json").read_text()
        assert ('"2020-02-29T12:00:01.500000"' in text) is asked


@pytest.mark.parametrize(
    "elements",
    [
        {
            "AcquisitionDate": "20200229",
            "AcquisitionTime": "120001",
            "TimezoneOffsetFromUTC": "+0100",
        },
        {"AcquisitionDateTime": "20200229120001+0100"},
        {"AcquisitionDateTime": "20200229120001", "TimezoneOffsetFromUTC": "+0100"},
    ],
)
def test_the_first_acquisition_in_utc(elements: dict[str, str], tmp_path: Path) -> None:
    volume(tmp_path / "in", **elements)
    dcmdask.to_zarr(tmp_path / "in", tmp_path / "v.zarr", with_identifiers=True)
    assert '"2020-02-29T11:00:01+00:00"' in (tmp_path / "v.zarr" / "zarr.json").read_text()


@pytest.mark.parametrize("value", ["0", "-5"])
def test_times_and_lengths_that_cannot_be_are_no_attributes(value: str, tmp_path: Path) -> None:
    volume(tmp_path / "in", RepetitionTime=value, SliceThickness=value)
    v = scan(tmp_path / "in")[0].to_xarray()
    assert {"repetition_time", "slice_thickness"}.isdisjoint(v.attrs)
    assert "slice_thickness" not in v.z.attrs and v.attrs["flip_angle"] == 77
    volume(tmp_path / "other")
    v = scan(tmp_path / "other")[0].to_xarray()
    assert v.z.attrs["slice_thickness"] == v.attrs["slice_thickness"] == 2.5


def test_repetition_times_are_those_of_dcm2niix(corpus: Path, tmp_path: Path) -> None:
    assert DCM2NIIX is not None
    compared = 0
    for source in ("dcm_qa_nih/In/20180918GE", "dcm_qa_pdt2/In/Siemens/VE11", "dcm_qa_ge"):
        for series in scan(corpus / source):
            target = tmp_path / str(compared)
            target.mkdir()
            inside = target / "in"
            inside.mkdir()
            for number, path in enumerate(series.files):
                (inside / f"{number}.dcm").symlink_to(path)
            command = [DCM2NIIX, "-z", "n", "-b", "o", "-f", "%e", "-o", str(target), str(inside)]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            (stack,) = series.stacks
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DcmdaskWarning)
                found = stack.to_xarray().attrs
            written = list(target.glob("*.json"))
            for file in written:
                told = json.loads(file.read_text())
                assert found["repetition_time"] == pytest.approx(1000 * told["RepetitionTime"])
                assert found["flip_angle"] == pytest.approx(told["FlipAngle"])
                assert found["slice_thickness"] == pytest.approx(told["SliceThickness"])
                strength = told["MagneticFieldStrength"]
                assert found["magnetic_field_strength"] == pytest.approx(strength)
                if len(written) == 1:
                    assert found["echo_time"] == pytest.approx(1000 * told["EchoTime"])
                compared += 1
    assert compared >= 6
