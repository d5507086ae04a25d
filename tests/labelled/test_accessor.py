"""`.dcm` maps indices to the points where the headers say that pixels are, after any selection."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from made_series import AXIAL, OBLIQUE, SERIES, along, classic, direction, enhanced, normal
from make_dicom import noise
from PIL import Image
from scipy import ndimage

from dcmdask import DcmdaskWarning, GeometryError, scan

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
SPACING = (0.5, 0.75)


def volume(folder: Path, count: int = 6, **options: Any) -> xr.DataArray:
    """A regular series of frames of 8 x 10 pixels."""
    positions = options.pop("positions", None)
    if positions is None:
        positions = along(options.get("orientation", AXIAL), 2.5 * np.arange(count))
    classic(folder, noise(len(positions), 8, 10, dtype="u2"), positions, **options)
    return scan(folder)[0].to_xarray(on_irregular="keep")


@pytest.fixture(scope="module")
def oblique(tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    return volume(tmp_path_factory.mktemp("oblique"), orientation=OBLIQUE)


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    positions = along(OBLIQUE, 2.5 * np.arange(6))
    positions += np.outer(0.8 * np.arange(6), OBLIQUE[3:])
    with pytest.warns(DcmdaskWarning, match="the gantry is tilted by"):
        return volume(tmp_path_factory.mktemp("tilted"), orientation=OBLIQUE, positions=positions)


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    positions = np.repeat(along(SAGITTAL, 2.5 * np.arange(3)), 4, axis=0)
    each = {"TemporalPositionIdentifier": [1, 2, 3, 4] * 3}
    return volume(
        tmp_path_factory.mktemp("times"), orientation=SAGITTAL, positions=positions, each=each
    )


SELECTIONS = st.tuples(
    *(
        st.tuples(st.integers(0, 1), st.integers(-2, 0), st.sampled_from([1, 2, -1, -2]))
        for _ in range(3)
    )
)


@given(data=st.data(), selection=SELECTIONS, coarse=st.booleans())
@pytest.mark.parametrize("name", ["oblique", "tilted", "times"])
def test_the_affine_is_right_after_any_selection(
    name: str, request: pytest.FixtureRequest, data: Any, selection: Any, coarse: bool
) -> None:
    v = request.getfixturevalue(name)
    orientation = SAGITTAL if name == "times" else OBLIQUE
    whole = expected_points(name, v, orientation)
    here = v.isel(t=data.draw(st.integers(0, 3))) if "t" in v.dims else v
    cuts = {}
    for dim, (begin, end, step) in zip("zyx", selection, strict=True):
        picked = np.arange(v.sizes[dim])[begin : v.sizes[dim] + end][::step]
        if len(picked) < 2:
            picked = np.arange(v.sizes[dim])
        cuts[dim] = picked
    here = here.isel(cuts)
    where = whole[np.ix_(cuts["z"], cuts["y"], cuts["x"])]
    if coarse and here.sizes["x"] >= 4 and here.sizes["y"] >= 4:
        here = here.coarsen(x=2, y=2, boundary="trim").mean()
        ny, nx = here.sizes["y"], here.sizes["x"]
        where = where[:, : 2 * ny, : 2 * nx].reshape(len(where), ny, 2, nx, 2, 3).mean((2, 4))
    here = here.transpose(*data.draw(st.permutations(here.dims)))
    z, y, x = np.meshgrid(*(np.arange(n) for n in where.shape[:3]), indexing="ij")
    mapped = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ here.dcm.affine.T
    np.testing.assert_allclose(mapped[..., :3], where, atol=1e-4)


def expected_points(name: str, v: xr.DataArray, orientation: Any) -> np.ndarray:
    positions = along(orientation, 2.5 * np.arange(v.sizes["z"]))
    if name == "tilted":
        positions += np.outer(0.8 * np.arange(6), OBLIQUE[3:])
    row, column = np.reshape(orientation, (2, 3))
    rows = np.arange(v.sizes["y"])[:, np.newaxis, np.newaxis] * SPACING[0] * column
    columns = np.arange(v.sizes["x"])[:, np.newaxis] * SPACING[1] * row
    return positions[:, np.newaxis, np.newaxis] + rows + columns


@pytest.mark.parametrize("name", ["oblique", "tilted"])
def test_coordinates_come_back_from_zarr(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    v = request.getfixturevalue(name)
    v.to_zarr(tmp_path / "v.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "v.zarr", consolidated=False)["stored"]
    np.testing.assert_array_equal(back.dcm.affine, v.dcm.affine)
    v.to_netcdf(tmp_path / "v.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "v.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back.dcm.affine, v.dcm.affine)


def test_series_of_one_frame_of_reference_meet(tmp_path: Path) -> None:
    steps = 1.1 * np.arange(40)
    a = volume(tmp_path / "a", positions=along(AXIAL, steps))
    b = volume(tmp_path / "b", positions=along(AXIAL, steps[7:] + 3.3), series=f"{SERIES}.2")
    difference = a - b
    assert difference.sizes["z"] == 30
    np.testing.assert_allclose(difference.dcm.affine[:3, 3], along(AXIAL, [11.0])[0], atol=1e-6)
    np.testing.assert_array_equal(difference, a.values[10:] - b.values[:30])


def test_directions_that_differ_leave_no_place(oblique: xr.DataArray, tmp_path: Path) -> None:
    other = volume(tmp_path / "axial")
    mixed = xr.DataArray(oblique.values + other.values, oblique.coords, oblique.dims)
    assert mixed.dcm.spacing
    together = oblique + other.assign_coords({dim: oblique[dim].values for dim in "zyx"})
    with pytest.raises(GeometryError, match="has no coordinate 'patient'"):
        _ = together.dcm.affine


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v.drop_vars("patient"), "no-patient"),
        (lambda v: v.drop_vars("z"), "no-coordinate"),
        (lambda v: v.mean(("z", "y", "x")), "no-coordinate"),
        (lambda v: v.isel(z=[0, 1, 3]), "uneven"),
        (lambda v: v.isel(x=[2]), "one-coordinate"),
        (lambda v: v.isel(x=2), "one-coordinate"),
        (lambda v: v[:0], "empty"),
        (lambda v: v[..., :0], "empty"),
        (lambda v: v.assign_coords(z=list("abcdef")), "no-number"),
        (lambda v: v[:1].assign_coords(z=("z", [1.0], {"slice_thickness": "x"})), "no-number"),
        (lambda v: v.assign_coords(patient=7), "no-patient"),
        (
            lambda v: v.assign_coords(patient=((), 7, {"orientation": [1, 0, 0, 1, 0, 0]})),
            "no-patient",
        ),
        (lambda v: xr.DataArray(np.zeros(3), dims="t"), "no-patient"),
    ],
)
def test_what_is_missing_is_said(oblique: xr.DataArray, change: Any, code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(GeometryError) as raised:
            _ = change(oblique).dcm.affine
        for other in (lambda v: v.dcm.to_sitk(), lambda v: v.dcm.planes(io.BytesIO())):
            with pytest.raises(GeometryError):
                other(change(oblique))
    assert raised.value.code == f"GeometryError/{code}"


# Other software


@pytest.mark.parametrize("name", ["oblique", "tilted", "times"])
def test_nibabel_reads_the_same_places(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    v = request.getfixturevalue(name)[..., ::-1, 2:8]
    v.dcm.to_nifti(tmp_path / "v.nii.gz")
    image: Any = nibabel.load(tmp_path / "v.nii.gz")
    dims = ("x", "y", "z", *(["t"] if "t" in v.dims else []))
    np.testing.assert_array_equal(np.asarray(image.dataobj), v.transpose(*dims).values)
    lps = np.diag([-1, -1, 1, 1]) @ image.affine
    np.testing.assert_allclose(lps, v.dcm.affine, atol=1e-4)


def test_the_time_between_volumes_is_positive(times: xr.DataArray, tmp_path: Path) -> None:
    v = times.assign_coords(t=2000.0 * np.arange(4))[::-1]
    v.dcm.to_nifti(tmp_path / "v.nii")
    image: Any = nibabel.load(tmp_path / "v.nii")
    assert image.header.get_zooms()[3] == 2000
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, v.transpose("t", "z", "y", "x"))


def test_a_nifti_file_that_fails_leaves_the_earlier_one(
    oblique: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oblique.dcm.to_nifti(tmp_path / "v.nii")
    before = (tmp_path / "v.nii").read_bytes()

    def full(image: Any, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="No space left"):
        oblique[::-1].dcm.to_nifti(tmp_path / "v.nii")
    assert (tmp_path / "v.nii").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v.nii"]
    with pytest.raises(FileNotFoundError, match=r"absent/v\.nii'"):
        oblique.dcm.to_nifti(tmp_path / "absent" / "v.nii")


def test_colour_and_types_of_nifti(oblique: xr.DataArray, tmp_path: Path) -> None:
    (oblique > 9).dcm.to_nifti(tmp_path / "mask.nii")
    mask: Any = nibabel.load(tmp_path / "mask.nii")
    assert mask.get_data_dtype() == np.uint8
    rgb = xr.concat([oblique.astype("u1")] * 3, "sample").transpose(..., "sample")
    rgb.dcm.to_nifti(tmp_path / "rgb.nii")
    colour: Any = nibabel.load(tmp_path / "rgb.nii")
    found = np.asarray(colour.dataobj)
    np.testing.assert_array_equal(found["G"].T, rgb.values[..., 1])
    with pytest.raises(TypeError, match="RGB of 8 bits"):
        rgb.astype("u2").dcm.to_nifti(tmp_path / "rgb.nii")
    with pytest.raises(ValueError, match=r"called \.nii or \.nii\.gz"):
        rgb.dcm.to_nifti(tmp_path / "rgb.img")
    for type_ in ("i8", "u8", "c16", "f2"):
        v = oblique.astype(type_) + np.array(2**60 if type_ in ("i8", "u8") else 0, type_)
        v.dcm.to_nifti(tmp_path / "v.nii")
        written: Any = nibabel.load(tmp_path / "v.nii")
        found = np.asarray(written.dataobj)
        assert found.dtype == ("f4" if type_ == "f2" else type_)
        np.testing.assert_array_equal(found.T, v.values)
    before = (tmp_path / "v.nii").read_bytes()
    for type_, name in (("O", "object"), ("M8[ns]", "datetime64")):
        with pytest.raises(TypeError, match=f"no place for the type {name}"):
            oblique.astype(type_).dcm.to_nifti(tmp_path / "v.nii")
    with pytest.raises(GeometryError, match="7 axes of at most 32767, and the array has 8"):
        oblique.expand_dims(list("abcde")).dcm.to_nifti(tmp_path / "v.nii")
    with pytest.raises(GeometryError, match="and the array has 4, of 10 x 8 x 6 x 32768"):
        oblique.chunk().expand_dims(t=2**15).dcm.to_nifti(tmp_path / "v.nii")
    assert (tmp_path / "v.nii").read_bytes() == before


def test_simpleitk_has_the_same_places(oblique: xr.DataArray, tilted: xr.DataArray) -> None:
    v = oblique[:, ::-1, 2:8]
    image = v.dcm.to_sitk()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), v.values)
    for corner in np.ndindex(2, 2, 2):
        index = [int(n - 1) * one for n, one in zip(image.GetSize(), corner, strict=True)]
        mine = v.dcm.affine @ [*index, 1]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), mine[:3], atol=1e-6)
    with pytest.raises(GeometryError, match="untilted"):
        tilted.dcm.to_sitk()
    with pytest.raises(GeometryError, match=r"v\.isel\(t=0\)"):
        xr.concat([oblique, oblique], "t").dcm.to_sitk()


def test_gradients_as_fsl_has_them(tmp_path: Path) -> None:
    """FSL's axes are those of the voxels, with x flipped where they are right-handed."""
    weightings = [(0.0, (0, 0, 0)), (700.0, (1, 0, 0)), (1000.0, (0, 0.6, 0.8))]
    positions = along(OBLIQUE, np.repeat([0, 2.5], 3))
    macros = [
        {"MRDiffusionSequence": {"DiffusionBValue": b}
         | ({"DiffusionGradientDirectionSequence": [direction(g)]} if b else {})}
        for b, g in weightings * 2
    ]  # fmt: skip
    frames = noise(6, 8, 10)
    enhanced(tmp_path / "in", frames, positions, orientation=OBLIQUE, macros=macros)
    v = scan(tmp_path / "in")[0].to_xarray()
    np.testing.assert_array_equal(v.dcm.bvals, [0, 700, 1000])
    row, column = np.reshape(OBLIQUE, (2, 3))
    for n, (_, gradient) in enumerate(weightings):
        # Rows, columns and the normal, in LPS as in RAS, are right-handed.
        expected = [-(row @ gradient), column @ gradient, normal(OBLIQUE) @ gradient]
        np.testing.assert_allclose(v.dcm.bvecs[:, n], expected, atol=1e-6)
        flipped = v[..., ::-1].dcm.bvecs[:, n]
        np.testing.assert_allclose(flipped, [-(row @ gradient), *expected[1:]], atol=1e-6)
    v.dcm.to_nifti(tmp_path / "dwi.nii.gz")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "dwi.bval"), v.dcm.bvals)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "dwi.bvec"), v.dcm.bvecs, atol=1e-6)
    with pytest.raises(GeometryError, match="no coordinate b_value"):
        _ = v.isel(diffusion=0).drop_vars("b_value").dcm.bvals
    # A column for each volume, whatever other axes there are.
    several = (
        xr.concat([v.astype("i2"), v.astype("i2") + 100], "echo").expand_dims(t=[0.0, 5.0]).dcm
    )
    several.to_nifti(tmp_path / "several.nii")
    image: Any = nibabel.load(tmp_path / "several.nii")
    volumes = np.asarray(image.dataobj).reshape(*image.shape[:3], -1, order="F")
    b_values, gradients = (np.loadtxt(tmp_path / f"several.{end}") for end in ("bval", "bvec"))
    assert b_values.shape == gradients.shape[1:] == volumes.shape[3:] == (12,)
    for number, b_value in enumerate(b_values):
        (index,) = np.flatnonzero(v.b_value == b_value)
        found = volumes[..., number].T - v.values[index]
        assert (found == 0).all() or (found == 100).all()
        np.testing.assert_allclose(gradients[:, number], v.dcm.bvecs[:, index], atol=1e-6)
    # Nor do they belong to an array without diffusion.
    before = (tmp_path / "dwi.nii.gz").read_bytes()
    with pytest.raises(FileExistsError, match=r"dwi\.bval and .*dwi\.bvec"):
        v.isel(diffusion=0).dcm.to_nifti(tmp_path / "dwi.nii.gz")
    assert (tmp_path / "dwi.nii.gz").read_bytes() == before


# Other grids


def smooth(v: xr.DataArray) -> xr.DataArray:
    values = ndimage.gaussian_filter(v.values.astype("f4"), 1.5)
    return v.copy(data=values).chunk(z=2)


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_like_equals_simpleitk(oblique: xr.DataArray, tmp_path: Path, method: Any) -> None:
    v = smooth(oblique)
    other = volume(tmp_path / "axial", positions=along(AXIAL, 1.3 * np.arange(9)))
    mine = v.dcm.like(other, method=method)
    assert mine.chunks is not None and mine.dims == ("z", "y", "x")
    interpolator = {"linear": SimpleITK.sitkLinear, "nearest": SimpleITK.sitkNearestNeighbor}
    theirs = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(
            v.dcm.to_sitk(), other.dcm.to_sitk(), SimpleITK.Transform(), interpolator[method],
            float("nan"),
        )
    )  # fmt: skip
    assert 10 < np.isfinite(theirs).sum() < theirs.size
    np.testing.assert_allclose(mine.values, theirs, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(mine.dcm.affine, other.dcm.affine)
    # With more axes than the three, and integers.
    both = xr.concat([oblique, oblique], "t").dcm.like(other, method="nearest", fill_value=7)
    assert both.dtype == oblique.dtype and both.dims == ("t", "z", "y", "x")
    assert (both.values[:, np.isnan(theirs)] == 7).all()


def test_like_of_another_frame_of_reference(oblique: xr.DataArray, tmp_path: Path) -> None:
    other = volume(tmp_path / "other", FrameOfReferenceUID="1.2.3", orientation=OBLIQUE)
    with pytest.raises(GeometryError, match="ignore_frame_of_reference=True"):
        oblique.dcm.like(other)
    with pytest.warns(UserWarning, match="positions are trusted"):
        same = oblique.dcm.like(other, ignore_frame_of_reference=True)
    np.testing.assert_allclose(same.values, oblique.values, rtol=1e-5)
    unknown = volume(tmp_path / "none", FrameOfReferenceUID=None, series=f"{SERIES}.3")
    with pytest.raises(GeometryError, match="Frame of Reference UID"):
        volume(tmp_path / "none2", FrameOfReferenceUID=None).dcm.like(unknown)
    np.testing.assert_allclose(unknown[:, 2:].dcm.like(unknown)[:, 2:], unknown[:, 2:], rtol=1e-5)


def test_isotropic(oblique: xr.DataArray) -> None:
    v = smooth(oblique)
    made = v.dcm.isotropic()
    np.testing.assert_allclose(made.dcm.spacing, 0.5)
    assert made.shape == (26, 8, 14)
    np.testing.assert_allclose(made[::5, :, ::3].values, v.values[:, :, ::2], rtol=1e-4)
    np.testing.assert_allclose(made.dcm.affine[:3, 3], v.dcm.affine[:3, 3], atol=1e-6)
    back = v[::-1].dcm.isotropic(2.5)
    assert back.z[0] == v.z[-1] and back.sizes["z"] == 6
    with pytest.raises(ValueError, match="greater than 0"):
        v.dcm.isotropic(0)


@pytest.mark.parametrize(
    ("type_", "method", "fill_value"),
    [
        ("u2", "nearest", 0.5),
        ("u2", "nearest", -1),
        ("u2", "nearest", np.nan),
        ("u2", "nearest", 70_000),
        ("?", "nearest", 5),
        ("u2", "linear", 1e40),
        ("u2", "linear", "x"),
    ],
)
def test_a_fill_value_fits(
    oblique: xr.DataArray, tilted: xr.DataArray, type_: str, method: Any, fill_value: Any
) -> None:
    given: dict[str, Any] = {"method": method, "fill_value": fill_value}
    v, leaning = oblique.astype(type_), tilted.astype(type_)
    for resampled in (lambda: v.dcm.like(v, **given), lambda: leaning.dcm.untilted(**given)):
        with pytest.raises(ValueError, match=r"does not fit|could not convert"):
            resampled()
    with pytest.raises(ValueError, match=r"does not fit|could not convert"):
        v.dcm.isotropic(**given)


def test_resampling_takes_real_numbers(oblique: xr.DataArray) -> None:
    for type_ in ("c8", "M8[ns]", "O"):
        with pytest.raises(TypeError, match="takes real numbers"):
            oblique.astype(type_).dcm.isotropic(method="nearest")
    far = oblique.assign_coords(z=oblique.z + 1000)
    for fill_value in (True, 0, None):
        filled = (oblique > 9).dcm.like(far, method="nearest", fill_value=fill_value)
        assert filled.dtype == bool and (filled == bool(fill_value)).all()
    same = (oblique > 9).dcm.like(oblique, method="nearest")
    np.testing.assert_array_equal(same, oblique > 9)
    for method in ("nearest", "linear"):
        half = oblique.astype("f2").dcm.like(oblique, method=method)
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, oblique.astype("f2"), rtol=1e-6)


def test_a_slip_of_the_unit_is_no_image(oblique: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="12500000001 x 3500000001 x 6750000001 voxels"):
        oblique.dcm.isotropic(1e-9)


def test_planes_and_volumes(oblique: xr.DataArray) -> None:
    plane = oblique.isel(z=2)
    cut = oblique.transpose("x", "z", "y").dcm.like(plane)
    assert cut.dims == ("y", "x") and cut.z == plane.z
    np.testing.assert_allclose(cut, plane, rtol=1e-6)
    placed = plane.dcm.like(oblique)
    assert placed.dims == ("z", "y", "x")
    np.testing.assert_allclose(placed[2], plane, rtol=1e-6)
    assert np.isnan(placed[[0, 1, 3, 4, 5]]).all()
    turned = oblique[::-1, ::-1, ::-1]
    np.testing.assert_allclose(oblique.dcm.like(turned), turned, rtol=1e-6)
    colour = xr.concat([oblique] * 3, "sample").transpose(..., "sample")
    assert colour.dcm.like(oblique).dims == ("z", "y", "x", "sample")


@pytest.mark.parametrize("spacing", [0.3, 0.5, 1.7, 40.0])
@pytest.mark.parametrize("chunk", [1, 3, 6])
def test_interpolation_is_linear_whatever_the_chunks(
    oblique: xr.DataArray, spacing: float, chunk: int
) -> None:
    made = oblique.chunk(z=chunk).dcm.isotropic(spacing)
    by_xarray = oblique.interp({dim: made[dim].values for dim in "zyx"})
    np.testing.assert_allclose(made.values, by_xarray.values, rtol=1e-4, atol=0.05)
    assert made.dtype == np.float32


def test_untilted(tilted: xr.DataArray) -> None:
    v = smooth(tilted)
    upright = v.dcm.untilted()
    # 0.8 mm along y for each of five steps: eight rows of 0.5 mm more.
    assert upright.shape == (6, 16, 10)
    np.testing.assert_allclose(upright[0, :8], v[0], rtol=1e-5)
    assert not np.isnan(upright[5, 8:]).any() and np.isnan(upright[5, :7]).all()
    np.testing.assert_allclose(upright[5, 8:], v[5], rtol=1e-5)
    upright.dcm.to_sitk()
    assert v[:1].dcm.untilted().dcm.spacing == v[:1].dcm.spacing
    with pytest.raises(GeometryError, match="untilted"):
        v.dcm.isotropic()


def test_resampling_holds_no_more_than_blocks(
    oblique: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large lazy image only the part is computed that a block of the result needs."""
    v = oblique.isel(z=[0] * 400)
    v = v.assign_coords(z=oblique.z.values[0] + 2.5 * np.arange(400)).chunk(z=10)
    # Ten planes of 2 x 3 pixels a block.
    monkeypatch.setattr("dcmdask.labelled.resampling._BLOCK", 8 * 2 * 3 * 10)
    asked: list[int] = []

    def watched(block: np.ndarray) -> np.ndarray:
        asked.append(len(block))
        return block

    v = v.copy(data=v.data.map_blocks(watched, meta=np.empty((0, 0, 0), v.dtype)))
    made = v.dcm.isotropic(2.5)
    made[50:60].compute(scheduler="synchronous")
    # Those of the block and of the two beside it, which may share a plane with it.
    assert 10 <= sum(asked) <= 30
    assert made.shape == (400, 2, 3)


# Pictures


def test_pictures_are_upright(tmp_path: Path) -> None:
    """A dot in front, at the head and on the left is there in all planes, however acquired."""
    for name, orientation in {"axial": AXIAL, "sagittal": SAGITTAL}.items():
        positions = along(orientation, 2.0 * np.arange(9))
        v = volume(
            tmp_path / name, positions=positions, orientation=orientation, spacing=(2.0, 2.0)
        )
        affine = v.dcm.affine
        z, y, x = np.meshgrid(*map(np.arange, v.shape), indexing="ij")
        place = np.stack([x, y, z, np.ones_like(x)], -1) @ affine.T
        left, back, head = np.moveaxis(place[..., :3], -1, 0)
        front_left_head = (
            (left > np.median(left)) & (back < np.median(back)) & (head > np.median(head))
        )
        bright = v.copy(data=(255 * front_left_head).astype("u1"))
        for flips in ({}, {"z": slice(None, None, -1)}, {"x": slice(None, None, -1)}):
            shown = io.BytesIO()
            bright.isel(flips).dcm.projection(shown, "y")
            coronal = np.asarray(Image.open(shown))
            half = np.array(coronal.shape) // 2
            # The patient's left is on the right of the picture.
            assert coronal[: half[0], half[1] + 1 :].mean() > 200
            assert coronal[half[0] + 1 :].mean() == 0
            shown = io.BytesIO()
            bright.isel(flips).dcm.projection(shown, "x")
            assert np.asarray(Image.open(shown))[half[0] + 1 :].mean() == 0
            bright.isel(flips).dcm.planes(io.BytesIO())
            bright.isel(flips).dcm.contact_sheet(io.BytesIO())
    with pytest.raises(GeometryError, match=r"v\.isel\(t=0\)"):
        xr.concat([v, v], "t").dcm.planes(io.BytesIO())


def test_a_plot_is_upright_and_grey(oblique: xr.DataArray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        drawn = oblique.isel(z=2).dcm.plot()
        assert drawn.get_cmap().name == "gray" and drawn.axes.yaxis_inverted()
        assert drawn.axes.get_aspect() == 1.0
        pyplot.figure()
        side = oblique.isel(y=2).dcm.plot(cmap="bone")
        assert side.get_cmap().name == "bone" and not side.axes.yaxis_inverted()
        with pytest.raises(GeometryError, match=r"such as v\.isel\(z=0\)"):
            oblique.dcm.plot()
    finally:
        pyplot.close("all")
