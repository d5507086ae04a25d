"""Labels of OME-Zarr: the segments of a segmentation, on the grid of their image."""

import json
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import xarray as xr
import zarr
from made_segmentations import changed, masks, read, source, written
from ome_zarr_models.v05.image_label import ImageLabel
from yaozarrs import validate_zarr_store

from dcmdask import scan, to_zarr, verify
from dcmdask.errors import GeometryError, LayoutError, StoreExistsError


@pytest.fixture
def images(tmp_path: Path) -> list[Any]:
    return source(tmp_path / "ct")


def stored(tmp_path: Path, store: Any = None, **options: Any) -> zarr.Group:
    store = store or tmp_path / "ct.zarr"
    options = {"format": "ome-zarr", "labels": tmp_path / "seg.dcm", "levels": 2, **options}
    to_zarr(tmp_path / "ct", store, **options)
    return zarr.open_group(store, mode="r")


def on_image(tmp_path: Path) -> xr.DataArray:
    return read(tmp_path / "seg.dcm", like=read(tmp_path / "ct"))


@pytest.mark.parametrize("where", ["local", "memory"])
def test_segments_that_are_apart_are_one_image(
    images: list[Any], where: str, tmp_path: Path
) -> None:
    written(tmp_path / "seg.dcm", images, masks())
    store = tmp_path / "ct.zarr" if where == "local" else f"memory://{tmp_path}/ct.zarr"
    group: Any = stored(tmp_path, store)
    expected = on_image(tmp_path).dcm.labelmap().values
    np.testing.assert_array_equal(group["labels/segments/0"][:], expected)
    # Of labels there is no mean.
    np.testing.assert_array_equal(group["labels/segments/1"][:], expected[:, ::2, ::2])
    assert group["labels/segments/1"].shape == group["1"].shape
    told = group["labels/segments"].attrs["ome"]
    assert group["labels"].attrs["ome"]["labels"] == ["segments"]
    image = group.attrs["ome"]["multiscales"][0]
    for name in ("axes", "datasets"):
        own, of_image = told["multiscales"][0][name], image[name]
        # Level 0 lies where the image lies; the first of two labels, and the mean of two values.
        assert own[0] == of_image[0] if name == "datasets" else own == of_image
    ImageLabel.from_zarr(group["labels/segments"])
    label = told["image-label"]
    assert label["source"] == {"image": "../../"}
    first = label["properties"][0]
    assert (first["label-value"], first["name"], first["type"]) == (1, "Liver", "Liver")
    seg = read(tmp_path / "seg.dcm")
    assert [bytes(one["rgba"][:3]).hex() for one in label["colors"]] == [
        text[1:] for text in seg.segment_colour.values
    ]
    if where == "local":
        validate_zarr_store(str(store))
        assert "PatientName" not in (store / "zarr.json").read_text()
    assert verify(store).ok
    found = verify(store, tmp_path / "ct")
    assert found.ok and [note.code for note in found.notes] == ["labels"]


@pytest.mark.parametrize("told", [None, "YES", "UNDEFINED"])
def test_segments_that_overlap_have_an_image_each(
    images: list[Any], told: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path / "seg.dcm", images, masks(overlapping=told != "YES"))
    changed(path, lambda one: setattr(one, "SegmentsOverlap", told or "UNDEFINED"))
    if told is None:
        changed(path, lambda one: delattr(one, "SegmentsOverlap"))
    group: Any = stored(tmp_path)
    segments = on_image(tmp_path).values
    assert group["labels"].attrs["ome"]["labels"] == ["segment-1", "segment-2", "segment-3"]
    for number, segment in enumerate(segments, 1):
        array = group[f"labels/segment-{number}/0"][:]
        np.testing.assert_array_equal(array, segment * number)
        (row,) = group[f"labels/segment-{number}"].attrs["ome"]["image-label"]["properties"]
        assert row["label-value"] == number
    validate_zarr_store(str(tmp_path / "ct.zarr"))
    assert verify(tmp_path / "ct.zarr").ok


def test_a_label_map_is_stored_as_it_is(images: list[Any], tmp_path: Path) -> None:
    pixels = (masks() * np.arange(1, 4)).max(-1).astype(np.uint8)
    written(tmp_path / "seg.dcm", images, pixels, kind="LABELMAP")
    group: Any = stored(tmp_path)
    np.testing.assert_array_equal(group["labels/segments/0"][:], on_image(tmp_path))
    names = group["labels/segments"].attrs["ome"]["image-label"]["properties"]
    assert {"label-value": 1, "name": "Liver"} in names


def test_labels_are_resumed_and_replaced_with_their_image(
    images: list[Any], tmp_path: Path
) -> None:
    written(tmp_path / "seg.dcm", images, masks())
    store = tmp_path / "ct.zarr"
    stored(tmp_path)
    expected = on_image(tmp_path).dcm.labelmap().values
    chunk = next(path for path in (store / "labels/segments/0/c").rglob("*") if path.is_file())
    chunk.unlink()
    found = verify(store)
    assert [one.what for one in found.differences] == ["it is missing"]
    group: Any = stored(tmp_path, resume=True)
    np.testing.assert_array_equal(group["labels/segments/0"][:], expected)
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    (damaged,) = verify(store).differences
    assert damaged.where == chunk.relative_to(store).as_posix() and "damaged" in damaged.what
    stored(tmp_path, overwrite=True)
    assert verify(store).ok
    metadata = store / "labels" / "zarr.json"
    metadata.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    assert [one.where for one in verify(store).differences] == ["labels/zarr.json"]
    # A file of somebody else below the labels keeps the store from being replaced.
    (store / "labels" / "mine").write_text("mine")
    with pytest.raises(StoreExistsError, match="labels/mine stands in the way"):
        stored(tmp_path, overwrite=True)


def test_another_segmentation_is_no_resumption(images: list[Any], tmp_path: Path) -> None:
    written(tmp_path / "seg.dcm", images, masks())
    stored(tmp_path)
    written(tmp_path / "seg.dcm", images, masks(seed=5))
    with pytest.raises(StoreExistsError, match="labels"):
        stored(tmp_path, resume=True)
    with pytest.raises(StoreExistsError, match="arrays"):
        stored(tmp_path, resume=True, labels=None)


def test_what_is_no_label(images: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    fractions = masks() * np.float32(0.5)
    written(path, images, fractions, kind="FRACTIONAL", fractional_type="PROBABILITY")
    with pytest.raises(LayoutError, match="has fractions"):
        stored(tmp_path)
    with pytest.raises(LayoutError, match="is no segmentation"):
        stored(tmp_path, labels=tmp_path / "ct")
    written(path, images, masks())
    with pytest.raises(ValueError, match="labels are for OME-Zarr"):
        stored(tmp_path, format="zarr", levels="auto")
    changed(path, lambda one: setattr(one, "FrameOfReferenceUID", "1.2.3"))
    stored(tmp_path, tmp_path / "referred.zarr")
    changed(path, lambda one: delattr(one, "ReferencedSeriesSequence"))
    with pytest.raises(GeometryError, match="Frame of Reference"):
        stored(tmp_path)
    assert not (tmp_path / "ct.zarr").exists()


def test_segments_that_say_they_are_apart_and_overlap(images: list[Any], tmp_path: Path) -> None:
    path = written(tmp_path / "seg.dcm", images, masks(overlapping=True))
    changed(path, lambda one: setattr(one, "SegmentsOverlap", "NO"))
    with pytest.raises(ValueError, match="overlap"):
        stored(tmp_path)
    assert zarr.open_group(tmp_path / "ct.zarr").attrs["dcmdask"]["complete"] is False


def test_the_command(images: list[Any], tmp_path: Path) -> None:
    written(tmp_path / "seg.dcm", images, masks())
    target = tmp_path / "a.zarr"
    options = ("--format", "ome-zarr", "--labels", tmp_path / "seg.dcm")
    done = commands.run("export", tmp_path / "ct", target, *options, "--dry-run")
    assert "labels   segments" in done.stdout and not target.exists()
    commands.run("export", tmp_path / "ct", target, *options, "--verify", "1")
    assert scan(tmp_path / "ct").files == 6
    assert (target / "labels" / "segments" / "0" / "zarr.json").exists()
