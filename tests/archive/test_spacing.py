"""Distances of pixels where frames have no position, or no Pixel Spacing, in every output."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from made_series import AXIAL, along, enhanced
from make_dicom import native, noise
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

import dcmdask
from dcmdask import DcmdaskWarning, scan
from dcmdask.dicom.description import describe
from dcmdask.sources import files

ROWS, COLUMNS = 6, 8


def written(path: Path, frames: int = 1, **elements: Any) -> Path:
    """A file without a position."""
    kind = UltrasoundMultiFrameImageStorage if frames > 1 else ComputedRadiographyImageStorage
    own = {"SOPClassUID": kind, "SOPInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(native(noise(frames, ROWS, COLUMNS), **{"Modality": "CR", **own, **elements}))
    return path


def region(across: float, down: float, form: int = 1, units: tuple[int, int] = (3, 3)) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = form, 1
    item.RegionLocationMinX0 = item.RegionLocationMinY0 = 0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = COLUMNS - 1, ROWS - 1
    item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = across, down
    return item


def ultrasound(path: Path, *regions: Dataset, frames: int = 1, **elements: Any) -> Path:
    own = {"Modality": "US", "SequenceOfUltrasoundRegions": list(regions), **elements}
    return written(path, frames, **({"SOPClassUID": UltrasoundImageStorage} | own))


def opened(path: Path) -> xr.DataArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        return scan(path)[0].to_xarray()


def check(v: Any, down: float, across: float) -> None:
    assert v.y.values == pytest.approx(down * np.arange(ROWS))
    assert v.x.values == pytest.approx(across * np.arange(COLUMNS))
    assert (v.y.attrs["units"], v.x.attrs["units"]) == ("mm", "mm")


@pytest.mark.parametrize("frames", [1, 3])
def test_every_output_has_the_same_spacing(frames: int, tmp_path: Path) -> None:
    """cornerstone3D issue 2057: a plain store lost the scale."""
    file = written(tmp_path / "in" / "a", frames, PixelSpacing=["0.5", "0.25"])
    v = opened(tmp_path / "in")
    check(v, 0.5, 0.25)
    assert "spacing_source" not in v.attrs
    for number, source in enumerate((file, tmp_path / "in")):
        target = tmp_path / f"{number}.zarr"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DcmdaskWarning)
            dcmdask.to_zarr(source, target)
            dcmdask.to_zarr(source, tmp_path / f"{number}.ome.zarr", format="ome-zarr")
            assert dcmdask.verify(target, source).ok
        check(xr.open_zarr(target).pixels, 0.5, 0.25)
        ome: Any = zarr.open_group(tmp_path / f"{number}.ome.zarr").attrs["ome"]
        (scale, *_) = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        assert scale["scale"][-2:] == [0.5, 0.25]


def test_spacing_of_a_detector(tmp_path: Path) -> None:
    written(tmp_path / "a", ImagerPixelSpacing=["0.2", "0.1"])
    v = opened(tmp_path)
    check(v, 0.2, 0.1)
    assert v.attrs["spacing_source"] == "ImagerPixelSpacing"
    # Pixel Spacing may be calibrated, and comes first.
    written(tmp_path / "a", ImagerPixelSpacing=["0.2", "0.1"], PixelSpacing=["0.15", "0.075"])
    v = opened(tmp_path)
    check(v, 0.15, 0.075)
    assert "spacing_source" not in v.attrs


@pytest.mark.parametrize("frames", [1, 4])
def test_spacing_of_ultrasound(frames: int, tmp_path: Path) -> None:
    """Centimetres become millimetres; other kinds of regions say nothing of space."""
    spectral, motion = region(0.01, 20.0, 3, (4, 7)), region(0.01, 0.02, 2, (4, 3))
    ultrasound(tmp_path / "a", region(0.03, -0.04), spectral, motion, frames=frames)
    v = opened(tmp_path)
    check(v, 0.4, 0.3)
    assert v.attrs["spacing_source"] == "SequenceOfUltrasoundRegions"
    assert "pixel-spacing" not in {note.code for note in scan(tmp_path)[0].stacks[0].notes}
    file = tmp_path / "a"
    dcmdask.to_zarr(file, tmp_path / "a.zarr")
    stored = xr.open_zarr(tmp_path / "a.zarr").pixels
    check(stored, 0.4, 0.3)
    assert stored.attrs["spacing_source"] == v.attrs["spacing_source"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        dcmdask.to_zarr(scan(file)[0], tmp_path / "series.zarr")
    attributes = [
        zarr.open_group(tmp_path / name).attrs["dcmdask"] for name in ("a.zarr", "series.zarr")
    ]
    assert {one["spacing_source"] for one in attributes} == {v.attrs["spacing_source"]}
    ultrasound(tmp_path / "a", region(0.03, 0.04), region(0.03, 0.04))
    check(opened(tmp_path / "a"), 0.4, 0.3)


def without_delta() -> Dataset:
    one = region(0.03, 0.03)
    del one.PhysicalDeltaX
    return one


SEVERAL = "several spacings"
UNREADABLE = "cannot be read"


@pytest.mark.parametrize(
    ("regions", "why"),
    [
        ([region(0.03, 0.03), region(0.04, 0.04)], SEVERAL),
        ([region(0.03, 0.03), region(0.03, 0.04)], SEVERAL),
        ([region(0.0, 0.0)], UNREADABLE),
        ([region(0.03, 0.03), region(0.0, 0.03)], UNREADABLE),
        ([region(0.03, 0.03), region(np.nan, 0.03)], UNREADABLE),
        ([region(np.inf, 0.03)], UNREADABLE),
        # Spaces of other kinds: the header tells no spacing.
        ([region(0.03, 0.03, 2)], None),
        ([region(0.03, 0.03, units=(0, 0))], None),
        ([without_delta()], None),
    ],
)
def test_regions_that_do_not_tell(regions: list[Dataset], why: str | None, tmp_path: Path) -> None:
    ultrasound(tmp_path / "a", *regions)
    (stack,) = scan(tmp_path)[0].stacks
    notes = [note for note in stack.notes if note.code != "regions"]
    assert [note.code for note in notes] == ["pixel-spacing"] * (why is not None)
    assert all(why and why in note.text for note in notes)
    v = opened(tmp_path)
    assert {"x", "y"}.isdisjoint(v.coords) and "spacing_source" not in v.attrs


def test_a_damaged_sequence_of_regions_loses_no_file(tmp_path: Path) -> None:
    path = ultrasound(tmp_path / "a", region(0.03, 0.04))
    data = path.read_bytes()
    place = data.index(b"\x18\x00\x12\x60")  # Region Spatial Format, with a VR that is none
    path.write_bytes(data[: place + 4] + b"??" + data[place + 6 :])
    (stack,) = scan(tmp_path)[0].stacks
    found = {note.code: UNREADABLE in note.text for note in stack.notes}
    assert found == {"pixel-spacing": True, "regions": True}


def test_regions_of_undefined_length(tmp_path: Path) -> None:
    path = ultrasound(tmp_path / "a", region(0.03, 0.04), region(0.03, 0.04))
    data = path.read_bytes()
    at = data.index(b"\x18\x00\x11\x60SQ\0\0") + 8
    stop = at + 4 + int.from_bytes(data[at : at + 4], "little")
    items, end = data[at + 4 : stop], b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(data[:at] + b"\xff" * 4 + items + end + data[stop:])
    for _ in range(2):  # the walk remembers a sequence
        assert describe(files.locate(path)).facts["spacing"].tolist() == [[0.4, 0.3]]


def test_regions_are_read_with_the_rest_of_the_header(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = files.locate(ultrasound(tmp_path / "a", region(0.03, 0.04)))
    opened_once: list[Any] = []
    original = files.opened
    monkeypatch.setattr(files, "opened", lambda one: opened_once.append(one) or original(one))
    assert describe(source).facts["spacing"].tolist() == [[0.4, 0.3]]
    assert opened_once == [source]


def test_spacings_that_hardly_differ_are_one(tmp_path: Path) -> None:
    """By the rule of orientations and spacings in space: a quarter of a pixel over all of them."""
    ultrasound(tmp_path / "a", region(0.03, 0.04), region(0.03 + 1e-9, 0.04))
    ultrasound(tmp_path / "b", region(0.03, 0.04 + 1e-9), SOPInstanceUID="1.2.5")
    check(opened(tmp_path), 0.4, 0.3)
    ultrasound(tmp_path / "b", region(0.03, 0.045), SOPInstanceUID="1.2.5")
    assert "y" not in opened(tmp_path).coords


def detector(spacing: float, **elements: Any) -> dict[str, Any]:
    return {"ImagerPixelSpacing": [str(spacing)] * 2, **elements}


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (detector(0.1), {}, "1 of 2 frames have no spacing"),
        (detector(0), detector(0), "'Imager Pixel Spacing' of 2 of 2 frames is not positive"),
        (detector(0.1), detector(0.3), "from 0.1 x 0.1 to 0.3 x 0.3 mm"),
        ({"PixelSpacing": ["0.1", "0.1"]}, {}, "1 of 2 frames have no spacing"),
    ],
)
def test_spacings_do_not_part_what_has_no_orientation(
    first: dict[str, Any], second: dict[str, Any], why: str, tmp_path: Path
) -> None:
    written(tmp_path / "a", **first)
    written(tmp_path / "b", SOPInstanceUID="1.2.5", **second)
    (stack,) = scan(tmp_path)[0].stacks
    (text,) = [note.text for note in stack.notes if note.code == "pixel-spacing"]
    assert why in text
    v = opened(tmp_path)
    assert v.shape == (2, ROWS, COLUMNS) and {"x", "y"}.isdisjoint(v.coords)


def test_regions_do_not_part_what_has_no_orientation(tmp_path: Path) -> None:
    ultrasound(tmp_path / "a", region(0.03, 0.04))
    ultrasound(tmp_path / "b", SOPInstanceUID="1.2.5")
    v = opened(tmp_path)
    assert v.shape == (2, ROWS, COLUMNS) and {"x", "y"}.isdisjoint(v.coords)


def test_a_source_of_some_frames_is_none_of_all(tmp_path: Path) -> None:
    written(tmp_path / "a", **detector(0.2))
    for name, uid in (("b", "1.2.5"), ("c", "1.2.6")):
        written(tmp_path / name, SOPInstanceUID=uid, PixelSpacing=["0.2", "0.2"])
    v = opened(tmp_path)
    check(v, 0.2, 0.2)
    assert "spacing_source" not in v.attrs


@pytest.mark.parametrize("lean", [0.0, 0.5])
def test_frames_of_a_file_that_begin_beside_one_another_have_no_x(
    lean: float, tmp_path: Path
) -> None:
    positions = along(AXIAL, [0, 2.5, 5]) + np.outer([0, lean, 2 * lean], [0, 1, 0])
    path = enhanced(tmp_path / "a", noise(3, ROWS, COLUMNS), positions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        dcmdask.to_zarr(path, tmp_path / "a.zarr")
        stored = xr.open_zarr(tmp_path / "a.zarr")
    assert ({"x", "y", "patient"} <= set(stored.coords)) == (lean == 0)


def test_a_file_in_the_patient_has_the_coordinates_of_the_series(corpus: Path) -> None:
    file = next(iter(scan(corpus / "dcm_qa_pdt2/In/Siemens/VE11")[0].files))
    v = scan(file)[0].to_xarray()
    from dcmdask.store.contents import contents

    what = contents(file, values="stored", on_irregular="error", fill_value=None)
    for name, dim in (("y", "row"), ("x", "column")):
        dims, values, attributes = what.coordinates[name]
        assert (dims, attributes) == ((dim,), {"units": "mm"})
        np.testing.assert_array_equal(values, v[name])
    assert int(what.coordinates["patient"][1]) == int(v.patient)
