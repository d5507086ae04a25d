"""Frames of nuclear medicine lie along the dimensions that its vectors tell."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from made_images import FIRST, detector, nuclear, vectors
from made_series import AXIAL, OBLIQUE, along, normal
from make_dicom import DELIMITER, noise
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

import dcmdask
from dcmdask import DcmdaskWarning, LayoutError, Stack, scan, verify

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def codes(stack: Stack) -> list[str]:
    return [note.code for note in stack.notes]


# Dimensions


@pytest.mark.parametrize(
    "lengths",
    [
        {"energy_window": 2, "detector": 3},
        {"detector": 3, "energy_window": 2},
        {"energy_window": 2, "detector": 2, "phase": 2, "time_slice": 3},
        {"energy_window": 2, "detector": 1, "rotation": 1, "angular_view": 4},
        {"rr_interval": 2, "time_slot": 3, "z": 4},
        {"z": 4, "time_slot": 3, "rr_interval": 2},
        {"energy_window": 2, "detector": 2, "phase": 2, "z": 3},
        {"z": 5},
        {"phase": 5},
    ],
)
def test_vectors_are_dimensions(tmp_path: Path, lengths: dict[str, int]) -> None:
    shape = tuple(lengths.values())
    frames = noise(int(np.prod(shape)), 6, 8, dtype="u2")
    stack = stack_of(nuclear(tmp_path, frames, vectors(lengths)))
    assert stack.kind == "nuclear" and not stack.notes and not stack.irregularities
    v = stack.to_xarray()
    dims = [name for name, length in lengths.items() if length > 1 and name != "z"]
    dims += ["z"] if "z" in lengths else []
    assert v.dims == (*dims, "y", "x")
    grid = frames.reshape(*shape, 6, 8)
    expected = np.moveaxis(grid, list(lengths).index("z"), -3) if "z" in lengths else grid
    np.testing.assert_array_equal(v, expected.reshape(v.shape))
    for name in dims:
        if name != "z":
            assert v[name].values.tolist() == list(range(1, lengths[name] + 1))
    # One file gives its frames as they are.
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path / "0"), frames)


def test_a_sequence_of_undefined_length(tmp_path: Path) -> None:
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": 2.5}
    path = nuclear(tmp_path, noise(3, 6, 8, dtype="u2"), vectors({"z": 3}), **place)
    data = path.read_bytes()
    begin = data.index(b"\x54\0\x22\0SQ\0\0") + 8
    (length,) = struct.unpack_from("<L", data, begin)
    end = begin + 4 + length
    path.write_bytes(data[:begin] + b"\xff" * 4 + data[begin + 4 : end] + DELIMITER + data[end:])
    np.testing.assert_allclose(stack_of(path).to_xarray()["z"], FIRST[2] + 2.5 * np.arange(3))


def test_frames_in_any_order(tmp_path: Path) -> None:
    lengths = {"energy_window": 2, "time_slot": 3, "z": 4}
    order = np.random.default_rng(0).permutation(24)
    frames = noise(24, 6, 8, dtype="u2")
    told = {name: np.array(values)[order].tolist() for name, values in vectors(lengths).items()}
    v = stack_of(nuclear(tmp_path, frames[order], told)).to_xarray()
    np.testing.assert_array_equal(v, frames.reshape(2, 3, 4, 6, 8))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_transfer_syntaxes(tmp_path: Path, syntax: UID, undefined: bool) -> None:
    frames = noise(6, 6, 8, dtype="u2")
    first = detector()
    first.is_undefined_length_sequence_item = undefined
    place = {"DetectorInformationSequence": [first], "SpacingBetweenSlices": 2.5}
    told = vectors({"phase": 2, "z": 3})
    v = stack_of(nuclear(tmp_path, frames, told, syntax=syntax, **place)).to_xarray()
    np.testing.assert_array_equal(v, frames.reshape(2, 3, 6, 8))
    np.testing.assert_allclose(v["z"], FIRST[2] + 2.5 * np.arange(3))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"z": [1, 2, 3]}, "(0054,0080) has 3 values for 4 frames"),
        ({"z": [1, 2, 3, 4, 5]}, "(0054,0080) has 5 values for 4 frames"),
        ({"phase": [1, 1, 2], "z": [1, 2, 1, 2]}, "(0054,0030) has 3 values for 4 frames"),
        ({"z": [1, 2, 3, 3]}, "do not give each frame a place in a full grid"),
        ({"phase": [1, 1, 1, 2], "z": [1, 2, 3, 1]}, "do not give each frame a place"),
        ({}, "names no vector"),
    ],
)
@pytest.mark.parametrize("placed", [False, True])
def test_vectors_that_do_not_tell_leave_plain_frames(
    tmp_path: Path, told: dict[str, list[int]], said: str, placed: bool
) -> None:
    frames = noise(4, 6, 8, dtype="u2")
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": 2.5}
    stack = stack_of(nuclear(tmp_path, frames, told, **(place if placed else {})))
    assert stack.dims == ("frame", "y", "x") and codes(stack) == ["frame-vectors"]
    assert said in stack.notes[0].text
    with pytest.warns(DcmdaskWarning):
        np.testing.assert_array_equal(stack.to_xarray(), frames)


@pytest.mark.parametrize("pointer", [None, 0x00181063, [0x00540010, 0x00540020]])
def test_a_pointer_to_nothing(tmp_path: Path, pointer: Any) -> None:
    frames = noise(4, 6, 8, dtype="u2")
    told = {"z": [1, 2, 3, 4]}
    stack = stack_of(nuclear(tmp_path, frames, told, FrameIncrementPointer=pointer))
    assert stack.dims == ("frame", "y", "x") and codes(stack) == ["frame-vectors"]


def test_single_frames_are_plain(tmp_path: Path) -> None:
    path = nuclear(tmp_path, noise(1, 6, 8, dtype="u2"), {"energy_window": [1], "detector": [1]})
    stack = stack_of(path)
    assert stack.dims == ("frame", "y", "x") and not stack.notes


def test_views_of_a_placed_detector_are_no_slices(tmp_path: Path) -> None:
    place = {"DetectorInformationSequence": [detector()]}
    told = vectors({"angular_view": 4})
    stack = stack_of(nuclear(tmp_path, noise(4, 6, 8, dtype="u2"), told, **place))
    assert stack.dims == ("angular_view", "y", "x") and not stack.notes
    assert stack.geometry is None


def test_files_are_arrays_of_their_own(tmp_path: Path) -> None:
    for number in range(2):
        frames = noise(3, 6, 8, dtype="u2", seed=number)
        nuclear(tmp_path, frames, vectors({"z": 3}), name=str(number))
    found = scan(tmp_path)[0].stacks
    assert len(found) == 2
    for number, stack in enumerate(found):
        np.testing.assert_array_equal(stack.to_dask(), noise(3, 6, 8, dtype="u2", seed=number))


# Places


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
@pytest.mark.parametrize("step", [2.5, -2.5])
def test_slices_lie_along_the_normal_or_against_it(
    tmp_path: Path, orientation: Sequence[float], step: float
) -> None:
    """PS3.3 C.8.4.15: a negative spacing stacks slices in front of the first."""
    frames = noise(4, 6, 8, dtype="u2")
    place = {"DetectorInformationSequence": [detector(tuple(FIRST), orientation)]}
    path = nuclear(tmp_path, frames, vectors({"z": 4}), SpacingBetweenSlices=step, **place)
    stack = stack_of(path)
    positions = FIRST + np.outer(step * np.arange(4), normal(orientation))
    np.testing.assert_allclose(stack.facts["position"], positions, atol=1e-6)
    v = stack.to_xarray()
    np.testing.assert_array_equal(v, frames if step > 0 else frames[::-1])
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(orientation[:3], 0.75)
    affine[:3, 1] = np.multiply(orientation[3:], 0.5)
    affine[:3, 2] = 2.5 * normal(orientation)
    affine[:3, 3] = positions[0 if step > 0 else -1]
    np.testing.assert_allclose(v.dcm.affine, affine, atol=1e-6)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_places_are_those_of_simpleitk(tmp_path: Path, orientation: Sequence[float]) -> None:
    frames = noise(4, 6, 8, dtype="u2")
    place = {"DetectorInformationSequence": [detector(tuple(FIRST), orientation)]}
    path = nuclear(tmp_path, frames, vectors({"z": 4}), SpacingBetweenSlices=2.5, **place)
    theirs, ours = SimpleITK.ReadImage(str(path)), stack_of(path).to_xarray().dcm.to_sitk()
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection(), atol=1e-6)
    array = SimpleITK.GetArrayFromImage
    np.testing.assert_array_equal(array(ours), array(theirs))


def test_gates_of_a_placed_volume(tmp_path: Path) -> None:
    frames = noise(12, 6, 8, dtype="u2")
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": -2.5}
    told = vectors({"rr_interval": 1, "time_slot": 3, "z": 4})
    stack = stack_of(nuclear(tmp_path, frames, told, **place))
    v = stack.to_xarray()
    assert v.dims == ("time_slot", "z", "y", "x") and not stack.irregularities
    np.testing.assert_array_equal(v, frames.reshape(3, 4, 6, 8)[:, ::-1])
    assert v["time_slot"].values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(v["z"], FIRST[2] + 2.5 * np.arange(-3, 1))


def test_a_slice_in_each_file_is_a_volume(tmp_path: Path) -> None:
    frames = noise(3, 6, 8, dtype="u2")
    for number, position in enumerate(along(AXIAL, [0, 2.5, 5])):
        nuclear(
            tmp_path,
            frames[number : number + 1],
            {"z": [1]},
            name=str(number),
            DetectorInformationSequence=[detector(tuple(position))],
        )
    np.testing.assert_array_equal(stack_of(tmp_path).to_xarray(), frames)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({}, []),
        ({"DetectorInformationSequence": []}, []),
        ({"DetectorInformationSequence": [Dataset()]}, []),
        ({"DetectorInformationSequence": [detector(None)]}, []),
        ({"DetectorInformationSequence": [detector(tuple(FIRST), None)]}, ["slice-positions"]),
        ({"DetectorInformationSequence": [detector(tuple(FIRST), (0,) * 6)]}, ["slice-positions"]),
        ({"DetectorInformationSequence": [detector(tuple(FIRST)[:2])]}, ["slice-positions"]),
        (
            {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": None},
            ["slice-positions"],
        ),
    ],
)
def test_slices_without_a_place_keep_their_order(
    tmp_path: Path, place: dict[str, Any], said: list[str]
) -> None:
    frames = noise(4, 6, 8, dtype="u2")
    told = {"z": [2, 1, 3, 4]}
    path = nuclear(tmp_path, frames, told, **{"SpacingBetweenSlices": 2.5, **place})
    stack = stack_of(path)
    assert codes(stack) == said and stack.dims == ("z", "y", "x") and stack.geometry is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        v = stack.to_xarray()
    assert "z" not in v.coords
    np.testing.assert_array_equal(v, frames[[1, 0, 2, 3]])


@pytest.mark.parametrize("format_", ["zarr", "ome-zarr"])
def test_stores_verify(tmp_path: Path, format_: str) -> None:
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": 2.5}
    told = vectors({"phase": 2, "z": 3})
    path = nuclear(tmp_path, noise(6, 6, 8, dtype="u2"), told, **place)
    report = dcmdask.to_zarr(scan(path)[0], tmp_path / "o.zarr", format=format_)
    assert report.shape == (2, 3, 6, 8)
    assert verify(tmp_path / "o.zarr", scan(path)[0]).ok


def test_two_dimensions_beyond_time_and_space_do_not_fit_ome_zarr(tmp_path: Path) -> None:
    told = vectors({"energy_window": 2, "detector": 3})
    path = nuclear(tmp_path, noise(6, 6, 8, dtype="u2"), told)
    with pytest.raises(LayoutError, match="energy_window and detector"):
        dcmdask.to_zarr(path, tmp_path / "o.zarr", format="ome-zarr")


def test_a_real_heart(corpus: Path) -> None:
    path = corpus / "tensorflow-io/NM-MONO2-16-13x-heart.dcm"
    stack = stack_of(path)
    assert stack.dims == ("z", "y", "x") and stack.kind == "nuclear"
    np.testing.assert_array_equal(stack.to_xarray(), dcmdask.pixel_array(path))
