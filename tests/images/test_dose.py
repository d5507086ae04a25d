"""RT Dose is a volume in the units of its dose, at the offsets of its grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from made_images import FIRST, SCALING, dose
from made_series import AXIAL, OBLIQUE, along, classic, normal
from make_dicom import noise
from real_files import corpus_files, packaged_files

import dcmdask
from dcmdask import (
    DcmdaskWarning,
    HeaderError,
    IrregularSeriesError,
    MissingElementError,
    Stack,
    scan,
)

DOWN = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def notes(stack: Stack) -> list[str]:
    return [note.code for note in stack.notes]


# Values


def real_doses() -> list[Path]:
    paths = {path.name: path for path in [*packaged_files(), *corpus_files()]}
    return [paths[name] for name in sorted(paths) if name.startswith("rtdose")]


@pytest.mark.parametrize("path", real_doses(), ids=lambda path: path.name)
def test_values_are_the_stored_integers_times_the_scaling(
    path: Path, compared: Callable[[Path], None]
) -> None:
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    stack = stack_of(path)
    assert stack.kind == "dose" and stack.dims == ("z", "y", "x") and not notes(stack)
    found = stack.to_xarray("modality")
    np.testing.assert_array_equal(found, stored * float(dataset.DoseGridScaling))
    assert found.attrs["dose_type"] == "PHYSICAL"
    assert found.attrs["dose_summation_type"] == "BEAM"
    assert "units" not in found.attrs  # RELATIVE
    np.testing.assert_array_equal(dcmdask.from_dicom(path, values="modality"), found)
    np.testing.assert_array_equal(stack.to_dask(), stored)
    if path in corpus_files():
        compared(path)


def test_units_are_those_of_an_absorbed_dose_only(tmp_path: Path) -> None:
    gray = stack_of(dose(tmp_path / "a")).to_xarray("modality")
    assert gray.attrs["units"] == "GY" and gray.dtype == np.float64
    assert "units" not in stack_of(tmp_path / "a").to_xarray().attrs
    for units in ("RELATIVE", "Gy of a private kind"):
        other = stack_of(dose(tmp_path / units, DoseUnits=units)).to_xarray("modality")
        assert "units" not in other.attrs


def test_16_bits_are_float32(tmp_path: Path) -> None:
    frames = noise(4, 6, 8, dtype="u2")
    found = stack_of(dose(tmp_path, frames)).to_xarray("modality")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (frames * SCALING).astype(np.float32))


def test_a_rescaling_besides_does_not_replace_the_scaling(tmp_path: Path) -> None:
    path = dose(tmp_path, RescaleSlope=1, RescaleIntercept=0)
    found = stack_of(path).to_xarray("modality")
    np.testing.assert_array_equal(found, pydicom.dcmread(path).pixel_array * SCALING)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("rescaling", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_a_missing_scaling_is_an_error(
    tmp_path: Path, frames: int, rescaling: dict[str, int]
) -> None:
    data = noise(frames, 6, 8, dtype="u4")
    path = dose(tmp_path, data, 2.5 * np.arange(frames), DoseGridScaling=None, **rescaling)
    np.testing.assert_array_equal(stack_of(path).to_dask(), data)
    for read in (stack_of(path).to_dask, lambda values: dcmdask.from_dicom(path, values=values)):
        for values in ("modality", "display"):
            with pytest.raises(MissingElementError, match="'Dose Grid Scaling' is missing") as info:
                read(values)
            assert info.value.code == "MissingElementError/scaling"


def test_a_scaling_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    path = dose(tmp_path)
    text = f"{SCALING}".encode()
    path.write_bytes(path.read_bytes().replace(text, b"x" * len(text)))
    with pytest.raises(HeaderError, match="'Dose Grid Scaling' is 0 or no number"):
        stack_of(path).to_xarray("modality")


# Positions


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, DOWN])
def test_offsets_from_0_are_along_the_normal(tmp_path: Path, orientation: Any) -> None:
    stack = stack_of(dose(tmp_path, orientation=orientation))
    step = 2.5 * normal(orientation)
    assert not stack.irregularities and not notes(stack)
    np.testing.assert_allclose(stack.facts["position"], FIRST + np.outer(range(4), step))
    np.testing.assert_allclose(stack.to_xarray().dcm.affine[:3, 2], step, atol=1e-9)


@pytest.mark.parametrize("orientation", [AXIAL, DOWN])
@pytest.mark.parametrize("step", [2.5, -2.5])
def test_offsets_may_be_the_third_components_of_positions(
    tmp_path: Path, orientation: Any, step: float
) -> None:
    z = FIRST[2] + step * np.arange(4)
    stack = stack_of(dose(tmp_path, offsets=z.tolist(), orientation=orientation))
    assert not stack.irregularities and not notes(stack)
    np.testing.assert_allclose(stack.facts["position"][:, 2], z)
    np.testing.assert_allclose(stack.facts["position"][:, :2], [FIRST[:2]] * 4)


def test_descending_offsets_are_put_in_order(tmp_path: Path) -> None:
    frames = noise(4, 6, 8, dtype="u4")
    found = stack_of(dose(tmp_path, frames, (0, -2.5, -5, -7.5))).to_xarray()
    np.testing.assert_array_equal(found, frames[::-1])
    np.testing.assert_allclose(found["z"], FIRST[2] + np.array([-7.5, -5, -2.5, 0]))


def test_uneven_offsets_are_irregular_and_keep_their_places(tmp_path: Path) -> None:
    path = dose(tmp_path, offsets=(0, 2.5, 5, 9))
    stack = stack_of(path)
    with pytest.raises(IrregularSeriesError):
        stack.to_xarray()
    found = stack.to_xarray(on_irregular="keep")
    np.testing.assert_allclose(found["z"], FIRST[2] + np.array([0, 2.5, 5, 9]))
    # One file gives its frames as they are.
    assert dcmdask.from_dicom(path).shape == (4, 6, 8)


@pytest.mark.parametrize(
    ("offsets", "said"),
    [
        (None, "has 0 values for 4 frames"),
        ((), "has 0 values for 4 frames"),
        ((0, 2.5, 5), "has 3 values for 4 frames"),
        ((0, 2.5, 5, 7.5, 10), "has 5 values for 4 frames"),
        ((2.5, 5, 7.5, 10), "begins with 2.5, which is neither 0 nor the third component"),
        ((FIRST[2] + 1, 0, 1, 2), "begins with -6, which is neither 0"),
    ],
)
def test_offsets_that_do_not_tell_leave_plain_frames(
    tmp_path: Path, offsets: Any, said: str
) -> None:
    frames = noise(4, 6, 8, dtype="u4")
    stack = stack_of(dose(tmp_path, frames, offsets))
    assert stack.dims == ("frame", "y", "x") and notes(stack) == ["grid-frame-offset-vector"]
    assert said in stack.notes[0].text
    with pytest.warns(DcmdaskWarning, match="where they lie|where frames lie"):
        found = stack.to_xarray("modality")
    np.testing.assert_array_equal(found, frames * SCALING)


@pytest.mark.parametrize("text", [b"a.bcd", b"     ", b"  inf"])
def test_offsets_that_are_no_numbers_leave_plain_frames(tmp_path: Path, text: bytes) -> None:
    path = dose(tmp_path, offsets=(0, 2.5, 5, 725))
    path.write_bytes(path.read_bytes().replace(b"725.0", text))
    stack = stack_of(path)
    assert stack.dims == ("frame", "y", "x") and notes(stack) == ["grid-frame-offset-vector"]
    assert "no numbers" in stack.notes[0].text


def test_third_components_need_planes_across_the_third_axis(tmp_path: Path) -> None:
    z = (FIRST[2] + 2.5 * np.arange(4)).tolist()
    stack = stack_of(dose(tmp_path, offsets=z, orientation=OBLIQUE))
    assert stack.dims == ("frame", "y", "x") and notes(stack) == ["grid-frame-offset-vector"]


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_without_position_or_orientation_frames_are_plain(tmp_path: Path, missing: str) -> None:
    stack = stack_of(dose(tmp_path, **{missing: None}))
    assert stack.dims == ("frame", "y", "x") and stack.shape == (4, 6, 8)
    assert stack.to_xarray("modality").attrs["units"] == "GY"


@pytest.mark.parametrize(("value", "name"), [(b"-12.5", "Position"), (b"1.0\\0.0", "Orientation")])
def test_a_place_that_cannot_be_read_is_named(tmp_path: Path, value: bytes, name: str) -> None:
    path = dose(tmp_path)
    path.write_bytes(path.read_bytes().replace(value, b"x" + value[1:], 1))
    stack = stack_of(path)
    (found,) = stack.irregularities
    assert found.code == "unreadable" and name in found.text and stack.geometry is None
    with pytest.raises(IrregularSeriesError, match=name):
        stack.to_xarray()


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_geometry_is_that_of_simpleitk(tmp_path: Path, orientation: Any) -> None:
    path = dose(tmp_path, orientation=orientation)
    theirs = SimpleITK.ReadImage(str(path))
    ours = stack_of(path).to_xarray("modality").dcm.to_sitk()
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection(), atol=1e-6)


def test_a_dose_lies_right_on_its_ct(tmp_path: Path) -> None:
    """A dose that rises along each axis tells the place of each voxel of the CT."""
    positions = along(AXIAL, 1.25 * np.arange(5)) + np.ones(3)
    classic(tmp_path / "ct", noise(5, 6, 6, dtype="u2"), positions, spacing=(0.25, 0.375))
    ct = scan(tmp_path / "ct")[0].to_xarray()
    index = np.moveaxis(np.indices((4, 6, 8)), 0, -1)[..., ::-1]
    step = np.array([0.75, 0.5, 2.5])
    points = FIRST + index * step
    for axis in range(3):
        # In micrometres, from an offset that keeps them positive.
        frames = np.round(1000 * (points[..., axis] + 100)).astype("u4")
        path = dose(tmp_path / f"dose {axis}", frames, DoseGridScaling=0.001)
        there = stack_of(path).to_xarray("modality").dcm.like(ct)
        assert there.shape == ct.shape
        own = ct["xyz"[axis]].values
        expected = own.reshape([-1 if dim == "xyz"[axis] else 1 for dim in "zyx"]) + 100
        found = there.values
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.01)


# Series


def test_two_doses_in_a_series_are_two_arrays(tmp_path: Path) -> None:
    first, second = noise(4, 6, 8, dtype="u4"), noise(4, 6, 8, dtype="u4", seed=1)
    dose(tmp_path, first, name="a.dcm")
    dose(tmp_path, second, name="bb.dcm", DoseGridScaling=1e-3, DoseSummationType="BEAM")
    found = scan(tmp_path)[0].stacks
    assert [stack.shape for stack in found] == [(4, 6, 8)] * 2
    arrays = [stack.to_xarray("modality") for stack in found]
    np.testing.assert_array_equal(arrays[0], first * SCALING)
    np.testing.assert_array_equal(arrays[1], second * 1e-3)
    assert [a.attrs["dose_summation_type"] for a in arrays] == ["PLAN", "BEAM"]


def test_planes_in_a_file_each_are_one_volume(tmp_path: Path) -> None:
    frames = noise(3, 6, 8, dtype="u4")
    for number, position in enumerate(along(AXIAL, [0, 2.5, 5])):
        dose(
            tmp_path,
            frames[number : number + 1],
            None,
            name="d" * (number + 1),
            ImagePositionPatient=position.tolist(),
            DoseGridScaling=(number + 1) * 1e-3,
        )
    stack = stack_of(tmp_path)
    assert stack.dims == ("z", "y", "x")
    scaling = 1e-3 * np.array([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_allclose(stack.to_xarray("modality"), frames * scaling, rtol=1e-12)
