"""Regions of slides are those that other readers give, of real files and of what others write."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import openslide
import pytest
import wsidicom
from made_slides import made_slide
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit
from real_files import corpus_files

import dcmdask
from dcmdask.errors import DcmdaskError, DcmdaskWarning

SEED = 15


def is_tiled(path: Path) -> bool:
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=["TotalPixelMatrixRows"])
    except Exception:
        return False
    return "TotalPixelMatrixRows" in found


def test_real_tiled_files_are_those_of_highdicom() -> None:
    """The matrix, and the place of a pixel on the slide; segments one by one."""
    from highdicom import imread
    from highdicom.seg import segread
    from highdicom.spatial import PixelToReferenceTransformer

    compared = 0
    for path in filter(is_tiled, corpus_files()):
        series = dcmdask.scan(path)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            v = series.to_xarray()
            try:
                if "segment" in v.dims:
                    expected = segread(path).get_total_pixel_matrix(combine_segments=False)
                    expected = np.moveaxis(expected, -1, 0)[:, np.newaxis]
                elif v.attrs["modality"] == "SEG":
                    expected = segread(path).get_total_pixel_matrix(combine_segments=True)
                    expected = expected[np.newaxis]
                else:
                    expected = imread(path).get_total_pixel_matrix(apply_icc_profile=False)
            except AttributeError:
                # highdicom reads no slides without an Optical Path Sequence.
                continue
            there = PixelToReferenceTransformer.for_image(
                dcmread(path, stop_before_pixels=True), for_total_pixel_matrix=True
            )
        np.testing.assert_array_equal(v, expected)
        # Heights are micrometres in the standard, and taken for millimetres there.
        np.testing.assert_allclose(v.dcm.affine[:2, :2], there.affine[:2, :2], atol=1e-9)
        np.testing.assert_allclose(v.dcm.affine[:2, 3], there.affine[:2, 3], atol=1e-9)
        compared += 1
    assert compared >= 10 or not list(corpus_files())


def test_real_slides_are_those_of_openslide() -> None:
    rng = np.random.default_rng(SEED)
    compared = 0
    for path in filter(is_tiled, corpus_files()):
        try:
            other = openslide.OpenSlide(path)
        except openslide.OpenSlideError:
            continue
        slide = dcmdask.open_slide(path)
        with other:
            rows, columns = slide.levels[0].size
            assert other.dimensions == (columns, rows)
            for _ in range(10):
                x, y = (int(rng.integers(-20, n)) for n in (columns, rows))
                theirs = np.asarray(other.read_region((x, y), 0, (40, 30)))
                own = slide.read_region((x, y), 0, (40, 30)).astype(int)
                # Transparent where there is nothing.
                inside = theirs[..., 3] == 255
                off = np.abs(own - theirs[..., :3])[inside]
                assert off.size == 0 or off.max() <= 3, (SEED, path, x, y)
        compared += 1
    assert compared or not list(corpus_files())


@pytest.mark.parametrize("kind", ["copied", "transcoded"])
def test_slides_that_wsidicom_writes(kind: str, tmp_path: Path) -> None:
    made = made_slide(tmp_path / "in", (300, 420), downsamples=(1, 2), syntax=JPEGBaseline8Bit)
    (tmp_path / "out").mkdir()
    how: dict[str, Any] = {}
    if kind == "transcoded":
        from wsidicom.codec import Jpeg2kSettings

        how["transcoding"] = Jpeg2kSettings(levels=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with wsidicom.WsiDicom.open(tmp_path / "in") as slide:
            slide.save(tmp_path / "out", **how)
    written = dcmdask.open_slide(tmp_path / "out")
    assert len(written.levels) >= 2
    for one in made.levels:
        size = one.matrix.shape[2:4]
        (level,) = (each for each in written.levels if each.size == size)
        np.testing.assert_array_equal(level.to_dask(), one.matrix[0, 0])


def test_a_slide_far_away_is_read_in_parts(tmp_path: Path) -> None:
    """Of a remote file a region moves its tiles only, neighbours in one request."""
    made = made_slide(tmp_path, (1024, 1024), (128, 128), syntax=ExplicitVRLittleEndian)
    fs = fsspec.filesystem("memory")
    data = made.levels[0].path.read_bytes()
    fs.pipe_file("/slides/0.dcm", data)
    slide = dcmdask.open_slide("memory://slides/0.dcm")
    level = slide.levels[0]
    np.testing.assert_array_equal(level.to_dask(), made.levels[0].matrix[0, 0])
    frames: Any = level.frames()
    moved: list[int] = []
    own = type(fs).cat_ranges

    def counted(self: Any, paths: Any, starts: Any, ends: Any, **how: Any) -> Any:
        moved.extend(end - start for start, end in zip(starts, ends, strict=True))
        return own(self, paths, starts, ends, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fs), "cat_ranges", counted)
        _ = frames[100:300, 100:300]
    # Three rows of three tiles, and what lies between them: one request is faster than three.
    assert len(moved) == 1 and 9 <= sum(moved) / (128 * 128 * 3) <= 19
    fs.rm("/slides", recursive=True)


def test_a_tiled_parametric_map(tmp_path: Path) -> None:
    """Planes of a map of a slide are put together as those of a slide are."""
    from highdicom.content import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    made = made_slide(tmp_path / "slide", (128, 192))
    source = dcmread(made.levels[0].path)
    values = np.random.default_rng(3).random((1, 128, 192, 1)).astype(np.float32)
    mapping = RealWorldValueMapping(
        lut_label="heat",
        lut_explanation="heat",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1,
        intercept=0,
    )
    tiles = values[0].reshape(2, 64, 3, 64, 1).swapaxes(1, 2).reshape(6, 64, 64, 1)
    made_map = ParametricMap(
        [source],
        tiles,
        series_instance_uid="1.2.3.4",
        series_number=1,
        sop_instance_uid="1.2.3.4.5",
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[mapping]],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1)],
    )
    made_map.save_as(tmp_path / "map.dcm")
    v = dcmdask.scan(tmp_path / "map.dcm")[0].to_xarray()
    np.testing.assert_array_equal(v.squeeze(), values[0, ..., 0])


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_a_damaged_tile_is_named(tmp_path: Path, syntax: Any) -> None:
    """Its neighbours stay readable."""
    made = made_slide(tmp_path, syntax=syntax)
    path = made.levels[0].path
    stream = dcmdask.open_frames(path).encoded(5)[8:]
    data = path.read_bytes()
    path.write_bytes(data.replace(stream, bytes(len(stream))))
    slide = dcmdask.open_slide(path)
    with pytest.raises(DcmdaskError, match="frame 5"):
        slide.read_region((64, 64), 0, (10, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        found = slide.read_region((0, 0), 0, (64, 64))
    np.testing.assert_array_equal(found, made.levels[0].matrix[0, 0, :64, :64])
