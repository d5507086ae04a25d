"""Properties that the arrays of every class of images have."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from counting import count_decodings
from highdicom.pm import RealWorldValueMapping
from hypothesis import given, settings
from hypothesis import strategies as st
from made_enhanced import ultrasound
from made_images import (
    detector,
    dose,
    loop,
    mosaic,
    nuclear,
    parametric_map,
    run_of,
    uih,
    vectors,
)
from made_series import AXIAL, SERIES, along, classic, enhanced
from make_dicom import native, noise, saved
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    EnhancedXAImageStorage,
    SegmentationStorage,
    VLWholeSlideMicroscopyImageStorage,
)

import dcmdask
from dcmdask import Stack, scan
from dcmdask.batch.results import keep
from dcmdask.batch.staging import Staging
from dcmdask.sources.folder import Folder


def planes(folder: Path) -> None:
    classic(folder, noise(5, 6, 8, dtype="u2"), along(AXIAL, 2.5 * np.arange(5)))


def times(folder: Path) -> None:
    positions = np.repeat(along(AXIAL, 2.5 * np.arange(3)), 2, axis=0)
    each = {"TemporalPositionIdentifier": [1, 2] * 3, "AcquisitionTime": ["100000", "100002"] * 3}
    classic(folder, noise(6, 6, 8, dtype="u2"), positions, modality="MR", each=each)


def groups(folder: Path) -> None:
    enhanced(folder, noise(4, 6, 8, dtype="u2"), along(AXIAL, 2.5 * np.arange(4)))


def doses(folder: Path) -> None:
    for number, position in enumerate(along(AXIAL, [0, 2.5, 5])):
        frames = noise(1, 6, 8, dtype="u4", seed=number)
        where = {"ImagePositionPatient": position.tolist()}
        dose(folder, frames, None, name="d" * (number + 1), **where)


def mosaics(folder: Path) -> None:
    run_of(folder, noise(15, 6, 8, dtype="u2", bits=12).reshape(3, 5, 6, 8), compressed=True)


def echoes(folder: Path) -> None:
    for number, time in enumerate((12.5, 30.0)):
        tiles = noise(5, 6, 8, dtype="u2", bits=12, seed=number)
        mosaic(folder, tiles, name=str(number), EchoTime=time)


def gates(folder: Path) -> None:
    place = {"DetectorInformationSequence": [detector()], "SpacingBetweenSlices": -2.5}
    told = vectors({"time_slot": 2, "z": 3})
    nuclear(folder, noise(6, 6, 8, dtype="u2"), told, **place)


def windows(folder: Path) -> None:
    told = vectors({"energy_window": 2, "detector": 3})
    nuclear(folder, noise(6, 6, 8, dtype="u2"), told)


def grids(folder: Path) -> None:
    for number in range(2):
        tiles = noise(5, 6, 8, dtype="u2", bits=12, seed=number)
        time = {"AcquisitionTime": f"1000{2 * number:02}", "InstanceNumber": number + 1}
        uih(folder, tiles, along(AXIAL, 2.5 * np.arange(5)), name=str(number), **time)


def ultrasound_volume(folder: Path) -> None:
    places = [(t, z) for t in (1, 2) for z in (1, 2, 3)]
    distances, seconds = [0.75 * z for _, z in places], [0.04 * t for t, _ in places]
    ultrasound(folder, noise(6, 6, 8), ["t", "position"], places, distances, seconds=seconds)


def rotation(folder: Path) -> None:
    angles = {"PositionerPrimaryAngle": -30, "PositionerPrimaryAngleIncrement": [0, 1, 2, 3]}
    loop(folder, FrameTime=40, Modality="XA", **angles)


def quantities(folder: Path) -> None:
    units = {"ADC": codes.UCUM.SquareMillimeterPerSecond, "T1": codes.UCUM.Millisecond}
    mappings = [
        [RealWorldValueMapping(label, "", unit, (0, 65535), slope=0.5)]
        for label, unit in units.items()
    ]
    pixels = noise(6, 6, 8, dtype="u2").reshape(3, 2, 6, 8).transpose(0, 2, 3, 1)
    parametric_map(folder, pixels, mappings)


def segmentation(folder: Path) -> None:
    folder.mkdir()
    uids = {"SOPClassUID": SegmentationStorage, "SeriesInstanceUID": SERIES}
    saved(folder, native(noise(4, 6, 8), Modality="SEG", StudyInstanceUID=SERIES, **uids))


# Files of a class, the dimensions of their one array, and how many of its planes a frame holds.
MADE: dict[str, tuple[Callable[[Path], Any], tuple[str, ...], int]] = {
    "planes": (planes, ("z",), 1),
    "times": (times, ("t", "z"), 1),
    "functional groups": (groups, ("z",), 1),
    "dose": (dose, ("z",), 1),
    "dose by planes": (doses, ("z",), 1),
    "mosaics": (mosaics, ("t", "z"), 5),
    "echoes of mosaics": (echoes, ("echo", "z"), 5),
    "loop": (lambda folder: loop(folder, FrameTime=40), ("t",), 1),
    "colours": (lambda folder: loop(folder, noise(4, 6, 8, 3), FrameTime=40), ("t",), 1),
    "gates": (gates, ("time_slot", "z"), 1),
    "energy windows": (windows, ("energy_window", "detector"), 1),
    "grids": (grids, ("t", "z"), 5),
    "ultrasound volume": (ultrasound_volume, ("t", "z"), 1),
    "rotation": (rotation, ("t",), 1),
    "parametric map": (quantities, ("channel", "z"), 1),
    "segmentation": (segmentation, ("frame",), 1),
}


@pytest.fixture(scope="module", params=MADE)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...], int]:
    make, dims, tiles = MADE[request.param]
    folder = tmp_path_factory.mktemp("made") / "in"
    make(folder)
    return folder, dims, tiles


Made = tuple[Path, tuple[str, ...], int]


def stack_of(src: Any) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def test_dimensions_and_shape_are_known_before_anything_is_decoded(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, dims, _ = made
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    stack = stack_of(folder)
    v = stack.to_xarray()
    assert stack.dims == v.dims == (*dims, "y", "x", "sample")[: v.ndim]
    assert stack.shape == v.shape and stack.dtype == v.dtype and not decoded
    assert v.compute().shape == v.shape and decoded


def test_a_pickled_stack_is_the_same(made: Made) -> None:
    stack = stack_of(made[0])
    stack.to_xarray()
    for one in (stack_of(made[0]), stack):
        back = pickle.loads(pickle.dumps(one))
        assert (back.dims, back.shape, back.kind, back.notes) == (
            (stack.dims, stack.shape, stack.kind, stack.notes)
        )
        xr.testing.assert_identical(back.to_xarray().compute(), stack.to_xarray().compute())


@settings(max_examples=30)
@given(data=st.data())
def test_a_plane_decodes_the_frame_that_holds_it(made: Made, data: Any) -> None:
    folder, dims, _ = made
    stack = stack_of(folder)
    v = stack.to_xarray()
    place = {dim: data.draw(st.integers(0, v.sizes[dim] - 1)) for dim in dims}
    expected = v.values[tuple(place.values())]
    with pytest.MonkeyPatch.context() as patch:
        decoded: list[int] = []
        count_decodings(patch, decoded.append)
        np.testing.assert_array_equal(stack.frames[tuple(place.values())], expected)
        assert len(decoded) == 1
        np.testing.assert_array_equal(v.isel(place).compute(scheduler="sync"), expected)
        assert len(decoded) == 2


def test_the_whole_decodes_each_frame_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, dims, tiles = made
    v = stack_of(folder).to_xarray()
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    v.compute(scheduler="sync")
    assert len(decoded) * tiles == np.prod([v.sizes[dim] for dim in dims])


@settings(max_examples=20)
@given(data=st.data())
def test_the_order_of_files_does_not_matter(made: Made, data: Any) -> None:
    paths = sorted(made[0].iterdir())
    expected = stack_of(paths).to_xarray().compute()
    found = stack_of(data.draw(st.permutations(paths))).to_xarray().compute()
    xr.testing.assert_identical(found, expected)


@pytest.mark.parametrize("values", ["stored", "modality"])
def test_a_store_holds_the_same(made: Made, values: str, tmp_path: Path) -> None:
    series = scan(made[0])[0]
    v = series.to_xarray(values)
    report = dcmdask.to_zarr(series, tmp_path / "o.zarr", values=values)
    assert not report.failures and report.shape == v.shape
    with xr.open_zarr(tmp_path / "o.zarr") as opened:
        back = opened.pixels
        xr.testing.assert_equal(back.compute(), v.compute())
        assert back.dims == v.dims and back.coords.keys() == v.coords.keys()
    assert dcmdask.verify(tmp_path / "o.zarr", series).ok


def test_netcdf_holds_the_same(made: Made, tmp_path: Path) -> None:
    v = stack_of(made[0]).to_xarray()
    v.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "v.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back, v.compute())
        if "patient" in v.coords:
            np.testing.assert_allclose(back.dcm.affine, v.dcm.affine)


def test_the_engine_of_xarray_opens_the_same(made: Made) -> None:
    v = stack_of(made[0]).to_xarray()
    with xr.open_dataset(made[0], engine="dcmdask") as opened:
        xr.testing.assert_equal(opened.pixels.compute(), v.compute().rename(opened.pixels.name))


def test_a_result_of_a_job_holds_the_same(made: Made, tmp_path: Path) -> None:
    v = scan(made[0])[0].to_xarray("modality")
    staging = Staging(Folder.of(tmp_path), "1.2", "job")
    keep({"a": v}, staging)
    found = xr.open_zarr(staging.path("a.zarr")).load()
    xr.testing.assert_equal(found.pixels, v.compute().rename("pixels"))


@pytest.mark.parametrize("is_grid", [True, False])
@pytest.mark.parametrize(
    "sop_class", [SegmentationStorage, VLWholeSlideMicroscopyImageStorage, EnhancedXAImageStorage]
)
def test_dimension_indices_without_positions(tmp_path: Path, sop_class: UID, is_grid: bool) -> None:
    """Frames lie in the full grid of their indices, unless they are segments or tiles."""
    pointers = []
    for tag in (0x00209057, 0x00209128):  # In-Stack Position Number, Temporal Position Index
        pointers.append(Dataset())
        pointers[-1].DimensionIndexPointer = tag
    groups = []
    for z, t in [(1, 1), (1, 2), (2, 1), (2, 2 if is_grid else 3)]:
        content, group = Dataset(), Dataset()
        content.DimensionIndexValues = [z, t]
        group.FrameContentSequence = [content]
        groups.append(group)
    frames = noise(4, 6, 8)
    made = native(
        frames,
        SOPClassUID=sop_class,
        SeriesInstanceUID=SERIES,
        DimensionIndexSequence=pointers,
        PerFrameFunctionalGroupsSequence=groups,
    )
    stack = stack_of(saved(tmp_path, made))
    if sop_class == EnhancedXAImageStorage and is_grid:
        assert stack.dims == ("t", "z", "y", "x")
        np.testing.assert_array_equal(stack.to_dask(), frames.reshape(2, 2, 6, 8).swapaxes(0, 1))
    else:
        assert stack.dims == ("frame", "y", "x")
        np.testing.assert_array_equal(stack.to_dask(), frames)
