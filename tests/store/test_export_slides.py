"""Whole slides as OME-Zarr: levels kept, missing ones made, each tile decoded once."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import dask
import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import xarray as xr
import zarr
from counting import count_decodings
from export_worker import Exporter
from made_segmentations import written
from made_slides import FOCAL_STEP, SPACING, MadeSlide, made_slide
from ome_zarr.io import parse_url
from ome_zarr.reader import Multiscales, Reader
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from yaozarrs import validate_zarr_store

from dcmdask import (
    AlignmentError,
    DcmdaskWarning,
    DecodeError,
    HeaderError,
    LayoutError,
    StoreExistsError,
    open_slide,
    scan,
    to_zarr,
    verify,
)
from dcmdask.store.pyramid import halve

OME: dict[str, Any] = {"format": "ome-zarr"}
BRIGHT: dict[str, Any] = {"size": (600, 900), "downsamples": (1, 4)}
# Small enough for many regions, with levels that are no multiple of a tile.
SMALL: dict[str, Any] = {"size": (150, 210), "downsamples": (1, 2)}
FLUORESCENT: dict[str, Any] = {
    "samples": 1,
    "bits": 16,
    "syntax": JPEG2000Lossless,
    "optical_paths": 3,
    "focal_planes": 2,
}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles that this process decodes."""
    tiles: list[int] = []
    count_decodings(monkeypatch, tiles.append)
    return tiles


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    exporter = Exporter(tmp_path_factory.mktemp("counts"))
    yield exporter
    exporter.close()


def tiles_of(slide: MadeSlide, tile: int = 64) -> int:
    shapes = [level.matrix.shape for level in slide.levels]
    return sum(paths * planes * -(-h // tile) * -(-w // tile) for paths, planes, h, w, *_ in shapes)


def as_stored(values: np.ndarray) -> np.ndarray:
    """The axes of OME-Zarr: samples in front."""
    return np.moveaxis(values, -1, 0) if values.shape[-1] == 3 else values


def listing(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def told(store: Path) -> Any:
    attributes: Any = zarr.open_group(store, mode="r").attrs.asdict()
    return attributes.get("ome", attributes)


def damaged(slide: MadeSlide, level: int, frame: int) -> None:
    """Cut the codestream of one tile short, so that it does not decode."""
    path = slide.levels[level].path
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 12) if data[at + 8 : at + 12] == b"\xff\x4f\xff\x51"]
    at = starts[frame] + 8
    length = int.from_bytes(data[at - 4 : at], "little")
    data[at + 4 : at + length] = bytes(length - 4)
    path.write_bytes(data)


# What is written


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("kind", ["bright", "fluorescent", "sparse", "parts"])
def test_levels_are_kept_and_others_open_them(kind: str, version: str, tmp_path: Path) -> None:
    options = {
        "bright": BRIGHT,
        "fluorescent": {**SMALL, **FLUORESCENT},
        "sparse": {
            **SMALL,
            "organisation": "TILED_SPARSE",
            "shuffled": True,
            "holes": [(0, 0, 1, 2), (0, 0, 0, 0)],
        },
        "parts": {**SMALL, "parts": 3, "syntax": RLELossless},
    }[kind]
    made_slide(tmp_path / "in", **options, associated=("LABEL", "OVERVIEW", "THUMBNAIL"))
    slide, store = open_slide(tmp_path / "in"), tmp_path / "out.zarr"
    report = to_zarr(tmp_path / "in", store, **OME, ome_version=version, levels=4)
    assert (report.levels, report.tile) == (4, (64, 64))
    group = zarr.open_group(store, mode="r")
    for number, level in enumerate(slide.levels):
        expected = as_stored(level.to_dask().compute())
        np.testing.assert_array_equal(group[str(number)][...], expected)
    for number in (2, 3):
        below = np.asarray(group[str(number - 1)][...])
        made = halve(below, (below.ndim - 2, below.ndim - 1))
        np.testing.assert_array_equal(group[str(number)][...], made)
    assert report.bytes_decoded == sum(level.to_dask().nbytes for level in slide.levels)
    validate_zarr_store(str(store))
    (ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05).Image.from_zarr(group)
    (node,) = Reader(parse_url(str(store), mode="r"))()
    assert any(isinstance(spec, Multiscales) for spec in node.specs)
    assert [level.shape for level in node.data] == [group[str(n)].shape for n in range(4)]
    assert verify(store).ok
    found = verify(store, tmp_path / "in")
    assert found.ok and found.source_token_same and found.levels == 4
    assert found.regions == (report.regions, report.regions)


def test_scales_and_places_are_those_of_the_headers(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, **FLUORESCENT)
    to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, levels=3)
    about = told(tmp_path / "out.zarr")
    (multiscale,) = about["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "z", "y", "x"]
    assert {axis.get("unit") for axis in multiscale["axes"]} == {None, "millimeter"}
    for number, dataset in enumerate(multiscale["datasets"]):
        scale, at = (one[one["type"]] for one in dataset["coordinateTransformations"])
        spacing = SPACING * 2**number
        np.testing.assert_allclose(scale, [1, FOCAL_STEP, spacing, spacing])
        # Its own levels say where they are; one that is made lies half a pixel further in.
        off = SPACING if number == 2 else 0
        np.testing.assert_allclose(at, [0, -FOCAL_STEP, -20 + off, -40 + off])
    labels = [channel["label"] for channel in about["omero"]["channels"]]
    assert labels == ["optical path 0", "optical path 1", "optical path 2"]


def test_xarray_opens_a_level(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    slide, store = open_slide(tmp_path / "in"), tmp_path / "out.zarr"
    to_zarr(slide, store, **OME)
    expected = slide.levels[0].to_xarray()
    found = xr.open_zarr(store, drop_variables=["1"])["0"]
    assert found.dims == ("c", "y", "x")
    for name in ("y", "x"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert found["c"].values.tolist() == ["red", "green", "blue"]


@pytest.mark.parametrize(("levels", "count"), [(1, 1), (2, 2), (5, 5), ("auto", 2)])
def test_number_of_levels(levels: Any, count: int, tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **BRIGHT)
    report = to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, levels=levels)
    assert report.levels == count
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert {name for name in group if name.isdecimal()} == {str(n) for n in range(count)}
    (multiscale,) = told(tmp_path / "out.zarr")["multiscales"]
    # Levels of the slide itself are made by who knows what.
    assert ("type" in multiscale) == (count > 2)


def test_the_coarsest_level_is_halved_until_it_is_small(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", size=(700, 900))
    to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    shapes = [group[str(number)].shape for number in range(3)]
    assert shapes == [(3, 700, 900), (3, 350, 450), (3, 175, 225)]


def test_sources(tmp_path: Path) -> None:
    """A folder, a list, a series, a slide, one level and its stack."""
    made = made_slide(tmp_path / "in", **SMALL, associated=("LABEL",))
    slide, one = open_slide(tmp_path / "in"), tmp_path / "one.zarr"
    wholes = [tmp_path / "in", made.levels[0].paths + made.levels[1].paths]
    for number, src in enumerate([*wholes, scan(tmp_path / "in")[0], slide]):
        store = tmp_path / f"{number}.zarr"
        assert to_zarr(src, store, **OME).levels == 2
        assert verify(store, src).ok
        assert verify(store, tmp_path / "in").ok
    for src in (slide.levels[1], slide.levels[1].stack, made.levels[1].path):
        to_zarr(src, one, **OME, overwrite=True)
        assert zarr.open_array(one, path="0", mode="r").shape == (3, 75, 105)
        assert verify(one, src).ok


def test_one_array_of_one_level(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    made_slide(tmp_path / "one", size=(150, 210))
    slide, store = open_slide(tmp_path / "in"), tmp_path / "out.zarr"
    for src in (slide.levels[0], tmp_path / "one"):
        report = to_zarr(src, store, overwrite=True)
        array = zarr.open_array(store, path="pixels", mode="r")
        assert array.metadata.dimension_names == ("y", "x", "sample")
        np.testing.assert_array_equal(array[...], slide.levels[0].to_dask())
        assert report.chunks == (192, 256, 3)
        assert verify(store, src).ok and verify(store).ok
    with pytest.raises(LayoutError, match="the slide has 2 levels: 150 x 210, 75 x 105"):
        to_zarr(tmp_path / "in", tmp_path / "no.zarr")


def test_a_grey_plane_has_two_axes(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, samples=1, syntax=ExplicitVRLittleEndian)
    for options in (OME, {**OME, "ome_version": "0.4"}):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **options, overwrite=True)
        validate_zarr_store(str(tmp_path / "out.zarr"))
        assert zarr.open_array(tmp_path / "out.zarr", path="0", mode="r").shape == (150, 210)
        assert verify(tmp_path / "out.zarr").ok
        assert verify(tmp_path / "out.zarr", tmp_path / "in").ok


def test_display_values(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, samples=1, bits=16, syntax=RLELossless)
    to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, values="display")
    found = zarr.open_array(tmp_path / "out.zarr", path="1", mode="r")
    expected = open_slide(tmp_path / "in").levels[1].stack.to_dask("display")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[...], expected)
    assert verify(tmp_path / "out.zarr", tmp_path / "in").ok


def test_tiled_segments(tmp_path: Path) -> None:
    """Other tiled objects are cut in the same way; of labels the first is taken, and no mean."""
    level = made_slide(tmp_path / "slide", downsamples=(1, 2)).levels[1]
    drawn = np.zeros((1, 75, 105, 2), np.uint8)
    drawn[0, 10:70, 20:90, 0] = 1
    drawn[0, 5:30, 60:105, 1] = 1
    path = written(
        tmp_path / "seg.dcm", [dcmread(level.path)], drawn, labels=("A", "B"), tile_pixel_array=True
    )
    report = to_zarr(path, tmp_path / "out.zarr", **OME, levels=2, chunks=64, shards=None)
    assert report.tile == (64, 64)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    expected = np.moveaxis(drawn[0], -1, 0)[:, np.newaxis]
    np.testing.assert_array_equal(group["0"][...], expected)
    np.testing.assert_array_equal(group["1"][...], expected[:, :, ::2, ::2])
    assert verify(tmp_path / "out.zarr", path).ok and verify(tmp_path / "out.zarr").ok


# Each tile once


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ome_version": "0.4"},
        {"chunks": 128, "shards": None},
        {"chunks": (1, 64, 128)[1:], "shards": (256, 256)},
        # Regions are of whole tiles, whatever chunks are.
        {"chunks": 100, "shards": None},
        {"chunks": 48, "shards": 96},
    ],
    ids=str,
)
def test_each_tile_is_decoded_once(
    options: dict[str, Any], tmp_path: Path, decoded: list[int]
) -> None:
    made = made_slide(tmp_path / "in", **BRIGHT)
    seen: list[tuple[int, int | None]] = []
    with dask.config.set(scheduler="sync"):
        report = to_zarr(
            tmp_path / "in",
            tmp_path / "out.zarr",
            **{**OME, **options},
            levels=5,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert report.levels == 5
    assert len(decoded) == tiles_of(made)
    assert seen == [(n + 1, report.regions) for n in range(report.regions)]
    assert verify(tmp_path / "out.zarr", tmp_path / "in").ok


def test_regions_are_no_larger_for_a_larger_slide(tmp_path: Path) -> None:
    """By `--dry-run`, since no such slide is made."""
    from dcmdask.store.plan import SHARD_BYTES, Axes, planned

    for size in (2_000, 20_000, 200_000):
        for shards in ("auto", None):
            plan = planned(
                (3, size, size),
                np.dtype(np.uint8),
                Axes(("c", "y", "x"), (1, 2), samples_axis=0, halved=(1, 2), tile=(240, 240)),
                levels="auto",
                shards=shards,
            )
            assert plan.region_bytes <= SHARD_BYTES


def test_a_region_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_slide(tmp_path / "in", **BRIGHT)
    monkeypatch.setattr("dcmdask.store.writer.room", lambda: (300_000, "a test"))
    with pytest.raises(AlignmentError, match=r"whole chunks and whole tiles .* would fit"):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)
    assert to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, chunks=128).regions == 16


# Ended early, damaged


@pytest.mark.parametrize("version", ["0.5", pytest.param("0.4", marks=pytest.mark.rare)])
def test_killed_and_resumed(version: str, exporter: Exporter, tmp_path: Path) -> None:
    made = made_slide(tmp_path / "in", size=(200, 260), downsamples=(1, 2))
    tiles, store = tiles_of(made), tmp_path / "out.zarr"
    options = {**OME, "ome_version": version, "chunks": 64, "shards": None, "levels": 4}
    order = {"scheduler": "threads", "watched": str(tmp_path / "out.zarr"), "options": options}
    answer = exporter.export(tmp_path / "in", store, **order)
    assert answer is not None and "error" not in answer, answer
    assert exporter.decoded == tiles
    whole = listing(store)
    changes = answer["changes"]
    for change in range(1, changes, changes // 8):
        shutil.rmtree(store, ignore_errors=True)
        assert exporter.export(tmp_path / "in", store, **order, kill_at=change) is None
        before = exporter.decoded
        resumed = {**order, "options": {**options, "resume": True}}
        answer = exporter.export(tmp_path / "in", store, **resumed)
        assert answer is not None and "error" not in answer, answer
        assert listing(store) == whole, change
        # Two regions were in flight, of up to two by two tiles.
        assert before + exporter.decoded <= tiles + 8
    assert verify(store, tmp_path / "in").ok


def test_only_missing_objects_are_written(tmp_path: Path, decoded: list[int]) -> None:
    made_slide(tmp_path / "in", size=(200, 260), downsamples=(1, 2))
    store, options = tmp_path / "out.zarr", {**OME, "chunks": 64, "shards": None, "levels": 3}
    to_zarr(tmp_path / "in", store, **options)
    whole = listing(store)
    for key in ("0/c/1/1/2", "1/c/2/0/1", "2/c/0/0/0"):
        (store / key).unlink()
    decoded.clear()
    with dask.config.set(scheduler="sync"):
        report = to_zarr(tmp_path / "in", store, **options, resume=True)
    assert listing(store) == whole
    # An object of level 2 is written with a tile of level 1.
    assert report.written == 3 and len(decoded) == 3
    with pytest.raises(StoreExistsError, match="begun with another"):
        to_zarr(tmp_path / "in", store, **{**options, "levels": 2}, resume=True)


def test_differences_are_found(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, syntax=RLELossless)
    store = tmp_path / "out.zarr"
    to_zarr(tmp_path / "in", store, **OME, levels=3, chunks=64, shards=None)
    group = zarr.open_group(store, mode="r+")
    for name in "012":
        array: Any = group[name]
        array[0, 10, 70 if name == "0" else 7] ^= 1
    found = {one.where: one.what for one in verify(store, tmp_path / "in").differences}
    assert found == {
        "0[0:64, 64:128]": "1 value differs from the source by 1 at most: tile (0, 1)",
        "1[0:64, 0:64]": "1 value differs from the source by 1 at most: tile (0, 0)",
        "2[0:32, 0:32]": "1 value differs from level 1, halved, by 1 at most",
    }
    # Levels of the slide itself are not made of one another.
    alone = verify(store).differences
    assert [one.where for one in alone] == ["2[0:32, 0:32]"]
    (store / "1/c/0/0/0").unlink()
    assert any(one.where == "1/c/0/0/0" for one in verify(store).differences)


def test_another_slide_is_no_source(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    made_slide(tmp_path / "other", size=(150, 210), downsamples=(1, 3))
    made_slide(tmp_path / "one", size=(150, 210))
    to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)
    words = {"other": "and the store", "one": "the slide has 1 of the 2 levels"}
    for name, word in words.items():
        found = verify(tmp_path / "out.zarr", tmp_path / name)
        assert not found.ok and not found.source_token_same
        assert any(one.where == "source" and word in one.what for one in found.differences)


def test_tiles_that_cannot_be_decoded(tmp_path: Path) -> None:
    made = made_slide(tmp_path / "in", **SMALL, syntax=JPEG2000Lossless)
    expected = [as_stored(one.to_dask().compute()) for one in open_slide(tmp_path / "in").levels]
    damaged(made, 0, 6)
    damaged(made, 1, 1)
    store = tmp_path / "out.zarr"
    options = {**OME, "on_error": "fill", "fill_value": 9, "levels": 3, "chunks": 64}
    options["shards"] = None
    report = to_zarr(tmp_path / "in", store, **options)
    assert [frame for frame, _ in report.failures] == [(0, 1, 2), (1, 0, 1)]
    assert "  tile 0, 1, 2 filled: " in str(report)
    expected[0][:, 64:128, 128:192] = 9
    expected[1][:, 0:64, 64:105] = 9
    group = zarr.open_group(store, mode="r")
    for number, one in enumerate(expected):
        np.testing.assert_array_equal(group[str(number)][...], one)
    assert group["missing"].shape == (3, 4) and group["missing-1"].shape == (2, 2)
    assert group["missing"].metadata.dimension_names == ("tile_row", "tile_column")
    assert verify(store).ok and verify(store, tmp_path / "in").ok
    assert xr.open_zarr(store, drop_variables=["1", "2"])["0"].shape == (3, 150, 210)
    # What was filled is told again.
    (store / "0/c/0/0/0").unlink()
    again = to_zarr(tmp_path / "in", store, **options, resume=True)
    assert [frame for frame, _ in again.failures] == [(0, 1, 2), (1, 0, 1)]
    zarr.open_group(store, mode="r+")["0"][0, 70, 140] = 3
    (found,) = (one for one in verify(store).differences if one.where.startswith("0["))
    assert "from the fill value" in found.what and "tile (1, 2)" in found.what


@pytest.mark.parametrize(
    ("absent", "bits", "values"),
    [
        (None, 8, "stored"),
        ([32768, 32896, 32896], 8, "stored"),
        ([40000, 40000, 32896], 8, "stored"),
        ([40000, 40000, 32896], 16, "stored"),
        ([40000, 40000, 32896], 16, "display"),
    ],
)
def test_tiles_that_cannot_be_decoded_look_as_missing_ones(
    absent: list[int] | None, bits: int, values: str, tmp_path: Path
) -> None:
    made = made_slide(
        tmp_path / "in",
        (150, 210),
        bits=bits,
        syntax=JPEG2000Lossless,
        organisation="TILED_SPARSE",
        holes=[(0, 0, 0, 0)],
        **({} if absent is None else {"RecommendedAbsentPixelCIELabValue": absent}),
    )
    (stack,) = scan(tmp_path / "in")[0].stacks
    expected = stack.to_dask(values).compute()
    colour = expected[0, 0]
    assert (colour.tolist() == [255] * 3) == (absent is None)
    # Without that of the hole: row 1, column 3.
    damaged(made, 0, 6)
    store = tmp_path / "out.zarr"
    options = {**OME, "values": values, "on_error": "fill", "levels": 2, "chunks": 64}
    report = to_zarr(tmp_path / "in", store, **options, shards=None)
    assert [frame for frame, _ in report.failures] == [(0, 1, 3)]
    expected[64:128, 192:] = colour
    group = zarr.open_group(store, mode="r+")
    np.testing.assert_array_equal(group["0"], as_stored(expected))
    assert verify(store).ok and verify(store, tmp_path / "in").ok
    group["0"][2, 70, 200] = colour[2] ^ 1
    (found,) = (one for one in verify(store).differences if one.where.startswith("0["))
    assert "from the fill value" in found.what and "tile (1, 3)" in found.what


def test_a_tile_that_cannot_be_decoded_ends_the_export(tmp_path: Path) -> None:
    made = made_slide(tmp_path / "in", **SMALL, syntax=JPEG2000Lossless)
    damaged(made, 1, 1)
    with pytest.raises(DecodeError):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)
    assert not verify(tmp_path / "out.zarr").complete


# Refused


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"samples": 1}, "1 samples instead of 3 samples"),
        ({"focal_planes": 2}, "2 focal planes instead of 1 focal planes"),
        ({"samples": 1, "optical_paths": 2}, "2 optical paths"),
    ],
)
def test_levels_that_differ(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    syntax = {"syntax": RLELossless}
    made_slide(tmp_path / "in", **SMALL, **syntax)
    made_slide(tmp_path / "other", **SMALL, **{**syntax, **other})
    shutil.copy(tmp_path / "other" / "level-1.dcm", tmp_path / "in" / "level-1.dcm")
    # That they differ in colour is warned of, too.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DcmdaskWarning)
        with pytest.raises(LayoutError, match=rf"level 1 of 75 x 105 has .*{words}"):
            to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)
        one = to_zarr(tmp_path / "in", tmp_path / "one.zarr", **OME, levels=1)
    assert one.levels == 1
    assert not (tmp_path / "out.zarr").exists()


def test_syntaxes_that_differ_are_fine(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, syntax=RLELossless)
    made_slide(tmp_path / "other", **SMALL)
    shutil.copy(tmp_path / "other" / "level-1.dcm", tmp_path / "in" / "level-1.dcm")
    with pytest.warns(match="level 1 is YBR_FULL_422 instead of RGB"):
        assert to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME).levels == 2
    with pytest.warns(match="level 1 is"):
        assert verify(tmp_path / "out.zarr", tmp_path / "in").ok


def test_pictures_of_the_label_are_never_exported(tmp_path: Path) -> None:
    made = made_slide(tmp_path / "in", **SMALL, associated=("LABEL",))
    label = made.associated["LABEL"].path
    (stack,) = scan(label)[0].stacks
    refused = "no image of the slide itself .* only LABEL, which may show names"
    for src in (label, stack, scan(label)[0]):
        for how in ({}, OME):
            with pytest.raises(HeaderError, match=refused):
                to_zarr(src, tmp_path / "out.zarr", **how)
    with pytest.raises(HeaderError, match=refused):
        open_slide(label)
    # One that is no total pixel matrix, as labels of one frame may be.
    dataset = dcmread(label)
    del dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns
    dataset.save_as(label)
    assert open_slide(tmp_path / "in").label is not None
    for src in (label, label.parent / "[l]abel*", scan(label)[0]):
        for how in ({}, OME):
            with pytest.raises(HeaderError, match=refused):
                to_zarr(src, tmp_path / "out.zarr", **how)


def test_too_many_levels(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    with pytest.raises(ValueError, match=r"levels 20: 'auto', or from 1 to 9 for \(3, 75, 105\)"):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, levels=20)


def test_paths_and_samples_have_one_axis(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL, optical_paths=2)
    with pytest.raises(LayoutError, match="optical_path and sample"):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME)


def test_labels_are_not_stored_beside_slides(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    with pytest.raises(LayoutError, match="labels of a whole slide"):
        to_zarr(tmp_path / "in", tmp_path / "out.zarr", **OME, labels=tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("next", {}),
        ("next", ["x"]),
        ("next", [{"source": "x"}]),
        ("next", [{"source": "x", "levels": 10**30}]),
        ("next", [{"source": "x", "levels": 1, "fill_value": "x"}]),
        ("next", []),
        ("tile", None),
        ("tile", [0, 64]),
        ("tile", "64"),
        ("tile", [64, 64, 64]),
        ("tile", [10**30, 64]),
        ("fill_value", ["1", None, "3"]),
        ("fill_value", ["1", "2"]),
    ],
    ids=str,
)
def test_metadata_that_nobody_wrote(name: str, value: Any, tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **SMALL)
    store = tmp_path / "out.zarr"
    to_zarr(tmp_path / "in", store, **OME, on_error="fill")
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["dcmdask"]["plan"][name] = value
    (store / "zarr.json").write_text(json.dumps(root))
    try:
        assert not verify(store, tmp_path / "in").ok
    except ValueError as error:
        assert "is not a store that dcmdask exported" in str(error)


# From the command line


def done(*arguments: Any) -> str:
    found = commands.run(*arguments)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_commands(tmp_path: Path) -> None:
    made_slide(tmp_path / "in", **BRIGHT, associated=("LABEL",))
    store = tmp_path / "out.zarr"
    command = ("export", tmp_path / "in", store, "--format", "ome-zarr", "--levels", "3")
    planned = done(*command, "--dry-run")
    assert "3 x 600 x 900, chunks 1 x 512 x 512" in planned
    assert "3 x 75 x 113" in planned
    assert not store.exists()
    assert "3 levels" in done(*command, "--verify", "1")
    assert "the same as the source" in done("verify", store, "--source", tmp_path / "in")
    level = ("--stack", "1", "--overwrite")
    assert "(3, 150, 225)" in done(*command[:5], *level)
