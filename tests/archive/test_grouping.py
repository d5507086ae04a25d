"""Series and stacks of what belongs together, whatever identifiers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_series import AXIAL, OBLIQUE, along, classic, enhanced
from make_dicom import noise
from pydicom import dcmread

import dcmdask
from dcmdask import AmbiguousSourceError, DcmdaskWarning, IrregularSeriesError, Series, scan

FRAMES = noise(6, 5, 7, dtype="i2", bits=12)
EVEN = 2.5 * np.arange(6)


def one(folder: Path) -> Series:
    (series,) = scan(folder)
    return series


# Identifiers


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize(
    "uids",
    [
        [f"1.2.{n}" for n in range(6)],
        ["1.2.1"] * 3 + ["1.2.2"] * 3,
        ["1.2.1"] * 5 + [None],
        ["1.2.1"] + ["1.2.2"] * 5,
    ],
    ids=["each its own", "two halves", "one has none", "one other"],
)
def test_identifiers_that_differ_are_a_note(keyword: str, uids: Any, tmp_path: Path) -> None:
    """dwv issue 1989, medInria-public issue 156: identifiers renewed file by file."""
    classic(tmp_path, FRAMES, along(OBLIQUE, EVEN), orientation=OBLIQUE, each={keyword: uids})
    (stack,) = one(tmp_path).stacks
    (note,) = stack.notes
    assert note.code in ("study-uids", "frame-of-reference-uids")
    assert note.text.startswith(f"{len(set(uids) - {None})} ")
    assert ("some instances have none" in note.text) is (None in uids)
    assert stack.geometry.regular
    with pytest.warns(DcmdaskWarning, match="Instance UIDs|Frame of Reference UIDs"):
        np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path), FRAMES)


def test_times_of_which_each_file_has_its_own_frame_of_reference(tmp_path: Path) -> None:
    where = [(t, z) for t in range(2) for z in range(3)]
    classic(
        tmp_path, FRAMES, along(AXIAL, [2.5 * z for _, z in where]),
        each={
            "FrameOfReferenceUID": [f"1.2.{n}" for n in range(6)],
            "TemporalPositionIdentifier": [t + 1 for t, _ in where],
        },
    )  # fmt: skip
    (stack,) = one(tmp_path).stacks
    assert stack.dims == ("t", "z", "y", "x")


@pytest.mark.parametrize("shift", [0.0, 1.25], ids=["repeated", "interleaved"])
def test_volumes_in_one_another_s_way_are_apart(shift: float, tmp_path: Path) -> None:
    for number in range(2):
        classic(
            tmp_path / f"{number}", FRAMES[3 * number :][:3],
            along(AXIAL, EVEN[:3] + number * shift), FrameOfReferenceUID=f"1.2.{number + 1}",
            each={"SOPInstanceUID": [f"1.3.{number}.{n}" for n in range(3)]},
        )  # fmt: skip
    series = one(tmp_path)
    stacks = series.stacks
    assert [note.text for note in series.notes] == [
        "2 stacks, which differ in Frame of Reference UID (2)"
    ]
    assert [len(stack.frame_numbers) for stack in stacks] == [3, 3]
    assert all(stack.notes == () and stack.geometry.regular for stack in stacks)


@pytest.mark.parametrize(
    ("other", "columns", "told"),
    [
        ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 4, "rows and columns (2)"),
        ((1.0, 1e-5, -1e-9, -1e-5, 1.0, 0.0), 4, "rows and columns (2)"),
        ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), 7, "orientation (2)"),
        (
            (1.0, 0.0, 0.0, 0.0, 0.9999999, 4e-4),
            1500,
            "orientation or pixel spacing, by less than 0.001",
        ),
    ],
)
def test_what_stacks_differ_in(
    other: tuple[float, ...], columns: int, told: str, tmp_path: Path
) -> None:
    frames = noise(1, 1500, 1500) if columns == 1500 else FRAMES[:1]
    for number, orientation in enumerate([AXIAL, other]):
        shown = frames[..., :columns] if number else frames
        classic(
            tmp_path / f"{number}", shown, along(orientation, [number]), orientation=orientation,
            each={"SOPInstanceUID": [f"1.3.{number}"]},
        )  # fmt: skip
    (note,) = one(tmp_path).notes
    assert note.code == "stacks" and note.text.endswith(f"which differ in {told}")


def test_what_three_stacks_differ_in(tmp_path: Path) -> None:
    """Two have one orientation: only the frames of reference tell these apart."""
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    for number, orientation in enumerate([sagittal, AXIAL, AXIAL]):
        classic(
            tmp_path / f"{number}", FRAMES[:3], along(orientation, EVEN[:3]),
            orientation=orientation, FrameOfReferenceUID=f"1.2.{max(number, 1)}",
            each={"SOPInstanceUID": [f"1.3.{number}.{n}" for n in range(3)]},
        )  # fmt: skip
    (note,) = one(tmp_path).notes
    assert note.text == "3 stacks, which differ in orientation (2), Frame of Reference UID (2)"


def test_enhanced_volumes_of_two_frames_of_reference_are_apart(tmp_path: Path) -> None:
    for number in range(2):
        path = enhanced(tmp_path, FRAMES, along(AXIAL, EVEN), name=f"{number}")
        uid = b"1.2.826.0.1.3680043.8.498.5"
        path.write_bytes(path.read_bytes().replace(uid, uid[:-1] + b"%d" % number))
    assert len(one(tmp_path).stacks) == 2


def test_images_without_positions_are_one_stack(tmp_path: Path) -> None:
    each = {"FrameOfReferenceUID": [f"1.2.{n}" for n in range(6)]}
    classic(tmp_path, FRAMES, None, modality="MR", each=each)
    (stack,) = one(tmp_path).stacks
    assert stack.dims == ("frame", "y", "x")


# Types of stored values


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["u2", "i2"], "i4"),
        (["u1", "u2"], "u2"),
        (["u1", "i2"], "i2"),
        (["i1", "u1", "i4"], "i4"),
        (["u4", "i4"], "i8"),
    ],
    ids="+".join,
)
def test_types_are_joined(types: list[str], expected: str, tmp_path: Path) -> None:
    """vtk-dicom issue 211, dcm2niix issue 458: by turns, and frames of the extremes."""
    frames = [noise(1, 5, 7, dtype=types[n % len(types)], seed=n)[0] for n in range(6)]
    for frame in frames:
        limits = np.iinfo(frame.dtype)
        frame[0, :2] = limits.min, limits.max
    for n, frame in enumerate(frames):
        classic(
            tmp_path / f"{n}", frame[np.newaxis], along(AXIAL, [2.5 * n]),
            SOPInstanceUID=f"1.2.3.{n}", RescaleSlope=1, RescaleIntercept=-1,
            each={"SOPInstanceUID": [f"1.2.3.{n}"]},
        )  # fmt: skip
    (stack,) = one(tmp_path).stacks
    assert stack.dtype == expected and stack.geometry.spacing[0] == 2.5
    assert scan(tmp_path).rows()[0]["dtype"] == np.dtype(expected).name
    assert [note.code for note in stack.notes] == ["stored-types"]
    with pytest.warns(DcmdaskWarning, match=f"joined as {np.dtype(expected)}"):
        x = stack.to_dask()
    assert x.dtype == expected
    np.testing.assert_array_equal(x.compute(), np.array(frames, expected))
    np.testing.assert_array_equal(x[:, 0, :2].compute(), np.array(frames, expected)[:, 0, :2])
    np.testing.assert_array_equal(x[1].compute(), frames[1])
    with pytest.warns(DcmdaskWarning):
        modality = stack.to_dask("modality").compute()
    np.testing.assert_array_equal(modality, np.array(frames, "i8") - 1)
    with pytest.warns(DcmdaskWarning):
        shown = stack.to_dask("display").compute()
    for n, path in enumerate(one.source.name for one in stack.instances):
        alone = dcmdask.from_dicom(path, values="display").compute()
        np.testing.assert_array_equal(shown[n], alone[0])


def test_types_of_colour_and_fractions_are_apart(tmp_path: Path) -> None:
    for n, frames in enumerate((noise(1, 5, 7, dtype="i2"), noise(1, 5, 7, dtype="f4"))):
        each = {"SOPInstanceUID": [f"1.2.3.{n}"]}
        classic(tmp_path / f"{n}", frames, along(AXIAL, [2.5 * n]), each=each)
    assert len(one(tmp_path).stacks) == 2


# Orientation


def turned(angle: float) -> list[str]:
    """An axial orientation that is turned about the row, in the digits of a header."""
    return [f"{x:.9g}" for x in (1, 0, 0, 0, np.cos(angle), np.sin(angle))]


def of_orientations(folder: Path, angles: Any, columns: int = 200) -> Series:
    frames = noise(len(angles), 200, columns, dtype="u1")
    paths = classic(folder, frames, along(AXIAL, EVEN[: len(angles)]), spacing=(0.5, 0.5))
    for path, angle in zip(paths, angles, strict=True):
        dataset = dcmread(path)
        dataset.ImageOrientationPatient = turned(angle)
        dataset.save_as(path)
    return one(folder)


@pytest.mark.parametrize(
    "angles",
    [
        [0, 1e-5, -1e-5, 2e-5, 3e-5, 0],
        [0, 0, 0, 0, 0, 1e-3],
        [-1e-3, -5e-4, 0, 1e-4, 5e-4, 1e-3],
    ],
    ids=["last digits", "one other", "noise"],
)
def test_orientations_of_less_than_a_quarter_of_a_pixel(angles: Any, tmp_path: Path) -> None:
    """dwv issue 1877, dcm2niix issue 427: 200 pixels by a thousandth are a fifth of one."""
    (stack,) = of_orientations(tmp_path, angles).stacks
    assert stack.geometry.regular and stack.dims == ("z", "y", "x")


def test_other_orientations_are_other_stacks(tmp_path: Path) -> None:
    series = of_orientations(tmp_path, [0, 0, 0, 2e-3, 2e-3, 4e-3])
    assert [len(stack.frame_numbers) for stack in series.stacks] == [3, 2, 1]


# Positions that are nearly even


def test_nearly_even_positions(tmp_path: Path) -> None:
    """dicom2nifti issue 36."""
    distances = np.array([0, 0.6, 1.2, 1.9, 2.5, 3.1])
    classic(tmp_path / "a", FRAMES, along(AXIAL, distances))
    with pytest.warns(DcmdaskWarning, match="off an even grid by up to 0.0"):
        v = one(tmp_path / "a").to_xarray()
    np.testing.assert_allclose(v.z, -7 + 0.62 * np.arange(6), atol=1e-6)
    np.testing.assert_allclose(v.position_z, -7 + distances, atol=1e-6)
    assert v.dcm.affine[2, 2] == pytest.approx(0.62)
    np.testing.assert_array_equal(v.values, FRAMES)


def test_the_tolerance_is_an_option_everywhere(tmp_path: Path) -> None:
    classic(tmp_path / "a", FRAMES, along(AXIAL, [0, 2.5, 5.1, 7.5, 10, 12.5]))
    series = one(tmp_path / "a")
    (stack,) = series.stacks
    calls: list[Any] = [
        series.to_dask, series.to_xarray, stack.to_dask, stack.to_xarray,
        lambda **how: stack.flattened("stored", "error", **how),
        lambda **how: dcmdask.from_dicom(tmp_path / "a", **how),
        lambda **how: dcmdask.to_zarr(tmp_path / "a", tmp_path / "a.zarr", **how),
        lambda **how: dcmdask.to_zarr(
            tmp_path / "a", tmp_path / "b.zarr", format="ome-zarr", **how
        ),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(IrregularSeriesError, match="tolerance"):
            call()
        with pytest.warns(DcmdaskWarning, match="by up to 0.1 mm"):
            call(tolerance=0.2)
    with pytest.warns(DcmdaskWarning, match="by up to 0.1 mm"):
        assert dcmdask.verify(tmp_path / "a.zarr", tmp_path / "a").ok
    assert [len(part.frame_numbers) for part in stack.within(0.2).split()] == [6]
    assert stack.within(None) is stack
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a number of millimetres"):
            stack.within(wrong)
    with pytest.raises(ValueError, match="are for series"):
        dcmdask.from_dicom(next((tmp_path / "a").iterdir()), tolerance=1)


# Copies of a scan in single-frame and in multi-frame files


def twice(folder: Path, frames: np.ndarray, others: np.ndarray) -> None:
    """A scan of which `others` are the frames of an enhanced file."""
    positions = along(AXIAL, EVEN[: len(frames)])
    classic(
        folder, frames, positions, modality="MR",
        each={"ImageType": [["ORIGINAL", "PRIMARY", "M"]] * len(frames)},
    )  # fmt: skip
    enhanced(folder, others, positions, name="enhanced", contents=[{}] * len(others))


def test_copies_are_named_and_one_is_taken(tmp_path: Path) -> None:
    """As an archive has them: classic files and an enhanced one of a scan, with equal pixels."""
    twice(tmp_path / "a", FRAMES, FRAMES)
    series = one(tmp_path / "a")
    assert [stack.dims for stack in series.stacks] == [("z", "y", "x")] * 2
    assert series.copies == {1: 0}
    assert [found.code for found in series.irregularities] == ["duplicate"]
    assert "single-frame and multi-frame files (2)" in series.notes[0].text
    (row,) = scan(tmp_path / "a").rows()
    assert not row["regular"] and "copies" in row["irregularities"][0]
    calls: list[Any] = [
        series.to_dask, series.to_xarray,
        lambda **how: dcmdask.from_dicom(tmp_path / "a", **how),
        lambda **how: dcmdask.to_zarr(tmp_path / "a", tmp_path / "a.zarr", **how),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(AmbiguousSourceError, match="on_duplicate='first'"):
            call()
        with pytest.raises(ValueError, match="on_duplicate is one of error, first"):
            call(on_duplicate="last")
        with pytest.warns(DcmdaskWarning, match="6 frames are copies") as caught:
            found = call(on_duplicate="first")
        assert [warning.message.code for warning in caught] == ["copies"]
        assert found.shape == FRAMES.shape
    with pytest.warns(DcmdaskWarning, match="6 frames are copies"):
        np.testing.assert_array_equal(series.to_dask(on_duplicate="first"), FRAMES)
    with pytest.warns(DcmdaskWarning, match="6 frames are copies"):
        assert dcmdask.verify(tmp_path / "a.zarr", tmp_path / "a").ok


def test_other_pixels_are_no_copies(tmp_path: Path) -> None:
    twice(tmp_path, FRAMES, FRAMES[::-1])
    with pytest.raises(AmbiguousSourceError, match="2 stacks"):
        one(tmp_path).to_dask(on_duplicate="first")


def test_copies_of_a_part_are_apart(tmp_path: Path) -> None:
    twice(tmp_path, FRAMES[:3], FRAMES[:3])
    classic(
        tmp_path / "more", FRAMES[3:], along(AXIAL, EVEN[3:]), modality="MR",
        each={
            "ImageType": [["ORIGINAL", "PRIMARY", "M"]] * 3,
            "SOPInstanceUID": [f"1.2.{n}" for n in range(3)],
        },
    )  # fmt: skip
    series = one(tmp_path)
    assert [len(stack.frame_numbers) for stack in series.stacks] == [6, 3]
    assert series.copies == {}


def test_single_and_multi_frame_files_of_one_volume_are_one(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES[::2], along(AXIAL, EVEN[::2]), modality="MR")
    positions = along(AXIAL, EVEN[1::2])
    enhanced(tmp_path, FRAMES[1::2], positions, name="enhanced", contents=[{}] * 3)
    (stack,) = one(tmp_path).stacks
    np.testing.assert_array_equal(stack.to_dask(), FRAMES)
