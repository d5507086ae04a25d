"""`to_xarray(like=)`: the voxels of another image, found by position and never interpolated."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from counting import count_decodings
from made_segmentations import COLUMNS, PLANES, ROWS, changed, masks, read, source, written
from made_series import AXIAL, OBLIQUE, along, classic
from make_dicom import noise
from pydicom.uid import generate_uid

from dcmdask import scan
from dcmdask.errors import DcmdaskWarning, GeometryError


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_segments_on_their_source(orientation: tuple[float, ...], tmp_path: Path) -> None:
    images = source(tmp_path / "ct", orientation)
    pixels = masks()[1:4]
    # Planes in the middle of the source, and not the first of them.
    path = written(tmp_path / "seg.dcm", images[1:4], pixels)
    series = scan(tmp_path / "ct")[0]
    ct = series.to_xarray("modality")
    expected = np.zeros((3, PLANES, ROWS, COLUMNS), np.uint8)
    expected[:, 1:4] = np.moveaxis(pixels, -1, 0)
    for other in (ct, series, series.stacks[0]):
        v = scan(path)[0].to_xarray(like=other)
        np.testing.assert_array_equal(v, expected)
        assert v.dtype == np.uint8 and v.dims == ("segment", "z", "y", "x")
        for name in ("z", "y", "x", "patient"):
            xr.testing.assert_identical(v[name].variable, ct[name].variable)
    # Equal coordinates: arithmetic drops no voxel.
    inside = ct.where(v.sel(segment="Liver") == 1)
    assert inside.shape == ct.shape
    assert int(inside.count()) == pixels[..., 0].sum()
    np.testing.assert_array_equal(v.dcm.affine, ct.dcm.affine)


def test_planes_that_are_not_there_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = source(tmp_path / "ct")
    pixels = np.ones((2, ROWS, COLUMNS, 1), np.uint8)
    path = written(tmp_path / "seg.dcm", images[1:3], pixels, labels=("Liver",))
    v = scan(path)[0].to_xarray(like=read(tmp_path / "ct"))
    decoded: list[int] = []
    count_decodings(monkeypatch, decoded.append)
    assert not v[0, 3:].any() and not decoded
    assert v[0, 2].all() and len(decoded) == 1


def test_another_frame_of_reference_is_trusted_only_when_asked(tmp_path: Path) -> None:
    images = source(tmp_path / "ct")
    path = written(tmp_path / "seg.dcm", images, masks())
    expected = read(path, like=read(tmp_path / "ct")).compute()
    changed(path, lambda one: setattr(one, "FrameOfReferenceUID", generate_uid()))
    # It still refers to the series.
    np.testing.assert_array_equal(read(path, like=read(tmp_path / "ct")), expected)
    changed(path, lambda one: delattr(one, "ReferencedSeriesSequence"))
    ct, series = read(tmp_path / "ct"), scan(path)[0]
    with pytest.raises(GeometryError, match="Frame of Reference") as caught:
        series.to_xarray(like=ct)
    assert caught.value.code == "GeometryError/frame-of-reference"
    with pytest.warns(DcmdaskWarning, match="trusted"):
        v = series.to_xarray(like=ct, ignore_frame_of_reference=True)
    np.testing.assert_array_equal(v, expected)


def test_positions_beside_the_grid_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    ct = read(tmp_path / "ct")
    v = read(path)
    for dim, step in (("z", 2.5), ("y", 0.5), ("x", 0.75)):
        moved = ct.assign_coords({dim: (dim, ct[dim].values + 0.4 * step)})
        with pytest.raises(GeometryError, match=rf"up to .*\b{dim} {0.4 * step:g}\b") as caught:
            scan(path)[0].to_xarray(like=moved)
        assert caught.value.code == "GeometryError/grid"
    slightly = ct.assign_coords(z=("z", ct.z.values + 0.1 * 2.5))
    with pytest.warns(DcmdaskWarning, match=r"up to x 0, y 0, z 0\.25 mm"):
        scan(path)[0].to_xarray(like=slightly)
    with pytest.raises(GeometryError, match="no axis z"):
        scan(path)[0].to_xarray(like=ct[0])
    # As the message advises.
    nearest = v.dcm.like(ct.assign_coords(z=("z", ct.z.values + 0.7)), method="nearest")
    there = np.flatnonzero(np.isin(ct.z.values, v.z.values))
    np.testing.assert_array_equal(nearest[:, there], v)


def test_planes_outside_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", source(tmp_path / "ct"), masks())
    ct = read(tmp_path / "ct")
    whole = read(path, like=ct)
    with pytest.warns(DcmdaskWarning, match="outside of the other image"):
        v = scan(path)[0].to_xarray(like=ct[2:])
    np.testing.assert_array_equal(v, whole[:, 2:])
    with pytest.warns(DcmdaskWarning, match="3 of 10 pixels along y are outside"):
        v = scan(path)[0].to_xarray(like=ct[:, 3:])
    np.testing.assert_array_equal(v, whole[:, :, 3:])
    np.testing.assert_array_equal(read(path, like=ct[2:3]), whole[:, 2:3])
    with pytest.raises(TypeError, match="like is"):
        scan(path)[0].to_xarray(like="ct")


@pytest.mark.parametrize("seed", range(8))
def test_any_part_in_any_direction_is_put_where_it_was(seed: int, tmp_path: Path) -> None:
    """Cropped, turned by half a turn, larger than the other image: positions decide."""
    rng = np.random.default_rng(seed)
    frames = noise(7, 9, 11, dtype="i2", bits=12)
    classic(tmp_path / "a", frames, along(OBLIQUE, 2.5 * np.arange(7)), orientation=OBLIQUE)
    whole = read(tmp_path / "a")
    y, x = rng.integers(0, 4, 2)
    planes, down, across = (int(step) for step in rng.choice([-1, 1], 3))
    cut = frames[1:6, y : y + 5, x : x + 6][::planes, ::down, ::across]
    signs = np.repeat([across, down], 3)
    part = whole[1:6, y : y + 5, x : x + 6][:, ::down, ::across]
    positions = [part[k : k + 2].dcm.affine[:3, 3] for k in range(4)]
    positions.append(part[3:].dcm.affine[:3, :] @ [0, 0, 1, 1])
    ordered = np.array(positions)[::planes]
    classic(tmp_path / "b", cut, ordered, orientation=tuple(np.array(OBLIQUE) * signs), seed=seed)
    v = read(tmp_path / "b", like=whole, fill_value=-1)
    expected = np.full(frames.shape, -1, "i2")
    expected[1:6, y : y + 5, x : x + 6] = frames[1:6, y : y + 5, x : x + 6]
    np.testing.assert_array_equal(v, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        back = scan(tmp_path / "a")[0].to_xarray(like=v[1:6, y : y + 5, x : x + 6])
    np.testing.assert_array_equal(back, frames[1:6, y : y + 5, x : x + 6])
