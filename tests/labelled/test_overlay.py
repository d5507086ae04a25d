"""Segments, label maps and doses in colours over an image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from made_images import dose
from made_segmentations import COLUMNS, PLANES, ROWS, masks, read, source, written
from made_series import along, classic
from make_dicom import noise
from PIL import Image

from dcmdask import scan
from dcmdask.errors import GeometryError


@pytest.fixture
def images(tmp_path: Path) -> list[Any]:
    return source(tmp_path / "ct")


@pytest.fixture
def ct(images: list[Any], tmp_path: Path) -> xr.DataArray:
    return read(tmp_path / "ct", values="display")


def colours_of(seg: xr.DataArray) -> np.ndarray:
    return np.array(
        [[int(text[k : k + 2], 16) for k in (1, 3, 5)] for text in seg.segment_colour.values]
    )


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_segments_have_their_colours(
    images: list[Any], ct: xr.DataArray, opacity: float, tmp_path: Path
) -> None:
    path = written(tmp_path / "seg.dcm", images, masks(overlapping=True))
    seg = read(path)
    shown = seg.dcm.over(ct, opacity=opacity)
    assert shown.dims == ("z", "y", "x", "sample") and shown.dtype == np.uint8
    assert shown.chunks is not None
    on = read(path, like=ct).values.astype("f8")
    count = on.sum(0)[..., np.newaxis]
    # The mean of the colours of segments that overlap.
    colour = np.einsum("szyx,sc->zyxc", on, colours_of(seg)) / np.maximum(count, 1)
    there = opacity * (count > 0)
    expected = ct.values[..., np.newaxis] * (1 - there) + colour * there
    np.testing.assert_allclose(shown.astype("f8"), expected, atol=0.51)
    np.testing.assert_array_equal(shown.dcm.affine, ct.dcm.affine)
    one, plane = seg.sel(segment="Kidney"), ct[2]
    alone = seg.sel(segment=["Kidney"]).dcm.over(ct, opacity=opacity)
    np.testing.assert_array_equal(one.dcm.over(plane, opacity=opacity), alone[2])


def test_a_label_map_looks_like_its_segments(
    images: list[Any], ct: xr.DataArray, tmp_path: Path
) -> None:
    seg = read(written(tmp_path / "seg.dcm", images, masks()))
    shown = seg.dcm.over(ct)
    np.testing.assert_array_equal(seg.dcm.labelmap().dcm.over(ct), shown)
    # highdicom describes the background as a segment of its own, of number 0.
    pixels = (masks() * np.arange(1, 4)).max(-1).astype(np.uint8)
    label_map = read(written(tmp_path / "map.dcm", images, pixels, kind="LABELMAP"))
    assert 0 in label_map.attrs["label_numbers"]
    np.testing.assert_array_equal(label_map.dcm.over(ct), shown)
    plain = seg.drop_vars("segment_colour")
    np.testing.assert_array_equal(plain.dcm.labelmap().dcm.over(ct), plain.dcm.over(ct))


def test_one_plane_is_shown_where_it_is(images: list[Any], tmp_path: Path) -> None:
    for image in images:
        image.SliceThickness = 5
    pixels = np.ones((1, ROWS, COLUMNS, 1), np.uint8)
    path = written(tmp_path / "seg.dcm", images[2:3], pixels, labels=("Liver",))
    ct = read(tmp_path / "ct") * 0
    there = read(path).dcm.over(ct, window=(100, 10)).any(["y", "x", "sample"])
    assert there.values.tolist() == [False, False, True, False, False, False]
    assert read(path, like=ct[2:3])[0].all()


def test_the_whole_range_of_a_type(ct: xr.DataArray, images: list[Any], tmp_path: Path) -> None:
    seg = read(written(tmp_path / "seg.dcm", images, masks()))
    values = ct.values.astype("i2") * 100
    values[0, 0, :2] = -32768, 32000
    image = ct.copy(data=values)
    np.testing.assert_array_equal(seg.dcm.over(image), seg.dcm.over(image.astype("f8")))
    assert seg.dcm.over(ct > 100).dtype == np.uint8


def test_a_window_and_other_grids(images: list[Any], ct: xr.DataArray, tmp_path: Path) -> None:
    seg = read(written(tmp_path / "seg.dcm", images, masks()))
    image = read(tmp_path / "ct", values="modality")
    lower, upper = int(image.min()), int(image.max())
    window = (lower + upper) / 2, float(upper - lower)
    np.testing.assert_array_equal(seg.dcm.over(image), seg.dcm.over(image, window=window))
    empty = seg.dcm.like(ct, method="nearest").max("segment") == 0
    plain = seg.dcm.over(image, window=(0, 100)).where(empty)
    grey = np.clip((image + 50) / 100 * 255, 0, 255).round()
    assert abs(plain - grey).max() <= 1
    half = seg.dcm.over(ct[::2, :, ::-1])
    np.testing.assert_array_equal(half, seg.dcm.over(ct)[::2, :, ::-1])


def test_a_dose_from_a_tenth_of_its_maximum_on(tmp_path: Path) -> None:
    values = np.full((4, 6, 8), 100, "u4")
    values[1, 2, 3], values[1, 2, 4] = 1000, 500
    path = dose(tmp_path / "dose", values)
    given = read(path, values="modality")
    frames = noise(4, 6, 8, dtype="u1")
    positions = along(given.dcm.orientation, 2.5 * np.arange(4))
    classic(tmp_path / "ct", frames, positions, orientation=given.dcm.orientation)
    image = read(tmp_path / "ct", values="stored").astype("u1")
    shown = given.where(given > given.max() / 5, 0).dcm.over(image, opacity=1).values
    assert shown[1, 2, 3].tolist() == [255, 0, 0]
    assert shown[1, 2, 4].tolist() == [0, 255, 0]
    assert (shown[0] == image.values[0][..., np.newaxis]).all()
    nothing = (given * 0).dcm.over(image)
    assert (nothing == image.expand_dims(sample=3, axis=-1)).all()


def test_pictures_of_colours(images: list[Any], ct: xr.DataArray, tmp_path: Path) -> None:
    seg = read(written(tmp_path / "seg.dcm", images, masks()))
    shown = seg.dcm.over(ct)
    place = {dim: float(shown[dim][1]) for dim in ("z", "y", "x")}
    shown.dcm.planes(tmp_path / "a.png", at=place)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[2] == 3
    # Rows are finer than columns, which are resized.
    height, width = ROWS, round(COLUMNS * 1.5)
    first = np.asarray(Image.fromarray(shown[1].values).resize((width, height), 2))
    np.testing.assert_array_equal(pixels[:height, :width], first)
    shown.dcm.contact_sheet(tmp_path / "b.png")
    shown[PLANES // 2].dcm.contact_sheet(tmp_path / "c.png")


def test_what_cannot_be_shown(images: list[Any], ct: xr.DataArray, tmp_path: Path) -> None:
    seg = read(written(tmp_path / "seg.dcm", images, masks()))
    with pytest.raises(ValueError, match="opacity"):
        seg.dcm.over(ct, opacity=0)
    with pytest.raises(TypeError, match=r"xarray\.DataArray"):
        seg.dcm.over(scan(tmp_path / "ct")[0])
    assert (seg.isel(segment=[]).dcm.over(ct) == ct).all()
    fractions = written(
        tmp_path / "part.dcm",
        images,
        masks() * np.float32(0.5),
        kind="FRACTIONAL",
        fractional_type="PROBABILITY",
    )
    with pytest.raises(ValueError, match="modality"):
        read(fractions).dcm.over(ct)
    read(fractions, values="modality").dcm.over(ct)
    with pytest.raises(ValueError, match="made of planes"):
        seg[:, 0, 0].dcm.labelmap()
    with pytest.raises(ValueError, match="shows nothing"):
        seg.dcm.over(ct, window=(0, 0))
    with pytest.raises(GeometryError, match="the image has also t"):
        seg.dcm.over(ct.expand_dims(t=2))
    with pytest.raises(GeometryError, match="the array has also t"):
        seg.expand_dims(t=2).dcm.over(ct)
