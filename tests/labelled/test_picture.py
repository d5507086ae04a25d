"""Contact sheets show each frame in its place, and say which values are black and white."""

import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from dcmdask.labelled import pictures
from dcmdask.labelled.pictures import GAP, GREY, contact_sheet, planes, projection


def sheet(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("samples", [(), (3,)])
def test_bytes_are_shown_as_they_are(tmp_path: Path, samples: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 8, *samples), dtype="u1")
    assert contact_sheet(frames, tmp_path / "a.png", columns=2) == (0.0, 255.0)
    shown = sheet(tmp_path / "a.png")
    assert shown.shape == (3 * 6 + 2 * GAP, 2 * 8 + GAP, *samples)
    for number, frame in enumerate(frames):
        top, left = number // 2 * (6 + GAP), number % 2 * (8 + GAP)
        np.testing.assert_array_equal(shown[top : top + 6, left : left + 8], frame)
    assert (shown[6 : 6 + GAP] == GREY).all()
    assert (shown[12 + 2 * GAP :, 8:] == GREY).all()


@pytest.mark.parametrize(
    ("values", "expected", "shown"),
    [
        (np.array([-1000, 0, 1000], "i2"), (-1000.0, 1000.0), [0, 128, 255]),
        (np.array([0, 2**40, 2**41], "u8"), (0.0, 2.0**41), [0, 128, 255]),
        (np.array([0.0, np.nan, 0.5]), (0.0, 0.5), [0, 0, 255]),
        (np.array([0.0, np.inf, 0.5]), (0.0, 0.5), [0, 255, 255]),
        (np.array([7, 7, 7], "u2"), (7.0, 7.0), [0, 0, 0]),
        (np.array([np.nan] * 3), (0.0, 0.0), [0, 0, 0]),
    ],
)
def test_others_are_stretched(tmp_path: Path, values: Any, expected: Any, shown: Any) -> None:
    assert contact_sheet(values.reshape(1, 1, 3), tmp_path / "a.png") == expected
    assert sheet(tmp_path / "a.png").tolist() == [shown]


def test_a_sheet_is_about_square(tmp_path: Path) -> None:
    contact_sheet(da.zeros((30, 24, 32), dtype="u1"), tmp_path / "a.png")
    height, width = sheet(tmp_path / "a.png").shape
    assert 0.7 < height / width < 1.4


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 2), (0, 4, 4), (1, 2, 3, 3, 3)])
def test_what_is_no_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a picture is made of"):
        contact_sheet(np.zeros(shape), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    frame = np.tile(np.arange(0, 200, 20, dtype="u1"), (4, 1))
    pictures.frame(frame, tmp_path / "a.png", spacing=(3.0, 1.5))
    shown = sheet(tmp_path / "a.png")
    assert shown.shape == (8, 10)
    np.testing.assert_array_equal(shown, np.repeat(frame, 2, axis=0))
    labelled = xr.DataArray(frame, {"z": np.arange(4) * 5.0, "x": np.arange(10) * 2.5}, ("z", "x"))
    pictures.frame(labelled, tmp_path / "a.png")
    assert sheet(tmp_path / "a.png").shape == (8, 10)
    pictures.frame(labelled[::-1], tmp_path / "a.png")
    assert sheet(tmp_path / "a.png").shape == (8, 10)
    # A gap in z has no one spacing.
    pictures.frame(labelled.isel(z=[0, 1, 3]), tmp_path / "a.png")
    assert sheet(tmp_path / "a.png").shape == (3, 10)


def test_labels_tell_the_aspect_of_sheets_and_volumes(tmp_path: Path) -> None:
    along = {"z": 5.0 * np.arange(3), "y": 2.0 * np.arange(4), "x": 1.0 * np.arange(6)}
    volume = xr.DataArray(np.zeros((3, 4, 6), "u1"), along, ("z", "y", "x"))
    contact_sheet(volume, tmp_path / "a.png", columns=3)
    assert sheet(tmp_path / "a.png").shape == (8, 3 * 6 + 2 * GAP)
    planes(volume, tmp_path / "a.png")
    assert sheet(tmp_path / "a.png").shape == (15, 6 + GAP + 6 + GAP + 8)


def test_a_window_is_black_to_white(tmp_path: Path) -> None:
    frame = np.array([[-1000, -160, 100, 240, 3000]], "i2")
    assert pictures.frame(frame, tmp_path / "a.png", window=(40, 400)) == (-160, 240)
    assert sheet(tmp_path / "a.png").tolist() == [[0, 0, 166, 255, 255]]


def test_orthogonal_planes(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype="u1")
    planes(volume, tmp_path / "a.png", at=(1, 2, 3))
    shown = sheet(tmp_path / "a.png")
    assert shown.shape == (4, 5 + GAP + 5 + GAP + 4)
    np.testing.assert_array_equal(shown[:4, :5], volume[1])
    np.testing.assert_array_equal(shown[:3, 5 + GAP : 10 + GAP], volume[::-1, 2])
    np.testing.assert_array_equal(shown[:3, 10 + 2 * GAP :], volume[::-1, :, 3])
    planes(volume, tmp_path / "a.png", spacing=(2.0, 1.0, 1.0))
    assert sheet(tmp_path / "a.png").shape == (6, 5 + GAP + 5 + GAP + 4)
    with pytest.raises(ValueError, match=r"\(z, y, x\)"):
        planes(volume[0], tmp_path / "a.png")
    with pytest.raises(ValueError, match="a volume has"):
        planes(volume[:0], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a spacing of .* has no shape"):
        planes(volume, tmp_path / "a.png", spacing=(0.0, 1.0, 1.0))
    with pytest.raises(TypeError, match="real numbers"):
        planes(volume.astype(complex), tmp_path / "a.png")
    with pytest.raises(IndexError):
        planes(volume, tmp_path / "a.png", at=(99, 0, 0))


def test_a_spacing_that_would_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"make a picture of 80000 x 8, and 10000 is the most"):
        pictures.frame(np.zeros((8, 8)), tmp_path / "a.png", spacing=(10_000, 1))
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("along", ["z", "y", "x"])
@pytest.mark.parametrize("how", ["max", "mean", "min"])
def test_projection(along: str, how: str, tmp_path: Path) -> None:
    """The last frame on top; also of what is lazy, labelled or no array of NumPy's."""
    volume = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype("u1")
    expected = getattr(volume.astype("f8"), how)("zyx".index(along))
    if along != "z":
        expected = expected[::-1]
    made = [volume, da.from_array(volume, chunks=2), xr.DataArray(volume, dims=("z", "y", "x"))]
    for one in made:
        projection(one, tmp_path / "a.png", along=along, how=how, window=(128, 256))
        shown = np.asarray(Image.open(tmp_path / "a.png"))
        np.testing.assert_allclose(shown, expected * 255 / 256, atol=0.51)
    with pytest.raises(ValueError, match="a volume has"):
        projection(volume[0], tmp_path / "a.png")
    for wrong in ({"along": ""}, {"along": "zy"}, {"how": "std"}):
        with pytest.raises(ValueError, match="along is z, y or x"):
            projection(volume, tmp_path / "a.png", **wrong)


def test_a_picture_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (100, 100)).astype("u1")
    pictures.frame(noise, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            pictures.frame(noise[::-1], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_picture_and_no_other_file(tmp_path: Path) -> None:
    # Too long for a name beside it.
    path = tmp_path / f"{'a' * 240}.png"
    with pytest.raises(OSError, match="too long") as info:
        pictures.frame(np.zeros((4, 4), "u1"), path)
    assert info.value.filename == str(path)


def test_numbers_as_large_as_can_be(tmp_path: Path) -> None:
    values = np.array([[-1.7e308, 1.7e308], [0, 1.7e308]])
    pictures.frame(values, tmp_path / "a.png")
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    assert shown.tolist() in ([[0, 255], [127, 255]], [[0, 255], [128, 255]])
    with pytest.raises(ValueError, match="columns is -1"):
        contact_sheet(np.zeros((2, 3, 3)), tmp_path / "a.png", columns=-1)
    with pytest.raises(ValueError, match="a frame has spacings of rows and columns"):
        pictures.frame(values, tmp_path / "a.png", spacing=(1, 2, 3))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_suffix_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.jpg: a picture is a PNG file"):
        contact_sheet(np.zeros((1, 4, 4), "u1"), tmp_path / "a.jpg")
    contact_sheet(np.zeros((1, 4, 4), "u1"), tmp_path / "a.PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        contact_sheet(np.zeros((1, 4, 4), "u1"), pipe)
        assert os.read(reader, 8) == b"\x89PNG\r\n\x1a\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "a.png", tmp_path / "link.png"
    target.write_bytes(b"earlier")
    link.symlink_to("a.png")
    contact_sheet(np.zeros((1, 4, 4), "u1"), link)
    assert link.is_symlink() and sheet(target).shape == (4, 4)


def test_files_beside_a_picture_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "a.png.partial"
    other.write_bytes(b"of somebody else")
    contact_sheet(np.zeros((1, 4, 4), "u1"), tmp_path / "a.png")

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        contact_sheet(np.ones((1, 4, 4), "u1"), tmp_path / "a.png")
    assert other.read_bytes() == b"of somebody else"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.png", other]


def test_spacings_and_places_may_be_arrays(tmp_path: Path) -> None:
    volume = np.arange(60, dtype="u1").reshape(3, 4, 5)
    pictures.frame(volume[0], tmp_path / "a.png", spacing=np.array([2.0, 1.0]))
    assert sheet(tmp_path / "a.png").shape == (8, 5)
    for along, shape in (("z", (4, 5)), ("y", (6, 5)), ("x", (6, 4))):
        projection(volume, tmp_path / "a.png", along=along, spacing=np.array([2.0, 1.0, 1.0]))
        assert sheet(tmp_path / "a.png").shape == shape
    planes(volume, tmp_path / "a.png", at=np.array([0, 1, 2]), spacing=np.array([2.0, 1.0, 1.0]))
    planes(volume, tmp_path / "b.png", at=(0, 1, 2), spacing=(2.0, 1.0, 1.0))
    np.testing.assert_array_equal(sheet(tmp_path / "a.png"), sheet(tmp_path / "b.png"))
