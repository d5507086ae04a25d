"""Grids of UIH are volumes, as dcm2niix makes them; what the header does not tell stays whole."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import GAP, UIH, uih
from made_series import AXIAL, OBLIQUE, along, normal
from make_dicom import noise
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from real_files import DCM2NIIX

import dcmdask
from dcmdask import DcmdaskWarning, Stack, scan
from dcmdask.dicom.elements import EXPLICIT_LITTLE, RawValue
from dcmdask.dicom.private.mosaic import mosaic_of


def volume(count: int, seed: int = 0) -> np.ndarray:
    return noise(count, 6, 8, dtype="u2", bits=12, seed=seed)


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def by_dcm2niix(path: Path, folder: Path) -> Any:
    assert DCM2NIIX is not None
    (folder / "in").mkdir(parents=True)
    shutil.copy(path, folder / "in" / "a.dcm")
    command = [DCM2NIIX, "-z", "n", "-b", "n", "-f", "%s", "-o", str(folder), str(folder / "in")]
    subprocess.run(command, check=False, capture_output=True, timeout=60)
    (found,) = folder.glob("*.nii")
    return nib.load(found)


def check_equal(stack: Stack, theirs: Any, folder: Path) -> None:
    stack.to_xarray().dcm.to_nifti(folder / "ours.nii.gz")
    one, other = map(nib.as_closest_canonical, (nib.load(folder / "ours.nii.gz"), theirs))
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine, atol=5e-4)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
@pytest.mark.parametrize("gap", [GAP, -GAP])
@pytest.mark.parametrize("count", [2, 5, 7, 9, 12, 13])
def test_grids_are_those_of_dcm2niix(
    tmp_path: Path, count: int, gap: float, orientation: tuple[float, ...]
) -> None:
    """dcm2niix issue 225: rows of tiles are as few as possible, and positions are in a sequence."""
    positions = along(orientation, gap * np.arange(count))
    path = uih(tmp_path / "in", volume(count), positions, orientation=orientation)
    stack = stack_of(path)
    assert not stack.notes and not stack.irregularities
    assert stack.kind == "mosaic" and stack.summary == f"mosaic: 1 volume of {count} slices"
    v = stack.to_xarray()
    order = slice(None, None, 1 if gap > 0 else -1)
    np.testing.assert_array_equal(v, volume(count)[order])
    np.testing.assert_allclose(v.slice_time, 50 * np.arange(count)[order])
    np.testing.assert_allclose(v.dcm.affine[:3, 3], positions[order][0], atol=1e-6)
    check_equal(stack, by_dcm2niix(path, tmp_path / "out"), tmp_path)


def test_without_positions_the_first_tile_has_that_of_the_header(tmp_path: Path) -> None:
    path = uih(tmp_path / "in", volume(5), None, orientation=OBLIQUE)
    stack = stack_of(path)
    assert [note.code for note in stack.notes] == ["mosaic-normal"]
    with pytest.warns(DcmdaskWarning, match="that of the orientation is taken"):
        v = stack.to_xarray()
    np.testing.assert_allclose(v.dcm.affine[:3, 2], GAP * normal(OBLIQUE), atol=1e-6)
    with pytest.warns(DcmdaskWarning):
        check_equal(stack, by_dcm2niix(path, tmp_path / "out"), tmp_path)


def test_the_positions_of_tiles_decide(tmp_path: Path) -> None:
    positions = along(AXIAL, GAP * np.arange(5))
    for first in ([0, 0, 99], [500, 500, 500]):
        v = stack_of(uih(tmp_path, volume(5), positions, first=first)).to_xarray()
        np.testing.assert_allclose(v.dcm.affine[:3, 3], positions[0], atol=1e-6)
    v = stack_of(uih(tmp_path, volume(5), positions, ImagePositionPatient=None)).to_xarray()
    np.testing.assert_allclose(v.dcm.affine[:3, 3], positions[0], atol=1e-6)


def test_a_run_of_grids(tmp_path: Path) -> None:
    made = np.stack([volume(5, seed) for seed in range(3)])
    for number, tiles in enumerate(made):
        time = {"AcquisitionTime": f"1000{2 * number:02}", "InstanceNumber": number + 1}
        uih(tmp_path, tiles, along(AXIAL, GAP * np.arange(5)), name=str(number), **time)
    stack = stack_of(tmp_path)
    v = stack.to_xarray()
    assert v.dims == ("t", "z", "y", "x") and v.slice_time.dims == ("z",)
    np.testing.assert_array_equal(v, made)
    np.testing.assert_allclose(v.t, [0, 2000, 4000])
    assert stack.summary == "mosaic: 3 volumes of 5 slices"
    dcmdask.to_zarr(scan(tmp_path)[0], tmp_path / "o.zarr")
    assert dcmdask.verify(tmp_path / "o.zarr", scan(tmp_path, exclude="o.zarr")[0]).ok


def test_missing_slices_of_a_grid_are_irregular(tmp_path: Path) -> None:
    positions = along(AXIAL, [0, GAP, 3 * GAP, 4 * GAP, 5 * GAP])
    stack = stack_of(uih(tmp_path, volume(5), positions))
    assert [one.code for one in stack.irregularities] == ["missing"]


def test_the_sequence_tells_the_number_alone(tmp_path: Path) -> None:
    path = uih(tmp_path, volume(5), along(AXIAL, GAP * np.arange(5)), number=None)
    np.testing.assert_array_equal(stack_of(path).to_xarray(), volume(5))


def test_implicit_vr(tmp_path: Path) -> None:
    positions = along(AXIAL, GAP * np.arange(5))
    stack = stack_of(uih(tmp_path, volume(5), positions, syntax=ImplicitVRLittleEndian))
    assert not stack.notes
    np.testing.assert_array_equal(stack.to_xarray(), volume(5))


def test_a_sequence_of_unknown_vr(tmp_path: Path) -> None:
    """Software that does not know it writes UN, with items of implicit VR (PS3.5 6.2.2)."""
    positions, tag = along(AXIAL, GAP * np.arange(5)), b"\x65\x00\x51\x10"
    implicit = uih(tmp_path, volume(5), positions, syntax=ImplicitVRLittleEndian).read_bytes()
    start = implicit.index(tag) + 8
    size = implicit[start - 4 : start]
    value = implicit[start : start + int.from_bytes(size, "little")]
    path = uih(tmp_path, volume(5), positions)
    data = path.read_bytes()
    at = data.index(tag)
    after = at + 12 + int.from_bytes(data[at + 8 : at + 12], "little")
    path.write_bytes(data[:at] + tag + b"UN\0\0" + size + value + data[after:])
    stack = stack_of(path)
    assert not stack.notes
    np.testing.assert_array_equal(stack.to_xarray(), volume(5))


def is_whole(stack: Stack, said: str) -> bool:
    (note,) = (note for note in stack.notes if note.code == "mosaic")
    return stack.dims == ("frame", "y", "x") and said in note.text


def test_what_does_not_fit_stays_whole(tmp_path: Path) -> None:
    positions = along(AXIAL, GAP * np.arange(5))
    path = uih(tmp_path, volume(5), positions, number=4)
    assert is_whole(stack_of(path), "positions of 5 tiles for 4")
    path = uih(tmp_path, volume(5), positions[:3])
    assert is_whole(stack_of(path), "positions of 3 tiles for 5")
    path = uih(tmp_path, volume(5), None, number=50)
    assert is_whole(stack_of(path), "are no grid of 50 tiles")
    path = uih(tmp_path, volume(5), None, number=None)
    assert is_whole(stack_of(path), "the private header that tells their number is not there")


@pytest.mark.parametrize("value", [b"            ", b"-12.5\\30.25 ", b"-12.5\\30.25\\a"])
def test_positions_that_cannot_be_read(tmp_path: Path, value: bytes) -> None:
    path = uih(tmp_path, volume(5), along(AXIAL, GAP * np.arange(5)))
    data, third = path.read_bytes(), b"-12.5\\30.25\\-0.5"
    assert data.count(third) == 1
    path.write_bytes(data.replace(third, value.ljust(len(third))))
    assert is_whole(stack_of(path), "positions of tiles that cannot be read")


def test_times_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    path = uih(tmp_path, volume(5), along(AXIAL, GAP * np.arange(5)))
    dataset = dcmread(path)
    del dataset[UIH, 0x1051][2].AcquisitionTime
    dataset.save_as(path)
    v = stack_of(path).to_xarray()
    assert "slice_time" not in v.coords
    np.testing.assert_array_equal(v, volume(5))


def test_past_midnight(tmp_path: Path) -> None:
    path = uih(tmp_path, volume(5), along(AXIAL, GAP * np.arange(5)))
    dataset = dcmread(path)
    for number, item in enumerate(dataset[UIH, 0x1051]):
        item.AcquisitionDate = "20200101" if number < 2 else "20200102"
        item.AcquisitionTime = ("235959.8", "235959.9", "000000.0", "000000.1", "000000.2")[number]
    dataset.save_as(path)
    np.testing.assert_allclose(stack_of(path).to_xarray().slice_time, 100 * np.arange(5))


@given(
    at=st.lists(st.integers(0, 1 << 16), max_size=8),
    values=st.lists(st.integers(0, 255), min_size=8, max_size=8),
    vr=st.sampled_from(["SQ", "UN", None]),
)
def test_damage_raises_nothing(at: list[int], values: list[int], vr: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = uih(Path(folder), volume(5), along(AXIAL, GAP * np.arange(5)))
        data = path.read_bytes()
    start = data.index(b"\x65\x00\x51\x10SQ") + 12
    sequence = bytearray(data[start : start + int.from_bytes(data[start - 4 : start], "little")])
    for place, value in zip(at, values, strict=False):
        sequence[place % len(sequence)] = value
    elements = {
        0x00650010: RawValue("LO", b"Image Private Header"),
        0x00651050: RawValue("DS", b"5 "),
        0x00651051: RawValue(vr, bytes(sequence)),
    }
    found = mosaic_of(elements, EXPLICIT_LITTLE)
    assert found.tiles == 5
    assert not found.positions or all(len(position) == 3 for position in found.positions)
