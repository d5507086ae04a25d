"""Multi-frame classes open with the dimensions that they say, in the right place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import commands
import highdicom as hd
import numpy as np
import pytest
import xarray as xr
from made_enhanced import in_patient, item, multi_frame, turned, ultrasound
from made_series import AXIAL, OBLIQUE, SERIES, along, classic, normal
from make_dicom import noise
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    EnhancedXAImageStorage,
    EnhancedXRFImageStorage,
    OphthalmicTomographyImageStorage,
    XRay3DAngiographicImageStorage,
    XRay3DCraniofacialImageStorage,
)

import dcmdask
from dcmdask import DcmdaskWarning, GeometryError, Stack, scan


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


# Classes with positions in the patient


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (BreastTomosynthesisImageStorage, "MG"),
        (OphthalmicTomographyImageStorage, "OPT"),
        (XRay3DAngiographicImageStorage, "XA"),
        (XRay3DCraniofacialImageStorage, "CT"),
    ],
)
def test_planes_in_the_patient(
    tmp_path: Path, sop_class: UID, modality: str, orientation: tuple[float, ...]
) -> None:
    """Frames are stored from the last position to the first."""
    frames = noise(5, 6, 8, dtype="u2", bits=12)
    positions = along(orientation, [10, 7.5, 5, 2.5, 0])
    path = multi_frame(
        tmp_path,
        frames,
        ["z"],
        [[number] for number in range(1, 6)],
        sop_class,
        [in_patient(position) for position in positions],
        turned(orientation),
        Modality=modality,
    )
    stack = stack_of(path)
    assert not stack.notes and not stack.irregularities
    assert stack.summary == "volume of 5 planes"
    v = stack.to_xarray()
    assert v.dims == ("z", "y", "x")
    np.testing.assert_array_equal(v, frames[::-1])
    np.testing.assert_allclose(v.dcm.affine[:3, 3], positions[-1], atol=1e-6)
    np.testing.assert_allclose(v.dcm.affine[:3, 2], 2.5 * normal(orientation), atol=1e-6)


@pytest.mark.parametrize(
    "sop_class", [XRay3DAngiographicImageStorage, OphthalmicTomographyImageStorage]
)
def test_times_of_planes_in_the_patient(tmp_path: Path, sop_class: UID) -> None:
    frames = noise(6, 6, 8, dtype="u2", bits=12)
    places = [(t, z) for z in (1, 2, 3) for t in (1, 2)]
    positions = along(AXIAL, [2.5 * z for _, z in places])
    path = multi_frame(
        tmp_path,
        frames,
        ["t", "z"],
        places,
        sop_class,
        [in_patient(position) for position in positions],
        turned(AXIAL),
    )
    v = stack_of(path).to_xarray()
    assert v.dims == ("t", "z", "y", "x")
    np.testing.assert_array_equal(v, frames.reshape(3, 2, 6, 8).swapaxes(0, 1))


# Enhanced ultrasound


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_an_ultrasound_volume_has_its_own_axes(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    frames = noise(5, 6, 8)
    indices = [[number] for number in range(1, 6)]
    path = ultrasound(tmp_path, frames, ["position"], indices, [3, 2.25, 1.5, 0.75, 0], orientation)
    stack = stack_of(path)
    assert not stack.notes and not stack.irregularities
    assert stack.summary == "ultrasound volume of 5 planes"
    v = stack.to_xarray()
    np.testing.assert_array_equal(v, frames[::-1])
    first = float(along(orientation, [0])[0] @ normal(orientation))
    np.testing.assert_allclose(v.z, first + 0.75 * np.arange(5), atol=1e-6)
    np.testing.assert_allclose(v.x, 0.75 * np.arange(8))
    # Nothing says how it lies in the patient.
    assert stack.geometry is not None and not stack.geometry.codes
    assert stack.geometry.spacing == pytest.approx((0.75, 0.5, 0.75))
    assert "patient" not in v.coords
    with pytest.raises(GeometryError):
        v.dcm.affine  # noqa: B018  it raises
    shown = commands.run("info", path.parent).stdout
    assert "0.75 x 0.5 x 0.75 mm (z, y, x)" in shown and "point to" not in shown


def test_times_of_an_ultrasound_volume(tmp_path: Path) -> None:
    frames = noise(6, 6, 8)
    places = [(t, z) for t in (1, 2) for z in (1, 2, 3)]
    distances, seconds = [0.75 * z for _, z in places], [0.04 * (t - 1) for t, _ in places]
    path = ultrasound(tmp_path, frames, ["t", "position"], places, distances, seconds=seconds)
    stack = stack_of(path)
    v = stack.to_xarray()
    assert v.dims == ("t", "z", "y", "x") and not stack.notes
    np.testing.assert_array_equal(v, frames.reshape(2, 3, 6, 8))
    np.testing.assert_allclose(v.t, [0, 40])
    assert stack.summary == "ultrasound volume of 2 times x 3 planes"


def test_tissue_and_flow_of_an_ultrasound_volume(tmp_path: Path) -> None:
    frames = noise(6, 6, 8)
    places = [(z, kind) for z in (1, 2, 3) for kind in (1, 2)]
    path = ultrasound(tmp_path, frames, ["position", "data"], places, [0.75 * z for z, _ in places])
    v = stack_of(path).to_xarray()
    assert v.dims == ("data_type", "z", "y", "x")
    np.testing.assert_array_equal(v, frames.reshape(3, 2, 6, 8).swapaxes(0, 1))


def test_a_missing_plane_of_an_ultrasound_volume(tmp_path: Path) -> None:
    indices = [[number] for number in range(1, 5)]
    path = ultrasound(tmp_path, noise(4, 6, 8), ["position"], indices, [0, 0.75, 1.5, 3])
    stack = stack_of(path)
    assert [one.code for one in stack.irregularities] == ["missing"]
    with pytest.raises(dcmdask.IrregularSeriesError):
        stack.to_xarray()
    v = stack.to_xarray(on_irregular="fill")
    assert v.sizes["z"] == 5 and v.missing.values.tolist() == [False, False, False, True, False]
    assert "patient" not in v.coords


def test_ultrasound_volumes_are_arrays_of_their_own(tmp_path: Path) -> None:
    """Each has axes of its own."""
    indices = [[1], [2]]
    for number, start in enumerate((0, 1.5)):
        path = ultrasound(
            tmp_path / str(number),
            noise(2, 6, 8, seed=number),
            ["position"],
            indices,
            [start, start + 0.75],
            SOPInstanceUID=f"{SERIES}.{number + 1}",
        )
        assert path.exists()
    assert [stack.shape for stack in scan(tmp_path)[0].stacks] == [(2, 6, 8)] * 2


def test_stores_of_an_ultrasound_volume(tmp_path: Path) -> None:
    indices = [[number] for number in range(1, 5)]
    path = ultrasound(tmp_path, noise(4, 6, 8), ["position"], indices, [0, 0.75, 1.5, 2.25])
    series = scan(path)[0]
    for format_ in ("zarr", "ome-zarr"):
        store = tmp_path / f"{format_}.zarr"
        dcmdask.to_zarr(series, store, format=format_)
        assert dcmdask.verify(store, series).ok
    back = xr.open_zarr(tmp_path / "zarr.zarr").pixels
    np.testing.assert_allclose(back.z, series.to_xarray().z)
    series.to_xarray().to_netcdf(tmp_path / "v.nc", engine="h5netcdf")


@pytest.mark.parametrize("value", [[0.0, 0.0], [0.0, 0.0, float("nan")]])
def test_positions_in_the_volume_that_cannot_be_read(tmp_path: Path, value: list[float]) -> None:
    path = ultrasound(tmp_path, noise(2, 6, 8), ["position"], [[1], [2]], [0, 0.75])
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PlanePositionVolumeSequence[0].ImagePositionVolume = value
    dataset.save_as(path)
    (stack,) = scan(path)[0].stacks
    assert "unreadable" in [one.code for one in stack.irregularities]


# Enhanced X-ray angiography and fluoroscopy


@pytest.mark.parametrize("sop_class", [EnhancedXAImageStorage, EnhancedXRFImageStorage])
def test_angles_of_each_frame(tmp_path: Path, sop_class: UID) -> None:
    frames = noise(4, 6, 8, dtype="u2", bits=12)
    angles = [-30.0, -28.5, -27.0, -25.5]
    groups = [
        {
            "PositionerPositionSequence": item(
                PositionerPrimaryAngle=angle, PositionerSecondaryAngle=12
            )
        }
        for angle in angles
    ]
    path = multi_frame(
        tmp_path, frames, ["t"], [[1], [2], [3], [4]], sop_class, groups, Modality="XA"
    )
    stack = stack_of(path)
    v = stack.to_xarray()
    assert v.dims == ("t", "y", "x") and not stack.notes
    np.testing.assert_array_equal(v, frames)
    assert v.positioner_primary_angle.dims == ("t",)
    assert v.positioner_primary_angle.values.tolist() == angles
    assert v.positioner_primary_angle.attrs["units"] == "deg"
    # It is the same for all.
    assert "positioner_secondary_angle" not in v.coords


def test_times_of_each_frame(tmp_path: Path) -> None:
    frames = noise(3, 6, 8)
    path = multi_frame(tmp_path, frames, ["t"], [[1], [2], [3]], EnhancedXAImageStorage, [{}] * 3)
    dataset = dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = group.FrameContentSequence[0]
        content.FrameAcquisitionDateTime = f"20200101100000.{number * 66:03}"
    dataset.save_as(path)
    np.testing.assert_allclose(stack_of(path).to_xarray().t, [0, 66, 132], atol=1e-3)


# Legacy converted


def legacy(modality: str, datasets: list[Dataset]) -> Dataset:
    made = {
        "CT": hd.legacy.LegacyConvertedEnhancedCTImage,
        "MR": hd.legacy.LegacyConvertedEnhancedMRImage,
        "PT": hd.legacy.LegacyConvertedEnhancedPETImage,
    }[modality]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made(
            legacy_datasets=datasets,
            series_instance_uid=f"{SERIES}.9",
            series_number=2,
            sop_instance_uid=f"{SERIES}.9.1",
            instance_number=1,
        )


PATIENT = {
    "PatientID": "1",
    "PatientName": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyID": "",
    "StudyDate": "20200101",
    "StudyTime": "100000",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "Manufacturer": "",
    "SeriesNumber": 1,
    "FrameOfReferenceUID": "1.2.4",
    "PositionReferenceIndicator": "",
}


def converted(folder: Path, modality: str, paths: list[Path]) -> Stack:
    made = legacy(modality, [dcmread(path) for path in paths])
    folder.mkdir()
    made.save_as(folder / "legacy.dcm")
    return stack_of(folder)


def check_same(stack: Stack, expected: xr.DataArray, values: Any) -> None:
    v = stack.to_xarray(values)
    assert v.dims == expected.dims
    np.testing.assert_allclose(v, expected)
    for axis in expected.dims:
        np.testing.assert_allclose(v[axis], expected[axis])
    np.testing.assert_allclose(v.dcm.affine, expected.dcm.affine, atol=1e-6)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_legacy_converted(tmp_path: Path, modality: str, orientation: tuple[float, ...]) -> None:
    pet = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT", "Units": "BQML"}
    paths = classic(
        tmp_path / "in",
        noise(5, 6, 8, dtype="i2", bits=12),
        along(orientation, [0, 2.5, 5, 7.5, 10]),
        orientation=orientation,
        modality="MR" if modality == "MR" else "CT",
        each={"RescaleSlope": [1, 1.5, 2, 2.5, 3], "RescaleIntercept": [-3] * 5},
        **PATIENT,
        **(pet if modality == "PT" else {}),
    )
    stack = converted(tmp_path / "out", modality, paths)
    assert stack.summary == "volume of 5 planes"
    check_same(stack, scan(tmp_path / "in")[0].to_xarray("modality"), "modality")


def test_echoes_that_are_legacy_converted(tmp_path: Path) -> None:
    paths = classic(
        tmp_path / "in",
        noise(6, 6, 8, dtype="i2", bits=12),
        np.repeat(along(AXIAL, [0, 2.5, 5]), 2, axis=0),
        modality="MR",
        each={"EchoTime": [12.5, 30] * 3, "EchoNumbers": [1, 2] * 3},
        **PATIENT,
    )
    stack = converted(tmp_path / "out", "MR", paths)
    assert stack.summary == "volume of 2 echoes x 3 planes"
    check_same(stack, scan(tmp_path / "in")[0].to_xarray(), "stored")


# Input that is not as it should be


@pytest.mark.parametrize("items", [4, 6])
def test_groups_that_are_not_as_many_as_frames(tmp_path: Path, items: int) -> None:
    """A frame without an item has what is shared, and no position; surplus ones are ignored."""
    frames = noise(5, 6, 8)
    places = along(AXIAL, 2.5 * np.arange(items))
    groups = [in_patient(position) for position in places]
    indices = [[number] for number in range(1, items + 1)]
    sop_class = BreastTomosynthesisImageStorage
    path = multi_frame(tmp_path, frames, ["z"], indices, sop_class, groups, turned(AXIAL))
    series = scan(path)[0]
    if items > len(frames):
        np.testing.assert_array_equal(series.to_xarray(), frames)
        return
    assert [stack.shape for stack in series.stacks] == [(4, 6, 8), (1, 6, 8)]
    with pytest.raises(dcmdask.AmbiguousSourceError):
        series.to_xarray()


def test_positions_that_contradict_the_indices(tmp_path: Path) -> None:
    """Positions decide."""
    frames = noise(4, 6, 8)
    groups = [in_patient(position) for position in along(AXIAL, [0, 5, 2.5, 7.5])]
    sop_class = XRay3DAngiographicImageStorage
    path = multi_frame(
        tmp_path, frames, ["z"], [[1], [2], [3], [4]], sop_class, groups, turned(AXIAL)
    )
    stack = stack_of(path)
    assert [note.code for note in stack.notes] == ["position-number"]
    with pytest.warns(DcmdaskWarning):
        np.testing.assert_array_equal(stack.to_xarray(), frames[[0, 2, 1, 3]])
