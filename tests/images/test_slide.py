"""Whole slides: any region is that of the picture, whatever the organisation of the tiles."""

from __future__ import annotations

import math
import pickle
import re
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import openslide
import pytest
import wsidicom
import zarr
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_segmentations import written
from made_slides import ORIENTATION, ORIGIN, SPACING, Made, MadeSlide, made_slide
from PIL import Image, ImageCms
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

import dcmdask
from dcmdask.batch.results import thumbnail
from dcmdask.errors import (
    AmbiguousSourceError,
    DcmdaskWarning,
    GeometryError,
    HeaderError,
    LayoutError,
    PixelDataError,
)

NATIVE = ExplicitVRLittleEndian
ORGANISATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "full-native": {"syntax": NATIVE, "table": "none"},
    "no-table": {"table": "none"},
    "extended": {"table": "extended", "syntax": JPEG2000Lossless},
    "jpeg-ls": {"syntax": JPEGLSLossless},
    "rle": {"syntax": RLELossless},
    "rgb-jpeg": {"sampling": "RGB"},
    "420": {"sampling": "420"},
    "large-tile": {"tile": (256, 512)},
    "sparse": {"organisation": "TILED_SPARSE"},
    "shuffled": {"organisation": "TILED_SPARSE", "shuffled": True, "table": "none"},
    "holes": {
        "organisation": "TILED_SPARSE",
        "shuffled": True,
        "holes": [(0, 0, 0, 0), (0, 0, 1, 2), (0, 0, 2, 3)],
    },
    "planes": {"focal_planes": 2, "optical_paths": 3, "samples": 1, "bits": 16, "syntax": NATIVE},
    "sparse-planes": {
        "organisation": "TILED_SPARSE",
        "shuffled": True,
        "focal_planes": 2,
        "optical_paths": 3,
        "samples": 1,
        "syntax": NATIVE,
        "holes": [(1, 1, 0, 0), (2, 0, 1, 1)],
    },
    "parts": {"parts": 3},
    "sparse-parts": {"parts": 2, "organisation": "TILED_SPARSE", "shuffled": True},
}


def expected(made: Made) -> np.ndarray:
    """The pixels of a level: white, or 0 of grey, where there is no tile.

    Focal planes go along the normal, which is towards the glass.
    """
    matrix = made.matrix.copy()
    matrix[~made.present] = 255 if matrix.ndim == 5 else 0
    matrix = matrix[:, ::-1]
    return matrix.reshape([n for axis, n in enumerate(matrix.shape) if axis > 1 or n > 1])


@pytest.fixture(scope="module", params=ORGANISATIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MadeSlide:
    folder = tmp_path_factory.mktemp("slide")
    return made_slide(folder, **{"downsamples": (1, 2, 4), **ORGANISATIONS[request.param]})


def test_levels_are_the_pictures(made: MadeSlide) -> None:
    slide = dcmdask.open_slide(made.folder)
    assert slide.notes == ()
    assert len(slide.levels) == 3
    for level, one in zip(slide.levels, made.levels, strict=True):
        lazy = level.to_dask()
        np.testing.assert_array_equal(lazy, expected(one))
        assert (lazy.shape, lazy.dtype) == (level.shape, level.dtype)
        assert level.mpp == pytest.approx((one.spacing * 1000,) * 2)
        assert level.downsample == pytest.approx(one.spacing / SPACING, rel=0.02)
        frames = level.frames()
        assert pickle.loads(pickle.dumps(frames)).token == frames.token
    assert all("level 0" not in line for line in repr(slide).splitlines())


def test_a_file_is_a_slide(made: MadeSlide) -> None:
    if len(made.levels[1].paths) == 1:
        (level,) = dcmdask.open_slide(made.levels[1].path).levels
        np.testing.assert_array_equal(level.to_dask(), expected(made.levels[1]))
    stored = dcmdask.from_dicom(made.levels[1].paths[0])
    assert stored.ndim == 3 + (made.levels[0].matrix.ndim == 5)


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_index(made: MadeSlide, data: st.DataObject) -> None:
    """An index of the array-like is that of the picture; a tile is decoded once."""
    frames = known(made).levels[0].frames()
    values = expected(made.levels[0])
    key = (
        tuple(data.draw(indices(n)) for n in values.shape[:-1])
        if values.ndim > 2
        else tuple(data.draw(indices(n)) for n in values.shape)
    )
    np.testing.assert_array_equal(frames[key], values[key])


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_region(made: MadeSlide, data: st.DataObject) -> None:
    """A region is that of the picture, and beyond its edges it is filled."""
    slide, number = known(made), data.draw(st.integers(0, 2))
    level, whole = slide.levels[number], expected(made.levels[number])
    x, y = (data.draw(st.integers(-80, n + 80)) for n in slide.levels[0].size[::-1])
    width, height = (data.draw(st.integers(0, 150)) for _ in range(2))
    planes = {"optical_path": 0, "z": 0}
    for dim, length in zip(level.dims, level.shape, strict=True):
        if dim in planes:
            planes[dim] = data.draw(st.integers(0, length - 1))
    plane = whole[tuple(planes[dim] for dim in level.dims if dim in planes)]
    found = slide.read_region(
        (x, y),
        number,
        (width, height),
        optical_path=planes["optical_path"],
        focal_plane=planes["z"],
    )
    left, top = (round(one / level.downsample) for one in (x, y))
    room = np.full((height, width, *plane.shape[2:]), 255 if plane.ndim == 3 else 0, plane.dtype)
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    inside = (rows >= 0) & (rows < plane.shape[0]), (columns >= 0) & (columns < plane.shape[1])
    room[np.ix_(*inside)] = plane[np.ix_(rows[inside[0]], columns[inside[1]])]
    np.testing.assert_array_equal(found, room)


_KNOWN: dict[Path, Any] = {}


def known(made: MadeSlide) -> Any:
    if made.folder not in _KNOWN:
        _KNOWN[made.folder] = dcmdask.open_slide(made.folder)
    return _KNOWN[made.folder]


def indices(length: int) -> st.SearchStrategy[Any]:
    return st.one_of(st.integers(-length, length - 1), st.slices(length))


def test_points_are_the_same_on_all_levels(tmp_path: Path) -> None:
    """Millimetres on the slide are those of the header, on each level."""
    made = made_slide(tmp_path, downsamples=(1, 2, 4))
    slide = dcmdask.open_slide(tmp_path)
    for level, one in zip(slide.levels, made.levels, strict=True):
        v = level.to_xarray()
        row, column = 7, 11
        across, down = np.array(ORIENTATION).reshape(2, 3)
        corner = np.array([*ORIGIN, 0])
        point = corner + across * one.spacing * column + down * one.spacing * row
        np.testing.assert_allclose((v.dcm.affine @ [column, row, 0, 1])[:3], point, atol=1e-9)
        assert float(v.x[column]) == pytest.approx(float(across @ point))
        assert float(v.y[row]) == pytest.approx(float(down @ point))
        nearest = v.sel(x=float(v.x[column]) + 1e-7, y=float(v.y[row]), method="nearest")
        np.testing.assert_array_equal(nearest, one.matrix[0, 0, row, column])


def test_a_tree_has_a_node_for_each_level(tmp_path: Path) -> None:
    made_slide(tmp_path, downsamples=(1, 2, 4), focal_planes=2, optical_paths=2, samples=1)
    tree = dcmdask.open_slide(tmp_path).to_datatree()
    assert list(tree.children) == ["0", "1", "2"]
    pixels = tree["1/pixels"]
    assert pixels.dims == ("optical_path", "z", "y", "x")
    assert pixels.attrs["mpp"] == pytest.approx([1, 1])
    assert pixels.optical_path.values.tolist() == tree["0/pixels"].optical_path.values.tolist()
    assert math.prod(pixels.shape) == 4 * 75 * 105


def test_a_chunk_is_a_group_of_whole_tiles(tmp_path: Path) -> None:
    made_slide(tmp_path, (1000, 1500))
    (level,) = dcmdask.open_slide(tmp_path).levels
    chunks: Any
    for chunks in ("auto", 128, "100 KiB", -1, {0: 64}, (64, -1, 3)):
        lazy = level.to_dask(chunks=chunks)
        assert all(n % 64 == 0 for along in lazy.chunks[:2] for n in along[:-1])
        assert lazy.chunks[2] == (3,)
    for chunks in (100, {1: 65}, (64, 64), {5: 1}):
        with pytest.raises(ValueError, match="chunks"):
            level.to_dask(chunks=chunks)


def test_only_tiles_that_are_touched_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_slide(tmp_path, (640, 640), organisation="TILED_SPARSE", holes=[(0, 0, 1, 1)])
    level = dcmdask.open_slide(tmp_path).levels[0]
    frames: Any = level.frames().frames
    asked: list[int] = []
    own = type(frames.frames).each

    def counted(self: Any, numbers: list[int]) -> Any:
        asked.extend(numbers)
        return own(self, numbers)

    monkeypatch.setattr(type(frames.frames), "each", counted)
    cases = [((0, 1), (0, 1), 1), ((60, 70), (0, 64), 2), ((64, 128), (64, 128), 0)]
    for rows, columns, tiles in cases:
        asked.clear()
        _ = frames[0, slice(*rows), slice(*columns)]
        assert len(asked) == tiles
    asked.clear()
    # Between steps there are whole tiles.
    _ = frames[0, ::320, ::320]
    assert len(asked) == 4


def test_pictures(tmp_path: Path) -> None:
    made = made_slide(tmp_path, downsamples=(1, 4), associated=("LABEL", "OVERVIEW", "THUMBNAIL"))
    slide = dcmdask.open_slide(tmp_path)
    assert slide.label is not None and slide.overview is not None
    np.testing.assert_array_equal(slide.label, made.associated["LABEL"].matrix[0, 0])
    np.testing.assert_array_equal(slide.overview, made.associated["OVERVIEW"].matrix[0, 0])
    for size in (20, 42, 100, 210, 1000):
        shown = slide.thumbnail(size)
        assert max(shown.size) == min(size, 210)
        small = np.asarray(shown.resize((21, 15)), float)
        whole = slide.levels[0].to_dask().compute()
        assert np.abs(small - whole[:150, :210].reshape(15, 10, 21, 10, 3).mean((1, 3))).mean() < 16
    html = slide._repr_html_()
    assert "data:image/png;base64," in html
    assert len(dcmdask.open_slide(made.levels[0].path).levels) == 1
    assert dcmdask.open_slide(made.levels[0].path).label is None
    with pytest.raises(HeaderError, match="only LABEL"):
        dcmdask.open_slide(made.associated["LABEL"].path)
    with pytest.raises(HeaderError, match="no image of a slide"):
        dcmdask.Slide([])


def test_tiles_of_pictures_have_to_have_a_place(tmp_path: Path) -> None:
    """One tile of several is not the picture."""
    made = made_slide(tmp_path / "slide", associated=("OVERVIEW",))
    shown = dcmdask.open_slide(tmp_path / "slide").thumbnail(42)
    for flavour in ("THUMBNAIL", "LABEL"):
        folder = tmp_path / flavour
        how: dict[str, Any] = {"SOPInstanceUID": f"1.2.3.{len(flavour)}", "PyramidUID": None}
        made_slide(folder, (100, 120), **how, ImageType=["DERIVED", "PRIMARY", flavour, "NONE"])
        changed(folder, DimensionOrganizationType="TILED_SPARSE")
    slide = dcmdask.open_slide(tmp_path)
    assert repr(slide).endswith("label, overview, thumbnail>")
    assert shown == slide.thumbnail(42) and slide.overview is not None
    np.testing.assert_array_equal(slide.overview, made.associated["OVERVIEW"].matrix[0, 0])
    with pytest.raises(HeaderError, match="no frame has a position"):
        _ = slide.label


def test_a_thumbnail_image_that_shows_the_label_is_left_out(tmp_path: Path) -> None:
    made = made_slide(tmp_path, associated=("THUMBNAIL",))
    (series,) = dcmdask.scan(tmp_path)
    with_image = dcmdask.open_slide(tmp_path).thumbnail(42), thumbnail(series)
    path = made.associated["THUMBNAIL"].path
    dataset = dcmread(path)
    dataset.SpecimenLabelInImage = "YES"
    dataset.save_as(path)
    (series,) = dcmdask.scan(tmp_path)
    slide = dcmdask.open_slide(tmp_path)
    shown = slide.thumbnail(42), thumbnail(series)
    assert run("picture", tmp_path, tmp_path / "picture.png").returncode == 0
    html = slide._repr_html_()
    path.unlink()
    (series,) = dcmdask.scan(tmp_path)
    slide = dcmdask.open_slide(tmp_path)
    assert shown == (slide.thumbnail(42), thumbnail(series)) != with_image
    assert html == slide._repr_html_()
    with Image.open(tmp_path / "picture.png") as picture:
        np.testing.assert_array_equal(picture, slide.thumbnail(1024))


def test_sixteen_bits_are_shown(tmp_path: Path) -> None:
    made_slide(tmp_path, samples=1, bits=16, syntax=NATIVE, optical_paths=2)
    slide = dcmdask.open_slide(tmp_path)
    assert slide.thumbnail(64).mode == "L"
    assert len(slide.levels[0].optical_paths) == 2
    assert "optical_path:2" in slide._repr_html_()


def test_colours_by_the_profile(tmp_path: Path) -> None:
    made = made_slide(tmp_path, syntax=NATIVE)
    dataset = dcmread(made.levels[0].path)
    # Blue-red swapped primaries would do; a gamma of 1 is enough to see that it is applied.
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    dataset.OpticalPathSequence[0].ICCProfile = lab
    dataset.save_as(made.levels[0].path)
    level = dcmdask.open_slide(tmp_path).levels[0]
    stored = level.to_dask().compute()
    shown = level.to_dask(color="srgb").compute()
    assert np.abs(shown.astype(int) - stored).max() <= 1
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    by_pillow = ImageCms.profileToProfile(Image.fromarray(stored), profile, profile)
    assert np.abs(np.asarray(by_pillow).astype(int) - shown).max() <= 1
    del dataset.OpticalPathSequence[0].ICCProfile
    dataset.save_as(made.levels[0].path)
    with pytest.raises(AttributeError, match="ICC Profile"):
        dcmdask.open_slide(tmp_path).levels[0].to_dask(color="srgb")


def changed(folder: Path, number: int = 0, **elements: Any) -> None:
    path = folder / f"level-{number}.dcm"
    dataset = dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_bad_tilings_are_named(tmp_path: Path) -> None:
    """A picture that would be shifted is refused, with the numbers."""
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, {"TotalPixelMatrixRows": 400}, "28 tiles of 64 x 64"),
        ({}, {"TotalPixelMatrixColumns": 0}, "150 x 0 rows and columns"),
        ({}, {"DimensionOrganizationType": "TILED_SPARSE"}, "no frame has a position"),
        ({"organisation": "TILED_SPARSE"}, {"TotalPixelMatrixRows": 100}, "begin outside"),
    ]
    for number, (how, elements, text) in enumerate(cases):
        folder = tmp_path / str(number)
        made_slide(folder, **how)
        changed(folder, **elements)
        with pytest.raises(HeaderError, match=text):
            dcmdask.open_slide(folder)
        # Frames can be had all the same.
        stack = dcmdask.scan(folder)[0].stacks[0]
        assert stack.shape == (12, 64, 64, 3)
        assert any(note.code == "tiles" for note in stack.notes)


def test_tiles_without_an_organisation(tmp_path: Path) -> None:
    made = made_slide(tmp_path, organisation="")
    with pytest.warns(DcmdaskWarning, match="in the order of TILED_FULL"):
        slide = dcmdask.open_slide(tmp_path)
    np.testing.assert_array_equal(slide.levels[0].to_dask(), expected(made.levels[0]))


def test_positions_may_count_from_anywhere_off_the_grid(tmp_path: Path) -> None:
    """Tiles that overlap: later ones lie over earlier ones, and a note says if places are equal."""
    made = made_slide(tmp_path, syntax=NATIVE, table="none", organisation="TILED_SPARSE")
    path = made.levels[0].path
    dataset = dcmread(path)
    tiles = dataset.pixel_array
    groups = dataset.PerFrameFunctionalGroupsSequence
    rng = np.random.default_rng(8)
    places = rng.integers(0, (150, 210), (len(groups), 2))
    places[3] = places[2]
    out = np.full((150, 210, 3), 255, np.uint8)
    for (top, left), group, tile in zip(places.tolist(), groups, tiles, strict=True):
        position = group.PlanePositionSlideSequence[0]
        position.RowPositionInTotalImagePixelMatrix = top + 1
        position.ColumnPositionInTotalImagePixelMatrix = left + 1
        room = out[top : top + 64, left : left + 64]
        room[...] = tile[: room.shape[0], : room.shape[1]]
    dataset.save_as(path)
    with pytest.warns(DcmdaskWarning, match="1 frames have the place of others"):
        slide = dcmdask.open_slide(path)
    np.testing.assert_array_equal(slide.levels[0].to_dask(), out)
    for _ in range(20):
        top, left = rng.integers(0, (150, 210)).tolist()
        region = slide.read_region((left, top), 0, (40, 30))
        inside = out[top : top + 30, left : left + 40]
        np.testing.assert_array_equal(region[: inside.shape[0], : inside.shape[1]], inside)


def test_absent_pixels_have_the_colour_that_is_recommended(tmp_path: Path) -> None:
    made_slide(
        tmp_path,
        organisation="TILED_SPARSE",
        holes=[(0, 0, 0, 0)],
        RecommendedAbsentPixelCIELabValue=[32768, 32896, 32896],
    )
    level = dcmdask.open_slide(tmp_path).levels[0]
    assert level.to_dask()[0, 0].compute().tolist() == [119, 119, 119]
    assert level.to_dask(fill_value=7)[0, 0].compute().tolist() == [7, 7, 7]


def test_levels_that_do_not_belong_together(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    made_slide(a)
    made_slide(b, (100, 90), PyramidUID="1.2.3")
    with pytest.raises(AmbiguousSourceError, match="2 slides where one is meant"):
        dcmdask.open_slide(tmp_path)
    # Two of one size.
    changed(b, PyramidUID=dcmread(a / "level-0.dcm").PyramidUID)
    made_slide(b, SOPInstanceUID="1.2.3.4")
    with pytest.raises(AmbiguousSourceError, match="of the same optical path"):
        dcmdask.open_slide(tmp_path)
    with pytest.raises(AmbiguousSourceError, match="no image of a whole slide"):
        from pydicom.data import get_testdata_file

        dcmdask.open_slide(get_testdata_file("CT_small.dcm"))


def test_extended_depth_of_field_is_no_focal_plane(tmp_path: Path) -> None:
    """One level is a focal stack or what is made of it; each is a slide of its own."""
    how: dict[str, Any] = {"samples": 1, "syntax": NATIVE}
    stack = made_slide(tmp_path / "stack", focal_planes=3, **how).levels[0]
    flat = made_slide(
        tmp_path / "flat", SOPInstanceUID="1.2.3.9", ExtendedDepthOfField="YES", **how
    ).levels[0]
    (series,) = dcmdask.scan(tmp_path)
    assert "differ in Extended Depth of Field (2)" in str(series.notes[0])
    with pytest.raises(
        AmbiguousSourceError, match=r"one plane that is made of them: \(0048,0012\)"
    ):
        dcmdask.open_slide(series)
    for made in (stack, flat):
        (level,) = dcmdask.open_slide([made.path]).levels
        np.testing.assert_array_equal(level.to_dask(), expected(made))


def test_levels_that_were_padded_are_scaled_by_their_spacing(tmp_path: Path) -> None:
    made_slide(tmp_path, (256, 256), downsamples=(1, 2))
    changed(tmp_path, 1, TotalPixelMatrixColumns=100)
    with pytest.warns(DcmdaskWarning, match="does not cover the field"):
        slide = dcmdask.open_slide(tmp_path)
    assert slide.levels[1].downsample == pytest.approx(2)


def test_levels_of_different_looks_are_named(tmp_path: Path) -> None:
    made_slide(tmp_path, downsamples=(1,), pyramid=True)
    made_slide(tmp_path / "b", (75, 105), syntax=JPEG2000Lossless, SOPInstanceUID="1.2.9")
    changed(tmp_path / "b", SOPInstanceUID="1.2.9")
    dataset = dcmread(tmp_path / "b" / "level-0.dcm")
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [2 * SPACING] * 2
    dataset.save_as(tmp_path / "b" / "level-0.dcm")
    with pytest.warns(DcmdaskWarning, match="level 1 is YBR_RCT"):
        dcmdask.open_slide(tmp_path)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, NATIVE])
def test_regions_equal_those_of_other_readers(tmp_path: Path, syntax: Any) -> None:
    from highdicom import imread

    made_slide(tmp_path, (700, 900), (128, 128), downsamples=(1, 2, 4), syntax=syntax)
    slide = dcmdask.open_slide(tmp_path)
    path = str(tmp_path / "level-0.dcm")
    seed = 15
    rng = np.random.default_rng(seed)
    with openslide.OpenSlide(path) as other, wsidicom.WsiDicom.open(tmp_path) as third:
        assert [(w, h) for w, h in other.level_dimensions] == [
            one.size[::-1] for one in slide.levels
        ]
        np.testing.assert_allclose(
            other.level_downsamples, [one.downsample for one in slide.levels]
        )
        for number, level in enumerate(slide.levels):
            whole = imread(tmp_path / f"level-{number}.dcm").get_total_pixel_matrix(
                apply_icc_profile=False
            )
            own = level.to_dask().compute()
            assert np.abs(own - whole).max() <= 1
            for _ in range(10):
                top, left = (int(rng.integers(0, n - 40)) for n in level.size)
                x, y = left * 2**number, top * 2**number
                found = slide.read_region((x, y), number, (30, 40)).astype(int)
                theirs = np.asarray(other.read_region((x, y), number, (30, 40)))[..., :3]
                assert np.abs(found - theirs).max() <= 3, (seed, number, x, y)
                theirs = np.asarray(third.read_region((left, top), number, (30, 40)))
                assert np.abs(found - theirs).max() <= 3, (seed, number, x, y)


def test_tiled_segments_on_a_level(tmp_path: Path) -> None:
    """Segments that highdicom writes as tiles lie on the level that they were drawn on."""
    made = made_slide(tmp_path / "slide", downsamples=(1, 2))
    drawn = np.zeros((1, 75, 105, 2), np.uint8)
    drawn[0, 10:70, 20:90, 0] = 1
    drawn[0, 5:30, 60:105, 1] = 1
    source = dcmread(made.levels[1].path)
    for organisation in ("TILED_SPARSE", "TILED_FULL"):
        path = written(
            tmp_path / f"{organisation}.dcm",
            [source],
            drawn,
            labels=("Tumour", "Stroma"),
            tile_pixel_array=True,
            dimension_organization_type=organisation,
            omit_empty_frames=organisation == "TILED_SPARSE",
        )
        slide = dcmdask.open_slide(tmp_path / "slide")
        series = dcmdask.scan(path)[0]
        v = series.to_xarray(like=slide.levels[1])
        assert v.dims == ("segment", "y", "x")
        np.testing.assert_array_equal(v, np.moveaxis(drawn[0], -1, 0))
        assert v.segment.values.tolist() == ["Tumour", "Stroma"]
        level = slide.levels[1].to_xarray()
        inside = level.where(v.sel(segment="Tumour") == 1, 0).compute()
        assert (inside[10:70, 20:90] == level[10:70, 20:90]).all()
        with pytest.raises(GeometryError):
            series.to_xarray(like=slide.levels[0])


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, NATIVE, RLELossless])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_is_close_to_the_mean(tmp_path: Path, syntax: Any, factor: int) -> None:
    made = made_slide(tmp_path, (256, 320), syntax=syntax)
    level = dcmdask.open_slide(tmp_path).levels[0]
    lazy = level.to_dask(reduced=factor)
    assert lazy.shape == (256 // factor, 320 // factor, 3)
    blocks = made.levels[0].matrix[0, 0].reshape(256 // factor, factor, 320 // factor, factor, 3)
    mean = blocks.mean((1, 3))
    off = np.abs(lazy.compute() - mean)
    # Other syntaxes than JPEG 2000 and JPEG are averaged.
    assert off.mean() < factor
    assert off.max() <= (0.5 if syntax in (NATIVE, RLELossless) else 255)
    np.testing.assert_array_equal(level.frames(reduced=factor)[3:9, 2:30], lazy[3:9, 2:30])
    with pytest.raises(ValueError, match="reduced is"):
        level.to_dask(reduced=3)
    shown = dcmdask.open_slide(tmp_path).thumbnail(40, reduced=True)
    assert shown.size == (40, 32)


def test_tiles_that_would_not_lie_side_by_side_are_not_reduced(tmp_path: Path) -> None:
    made = made_slide(tmp_path, (100, 90), (50, 50), syntax=NATIVE)
    level = dcmdask.open_slide(tmp_path).levels[0]
    assert level.to_dask(reduced=2).shape == (50, 45, 3)
    with pytest.raises(LayoutError, match="side by side"):
        level.to_dask(reduced=4)
    assert made.levels[0].spacing == SPACING


def test_a_slide_where_one_array_is_meant(tmp_path: Path) -> None:
    made_slide(tmp_path, downsamples=(1, 2))
    with pytest.raises(AmbiguousSourceError, match=r"open_slide\(\.\.\.\) gives the levels"):
        dcmdask.from_dicom(tmp_path)


def test_a_store_of_tiles_has_no_place_on_the_slide(tmp_path: Path) -> None:
    """The frames of one file lie beside one another."""
    made = made_slide(tmp_path / "slide")
    report = dcmdask.to_zarr(made.levels[0].path, tmp_path / "tiles.zarr")
    assert report.shape == (12, 64, 64, 3)
    import zarr

    assert set(zarr.open_group(report.store, mode="r").array_keys()) == {"pixels"}


def test_a_file_for_each_optical_path(tmp_path: Path) -> None:
    """Images of one level in several files are one array; two for one place are an error."""
    how: dict[str, Any] = {"samples": 1, "bits": 16, "syntax": NATIVE, "focal_planes": 2}
    whole = made_slide(tmp_path / "a", optical_paths=2, **how).levels[0]
    other = made_slide(tmp_path / "b", SOPInstanceUID="1.2.3.9", **how).levels[0]
    dataset = dcmread(other.path)
    dataset.OpticalPathSequence[0].OpticalPathIdentifier = "z"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.9")
    dataset.save_as(other.path)
    (level,) = dcmdask.open_slide(tmp_path).levels
    assert level.dims == ("optical_path", "z", "y", "x")
    assert [path.identifier for path in level.optical_paths][-1] == "z"
    expected_ = np.concatenate([whole.matrix, other.matrix])[:, ::-1]
    np.testing.assert_array_equal(level.to_dask(), expected_)
    single = made_slide(tmp_path / "c", SOPInstanceUID="1.2.3.10", **{**how, "focal_planes": 1})
    dataset = dcmread(single.levels[0].path)
    dataset.OpticalPathSequence[0].OpticalPathIdentifier = "y"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.10")
    dataset.save_as(single.levels[0].path)
    (level,) = dcmdask.open_slide(tmp_path).levels
    # One path lacks a focal plane.
    assert level.shape == (4, 2, 150, 210)
    assert not level.to_dask()[3].any(axis=(1, 2)).all()


def test_memory_of_a_pass_depends_on_chunks(tmp_path: Path) -> None:
    import tracemalloc

    import dask

    from dcmdask.pixels.bulk import LOCAL_READ_BYTES

    made_slide(tmp_path, (4096, 4096), (256, 256))
    lazy = dcmdask.open_slide(tmp_path).levels[0].to_dask(chunks=1024)
    sums = lazy.map_blocks(lambda block: block[:1, :1].copy(), chunks=(1, 1, 3), dtype=lazy.dtype)
    with dask.config.set(scheduler="synchronous"):
        sums.compute()
        tracemalloc.start()
        sums.compute()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    chunk = 1024 * 1024 * 3
    # The pixels of the slide are 16 chunks.
    assert peak < 2 * chunk + 2 * LOCAL_READ_BYTES < 16 * chunk


def test_positions_come_before_the_organisation(tmp_path: Path) -> None:
    made = made_slide(tmp_path, organisation="TILED_SPARSE", shuffled=True)
    changed(tmp_path, DimensionOrganizationType="TILED_FULL")
    with pytest.warns(DcmdaskWarning, match="frames have other positions"):
        slide = dcmdask.open_slide(tmp_path)
    np.testing.assert_array_equal(slide.levels[0].to_dask(), expected(made.levels[0]))


def test_a_number_of_focal_planes_that_cannot_be(tmp_path: Path) -> None:
    """It takes no memory."""
    made_slide(tmp_path)
    changed(tmp_path, TotalPixelMatrixFocalPlanes=4_000_000_000)
    with pytest.raises(HeaderError, match="4000000000 planes"):
        dcmdask.open_slide(tmp_path)


def test_heights_that_are_written_in_several_ways_are_one(tmp_path: Path) -> None:
    made = made_slide(tmp_path, organisation="TILED_SPARSE", shuffled=True, syntax=NATIVE)
    path = made.levels[0].path
    dataset = dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = group.PlanePositionSlideSequence[0]
        position.ZOffsetInSlideCoordinateSystem = ("0", "0.0", "-0")[number % 3]
    dataset.save_as(path)
    level = dcmdask.open_slide(path).levels[0]
    np.testing.assert_array_equal(level.to_dask(), expected(made.levels[0]))


def test_heights_of_an_autofocus_are_one_plane(tmp_path: Path) -> None:
    """Of one focal plane, by (0048,0303), tiles follow the tissue."""
    made = made_slide(tmp_path / "a", organisation="TILED_SPARSE", shuffled=True, syntax=NATIVE)
    path = made.levels[0].path
    dataset = dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        position = group.PlanePositionSlideSequence[0]
        position.ZOffsetInSlideCoordinateSystem = f"{5 + 2 * number}"
    dataset.save_as(path)
    level = dcmdask.open_slide(path).levels[0]
    np.testing.assert_array_equal(level.to_dask(), expected(made.levels[0]))
    assert level.focal_planes == (0,)
    # The number is not required of TILED_SPARSE.
    changed(tmp_path / "a", TotalPixelMatrixFocalPlanes=None)
    assert dcmdask.open_slide(path).levels[0].shape == (12, 150, 210, 3)
    # Two tiles of one place cannot be of one plane.
    how: dict[str, Any] = {"organisation": "TILED_SPARSE", "samples": 1, "focal_planes": 2}
    made = made_slide(tmp_path / "b", syntax=NATIVE, TotalPixelMatrixFocalPlanes=1, **how)
    level = dcmdask.open_slide(tmp_path / "b").levels[0]
    np.testing.assert_array_equal(level.to_dask(), expected(made.levels[0]))


def test_parts_that_have_the_same_frames(tmp_path: Path) -> None:
    """Tiles would lie in the place of others, and places of none would show any memory."""
    made_slide(tmp_path / "a", parts=2, ConcatenationFrameOffsetNumber=None)
    with pytest.raises(HeaderError, match=r"one has 6 frames from 0 on .* begins at 0"):
        dcmdask.open_slide(tmp_path / "a")
    made = made_slide(tmp_path / "b", parts=2)
    first, second = made.levels[0].paths
    dataset = dcmread(first)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.9")
    dataset.save_as(second)
    with pytest.raises(HeaderError, match="a part is there twice"):
        dcmdask.open_slide(tmp_path / "b")
    # Positions do not need the number.
    how: dict[str, Any] = {"parts": 2, "organisation": "TILED_SPARSE", "shuffled": True}
    placed = made_slide(tmp_path / "c", ConcatenationFrameOffsetNumber=None, **how)
    whole = dcmdask.open_slide(tmp_path / "c").levels[0].to_dask()
    np.testing.assert_array_equal(whole, expected(placed.levels[0]))


def test_a_plane_without_any_tile_is_white_as_other_places_are(tmp_path: Path) -> None:
    holes = [(1, 1, row, column) for row in range(3) for column in range(4)]
    how: dict[str, Any] = {"organisation": "TILED_SPARSE", "focal_planes": 2, "optical_paths": 2}
    made = made_slide(tmp_path, holes=holes, **how).levels[0]
    level = dcmdask.open_slide(tmp_path).levels[0]
    np.testing.assert_array_equal(level.to_dask(), expected(made))
    np.testing.assert_array_equal(level.to_xarray(fill_value=7)[1, 0], 7)
    np.testing.assert_array_equal(level.stack.to_dask(), expected(made))
    dcmdask.to_zarr(tmp_path, tmp_path / "kept.zarr", keep_codec=True)
    stored = zarr.open_group(tmp_path / "kept.zarr", mode="r")["0"]
    assert isinstance(stored, zarr.Array)
    assert np.all(stored[1, 0] == 255)


def test_a_zero_has_no_sign_in_an_orientation(tmp_path: Path) -> None:
    made_slide(tmp_path, downsamples=(1, 2), pyramid=False)
    changed(tmp_path, 1, ImageOrientationSlide=["-0", "-1", "0", "-1", "-1e-17", "0"])
    assert len(dcmdask.open_slide(tmp_path).levels) == 2


@pytest.mark.parametrize("table", ["basic", "none"])
def test_a_file_that_is_cut_is_named(tmp_path: Path, table: str) -> None:
    made = made_slide(tmp_path, downsamples=(1, 2), table=table)
    cut, other = (one.path for one in made.levels)
    data = cut.read_bytes()
    stored = dcmdask.from_dicom(cut).compute()
    cut.write_bytes(data[: len(data) * 2 // 3])
    # Data Set Trailing Padding (FFFC,FFFC) behind the pixel data.
    padding = b"\xfc\xff\xfc\xffOB\0\0" + (4).to_bytes(4, "little") + bytes(4)
    other.write_bytes(other.read_bytes() + padding)
    with pytest.raises(PixelDataError, match="says 12") as caught:
        dcmdask.open_slide(tmp_path).levels[0].to_dask()
    told = run("info", tmp_path).stdout
    assert "level 0" in told and "level 1" in told
    (note,) = (line for line in told.splitlines() if line.startswith("note"))
    assert note.endswith(str(caught.value))
    whole = re.search(r"from_dicom\(path, number_of_frames=(\d+)\)", note)
    assert whole is not None
    with pytest.warns(DcmdaskWarning, match="bytes are left|is wrong"):
        frames = dcmdask.from_dicom(cut, number_of_frames=int(whole[1]))
    np.testing.assert_array_equal(frames, stored[: len(frames)])


def test_two_slides_of_one_series_are_not_drawn_as_one(tmp_path: Path) -> None:
    made_slide(tmp_path / "a")
    made_slide(tmp_path / "b", (300, 100), PyramidUID="1.2.3.44", SOPInstanceUID="1.2.3.45")
    found = run("picture", tmp_path, tmp_path / "picture.png")
    assert found.returncode == 2 and "2 slides where one is meant" in found.stderr
    assert not (tmp_path / "picture.png").exists()
    told = run("info", tmp_path).stdout
    assert "pyramid 1, level 0" in told and "pyramid 2, level 0" in told and "level 1" not in told


def test_pictures_are_of_the_same_study(tmp_path: Path) -> None:
    made = made_slide(tmp_path, associated=("LABEL",))
    path = made.associated["LABEL"].path
    dataset = dcmread(path)
    dataset.SeriesInstanceUID = UID("1.2.3.1")
    dataset.save_as(path)
    assert dcmdask.open_slide(tmp_path).label is not None
    dataset.StudyInstanceUID = UID("1.2.3.2")
    dataset.save_as(path)
    assert dcmdask.open_slide(tmp_path).label is None


def test_a_picture_leaves_out_what_a_level_was_padded_with(tmp_path: Path) -> None:
    how: dict[str, Any] = {"syntax": NATIVE, "table": "none"}
    made = made_slide(tmp_path, (256, 256), downsamples=(1, 2), **how)
    dataset = dcmread(made.levels[1].path)
    tiles = np.frombuffer(dataset.PixelData, np.uint8).reshape(2, 2, -1)
    dataset.PixelData = np.pad(tiles, ((0, 0), (0, 1), (0, 0))).tobytes()
    dataset.NumberOfFrames, dataset.TotalPixelMatrixColumns = 6, 192
    dataset.save_as(made.levels[1].path)
    with pytest.warns(DcmdaskWarning, match="does not cover the field"):
        slide = dcmdask.open_slide(tmp_path)
    whole = slide.levels[0].to_dask().compute()
    means = whole.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(slide.thumbnail(64)) - means).mean() < 2


def test_memory_of_a_picture_is_not_that_of_its_level(tmp_path: Path) -> None:
    made_slide(tmp_path, (3072, 4096), (256, 256))
    slide = dcmdask.open_slide(tmp_path)
    with dask.config.set(scheduler="synchronous"):
        slide.thumbnail(128)
        tracemalloc.start()
        shown = slide.thumbnail(128)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    whole = slide.levels[0].to_dask().compute()
    assert np.abs(np.asarray(shown) - whole.reshape(96, 32, 128, 32, 3).mean((1, 3))).mean() < 2
    # A chunk of 4 MiB, its tiles, and sums of its rows.
    assert peak < 2**24 < whole.nbytes / 2


@pytest.mark.parametrize(("spacing", "expected_"), [("0.000504", 4), ("0.00048", 4.19)])
def test_rounded_spacings_move_no_level(tmp_path: Path, spacing: str, expected_: float) -> None:
    """Sizes decide by which factor a level is coarser, unless spacings contradict them."""
    made_slide(tmp_path, (4096, 4096), (1024, 1024), downsamples=(1, 4))
    dataset = dcmread(tmp_path / "level-0.dcm")
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [spacing] * 2
    dataset.save_as(tmp_path / "level-0.dcm")
    dataset = dcmread(tmp_path / "level-1.dcm")
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = ["0.00201"] * 2
    dataset.save_as(tmp_path / "level-1.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        slide = dcmdask.open_slide(tmp_path)
    assert slide.levels[1].downsample == pytest.approx(expected_, abs=0 if expected_ == 4 else 0.01)
    assert bool(slide.notes) == (expected_ != 4)


def test_a_slide_without_spacing_and_with_planes_at_any_height(tmp_path: Path) -> None:
    how: dict[str, Any] = {"syntax": NATIVE, "samples": 1, "organisation": "TILED_SPARSE"}
    made = made_slide(tmp_path, focal_planes=4, **how).levels[0]
    dataset = dcmread(made.path)
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = groups.PlanePositionSlideSequence[0]
        height = float(position.ZOffsetInSlideCoordinateSystem)
        position.ZOffsetInSlideCoordinateSystem = f"{height + (height > 3) * 1.3:g}"
    dataset.save_as(made.path)
    with (
        pytest.warns(DcmdaskWarning, match="level 0: gaps are uneven"),
        pytest.warns(DcmdaskWarning, match="level 0: .* pixels have no spacing"),
    ):
        slide = dcmdask.open_slide(tmp_path)
    (level,) = slide.levels
    assert all(map(math.isnan, level.mpp))
    assert level.focal_planes == pytest.approx((7.3, 5.3, 2, 0))
    np.testing.assert_array_equal(level.to_dask(), expected(made))
    assert slide.thumbnail(100).size == (100, 71)


def test_a_fill_value_fits_and_is_of_stored_values(tmp_path: Path) -> None:
    how: dict[str, Any] = {"syntax": NATIVE, "samples": 1, "bits": 16, "RescaleSlope": "2"}
    places = {"organisation": "TILED_SPARSE", "holes": [(0, 0, 0, 0)]}
    made_slide(tmp_path, RescaleIntercept="-5", **how, **places)
    series = dcmdask.scan(tmp_path)[0]
    level = dcmdask.open_slide(tmp_path).levels[0]
    assert series.to_dask(fill_value=9)[0, 0].compute() == level.to_dask(fill_value=9)[0, 0] == 9
    assert series.to_dask("modality")[0, 0].compute() == -5
    for wrong in (1.5, -1, 70000, math.nan):
        with pytest.raises(ValueError, match="does not fit uint16"):
            level.to_dask(fill_value=wrong)
    # It would be 13.
    with pytest.raises(ValueError, match="fill_value 9 is for stored values"):
        series.to_dask("modality", fill_value=9)


def test_missing_tiles_keep_their_colour_in_srgb(tmp_path: Path) -> None:
    """A recommended colour is sRGB, and a fill value what the caller says."""
    made = made_slide(
        tmp_path,
        organisation="TILED_SPARSE",
        holes=[(0, 0, 0, 0)],
        RecommendedAbsentPixelCIELabValue=[32768, 32896, 32896],
        syntax=NATIVE,
    )
    path = made.levels[0].path
    dataset = dcmread(path)
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Another tone curve: that of the identity.
    curve = wide.index(b"para")
    changed_ = wide[: curve + 8] + (0).to_bytes(4, "big") + (1 << 16).to_bytes(4, "big")
    dataset.OpticalPathSequence[0].ICCProfile = changed_ + wide[len(changed_) :]
    dataset.save_as(path)
    slide = dcmdask.open_slide(path)
    level = slide.levels[0]
    stored, shown = (level.to_dask(color=color).compute() for color in ("stored", "srgb"))
    assert np.abs(stored[64:].astype(int) - shown[64:]).max() > 10
    assert shown[0, 0].tolist() == stored[0, 0].tolist() == [119, 119, 119]
    assert level.to_dask(color="srgb", fill_value=7)[0, 0].compute().tolist() == [7, 7, 7]
    outside = slide.read_region((-10, -10), 0, (5, 5), color="srgb")
    assert (outside == 119).all()


def test_a_matrix_that_cannot_be(tmp_path: Path) -> None:
    """It takes neither memory nor time."""
    made_slide(tmp_path, organisation="TILED_SPARSE")
    changed(tmp_path, TotalPixelMatrixRows=2**32 - 1, TotalPixelMatrixColumns=2**32 - 1)
    with pytest.raises(HeaderError, match="and there are 12 frames"):
        dcmdask.open_slide(tmp_path)


def test_a_level_that_is_not_there(tmp_path: Path) -> None:
    made_slide(tmp_path)
    slide = dcmdask.open_slide(tmp_path)
    for level in (-1, 1):
        with pytest.raises(IndexError, match=f"there is no level {level}"):
            slide.read_region((0, 0), level, (3, 3))
