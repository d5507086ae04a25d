"""Mosaics of Siemens are volumes: tiles, places and times as the private header tells them."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import commands
import nibabel as nib
import numpy as np
import pytest
from counting import count_decodings
from hypothesis import given
from hypothesis import strategies as st
from made_images import FIRST, GAP, SPACING, csa, mosaic, run_of, told
from made_series import AXIAL, OBLIQUE, normal
from make_dicom import noise
from pydicom import dcmread
from real_files import DCM2NIIX

import dcmdask
from dcmdask import DcmdaskWarning, Stack, scan, verify
from dcmdask.dicom.elements import EXPLICIT_LITTLE, RawValue
from dcmdask.dicom.private.mosaic import mosaic_of

with warnings.catch_warnings():
    # It calls itself experimental.
    warnings.simplefilter("ignore", UserWarning)
    from nibabel.nicom.csareader import get_csa_header
    from nibabel.nicom.dicomwrappers import MosaicWrapper

FOLDERS = (
    "dcm_qa_nih/In/20180918Si",
    "dcm_qa_ts/In",
    "dcm_qa_12bit/In",
    "dicom_parser/rsfmri",
    "nibabel/nicom",
)


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def codes(stack: Stack) -> list[str]:
    return [note.code for note in stack.notes]


def volume(count: int = 5, rows: int = 6, columns: int = 6, seed: int = 0) -> np.ndarray:
    return noise(count, rows, columns, dtype="u2", bits=12, seed=seed)


def is_plain(stack: Stack) -> bool:
    return stack.dims == ("frame", "y", "x") and "mosaic" in codes(stack)


# The corpus, by dcm2niix and nibabel


def real(corpus: Path) -> Iterator[Stack]:
    """The mosaics of the corpus, by the series and by the file."""
    for folder in FOLDERS:
        for series in scan(corpus / folder):
            for stack in series.stacks:
                if stack.kind == "mosaic":
                    yield stack


def lone(stack: Stack) -> Iterator[tuple[Path, Stack]]:
    for one in stack.instances:
        path = Path(one.source.name)
        yield path, stack_of(path)


def converted(files: Sequence[Path], folder: Path) -> list[Any]:
    """Return the images that dcm2niix converts files to."""
    assert DCM2NIIX is not None
    (folder / "in").mkdir(parents=True)
    for number, path in enumerate(files):
        (folder / "in" / f"{number}.dcm").symlink_to(path)
    command = [DCM2NIIX, "-z", "n", "-b", "n", "-f", "%s", "-o", str(folder), str(folder / "in")]
    subprocess.run(command, check=False, capture_output=True, timeout=60)
    return [nib.load(path) for path in sorted(folder.glob("*.nii"))]


def check_equal(stack: Stack, theirs: Any, folder: Path) -> None:
    stack.to_xarray().dcm.to_nifti(folder / "ours.nii.gz")
    one, other = map(nib.as_closest_canonical, (nib.load(folder / "ours.nii.gz"), theirs))
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    # It computes with single precision.
    np.testing.assert_allclose(one.affine, other.affine, atol=5e-4)


def test_mosaics_are_those_of_dcm2niix(
    corpus: Path, tmp_path: Path, compared: Callable[[Path], None]
) -> None:
    files = runs = plain = 0
    for number, stack in enumerate(real(corpus)):
        if is_plain(stack):
            # Their pixels have been cut to 256 x 256, which 48 tiles do not fit.
            plain += len(stack.instances)
            continue
        for path, own in lone(stack):
            (theirs,) = converted([path], tmp_path / f"{number} {path.name}")
            check_equal(own, theirs, tmp_path)
            compared(path)
            files += 1
        if not stack.irregularities:
            assert stack.dims in (("t", "z", "y", "x"), ("diffusion", "z", "y", "x"))
            paths = [Path(one.source.name) for one in stack.instances]
            (theirs,) = converted(paths, tmp_path / str(number))
            check_equal(stack, theirs, tmp_path)
            runs += 1
    assert (files, runs, plain) == (25, 6, 2)


def test_tiles_places_and_times_are_those_of_nibabel(corpus: Path) -> None:
    files = timed = 0
    for stack in real(corpus):
        if is_plain(stack):
            continue
        for path, own in lone(stack):
            dataset = dcmread(path)
            theirs = MosaicWrapper(dataset)
            tiles = own.arrangement.numbers
            expected = np.moveaxis(theirs.get_unscaled_data(), -1, 0)[tiles]
            np.testing.assert_array_equal(own.to_dask(), expected)
            np.testing.assert_allclose(own.facts["position"][0], theirs.image_position, atol=1e-6)
            told = get_csa_header(dataset)["tags"]
            times = told["MosaicRefAcqTimes"]["items"] if "MosaicRefAcqTimes" in told else []
            v = own.to_xarray()
            assert bool(times) == ("slice_time" in v.coords)
            if times:
                np.testing.assert_allclose(v["slice_time"], np.array(times)[tiles], atol=1e-3)
            files, timed = files + 1, timed + bool(times)
    assert files == 25 and timed == 22


# Made mosaics


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 35])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_tiles_fill_a_square_grid(
    tmp_path: Path, form: int, count: int, orientation: Sequence[float]
) -> None:
    tiles = volume(count, 6, 8)
    stack = stack_of(mosaic(tmp_path, tiles, form=form, orientation=orientation))
    assert stack.kind == "mosaic" and stack.dims == ("z", "y", "x")
    assert not stack.notes and not stack.irregularities
    v = stack.to_xarray()
    np.testing.assert_array_equal(v, tiles)
    expected = np.eye(4)
    expected[:3, 0] = np.multiply(orientation[:3], SPACING[1])
    expected[:3, 1] = np.multiply(orientation[3:], SPACING[0])
    expected[:3, 3] = FIRST
    if count > 1:
        expected[:3, 2] = GAP * normal(orientation)
        np.testing.assert_allclose(v.dcm.affine, expected, atol=1e-6)
        np.testing.assert_allclose(v["slice_time"], 50.0 * np.arange(count))
        assert v["slice_time"].dims == ("z",)
    np.testing.assert_allclose(stack.facts["position"][0], FIRST, atol=1e-6)


def test_the_header_is_one_that_nibabel_reads(tmp_path: Path) -> None:
    dataset = dcmread(mosaic(tmp_path, volume(5)))
    theirs = get_csa_header(dataset)
    assert theirs["tags"]["NumberOfImagesInMosaic"]["items"] == [5]
    assert theirs["tags"]["MosaicRefAcqTimes"]["items"] == [0, 50, 100, 150, 200]
    np.testing.assert_array_equal(np.moveaxis(MosaicWrapper(dataset).get_data(), -1, 0), volume(5))


@pytest.mark.parametrize(("count", "grid"), [(5, (2, 3)), (2, (1, 2)), (12, (3, 4))])
def test_rows_without_tiles_may_be_left_out(
    tmp_path: Path, count: int, grid: tuple[int, int]
) -> None:
    # 7 rows are no whole number of the full grid's.
    tiles = volume(count, 7, 7)
    stack = stack_of(mosaic(tmp_path, tiles, grid=grid))
    assert not stack.notes
    np.testing.assert_array_equal(stack.to_dask(), tiles)
    np.testing.assert_allclose(stack.facts["position"][0], FIRST, atol=1e-6)


def test_a_full_grid_comes_first_and_is_said_where_tiles_are_not_square(tmp_path: Path) -> None:
    tiles = volume(6, 6, 9)
    stack = stack_of(mosaic(tmp_path, tiles))
    assert codes(stack) == ["mosaic-grid"] and "6 x 9" in stack.notes[0].text
    with pytest.warns(DcmdaskWarning, match="9 x 9"):
        np.testing.assert_array_equal(stack.to_dask(), tiles)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
def test_slices_may_go_against_the_orientation(
    tmp_path: Path, orientation: Sequence[float]
) -> None:
    tiles, direction = volume(5), -normal(orientation)
    stack = stack_of(mosaic(tmp_path, tiles, private=told(5, direction), orientation=orientation))
    steps = np.outer(range(5), GAP * direction)
    np.testing.assert_allclose(stack.facts["position"], FIRST + steps, atol=1e-6)
    v = stack.to_xarray()
    np.testing.assert_array_equal(v, tiles[::-1])
    np.testing.assert_allclose(v["slice_time"], [200, 150, 100, 50, 0])
    np.testing.assert_allclose(v.dcm.affine[:3, 3], FIRST + steps[-1], atol=1e-6)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_run_of_volumes(tmp_path: Path, compressed: bool) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(3)])
    stack = stack_of(run_of(tmp_path, tiles, compressed=compressed))
    v = stack.to_xarray()
    assert v.dims == ("t", "z", "y", "x")
    np.testing.assert_array_equal(v, tiles)
    np.testing.assert_allclose(v["t"], [0, 2000, 4000])
    assert v["slice_time"].dims == ("z",)


def test_slice_times_of_their_own_in_each_volume(tmp_path: Path) -> None:
    for number in range(2):
        private = told(4, normal(AXIAL), [10.0 * number + k for k in range(4)])
        more = {"AcquisitionTime": f"10000{number}", "InstanceNumber": number + 1}
        mosaic(tmp_path, volume(4, seed=number), name=str(number), private=private, **more)
    times = stack_of(tmp_path).to_xarray()["slice_time"]
    assert times.dims == ("t", "z")
    np.testing.assert_allclose(times, [[0, 1, 2, 3], [10, 11, 12, 13]])


def test_echoes_and_components_are_dimensions(tmp_path: Path) -> None:
    made = {}
    for echo, time in enumerate((12.5, 30.0)):
        for number, letter in enumerate("MP"):
            tiles = made[echo, number] = volume(5, seed=2 * echo + number)
            mosaic(
                tmp_path,
                tiles,
                name=f"{echo}{number}",
                EchoTime=time,
                ImageType=["ORIGINAL", "PRIMARY", letter, "ND", "MOSAIC"],
            )
    v = stack_of(tmp_path).to_xarray()
    assert v.dims == ("echo", "component", "z", "y", "x")
    np.testing.assert_allclose(v["echo"], [12.5, 30.0])
    assert v["component"].values.tolist() == ["magnitude", "phase"]
    for (echo, number), tiles in made.items():
        np.testing.assert_array_equal(v[echo, number], tiles)


def test_volumes_of_other_numbers_of_tiles_are_other_arrays(tmp_path: Path) -> None:
    for number, count in enumerate((5, 7)):
        mosaic(tmp_path, volume(count), name=str(number), InstanceNumber=number + 1)
    found = scan(tmp_path)[0].stacks
    assert [stack.shape for stack in found] == [(7, 6, 6), (5, 6, 6)]
    for stack in found:
        np.testing.assert_array_equal(stack.to_dask(), volume(stack.shape[0]))


# Headers that are not whole, or lie


def test_without_the_private_header_frames_are_plain(tmp_path: Path) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(2)])
    stack = stack_of(run_of(tmp_path, tiles, private={}))
    assert is_plain(stack) and stack.shape == (2, 18, 18) and stack.kind == "mosaic"
    with pytest.warns(DcmdaskWarning) as told:
        frames = stack.to_dask().compute()
    assert any(
        "private header that tells their number is not there" in str(w.message) for w in told
    )
    np.testing.assert_array_equal(frames[1][:6, 6:12], tiles[1, 1])


@pytest.mark.parametrize("form", [1, 2])
def test_a_header_that_is_cut_is_right_or_none(tmp_path: Path, form: int) -> None:
    tiles = volume(5)
    whole = csa(told(5, normal(AXIAL)), form)
    seen = set()
    for length in range(0, len(whole), 50):
        (tmp_path / "0").unlink(missing_ok=True)
        stack = stack_of(mosaic(tmp_path, tiles, private=whole[:length] or {}))
        if is_plain(stack):
            assert stack.shape == (1, 18, 18)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DcmdaskWarning)
                np.testing.assert_array_equal(stack.to_dask(), tiles)
            np.testing.assert_allclose(stack.facts["position"][0], FIRST, atol=1e-6)
        seen.update(codes(stack))
    assert seen == {"mosaic", "mosaic-normal"}


@given(
    at=st.lists(st.integers(0, 1 << 16), max_size=8),
    values=st.lists(st.integers(0, 255), min_size=8, max_size=8),
    form=st.sampled_from([1, 2]),
)
def test_damage_raises_nothing(at: list[int], values: list[int], form: int) -> None:
    data = bytearray(csa(told(5, normal(AXIAL)), form))
    for place, value in zip(at, values, strict=False):
        data[place % len(data)] = value
    elements = {
        0x00290010: RawValue("LO", b"SIEMENS CSA HEADER"),
        0x00291010: RawValue("OB", bytes(data)),
    }
    found = mosaic_of(elements, EXPLICIT_LITTLE)
    assert found.tiles >= 0 and len(found.normal) in (0, 3)


@pytest.mark.parametrize("number", ["0", "-5", "1000000000", "x", "50", "10", "5.5", ""])
def test_numbers_of_tiles_that_do_not_fit_leave_frames_plain(tmp_path: Path, number: str) -> None:
    private = {**told(5, normal(AXIAL)), "NumberOfImagesInMosaic": ("US", [number])}
    stack = stack_of(mosaic(tmp_path, volume(5, 7, 7), private=private))
    assert is_plain(stack) and stack.shape == (1, 21, 21)


def test_a_normal_of_another_orientation_leaves_frames_plain(tmp_path: Path) -> None:
    stack = stack_of(mosaic(tmp_path, volume(5), private=told(5, (1, 0, 0))))
    assert is_plain(stack) and "another orientation" in stack.notes[-1].text


def test_times_that_are_not_as_many_as_tiles(tmp_path: Path) -> None:
    private = told(5, normal(AXIAL), times=[0, 50, 100, 150])
    v = stack_of(mosaic(tmp_path, volume(5), private=private)).to_xarray()
    assert "slice_time" not in v.coords
    np.testing.assert_array_equal(v, volume(5))


def test_any_private_block(tmp_path: Path) -> None:
    path = mosaic(tmp_path, volume(5), block=0x42)
    np.testing.assert_array_equal(stack_of(path).to_dask(), volume(5))


def test_the_mr_header_tells_the_number_of_tiles_alone(tmp_path: Path) -> None:
    path = mosaic(tmp_path, volume(5), private={}, mr_header=5)
    stack = stack_of(path)
    assert codes(stack) == ["mosaic-normal"]
    with pytest.warns(DcmdaskWarning, match="that of the orientation is taken"):
        v = stack.to_xarray()
    np.testing.assert_array_equal(v, volume(5))
    assert "slice_time" not in v.coords


@pytest.mark.parametrize("gap", [None, 0, -3.25])
def test_without_a_spacing_the_thickness_is_taken(tmp_path: Path, gap: float | None) -> None:
    stack = stack_of(mosaic(tmp_path, volume(5), SpacingBetweenSlices=gap))
    assert codes(stack) == ["mosaic-spacing"]
    with pytest.warns(DcmdaskWarning, match="the thickness is taken"):
        np.testing.assert_allclose(np.diff(stack.to_xarray()["z"]), 3.0)


@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
@pytest.mark.parametrize("value", [None, b"x"])
def test_without_a_place_tiles_have_none(tmp_path: Path, keyword: str, value: bytes | None) -> None:
    path = mosaic(tmp_path, volume(5), **({keyword: None} if value is None else {}))
    if value is not None:
        tag = {"ImagePositionPatient": 0x32, "ImageOrientationPatient": 0x37}.get(keyword)
        head = struct.pack("<2H2s", 0x20, tag, b"DS") if tag else b"\x28\0\x30\0DS"
        data = bytearray(path.read_bytes())
        data[data.index(head) + 8] = value[0]
        path.write_bytes(data)
    stack = stack_of(path)
    assert stack.kind == "mosaic" and bool(stack.irregularities) == (value is not None)
    assert stack.geometry is None or stack.geometry.affine is None
    found = stack.to_dask(on_irregular="keep").compute()
    np.testing.assert_array_equal(found, volume(5))


# Work


def test_one_plane_decodes_one_mosaic_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = np.stack([volume(9, seed=seed) for seed in range(3)])
    stack = stack_of(run_of(tmp_path, tiles, compressed=True))
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    np.testing.assert_array_equal(stack.frames[1, 4], tiles[1, 4])
    assert len(decoded) == 1
    np.testing.assert_array_equal(stack.frames[2], tiles[2])
    assert len(decoded) == 2
    np.testing.assert_array_equal(stack.frames[:, 3:5], tiles[:, 3:5])
    assert len(decoded) == 5
    v = stack.to_xarray()
    assert len(decoded) == 5
    np.testing.assert_array_equal(v[0, 2].compute(scheduler="sync"), tiles[0, 2])
    assert len(decoded) == 6
    np.testing.assert_array_equal(v.compute(scheduler="sync"), tiles)
    assert len(decoded) == 9


def test_chunks_are_whole_mosaics(tmp_path: Path) -> None:
    tiles = np.stack([volume(30, 64, 64, seed=seed) for seed in range(3)])
    v = stack_of(run_of(tmp_path, tiles, compressed=True)).to_dask()
    assert v.chunks[1] == (30,)


def test_pickled_stacks_and_arrays_read_the_same(tmp_path: Path) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(2)])
    stack = stack_of(run_of(tmp_path, tiles))
    for one in (stack.to_dask(), stack.frames, pickle.loads(pickle.dumps(stack)).to_dask()):
        np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(one))[...]), tiles)
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path), tiles.reshape(-1, 6, 6))


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(4)])
    files = sorted(run_of(tmp_path, tiles).iterdir())
    for paths in (files, files[::-1], [files[2], files[0], files[3], files[1]]):
        np.testing.assert_array_equal(scan(paths)[0].to_dask(), tiles)


# Export, jobs, commands


@pytest.mark.parametrize("format_", ["zarr", "ome-zarr"])
@pytest.mark.parametrize("values", ["stored", "modality"])
def test_stores_verify(tmp_path: Path, format_: str, values: str) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(3)])
    series = scan(run_of(tmp_path / "in", tiles))[0]
    store = tmp_path / "o.zarr"
    report = dcmdask.to_zarr(series, store, format=format_, values=values)
    assert report.shape == tiles.shape
    found = verify(store, tmp_path / "in")
    assert found.ok, found


def test_commands_name_mosaics(tmp_path: Path) -> None:
    tiles = np.stack([volume(5, seed=seed) for seed in range(3)])
    run_of(tmp_path, tiles)
    for command in ("scan", "info"):
        done = commands.run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "mosaic" in done.stdout
        assert "t:3 z:5 y:6 x:6" in done.stdout.replace(": ", ":").replace(",", "")
    done = commands.run("info", "--json", tmp_path)
    assert '"mosaic"' in done.stdout and json.loads(done.stdout)
