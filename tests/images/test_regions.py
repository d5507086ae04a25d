"""Ultrasound regions are attributes, in words; what is odd about them is a note."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from made_images import LOOP, loop
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UltrasoundImageStorage

import dcmdask
from dcmdask import DcmdaskWarning, Stack, scan

FIELDS = ("format", "data_type", "x0", "y0", "x1", "y1", "x_units", "y_units", "x_delta", "y_delta")


def region(
    bounds: tuple[int, int, int, int] = (0, 0, 7, 5),
    kind: tuple[int, int] = (1, 1),
    units: tuple[int, int] = (3, 3),
    deltas: tuple[float, float] = (0.03, 0.04),
) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = bounds[:2]
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = bounds[2:]
    item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = deltas
    return item


DOPPLER = region((0, 3, 7, 5), (3, 3), (4, 7), (0.01, -20.0))
BOTH = {"SequenceOfUltrasoundRegions": [region(), DOPPLER]}
WORDS = {
    "format": ["2D", "spectral"],
    "data_type": ["tissue", "PW spectral Doppler"],
    "x0": [0, 0],
    "y0": [0, 3],
    "x1": [7, 7],
    "y1": [5, 5],
    "x_units": ["cm", "s"],
    "y_units": ["cm", "cm/s"],
    "x_delta": [0.03, 0.01],
    "y_delta": [0.04, -20.0],
}


def still(folder: Path, name: str = "0", **elements: Any) -> Path:
    return loop(folder, LOOP[:1], name, **{"SOPClassUID": UltrasoundImageStorage, **elements})


def stack_of(src: Path) -> Stack:
    (stack,) = scan(src)[0].stacks
    return stack


def regions(v: xr.DataArray) -> dict[str, Any]:
    return {name: v.attrs[f"region_{name}"] for name in FIELDS if f"region_{name}" in v.attrs}


@pytest.mark.parametrize("frames", [1, 4])
def test_all_regions_are_attributes(tmp_path: Path, frames: int) -> None:
    made = still(tmp_path, **BOTH) if frames == 1 else loop(tmp_path, FrameTime=40, **BOTH)
    stack = stack_of(made)
    assert not stack.notes
    said = "1 frame" if frames == 1 else "ultrasound loop of 4 frames"
    assert stack.summary == f"{said}, 2 regions"
    v = stack.to_xarray()
    assert regions(v) == WORDS
    # The one region in space has the coordinates.
    np.testing.assert_allclose(v.x, 0.3 * np.arange(8))
    np.testing.assert_allclose(v.y, 0.4 * np.arange(6))


def test_codes_are_those_of_the_standard(tmp_path: Path) -> None:
    """PS3.3 C.8.5.5.1.1, C.8.5.5.1.2 and C.8.5.5.1.15."""
    made = [region(kind=(min(code, 5), code), units=(min(code, 12), 0)) for code in range(19)]
    v = stack_of(still(tmp_path, SequenceOfUltrasoundRegions=made)).to_xarray()
    found = regions(v)
    expected = ["none", "2D", "M-mode", "spectral", "wave form", "graphics"]
    assert found["format"][:6] == expected
    assert found["data_type"][0x0A] == "ECG trace" and found["data_type"][0x0F].startswith("integr")
    assert found["data_type"][0x12] == "other physiological"
    units = ["none", "%", "dB", "cm", "s", "Hz", "dB/s", "cm/s", "cm2", "cm2/s", "cm3", "cm3/s"]
    assert found["x_units"][:13] == [*units, "deg"]
    assert found["y_units"] == ["none"] * 19


def test_a_code_that_is_none(tmp_path: Path) -> None:
    odd = region(kind=(77, 99), units=(13, 3))
    found = regions(stack_of(still(tmp_path, SequenceOfUltrasoundRegions=[odd])).to_xarray())
    assert found["format"] == found["data_type"] == found["x_units"] == ["unknown"]


@pytest.mark.parametrize(
    "bounds", [(0, 0, 9, 5), (0, 0, 7, 7), (3, 0, 2, 5), (0, 4, 7, 3), (0, 0, 2**32 - 1, 5)]
)
def test_regions_outside_of_the_picture(tmp_path: Path, bounds: tuple[int, int, int, int]) -> None:
    made = {"SequenceOfUltrasoundRegions": [region(bounds), DOPPLER]}
    stack = stack_of(loop(tmp_path, FrameTime=40, **made))
    (note,) = stack.notes
    assert note.code == "regions" and "1 of 2" in note.text and "inside of 6 x 8" in note.text
    with pytest.warns(DcmdaskWarning, match="do not lie inside"):
        v = stack.to_xarray()
    assert regions(v)["x1"] == [bounds[2], 7]
    np.testing.assert_array_equal(v, LOOP)


@pytest.mark.parametrize(
    "keyword", ["RegionSpatialFormat", "RegionLocationMaxX1", "PhysicalDeltaY"]
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_region_that_cannot_be_read(tmp_path: Path, keyword: str, is_there: bool) -> None:
    odd = region(kind=(5, 0), units=(0, 0))
    setattr(odd, keyword, None)
    if not is_there:
        delattr(odd, keyword)
    stack = stack_of(still(tmp_path, SequenceOfUltrasoundRegions=[odd, DOPPLER]))
    (note,) = stack.notes
    assert note.code == "regions" and "1 of 2" in note.text and "cannot be read" in note.text
    with pytest.warns(DcmdaskWarning, match="left out"):
        assert regions(stack.to_xarray())["format"] == ["spectral"]


def test_the_first_pixel_behind_a_region(tmp_path: Path) -> None:
    made = [region((0, 0, 8, 6))]
    assert not stack_of(still(tmp_path, SequenceOfUltrasoundRegions=made)).notes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_delta_that_is_no_number(tmp_path: Path, value: float) -> None:
    odd = region(kind=(3, 3), deltas=(value, 1.0))
    stack = stack_of(still(tmp_path, SequenceOfUltrasoundRegions=[odd]))
    assert [note.code for note in stack.notes] == ["regions"]
    assert stack.summary == "1 frame"


def test_a_damaged_sequence(tmp_path: Path) -> None:
    path = still(tmp_path, **BOTH)
    data = path.read_bytes()
    at = data.index(b"\x18\x00\x11\x60") + 8
    path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    found = scan(path)
    # Only pydicom, if anything, reads it.
    assert len(found) + len(found.skipped) == 1


def test_regions_of_some_images_only(tmp_path: Path) -> None:
    still(tmp_path, "0", **BOTH)
    still(tmp_path, "1", SequenceOfUltrasoundRegions=[region()])
    stack = stack_of(tmp_path)
    assert "regions" in {note.code for note in stack.notes}
    with pytest.warns(DcmdaskWarning):
        assert not regions(stack.to_xarray())


def test_they_are_kept_in_files(tmp_path: Path) -> None:
    path = loop(tmp_path, FrameTime=40, **BOTH)
    series = scan(path)[0]
    series.to_xarray().to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "v.nc", engine="h5netcdf") as back:
        assert {name: list(values) for name, values in regions(back).items()} == WORDS
    for format_ in ("zarr", "ome-zarr"):
        store = tmp_path / f"{format_}.zarr"
        dcmdask.to_zarr(series, store, format=format_)
        assert dcmdask.verify(store, series).ok
        told: Any = zarr.open_group(store).attrs["dcmdask"]
        assert {name: told[f"region_{name}"] for name in FIELDS} == WORDS


def test_real_regions(corpus: Path) -> None:
    path = corpus / "pydicom-data/data_store/data/OBXXXX1A.dcm"
    v = scan(path)[0].to_xarray()
    found, expected = regions(v), dcmread(path).SequenceOfUltrasoundRegions
    assert found["format"] == ["2D", "wave form"] and found["data_type"] == ["tissue", "ECG trace"]
    assert found["x_units"] == ["cm", "s"] and found["y_units"] == ["cm", "none"]
    assert found["x_delta"] == [one.PhysicalDeltaX for one in expected]
    assert found["y1"] == [one.RegionLocationMaxY1 for one in expected]


@given(
    at=st.lists(st.integers(0, 1 << 16), max_size=8),
    values=st.lists(st.integers(0, 255), min_size=8, max_size=8),
)
def test_damage_raises_nothing(at: list[int], values: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = still(Path(folder), **BOTH)
        data = bytearray(path.read_bytes())
        start = data.index(b"\x18\x00\x12\x60")
        stop = data.index(b"\x28\x00\x02\x00", start)
        for place, value in zip(at, values, strict=False):
            data[start + place % (stop - start)] = value
        path.write_bytes(data)
        for series in scan(path):
            for stack in series.stacks:
                assert stack.attributes("stored") and stack.summary
                assert all(note.text for note in stack.notes)
