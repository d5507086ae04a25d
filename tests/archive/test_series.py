"""Folders of files in a known geometry, each classified, ordered, labelled and named right."""

import pickle
import random
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_series import AXIAL, OBLIQUE, SERIES, along, classic, direction, enhanced
from make_dicom import noise
from pydicom import dcmread
from pydicom.dataset import Dataset

import dcmdask
from dcmdask import AmbiguousSourceError, DcmdaskWarning, IrregularSeriesError, scan
from dcmdask.archive.series import Series

FRAMES = noise(6, 5, 7, dtype="i2", bits=12)
EVEN = 2.5 * np.arange(6)
# Made to be wrong somewhere.
GAP = np.array([0, 2.5, 5, 10, 12.5, 17.5])
UNEVEN = np.array([0, 2.5, 5.1, 7.5, 11.9, 12.5])


def one(folder: Path) -> Series:
    (series,) = scan(folder)
    return series


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_regular_series(tmp_path: Path, orientation: Any) -> None:
    positions = along(orientation, EVEN)
    classic(tmp_path, FRAMES, positions, orientation=orientation)
    series = one(tmp_path)
    assert series.uid == SERIES and series.irregularities == ()
    v = series.to_xarray()
    assert v.dims == ("z", "y", "x") and v.dtype == "i2"
    np.testing.assert_array_equal(v.values, FRAMES)
    # In mm along the image's own axes, from the origin of the patient's.
    row, column = np.reshape(orientation, (2, 3))
    x, y, z = np.stack([row, column, np.cross(row, column)]) @ positions[0]
    np.testing.assert_allclose(v.z, z + EVEN, atol=1e-6)
    np.testing.assert_allclose(v.y, y + 0.5 * np.arange(5), atol=1e-6)
    np.testing.assert_allclose(v.x, x + 0.75 * np.arange(7), atol=1e-6)
    np.testing.assert_allclose(v.position_z, positions[:, 2], atol=1e-6)
    assert ("position_x" in v.coords) is (orientation is OBLIQUE)
    affine = v.dcm.affine
    np.testing.assert_allclose(affine, series.stacks[0].geometry.affine, atol=1e-6)
    for z in range(6):
        np.testing.assert_allclose((affine @ [0, 0, z, 1])[:3], positions[z], atol=2e-6)
    step = (affine @ [1, 0, 0, 1] - affine @ [0, 0, 0, 1])[:3]
    np.testing.assert_allclose(step, 0.75 * np.array(orientation[:3]), atol=1e-6)
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path).compute(), FRAMES)
    np.testing.assert_array_equal(np.asarray(series.stacks[0].frames), FRAMES)


def test_frames_against_the_normal_are_turned_round(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN[::-1]))
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path).compute(), FRAMES[::-1])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(6)), numbers=st.permutations(range(1, 7)))
def test_neither_order_nor_numbers_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], numbers: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    paths = classic(folder, FRAMES, along(OBLIQUE, EVEN), orientation=OBLIQUE, numbers=numbers)
    x = dcmdask.from_dicom([paths[i] for i in order])
    np.testing.assert_array_equal(x.compute(), FRAMES)


@pytest.mark.parametrize(
    ("distances", "kind"),
    [(GAP, "missing"), (UNEVEN, "uneven"), (np.array([0, 2.5, 5, 5, 7.5, 10]), "duplicate")],
    ids=["missing", "uneven", "duplicate"],
)
def test_what_is_irregular_is_an_error(tmp_path: Path, distances: Any, kind: str) -> None:
    classic(tmp_path, FRAMES, along(OBLIQUE, distances), orientation=OBLIQUE)
    (stack,) = one(tmp_path).stacks
    assert [one.code for one in stack.arrangement.irregularities] == [kind]
    for make in (lambda: dcmdask.from_dicom(tmp_path), stack.to_dask, stack.to_xarray):
        with pytest.raises(IrregularSeriesError) as caught:
            make()
        assert " mm" in str(caught.value) and "on_irregular='keep'" in str(caught.value)
        assert str(tmp_path) in str(caught.value) or kind == "missing"
        assert "Made^For^Tests" not in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert str(again) == str(caught.value)
    kept = stack.to_xarray(on_irregular="keep")
    np.testing.assert_allclose(kept.z - kept.z[0], distances, atol=2e-6)
    if kind != "duplicate":
        np.testing.assert_array_equal(kept.values, FRAMES)


def test_gaps_are_named_and_filled(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, GAP), PixelPaddingValue=-2000)
    (stack,) = one(tmp_path).stacks
    with pytest.raises(IrregularSeriesError, match=r"7\.5.*15"):
        stack.to_dask()
    v = stack.to_xarray(on_irregular="fill")
    assert v.shape == (8, 5, 7)
    np.testing.assert_array_equal(v.coords["missing"], [0, 0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(v.z, -7 + 2.5 * np.arange(8), atol=1e-6)
    assert (v.values[3] == -2000).all() and (v.values[6] == -2000).all()
    np.testing.assert_array_equal(v.values[[0, 1, 2, 4, 5, 7]], FRAMES)
    assert (stack.to_dask(on_irregular="fill", fill_value=7)[3] == 7).all().compute()
    modality = stack.to_xarray("modality", on_irregular="fill")
    if modality.dtype.kind == "f":
        assert np.isnan(modality.values[3]).all()
    parts = [part.to_dask() for part in stack.split()]
    assert [len(part) for part in parts] == [3, 2, 1]
    np.testing.assert_array_equal(da.concatenate(parts).compute(), FRAMES)


def test_tilt_is_regular_and_kept_exactly(tmp_path: Path) -> None:
    positions = along(AXIAL, EVEN) + np.outer(EVEN, [0, np.tan(np.radians(15)), 0])
    classic(tmp_path, FRAMES, positions)
    (stack,) = one(tmp_path).stacks
    assert stack.geometry.regular
    with pytest.warns(DcmdaskWarning, match="tilted by 15°"):
        affine = stack.to_xarray().dcm.affine
    for z in range(6):
        np.testing.assert_allclose((affine @ [0, 0, z, 1])[:3], positions[z], atol=1e-6)


@pytest.mark.parametrize("tilt", [0, 15])
def test_frames_of_a_tilted_gantry_have_no_x_and_y_in_common(tilt: float, tmp_path: Path) -> None:
    """In a store of the frames of one file, which has no z to tell how far each has moved."""
    positions = along(AXIAL, EVEN) + np.outer(EVEN, [0, np.tan(np.radians(tilt)), 0])
    file = enhanced(tmp_path / "in", FRAMES, positions)
    dcmdask.to_zarr(file, tmp_path / "v.zarr")
    names = set(zarr.open_group(tmp_path / "v.zarr").array_keys())
    assert {"x", "y", "patient"} & names == (set() if tilt else {"x", "y", "patient"})
    assert dcmdask.verify(tmp_path / "v.zarr", file).ok


def test_localizers_and_other_sizes_are_other_stacks(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN))
    classic(
        tmp_path / "odd", noise(1, 8, 8, dtype="i2"), along(AXIAL, [0]),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], each={"SOPInstanceUID": ["1.2.3.1"]},
    )  # fmt: skip
    classic(
        tmp_path / "turned", FRAMES[:2], along(OBLIQUE, [0, 1]), orientation=OBLIQUE,
        each={"SOPInstanceUID": ["1.2.3.2", "1.2.3.3"]},
    )  # fmt: skip
    series = one(tmp_path)
    assert [len(stack.frame_numbers) for stack in series.stacks] == [6, 2, 1]
    assert [stack.kind for stack in series.stacks] == ["volume", "volume", "localizer"]
    with pytest.raises(AmbiguousSourceError, match="3 stacks") as caught:
        dcmdask.from_dicom(tmp_path)
    assert "localizer" in str(caught.value)
    np.testing.assert_array_equal(series.stacks[0].to_dask().compute(), FRAMES)


def test_several_series_are_listed(tmp_path: Path) -> None:
    classic(tmp_path / "a", FRAMES, along(AXIAL, EVEN))
    classic(tmp_path / "b", FRAMES[:2], along(AXIAL, EVEN[:2]), series=SERIES + ".2")
    found = scan(tmp_path)
    assert len(found) == 2 and len(found[SERIES]) == 6
    with pytest.raises(AmbiguousSourceError) as caught:
        dcmdask.from_dicom(tmp_path)
    assert SERIES in str(caught.value) and SERIES + ".2" in str(caught.value)
    with pytest.raises(ValueError, match="empty"):
        scan("")
    with pytest.raises(AmbiguousSourceError, match="no DICOM images"):
        (tmp_path / "empty").mkdir()
        dcmdask.from_dicom(tmp_path / "empty")


def grid(times: int, echoes: int, components: int, positions: int) -> np.ndarray:
    return noise(times * echoes * components * positions, 5, 7, dtype="u2", bits=12).reshape(
        times, echoes, components, positions, 5, 7
    )


def test_echoes_and_components(tmp_path: Path) -> None:
    values = grid(1, 3, 2, 4)[0]
    where = [(e, c, z) for e in range(3) for c in range(2) for z in range(4)]
    random.Random(1).shuffle(where)
    classic(
        tmp_path,
        np.array([values[w] for w in where]),
        along(AXIAL, [3.0 * z for *_, z in where]),
        modality="MR",
        each={
            "EchoTime": [[2.46, 4.92, 7.38][e] for e, *_ in where],
            "EchoNumbers": [e + 1 for e, *_ in where],
            "ImageType": [["ORIGINAL", "PRIMARY", "MP"[c]] for _, c, _ in where],
        },
    )
    v = one(tmp_path).to_xarray()
    assert v.dims == ("echo", "component", "z", "y", "x")
    np.testing.assert_array_equal(v.values, values)
    np.testing.assert_allclose(v.echo, [2.46, 4.92, 7.38])
    assert v.component.values.tolist() == ["magnitude", "phase"]
    # Frames of an array without labels: the last spatial axis fastest.
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path).compute(), values.reshape(-1, 5, 7))


@pytest.mark.parametrize("told", ["temporal", "trigger", "acquisition"])
def test_time(tmp_path: Path, told: str) -> None:
    values = grid(3, 1, 1, 4)[:, 0, 0]
    where = [(t, z) for t in range(3) for z in range(4)]
    each: Any = {
        "temporal": {"TemporalPositionIdentifier": [t + 1 for t, _ in where]},
        "trigger": {"TriggerTime": [40.0 * t for t, _ in where]},
        # Each frame has a time of its own; those of one position tell the order.
        "acquisition": {
            "AcquisitionDate": ["20200101"] * 12,
            "AcquisitionTime": [f"1200{10 * t + 2 * z:02}.5" for t, z in where],
        },
    }[told]
    frames = np.array([values[w] for w in where])
    classic(tmp_path, frames, along(AXIAL, [3.0 * z for _, z in where]), modality="MR", each=each)
    v = one(tmp_path).to_xarray()
    assert v.dims == ("t", "z", "y", "x")
    np.testing.assert_array_equal(v.values, values)
    assert told != "temporal" or "t" not in v.coords
    if told == "trigger":
        np.testing.assert_allclose(v.t, [0, 40, 80])
    if told == "acquisition":
        np.testing.assert_allclose(v.t, [0, 10_000, 20_000])


def test_enhanced_equals_classic(tmp_path: Path) -> None:
    values = grid(3, 1, 1, 4)[:, 0, 0]
    where = [(t, z) for t in range(3) for z in range(4)]
    random.Random(2).shuffle(where)
    frames = np.array([values[w] for w in where])
    positions = along(OBLIQUE, [3.0 * z for _, z in where])
    classic(
        tmp_path / "classic", frames, positions, orientation=OBLIQUE, modality="MR",
        each={
            "TemporalPositionIdentifier": [t + 1 for t, _ in where],
            "TriggerTime": [40.0 * t for t, _ in where],
        },
    )  # fmt: skip
    enhanced(
        tmp_path / "enhanced", frames, positions, orientation=OBLIQUE,
        contents=[
            {"StackID": "1", "InStackPositionNumber": z + 1, "TemporalPositionIndex": t + 1}
            for t, z in where
        ],
        macros=[
            {"CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": 40.0 * t}}
            for t, _ in where
        ],
    )  # fmt: skip
    a, b = one(tmp_path / "classic").to_xarray(), one(tmp_path / "enhanced").to_xarray()
    np.testing.assert_array_equal(a.values, values)
    np.testing.assert_array_equal(b.values, values)
    assert a.dims == b.dims and set(a.coords) == set(b.coords)
    for name in a.coords:
        np.testing.assert_allclose(a[name], b[name])
    np.testing.assert_allclose(a.dcm.affine, b.dcm.affine)


def test_diffusion(tmp_path: Path) -> None:
    values = grid(5, 1, 1, 4)[:, 0, 0]
    weights = [0, 0, 1000, 1000, 2000]
    ways = [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]]
    where = [(t, z) for t in range(5) for z in range(4)]
    random.Random(3).shuffle(where)
    enhanced(
        tmp_path,
        np.array([values[w] for w in where]),
        along(AXIAL, [3.0 * z for _, z in where]),
        contents=[
            {"StackID": "1", "FrameAcquisitionDateTime": f"202001011200{10 * t + z:02}"}
            for t, z in where
        ],
        macros=[
            {
                "MRDiffusionSequence": {
                    "DiffusionBValue": float(weights[t]),
                    "DiffusionGradientDirectionSequence": [direction(ways[t])],
                }
            }
            for t, _ in where
        ],
    )
    v = one(tmp_path).to_xarray()
    assert v.dims == ("diffusion", "z", "y", "x")
    np.testing.assert_allclose(v.b_value, weights)
    for volume in range(5):
        way = [float(v[f"direction_{axis}"][volume]) for axis in "xyz"]
        match = ways.index(way) if weights[volume] and volume else volume
        np.testing.assert_array_equal(v.values[volume], values[match])
    assert np.isnan(v.direction_x[:2]).all()


def incomplete(folder: Path) -> tuple[np.ndarray, list[Path]]:
    """Three times at four positions, of which one frame is missing."""
    values = grid(3, 1, 1, 4)[:, 0, 0]
    where = [(t, z) for t in range(3) for z in range(4) if (t, z) != (1, 2)]
    paths = classic(
        folder, np.array([values[w] for w in where]), along(AXIAL, [3.0 * z for _, z in where]),
        modality="MR", each={"TriggerTime": [40.0 * t for t, _ in where]},
    )  # fmt: skip
    return values, paths


def test_an_incomplete_grid(tmp_path: Path) -> None:
    values, paths = incomplete(tmp_path)
    (stack,) = one(tmp_path).stacks
    with pytest.raises(IrregularSeriesError, match="t 1 at 6 mm") as caught:
        stack.to_dask()
    # The frame of that time before it along z.
    assert f"(near {paths[5]})" in str(caught.value)
    v = stack.to_xarray(on_irregular="fill", fill_value=9)
    expected = values.copy()
    expected[1, 2] = 9
    np.testing.assert_array_equal(v.values, expected)
    np.testing.assert_array_equal(np.argwhere(v.coords["missing"].values), [[1, 2]])
    # Without labels nothing would tell a frame that is not there from one that is.
    kept = dcmdask.from_dicom(tmp_path, on_irregular="keep")
    there = np.delete(values.reshape(12, 5, 7), 6, axis=0)
    np.testing.assert_array_equal(kept.compute(), there)
    filled = dcmdask.from_dicom(tmp_path, on_irregular="fill", fill_value=9)
    np.testing.assert_array_equal(filled.compute(), expected.reshape(12, 5, 7))


def test_the_first_frame_of_a_volume_is_missing(tmp_path: Path) -> None:
    """Then the next along z is named."""
    where = [(t, z) for t in range(3) for z in range(4) if (t, z) != (1, 0)]
    paths = classic(
        tmp_path, noise(11, 5, 7), along(AXIAL, [3.0 * z for _, z in where]), modality="MR",
        each={"TriggerTime": [40.0 * t for t, _ in where]},
    )  # fmt: skip
    (found,) = one(tmp_path).irregularities
    assert found.code == "missing"
    assert str(found) == f"1 of 12 frames are missing: t 1 at 0 mm (near {paths[4]})"


def test_each_position_lacks_a_frame_of_another_time(tmp_path: Path) -> None:
    """Six times with a pause, at five positions with five frames each: no full grid of five."""
    lacked = [1, 2, 3, 4, 2]
    where = [(t, z) for t in range(6) for z in range(5) if t != lacked[z]]
    seconds = [0, 1, 2, 5, 6, 7]
    frames = noise(25, 5, 7)
    classic(
        tmp_path, frames, along(AXIAL, [3.0 * z for _, z in where]), modality="MR",
        numbers=[1] * 25,
        each={
            "AcquisitionDate": ["20200101"] * 25,
            "AcquisitionTime": [f"1200{seconds[t]:02}.{37 * z:03}" for t, z in where],
        },
    )  # fmt: skip
    with pytest.warns(DcmdaskWarning, match="t is their order at each"):
        v = one(tmp_path).to_xarray()
    assert v.dims == ("t", "z", "y", "x") and v.shape == (5, 5, 5, 7)
    rows = np.array([[where.index(cell) for cell in where if cell[1] == z] for z in range(5)]).T
    np.testing.assert_array_equal(v.values, frames[rows])
    times = [[1000 * seconds[where[row][0]] + 37 * where[row][1] for row in line] for line in rows]
    np.testing.assert_allclose(v.acquisition_time, times)


def test_dimensions_of_the_object_itself(tmp_path: Path) -> None:
    """Labelling of arterial spins: no attribute that we know tells control from label."""
    where = [(label, t, z) for label in (2, 1) for t in range(3) for z in range(4)]
    frames = noise(len(where), 5, 7)
    pointers = [
        (0x00209056, "Stack"),
        (0x20051429, "Label Type"),
        (0x00209128, ""),
        (0x00209057, ""),
    ]

    def dimension(pointer: int, label: str) -> Dataset:
        item = Dataset()
        item.DimensionIndexPointer, item.DimensionDescriptionLabel = pointer, label
        return item

    def saved(name: str, values: list[list[int]]) -> None:
        enhanced(
            tmp_path / name, frames, along(AXIAL, [3.0 * z for _, _, z in where]),
            contents=[{"StackID": "1", "DimensionIndexValues": one} for one in values],
            DimensionIndexSequence=[dimension(*one) for one in pointers],
        )  # fmt: skip

    saved("asl", [[1, label, 1 + t, 1 + z] for label, t, z in where])
    v = one(tmp_path / "asl").to_xarray()
    assert v.dims == ("t", "label_type", "z", "y", "x")
    assert v.label_type.values.tolist() == [1, 2]
    expected = frames.reshape(2, 3, 4, 5, 7)[::-1].swapaxes(0, 1)
    np.testing.assert_array_equal(v.values, expected)
    # Indices that make no full grid are not believed, and nothing else tells.
    saved("lying", [[1, label, 1, 1 + z] for label, t, z in where])
    with pytest.raises(IrregularSeriesError, match="24 frames share 4 positions"):
        one(tmp_path / "lying").to_dask()
    # Positions win over indices that count them.
    saved("turned", [[1, label, 1 + t, 1 + (z + 1) % 4] for label, t, z in where])
    with pytest.warns(DcmdaskWarning, match="contradicts Image Position"):
        np.testing.assert_array_equal(one(tmp_path / "turned").to_dask(), expected)


def test_the_user_says_what_tells_frames_apart(tmp_path: Path) -> None:
    """By trigger times all positions have the same; by the numbers, each its own order."""
    where = [(t, z) for t in range(3) for z in range(4)]
    frames = noise(12, 5, 7)
    classic(
        tmp_path, frames, along(AXIAL, [3.0 * z for _, z in where]), modality="MR",
        numbers=[1 + 2 - t for t, _ in where],
        each={
            "TriggerTime": [40.0 * t for t, _ in where],
            "EchoTime": [10.0 + 5 * (t % 2) for t, _ in where],
        },
    )  # fmt: skip
    series = one(tmp_path)
    shape = (3, 4, 5, 7)
    np.testing.assert_array_equal(series.to_dask(), frames.reshape(shape))
    backwards = series.to_xarray(order_by="InstanceNumber")
    np.testing.assert_array_equal(backwards.values, frames.reshape(shape)[::-1])
    (stack,) = series.stacks
    with pytest.raises(IrregularSeriesError, match="not all frames have ContentTime"):
        series.to_dask(order_by="ContentTime")
    with pytest.raises(TypeError, match="order_by takes keywords, not 3"):
        series.to_dask(order_by=3)
    assert stack.ordered_by(None) is stack
    assert stack.ordered_by("TriggerTime").arrangement.notes == ()
    with pytest.raises(IrregularSeriesError, match="no grid of EchoTime, TriggerTime"):
        series.to_dask(order_by=["EchoTime", "TriggerTime"])
    with pytest.raises(ValueError, match="not 'SliceTime'"):
        series.to_dask(order_by="SliceTime")
    for one_thing in (["ComplexImageComponent"] * 2, ["EchoTime", "EffectiveEchoTime"]):
        with pytest.raises(ValueError, match=f"{' and '.join(one_thing)}, which are one dimension"):
            series.to_dask(order_by=["TriggerTime", *one_thing])
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path, order_by="TriggerTime"), frames)
    dcmdask.to_zarr(tmp_path, tmp_path / "a.zarr", order_by="InstanceNumber")
    stored = zarr.open_group(tmp_path / "a.zarr")["pixels"]
    np.testing.assert_array_equal(stored[:], frames.reshape(shape)[::-1])
    assert dcmdask.verify(tmp_path / "a.zarr", tmp_path).ok


def test_no_padding_that_is_right_for_all(tmp_path: Path) -> None:
    classic(
        tmp_path, FRAMES, along(AXIAL, GAP), PixelPaddingValue=-2000,
        each={"RescaleIntercept": [0, 1, 2, 3, 4, 5]}, RescaleSlope=1,
    )  # fmt: skip
    series = one(tmp_path)
    with pytest.raises(ValueError, match="pass fill_value"):
        series.to_dask("modality", on_irregular="fill")
    filled = series.to_dask("modality", on_irregular="fill", fill_value=-7).compute()
    assert (filled[3] == -7).all() and (filled[5] == FRAMES[4] + 4).all()
    kept = series.to_dask("modality", on_irregular="keep").compute()
    np.testing.assert_array_equal(kept, FRAMES + np.arange(6)[:, np.newaxis, np.newaxis])


def test_the_same_uid_with_other_pixels(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN), each={"SOPInstanceUID": ["1.2.3"] * 6})
    series = one(tmp_path)
    assert any("1.2.3" in found.text for found in series.irregularities)
    for make in (series.to_dask, series.stacks[0].to_dask):
        with pytest.raises(IrregularSeriesError, match="6 different files have the SOP Instance"):
            make()
    np.testing.assert_array_equal(series.to_dask(on_irregular="keep").compute(), FRAMES)


def test_each_orientation_is_a_stack(tmp_path: Path) -> None:
    """As of a radial acquisition; ten thousand must not take ten thousand times as long."""
    angles = np.linspace(0, np.pi / 2, 50)
    (path, *_) = classic(tmp_path, noise(1, 256, 256, dtype="i2"), along(AXIAL, [0]))
    (template,) = one(tmp_path).instances
    instances = []
    for number, angle in enumerate(angles):
        facts = template.facts.copy()
        facts["orientation"] = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
        source = replace(template.source, path=f"{path}-{number:02}")
        uid = f"1.2.{number + 1}"
        instances.append(
            replace(template, source=source, sop_instance_uid=uid, table=facts.tobytes())
        )
    series = Series(SERIES, instances)
    assert len(series.stacks) == 50 and all(len(s.instances) == 1 for s in series.stacks)
    assert "and 40 more" in repr(series) and len(repr(series)) < 2000
    with pytest.raises(AmbiguousSourceError, match="50 stacks"):
        series.to_dask()
    # A quarter of a pixel at the end of 256 is 0.98 thousandths.
    for turned, stacks in ((1e-5, 1), (9e-4, 1), (1.1e-3, 2), (0.1, 2)):
        facts = template.facts.copy()
        facts["orientation"] = [1, 0, 0, 0, np.cos(turned), np.sin(turned)]
        other = replace(template, sop_instance_uid="1.2.9", table=facts.tobytes())
        assert len(Series(SERIES, [template, other]).stacks) == stacks


def test_options_of_series_are_refused_for_one_file(tmp_path: Path) -> None:
    (path, *_) = classic(tmp_path, FRAMES, along(AXIAL, EVEN))
    with pytest.raises(ValueError, match="are for series"):
        dcmdask.from_dicom(path, on_irregular="fill")
    np.testing.assert_array_equal(
        dcmdask.from_dicom(one for one in tmp_path.iterdir()).compute(), FRAMES
    )


def test_an_archive_that_is_replaced(tmp_path: Path) -> None:
    paths = classic(tmp_path / "a", FRAMES, along(AXIAL, EVEN))

    def archive(order: list[Path]) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            for path, name in zip(order, sorted(p.name for p in paths), strict=True):
                packed.write(path, name)

    archive(sorted(paths))
    x = dcmdask.from_dicom(f"zip://**::{tmp_path}/a.zip", chunks=1)
    np.testing.assert_array_equal(x.compute(), FRAMES)
    archive(sorted(paths)[::-1])
    with pytest.raises(dcmdask.SourceChangedError, match="another instance"):
        x.compute()


def test_values_beyond_float32(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN), RescaleSlope="1e37", RescaleIntercept=0)
    v = dcmdask.from_dicom(tmp_path, values="modality")
    assert v.dtype == "f8"
    np.testing.assert_array_equal(v.compute(), FRAMES * 1e37)


def test_colours_that_are_not_converted_are_not_shown(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN))
    for option in ({"raw": True}, {"as_rgb": False}, {"force_ybr": True}):
        with pytest.raises(ValueError, match="leave YCbCr"):
            dcmdask.from_dicom(tmp_path, values="display", **option)


def test_a_damaged_file_beside_a_series_is_told(tmp_path: Path) -> None:
    paths = classic(tmp_path / "a", FRAMES, along(AXIAL, EVEN))
    classic(tmp_path / "b", FRAMES[:2], along(AXIAL, EVEN[:2]), series=SERIES + ".2")
    paths[-1].write_bytes(paths[-1].read_bytes()[:-6])
    found = scan(tmp_path)
    for make in (found[SERIES].to_dask, found[SERIES].to_xarray):
        with pytest.warns(DcmdaskWarning, match=r"were left out \(1\): ") as caught:
            v = make()
        assert str(paths[-1]) in str(caught[0].message) and len(v) == 5
    assert len(found[SERIES + ".2"].to_dask()) == 2
    with pytest.warns(DcmdaskWarning, match="left out"):
        assert len(dcmdask.from_dicom(tmp_path / "a")) == 5


def test_labels_need_xarray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classic(tmp_path, FRAMES, along(AXIAL, EVEN))
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"dcmdask\[xarray\]"):
        one(tmp_path).to_xarray()


def test_a_dimension_index_that_lies(tmp_path: Path) -> None:
    enhanced(
        tmp_path, FRAMES, along(AXIAL, EVEN),
        contents=[{"StackID": "1", "InStackPositionNumber": n} for n in (2, 1, 3, 6, 5, 4)],
    )  # fmt: skip
    (stack,) = one(tmp_path).stacks
    with pytest.warns(DcmdaskWarning, match="contradicts Image Position"):
        x = stack.to_dask()
    np.testing.assert_array_equal(x.compute(), FRAMES)


def test_several_multi_frame_files_are_one_series(tmp_path: Path) -> None:
    for part in range(2):
        rows = slice(3 * part, 3 * part + 3)
        enhanced(tmp_path, FRAMES[rows], along(AXIAL, EVEN[rows]), name=f"part{part}")
    np.testing.assert_array_equal(dcmdask.from_dicom(tmp_path).compute(), FRAMES)


def test_no_positions(tmp_path: Path) -> None:
    classic(tmp_path, FRAMES, None, numbers=[3, 1, 2, 6, 5, 4], modality="MR")
    (stack,) = one(tmp_path).stacks
    assert stack.dims == ("frame", "y", "x") and stack.geometry is None and stack.kind == "frames"
    assert any("Instance Number" in note.text for note in stack.notes)
    with pytest.warns(DcmdaskWarning, match="no usable position"):
        x = stack.to_dask()
    np.testing.assert_array_equal(x.compute(), FRAMES[[1, 2, 0, 5, 4, 3]])


def test_slopes_of_their_own(tmp_path: Path) -> None:
    slopes, intercepts = [0.5, 1.25, 2.0, 1.1, 0.3, 7.7], [0, 1, 2, 3, 4, -5]
    paths = classic(
        tmp_path, FRAMES, along(AXIAL, EVEN), Units="BQML",
        each={"RescaleSlope": slopes, "RescaleIntercept": intercepts},
    )  # fmt: skip
    v = one(tmp_path).to_xarray(values="modality")
    assert v.dtype == "f4" and v.attrs["units"] == "BQML"
    expected = [
        frame * float(dcmread(path).RescaleSlope) + float(dcmread(path).RescaleIntercept)
        for frame, path in zip(FRAMES, paths, strict=True)
    ]
    np.testing.assert_array_equal(v.values, np.array(expected, "f4"))
    np.testing.assert_allclose(v.coords["slope"], slopes)
    x = dcmdask.from_dicom(tmp_path, values="modality")
    np.testing.assert_array_equal(x.compute(), v.values)


def test_hounsfield_units_stay_integers(tmp_path: Path) -> None:
    bits = {"BitsStored": 13, "HighBit": 12}
    classic(tmp_path, FRAMES, along(AXIAL, EVEN), RescaleSlope=1, RescaleIntercept=-1024, **bits)
    v = one(tmp_path).to_xarray(values="modality")
    assert v.dtype == "i2" and v.attrs["units"] == "HU"
    np.testing.assert_array_equal(v.values, FRAMES - 1024)
    shown = one(tmp_path).to_dask(values="display")
    assert shown.dtype == "u1" and shown.shape == v.shape


def test_the_values_of_one_file(tmp_path: Path) -> None:
    (path, *_) = classic(
        tmp_path, FRAMES, along(AXIAL, EVEN), RescaleSlope=1, RescaleIntercept=-1024
    )
    x = dcmdask.from_dicom(path, values="modality")
    np.testing.assert_array_equal(x.compute(), FRAMES[:1] - 1024)
    assert x.name != dcmdask.from_dicom(path).name
    with pytest.raises(ValueError, match="raw"):
        dcmdask.from_dicom(path, values="modality", raw=True)
    with pytest.raises(ValueError, match="values"):
        dcmdask.from_dicom(path, values="hounsfield")
    with pytest.raises(ValueError, match="on_irregular"):
        dcmdask.from_dicom(tmp_path, on_irregular="ignore")


def test_one_frame_is_decoded_and_headers_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dcmdask.pixels import bulk

    paths = classic(tmp_path, FRAMES, along(AXIAL, EVEN))
    v = one(tmp_path).to_xarray(values="modality")
    for path in paths:
        if path != paths[3]:
            path.unlink()
    decoded: list[int] = []
    original = bulk.decode_frames

    def counted(instance: Any, how: Any, frames: Any, out: Any = None) -> Any:
        decoded.extend(frames)
        return original(instance, how, frames, out)

    for module in ("dcmdask.pixels.bulk", "dcmdask.pixels.frame_array"):
        monkeypatch.setattr(f"{module}.decode_frames", counted, raising=False)
    np.testing.assert_array_equal(v.isel(z=3).values, FRAMES[3])
    assert decoded == [0]
    with pytest.raises((FileNotFoundError, dcmdask.SourceChangedError)) as caught:
        v.isel(z=2).compute()
    assert str(paths[2]) in str(caught.value)


def test_nothing_personal(tmp_path: Path) -> None:
    canary = "CANARY"
    classic(
        tmp_path, FRAMES, along(AXIAL, EVEN), PatientName=canary, PatientID=canary,
        InstitutionName=canary, SeriesDescription=canary, ProtocolName=canary,
        StudyDescription=canary, PatientBirthDate="19700101", StudyDate="20200102",
        OperatorsName=canary, ImageComments=canary,
    )  # fmt: skip
    found = scan(tmp_path)
    series = found[0]
    v = series.to_xarray()
    told = [repr(found), repr(series), repr(series.stacks), repr(series.metadata), repr(v)]
    told += [repr(v.attrs), found.to_frame().drop(columns=["description", "folder"]).to_csv()]
    classic(tmp_path / "uids", FRAMES[:1], along(AXIAL, [0]), series=canary)
    odd = one(tmp_path / "uids")
    told += [repr(odd), repr(odd.metadata), repr(odd.to_xarray().attrs), repr(odd.stacks[0].name)]
    for text in told:
        assert canary not in text and "19700101" not in text and "20200102" not in text


def test_pickled_and_on_a_cluster(tmp_path: Path) -> None:
    from dask.distributed import Client, LocalCluster

    classic(tmp_path, FRAMES, along(OBLIQUE, EVEN), orientation=OBLIQUE)
    series = pickle.loads(pickle.dumps(scan(tmp_path)))[0]
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        np.testing.assert_array_equal(series.to_xarray().values, FRAMES)


def test_a_misspelt_keyword_is_told_the_right_one(tmp_path: Path) -> None:
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, EVEN[:1]))
    series = one(tmp_path)
    stack = series.stacks[0]
    for call, wrong, right in [
        (dcmdask.from_dicom, "chunk", "chunks"),
        (dcmdask.from_dicom, "value", "values"),
        (dcmdask.from_dicom, "row", "raw"),
        (dcmdask.from_dicom, "bit_stored", "bits_stored"),
        (dcmdask.open_frames, "storage_option", "storage_options"),
        (partial(dcmdask.to_zarr, store=tmp_path / "out"), "overwite", "overwrite"),
    ]:
        with pytest.raises(TypeError, match=rf"{wrong!r}: did you mean {right!r}\?"):
            call(path, **{wrong: 1})
    for method in (series.to_dask, series.to_xarray, stack.to_dask, stack.to_xarray):
        with pytest.raises(TypeError, match=r"'on_iregular': did you mean 'on_irregular'\?"):
            method(on_iregular="keep")
        with pytest.raises(TypeError, match="'nonesuch': decoding options are "):
            method(nonesuch=1)
    with pytest.raises(TypeError, match=r"'order_bye': did you mean 'order_by'\?"):
        stack.flattened("stored", "error", order_bye="EchoTime")
    assert not (tmp_path / "out").exists()


def test_options_for_series_are_not_ignored(tmp_path: Path) -> None:
    (path,) = classic(tmp_path, FRAMES[:1], along(AXIAL, EVEN[:1]))
    options: list[dict[str, Any]] = [{"on_irregular": "keep"}, {"order_by": "TriggerTime"}]
    for src in (path, dcmdask.open_frames(path)):
        for option in options:
            with pytest.raises(ValueError, match="are for series"):
                dcmdask.from_dicom(src, **option)
            with pytest.raises(ValueError, match="are for series"):
                dcmdask.to_zarr(src, tmp_path / "out", **option)
        with pytest.raises(ValueError, match="are for series"):
            dcmdask.from_dicom(src, fill_value=1)
    assert not (tmp_path / "out").exists()


def test_files_that_were_left_out_of_the_only_series(tmp_path: Path) -> None:
    """Wherever they lie, and with one text."""
    classic(tmp_path / "a", FRAMES, along(AXIAL, EVEN))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cut.dcm").write_bytes((tmp_path / "a" / "0000").read_bytes()[:-9])
    for call in (dcmdask.from_dicom, lambda src: scan(src)[0].to_dask()):
        with pytest.warns(DcmdaskWarning, match="files that may belong to this series") as caught:
            call(tmp_path)
        (one,) = caught
        assert "cut.dcm: " in str(one.message) and one.message.code == "left-out"
    classic(tmp_path / "c", FRAMES[:1], along(AXIAL, EVEN[:1]), SeriesInstanceUID="1.2.3")
    assert [one.left_out for one in scan(tmp_path)] == [(), ()]
